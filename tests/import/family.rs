//! The EnCodec family by its own configuration: the hub's `config.json`, and audiocraft's checkpoints.

use codec::{
    core::{
        spec::{Layer, PadMode},
        weights::Tensors as _,
    },
    import::{ImportError, Imported},
};
use serde_json::{Value, json};

use super::{
    import_file,
    support::{Tensors, safetensors, text, torch_with},
};

/// A model of the family under the names of its project: no shortcut beside the units, two layers of LSTM.
fn family(filters: usize, ratios: &[usize], dimension: usize, books: usize, entries: usize) -> Tensors {
    let mut out = Tensors::new();
    let mut seed = 0.0;
    let mut add = |name: String, shape: &[usize]| {
        seed += 1.0;
        let values = (0..shape.iter().product::<usize>()).map(|i| ((seed * 0.7 + i as f32 * 0.37).sin()) * 0.1);
        out.insert(name, (shape.to_vec(), values.collect()));
    };
    let mut conv = |name: String, a: usize, b: usize, kernel: usize, bias: usize| {
        add(format!("{name}.weight_g"), &[a, 1, 1]);
        add(format!("{name}.weight_v"), &[a, b, kernel]);
        add(format!("{name}.bias"), &[bias]);
    };
    let stages = ratios.len();
    let width = filters << stages;
    for side in ["encoder", "decoder"] {
        let slot = |index: usize| format!("{side}.model.{index}");
        let (first, last) =
            if side == "encoder" { ((filters, 1), (dimension, width)) } else { ((width, dimension), (1, filters)) };
        conv(format!("{}.conv.conv", slot(0)), first.0, first.1, 7, first.0);
        for stage in 0..stages {
            let (ratio, narrow) = match side {
                "encoder" => (ratios[stages - 1 - stage], filters << stage),
                _ => (ratios[stage], width >> (stage + 1)),
            };
            let unit = match side {
                "encoder" => {
                    conv(format!("{}.conv.conv", slot(3 * stage + 3)), 2 * narrow, narrow, 2 * ratio, 2 * narrow);
                    slot(3 * stage + 1)
                }
                _ => {
                    conv(format!("{}.convtr.convtr", slot(3 * stage + 3)), 2 * narrow, narrow, 2 * ratio, narrow);
                    slot(3 * stage + 4)
                }
            };
            conv(format!("{unit}.block.1.conv.conv"), narrow / 2, narrow, 3, narrow / 2);
            conv(format!("{unit}.block.3.conv.conv"), narrow, narrow / 2, 1, narrow);
        }
        conv(format!("{}.conv.conv", slot(3 * stages + 3)), last.0, last.1, 7, last.0);
    }
    for (side, slot) in [("encoder", 3 * stages + 1), ("decoder", 1)] {
        for layer in 0..2 {
            for part in ["ih", "hh"] {
                add(format!("{side}.model.{slot}.lstm.weight_{part}_l{layer}"), &[4 * width, width]);
                add(format!("{side}.model.{slot}.lstm.bias_{part}_l{layer}"), &[4 * width]);
            }
        }
    }
    for n in 0..books {
        let book = format!("quantizer.vq.layers.{n}._codebook");
        add(format!("{book}.embed"), &[entries, dimension]);
        add(format!("{book}.embed_avg"), &[entries, dimension]);
        add(format!("{book}.cluster_size"), &[entries]);
        add(format!("{book}.inited"), &[1]);
    }
    out
}

/// The same under the hub's names.
fn hub(tensors: &Tensors) -> Tensors {
    let name = |name: &str| {
        name.replace(".model.", ".layers.")
            .replace(".conv.conv.", ".conv.")
            .replace(".convtr.convtr.", ".conv.")
            .replace("quantizer.vq.", "quantizer.")
            .replace("._codebook.", ".codebook.")
    };
    tensors.iter().map(|(key, tensor)| (name(key), tensor.clone())).collect()
}

fn musicgen() -> Value {
    json!({
        "model_type": "encodec", "audio_channels": 1, "chunk_length_s": null, "codebook_dim": 128,
        "codebook_size": 2048, "compress": 2, "dilation_growth_rate": 2, "hidden_size": 128, "kernel_size": 7,
        "last_kernel_size": 7, "norm_type": "weight_norm", "normalize": false, "num_filters": 64,
        "num_lstm_layers": 2, "num_residual_layers": 1, "overlap": null, "pad_mode": "reflect",
        "residual_kernel_size": 3, "sampling_rate": 32000, "target_bandwidths": [2.2], "trim_right_ratio": 1.0,
        "upsampling_ratios": [8, 5, 4, 4], "use_causal_conv": false, "use_conv_shortcut": false
    })
}

/// What audiocraft writes into its checkpoints: its training configuration, with references left as they are.
const TRAINING: &str = "\
device: cuda
sample_rate: 32000
channels: 1
compression_model: encodec
encodec:
  autoencoder: seanet
  quantizer: rvq
  sample_rate: ${sample_rate}
  channels: ${channels}
  causal: false
  renormalize: false
seanet:
  dimension: 128
  channels: ${encodec.channels}
  causal: ${encodec.causal}
  n_filters: 64
  n_residual_layers: 1
  ratios:
  - 8
  - 5
  - 4
  - 4
  activation: ELU
  activation_params:
    alpha: 1.0
  norm: weight_norm
  norm_params: {}
  kernel_size: 7
  residual_kernel_size: 3
  last_kernel_size: 7
  dilation_base: 2
  pad_mode: constant
  true_skip: true
  compress: 2
  lstm: 2
  disable_norm_outer_blocks: 0
  decoder:
    trim_right_ratio: 1.0
    final_activation: null
    final_activation_params: null
  encoder: {}
rvq:
  n_q: 4
  q_dropout: false
  bins: 2048
  decay: 0.99
";

fn stated(training: &str) -> Vec<u8> {
    [text("xp.cfg"), text(training), b"s".to_vec(), text("version"), text("1.2.0"), b"s".to_vec()].concat()
}

/// An object of a library in the place of the text.
fn opaque() -> Vec<u8> {
    let object = b"comegaconf.dictconfig\nDictConfig\n)\x81}X\x05\x00\x00\x00_metaK\x01sb".to_vec();
    [text("xp.cfg"), object, b"s".to_vec()].concat()
}

fn padding(imported: &Imported) -> PadMode {
    match &imported.spec.encoder.as_ref().unwrap()[0] {
        Layer::Conv(conv) => conv.padding.mode,
        other => panic!("{other:?}"),
    }
}

#[test]
fn musicgen_from_the_hub_and_from_audiocraft() {
    let base = family(64, &[8, 5, 4, 4], 128, 4, 2048);
    let first =
        import_file("model.safetensors", &safetensors(&hub(&base)), Some(&musicgen().to_string()), None).unwrap();
    assert_eq!(first.provenance.system.as_deref(), Some("encodec-32khz"));
    let spec = &first.spec;
    assert_eq!((spec.sample_rate, spec.channels, spec.hop, spec.latent), (32_000, 1, 640, 128));
    assert_eq!(spec.codebook_choices, [4]);
    assert_eq!(padding(&first), PadMode::Reflect);
    let view = first.tensors.tensor("decoder.stage3.up.bias").unwrap();
    assert_eq!(view.as_f32().unwrap(), base["decoder.model.12.convtr.convtr.bias"].1);

    // audiocraft's file says zeros, and is otherwise the same model.
    for extra in [stated(TRAINING), opaque()] {
        let file = torch_with(&base, &["best_state"], &extra);
        let other = import_file("compression_state_dict.bin", &file, None, None).unwrap();
        assert_eq!(other.provenance.system.as_deref(), Some("encodec-32khz"));
        assert!(other.tensors == first.tensors);
        assert_eq!(padding(&other), PadMode::Zero);
        let mut reflected = serde_json::to_value(&other.spec).unwrap();
        let text = reflected.to_string().replace(r#""mode":"zero""#, r#""mode":"reflect""#);
        reflected = serde_json::from_str(&text).unwrap();
        assert_eq!(reflected, serde_json::to_value(&first.spec).unwrap());
    }
    // A solver's checkpoint keeps the model one level deeper.
    let file = torch_with(&base, &["best_state", "model"], &stated(TRAINING));
    assert!(import_file("checkpoint.th", &file, None, None).unwrap().tensors == first.tensors);
}

#[test]
fn audiogen_and_unknown_models_of_the_family() {
    let base = family(64, &[8, 5, 4, 2], 128, 4, 2048);
    let training = TRAINING.replace("sample_rate: 32000", "sample_rate: 16000").replace("- 4\n  - 4\n", "- 4\n  - 2\n");
    for extra in [stated(&training), opaque()] {
        let imported = import_file("x", &torch_with(&base, &["best_state"], &extra), None, None).unwrap();
        assert_eq!(imported.provenance.system.as_deref(), Some("audiogen-16khz"));
        assert_eq!((imported.spec.sample_rate, imported.spec.hop), (16_000, 320));
    }

    // Other sizes: by the configuration alone.
    let small = family(8, &[4, 2], 16, 3, 32);
    let config = json!({
        "model_type": "encodec", "codebook_size": 32, "hidden_size": 16, "num_filters": 8, "sampling_rate": 8000,
        "upsampling_ratios": [4, 2], "use_causal_conv": true, "use_conv_shortcut": false, "target_bandwidths": [5.0, 15.0]
    });
    let file = safetensors(&hub(&small));
    let imported = import_file("model.safetensors", &file, Some(&config.to_string()), None).unwrap();
    assert_eq!(imported.provenance.system.as_deref(), Some("encodec"));
    let spec = &imported.spec;
    assert_eq!((spec.sample_rate, spec.hop, spec.latent), (8000, 8, 16));
    assert_eq!(spec.codebook_choices, [1, 3]);
    assert!(matches!(import_file("model.safetensors", &file, None, None), Err(ImportError::Unrecognised { .. })));
    let error = import_file("model.safetensors", &file, None, Some("encodec")).unwrap_err();
    assert!(error.to_string().contains("config.json"), "{error}");

    // It runs, and is streamed as it is in one piece.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    codec::model_file::write_model(&path, spec, &imported.tensors, &imported.provenance).unwrap();
    let model = codec::Model::load(&path).unwrap();
    let pcm: Vec<f32> = (0..1003).map(|i| (i as f32 * 0.1).sin()).collect();
    let options = codec::Options::default();
    let codes = model.encode(&pcm, &options).unwrap();
    assert_eq!(codes.frames(), 1003usize.div_ceil(8));
    assert_eq!(model.decode(&codes, Some(1003), &options).unwrap().len(), 1003);
}

#[test]
fn a_configuration_that_cannot_be_honoured_names_its_field() {
    let small = family(8, &[4, 2], 16, 3, 32);
    let base = json!({
        "model_type": "encodec", "codebook_size": 32, "hidden_size": 16, "num_filters": 8, "sampling_rate": 8000,
        "upsampling_ratios": [4, 2], "use_conv_shortcut": false
    });
    let file = safetensors(&hub(&small));
    for (field, value) in [
        ("norm_type", json!("layer_norm")),
        ("upsampling_ratios", json!([])),
        ("upsampling_ratios", json!([1048576, 1048576])),
        ("upsampling_ratios", json!("8")),
        ("num_filters", json!(-3)),
        ("num_filters", json!(1048576)),
        ("pad_mode", json!("circular")),
        ("trim_right_ratio", json!(0.5)),
        ("normalize", json!(true)),
        ("chunk_length_s", json!(1e300)),
        ("codebook_dim", json!(7)),
        ("compress", json!(3)),
        ("dilation_growth_rate", json!(1048576)),
        ("kernel_size", json!(0)),
    ] {
        let mut config = base.clone();
        config[field] = value;
        config["num_residual_layers"] = if field == "dilation_growth_rate" { json!(5) } else { json!(1) };
        let error = import_file("model.safetensors", &file, Some(&config.to_string()), None).unwrap_err();
        let ImportError::Config { field: found, .. } = &error else { panic!("{field}: {error}") };
        assert_eq!(found, field, "{error}");
    }
    for (from, to, field) in [
        ("quantizer: rvq", "quantizer: no_quant", "encodec.quantizer"),
        ("sample_rate: 32000", "sample_rate: [1]", "encodec.sample_rate"),
        ("final_activation: null", "final_activation: Tanh", "seanet.decoder.final_activation"),
        ("device: cuda", "device: [[", "xp.cfg"),
        // A reference to itself.
        ("bins: 2048", "bins: ${rvq.bins}", "rvq.bins"),
    ] {
        let training = TRAINING.replacen(from, to, 1);
        assert_ne!(training, TRAINING);
        let error = import_file("x", &torch_with(&small, &["best_state"], &stated(&training)), None, None).unwrap_err();
        let ImportError::Config { field: found, .. } = &error else { panic!("{field}: {error}") };
        assert_eq!(found, field, "{error}");
    }
}

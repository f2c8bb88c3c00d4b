//! Importing every published system from synthetic checkpoints in every layout, and the real Lyra.

#[path = "import/family.rs"]
mod family;
mod support;
#[path = "import/tokenizers.rs"]
mod tokenizers;

use std::{fs, path::Path};

use codec::{
    core::{
        spec::{CodecSpec, Framing, Layer, Quantizer},
        weights::{Dtype, Tensors as _},
    },
    import::{ImportError, ImportOptions, Imported, import, systems, wanted_tensors},
    model_file::{ModelFile, write_model},
};
use serde_json::Value;
use support::{
    Tensors,
    golden::{fold, shared_part},
    manifest, safetensors, tensors, torch,
};

/// Imports a file of this name and content, with a `config.json` beside it if given.
fn import_file(name: &str, bytes: &[u8], config: Option<&str>, system: Option<&str>) -> Result<Imported, ImportError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    if let Some(config) = config {
        fs::write(folder.path().join("config.json"), config).unwrap();
    }
    import(&path, &ImportOptions { system: system.map(str::to_owned), ..ImportOptions::default() })
}

fn groups(quantizer: &Quantizer) -> u32 {
    if let Quantizer::Grouped { groups } = quantizer { groups.len() as u32 } else { 1 }
}

/// What must hold of every import.
fn check(imported: &Imported, system: &str, codebooks: usize) {
    assert_eq!(imported.provenance.system.as_deref(), Some(system));
    let text = serde_json::to_string(&imported.spec).unwrap();
    assert_eq!(serde_json::from_str::<CodecSpec>(&text).unwrap(), imported.spec);
    let wanted = wanted_tensors(&imported.spec);
    assert_eq!(wanted.len(), imported.tensors.0.len());
    for tensor in &wanted {
        let view = imported.tensors.tensor(&tensor.name()).unwrap_or_else(|| panic!("{}", tensor.name()));
        assert_eq!((view.shape, view.dtype), (&tensor.shape[..], tensor.dtype), "{}", tensor.name());
    }
    let books = wanted.iter().filter(|tensor| tensor.part == "codebook").count();
    assert_eq!(books, codebooks);
    let codes = match &imported.spec.quantizer {
        // Levels of other rates have several codes in a frame.
        Quantizer::Residual { stages, .. } => {
            let stride = |stage: &Quantizer| if let Quantizer::Rated { stride, .. } = stage { *stride } else { 1 };
            let coarsest = stages.iter().map(stride).max().unwrap();
            stages.iter().map(|stage| coarsest / stride(stage) * groups(stage)).sum()
        }
        _ => codebooks as u32,
    };
    assert_eq!(imported.spec.codebook_choices.last(), Some(&codes));
}

fn renamed(tensors: &Tensors, name: impl Fn(&str) -> String) -> Tensors {
    tensors.iter().map(|(key, tensor)| (name(key), tensor.clone())).collect()
}

/// The newer spelling of weight norm.
fn parametrised(tensors: &Tensors) -> Tensors {
    renamed(tensors, |name| {
        name.replace(".weight_g", ".parametrizations.weight.original0")
            .replace(".weight_v", ".parametrizations.weight.original1")
    })
}

/// Weight norm removed.
fn folded(tensors: &Tensors) -> Tensors {
    let mut out = tensors.clone();
    for (name, (shape, v)) in tensors {
        if let Some(stem) = name.strip_suffix("_v") {
            let (_, g) = out.remove(&format!("{stem}_g")).unwrap();
            out.remove(name);
            out.insert(stem.to_owned(), (shape.clone(), fold(&g, v)));
        }
    }
    out
}

fn values(imported: &Imported, name: &str) -> Vec<f32> {
    imported.tensors.tensor(name).unwrap().as_f32().unwrap().to_vec()
}

/// Rows and channels after a chain of layers, by the lengths that the spec's documentation gives.
fn shape(layers: &[Layer], mut rows: usize, mut channels: usize) -> (usize, usize) {
    for layer in layers {
        match layer {
            Layer::Conv(conv) => {
                assert_eq!(channels, conv.input as usize, "{}", conv.name);
                let window = (conv.kernel as usize - 1) * conv.dilation as usize + 1;
                let free = rows + (conv.padding.left + conv.padding.right) as usize - window;
                let stride = conv.stride as usize;
                rows = if conv.padding.complete { free.div_ceil(stride) } else { free / stride } + 1;
                channels = conv.output as usize;
            }
            Layer::ConvTranspose(conv) => {
                assert_eq!(channels, conv.input as usize, "{}", conv.name);
                rows = (rows - 1) * conv.stride as usize + conv.kernel as usize - conv.trim_left as usize;
                rows = rows.checked_add_signed(-conv.trim_right as isize).unwrap();
                channels = conv.output as usize;
            }
            Layer::PadEnd { multiple } => rows = rows.next_multiple_of(*multiple as usize),
            Layer::Trim { left, right } => rows -= (left + right) as usize,
            Layer::Residual(residual) => {
                let body = shape(&residual.body, rows, channels);
                assert_eq!(body, shape(&residual.shortcut, rows, channels));
                assert_eq!(body, (rows, channels), "{layer:?}");
            }
            Layer::Parallel(parallel) => {
                for branch in &parallel.branches {
                    assert_eq!(shape(&branch.body, rows, channels), (rows, channels));
                    assert_eq!(shape(&branch.then, rows, channels), (rows, channels));
                }
            }
            Layer::Lstm(lstm) => {
                assert_eq!((channels, channels), (lstm.input as usize, lstm.hidden as usize));
                channels *= if lstm.bidirectional { 2 } else { 1 };
            }
            Layer::LayerNorm(norm) => assert_eq!(channels, norm.channels as usize, "{}", norm.name),
            Layer::Scale { name, channels: own } => assert_eq!(channels, *own as usize, "{name}"),
            Layer::Attention(attention) => assert_eq!(channels, attention.channels as usize, "{}", attention.name),
            Layer::Noise(noise) => assert_eq!(channels, noise.channels as usize, "{}", noise.name),
            Layer::Linear(linear) => {
                assert_eq!(channels, linear.input as usize, "{}", linear.name);
                channels = linear.output as usize;
            }
            Layer::LogMel(mel) => (rows, channels) = (rows / mel.hop as usize, mel.mels as usize),
            Layer::Stft(stft) => {
                (rows, channels) = (rows.div_ceil(stft.hop as usize), 3 * (stft.n_fft as usize / 2 + 1));
            }
            Layer::Istft(istft) => {
                assert_eq!(channels, istft.n_fft as usize + 2);
                (rows, channels) = (rows * istft.hop as usize, 1);
            }
            Layer::GroupNorm(norm) => assert_eq!(channels, norm.channels as usize, "{}", norm.name),
            Layer::Activation(_) | Layer::Quantize { .. } | Layer::Dequantize { .. } => {}
        }
    }
    (rows, channels)
}

/// The lengths of the peer's latents and samples are those of the spec, also off the hop.
fn check_lengths(imported: &Imported, case: &Value) {
    let spec = &imported.spec;
    let size = |array: &str| -> Option<(usize, usize)> {
        let shape = case["arrays"][array]["shape"].as_array()?;
        Some((shape[1].as_u64()? as usize, shape[0].as_u64()? as usize))
    };
    let (pcm, channels) = size("pcm").unwrap();
    let odd = case["input"]["odd_length"].as_u64().unwrap() as usize;
    let (segment, rest) = match spec.framing {
        Framing::Segments { length, stride, .. } => (length as usize, pcm - stride as usize),
        Framing::Stream | Framing::Windows { .. } => (pcm, 0),
    };
    let mut compared = 0;
    for (latent, out, samples) in [
        ("latent", "pcm_out", segment),
        ("latent", "pcm_out_6kbps", segment),
        ("latent", "pcm_out_24kbps", segment),
        ("latent", "pcm_out_nq32", segment),
        ("latent_odd", "pcm_out_odd", odd),
        ("latent_odd", "pcm_out_odd_24kbps", odd),
        ("latent_seg0", "", segment),
        ("latent_seg1", "", rest),
    ] {
        // Some cases have codes alone.
        let Some(found) = size(latent).or_else(|| size(&latent.replace("latent", "codes"))) else { continue };
        let (frames, width) = shape(spec.encoder.as_deref().unwrap(), samples, channels);
        assert_eq!((frames, width), (found.0, spec.latent as usize), "{latent}");
        let decoded = shape(spec.decoder.as_deref().unwrap(), frames, width);
        if let Some(out) = size(out) {
            assert_eq!(decoded, out);
            compared += 1;
        } else if latent.contains("seg") {
            assert_eq!(decoded, (frames * spec.hop as usize, channels));
            compared += 1;
        }
    }
    assert!(compared >= 2);
}

#[test]
fn encodec_24khz_in_every_layout() {
    let case = manifest("encodec_24khz");
    let base = tensors(&case);
    let first = import_file("model.safetensors", &safetensors(&base), None, None).unwrap();
    check(&first, "encodec-24khz", 32);
    check_lengths(&first, &case);
    assert_eq!(first.spec.codebook_choices, [2, 4, 8, 16, 32]);
    assert_eq!((first.spec.hop, first.spec.latent, first.spec.channels), (320, 128, 1));
    // Values, not only names: the folded weight of a transposed convolution, a bias, a codebook.
    let theirs = |name: &str| base[name].1.clone();
    let g = theirs("decoder.model.6.convtr.convtr.weight_g");
    let v = theirs("decoder.model.6.convtr.convtr.weight_v");
    assert_eq!(values(&first, "decoder.stage1.up.weight"), fold(&g, &v));
    assert_eq!(values(&first, "encoder.stage2.unit0.shortcut.bias"), theirs("encoder.model.7.shortcut.conv.conv.bias"));
    assert_eq!(values(&first, "quantizer.31.codebook"), theirs("quantizer.vq.layers.31._codebook.embed"));
    assert_eq!(values(&first, "decoder.lstm.weight_hh_l1"), theirs("decoder.model.1.lstm.weight_hh_l1"));

    let transformers = tensors(&manifest("encodec_24khz_transformers"));
    for (what, bytes) in [
        ("torch", torch(&base, &[], &[])),
        ("parametrised", safetensors(&parametrised(&base))),
        ("folded", safetensors(&folded(&base))),
        ("transformers", safetensors(&transformers)),
        ("transformers, parametrised", torch(&parametrised(&transformers), &[], &[])),
    ] {
        let other = import_file("x", &bytes, None, None).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(other.tensors == first.tensors, "{what}");
        assert_eq!(other.spec, first.spec, "{what}");
    }
}

#[test]
fn encodec_48khz_in_both_layouts() {
    let case = manifest("encodec_48khz");
    let base = tensors(&case);
    let first = import_file("x", &safetensors(&base), None, None).unwrap();
    check(&first, "encodec-48khz", 16);
    check_lengths(&first, &case);
    assert_eq!(first.spec.codebook_choices, [2, 4, 8, 16]);
    assert_eq!(values(&first, "decoder.stage0.up.norm.weight"), base["decoder.model.3.convtr.norm.weight"].1);
    assert_eq!(
        values(&first, "encoder.stage0.unit0.conv2.norm.bias"),
        base["encoder.model.1.block.3.conv.norm.bias"].1
    );
    let transformers = renamed(&base, |name| {
        name.replace(".model.", ".layers.")
            .replace(".conv.conv.", ".conv.")
            .replace(".convtr.convtr.", ".conv.")
            .replace(".conv.norm.", ".norm.")
            .replace(".convtr.norm.", ".norm.")
            .replace("quantizer.vq.", "quantizer.")
            .replace("._codebook.", ".codebook.")
    });
    let other = import_file("x", &safetensors(&transformers), None, None).unwrap();
    assert!(other.tensors == first.tensors);
    assert_eq!(other.spec, first.spec);
}

#[test]
fn academicodec_in_every_layout() {
    for (case, file, system, codebooks, hop, rate) in [
        ("academicodec_encodec_16k_320d", "encodec_16khz_320d.pth", "academicodec-encodec-16k-320d", 24, 320, 16_000),
        ("academicodec_encodec_24k_32d", "encodec_24khz_32d.pth", "academicodec-encodec-24k-32d", 2, 32, 24_000),
        ("academicodec_soundstream_24k_240d", "soundstream.pth", "soundstream-24k-240d", 12, 240, 24_000),
    ] {
        let manifest = manifest(case);
        let base = tensors(&manifest);
        let prefixed = renamed(&base, |name| format!("module.{name}"));
        let first =
            import_file(file, &torch(&prefixed, &[], &[]), None, None).unwrap_or_else(|e| panic!("{case}: {e}"));
        check(&first, system, codebooks);
        check_lengths(&first, &manifest);
        assert_eq!((first.spec.hop, first.spec.sample_rate, first.spec.latent), (hop, rate, 512));
        // The trainer's file: the model among discriminators and optimisers.
        let mut trainer = renamed(&prefixed, |name| format!("soundstream.{name}"));
        for other in ["stft_disc.module.w", "mpd.w", "msd.w", "optimizer_g.state.0.exp_avg"] {
            trainer.insert(other.to_owned(), (vec![1], vec![0.0]));
        }
        let other = import_file(file, &safetensors(&trainer), None, None).unwrap_or_else(|e| panic!("{case}: {e}"));
        assert!(other.tensors == first.tensors, "{case}");
        let nested = import_file(file, &torch(&prefixed, &["soundstream"], &[]), None, None).unwrap();
        assert!(nested.tensors == first.tensors, "{case}");
    }
}

#[test]
fn networks_with_two_names_are_ambiguous_without_a_hint() {
    let case = manifest("academicodec_soundstream_24k_240d");
    let file = safetensors(&tensors(&case));
    let Err(ImportError::Ambiguous { candidates, .. }) = import_file("best_100.pth", &file, None, None) else {
        panic!()
    };
    assert_eq!(candidates, ["academicodec-encodec-24k-240d", "soundstream-24k-240d"]);
    let by_file = import_file("encodec_24khz_240d.pth", &file, None, None).unwrap();
    check(&by_file, "academicodec-encodec-24k-240d", 12);
    let by_option = import_file("best_100.pth", &file, None, Some("soundstream-24k-240d")).unwrap();
    check(&by_option, "soundstream-24k-240d", 12);
}

#[test]
fn hificodec_by_config_name_or_option() {
    for (case, system, hop, rate) in [
        ("hificodec_16k_320d", "hificodec-16k-320d", 320, 16_000),
        ("hificodec_24k_240d", "hificodec-24k-240d", 240, 24_000),
        ("hificodec_24k_320d", "hificodec-24k-320d", 320, 24_000),
    ] {
        let manifest = manifest(case);
        let base = tensors(&manifest);
        let file = safetensors(&base);
        let config = format!(r#"{{"sampling_rate": {rate}, "hop_size": 200}}"#);
        let first = import_file("g_00001000", &file, Some(&config), None).unwrap_or_else(|e| panic!("{case}: {e}"));
        check(&first, system, 4);
        check_lengths(&first, &manifest);
        assert_eq!((first.spec.hop, first.spec.sample_rate, first.spec.latent), (hop, rate, 512));
        assert_eq!(values(&first, "quantizer.2.codebook"), base["quantizer.quantizer_modules2.0.embedding.weight"].1);
        assert_eq!(values(&first, "encoder.stage2.norm1.weight"), base["encoder.normalize.7.weight"].1);
        let g = &base["generator.resblocks.5.convs2.1.weight_g"].1;
        let v = &base["generator.resblocks.5.convs2.1.weight_v"].1;
        assert_eq!(values(&first, "decoder.stage1.block2.unit1.conv2.weight"), fold(g, v));
        let published = system.replace("hificodec", "HiFi-Codec");
        let by_name = import_file(&published, &file, None, None).unwrap_or_else(|e| panic!("{case}: {e}"));
        check(&by_name, system, 4);
        assert!(by_name.tensors == first.tensors);
        if hop == 320 {
            assert!(matches!(import_file("g_1", &file, None, None), Err(ImportError::Ambiguous { .. })));
            check(&import_file("g_1", &file, None, Some(system)).unwrap(), system, 4);
        }
    }
}

#[test]
fn dac_in_both_layouts() {
    for (case, system, codebooks, hop, rate) in [
        ("dac_16khz", "dac-16khz", 12, 320, 16_000),
        ("dac_24khz", "dac-24khz", 32, 320, 24_000),
        ("dac_44khz", "dac-44khz", 9, 512, 44_100),
    ] {
        let original = manifest(case);
        let base = tensors(&original);
        let file = torch(&base, &["state_dict"], &[("sample_rate", rate)]);
        let first = import_file("weights.pth", &file, None, None).unwrap_or_else(|e| panic!("{case}: {e}"));
        check(&first, system, codebooks);
        check_lengths(&first, &original);
        assert_eq!((first.spec.hop, first.spec.sample_rate, first.spec.latent), (hop, rate, 1024));
        assert_eq!(
            values(&first, "decoder.stage3.unit2.snake2.alpha"),
            base["decoder.model.4.block.4.block.2.alpha"].1
        );
        assert_eq!(values(&first, "quantizer.3.project_in.bias"), base["quantizer.quantizers.3.in_proj.bias"].1);
        if case == "dac_24khz" {
            continue;
        }
        // The hub's folded weights are those that folding gives, bit for bit.
        let transformers = tensors(&manifest(&format!("{case}_transformers")));
        let config = format!(r#"{{"sampling_rate": {rate}}}"#);
        // With a stated rate, and by the number of codebooks.
        let config = (case == "dac_16khz").then_some(config.as_str());
        let other = import_file("model.safetensors", &safetensors(&transformers), config, None).unwrap();
        assert_eq!(other.spec, first.spec);
        assert!(other.tensors == first.tensors, "{case}");
    }
}

#[test]
fn dac_44khz_16kbps_has_a_narrow_latent() {
    let case = manifest("dac_44khz");
    let mut base = folded(&tensors(&case));
    // The published model differs in the latent's channels and the number of codebooks; values do not matter.
    let mut narrow = |name: String, shape: &[usize]| {
        base.insert(name, (shape.to_vec(), vec![0.5; shape.iter().product()]));
    };
    narrow("encoder.block.6.weight".into(), &[128, 1024, 3]);
    narrow("encoder.block.6.bias".into(), &[128]);
    narrow("decoder.model.0.weight".into(), &[1536, 128, 7]);
    for n in 0..18 {
        let book = format!("quantizer.quantizers.{n}");
        narrow(format!("{book}.in_proj.weight"), &[8, 128, 1]);
        narrow(format!("{book}.in_proj.bias"), &[8]);
        narrow(format!("{book}.out_proj.weight"), &[128, 8, 1]);
        narrow(format!("{book}.out_proj.bias"), &[128]);
        narrow(format!("{book}.codebook.weight"), &[1024, 8]);
    }
    let imported = import_file("weights_44khz_16kbps.pth", &safetensors(&base), None, None).unwrap();
    check(&imported, "dac-44khz-16kbps", 18);
    assert_eq!(imported.spec.latent, 128);
}

#[test]
fn what_does_not_fit_is_listed_by_name() {
    let case = manifest("encodec_24khz");
    let mut base = tensors(&case);
    base.remove("encoder.model.0.conv.conv.weight_g");
    base.remove("decoder.model.1.lstm.bias_hh_l1");
    base.remove("quantizer.vq.layers.7._codebook.embed");
    base.insert("encoder.model.99.extra".into(), (vec![1], vec![0.0]));
    base.insert("decoder.model.15.conv.conv.bias".into(), (vec![2], vec![0.0; 2]));
    base.insert("quantizer.vq.layers.40._codebook.embed".into(), (vec![1024, 128], vec![0.0; 1024 * 128]));
    let error = import_file("x", &safetensors(&base), None, Some("encodec-24khz")).unwrap_err();
    let text = error.to_string();
    let ImportError::Tensors { missing, surplus, mismatched, .. } = error else { panic!("{text}") };
    let mut expected = vec!["encoder.model.0.conv.conv.weight_g".to_owned(), "decoder.model.1.lstm.bias_hh_l1".into()];
    // A count read from names shows its gaps.
    expected.extend([7].into_iter().chain(32..40).map(|n| format!("quantizer.vq.layers.{n}._codebook.embed")));
    let (mut missing, mut wanted) = (missing, expected);
    missing.sort();
    wanted.sort();
    assert_eq!(missing, wanted);
    assert_eq!(surplus, ["encoder.model.99.extra"]);
    assert_eq!(mismatched.len(), 1);
    assert_eq!(mismatched[0].to_string(), "decoder.model.15.conv.conv.bias: [2] instead of [1]");
    for name in missing.iter().chain(&surplus) {
        assert!(text.contains(name.as_str()), "{text}");
    }

    // A weight norm of zero, and a weight that is no number.
    for (name, value) in [("encoder.model.3.conv.conv.weight_v", 0.0), ("encoder.model.3.conv.conv.bias", f32::NAN)] {
        let mut base = tensors(&case);
        base.get_mut(name).unwrap().1.fill(value);
        let error = import_file("x", &safetensors(&base), None, None).unwrap_err();
        assert!(matches!(&error, ImportError::NotFinite(found) if found == name), "{error}");
    }
}

#[test]
fn other_checkpoints_are_not_recognised() {
    let case = manifest("residual_vq");
    let other = safetensors(&tensors(&case));
    let error = import_file("rvq.pt", &other, None, None).unwrap_err();
    assert!(matches!(error, ImportError::Unrecognised { tensors: 1.., .. }), "{error}");
    let error = import_file("x", &other, None, Some("dac-16kHz")).unwrap_err();
    let ImportError::UnknownSystem { known, .. } = error else { panic!("{error}") };
    assert_eq!(known, systems());
    for system in systems() {
        let error = import_file("x", &other, None, Some(system)).unwrap_err();
        assert!(
            matches!(error, ImportError::Tensors { .. } | ImportError::Graph { .. } | ImportError::Config { .. }),
            "{system}: {error}"
        );
    }
    // No tensors at all.
    assert!(matches!(
        import_file("x", &safetensors(&Tensors::new()), None, None),
        Err(ImportError::Unrecognised { .. })
    ));
}

#[test]
fn the_real_lyra_from_graphs_and_from_safetensors() {
    let Some(folder) = shared_part("lyra") else { return };
    let system = |name: &str| ImportOptions { system: Some(name.into()), ..ImportOptions::default() };
    let graphs = import(folder.join("model_coeffs"), &ImportOptions::default()).unwrap();
    check(&graphs, "lyra-v2", 46);
    assert_eq!(graphs.spec.codebook_choices, [16, 30, 46]);
    let file = import(folder.join("lyra_v2.safetensors"), &ImportOptions::default()).unwrap();
    assert_eq!(file.spec, graphs.spec);
    assert!(file.tensors == graphs.tensors);
    let int8 = |i: &Imported| i.tensors.0.values().filter(|tensor| tensor.dtype == Dtype::I8).count();
    assert_eq!(int8(&graphs), 20);
    for lyra in [&graphs, &file] {
        assert_eq!(shape(lyra.spec.encoder.as_deref().unwrap(), 1000, 1), (4, 64));
        assert_eq!(shape(lyra.spec.decoder.as_deref().unwrap(), 4, 64), (1280, 1));
    }

    let floats = import(folder.join("model_coeffs"), &system("lyra-v2-float")).unwrap();
    check(&floats, "lyra-v2-float", 46);
    assert_eq!(int8(&floats), 0);
    let text = serde_json::to_string(&floats.spec).unwrap();
    assert!(!["int8", "quantize\"", "blocks"].iter().any(|word| text.contains(word)), "{text}");
    // The published float weights are those of the safetensors file.
    let bytes = fs::read(folder.join("lyra_v2.safetensors")).unwrap();
    let published = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for (ours, theirs) in [
        ("encoder.stage2.down.weight", "encoder.stage2.down.weight"),
        ("encoder.conv_out.bias", "encoder.bottleneck.bias"),
        ("decoder.stage0.up.weight", "decoder.stage0.up.weight"),
        ("decoder.stage1.up.bias", "decoder.stage1.up.bias"),
        ("decoder.stage0.unit1.depthwise.weight", "decoder.stage0.res1.dw.weight"),
        ("quantizer.0.codebook", "quantizer.codebooks"),
    ] {
        let (found, expected) = (values(&floats, ours), published.tensor(theirs).unwrap());
        for (found, bytes) in found.iter().zip(expected.data().as_chunks::<4>().0) {
            let expected = f32::from_le_bytes(*bytes);
            assert!((found - expected).abs() <= 1e-6 * expected.abs(), "{ours}: {found} {expected}");
        }
    }
}

#[test]
fn an_import_survives_its_model_file() {
    let folder = tempfile::tempdir().unwrap();
    let check = |imported: &Imported, path: &Path| {
        let fingerprint = write_model(path, &imported.spec, &imported.tensors, &imported.provenance).unwrap();
        let model = ModelFile::open(path).unwrap();
        assert_eq!(model.spec(), &imported.spec);
        assert_eq!(model.fingerprint(), fingerprint);
        assert_eq!(model.provenance(), &imported.provenance);
        model.verify().unwrap();
        for (name, tensor) in &imported.tensors.0 {
            let view = model.tensor(name).unwrap();
            assert_eq!((view.dtype, view.shape, view.bytes), (tensor.dtype, &tensor.shape[..], &tensor.bytes[..]));
            if tensor.dtype == Dtype::F32 {
                assert!(view.as_f32().is_some(), "{name} is not aligned");
            }
            if tensor.bytes.len() % 64 == 0 {
                assert_eq!(view.bytes.as_ptr() as usize % 64, 0, "{name}");
            }
        }
        fingerprint
    };
    let case = manifest("encodec_24khz");
    let imported = import_file("x", &safetensors(&tensors(&case)), None, None).unwrap();
    let first = check(&imported, &folder.path().join("a.codec"));
    assert_eq!(first, check(&imported, &folder.path().join("b.codec")));
    if let Some(lyra) = shared_part("lyra/model_coeffs") {
        check(&import(lyra, &ImportOptions::default()).unwrap(), &folder.path().join("lyra.codec"));
    }
}

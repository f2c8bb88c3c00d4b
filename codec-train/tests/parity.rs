//! The networks here against the engine's, on the golden cases: the same outputs from the same tensors, and the same file
//! back.

#[path = "../../tests/support/mod.rs"]
mod support;

use burn::tensor::{Tensor, TensorData};
use codec::{Model, Options, model_file::ModelFile};
use codec_core::{kernel::Compute, pipeline::Chain};
use codec_train::{Store, Tracking, TrainCodec, device, quantizer::Rules};
use support::golden::{self, Case};

struct Pair {
    case: Case,
    file: ModelFile,
    model: Model,
    codec: TrainCodec,
    store: Store,
}

fn pair(name: &str) -> Pair {
    let case = Case::load(&golden::committed(), name);
    let folder = support::import_folder(&case, &case.tensors(), |_| {});
    let path = folder.path().join("model.safetensors");
    let (file, model) = (ModelFile::open(&path).unwrap(), Model::load(&path).unwrap());
    let codec = TrainCodec::new(model.spec(), Rules::default()).unwrap();
    let store = codec.load(&file, &device::cpu()).unwrap();
    Pair { case, file, model, codec, store }
}

fn engine(chain: &Chain, rows: &[f32]) -> Vec<f32> {
    let cx = Compute { isa: Options::default().isa, pool: None };
    let mut state = chain.state(rows.len() / chain.input_channels());
    chain.step(cx, &mut state, rows, true).unwrap().to_vec()
}

/// Channels last to `[1, channels, rows]`.
fn tensor(rows: &[f32], channels: usize) -> Tensor<3> {
    let data = TensorData::new(rows.to_vec(), [1, rows.len() / channels, channels]);
    Tensor::<3>::from_data(data, &device::cpu()).swap_dims(1, 2)
}

fn rows(x: Tensor<3>) -> Vec<f32> {
    x.swap_dims(1, 2).try_into_vec_as::<f32>().unwrap()
}

/// Within 1e-4 of the root mean square.
fn same(what: &str, got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let rms = (expected.iter().map(|v| v * v).sum::<f32>() / expected.len() as f32).sqrt();
    golden::assert_close(what, got, expected, 1e-4 * rms);
}

fn check(name: &str) {
    let Pair { case, file, model, codec, store } = pair(name);
    let channels = model.spec().channels as usize;
    let pcm = case.array("pcm").channels_last();
    // A length that is no multiple of the hop too.
    let odd = case.manifest["input"]["odd_length"].as_u64().unwrap() as usize * channels;
    compare(&file, &model, &codec, &store, [&pcm[..], &pcm[..odd]]);
}

/// Encoder, quantizer and decoder by themselves, and the file that comes out.
fn compare(file: &ModelFile, model: &Model, codec: &TrainCodec, store: &Store, signals: [&[f32]; 2]) {
    // A run without a model file starts from the same spec.
    assert_eq!(codec::import::published_spec(&model.spec().name).as_ref(), Some(model.spec()));
    let channels = model.spec().channels as usize;
    let latent_channels = model.spec().latent as usize;
    let vars = store.vars(Tracking::None);
    for pcm in signals {
        let expected = engine(model.encoder_plan().unwrap().chain(), pcm);
        let latent = codec.encode(&vars, tensor(pcm, channels)).unwrap();
        same("latent", &rows(latent.clone()), &expected);

        // From the engine's latent, so that a code on an edge is not counted as a difference of networks.
        let quantizer = model.encoder_plan().unwrap().quantizer();
        let cx = Compute { isa: Options::default().isa, pool: None };
        let frames = expected.len() / latent_channels;
        let books = quantizer.codebooks();
        let mut codes = vec![0; frames * books];
        let mut scratch = vec![0.0; quantizer.scratch_len(frames, 1)];
        quantizer.encode(cx, &expected, books, 1, &mut codes, &mut scratch).unwrap();
        let mut dequantised = vec![0.0; expected.len()];
        quantizer.decode(cx, &codes, frames, books, &mut dequantised, &mut scratch).unwrap();
        let quantized = codec.quantize(&vars, tensor(&expected, latent_channels), None).unwrap();
        assert_eq!(quantized.uses.len(), books);
        let got = rows(quantized.latent);
        let rms = (dequantised.iter().map(|v| v * v).sum::<f32>() / dequantised.len() as f32).sqrt();
        let off = got
            .chunks(latent_channels)
            .zip(dequantised.chunks(latent_channels))
            .filter(|(a, b)| golden::max_abs_diff(a, b) > 1e-4 * rms)
            .count();
        assert_eq!(off, 0, "{off} of {frames} frames are quantised otherwise");

        let decoded = engine(model.decoder_plan().unwrap().chain(), &dequantised);
        let got = codec.decode(&vars, tensor(&dequantised, latent_channels)).unwrap();
        same("pcm", &rows(got), &decoded);
    }
    returns(file, codec, store);
    let mut normed = store.clone();
    codec.add_weight_norm(&mut normed).unwrap();
    assert!(normed.iter().any(|(name, _)| name.ends_with(".weight_g")));
    returns(file, codec, &normed);
}

/// The file that comes out holds what went in, tensor for tensor.
fn returns(file: &ModelFile, codec: &TrainCodec, store: &Store) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("back.safetensors");
    codec.export(store, &path, file.provenance()).unwrap();
    let back = ModelFile::open(&path).unwrap();
    back.verify().unwrap();
    assert_eq!(back.fingerprint(), file.fingerprint());
    let tensors = |m: &ModelFile| -> Vec<(String, Vec<usize>, Vec<u8>)> {
        m.tensors().map(|(n, t)| (n.to_owned(), t.shape.to_vec(), t.bytes.to_vec())).collect()
    };
    assert!(tensors(&back) == tensors(file));
}

#[test]
fn encodec_24khz() {
    check("encodec_24khz");
}

#[test]
fn hificodec_24k_320d() {
    check("hificodec_24k_320d");
}

#[test]
fn dac_16khz() {
    check("dac_16khz");
}

#[test]
fn soundstream_24k_240d() {
    check("academicodec_soundstream_24k_240d");
}

/// The codec for microcontrollers has no golden case: tensors that were not trained.
#[test]
fn nano_16k() {
    let spec = codec::nano::spec();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nano.safetensors");
    let tensors = codec::nano::random_tensors(&spec, 3);
    codec::model_file::write_model(&path, &spec, &tensors, &Default::default()).unwrap();
    let (file, model) = (ModelFile::open(&path).unwrap(), Model::load(&path).unwrap());
    let codec = TrainCodec::new(&spec, Rules::default()).unwrap();
    let store = codec.load(&file, &device::cpu()).unwrap();
    let pcm: Vec<f32> = (0..6400).map(|i| (i as f32 * 0.05).sin() * (i as f32 * 0.0013).cos() * 0.5).collect();
    compare(&file, &model, &codec, &store, [&pcm, &pcm[..5001]]);
}

#[test]
fn what_cannot_be_trained_is_named() {
    let int8 = r#"{"type": "quantize", "grid": {"scale": 0.5, "zero_point": 3}}"#;
    let layer: codec_core::spec::Layer = serde_json::from_str(int8).unwrap();
    let error = codec_train::net::Network::new(&[layer]).unwrap_err().to_string();
    assert!(error.contains("quantize") && error.contains("int8"), "{error}");
}

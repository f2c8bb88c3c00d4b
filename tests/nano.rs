//! What `nano-16k` promises: rates, sizes, delay, memory, and that it streams.

use codec::{
    Codes, Model, Options,
    core::{kernel::Isa, pipeline::Coding},
    model_file::{Provenance, write_model},
    nano,
};

fn model(folder: &tempfile::TempDir) -> Model {
    let spec = nano::spec();
    let path = folder.path().join("nano.safetensors");
    write_model(&path, &spec, &nano::random_tensors(&spec, 3), &Provenance::default()).unwrap();
    Model::load(path).unwrap()
}

fn pcm(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * 0.07).sin() * 0.4 + (i as f32 * i as f32 * 1e-5).sin() * 0.3).collect()
}

#[test]
fn sizes_are_what_a_microcontroller_has() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(&folder);
    let info = model.info().unwrap();
    let kbps: Vec<f64> = info.bitrates.iter().map(|b| b.kbps).collect();
    assert_eq!(kbps, [1.5, 3.0, 6.0]);
    assert_eq!(info.frame_rate, 50.0);
    let delay = info.delay_ms.unwrap();
    let books = 20 * 64 * u64::from(model.spec().latent);
    let search = books as f64 * info.frame_rate / 1e6;
    for (name, part, search) in [("encoder", info.encoder.unwrap(), search), ("decoder", info.decoder.unwrap(), 0.0)] {
        let parameters = part.plan.parameters + books;
        let macs = part.mmac_per_second + search;
        println!("{name}: {parameters} parameters with codebooks, {macs:.1} MMAC/s with the search, delay {delay} ms");
        assert!(part.streamable && parameters <= 1_000_000 && macs <= 150.0);
        assert!(part.plan.receptive_field.is_some());
    }
    assert!(delay <= 40.0, "{delay}");

    let encode = model.encoder_plan().unwrap().state_bytes(1, &Coding::new(1));
    let decode = model.decoder_plan().unwrap().state_bytes(1);
    println!("state and scratch: encoder {encode} bytes, decoder {decode} bytes");
    assert!(encode.max(decode) <= 96 << 10);
}

#[test]
fn it_streams_exactly_and_keeps_the_length() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(&folder);
    let options = Options::default();
    for len in [1, 319, 320, 321, 5000] {
        let pcm = pcm(len);
        let whole = model.encode(&pcm, &options).unwrap();
        assert_eq!(whole.frames(), len.div_ceil(320), "{len}");
        let places = whole.data.iter().enumerate().map(|(i, code)| (i % whole.codebooks, code));
        let distinct: std::collections::BTreeSet<_> = places.collect();
        assert!(len < 5000 || distinct.len() > 60, "random weights, yet only {} different codes", distinct.len());
        let mut encoder = model.encoder(&options).unwrap();
        let mut pieces = Codes::new(encoder.codebooks());
        for piece in pcm.chunks(37) {
            encoder.push(piece, &mut pieces).unwrap();
        }
        encoder.finish(&mut pieces).unwrap();
        assert_eq!(pieces.data, whole.data);
        let decoded = model.decode(&whole, Some(len as u64), &options).unwrap();
        assert!(decoded.len() == len && decoded.iter().all(|v| v.is_finite()));
        let scalar = Options { isa: Isa::Scalar, ..options.clone() };
        assert_eq!(model.decode(&whole, Some(len as u64), &scalar).unwrap(), decoded);
    }
}

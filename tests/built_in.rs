//! The model in the box makes the recorded tokens of the sample, on every instruction set.
//!
//! `CODEC_RECORD=1 cargo test --test built_in` records them again for other weights.

use std::{fs, path::Path};

use codec::{
    Codes, Model, Options, PackOptions,
    core::{
        bitstream::{CodeGroup, GROUP_LEN, Header, Layout},
        kernel::Isa,
        weights::Precision,
    },
    nac::{Item, Method, NacReader, NacWriter},
};

const AGAIN: &str =
    "if the model in the box was replaced, `CODEC_RECORD=1 cargo test --test built_in` records its tokens";

fn sample() -> Vec<f32> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/speech.wav");
    let mut wav = hound::WavReader::open(path).unwrap();
    assert_eq!((wav.spec().sample_rate, wav.spec().channels, wav.spec().bits_per_sample), (16_000, 1, 16));
    wav.samples::<i16>().map(|v| f32::from(v.unwrap()) / 32768.0).collect()
}

fn write(model: &Model, codes: &Codes, samples: u64) -> Vec<u8> {
    let spec = model.spec();
    let groups = CodeGroup::of(model.quantizer().unwrap(), 0, codes.codebooks).unwrap();
    let mut storage = vec![0; groups.len() * GROUP_LEN];
    let layout = Layout::new(&groups, &mut storage).unwrap();
    let header = Header {
        fingerprint: model.fingerprint().0,
        sample_rate: spec.sample_rate,
        channels: spec.channels.try_into().unwrap(),
        hop: spec.hop,
        samples: Some(samples),
        method: Method::Raw,
        segments: false,
        chunk_frames: Header::default_chunk_frames(spec.sample_rate, spec.hop, false, &layout),
        layout,
    };
    let mut writer = NacWriter::new(Vec::new(), &header).unwrap();
    writer.write(&codes.data).unwrap();
    writer.finish(Some(samples)).unwrap().0
}

/// The model's fingerprint and the codes.
fn read(nac: &[u8]) -> ([u8; 16], Vec<u16>) {
    let mut reader = NacReader::new(nac).unwrap();
    let fingerprint = reader.header().unwrap().fingerprint;
    let mut codes = Vec::new();
    while let Some(item) = reader.next().unwrap() {
        match item {
            Item::Frames(frames) => codes.extend_from_slice(frames.codes),
            Item::End(_) => break,
            other => panic!("{other:?}"),
        }
    }
    (fingerprint, codes)
}

#[test]
fn the_recorded_tokens_on_every_instruction_set() {
    let model = Model::built_in().unwrap();
    let pcm = sample();
    let encode = |isa, threads| model.encode(&pcm, &Options { isa, threads, ..Options::default() }).unwrap();
    let scalar = encode(Isa::Scalar, 1);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/built_in/speech.nac");
    if std::env::var_os("CODEC_RECORD").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, write(&model, &scalar, pcm.len() as u64)).unwrap();
        println!("recorded {}: {} frames of {} codes", path.display(), scalar.frames(), scalar.codebooks);
    }
    let recorded = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}; {AGAIN}", path.display()));
    let (fingerprint, tokens) = read(&recorded);
    assert_eq!(fingerprint, model.fingerprint().0, "the tokens are another model's: {AGAIN}");
    assert!(
        tokens.len() == scalar.data.len() && tokens.len() == pcm.len().div_ceil(320) * scalar.codebooks,
        "{}",
        tokens.len()
    );

    let decode = |isa, threads| {
        let options = Options { isa, threads, ..Options::default() };
        model.decode(&scalar, Some(pcm.len() as u64), &options).unwrap()
    };
    let samples = decode(Isa::Scalar, 1);
    assert!(samples.iter().any(|v| v.abs() > 0.01), "silence");
    for (isa, threads) in Isa::all_available().flat_map(|isa| [(isa, 1), (isa, 3)]) {
        let codes = encode(isa, threads).data;
        let differ = codes.iter().zip(&tokens).filter(|(a, b)| a != b).count();
        let first =
            codes.iter().zip(&tokens).position(|(a, b)| a != b).map(|i| (i / scalar.codebooks, i % scalar.codebooks));
        assert!(
            differ == 0,
            "{isa:?}, {threads} thread(s): {differ} tokens differ, first (frame, codebook) {first:?}; {AGAIN}"
        );
        let same = decode(isa, threads).iter().zip(&samples).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "{isa:?}, {threads} thread(s): other samples");
        println!("{isa:?}, {threads} thread(s): {} tokens equal", codes.len());
    }
}

/// Training goes on from the model file, and other images are packed from it.
#[test]
fn the_image_is_packed_from_the_model_file() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/nano-16k.safetensors");
    let model = Model::load(path).unwrap();
    model.verify().unwrap();
    let image = model.with_precision(Precision::I8).pack(&PackOptions::default()).unwrap();
    let repack = "`codec pack models/nano-16k.safetensors --dtype i8 -o models/nano-16k.bin -f` makes it again";
    assert!(image == Model::built_in_image(), "the image is another model's: {repack}");
}

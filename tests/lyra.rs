//! Lyra v2 with its real weights, which are not part of this repository: tests run where the shared folder has them.

#[path = "../codec-core/tests/support/golden.rs"]
mod golden;

use std::path::{Path, PathBuf};

use codec::{Codes, Model, Options, import::ImportOptions};
use codec_core::kernel::Isa;

/// Codebooks of 3.2, 6 and 9.2 kbit/s.
const RATES: [(u32, usize); 3] = [(3200, 16), (6000, 30), (9200, 46)];

fn folder() -> Option<PathBuf> {
    golden::shared_part("lyra")
}

fn load(folder: &Path, system: &str) -> Model {
    let options = ImportOptions { system: Some(system.into()), ..Default::default() };
    let imported = codec::import::import(folder.join("model_coeffs"), &options).unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("lyra.safetensors");
    codec::model_file::write_model(&path, &imported.spec, &imported.tensors, &imported.provenance).unwrap();
    Model::load(&path).unwrap()
}

/// The data of an `.npy` file of format 1, whatever its type.
fn npy(path: PathBuf) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\0");
    bytes[10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]))..].to_vec()
}

fn floats(path: PathBuf) -> Vec<f32> {
    npy(path).chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn sample(vectors: &Path) -> Vec<f32> {
    let bytes = npy(vectors.join("sample1.input_i16.npy"));
    bytes.chunks_exact(2).map(|b| f32::from(i16::from_le_bytes(b.try_into().unwrap())) / 32768.0).collect()
}

fn options(codebooks: usize) -> Options {
    let isa =
        std::env::var("CODEC_ISA").map_or_else(|_| Isa::detect(), |name| name.parse().expect("an instruction set"));
    Options { isa, codebooks: Some(codebooks), ..Options::default() }
}

/// A packet holds four bits a code, the first code in the high bits.
fn packets(codes: &Codes) -> Vec<u8> {
    codes.data.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

#[test]
fn exact_mode_is_the_original_bit_for_bit() {
    let Some(folder) = folder() else { return };
    let (model, vectors) = (load(&folder, "lyra-v2"), folder.join("vectors"));
    let pcm = sample(&vectors);

    let chain = model.encoder_plan().unwrap().chain();
    let cx = codec_core::kernel::Compute { isa: options(1).isa, pool: None };
    let mut state = chain.state(pcm.len());
    let features = chain.step(cx, &mut state, &pcm, true).unwrap();
    assert_eq!(features, floats(vectors.join("sample1.xnn.features.npy")), "features");

    let tokens: Vec<u16> = npy(vectors.join("sample1.xnn.tokens46.npy")).into_iter().map(u16::from).collect();
    assert_eq!(model.encode(&pcm, &options(46)).unwrap().data, tokens, "tokens");

    for (rate, codebooks) in RATES {
        let codes = model.encode(&pcm, &options(codebooks)).unwrap();
        assert_eq!(
            packets(&codes),
            std::fs::read(vectors.join(format!("sample1.xnn.{rate}.lyra"))).unwrap(),
            "packets at {rate}"
        );
        let wave = model.decode(&codes, None, &options(codebooks)).unwrap();
        assert_eq!(wave, floats(vectors.join(format!("sample1.xnn.{rate}.wave_f32.npy"))), "waveform at {rate}");

        // Packet by packet, as on a line.
        let mut encoder = model.encoder(&options(codebooks)).unwrap();
        let mut decoder = model.decoder(&options(codebooks)).unwrap();
        let (mut frames, mut out) = (Codes::new(codebooks), Vec::new());
        for packet in pcm.chunks(320) {
            frames.clear();
            encoder.push(packet, &mut frames).unwrap();
            assert_eq!(frames.frames(), 1);
            decoder.push(&frames, &mut out).unwrap();
        }
        assert_eq!(out, wave, "frame by frame at {rate}");
    }
}

/// What the specification says of plain f32: 95 to 98 % of the first stage's tokens, 72 to 78 % of 16 stages', 39 to 47 %
/// of all; 25.0 to 26.5 dB from the same tokens.
#[test]
fn float_mode_is_as_close_as_it_should_be() {
    let Some(folder) = folder() else { return };
    let (model, vectors) = (load(&folder, "lyra-v2-float"), folder.join("vectors"));
    let pcm = sample(&vectors);
    let tokens: Vec<u16> = npy(vectors.join("sample1.xnn.tokens46.npy")).into_iter().map(u16::from).collect();
    let ours = model.encode(&pcm, &options(46)).unwrap().data;
    let share = |stages: usize| {
        let pairs = ours.chunks(46).zip(tokens.chunks(46));
        let equal: usize = pairs.map(|(a, b)| a[..stages].iter().zip(b).filter(|(a, b)| a == b).count()).sum();
        // In whole percent, as the specification has them.
        (100.0 * equal as f64 / (stages * tokens.len() / 46) as f64).round() as u32
    };
    println!("equal tokens in percent: {} of stage 1, {} of 16 stages, {} of 46", share(1), share(16), share(46));
    assert!((95..=98).contains(&share(1)) && (72..=78).contains(&share(16)) && (39..=47).contains(&share(46)));

    let wave = model.decode(&Codes { codebooks: 46, data: tokens, segments: vec![] }, None, &options(46)).unwrap();
    let reference = floats(vectors.join("sample1.xnn.9200.wave_f32.npy"));
    let power = |x: &mut dyn Iterator<Item = f32>| x.map(|v| f64::from(v) * f64::from(v)).sum::<f64>();
    let noise = power(&mut wave.iter().zip(&reference).map(|(a, b)| a - b));
    let snr = 10.0 * (power(&mut reference.iter().copied()) / noise).log10();
    println!("SNR from the same tokens: {snr:.1} dB");
    assert!((25.0..=26.5).contains(&snr));
}

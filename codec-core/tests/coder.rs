//! Encoder and decoder with levels of several rates: any chunking gives the same codes and samples.

#[path = "support/tensors.rs"]
mod tensors;

use codec_core::{
    RunError,
    kernel::{Compute, Isa},
    pipeline::{Decoder, Encoder},
    spec::{
        CodecSpec, Conv, ConvTranspose, Framing, Layer, Metric, PadMode, Padding, Quantizer, ResidualRounding,
        SPEC_VERSION, Vq,
    },
};
use proptest::prelude::*;
use tensors::MapTensors;

fn cx() -> Compute<'static> {
    Compute { isa: Isa::detect(), pool: None }
}

/// A hop of 8 samples: rows of 2 samples, 4 rows a frame, 1 + 2 + 4 codes.
fn spec(pad: bool) -> CodecSpec {
    let level = |(i, stride): (usize, u32)| Quantizer::Rated {
        stride,
        inner: Box::new(Quantizer::Vq(Vq {
            name: format!("q.{i}"),
            size: 16,
            dim: 5,
            metric: Metric::Euclidean,
            project_in: None,
            project_out: None,
        })),
    };
    let conv = Conv {
        name: "in".into(),
        input: 1,
        output: 5,
        kernel: 4,
        stride: 2,
        dilation: 1,
        groups: 1,
        bias: true,
        padding: Padding { mode: PadMode::Zero, left: 1, right: 1, complete: false },
        int8: None,
    };
    let up = ConvTranspose {
        name: "out".into(),
        input: 5,
        output: 1,
        kernel: 4,
        stride: 2,
        groups: 1,
        bias: true,
        trim_left: 1,
        trim_right: 1,
        blocks: None,
    };
    let mut encoder = vec![Layer::Conv(conv)];
    if pad {
        encoder.insert(0, Layer::PadEnd { multiple: 8 });
    }
    CodecSpec {
        version: SPEC_VERSION,
        name: "levels".into(),
        sample_rate: 800,
        channels: 1,
        hop: 8,
        latent: 5,
        framing: Framing::Stream,
        codebook_choices: vec![1, 3, 7],
        encoder: Some(encoder),
        quantizer: Quantizer::Residual {
            stages: [4, 2, 1].into_iter().enumerate().map(level).collect(),
            project_in: None,
            project_out: None,
            rounding: ResidualRounding::Plain,
        },
        decoder: Some(vec![Layer::ConvTranspose(up)]),
    }
}

fn encode(encoder: &Encoder, pcm: &[f32], codebooks: usize, pieces: &[usize]) -> Vec<u16> {
    let largest = pieces.iter().copied().max().unwrap();
    let mut state = encoder.state(largest.div_ceil(8), codebooks, 1).unwrap();
    let mut codes = vec![0; encoder.max_frames(largest) * codebooks];
    let mut all = Vec::new();
    // Something else first: reset must leave nothing of it.
    encoder.step(cx(), &mut state, &[0.5; 7][..7.min(largest)], true, &mut codes).unwrap();
    state.reset();
    let mut rest = pcm;
    for &n in pieces.iter().cycle() {
        let (now, later) = rest.split_at(n.min(rest.len()));
        rest = later;
        let frames = encoder.step(cx(), &mut state, now, rest.is_empty(), &mut codes).unwrap();
        all.extend_from_slice(&codes[..frames * codebooks]);
        if rest.is_empty() {
            break;
        }
    }
    all
}

fn decode(decoder: &Decoder, codes: &[u16], codebooks: usize, pieces: &[usize]) -> Vec<f32> {
    let largest = pieces.iter().copied().max().unwrap();
    let mut state = decoder.state(largest, codebooks).unwrap();
    let mut pcm = Vec::new();
    let mut rest = codes;
    for &n in pieces.iter().cycle() {
        let (now, later) = rest.split_at((n * codebooks).min(rest.len()));
        rest = later;
        pcm.extend_from_slice(decoder.step(cx(), &mut state, now, rest.is_empty()).unwrap());
        if rest.is_empty() {
            break;
        }
    }
    pcm
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_chunking_gives_the_same(
        pad in any::<bool>(), choice in 0usize..3, pcm in prop::collection::vec(-1f32..1.0, 0..90),
        pieces in prop::collection::vec(1usize..20, 1..6), seed in any::<u64>(),
    ) {
        let codebooks = [1, 3, 7][choice];
        let spec = spec(pad);
        let tensors = MapTensors::random(&spec.tensors(), seed);
        let (encoder, decoder) = (Encoder::new(&spec, &tensors).unwrap(), Decoder::new(&spec, &tensors).unwrap());
        let codes = encode(&encoder, &pcm, codebooks, &[pcm.len().max(1)]);
        let frames = if pad { pcm.len().div_ceil(8) } else { pcm.len() / 8 };
        prop_assert_eq!(codes.len(), frames * codebooks);
        prop_assert_eq!(&codes, &encode(&encoder, &pcm, codebooks, &pieces));
        let whole = decode(&decoder, &codes, codebooks, &[frames.max(1)]);
        prop_assert_eq!(whole.len(), frames * 8);
        prop_assert_eq!(whole, decode(&decoder, &codes, codebooks, &pieces));
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let spec = spec(true);
    let tensors = MapTensors::random(&spec.tensors(), 1);
    let encoder = Encoder::new(&spec, &tensors).unwrap();
    assert_eq!(encoder.state(1, 2, 1).unwrap_err(), RunError::Level { asked: 2, first: 1, end: 3 });
    let decoder = Decoder::new(&spec, &tensors).unwrap();
    let mut state = decoder.state(2, 3).unwrap();
    assert_eq!(state.max_frames(), 2);
    assert_eq!(decoder.step(cx(), &mut state, &[0; 9], true), Err(RunError::TooLong { planned: 2 }));
    for hop in [2, 4, 16] {
        let wrong = CodecSpec { hop, ..spec.clone() };
        assert!(Encoder::new(&wrong, &tensors).is_err());
        assert!(Decoder::new(&wrong, &tensors).is_err());
    }
}

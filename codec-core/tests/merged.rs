//! Codec-merging: the first codebooks at half the rate.

#[path = "support/tensors.rs"]
mod tensors;

use codec_core::{
    RunError,
    kernel::{Compute, Isa},
    pipeline::{Coding, Encoder},
    quantizer::Quantizer,
    spec::{
        self, CodecSpec, Conv, Framing, Layer, Metric, PadMode, Padding, Quantizer as Spec, ResidualRounding,
        SPEC_VERSION, Vq,
    },
    weights::Tensors,
};
use proptest::prelude::*;
use tensors::MapTensors;

const DIM: usize = 5;

fn cx() -> Compute<'static> {
    Compute { isa: Isa::detect(), pool: None }
}

fn book(i: usize) -> Spec {
    let name = format!("q.{i}");
    Spec::Vq(Vq { name, size: 16, dim: DIM as u32, metric: Metric::Euclidean, project_in: None, project_out: None })
}

/// Four books after a convolution of stride 2.
fn codec() -> CodecSpec {
    CodecSpec {
        version: SPEC_VERSION,
        name: "four books".into(),
        sample_rate: 800,
        channels: 1,
        hop: 2,
        latent: DIM as u32,
        framing: Framing::Stream,
        codebook_choices: vec![],
        encoder: Some(vec![Layer::Conv(Conv {
            name: "in".into(),
            input: 1,
            output: DIM as u32,
            kernel: 4,
            stride: 2,
            dilation: 1,
            groups: 1,
            bias: true,
            padding: Padding { mode: PadMode::Zero, left: 1, right: 1, complete: true },
            int8: None,
        })]),
        quantizer: Spec::Residual {
            stages: (0..4).map(book).collect(),
            project_in: None,
            project_out: None,
            rounding: ResidualRounding::Plain,
        },
        decoder: None,
    }
}

/// Codes by the definition: nearest entries to averages over pairs, then to what is left of each frame.
fn reference(tensors: &MapTensors, latents: &[f32], merged: usize) -> Vec<u16> {
    let frames = latents.len() / DIM;
    let mut residual: Vec<Vec<f32>> = latents.chunks(DIM).map(<[f32]>::to_vec).collect();
    let mut codes = vec![0; frames * 4];
    for stage in 0..4 {
        let view = tensors.tensor(&format!("q.{stage}.codebook")).unwrap();
        let table: Vec<f32> = view.bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let together = if stage < merged { 2 } else { 1 };
        for (i, group) in residual.chunks_mut(together).enumerate() {
            let mean: Vec<f32> =
                (0..DIM).map(|c| group.iter().map(|row| row[c]).sum::<f32>() / group.len() as f32).collect();
            let distance = |entry: &[f32]| entry.iter().zip(&mean).map(|(e, m)| (e - m).powi(2)).sum::<f32>();
            let nearest = (0..16)
                .min_by(|&a, &b| distance(&table[a * DIM..][..DIM]).total_cmp(&distance(&table[b * DIM..][..DIM])));
            let code = nearest.unwrap();
            for (j, row) in group.iter_mut().enumerate() {
                codes[(i * together + j) * 4 + stage] = code as u16;
                row.iter_mut().zip(&table[code * DIM..]).for_each(|(r, e)| *r -= e);
            }
        }
    }
    codes
}

fn merge(quantizer: &Quantizer, latents: &[f32], codebooks: usize, beam: usize, merged: usize) -> Vec<u16> {
    let frames = latents.len() / quantizer.dim();
    // What lies behind the codes stays as it was.
    let mut codes = vec![777; (frames + 3) * codebooks];
    let mut scratch = vec![0.0; quantizer.scratch_len(frames, beam)];
    quantizer.encode_merged(cx(), latents, codebooks, beam, merged, &mut codes, &mut scratch).unwrap();
    assert!(codes[frames * codebooks..].iter().all(|&c| c == 777));
    codes.truncate(frames * codebooks);
    codes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn merged_codes_are_those_of_the_averages(
        merged in 0usize..5, frames in 0usize..200, seed in any::<u64>(), beam in 1usize..40,
    ) {
        let tensors = MapTensors::random(&codec().tensors(), seed);
        let quantizer = Quantizer::new(&codec().quantizer, &tensors).unwrap();
        let latents: Vec<f32> = (0..frames * DIM).map(|i| ((i as u64 * 7919 + seed % 1000) % 997) as f32 / 300.0 - 1.6).collect();
        let greedy = merge(&quantizer, &latents, 4, 1, merged);
        prop_assert_eq!(&greedy, &reference(&tensors, &latents, merged));
        let wide = merge(&quantizer, &latents, 4, beam, merged);
        for codes in [&greedy, &wide] {
            for pair in codes.chunks(8) {
                for (a, b) in pair.iter().zip(pair.iter().skip(4)).take(merged) {
                    prop_assert_eq!(a, b);
                }
            }
        }
        // A beam leaves the merged books alone and the others no worse.
        let left = |codes: &[u16]| {
            let mut out = vec![0.0; frames * DIM];
            let mut scratch = vec![0.0; quantizer.scratch_len(frames, 1)];
            quantizer.decode(cx(), codes, frames, 4, &mut out, &mut scratch).unwrap();
            out.chunks(DIM).zip(latents.chunks(DIM)).map(|(y, x)| y.iter().zip(x).map(|(y, x)| (y - x).powi(2)).sum::<f32>()).collect::<Vec<_>>()
        };
        for ((g, w), (before, after)) in greedy.chunks(4).zip(wide.chunks(4)).zip(left(&greedy).iter().zip(left(&wide))) {
            prop_assert_eq!(&g[..merged], &w[..merged]);
            prop_assert!(after <= before * 1.0001 + 1e-5, "{} to {}", before, after);
        }
    }

    #[test]
    fn any_chunking_merges_the_same_frames(
        merged in 0usize..4, pcm in prop::collection::vec(-1f32..1.0, 0..60),
        pieces in prop::collection::vec(1usize..9, 1..6), seed in any::<u64>(),
    ) {
        let spec = codec();
        let tensors = MapTensors::random(&spec.tensors(), seed);
        let encoder = Encoder::new(&spec, &tensors).unwrap();
        let run = |pieces: &[usize]| {
            let largest = pieces.iter().copied().max().unwrap();
            let mut state = encoder.state_for(largest.div_ceil(2), &Coding { merged, ..Coding::new(3) }).unwrap();
            let mut codes = vec![0; encoder.max_frames(largest) * 3];
            let mut all = Vec::new();
            // Something else first: reset must leave nothing of it.
            encoder.step(cx(), &mut state, &[0.5; 7][..7.min(largest)], true, &mut codes).unwrap();
            state.reset();
            let mut rest = &pcm[..];
            for &n in pieces.iter().cycle() {
                let (now, later) = rest.split_at(n.min(rest.len()));
                rest = later;
                let frames = encoder.step(cx(), &mut state, now, rest.is_empty(), &mut codes).unwrap();
                all.extend_from_slice(&codes[..frames * 3]);
                if rest.is_empty() {
                    break;
                }
            }
            all
        };
        let whole = run(&[pcm.len().max(1)]);
        prop_assert_eq!(whole.len(), pcm.len().div_ceil(2) * 3);
        prop_assert_eq!(&whole, &run(&pieces));
        for pair in whole.chunks_exact(6) {
            prop_assert_eq!(&pair[..merged], &pair[3..3 + merged]);
        }
    }
}

#[test]
fn what_cannot_be_merged_is_refused() {
    let tensors = MapTensors::random(&codec().tensors(), 3);
    let encoder = Encoder::new(&codec(), &tensors).unwrap();
    assert_eq!(
        encoder.state_for(1, &Coding { merged: 3, ..Coding::new(2) }).unwrap_err(),
        RunError::Codebooks { asked: 3, available: 2 }
    );
    let rated = Spec::Residual {
        stages: vec![Spec::Rated { stride: 2, inner: Box::new(book(0)) }, book(1)],
        project_in: None,
        project_out: None,
        rounding: ResidualRounding::Plain,
    };
    let quantizer = Quantizer::new(&rated, &tensors).unwrap();
    assert!(matches!(quantizer.check_merged(1, 3), Err(RunError::Unsupported(_))));
    // Three codebooks of one bit, made at once.
    let lfq = spec::Quantizer::Lfq { bits: 1, codebooks: 3, project_in: None, project_out: None };
    let quantizer = Quantizer::new(&lfq, &tensors).unwrap();
    assert_eq!(quantizer.check_merged(2, 3), Err(RunError::Level { asked: 2, first: 0, end: 3 }));
    assert_eq!(quantizer.check_merged(3, 3), Ok(()));
}

//! Short calls of a quantizer, and specs that several tests share.
#![allow(dead_code)]

use codec_core::kernel::{Compute, Isa};
use codec_core::quantizer::Quantizer;
use codec_core::spec::{self, Linear, Metric, ResidualRounding};

pub fn compute() -> Compute<'static> {
    Compute { isa: Isa::detect(), pool: None }
}

/// Values of a frame's latent.
pub fn frame_len(q: &Quantizer) -> usize {
    q.rows_per_frame() * q.dim()
}

/// Codes of all frames; the scratch memory starts as NaN, so that nothing can lean on it.
pub fn encode(q: &Quantizer, latents: &[f32], codebooks: usize, beam: usize) -> Vec<u16> {
    let frames = latents.len() / frame_len(q);
    let mut codes = vec![u16::MAX; frames * codebooks];
    let mut scratch = vec![f32::NAN; q.scratch_len(frames, beam)];
    q.encode(compute(), latents, codebooks, beam, &mut codes, &mut scratch).expect("encode");
    codes
}

/// Latents of the first `codebooks` codes of each frame.
pub fn decode(q: &Quantizer, codes: &[u16], codebooks: usize) -> Vec<f32> {
    let frames = codes.len() / codebooks;
    let mut out = vec![f32::NAN; frames * frame_len(q)];
    let mut scratch = vec![f32::NAN; q.scratch_len(frames, 1)];
    q.decode(compute(), codes, frames, codebooks, &mut out, &mut scratch).expect("decode");
    out
}

/// The first `count` of every `codebooks` codes.
pub fn prefix(codes: &[u16], codebooks: usize, count: usize) -> Vec<u16> {
    codes.chunks_exact(codebooks).flat_map(|frame| &frame[..count]).copied().collect()
}

pub fn linear(name: &str, input: u32, output: u32, bias: bool) -> Linear {
    Linear { name: name.into(), input, output, bias }
}

pub fn vq(name: &str, size: u32, dim: u32) -> spec::Quantizer {
    spec::Quantizer::Vq(spec::Vq {
        name: name.into(),
        size,
        dim,
        metric: Metric::Euclidean,
        project_in: None,
        project_out: None,
    })
}

pub fn residual(stages: Vec<spec::Quantizer>) -> spec::Quantizer {
    spec::Quantizer::Residual { stages, project_in: None, project_out: None, rounding: ResidualRounding::Plain }
}

/// `count` codebooks called `prefix.0`, `prefix.1`, …, one after the other.
pub fn residual_vq(prefix: &str, count: u32, size: u32, dim: u32) -> spec::Quantizer {
    residual((0..count).map(|i| vq(&format!("{prefix}.{i}"), size, dim)).collect())
}

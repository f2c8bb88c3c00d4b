//! Signals, and how a chain runs over them.
#![allow(dead_code)]

use codec_core::{
    kernel::{Compute, Isa},
    pipeline::Chain,
};

/// All this machine has, on one thread.
pub fn cx() -> Compute<'static> {
    Compute { isa: Isa::detect(), pool: None }
}

/// Runs a signal through a chain in pieces of the given sizes (the last one repeats).
pub fn run(chain: &Chain, signal: &[f32], pieces: &[usize]) -> Vec<f32> {
    let channels = chain.input_channels();
    let largest = pieces.iter().copied().max().unwrap_or(1);
    let mut state = chain.state(largest);
    let mut out = Vec::new();
    let mut rest = signal;
    let mut sizes = pieces.iter().chain(std::iter::repeat(pieces.last().unwrap()));
    loop {
        let n = (sizes.next().unwrap() * channels).min(rest.len());
        let (now, later) = rest.split_at(n);
        rest = later;
        let finish = rest.is_empty();
        out.extend_from_slice(chain.step(cx(), &mut state, now, finish).unwrap());
        if finish {
            return out;
        }
    }
}

/// Values in (-1, 1).
pub fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut s = seed;
    (0..n)
        .map(|_| {
            s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (s >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// Rows of `channels` values.
pub fn rows(x: &[f32], channels: usize) -> Vec<Vec<f64>> {
    x.chunks(channels).map(|r| r.iter().map(|&v| f64::from(v)).collect()).collect()
}

/// Equal to within rounding.
pub fn close(ours: &[f32], reference: &[Vec<f64>]) {
    let reference: Vec<f64> = reference.concat();
    assert_eq!(ours.len(), reference.len(), "length");
    for (i, (a, b)) in ours.iter().zip(&reference).enumerate() {
        assert!((f64::from(*a) - b).abs() < 1e-4, "value {i}: {a} against {b}");
    }
}

//! What only the inside can test.

use std::{string::String, vec, vec::Vec};

use super::Chain;
use crate::{
    kernel::{Compute, Isa},
    layer::RotaryTable,
    spec::{Attention, AttentionBias, Layer, Pairing, Rotary, Span, layer_tensors},
    weights::{Dtype, TensorView, Tensors},
};

struct Noise(Vec<(String, Vec<usize>, Vec<u8>)>);

impl Tensors for Noise {
    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let (_, shape, bytes) = self.0.iter().find(|(own, ..)| own == name)?;
        Some(TensorView { dtype: Dtype::F32, shape, bytes })
    }
}

fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// A rotation's scores depend on differences of positions only, so a signal that starts anywhere gives what it gives
/// at the start, to rounding: after two hours, after a thousand years, and where the count of rows wraps.
#[test]
fn attention_is_the_same_at_any_position() {
    let (heads, head_dim, channels, window) = (2, 16, 32, 20);
    let layers = [Layer::Attention(Attention {
        name: "a".into(),
        channels,
        heads,
        head_dim,
        bias: AttentionBias::default(),
        rotary: Some(Rotary { theta: 10_000.0, pairing: Pairing::Halves }),
        span: Span::Causal { window: Some(window) },
        memory: None,
    })];
    let tensors = layer_tensors(&layers, channels).into_iter().enumerate().map(|(i, t)| {
        let values = noise(t.shape.iter().product(), i as u64);
        (t.name, t.shape, values.iter().flat_map(|v| (v * 0.4).to_le_bytes()).collect())
    });
    let chain = Chain::new(&layers, channels as usize, &Noise(tensors.collect())).unwrap();
    let x = noise(120 * channels as usize, 77);
    let cx = Compute { isa: Isa::detect(), pool: None };
    let run = |position: u64, piece: usize| {
        let mut state = chain.state(piece);
        state.jump(position);
        let mut out = Vec::new();
        for (i, x) in x.chunks(piece * channels as usize).enumerate() {
            out.extend_from_slice(chain.step(cx, &mut state, x, (i + 1) * piece >= 120).unwrap());
        }
        out
    };
    let first = run(0, 120);
    assert!(first.iter().map(|v| v.abs()).fold(0.0, f32::max) > 0.5);
    for position in [1, 2 * 3600 * 25, 12_345_678_901, 25 * 86_400 * 365 * 1000, (1 << 53) + 1, u64::MAX - 60] {
        let there = run(position, 120);
        let error = first.iter().zip(&there).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        std::println!("from row {position}: greatest difference {error:.1e}");
        assert!(error < 4e-6, "from row {position}: {error:e}");
        assert_ne!(there, vec![0.0; there.len()]);
        assert_eq!(there, run(position, 7), "chunking from row {position}");
    }
}

/// The table holds the angles of the formula, to the last bit of an `f64`.
#[test]
fn angles_are_those_of_the_formula() {
    let (dim, theta) = (64, 10_000.0f64);
    let table: Vec<f32> = RotaryTable::values(dim, theta).collect();
    for j in 0..dim / 2 {
        let step: u64 = (0..4).map(|part| (table[part * dim / 2 + j] as u64) << (16 * part)).sum();
        let radians = step as f64 / 2f64.powi(64) * core::f64::consts::TAU;
        let exact = (-2.0 * j as f64 / dim as f64 * theta.ln()).exp();
        assert!((radians / exact - 1.0).abs() < 1e-14, "pair {j}: {radians} against {exact}");
    }
}

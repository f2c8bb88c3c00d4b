//! The kernels by themselves: right to the last bit, and what they cost.

use codec_core::kernel::{self, Epilogue, Out, Panels, Pointwise, Rows, Start, Weights};
use semihosting::println;

use crate::{
    coding::{CX, Hundredths},
    counter::count,
};

const DEPTH: usize = 192;
const COLUMNS: usize = 64;
const ROWS: usize = 4;

/// Numbers in [-1, 1) that repeat (xorshift, Marsaglia 2003).
fn noise(out: &mut [f32]) {
    let mut s = 1u32;
    for v in out {
        s ^= s << 13;
        s ^= s >> 17;
        s ^= s << 5;
        *v = (s >> 8) as f32 / 8_388_608.0 - 1.0;
    }
}

/// Whether all results are what their definitions say.
pub fn check() -> bool {
    static mut MEMORY: [f32; ROWS * DEPTH + COLUMNS * DEPTH + ROWS * COLUMNS] = [0.0; _];
    // SAFETY: there is one thread, and this function is called once.
    let memory = unsafe { &mut *(&raw mut MEMORY) };
    noise(memory);
    let (x, rest) = memory.split_at_mut(ROWS * DEPTH);
    let (w, y) = rest.split_at_mut(COLUMNS * DEPTH);
    let panels = Panels { columns: COLUMNS, depth: DEPTH, data: Weights::F32(w) };
    let plain = Epilogue { residual: None, then: Pointwise::Identity };
    let mut right = true;
    for rows in 1..=ROWS {
        let a = Rows { data: x, origin: 0, rows, row_stride: DEPTH, taps: 1, tap_stride: 0, depth: DEPTH };
        y.fill(f32::NAN);
        let out = Out { data: y, origin: 0, row_stride: COLUMNS };
        let (instructions, done) = count(|| kernel::matmul(CX, a, panels, Start::Zero, plain, out));
        let exact = |t: usize, n: usize| {
            let weight = |k: usize| w[(n / kernel::PANEL * DEPTH + k) * kernel::PANEL + n % kernel::PANEL];
            (0..DEPTH).fold(0.0, |sum, k| libm::fmaf(x[t * DEPTH + k], weight(k), sum))
        };
        let same = (0..rows * COLUMNS).all(|i| y[i].to_bits() == exact(i / COLUMNS, i % COLUMNS).to_bits());
        right &= done && same;
        let macs = rows * DEPTH * COLUMNS;
        println!("f32 product, {rows} rows: {} instructions a MAC", Hundredths(instructions, macs as u64));
    }
    right &= check_int8(x, w, y);
    for (name, f) in [
        ("elu", Pointwise::Elu(1.0)),
        ("leaky relu", Pointwise::LeakyRelu(0.1)),
        ("gelu", Pointwise::Gelu),
        ("silu", Pointwise::Silu),
        ("tanh", Pointwise::Tanh),
        ("snake", Pointwise::Snake { alpha: &[1.5; 64], inverse: &[1.0 / 1.5; 64] }),
    ] {
        let x = &mut x[..512];
        noise(x);
        x.iter_mut().for_each(|v| *v *= 6.0);
        let (instructions, done) = count(|| kernel::pointwise(CX, f, 64, x));
        right &= done && x.iter().all(|v| v.is_finite());
        println!("{name}: {} instructions a value", Hundredths(instructions, 512));
    }
    right
}

/// Products with int8 weights, of integers that are their own roundings: sums are exact.
fn check_int8(x: &mut [f32], w: &mut [f32], y: &mut [f32]) -> bool {
    const LEVELS: f32 = 32767.0;
    const GROUP: usize = 4;
    for row in x.chunks_exact_mut(DEPTH) {
        row.iter_mut().for_each(|v| *v = (*v * LEVELS) as i16 as f32);
        row[0] = LEVELS;
    }
    // Any bytes will do but -128.
    let (weights, scales) = w.split_at_mut(COLUMNS * DEPTH / 4);
    let weights: &mut [i8] = bytemuck::cast_slice_mut(weights);
    weights.iter_mut().for_each(|w| *w = (*w).max(-127));
    scales[..COLUMNS].fill(1.0);
    let data = Weights::I8 { values: weights, scales: &scales[..COLUMNS] };
    let panels = Panels { columns: COLUMNS, depth: DEPTH, data };
    let plain = Epilogue { residual: None, then: Pointwise::Identity };
    let mut right = true;
    for rows in 1..=ROWS {
        let a = Rows { data: x, origin: 0, rows, row_stride: DEPTH, taps: 1, tap_stride: 0, depth: DEPTH };
        y.fill(f32::NAN);
        let out = Out { data: y, origin: 0, row_stride: COLUMNS };
        let (instructions, done) = count(|| kernel::matmul(CX, a, panels, Start::Zero, plain, out));
        let exact = |t: usize, n: usize| {
            let (panel, c) = (n / kernel::PANEL * DEPTH * kernel::PANEL, n % kernel::PANEL);
            let at = |k: usize| panel + k / 2 * 2 * kernel::PANEL + c / 2 * GROUP + k % 2 * 2 + c % 2;
            (0..DEPTH).fold(0i32, |sum, k| sum + x[t * DEPTH + k] as i32 * i32::from(weights[at(k)]))
        };
        let same = (0..rows * COLUMNS).all(|i| y[i] == exact(i / COLUMNS, i % COLUMNS) as f32);
        right &= done && same;
        let macs = rows * DEPTH * COLUMNS;
        println!("int8 product, {rows} rows: {} instructions a MAC", Hundredths(instructions, macs as u64));
    }
    right
}

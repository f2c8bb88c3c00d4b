//! Products with int8 weights: every row of the left operand is rounded to integers on a scale of its own, so that the
//! sums are integers, exact in any order.

use core::ops::Range;

use super::matmul::Job;
use super::simd::{Op, Simd};
use super::{PANEL, Start};

/// The greatest magnitude of a weight.
const WEIGHT: usize = 127;
/// The greatest sum.
const SUM: usize = i32::MAX as usize;

/// The greatest magnitude of the integers to which rows of `depth` values are rounded, such that no sum overflows; 0 where
/// there is none.
pub const fn levels(depth: usize) -> usize {
    let most = SUM / if depth == 0 { WEIGHT } else { WEIGHT.saturating_mul(depth) };
    if most < i16::MAX as usize { most } else { i16::MAX as usize }
}

/// Rows, and values of each, that are rounded before they meet the weights; they lie on the stack.
const ROWS: usize = if cfg!(target_pointer_width = "64") { 24 } else { 4 };
const BLOCK: usize = if cfg!(test) { 32 } else { 512 };

/// A row whose greatest magnitude is less counts as zeros, so that what it is multiplied by stays finite: 2^-100.
const LEAST: f32 = f32::from_bits((127 - 100) << 23);

/// `acc[i][c] += Σ_k x[i * stride + k] * w[k, c]` over the rows of `acc`, for `k` below `w.len() / PANEL`, an even
/// number that `stride` is not less than; `x` holds as many rows.
///
/// Groups of four weights are those of two neighbouring columns for two neighbouring `k`: `[c, k], [c + 1, k], [c, k +
/// 1], [c + 1, k + 1]`. A panel has `PANEL / 2` such groups for each two `k`. The sums do not overflow.
///
/// This is all that an instruction set does otherwise than here.
#[inline(always)]
pub(super) fn dot(x: &[i16], stride: usize, w: &[i8], acc: &mut [[i32; PANEL]]) {
    for (acc, x) in acc.iter_mut().zip(x.chunks(stride)) {
        for (x, w) in x.chunks_exact(2).zip(w.chunks_exact(2 * PANEL)) {
            let (a, b) = (i32::from(x[0]), i32::from(x[1]));
            for (sums, w) in acc.chunks_exact_mut(2).zip(w.chunks_exact(4)) {
                // Wrapping, for weights of an image may be anything.
                sums[0] = sums[0].wrapping_add(a * i32::from(w[0]) + b * i32::from(w[2]));
                sums[1] = sums[1].wrapping_add(a * i32::from(w[1]) + b * i32::from(w[3]));
            }
        }
    }
}

/// Rounds a panel of `[depth][PANEL]` values to integers on a scale for each column: `[depth / 2][PANEL / 2]` groups, see
/// [`super::Weights::I8`], the last padded by zeros where `depth` is odd. `scales` gets the scales; a column of NaN or
/// infinities has no meaning.
pub fn pack(panel: &[f32], out: &mut [i8], scales: &mut [f32]) {
    for (c, scale) in scales.iter_mut().enumerate().take(PANEL) {
        let column = panel.iter().skip(c).step_by(PANEL);
        let greatest = column.clone().fold(0.0f32, |m, w| m.max(w.abs()));
        *scale = greatest / WEIGHT as f32;
        // Less than can be divided by counts as zero.
        let inverse = if scale.is_normal() { 1.0 / *scale } else { 0.0 };
        if inverse == 0.0 {
            *scale = 0.0;
        }
        for (k, w) in column.enumerate() {
            let at = k / 2 * 2 * PANEL + c / 2 * 4 + k % 2 * 2 + c % 2;
            if let Some(out) = out.get_mut(at) {
                // The cast saturates, and rounding could reach 128 only there.
                *out = (libm::rintf(w * inverse) as i8).clamp(-(WEIGHT as i8), WEIGHT as i8);
            }
        }
    }
}

/// What a row is multiplied by to give integers, and what these stand for.
#[derive(Clone, Copy)]
struct Grid {
    inverse: f32,
    step: f32,
}

impl Grid {
    /// For values up to a magnitude, given by its bits. Of a row with a NaN or an infinity every result is NaN.
    fn new(bits: u32, levels: usize) -> Self {
        let (peak, levels) = (f32::from_bits(bits), levels as f32);
        if !peak.is_finite() {
            return Self { inverse: 0.0, step: f32::NAN };
        }
        if peak < LEAST {
            return Self { inverse: 0.0, step: 0.0 };
        }
        Self { inverse: levels / peak, step: peak / levels }
    }
}

/// Some rows and panels of a product with int8 weights.
pub(super) struct Int8Part<'a> {
    job: &'a Job<'a, i8>,
    scales: &'a [f32],
    rows: Range<usize>,
    columns: Range<usize>,
}

impl<'a> Int8Part<'a> {
    /// `columns` starts at a panel, and ends at one or with the job.
    /// # Safety
    /// The job's slices are long enough, and nobody else works on these rows and columns of its output.
    pub(super) unsafe fn new(
        job: &'a Job<'a, i8>,
        scales: &'a [f32],
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> Self {
        Self { job, scales, rows, columns }
    }

    /// The runs of contiguous values that are terms `from..to` of row `t`.
    #[inline(always)]
    fn runs(&self, t: usize, from: usize, to: usize) -> impl Iterator<Item = &'a [f32]> {
        let a = self.job.a;
        let mut k = from;
        core::iter::from_fn(move || {
            if k >= to || a.depth == 0 {
                return None;
            }
            let (tap, c) = (k / a.depth, k % a.depth);
            let len = (a.depth - c).min(to - k);
            k += len;
            let at = (a.origin + t * a.row_stride).wrapping_add_signed(tap as isize * a.tap_stride) + c;
            a.data.get(at..at + len)
        })
    }

    /// Rounds terms `from..to` of row `t`, and pads them with a zero to an even number.
    #[inline(always)]
    fn round(&self, t: usize, from: usize, to: usize, inverse: f32, out: &mut [i16; BLOCK]) {
        let mut rest = &mut out[..];
        for run in self.runs(t, from, to) {
            let Some((now, later)) = rest.split_at_mut_checked(run.len()) else { return };
            for (o, v) in now.iter_mut().zip(run) {
                *o = nearest(*v * inverse);
            }
            rest = later;
        }
        if let Some(o) = rest.first_mut() {
            *o = 0;
        }
        if inverse == 0.0 {
            // What is not finite has no nearest integer.
            out.fill(0);
        }
    }

    /// The columns of the output row `t` that belong to the panel from `column` on.
    /// # Safety
    /// Row and column are of this part, and no other reference to them lives.
    #[inline(always)]
    unsafe fn out(&self, t: usize, column: usize) -> &'a mut [f32] {
        let len = (self.columns.end - column).min(PANEL);
        let at = self.job.out.wrapping_add(t * self.job.out_stride + column);
        // SAFETY: `new`'s, and the caller's.
        unsafe { core::slice::from_raw_parts_mut(at, len) }
    }
}

/// The nearest integer, halves to the even one, of a value below 2^15.
#[inline(always)]
fn nearest(v: f32) -> i16 {
    // Where the step of f32 is 1, the sum is rounded to an integer, which its lowest bits are.
    const SHIFT: f32 = 12_582_912.0;
    (v + SHIFT).to_bits() as i16
}

impl Op for Int8Part<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (a, w) = (self.job.a, self.job.w);
        let depth = a.taps * a.depth;
        let levels = levels(depth);
        let mut x = [[0i16; BLOCK]; ROWS];
        let mut acc = [[0i32; PANEL]; ROWS];
        let mut grids = [Grid { inverse: 0.0, step: 0.0 }; ROWS];
        let mut t = self.rows.start;
        while t < self.rows.end {
            let rows = t..self.rows.end.min(t + ROWS);
            for (t, grid) in rows.clone().zip(&mut grids) {
                let bits = |run: &[f32]| run.iter().fold(0, |m: u32, v| m.max(v.to_bits() & 0x7fff_ffff));
                *grid = Grid::new(self.runs(t, 0, depth).map(bits).fold(0, u32::max), levels);
            }
            let mut k = 0;
            loop {
                let end = depth.min(k + BLOCK);
                for ((t, x), grid) in rows.clone().zip(&mut x).zip(&grids) {
                    self.round(t, k, end, grid.inverse, x);
                }
                for column in self.columns.clone().step_by(PANEL) {
                    let acc = &mut acc[..rows.len()];
                    for (t, acc) in rows.clone().zip(&mut *acc) {
                        *acc = [0; PANEL];
                        if k > 0 {
                            // SAFETY: of this part, and the only reference.
                            let out = unsafe { self.out(t, column) };
                            acc.iter_mut().zip(out).for_each(|(a, o)| *a = o.to_bits() as i32);
                        }
                    }
                    let at = column * w.depth + k * PANEL;
                    let weights = w.data.get(at..at + (end - k).next_multiple_of(2) * PANEL).unwrap_or_default();
                    s.dot(x.as_flattened(), BLOCK, weights, acc);
                    for ((t, acc), grid) in rows.clone().zip(&*acc).zip(&grids) {
                        // SAFETY: of this part, and the only reference.
                        let out = unsafe { self.out(t, column) };
                        if end < depth {
                            // The sums so far wait as bits.
                            out.iter_mut().zip(acc).for_each(|(o, a)| *o = f32::from_bits(*a as u32));
                            continue;
                        }
                        let scales = self.scales.get(column..).unwrap_or_default();
                        // Multiplied and added apart: the same with and without a fused multiply-add.
                        out.iter_mut().zip(acc).zip(scales).for_each(|((o, a), s)| *o = *a as f32 * (grid.step * s));
                        if let Start::Bias(bias) = self.job.start {
                            let bias = bias.get(column..).unwrap_or_default();
                            out.iter_mut().zip(bias).for_each(|(o, b)| *o += b);
                        }
                    }
                }
                k = end;
                if k >= depth {
                    break;
                }
            }
            self.job.finish(s, rows, self.columns.clone());
            t += ROWS;
        }
    }
}

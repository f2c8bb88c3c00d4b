//! Sums over a row, and the normalisation that needs them.

use super::simd::{Op, Simd};
use super::{Compute, PANEL, Whole, dispatch, part, spread, tasks};

/// Lanes of [`PANEL`] values as vectors; the first `PANEL / W` are in use.
pub(super) type Lanes<S> = [<S as Simd>::V; PANEL];

/// Joins lanes two by two in a fixed order.
#[inline(always)]
pub(super) fn join<S: Simd>(s: S, lanes: &Lanes<S>, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut values = [0.0f32; PANEL];
    for (v, x) in lanes.iter().enumerate().take(PANEL / S::W) {
        // SAFETY: `W` divides `PANEL`.
        unsafe { s.store(values.as_mut_ptr().add(v * S::W), *x) };
    }
    let mut half = PANEL / 2;
    while half > 0 {
        for i in 0..half {
            values[i] = f(values[i], values[i + half]);
        }
        half /= 2;
    }
    values[0]
}

/// The sum of `f(x)` over a row: value `i` goes to lane `i % PANEL`, ascending, then the lanes are joined. `neutral`
/// is a value that `f` makes zero of.
#[inline(always)]
fn sum<S: Simd>(s: S, row: &[f32], neutral: f32, f: impl Fn(S::V, S::V) -> S::V) -> f32 {
    let mut lanes = [s.splat(0.0); PANEL];
    let (blocks, rest) = row.split_at(row.len() / PANEL * PANEL);
    for block in blocks.chunks_exact(PANEL) {
        for (v, lane) in lanes.iter_mut().enumerate().take(PANEL / S::W) {
            // SAFETY: `W` divides `PANEL`.
            *lane = f(unsafe { s.load(block.as_ptr().add(v * S::W)) }, *lane);
        }
    }
    if !rest.is_empty() {
        let mut block = [neutral; PANEL];
        for (to, from) in block.iter_mut().zip(rest) {
            *to = *from;
        }
        for (v, lane) in lanes.iter_mut().enumerate().take(PANEL / S::W) {
            // SAFETY: `W` divides `PANEL`.
            *lane = f(unsafe { s.load(block.as_ptr().add(v * S::W)) }, *lane);
        }
    }
    join(s, &lanes, |a, b| a + b)
}

/// Layer normalisation of some rows.
struct LayerNormOp<'a> {
    weight: &'a [f32],
    bias: &'a [f32],
    epsilon: f32,
    rows: &'a mut [f32],
}

impl Op for LayerNormOp<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let channels = self.weight.len().min(self.bias.len());
        let count = channels as f32;
        for row in self.rows.chunks_exact_mut(channels) {
            let middle = sum(s, row, 0.0, |x, lane| s.add(lane, x)) / count;
            let mean = s.splat(middle);
            let variance = sum(s, row, middle, |x, lane| {
                let d = s.sub(x, mean);
                s.fma(d, d, lane)
            });
            let inverse = 1.0 / libm::sqrt(f64::from(variance / count) + f64::from(self.epsilon));
            let inverse = s.splat(inverse as f32);
            let mut n = 0;
            while n < channels {
                let lanes = (channels - n).min(S::W);
                // SAFETY: `n + lanes <= channels`, the length of all three.
                unsafe {
                    let load = |p: *const f32| if lanes == S::W { s.load(p) } else { s.load_some(p, lanes) };
                    let p = row.as_mut_ptr().add(n);
                    let y = s.mul(s.sub(load(p), mean), inverse);
                    let y = s.fma(y, load(self.weight.as_ptr().add(n)), load(self.bias.as_ptr().add(n)));
                    if lanes == S::W { s.store(p, y) } else { s.store_some(p, y, lanes) }
                }
                n += lanes;
            }
        }
    }
}

/// `x = (x - mean) / sqrt(variance + epsilon) * weight + bias`, in place, for each row of `weight.len()` channels
/// (Ba et al. 2016).
///
/// Returns `false`, and has written nothing, if `x` is not whole rows or `bias` has another length than `weight`.
#[must_use]
pub fn layer_norm(cx: Compute<'_>, weight: &[f32], bias: &[f32], epsilon: f32, x: &mut [f32]) -> bool {
    let channels = weight.len();
    if channels == 0 || bias.len() != channels || !x.len().is_multiple_of(channels) {
        return false;
    }
    let rows = x.len() / channels;
    let parts = tasks(cx, x.len().saturating_mul(4)).min(rows);
    let whole = Whole(x.as_mut_ptr());
    spread(cx, parts, &|i| {
        let rows = part(rows, 1, parts, i);
        // SAFETY: whole rows of `x`, and no two parts share one.
        let rows = unsafe { core::slice::from_raw_parts_mut(whole.at(rows.start * channels), rows.len() * channels) };
        dispatch(cx.isa, LayerNormOp { weight, bias, epsilon, rows });
    });
    true
}

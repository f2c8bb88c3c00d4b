//! What a nearest-neighbour search needs beside the product.

use super::simd::{Op, Simd};
use super::{Matrix, PANEL};

/// `out[n] = Σ_c (x[c] - w[c, n])²`, squared and then added, unfused.
pub(super) struct DistanceOp<'a> {
    x: &'a [f32],
    panels: Matrix<'a, f32>,
    out: &'a mut [f32],
}

impl<'a> DistanceOp<'a> {
    /// # Safety
    /// `panels.data` is as long as it says, `x` is `panels.depth` and `out` `panels.columns` long.
    pub(super) unsafe fn new(x: &'a [f32], panels: Matrix<'a, f32>, out: &'a mut [f32]) -> Self {
        Self { x, panels, out }
    }

    /// `N` vectors from column `n` on.
    #[inline(always)]
    fn vectors<S: Simd, const N: usize>(&mut self, s: S, n: usize) {
        let per_panel = PANEL / S::W;
        let panel_stride = self.panels.depth * PANEL;
        let mut sums = [s.splat(0.0); N];
        // SAFETY: `new`'s; all columns of a panel are there, and those past the last are not stored.
        unsafe {
            let mut w = self.panels.data.as_ptr().add(n / PANEL * panel_stride + n % PANEL);
            for x in self.x {
                let x = s.splat(*x);
                for (v, sum) in sums.iter_mut().enumerate() {
                    let d = s.sub(x, s.load(w.add(v / per_panel * panel_stride + v % per_panel * S::W)));
                    *sum = s.add(*sum, s.mul(d, d));
                }
                w = w.wrapping_add(PANEL);
            }
            for (v, sum) in sums.iter().enumerate() {
                let column = n + v * S::W;
                let lanes = self.panels.columns.saturating_sub(column).min(S::W);
                s.store_some(self.out.as_mut_ptr().wrapping_add(column), *sum, lanes);
            }
        }
    }
}

impl Op for DistanceOp<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let columns = self.panels.columns.div_ceil(PANEL) * PANEL;
        let mut n = 0;
        while n < columns {
            // A group of eight vectors may start only at a panel.
            if n % PANEL == 0 && columns - n >= 8 * S::W && 8 * S::W >= PANEL {
                self.vectors::<S, 8>(s, n);
                n += 8 * S::W;
            } else {
                self.vectors::<S, 1>(s, n);
                n += S::W;
            }
        }
    }
}

/// The first index of the smallest value (of `sign * x`; `sign` is 1 or -1), NaN aside; `None` if there is none.
pub(super) struct FirstLeastOp<'a> {
    pub(super) row: &'a [f32],
    pub(super) sign: f32,
}

impl Op for FirstLeastOp<'_> {
    type Output = Option<usize>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Option<usize> {
        let sign = s.splat(self.sign);
        let mut least = [s.splat(f32::INFINITY); 4];
        let (blocks, rest) = self.row.split_at(self.row.len() / (4 * S::W) * (4 * S::W));
        for block in blocks.chunks_exact(4 * S::W) {
            for (v, least) in least.iter_mut().enumerate() {
                // SAFETY: the block holds four vectors.
                let x = unsafe { s.load(block.as_ptr().add(v * S::W)) };
                *least = s.min(s.mul(sign, x), *least);
            }
        }
        let all = s.min(s.min(least[0], least[1]), s.min(least[2], least[3]));
        let mut lanes = [f32::INFINITY; PANEL];
        // SAFETY: `W <= PANEL`.
        unsafe { s.store(lanes.as_mut_ptr(), all) };
        let mut bound = f32::INFINITY;
        for x in lanes.iter().copied().chain(rest.iter().map(|x| self.sign * x)) {
            bound = if x < bound { x } else { bound };
        }
        let bound = self.sign * bound;
        // Without a branch a value, so that the compiler can look at many at once.
        let within = |chunk: &[f32]| chunk.iter().fold(false, |found, x| found | (*x == bound));
        let chunk = self.row.chunks(64).position(within)?;
        let start = chunk * 64;
        self.row.get(start..)?.iter().position(|x| *x == bound).map(|i| start + i)
    }
}

//! The depthwise convolution: vectors of channels, several rows at once to hide the latency of the sums.

use core::ops::Range;

use super::Start;
use super::matmul::Job;
use super::simd::{Op, Simd};

/// Some rows of a depthwise convolution: `w.columns` channels, and `w.data` as `[taps, channels]`.
pub(super) struct DepthwisePart<'a> {
    job: &'a Job<'a, f32>,
    rows: Range<usize>,
}

impl<'a> DepthwisePart<'a> {
    /// # Safety
    /// The job's slices are long enough, and nobody else works on these rows of its output.
    pub(super) unsafe fn new(job: &'a Job<'a, f32>, rows: Range<usize>) -> Self {
        Self { job, rows }
    }

    /// `M` rows by `N` vectors from row `t`, channel `n` on, the last `lanes` wide.
    #[inline(always)]
    fn tile<S: Simd, const M: usize, const N: usize>(&self, s: S, t: usize, n: usize, lanes: usize) {
        let Job { a, w, start, out, out_stride, .. } = *self.job;
        let lanes = |v: usize| if v + 1 == N { lanes } else { S::W };
        // SAFETY: `new`'s; rows and channels are the job's.
        let load = |p: *const f32, v: usize| unsafe {
            let p = p.wrapping_add(v * S::W);
            if lanes(v) == S::W { s.load(p) } else { s.load_some(p, lanes(v)) }
        };
        let row = |i: usize| out.wrapping_add((t + i) * out_stride + n);
        let mut acc = [[s.splat(0.0); N]; M];
        for (i, sums) in acc.iter_mut().enumerate() {
            for (v, sum) in sums.iter_mut().enumerate() {
                match start {
                    Start::Zero => {}
                    Start::Bias(b) => *sum = load(b.as_ptr().wrapping_add(n), v),
                    Start::Output => *sum = load(row(i), v),
                }
            }
        }
        for j in 0..a.taps {
            let x = self.job.row(t).wrapping_offset(j as isize * a.tap_stride).wrapping_add(n);
            let w = w.data.as_ptr().wrapping_add(j * w.columns + n);
            for v in 0..N {
                let w = load(w, v);
                for (i, sums) in acc.iter_mut().enumerate() {
                    sums[v] = s.fma(load(x.wrapping_add(i * a.row_stride), v), w, sums[v]);
                }
            }
        }
        for (i, sums) in acc.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                let p = row(i).wrapping_add(v * S::W);
                // SAFETY: as above.
                unsafe { if lanes(v) == S::W { s.store(p, *sum) } else { s.store_some(p, *sum, lanes(v)) } }
            }
        }
    }
}

impl Op for DepthwisePart<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let channels = self.job.w.columns;
        let mut t = self.rows.start;
        while t < self.rows.end {
            let rows = if self.rows.end - t >= 8 { 8 } else { 1 };
            let mut n = 0;
            while n < channels {
                let left = channels - n;
                n += if rows == 8 {
                    self.tile::<S, 8, 1>(s, t, n, left.min(S::W));
                    S::W
                } else if left >= 8 * S::W {
                    self.tile::<S, 1, 8>(s, t, n, S::W);
                    8 * S::W
                } else {
                    self.tile::<S, 1, 1>(s, t, n, left.min(S::W));
                    S::W
                };
            }
            self.job.finish(s, t..t + rows, 0..channels);
            t += rows;
        }
    }
}

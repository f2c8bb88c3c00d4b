//! Codebooks: nearest-neighbour search and look-up.

use serde::{Deserialize, Serialize};

use super::rows::{Matrix, Run, energy};
use crate::RunError;
use crate::kernel::{PANEL, Panels, Weights, argmax, argmin, panel_len, square_distance};
use crate::spec::Metric;

/// Below this length a vector is not scaled to unit length but by the inverse of this (DAC's `F.normalize`).
pub(super) const NORM_EPSILON: f32 = 1e-12;

/// A codebook in the tables: `size` rows of `dim` values.
///
/// Searching by panels, entry `e` scores `bias_e + x · e`, and with `bias_e = -|e|²/2` the largest score is
/// the smallest distance, for `|x - e|² = |x|² - 2 (x · e - |e|²/2)`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Book {
    pub size: usize,
    pub dim: usize,
    pub metric: Metric,
    /// Where the panels start (of unit rows for [`Metric::Cosine`]).
    pub panels: usize,
    /// Where the bias of the scores starts.
    pub bias: usize,
    /// Where the rows `[size, dim]` start, where they are kept beside the panels.
    pub rows: Option<usize>,
}

impl Book {
    /// The `n`-th of equal books that lie one after the other.
    pub fn nth(self, n: usize) -> Self {
        Self {
            panels: self.panels + n * panel_len(self.size, self.dim),
            bias: self.bias + n * self.size,
            rows: self.rows.map(|at| at + n * self.size * self.dim),
            ..self
        }
    }

    /// `out[t, e] = bias_e + x[t] · e`, `[rows, size]`.
    pub fn scores(&self, run: Run<'_>, x: Matrix<'_>, out: &mut [f32]) -> Result<(), RunError> {
        let panels = &run.data[self.panels..][..panel_len(self.size, self.dim)];
        x.times(run.cx, self.size, panels, Some(&run.data[self.bias..][..self.size]), out)
    }

    /// Values of scratch that a search of `rows` rows needs.
    pub fn scratch_len(&self, rows: usize) -> usize {
        match self.metric {
            Metric::Euclidean | Metric::Cosine => rows * self.size,
            Metric::EuclideanDirect => self.size,
        }
    }

    /// Calls `found(row, entry)` with the best entry of each row of `x`, `[rows, dim]`, which may be changed.
    pub fn search(
        &self,
        run: Run<'_>,
        x: &mut [f32],
        scratch: &mut [f32],
        mut found: impl FnMut(usize, usize),
    ) -> Result<(), RunError> {
        let rows = x.len() / self.dim;
        if self.metric == Metric::EuclideanDirect {
            let distances = &mut scratch[..self.size];
            for (t, row) in x.chunks_exact(self.dim).enumerate() {
                let data = &run.data[self.panels..];
                let book = Panels { columns: self.size, depth: self.dim, data: Weights::F32(data) };
                if !square_distance(run.cx, row, book, distances) {
                    return Err(RunError::Unsupported("a codebook's table is shorter than its sizes say"));
                }
                found(t, argmin(run.cx, distances).unwrap_or(0));
            }
            return Ok(());
        }
        if self.metric == Metric::Cosine {
            x.chunks_exact_mut(self.dim).for_each(normalize);
        }
        let scores = &mut scratch[..rows * self.size];
        self.scores(run, Matrix::contiguous(x, rows, self.dim), scores)?;
        for (t, row) in scores.chunks_exact(self.size).enumerate() {
            found(t, argmax(run.cx, row).unwrap_or(0));
        }
        Ok(())
    }

    #[inline]
    fn value(&self, data: &[f32], entry: usize, channel: usize) -> f32 {
        match self.rows {
            Some(at) => data[at + entry * self.dim + channel],
            None => data[self.panels + entry / PANEL * PANEL * self.dim + channel * PANEL + entry % PANEL],
        }
    }

    /// Writes `f(out, value)` over the channels of an entry.
    pub fn fold_entry(&self, data: &[f32], entry: usize, out: &mut [f32], f: impl Fn(f32, f32) -> f32) {
        for (c, o) in out.iter_mut().enumerate() {
            *o = f(*o, self.value(data, entry, c));
        }
    }
}

/// `x / max(|x|, epsilon)`.
pub(super) fn normalize(x: &mut [f32]) {
    let norm = libm::sqrtf(energy(x)).max(NORM_EPSILON);
    x.iter_mut().for_each(|v| *v /= norm);
}

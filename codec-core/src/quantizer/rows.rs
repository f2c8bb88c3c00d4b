//! Rows of values: strided views, dense projections of them, and small selections.

use serde::{Deserialize, Serialize};

use crate::RunError;
use crate::kernel::{self, Compute, Epilogue, Out, Panels, Pointwise, Rows, Start, Weights};

/// What a run computes with: instruction set and threads, and the quantizer's tables.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a> {
    pub cx: Compute<'a>,
    pub data: &'a [f32],
}

/// Rows of `width` values, `stride` apart, the first at `origin`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub data: &'a [f32],
    pub origin: usize,
    pub stride: usize,
    pub rows: usize,
    pub width: usize,
}

impl<'a> Matrix<'a> {
    /// Rows that follow each other.
    pub fn contiguous(data: &'a [f32], rows: usize, width: usize) -> Self {
        Self { data, origin: 0, stride: width, rows, width }
    }

    pub fn row(&self, t: usize) -> &'a [f32] {
        &self.data[self.origin + t * self.stride..][..self.width]
    }

    /// Copies the rows to `out`, `[rows, width]`.
    pub fn copy_to(&self, out: &mut [f32]) {
        for (t, o) in out.chunks_exact_mut(self.width).take(self.rows).enumerate() {
            o.copy_from_slice(self.row(t));
        }
    }

    /// `out[t, n] = bias[n] + Σ_k x[t, k] w[k, n]`, `out` being `[rows, columns]`.
    pub fn times(
        &self,
        cx: Compute<'_>,
        columns: usize,
        panels: &[f32],
        bias: Option<&[f32]>,
        out: &mut [f32],
    ) -> Result<(), RunError> {
        let a = Rows {
            data: self.data,
            origin: self.origin,
            rows: self.rows,
            row_stride: self.stride,
            taps: 1,
            tap_stride: 0,
            depth: self.width,
        };
        let w = Panels { columns, depth: self.width, data: Weights::F32(panels) };
        let start = bias.map_or(Start::Zero, Start::Bias);
        let epilogue = Epilogue { residual: None, then: Pointwise::Identity };
        let fits = kernel::matmul(cx, a, w, start, epilogue, Out { data: out, origin: 0, row_stride: columns });
        if fits { Ok(()) } else { Err(RunError::Unsupported("a quantizer's table is shorter than its sizes say")) }
    }
}

/// A dense layer whose panels and bias lie in the tables.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Dense {
    pub input: usize,
    pub output: usize,
    /// Where the panels start.
    pub panels: usize,
    /// Where the bias starts.
    pub bias: Option<usize>,
}

impl Dense {
    pub fn bias<'a>(&self, data: &'a [f32]) -> Option<&'a [f32]> {
        self.bias.map(|at| &data[at..][..self.output])
    }

    /// `out = x · W + b`, `[rows, output]`.
    pub fn apply(&self, run: Run<'_>, x: Matrix<'_>, out: &mut [f32]) -> Result<(), RunError> {
        let panels = &run.data[self.panels..][..kernel::panel_len(self.output, self.input)];
        x.times(run.cx, self.output, panels, self.bias(run.data), out)
    }
}

/// Cuts the next `len` values off `rest`.
pub(super) fn take<'a>(rest: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    let (head, tail) = core::mem::take(rest).split_at_mut(len);
    *rest = tail;
    head
}

/// Σ x².
pub(super) fn energy(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |sum, v| sum + v * v)
}

/// Keeps the `errors.len()` smallest candidates, ascending, with their indices (ties in the order of the
/// candidates, of which there must be as many as are kept). What does not compare below infinity leaves
/// infinity and some valid index in its place.
pub(super) fn keep_smallest(candidates: impl Iterator<Item = f32>, errors: &mut [f32], indices: &mut [f32]) {
    let Some(last) = errors.len().checked_sub(1) else { return };
    for (i, (e, index)) in errors.iter_mut().zip(&mut *indices).enumerate() {
        (*e, *index) = (f32::INFINITY, i as f32);
    }
    for (i, candidate) in candidates.enumerate() {
        if candidate < errors[last] {
            let at = errors.partition_point(|&e| e <= candidate);
            errors.copy_within(at..last, at + 1);
            indices.copy_within(at..last, at + 1);
            (errors[at], indices[at]) = (candidate, i as f32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smallest_are_sorted_and_stable() {
        let x = [3.0, 1.0, f32::NAN, 2.0, 1.0, 0.5, f32::INFINITY];
        let (mut e, mut i) = ([0.0; 4], [0.0; 4]);
        keep_smallest(x.into_iter(), &mut e, &mut i);
        assert_eq!(e, [0.5, 1.0, 1.0, 2.0]);
        assert_eq!(i, [5.0, 1.0, 4.0, 3.0]);
    }

    #[test]
    fn smallest_of_nan_are_valid_indices() {
        let (mut e, mut i) = ([0.0; 2], [9.0; 2]);
        keep_smallest([f32::NAN; 3].into_iter(), &mut e, &mut i);
        assert_eq!(i, [0.0, 1.0]);
    }
}

//! Random-projection quantisation (BEST-RQ, Chiu et al. 2022, section 3.1).

use serde::{Deserialize, Serialize};

use super::program::CodesMut;
use super::rows::{Dense, Matrix, Run};
use super::vq::Book;
use crate::RunError;

/// Added to the variance in the layer norm.
const EPSILON: f32 = 1e-5;

/// Layer norm without affine, projection, entry of the largest dot product.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Random {
    pub projection: Dense,
    /// The bias of its scores is zero.
    pub book: Book,
}

impl Random {
    pub fn scratch_len(&self, rows: usize) -> usize {
        rows * (self.projection.output + self.book.size)
    }

    /// Codes of `x`, `[rows, input]`, which is normalised in place. The projection is not scaled to unit
    /// length: that changes no row's largest product.
    pub fn encode(
        &self,
        run: Run<'_>,
        x: &mut [f32],
        scratch: &mut [f32],
        codes: &mut CodesMut<'_>,
    ) -> Result<(), RunError> {
        let Dense { input, output, .. } = self.projection;
        let rows = x.len() / input;
        x.chunks_exact_mut(input).for_each(layer_norm);
        let (projected, scratch) = scratch.split_at_mut(rows * output);
        self.projection.apply(run, Matrix::contiguous(x, rows, input), projected)?;
        self.book.search(run, projected, scratch, |t, entry| codes.set(t, 0, entry))
    }
}

fn layer_norm(x: &mut [f32]) {
    let n = x.len() as f32;
    let mean = x.iter().sum::<f32>() / n;
    x.iter_mut().for_each(|v| *v -= mean);
    let scale = 1.0 / libm::sqrtf(super::rows::energy(x) / n + EPSILON);
    x.iter_mut().for_each(|v| *v *= scale);
}

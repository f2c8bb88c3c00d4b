//! First codebooks by k-means.

use burn::tensor::{IndexingUpdateOp, Tensor};
use codec_core::spec::Vq;

use super::nearest;
use crate::{net::Random, store::host};

/// Rows per centre that are looked at, at most.
const ROWS: usize = 64;

/// Centres of `x`, `[size, dim]`: started from different rows and moved `rounds` times to the mean of what is nearest to them
/// (Lloyd 1982). A centre that nothing is nearest to stays. With fewer rows than centres, rows come again, each time
/// moved by a hundredth of the spread, so that no two are equal.
pub(super) fn centres(x: Tensor<2>, v: &Vq, rounds: usize, random: &mut Random) -> Tensor<2> {
    let [rows, dim] = x.dims();
    let size = v.size as usize;
    let device = x.device();
    let pick = |indices: Vec<usize>, from: &Tensor<2>| {
        let indices: Vec<i32> = indices.into_iter().map(|i| i as i32).collect();
        from.clone().select(0, Tensor::from_data(indices.as_slice(), &device))
    };
    let x = if rows > ROWS * size { pick(random.distinct(ROWS * size, rows), &x) } else { x };
    let rows = x.dims()[0];
    let mut start = random.distinct(size, rows);
    let whole = start.len();
    start.extend((whole..size).map(|_| random.below(rows)));
    let mut centres = pick(start, &x);
    if whole < size {
        let spread = f64::from((x.clone() - x.clone().mean_dim(0)).square().mean().into_scalar::<f32>()).sqrt();
        let mut values = host(centres);
        values[whole * dim..].iter_mut().for_each(|v| *v += (0.01 * spread.max(1e-6) * random.normal()) as f32);
        centres = Tensor::<1>::from_floats(values.as_slice(), &device).reshape([size, dim]);
    }
    for _ in 0..rounds {
        let codes = nearest(x.clone(), centres.clone(), v.metric);
        let ones = Tensor::<2>::ones([rows, 1], &device);
        let add = IndexingUpdateOp::Add;
        let counts = Tensor::<2>::zeros([size, 1], &device).select_assign(0, codes.clone(), ones, add);
        let sums = Tensor::<2>::zeros([size, dim], &device).select_assign(0, codes, x.clone(), IndexingUpdateOp::Add);
        let empty = counts.clone().lower_scalar(0.5).expand([size, dim]);
        centres = (sums / counts.clamp_min(1.0)).mask_where(empty, centres);
    }
    centres
}

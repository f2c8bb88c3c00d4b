//! Convolutions over time.

use burn::tensor::{
    Tensor,
    module::{conv_transpose1d, conv1d},
    ops::{ConvOptions, ConvTransposeOptions},
};
use codec_core::spec::{Conv, ConvTranspose, PadMode, Padding};

use crate::{TrainError, Vars, cpu};

/// A plain convolution.
pub(super) fn forward(l: &Conv, vars: &Vars, x: Tensor<3>) -> Result<Tensor<3>, TrainError> {
    let (stride, dilation) = (l.stride as usize, l.dilation as usize);
    let span = (l.kernel as usize - 1) * dilation + 1;
    let rows = x.dims()[2];
    let (left, right) = padding(&l.padding, rows, span, stride);
    if rows + left + right < span {
        return Err(TrainError::TooShort { layer: l.name.clone(), rows: rows + left + right, needed: span });
    }
    let x = pad(x, l.padding.mode, left, right);
    let (weight, bias) = (vars.weight::<3>(&l.name)?, vars.bias(&l.name, l.bias)?);
    let groups = l.groups as usize;
    Ok(vars.product(x, weight, bias, |x, weight, bias| {
        let y = cpu::conv::conv1d(&x, &weight, bias.as_ref(), stride, dilation, groups);
        y.unwrap_or_else(|| conv1d(x, weight, bias, ConvOptions::new([stride], [0], [dilation], groups)))
    }))
}

/// A convolution of each channel by itself, with zeros around the signal; `weight` `[channels, 1, kernel]`.
pub(super) fn depthwise(x: Tensor<3>, weight: Tensor<3>, left: usize, right: usize) -> Tensor<3> {
    let channels = x.dims()[1];
    conv1d(pad(x, PadMode::Zero, left, right), weight, None, ConvOptions::new([1], [0], [1], channels))
}

/// Rows before and after a signal of `rows` rows.
fn padding(p: &Padding, rows: usize, span: usize, stride: usize) -> (usize, usize) {
    let (left, right) = (p.left as usize, p.right as usize);
    if !p.complete {
        return (left, right);
    }
    // The last window is the first that reaches the end.
    let have = left + rows + right;
    let windows = if have > span { (have - span).div_ceil(stride) + 1 } else { 1 };
    (left, right + ((windows - 1) * stride + span).saturating_sub(have))
}

/// Lays rows around a signal.
fn pad(x: Tensor<3>, mode: PadMode, left: usize, right: usize) -> Tensor<3> {
    if left + right == 0 {
        return x;
    }
    let [batch, channels, rows] = x.dims();
    if let Some(y) = cpu::conv::rows(&x, sources(mode, rows, left, right)) {
        return y;
    }
    let zeros = |n: usize| Tensor::zeros([batch, channels, n], &x.device());
    match mode {
        PadMode::Zero => joined(vec![(left, zeros(left)), (rows, x.clone()), (right, zeros(right))]),
        PadMode::Replicate => {
            let first = x.clone().slice_dim(2, 0..1).repeat_dim(2, left.max(1));
            let last = x.clone().slice_dim(2, rows - 1..rows).repeat_dim(2, right.max(1));
            joined(vec![(left, first), (rows, x), (right, last)])
        }
        PadMode::Reflect => {
            // A signal that is too short to be mirrored is lengthened for the mirror only.
            let more = (left.max(right) + 1).saturating_sub(rows);
            let long = joined(vec![(rows, x.clone()), (more, zeros(more))]);
            let n = rows + more;
            let mirror = |from: usize, to: usize| long.clone().slice_dim(2, from..to).flip([2]);
            let before = if left > 0 { mirror(1, left + 1) } else { zeros(0) };
            let after = if right > 0 { mirror(n - 1 - right, n - 1) } else { zeros(0) };
            let all = joined(vec![(left, before), (n, long.clone()), (right, after)]);
            if more > 0 { all.slice_dim(2, 0..left + rows + right) } else { all }
        }
    }
}

/// Which row of a signal each row of a padded one is.
fn sources(mode: PadMode, rows: usize, left: usize, right: usize) -> cpu::conv::Sources {
    let last = rows.saturating_sub(1);
    // A signal that is too short to be mirrored is lengthened by zeros for the mirror only.
    let long = rows.max(left.max(right) + 1) - 1;
    let source = |place: usize| match (mode, place.checked_sub(left)) {
        (_, Some(row)) if row < rows => Some(row),
        (PadMode::Zero, _) => None,
        (PadMode::Replicate, None) => Some(0),
        (PadMode::Replicate, Some(_)) => Some(last),
        (PadMode::Reflect, None) => Some(left - place).filter(|row| *row < rows),
        (PadMode::Reflect, Some(row)) if row <= long => None,
        (PadMode::Reflect, Some(row)) => Some(2 * long - row).filter(|row| *row < rows),
    };
    (0..left + rows + right).map(source).collect()
}

/// Joins parts along time; parts of no rows are left out.
fn joined(parts: Vec<(usize, Tensor<3>)>) -> Tensor<3> {
    let mut parts: Vec<_> = parts.into_iter().filter(|(rows, _)| *rows > 0).map(|(_, part)| part).collect();
    if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 2) }
}

/// A transposed convolution. One that the engine defines by blocks is the same but for rounding.
pub(super) fn transposed(l: &ConvTranspose, vars: &Vars, x: Tensor<3>) -> Result<Tensor<3>, TrainError> {
    let (weight, bias) = (vars.weight::<3>(&l.name)?, vars.bias(&l.name, l.bias)?);
    let [batch, _, rows] = x.dims();
    let options = ConvTransposeOptions::new([l.stride as usize], [0], [0], [1], l.groups as usize);
    let full = vars.product(x, weight, bias.clone(), |x, weight, bias| {
        let y = cpu::conv::conv_transpose1d(&x, &weight, bias.as_ref(), l.stride as usize, l.groups as usize);
        y.unwrap_or_else(|| conv_transpose1d(x, weight, bias, options))
    });
    let len = (rows.max(1) - 1) * l.stride as usize + l.kernel as usize;
    let (left, right) = (l.trim_left as usize, l.trim_right.max(0) as usize);
    if left + right >= len {
        return Err(TrainError::TooShort { layer: l.name.clone(), rows: len, needed: left + right + 1 });
    }
    let y = if left + right > 0 { super::trimmed(full, left, right) } else { full };
    let more = (-l.trim_right).max(0) as usize;
    if more == 0 {
        return Ok(y);
    }
    let output = l.output as usize;
    let rows = match bias {
        Some(bias) => bias.reshape([1, output, 1]).expand([batch, output, more]),
        None => Tensor::zeros([batch, output, more], &y.device()),
    };
    Ok(Tensor::cat(vec![y, rows], 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::host;

    fn padded(mode: PadMode, rows: usize, left: usize, right: usize) -> Vec<f32> {
        let values: Vec<f32> = (1..=rows).map(|v| v as f32).collect();
        let x = Tensor::<1>::from_floats(values.as_slice(), &crate::device::cpu()).reshape([1, 1, rows]);
        host(pad(x, mode, left, right))
    }

    #[test]
    fn padding_modes() {
        assert_eq!(padded(PadMode::Zero, 3, 2, 1), [0., 0., 1., 2., 3., 0.]);
        assert_eq!(padded(PadMode::Replicate, 3, 2, 1), [1., 1., 1., 2., 3., 3.]);
        assert_eq!(padded(PadMode::Replicate, 3, 0, 2), [1., 2., 3., 3., 3.]);
        assert_eq!(padded(PadMode::Reflect, 4, 2, 3), [3., 2., 1., 2., 3., 4., 3., 2., 1.]);
        // Too short: mirrored as if zeros followed, which are cut off again.
        assert_eq!(padded(PadMode::Reflect, 2, 3, 0), [0., 0., 2., 1., 2.]);
        assert_eq!(padded(PadMode::Reflect, 2, 2, 2), [0., 2., 1., 2., 0., 2.]);
    }

    #[test]
    fn a_last_window_is_completed() {
        let p = |left, right| Padding { mode: PadMode::Zero, left, right, complete: true };
        assert_eq!(padding(&p(2, 0), 7, 4, 2), (2, 1));
        assert_eq!(padding(&p(2, 0), 8, 4, 2), (2, 0));
        assert_eq!(padding(&p(0, 0), 2, 4, 2), (0, 2));
    }
}

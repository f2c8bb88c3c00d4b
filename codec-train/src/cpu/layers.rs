//! Pointwise functions, layer norm, sums, and mean differences.

use std::sync::{Arc, Mutex, PoisonError};

use burn::{backend::flex::FlexTensor, tensor::Tensor};
use codec_core::kernel::{self, Pointwise};
use rayon::prelude::*;

use super::{
    Elements, Operand, SIGNAL, all, alone, ordered, plain,
    product::{column_sums, column_sums_of},
    record, tensor,
};

/// Elements of a task for a thread.
const TASK: usize = 1 << 14;

/// The order of axes in which a tensor lies in memory, as far as it has one, and the way back.
fn lie(value: &FlexTensor) -> (Vec<usize>, Vec<usize>) {
    let strides = value.layout().strides();
    let mut there: Vec<usize> = (0..strides.len()).collect();
    there.sort_by_key(|axis| std::cmp::Reverse(strides[*axis].unsigned_abs()));
    let mut back = vec![0; there.len()];
    there.iter().enumerate().for_each(|(to, from)| back[*from] = to);
    (there, back)
}

/// A tensor with new elements, that lies as another.
fn like(elements: Vec<f32>, shape: &[usize], there: &[usize], back: &[usize]) -> FlexTensor {
    let lying: Vec<usize> = there.iter().map(|axis| shape[*axis]).collect();
    tensor(elements, &lying, back)
}

/// Functions of one value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Function {
    /// `alpha * (exp(x) - 1)` below zero.
    Elu(f32),
    /// A slope below zero.
    LeakyRelu(f32),
    /// Hyperbolic tangent.
    Tanh,
    /// `x * (1 + erf(x / sqrt(2))) / 2`.
    Gelu,
    /// `x / (1 + exp(-x))`.
    Silu,
}

impl Function {
    fn kernel(self) -> Pointwise<'static> {
        match self {
            Self::Elu(alpha) => Pointwise::Elu(alpha),
            Self::LeakyRelu(slope) => Pointwise::LeakyRelu(slope),
            Self::Tanh => Pointwise::Tanh,
            Self::Gelu => Pointwise::Gelu,
            Self::Silu => Pointwise::Silu,
        }
    }

    /// The gradient of elements `x`, whose values are `y`, from the gradient `g` of these.
    fn backward(self, x: &[f32], y: &[f32], g: &[f32]) -> Vec<f32> {
        // In slices, whose loops are vectorised.
        fn each(x: &[f32], y: &[f32], g: &[f32], slope: impl Fn(f32, f32) -> f32 + Sync) -> Vec<f32> {
            let mut out = vec![0.0; x.len()];
            let operands = x.par_chunks(TASK).zip(y.par_chunks(TASK)).zip(g.par_chunks(TASK));
            out.par_chunks_mut(TASK).zip(operands).for_each(|(out, ((x, y), g))| {
                let all = out.iter_mut().zip(x).zip(y).zip(g);
                all.for_each(|(((out, x), y), g)| *out = g * slope(*x, *y));
            });
            out
        }
        match self {
            Self::Elu(alpha) => each(x, y, g, |x, y| if x > 0.0 { 1.0 } else { y + alpha }),
            Self::LeakyRelu(slope) => each(x, y, g, |x, _| if x > 0.0 { 1.0 } else { slope }),
            Self::Tanh => each(x, y, g, |_, y| 1.0 - y * y),
            // With the sigmoid s = y / x: s + y (1 - s).
            Self::Silu => each(x, y, g, |x, y| {
                let s = if x.abs() > 1e-20 { y / x } else { 0.5 };
                s + y * (1.0 - s)
            }),
            // With the normal distribution P = y / x: P + x p(x); exp(-x^2 / 2) is the kernel's ELU and 1.
            Self::Gelu => {
                let mut density: Vec<f32> = x.par_iter().with_min_len(TASK).map(|x| -0.5 * x * x).collect();
                kernel::pointwise(all(), Pointwise::Elu(1.0), 1, &mut density);
                let slopes = x.par_iter().zip(y).zip(&density).zip(g).with_min_len(TASK);
                let slope = |(((x, y), e), g): (((&f32, &f32), &f32), &f32)| {
                    let p = if x.abs() > 1e-20 { y / x } else { 0.5 };
                    g * (p + x * (e + 1.0) * 0.398_942_3)
                };
                slopes.map(slope).collect()
            }
        }
    }
}

/// A function of every element.
pub(crate) fn pointwise<const D: usize>(x: &Tensor<D>, f: Function) -> Option<Tensor<D>> {
    let shape = x.dims();
    let operand = Operand::of(x)?;
    let (there, back) = lie(&operand.value);
    let x = operand.ordered(&there);
    let mut y: Vec<f32> = x.par_iter().with_min_len(TASK).copied().collect();
    kernel::pointwise(all(), f.kernel(), 1, &mut y);
    let y = like(y, &shape, &there, &back);
    let values = Elements(y.permute(&there));
    Some(record([&operand], y, move |gradient, _| {
        let g = f.backward(&x, &values, &ordered(gradient, &there));
        [Some(like(g, &shape, &there, &back))]
    }))
}

/// `x + sin(a x)^2 / (a + 1e-9)` with `a` for each channel of `[items, channels, rows]` (Ziyin et al. 2020).
pub(crate) fn snake(x: &Tensor<3>, alpha: &Tensor<1>) -> Option<Tensor<3>> {
    let [items, channels, rows] = x.dims();
    let (operand, parameter) = (Operand::of(x)?, Operand::of(alpha)?);
    let (x, alpha) = (operand.ordered(&SIGNAL), parameter.plain());
    let inverse: Vec<f32> = alpha.iter().map(|a| 1.0 / (a + 1e-9)).collect();
    let mut y = x.to_vec();
    kernel::pointwise(all(), Pointwise::Snake { alpha: &alpha, inverse: &inverse }, channels, &mut y);
    let values = Elements(plain(y, &[items, rows, channels]));
    let y = values.0.permute(&SIGNAL);
    Some(record([&operand, &parameter], y, move |gradient, wanted| {
        let g = ordered(gradient, &SIGNAL);
        // Of `2 sin cos = sin(2 a x)`.
        let mut sine: Vec<f32> = x.iter().zip(alpha.iter().cycle()).map(|(x, a)| 2.0 * a * x).collect();
        sine.par_chunks_mut(TASK).for_each(|part| kernel::sine(alone(), part));
        let alpha_gradient = wanted[1].then(|| {
            let mut sums = vec![0.0; channels];
            let of_x = x.chunks_exact(channels).zip(values.chunks_exact(channels));
            for ((x, y), (g, s)) in of_x.zip(g.chunks_exact(channels).zip(sine.chunks_exact(channels))) {
                for c in 0..channels {
                    sums[c] += g[c] * inverse[c] * (s[c] * x[c] - (y[c] - x[c]));
                }
            }
            plain(sums, &[channels])
        });
        let x_gradient = wanted[0].then(|| {
            let factors = alpha.iter().zip(&inverse).map(|(a, i)| a * i).collect::<Vec<_>>();
            let of = |((g, s), f): ((&f32, &f32), &f32)| g * (1.0 + s * f);
            let x = g.iter().zip(&sine).zip(factors.iter().cycle()).map(of).collect();
            tensor(x, &[items, rows, channels], &SIGNAL)
        });
        [x_gradient, alpha_gradient]
    }))
}

/// Every channel of `[items, channels, rows]` times its factor.
pub(crate) fn scale(x: &Tensor<3>, factors: &Tensor<1>) -> Option<Tensor<3>> {
    let [items, channels, rows] = x.dims();
    let (operand, parameter) = (Operand::of(x)?, Operand::of(factors)?);
    let (x, factors) = (operand.ordered(&SIGNAL), parameter.plain());
    let times = move |x: &[f32], factors: &[f32]| {
        let mut y = x.to_vec();
        kernel::pointwise(all(), Pointwise::Multiply(factors), channels, &mut y);
        tensor(y, &[items, rows, channels], &SIGNAL)
    };
    let y = times(&x, &factors);
    Some(record([&operand, &parameter], y, move |gradient, wanted| {
        let g = ordered(gradient, &SIGNAL);
        let sums = wanted[1].then(|| plain(column_sums_of(&x, &g, channels, |x, g| x * g), &[channels]));
        [wanted[0].then(|| times(&g, &factors)), sums]
    }))
}

/// `a + b`, element by element.
fn summed(a: &[f32], b: &[f32]) -> Vec<f32> {
    let mut y = a.to_vec();
    y.par_chunks_mut(TASK).zip(b.par_chunks(TASK)).for_each(|(y, b)| {
        kernel::add(alone(), y, b);
    });
    y
}

/// A sum, which lies as its first operand.
pub(crate) fn add<const D: usize>(a: &Tensor<D>, b: &Tensor<D>) -> Option<Tensor<D>> {
    let shape = a.dims();
    if shape != b.dims() {
        return None;
    }
    let (a, b) = (Operand::of(a)?, Operand::of(b)?);
    let (there, back) = lie(&a.value);
    let y = like(summed(&a.ordered(&there), &b.ordered(&there)), &shape, &there, &back);
    Some(record([&a, &b], y, |gradient, wanted| wanted.map(|wanted| wanted.then(|| gradient.clone()))))
}

/// A tensor twice, so that its gradients are added up here: burn adds signals that do not lie in the order of their axes
/// element by element. Either may be left unused.
pub(crate) fn forked<const D: usize>(x: Tensor<D>) -> [Tensor<D>; 2] {
    let Some(operand) = Operand::of(&x).filter(|o| o.tracked.is_some()) else { return [x.clone(), x] };
    let shape = x.dims();
    let (there, back) = lie(&operand.value);
    // Whether a branch has handed its gradient on, and that of the other, if there is one.
    let seen = Arc::new(Mutex::new((false, None::<FlexTensor>)));
    let other = seen.clone();
    let trunk: Tensor<D> = record([&operand], operand.value.clone(), move |gradient, _| {
        let other = other.lock().unwrap_or_else(PoisonError::into_inner).1.take();
        let sum = |other: FlexTensor| {
            like(summed(&ordered(&other, &there), &ordered(gradient, &there)), &shape, &there, &back)
        };
        [Some(other.map_or_else(|| gradient.clone(), sum))]
    });
    let Some(trunk) = Operand::of(&trunk) else { return [x.clone(), x] };
    [(); 2].map(|()| {
        let seen = seen.clone();
        record([&trunk], trunk.value.clone(), move |gradient, _| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            if std::mem::replace(&mut seen.0, true) {
                seen.1 = Some(gradient.clone());
                return [None];
            }
            [Some(gradient.clone())]
        })
    })
}

/// Channels of `[items, channels, rows]` with zero mean and unit variance at every row, times a weight and plus a bias (Ba et
/// al. 2016).
pub(crate) fn layer_norm(x: &Tensor<3>, weight: &Tensor<1>, bias: &Tensor<1>, epsilon: f32) -> Option<Tensor<3>> {
    let [items, channels, rows] = x.dims();
    let (operand, w, b) = (Operand::of(x)?, Operand::of(weight)?, Operand::of(bias)?);
    let (x, weight) = (operand.ordered(&SIGNAL), w.plain());
    // The normalised signal, and one over the standard deviation of every row.
    let mut unit = x.to_vec();
    let mut inverse = vec![0.0; items * rows];
    unit.par_chunks_mut(channels).zip(&mut inverse).with_min_len(64).for_each(|(row, inverse)| {
        let mean = sum(row) / channels as f32;
        row.iter_mut().for_each(|x| *x -= mean);
        *inverse = 1.0 / (dot(row, row) / channels as f32 + epsilon).sqrt();
        row.iter_mut().for_each(|x| *x *= *inverse);
    });
    let bias = b.plain();
    let mut y = unit.clone();
    y.par_chunks_mut(channels).with_min_len(64).for_each(|row| {
        row.iter_mut().zip(&weight[..]).zip(&bias[..]).for_each(|((y, w), b)| *y = *y * w + b);
    });
    let y = tensor(y, &[items, rows, channels], &SIGNAL);
    Some(record([&operand, &w, &b], y, move |gradient, wanted| {
        let g = ordered(gradient, &SIGNAL);
        let x = wanted[0].then(|| {
            let mut x = g.to_vec();
            x.par_chunks_mut(channels).zip(unit.par_chunks(channels)).zip(&inverse).with_min_len(64).for_each(
                |((row, unit), inverse)| {
                    row.iter_mut().zip(&weight[..]).for_each(|(g, w)| *g *= w);
                    let mean = sum(row) / channels as f32;
                    let slope = dot(row, unit) / channels as f32;
                    row.iter_mut().zip(unit).for_each(|(g, u)| *g = (*g - mean - u * slope) * inverse);
                },
            );
            tensor(x, &[items, rows, channels], &SIGNAL)
        });
        let weights = wanted[1].then(|| plain(column_sums_of(&g, &unit, channels, |g, u| g * u), &[channels]));
        [x, weights, wanted[2].then(|| plain(column_sums(&g, channels), &[channels]))]
    }))
}

fn norms_of_rows(v: &[f32], columns: usize) -> Vec<f32> {
    v.par_chunks(columns.max(1)).with_min_len(16).map(|row| dot(row, row).sqrt()).collect()
}

/// Norms of the rows, without a gradient.
pub(crate) fn row_norms(v: &Tensor<2>) -> Option<Tensor<1>> {
    let [rows, columns] = v.dims();
    let norms = norms_of_rows(&Operand::of(v)?.plain(), columns);
    Some(Tensor::from_primitive::<burn::backend::Flex>(plain(norms, &[rows])))
}

/// Rows of `v` with the norms `g`: `g v / |v|` (Salimans & Kingma 2016, equations 2 and 3). The quotient `g / |v|` is exactly 1
/// where `g` is of [`row_norms`].
pub(crate) fn weight_norm(v: &Tensor<2>, g: &Tensor<1>) -> Option<Tensor<2>> {
    let [rows, columns] = v.dims();
    let (of_v, of_g) = (Operand::of(v)?, Operand::of(g)?);
    let (v, g) = (of_v.plain(), of_g.plain());
    let norms = norms_of_rows(&v, columns);
    let factors: Vec<f32> = g.iter().zip(&norms).map(|(g, norm)| g / norm).collect();
    let mut y = v.to_vec();
    let rows_of = y.par_chunks_mut(columns.max(1)).zip(&factors).with_min_len(16);
    rows_of.for_each(|(y, factor)| y.iter_mut().for_each(|y| *y *= factor));
    Some(record([&of_v, &of_g], plain(y, &[rows, columns]), move |gradient, wanted| {
        let mut slopes = Elements(gradient.to_contiguous()).to_vec();
        let v = v.par_chunks(columns.max(1)).zip(norms.par_iter().zip(&factors));
        let of_g = slopes.par_chunks_mut(columns.max(1)).zip(v).map(|(slope, (v, (norm, factor)))| {
            let along = dot(slope, v) / norm;
            slope.iter_mut().zip(v).for_each(|(s, v)| *s = factor * (*s - v * (along / norm)));
            along
        });
        let of_g: Vec<f32> = of_g.collect();
        [wanted[0].then(|| plain(slopes, &[rows, columns])), wanted[1].then(|| plain(of_g, &[rows]))]
    }))
}

/// Partial sums that a processor adds side by side.
const LANES: usize = 16;

fn sum(x: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().sum();
    chunks.for_each(|chunk| lanes.iter_mut().zip(chunk).for_each(|(l, x)| *l += x));
    lanes.iter().sum::<f32>() + rest
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    a.zip(b).for_each(|(a, b)| lanes.iter_mut().zip(a).zip(b).for_each(|((l, a), b)| *l += a * b));
    lanes.iter().sum::<f32>() + rest
}

/// The sum of all squares.
pub(crate) fn sum_of_squares(x: &Tensor<1>) -> Option<f64> {
    let parts: Vec<f64> = Operand::of(x)?.plain().par_chunks(TASK).map(|x| f64::from(dot(x, x))).collect();
    Some(parts.iter().sum())
}

/// The mean absolute value.
pub(crate) fn mean_magnitude<const D: usize>(x: &Tensor<D>) -> Option<f32> {
    let operand = Operand::of(x)?;
    let x = operand.ordered(&lie(&operand.value).0);
    let parts: Vec<f32> = x.par_chunks(1024).map(|x| x.iter().map(|x| x.abs()).sum::<f32>()).collect();
    Some((parts.iter().map(|p| f64::from(*p)).sum::<f64>() / x.len().max(1) as f64) as f32)
}

/// The mean absolute difference from a tensor that has no gradient.
pub(crate) fn mean_difference<const D: usize>(a: &Tensor<D>, b: &Tensor<D>) -> Option<Tensor<1>> {
    let shape = a.dims();
    let (a, b) = (Operand::of(a)?, Operand::of(b)?);
    let (there, back) = lie(&a.value);
    let (x, y) = (a.ordered(&there), b.ordered(&there));
    let count = x.len().max(1) as f64;
    let part = |(x, y): (&[f32], &[f32])| x.iter().zip(y).map(|(x, y)| (x - y).abs()).sum::<f32>();
    let parts: Vec<f32> = x.par_chunks(1024).zip(y.par_chunks(1024)).map(part).collect();
    let mean = parts.iter().map(|p| f64::from(*p)).sum::<f64>() / count;
    Some(record([&a], plain(vec![mean as f32], &[1]), move |gradient, _| {
        let g = Elements(gradient.to_contiguous()).first().copied().unwrap_or_default() / count as f32;
        let sign = |x: f32, y: f32| f32::from(i8::from(x > y) - i8::from(x < y));
        let mut slopes = vec![0.0; x.len()];
        let operands = x.par_chunks(TASK).zip(y.par_chunks(TASK));
        slopes.par_chunks_mut(TASK).zip(operands).for_each(|(slopes, (x, y))| {
            slopes.iter_mut().zip(x).zip(y).for_each(|((slope, x), y)| *slope = g * sign(*x, *y));
        });
        [Some(like(slopes, &shape, &there, &back))]
    }))
}

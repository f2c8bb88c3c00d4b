//! Convolutions, their adjoints, depthwise convolutions and padding.

use burn::{backend::flex::FlexTensor, tensor::Tensor};
use codec_core::kernel::{self, Epilogue, Out, Pointwise, Rows, Start};
use rayon::prelude::*;

use super::{
    Elements, Operand, SIGNAL, alone,
    product::{Geometry, adjoint, column_sums, correlate, taps_first, weight_gradient},
    record, tensor,
};

/// The order of axes in which an image lies in memory, and the way back. Images whose taps are along the height only lie on
/// their side, so that taps are always along what the kernel takes for the width.
#[derive(Clone, Copy)]
struct Lie {
    there: [usize; 4],
    back: [usize; 4],
}

const UPRIGHT: Lie = Lie { there: [0, 2, 3, 1], back: [0, 3, 1, 2] };
const ON_ITS_SIDE: Lie = Lie { there: [0, 3, 2, 1], back: [0, 3, 2, 1] };

/// How a convolution of images goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Strides of height and width.
    pub stride: [usize; 2],
    /// Dilations.
    pub dilation: [usize; 2],
    /// Channel groups.
    pub groups: usize,
}

/// A convolution without padding of images `[items, channels, height, width]` with a weight `[output, input / groups, height,
/// width]`. `None` if the device is not the processor.
pub(crate) fn conv2d(x: &Tensor<4>, weight: &Tensor<4>, bias: &Tensor<1>, options: Options) -> Option<Tensor<4>> {
    let [items, input, height, width] = x.dims();
    let [output, _, kh, kw] = weight.dims();
    let side = kw == 1 && kh > 1;
    let lie = if side { ON_ITS_SIDE } else { UPRIGHT };
    let turned = |pair: [usize; 2]| if side { [pair[1], pair[0]] } else { pair };
    let geometry = Geometry {
        items,
        input: turned([height, width]),
        channels: [input, output],
        kernel: turned([kh, kw]),
        stride: turned(options.stride),
        dilation: turned(options.dilation),
        groups: options.groups,
    };
    let (x, w, b) = (Operand::of(x)?, Operand::of(weight)?, Operand::of(bias)?);
    let (signal, kernel) = (x.ordered(&lie.there), taps_first(w.plain(), input / options.groups, kh * kw));
    let y = correlate(geometry, &signal, &kernel, Some(&b.plain()));
    let [rows, columns] = geometry.output();
    let y = tensor(y, &[items, rows, columns, output], &lie.back);
    Some(record([&x, &w, &b], y, move |gradient, wanted| {
        let g = super::ordered(gradient, &lie.there);
        let [h, w] = geometry.input;
        [
            wanted[0].then(|| tensor(adjoint(geometry, &g, &kernel, None), &[items, h, w, input], &lie.back)),
            wanted[1].then(|| {
                super::plain(weight_gradient(geometry, &signal, &g), &[output, input / options.groups, kh, kw])
            }),
            wanted[2].then(|| super::plain(column_sums(&g, output), &[output])),
        ]
    }))
}

/// A convolution without padding of signals `[items, channels, rows]` with a weight `[output, input / groups, taps]`.
pub(crate) fn conv1d(
    x: &Tensor<3>,
    weight: &Tensor<3>,
    bias: Option<&Tensor<1>>,
    stride: usize,
    dilation: usize,
    groups: usize,
) -> Option<Tensor<3>> {
    let [items, input, rows] = x.dims();
    let [output, per_group, taps] = weight.dims();
    if groups > 1 && groups == input && groups == output && stride == 1 {
        return depthwise(x, weight, bias, dilation);
    }
    let geometry = Geometry {
        items,
        input: [1, rows],
        channels: [input, output],
        kernel: [1, taps],
        stride: [1, stride],
        dilation: [1, dilation],
        groups,
    };
    let (x, w) = (Operand::of(x)?, Operand::of(weight)?);
    let (signal, kernel) = (x.ordered(&SIGNAL), taps_first(w.plain(), per_group, taps));
    let b = with_bias(bias)?;
    let y = correlate(geometry, &signal, &kernel, b.as_ref().map(|b| b.plain()).as_deref());
    let y = tensor(y, &[items, geometry.output()[1], output], &SIGNAL);
    let rule = move |g: &Elements, wanted: [bool; 2]| {
        [
            wanted[0].then(|| tensor(adjoint(geometry, g, &kernel, None), &[items, rows, input], &SIGNAL)),
            wanted[1].then(|| super::plain(weight_gradient(geometry, &signal, g), &[output, per_group, taps])),
        ]
    };
    Some(recorded(&x, &w, b, y, output, rule))
}

/// A transposed convolution of signals `[items, channels, rows]` with a weight `[input, output / groups, taps]`, untrimmed.
pub(crate) fn conv_transpose1d(
    x: &Tensor<3>,
    weight: &Tensor<3>,
    bias: Option<&Tensor<1>>,
    stride: usize,
    groups: usize,
) -> Option<Tensor<3>> {
    let [items, input, rows] = x.dims();
    let [_, per_group, taps] = weight.dims();
    let output = per_group * groups;
    let len = (rows.max(1) - 1) * stride + taps;
    // The adjoint of this one.
    let geometry = Geometry {
        items,
        input: [1, len],
        channels: [output, input],
        kernel: [1, taps],
        stride: [1, stride],
        dilation: [1, 1],
        groups,
    };
    let (x, w) = (Operand::of(x)?, Operand::of(weight)?);
    let (signal, kernel) = (x.ordered(&SIGNAL), taps_first(w.plain(), per_group, taps));
    let b = with_bias(bias)?;
    let y = adjoint(geometry, &signal, &kernel, b.as_ref().map(|b| b.plain()).as_deref());
    let y = tensor(y, &[items, len, output], &SIGNAL);
    let rule = move |g: &Elements, wanted: [bool; 2]| {
        [
            wanted[0].then(|| tensor(correlate(geometry, g, &kernel, None), &[items, rows, input], &SIGNAL)),
            wanted[1].then(|| super::plain(weight_gradient(geometry, g, &signal), &[input, per_group, taps])),
        ]
    };
    Some(recorded(&x, &w, b, y, output, rule))
}

/// `None` where there is a bias and it is elsewhere.
fn with_bias(bias: Option<&Tensor<1>>) -> Option<Option<Operand>> {
    match bias {
        Some(bias) => Operand::of(bias).map(Some),
        None => Some(None),
    }
}

/// Records an operation on signal and weight, with a bias or without, whose result has `output` channels.
fn recorded(
    x: &Operand,
    w: &Operand,
    b: Option<Operand>,
    y: FlexTensor,
    output: usize,
    rule: impl Fn(&Elements, [bool; 2]) -> [Option<FlexTensor>; 2] + Send + Sync + 'static,
) -> Tensor<3> {
    match b {
        Some(b) => record([x, w, &b], y, move |gradient, [x, w, b]| {
            let g = super::ordered(gradient, &SIGNAL);
            let [x, w] = rule(&g, [x, w]);
            [x, w, b.then(|| super::plain(column_sums(&g, output), &[output]))]
        }),
        None => record([x, w], y, move |gradient, wanted| rule(&super::ordered(gradient, &SIGNAL), wanted)),
    }
}

/// A convolution of every channel by itself, with a weight `[channels, 1, taps]`.
fn depthwise(x: &Tensor<3>, weight: &Tensor<3>, bias: Option<&Tensor<1>>, dilation: usize) -> Option<Tensor<3>> {
    let [items, channels, rows] = x.dims();
    let taps = weight.dims()[2];
    let (x, w) = (Operand::of(x)?, Operand::of(weight)?);
    let b = with_bias(bias)?;
    let signal = x.ordered(&SIGNAL);
    // Channels last.
    let kernel = w.ordered(&[2, 1, 0]);
    let columns = rows - (taps - 1) * dilation;
    let span = (taps - 1) * dilation;
    let bias_values = b.as_ref().map(|b| b.plain());
    let y = slid(&signal, &kernel, bias_values.as_deref(), [items, rows, columns, channels, taps], dilation);
    let y = tensor(y, &[items, columns, channels], &SIGNAL);
    let rule = move |g: &Elements, wanted: [bool; 2]| {
        let x = wanted[0].then(|| {
            // The same with the taps the other way round, on a gradient with zeros around it.
            let long = columns + 2 * span;
            let mut padded = vec![0.0; items * long * channels];
            for (to, from) in padded.chunks_exact_mut(long * channels).zip(g.chunks_exact(columns * channels)) {
                to[span * channels..][..columns * channels].copy_from_slice(from);
            }
            let turned: Vec<f32> = kernel.chunks_exact(channels).rev().flatten().copied().collect();
            let x = slid(&padded, &turned, None, [items, long, rows, channels, taps], dilation);
            tensor(x, &[items, rows, channels], &SIGNAL)
        });
        let w = wanted[1].then(|| {
            let mut sums = vec![0.0; taps * channels];
            sums.par_chunks_mut(channels).enumerate().for_each(|(tap, sum)| {
                for (x, g) in signal.chunks_exact(rows * channels).zip(g.chunks_exact(columns * channels)) {
                    let x = x[tap * dilation * channels..].chunks_exact(channels);
                    for (x, g) in x.zip(g.chunks_exact(channels)) {
                        sum.iter_mut().zip(x).zip(g).for_each(|((sum, x), g)| *sum += x * g);
                    }
                }
            });
            tensor(sums, &[taps, 1, channels], &[2, 1, 0])
        });
        [x, w]
    };
    Some(recorded(&x, &w, b, y, channels, rule))
}

/// A depthwise convolution of items with `rows` rows to `columns`.
fn slid(
    x: &[f32],
    kernel: &[f32],
    bias: Option<&[f32]>,
    [items, rows, columns, channels, taps]: [usize; 5],
    dilation: usize,
) -> Vec<f32> {
    let mut y = vec![0.0; items * columns * channels];
    if y.is_empty() {
        return y;
    }
    y.par_chunks_mut(columns * channels).zip(x.par_chunks(rows * channels)).for_each(|(y, x)| {
        let rows = Rows {
            data: x,
            origin: 0,
            rows: columns,
            row_stride: channels,
            taps,
            tap_stride: (dilation * channels) as isize,
            depth: channels,
        };
        let start = bias.map_or(Start::Zero, Start::Bias);
        let epilogue = Epilogue { residual: None, then: Pointwise::Identity };
        let out = Out { data: y, origin: 0, row_stride: channels };
        let fits = kernel::depthwise(alone(), rows, channels, kernel, start, epilogue, out);
        debug_assert!(fits, "a convolution beyond its slices");
    });
    y
}

/// Where rows of a result come from: a row of the operand, or zeros.
pub(crate) type Sources = Vec<Option<usize>>;

/// Signals `[items, channels, rows]` whose rows are taken from rows of `x`.
pub(crate) fn rows(x: &Tensor<3>, sources: Sources) -> Option<Tensor<3>> {
    let [items, channels, rows] = x.dims();
    let operand = Operand::of(x)?;
    let y = gathered(&operand.ordered(&SIGNAL), &[Some(0)], &sources, [items, 1, rows, channels]);
    let y = tensor(y, &[items, sources.len(), channels], &SIGNAL);
    Some(record([&operand], y, move |gradient, _| {
        let g = super::ordered(gradient, &SIGNAL);
        let x = scattered(&g, &[Some(0)], &sources, [items, 1, rows, channels]);
        [Some(tensor(x, &[items, rows, channels], &SIGNAL))]
    }))
}

/// Images with rows and columns of zeros around them: so many at both sides of height and width.
pub(crate) fn zeros_around(x: &Tensor<4>, [top, left]: [usize; 2], on_its_side: bool) -> Option<Tensor<4>> {
    let [items, channels, height, width] = x.dims();
    let operand = Operand::of(x)?;
    let lie = if on_its_side { ON_ITS_SIDE } else { UPRIGHT };
    let (sizes, [top, left]) =
        if on_its_side { ([width, height], [left, top]) } else { ([height, width], [top, left]) };
    let around = |n: usize, side: usize| -> Sources {
        (0..n + 2 * side).map(|i| i.checked_sub(side).filter(|i| *i < n)).collect()
    };
    let (tall, wide) = (around(sizes[0], top), around(sizes[1], left));
    let dims = [items, sizes[0], sizes[1], channels];
    let y = gathered(&operand.ordered(&lie.there), &tall, &wide, dims);
    let y = tensor(y, &[items, tall.len(), wide.len(), channels], &lie.back);
    Some(record([&operand], y, move |gradient, _| {
        let g = super::ordered(gradient, &lie.there);
        [Some(tensor(scattered(&g, &tall, &wide, dims), &dims, &lie.back))]
    }))
}

/// Calls `f` with positions in the result and in the operand and a number of neighbouring pixels that both have.
fn runs(wide: &[Option<usize>], mut f: impl FnMut(usize, usize, usize)) {
    let mut i = 0;
    while i < wide.len() {
        let Some(from) = wide[i] else {
            i += 1;
            continue;
        };
        let len = wide[i..].iter().zip(from..).take_while(|(source, j)| **source == Some(*j)).count();
        f(i, from, len);
        i += len;
    }
}

/// Images `[items, height, width, channels]` gathered along height and width.
fn gathered(
    x: &[f32],
    tall: &[Option<usize>],
    wide: &[Option<usize>],
    [items, height, width, channels]: [usize; 4],
) -> Vec<f32> {
    let mut y = vec![0.0; items * tall.len() * wide.len() * channels];
    if y.is_empty() {
        return y;
    }
    y.par_chunks_mut(tall.len() * wide.len() * channels).zip(x.par_chunks(height * width * channels)).for_each(
        |(y, x)| {
            for (i, y) in y.chunks_exact_mut(wide.len() * channels).enumerate() {
                let Some(from) = tall[i] else { continue };
                let x = &x[from * width * channels..][..width * channels];
                runs(wide, |to, from, len| {
                    y[to * channels..][..len * channels].copy_from_slice(&x[from * channels..][..len * channels]);
                });
            }
        },
    );
    y
}

/// The adjoint of [`gathered`].
fn scattered(
    y: &[f32],
    tall: &[Option<usize>],
    wide: &[Option<usize>],
    [items, height, width, channels]: [usize; 4],
) -> Vec<f32> {
    let mut x = vec![0.0; items * height * width * channels];
    if x.is_empty() {
        return x;
    }
    x.par_chunks_mut(height * width * channels).zip(y.par_chunks(tall.len() * wide.len() * channels)).for_each(
        |(x, y)| {
            for (i, y) in y.chunks_exact(wide.len() * channels).enumerate() {
                let Some(to) = tall[i] else { continue };
                let x = &mut x[to * width * channels..][..width * channels];
                runs(wide, |from, to, len| {
                    let y = &y[from * channels..][..len * channels];
                    x[to * channels..][..len * channels].iter_mut().zip(y).for_each(|(x, y)| *x += y);
                });
            }
        },
    );
    x
}

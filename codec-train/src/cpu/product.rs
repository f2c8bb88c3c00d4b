//! Convolutions of images without padding, channels last, as products of the engine's matrix kernel: the convolution, its
//! adjoint, and the gradient of its weight. Weights are `[output, height, width, input / groups]` here, as [`taps_first`] turns
//! them, and their gradients lie as the tensors do.

use codec_core::kernel::{
    Compute, Epilogue, Out, PANEL, Panels, Pointwise, Rows, Start, Weights, matmul, pack, panel_len,
};
use rayon::prelude::*;

use super::{Elements, all, alone, plain};

/// Sizes of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Images.
    pub items: usize,
    /// Height and width of an input.
    pub input: [usize; 2],
    /// Channels of an input and of an output.
    pub channels: [usize; 2],
    /// Taps along height and width.
    pub kernel: [usize; 2],
    /// Strides.
    pub stride: [usize; 2],
    /// Dilations.
    pub dilation: [usize; 2],
    /// Channel groups.
    pub groups: usize,
}

impl Geometry {
    /// Height and width of an output.
    pub fn output(&self) -> [usize; 2] {
        [0, 1].map(|i| (self.input[i] - (self.kernel[i] - 1) * self.dilation[i] - 1) / self.stride[i] + 1)
    }

    /// What does not look beyond a point is a product of all points of all images.
    fn merged(mut self) -> Self {
        if self.kernel == [1, 1] && self.stride == [1, 1] {
            self.input = [1, self.items * self.input[0] * self.input[1]];
            self.items = 1;
        }
        self
    }

    fn sizes(&self) -> Sizes {
        let [height, width] = self.input;
        let [rows, columns] = self.output();
        let [input, output] = self.channels;
        Sizes { height, width, rows, columns, input, output, cin: input / self.groups, cout: output / self.groups }
    }
}

/// The same by name.
struct Sizes {
    height: usize,
    width: usize,
    rows: usize,
    columns: usize,
    input: usize,
    output: usize,
    cin: usize,
    cout: usize,
}

const PLAIN: Epilogue<'static> = Epilogue { residual: None, then: Pointwise::Identity };

/// Calls `f` for each image and its part of `out`: images side by side, or one image with all threads.
fn each(items: usize, out: &mut [f32], f: impl Fn(Compute<'_>, usize, &mut [f32]) + Sync) {
    if out.is_empty() || items == 0 {
        return;
    }
    let len = out.len() / items;
    if items == 1 {
        f(all(), 0, out);
    } else {
        out.par_chunks_mut(len).enumerate().for_each(|(i, out)| f(alone(), i, out));
    }
}

fn product(cx: Compute<'_>, a: Rows<'_>, columns: usize, panels: &[f32], start: Start<'_>, out: Out<'_>) {
    let w = Panels { columns, depth: a.taps * a.depth, data: Weights::F32(panels) };
    let fits = matmul(cx, a, w, start, PLAIN, out);
    debug_assert!(fits, "a product beyond its slices");
}

/// A weight `[output, input / groups, height, width]` as `[output, height, width, input / groups]`; on all threads, which burn's
/// change of order is not.
pub(crate) fn taps_first(weight: Elements, inputs: usize, taps: usize) -> Elements {
    if taps == 1 {
        return weight;
    }
    let mut turned = vec![0.0; weight.len()];
    let len = (inputs * taps).max(1);
    turned.par_chunks_mut(len).zip(weight.par_chunks(len)).for_each(|(to, from)| {
        for (tap, to) in to.chunks_exact_mut(inputs).enumerate() {
            to.iter_mut().zip(from[tap..].iter().step_by(taps)).for_each(|(to, from)| *to = *from);
        }
    });
    let len = turned.len();
    Elements(plain(turned, &[len]))
}

/// A matrix given by `weight(column, k)` in panel order.
pub(super) fn packed(columns: usize, depth: usize, weight: impl Fn(usize, usize) -> f32 + Sync) -> Vec<f32> {
    let mut panels = vec![0.0; panel_len(columns, depth)];
    panels.par_chunks_mut((PANEL * depth).max(1)).enumerate().for_each(|(i, panel)| {
        let first = i * PANEL;
        pack(PANEL.min(columns - first), depth, |column, k| weight(first + column, k), panel);
    });
    panels
}

/// Where the taps of one phase of the adjoint lie: the first tap, the step from tap to tap, and how many there are; the first
/// shift in columns of the output, and the step of the shift.
struct Phase {
    first: usize,
    step: usize,
    taps: usize,
    shift: usize,
    shift_step: usize,
}

fn phases(kernel: usize, stride: usize, dilation: usize) -> Vec<Option<Phase>> {
    let common = gcd(stride, dilation);
    let phase = |p: usize| {
        let first = (0..kernel.min(stride)).find(|k| k * dilation % stride == p)?;
        let step = stride / common;
        let taps = (kernel - first).div_ceil(step);
        Some(Phase { first, step, taps, shift: first * dilation / stride, shift_step: dilation / common })
    };
    (0..stride).map(phase).collect()
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The convolution of `x` `[items, height, width, input]`: `[items, rows, columns, output]`.
pub(crate) fn correlate(geometry: Geometry, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let g = geometry.merged();
    let s = g.sizes();
    let [kh, kw] = g.kernel;
    let depth = kw * s.cin;
    // For each group and tap of the height.
    let panels: Vec<Vec<f32>> = (0..g.groups * kh)
        .map(|i| {
            let (group, h) = (i / kh, i % kh);
            let weight = &weight[group * s.cout * s.cin * kh * kw..];
            packed(s.cout, depth, |o, k| weight[(o * kh + h) * depth + k])
        })
        .collect();
    let mut y = vec![0.0; g.items * s.rows * s.columns * s.output];
    each(g.items, &mut y, |cx, item, y| {
        let x = &x[item * s.height * s.width * s.input..][..s.height * s.width * s.input];
        for (row, y) in y.chunks_exact_mut(s.columns * s.output).enumerate() {
            for (i, panel) in panels.iter().enumerate() {
                let (group, h) = (i / kh, i % kh);
                let rows = Rows {
                    data: x,
                    origin: (row * g.stride[0] + h * g.dilation[0]) * s.width * s.input + group * s.cin,
                    rows: s.columns,
                    row_stride: g.stride[1] * s.input,
                    taps: kw,
                    tap_stride: (g.dilation[1] * s.input) as isize,
                    depth: s.cin,
                };
                let start = match (h, bias) {
                    (0, None) => Start::Zero,
                    (0, Some(bias)) => Start::Bias(&bias[group * s.cout..][..s.cout]),
                    _ => Start::Output,
                };
                let out = Out { data: y, origin: group * s.cout, row_stride: s.output };
                product(cx, rows, s.cout, panel, start, out);
            }
        }
    });
    y
}

/// The adjoint of the convolution: of `y` `[items, rows, columns, output]` `[items, height, width, input]`; `bias` of the
/// input's channels is added everywhere.
pub(crate) fn adjoint(geometry: Geometry, y: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let g = geometry.merged();
    let s = g.sizes();
    let [kh, kw] = g.kernel;
    let stride = g.stride[1];
    let phases = phases(kw, stride, g.dilation[1]);
    // For each phase that has taps, group and tap of the height.
    let mut panels = Vec::new();
    for phase in phases.iter().flatten() {
        let depth = phase.taps * s.cout;
        for group in 0..g.groups {
            for h in 0..kh {
                let weight = &weight[group * s.cout * s.cin * kh * kw..];
                let tap = |k: usize| h * kw + phase.first + k / s.cout * phase.step;
                panels.push(packed(s.cin, depth, |c, k| weight[(k % s.cout * kh * kw + tap(k)) * s.cin + c]));
            }
        }
    }
    // Columns of zeros around a row of `y`, so that every tap reads something.
    let side = phases.iter().flatten().map(|p| p.shift + (p.taps - 1) * p.shift_step).max().unwrap_or(0);
    let least = s.width.div_ceil(stride).max(s.columns);
    let padded = side + least;
    let mut x = vec![0.0; g.items * s.height * s.width * s.input];
    each(g.items, &mut x, |cx, item, x| {
        if let Some(bias) = bias {
            x.chunks_exact_mut(s.input).for_each(|x| x.copy_from_slice(bias));
        }
        let mut room = if padded > s.columns { vec![0.0; padded * s.output] } else { Vec::new() };
        for row in 0..s.rows {
            let y = &y[(item * s.rows + row) * s.columns * s.output..][..s.columns * s.output];
            let y = if padded > s.columns {
                room[side * s.output..][..y.len()].copy_from_slice(y);
                &room[..]
            } else {
                y
            };
            let mut panels = panels.iter();
            for (p, phase) in phases.iter().enumerate() {
                let Some(phase) = phase else { continue };
                for group in 0..g.groups {
                    for (h, panel) in (0..kh).zip(&mut panels) {
                        let x = &mut x[(row * g.stride[0] + h * g.dilation[0]) * s.width * s.input..];
                        let rows = Rows {
                            data: y,
                            origin: (side - phase.shift) * s.output + group * s.cout,
                            rows: s.width.saturating_sub(p).div_ceil(stride),
                            row_stride: s.output,
                            taps: phase.taps,
                            tap_stride: -((phase.shift_step * s.output) as isize),
                            depth: s.cout,
                        };
                        let origin = p * s.input + group * s.cin;
                        let out = Out { data: x, origin, row_stride: stride * s.input };
                        product(cx, rows, s.cin, panel, Start::Output, out);
                    }
                }
            }
        }
    });
    x
}

/// Values of a piece of a signal and of its result that fit into a cache together.
const CACHED: usize = 1 << 17;

/// Columns of the result that one product sums up over.
const PIECE: std::ops::RangeInclusive<usize> = 128..=1024;

/// Columns from which on parts of the sum are worth a memory of their own.
const PARTED: usize = 1024;

/// The gradient of the weight, of input and gradient of the output.
pub(crate) fn weight_gradient(geometry: Geometry, x: &[f32], y: &[f32]) -> Vec<f32> {
    let g = geometry.merged();
    let s = g.sizes();
    let taps = g.kernel[0] * g.kernel[1];
    let (size, columns) = (s.cin * s.cout, s.columns);
    if size * taps == 0 {
        return Vec::new();
    }
    if [g.items, g.groups, taps, s.rows, s.width] == [1, 1, 1, 1, columns] {
        // With input and output in each other's place the sums lie as the weight does.
        let mut sums = gradient_sums(Geometry { channels: [s.output, s.input], ..g }, y, x).into_iter();
        let mut weight = sums.next().unwrap_or_default();
        sums.for_each(|sum| weight.iter_mut().zip(&sum).for_each(|(w, sum)| *w += sum));
        return weight;
    }
    let sums = gradient_sums(g, x, y);
    let mut weight = vec![0.0; s.output * s.cin * taps];
    for (group, weight) in weight.chunks_exact_mut(size * taps).enumerate() {
        weight.par_chunks_mut(PANEL * s.cin * taps).enumerate().for_each(|(i, weight)| {
            let (first, count) = (i * PANEL, PANEL.min(s.cout - i * PANEL));
            for c in 0..s.cin {
                for tap in 0..taps {
                    let from = ((group * taps + tap) * s.cin + c) * s.cout + first;
                    let mut all = [0.0; PANEL];
                    for sum in &sums {
                        all.iter_mut().zip(&sum[from..][..count]).for_each(|(all, sum)| *all += sum);
                    }
                    for (o, all) in all[..count].iter().enumerate() {
                        weight[(o * s.cin + c) * taps + tap] = *all;
                    }
                }
            }
        });
    }
    weight
}

/// Parts of the gradient of the weight that are to be added up, each `[group, kh, kw, cin, cout]`.
fn gradient_sums(g: Geometry, x: &[f32], y: &[f32]) -> Vec<Vec<f32>> {
    let s = g.sizes();
    let [kh, kw] = g.kernel;
    let taps = kh * kw;
    let size = s.cin * s.cout;
    let piece = (CACHED / (kh * g.stride[1] * s.input + s.output)).clamp(*PIECE.start(), *PIECE.end());
    let along = s.columns.div_ceil(piece);
    let pieces = g.items * s.rows * along;
    // The parts do not depend on the number of threads, so that neither do the sums.
    let parts = if g.items * s.rows * s.columns < PARTED { 1 } else { pieces.min(4) };
    let part = |part: usize| {
        let mut sum = vec![0.0_f32; g.groups * taps * size];
        let (mut turned, mut panels) = (Vec::new(), Vec::new());
        for i in (pieces * part / parts)..(pieces * (part + 1) / parts) {
            let (item, row, first) = (i / along / s.rows, i / along % s.rows, i % along * piece);
            let depth = piece.min(s.columns - first);
            let wide = turn_piece(&g, x, [item, row, first, depth], &mut turned);
            let from = ((item * s.rows + row) * s.columns + first) * s.output;
            let len = panel_len(s.cout, depth);
            panels.resize(len * g.groups, 0.0);
            for (group, panels) in panels.chunks_exact_mut(len.max(1)).enumerate() {
                columns(&y[from..][..depth * s.output], s.output, group * s.cout, s.cout, panels);
            }
            let add = |cx: Compute<'_>, i: usize, sum: &mut [f32]| {
                let (group, h, w) = (i / taps, i / kw % kh, i % kw);
                let (p, shift) = (w * g.dilation[1] % g.stride[1], w * g.dilation[1] / g.stride[1]);
                let rows = Rows {
                    data: &turned,
                    origin: ((h * g.stride[1] + p) * s.input + group * s.cin) * wide + shift,
                    rows: s.cin,
                    row_stride: wide,
                    taps: 1,
                    tap_stride: 0,
                    depth,
                };
                let out = Out { data: sum, origin: 0, row_stride: s.cout };
                product(cx, rows, s.cout, &panels[group * len..][..len], Start::Output, out);
            };
            if g.groups * taps == 1 {
                add(all(), 0, &mut sum);
            } else {
                sum.par_chunks_mut(size).enumerate().for_each(|(i, sum)| add(alone(), i, sum));
            }
        }
        sum
    };
    if parts == 1 { vec![part(0)] } else { (0..parts).into_par_iter().map(part).collect() }
}

/// What a piece of a row of the result sees, as `[kh, stride, input, wide]`: phases of the stride, channels first. Returns
/// `wide`.
fn turn_piece(g: &Geometry, x: &[f32], [item, row, first, depth]: [usize; 4], turned: &mut Vec<f32>) -> usize {
    // In tiles that stay in a cache.
    const TILE: usize = 32;
    let s = g.sizes();
    let stride = g.stride[1];
    let wide = depth + (g.kernel[1] - 1) * g.dilation[1] / stride;
    turned.resize(g.kernel[0] * stride * s.input * wide, 0.0);
    for (i, turned) in turned.chunks_exact_mut(s.input * wide).enumerate() {
        let (h, p) = (i / stride, i % stride);
        let from = ((item * s.height + row * g.stride[0] + h * g.dilation[0]) * s.width) * s.input;
        let x = &x[from..][..s.width * s.input];
        let there = wide.min(s.width.saturating_sub(first * stride + p).div_ceil(stride));
        for t0 in (0..there).step_by(TILE) {
            let t1 = (t0 + TILE).min(there);
            for (c, to) in turned.chunks_exact_mut(wide).enumerate() {
                for (t, to) in (t0..t1).zip(&mut to[t0..t1]) {
                    *to = x[((first + t) * stride + p) * s.input + c];
                }
            }
        }
        turned.chunks_exact_mut(wide).for_each(|to| to[there..].fill(0.0));
    }
    wide
}

/// Rows of a task for a thread.
const ROWS: usize = 1024;

/// Sums over all rows of `[rows, channels]`.
pub(crate) fn column_sums(y: &[f32], channels: usize) -> Vec<f32> {
    column_sums_of(y, y, channels, |y, _| y)
}

/// Sums over all rows of `f` of two signals `[rows, channels]`.
pub(crate) fn column_sums_of(a: &[f32], b: &[f32], channels: usize, f: impl Fn(f32, f32) -> f32 + Sync) -> Vec<f32> {
    let channels = channels.max(1);
    let part = |(a, b): (&[f32], &[f32])| {
        let mut sums = vec![0.0; channels];
        for (a, b) in a.chunks_exact(channels).zip(b.chunks_exact(channels)) {
            sums.iter_mut().zip(a).zip(b).for_each(|((sum, a), b)| *sum += f(*a, *b));
        }
        sums
    };
    let parts: Vec<Vec<f32>> = a.par_chunks(ROWS * channels).zip(b.par_chunks(ROWS * channels)).map(part).collect();
    let mut sums = vec![0.0; channels];
    parts.iter().for_each(|part| sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part));
    sums
}

/// Panels of the columns `first..first + count` of `[depth, stride]`.
fn columns(y: &[f32], stride: usize, first: usize, count: usize, out: &mut [f32]) {
    let depth = y.len() / stride.max(1);
    for (p, panel) in out.chunks_exact_mut(PANEL * depth).enumerate() {
        let from = p * PANEL;
        let width = PANEL.min(count - from);
        for (row, y) in panel.chunks_exact_mut(PANEL).zip(y.chunks_exact(stride)) {
            row[..width].copy_from_slice(&y[first + from..][..width]);
            row[width..].fill(0.0);
        }
    }
}

//! Convolutions of images without padding, channels last, as products of the engine's matrix kernel: the convolution, its
//! adjoint, and the gradient of its weight. Weights are `[output, input / groups, height, width]`.

use codec_core::kernel::{Compute, Epilogue, Out, PANEL, Panels, Pointwise, Rows, Start, Weights, matmul, panel_len};
use rayon::prelude::*;

use super::{all, alone};

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
    let len = panel_len(s.cout, depth);
    // For each group and tap of the height.
    let mut panels = vec![0.0; g.groups * kh * len];
    for (i, panel) in panels.chunks_exact_mut(len.max(1)).enumerate() {
        let (group, h) = (i / kh, i % kh);
        for o in 0..s.cout {
            let column = &mut panel[o / PANEL * PANEL * depth + o % PANEL..];
            let weight = &weight[(group * s.cout + o) * s.cin * kh * kw..][..s.cin * kh * kw];
            for (c, taps) in weight.chunks_exact(kh * kw).enumerate() {
                for (w, weight) in taps[h * kw..][..kw].iter().enumerate() {
                    column[(w * s.cin + c) * PANEL] = *weight;
                }
            }
        }
    }
    let mut y = vec![0.0; g.items * s.rows * s.columns * s.output];
    each(g.items, &mut y, |cx, item, y| {
        let x = &x[item * s.height * s.width * s.input..][..s.height * s.width * s.input];
        for (row, y) in y.chunks_exact_mut(s.columns * s.output).enumerate() {
            for (i, panel) in panels.chunks_exact(len.max(1)).enumerate() {
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
                let mut panel = vec![0.0; panel_len(s.cin, depth)];
                for tap in 0..phase.taps {
                    let at = h * kw + phase.first + tap * phase.step;
                    for o in 0..s.cout {
                        let weight = &weight[(group * s.cout + o) * s.cin * kh * kw..][..s.cin * kh * kw];
                        let row = (tap * s.cout + o) * PANEL;
                        for (c, taps) in weight.chunks_exact(kh * kw).enumerate() {
                            panel[c / PANEL * PANEL * depth + row + c % PANEL] = taps[at];
                        }
                    }
                }
                panels.push(panel);
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
        let mut room = vec![0.0; padded * s.output];
        for row in 0..s.rows {
            let from = (item * s.rows + row) * s.columns * s.output;
            room[side * s.output..][..s.columns * s.output].copy_from_slice(&y[from..][..s.columns * s.output]);
            let mut panels = panels.iter();
            for (p, phase) in phases.iter().enumerate() {
                let Some(phase) = phase else { continue };
                for group in 0..g.groups {
                    for (h, panel) in (0..kh).zip(&mut panels) {
                        let x = &mut x[(row * g.stride[0] + h * g.dilation[0]) * s.width * s.input..];
                        let rows = Rows {
                            data: &room,
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

/// Columns of a product with the weight's gradient at a time: what fits into a cache.
const CHUNK: usize = 1024;

/// The gradient of the weight, of input and gradient of the output.
pub(crate) fn weight_gradient(geometry: Geometry, x: &[f32], y: &[f32]) -> Vec<f32> {
    let g = geometry.merged();
    let s = g.sizes();
    let [kh, kw] = g.kernel;
    let stride = g.stride[1];
    let tall = g.groups * kh * kw * s.cin * s.cout;
    // The parts do not depend on the number of threads, so that neither do the sums.
    let parts = if g.items == 1 { 1 } else { g.items.min(4) };
    let wide = s.width.div_ceil(stride);
    let part = |part: usize| {
        let cx = if parts == 1 { all() } else { alone() };
        // `[group, kh, kw, cin, cout]`.
        let mut sum = vec![0.0_f32; tall];
        let mut turned = vec![0.0; kh.min(s.height) * stride * s.input * wide];
        let mut panels = vec![0.0; panel_len(s.cout, CHUNK.min(s.columns)) * g.groups];
        for item in (g.items * part / parts)..(g.items * (part + 1) / parts) {
            for row in 0..s.rows {
                // Channels first, the phases of the stride apart.
                for (h, turned) in turned.chunks_exact_mut(stride * s.input * wide).enumerate() {
                    let from = (item * s.height + row * g.stride[0] + h * g.dilation[0]) * s.width * s.input;
                    turn(&x[from..][..s.width * s.input], s.input, stride, wide, turned);
                }
                let from = (item * s.rows + row) * s.columns * s.output;
                let y = &y[from..][..s.columns * s.output];
                for first in (0..s.columns).step_by(CHUNK) {
                    let depth = CHUNK.min(s.columns - first);
                    let y = &y[first * s.output..][..depth * s.output];
                    let len = panel_len(s.cout, depth);
                    for group in 0..g.groups {
                        columns(y, s.output, group * s.cout, s.cout, &mut panels[group * len..][..len]);
                    }
                    for (i, sum) in sum.chunks_exact_mut(s.cin * s.cout).enumerate() {
                        let (group, h, w) = (i / (kh * kw), i / kw % kh, i % kw);
                        let (p, shift) = (w * g.dilation[1] % stride, w * g.dilation[1] / stride);
                        let rows = Rows {
                            data: &turned,
                            origin: ((h * stride + p) * s.input + group * s.cin) * wide + shift + first,
                            rows: s.cin,
                            row_stride: wide,
                            taps: 1,
                            tap_stride: 0,
                            depth,
                        };
                        let out = Out { data: sum, origin: 0, row_stride: s.cout };
                        product(cx, rows, s.cout, &panels[group * len..][..len], Start::Output, out);
                    }
                }
            }
        }
        sum
    };
    let sums: Vec<Vec<f32>> = if parts == 1 { vec![part(0)] } else { (0..parts).into_par_iter().map(part).collect() };
    let mut weight = vec![0.0; s.output * s.cin * kh * kw];
    for sum in &sums {
        let size = s.cout * s.cin * kh * kw;
        for (weight, sum) in weight.chunks_exact_mut(size).zip(sum.chunks_exact(size)) {
            for (o, weight) in weight.chunks_exact_mut(s.cin * kh * kw).enumerate() {
                for (c, weight) in weight.chunks_exact_mut(kh * kw).enumerate() {
                    for (tap, w) in weight.iter_mut().enumerate() {
                        *w += sum[(tap * s.cin + c) * s.cout + o];
                    }
                }
            }
        }
    }
    weight
}

/// Sums over all rows of `[rows, channels]`.
pub(crate) fn column_sums(y: &[f32], channels: usize) -> Vec<f32> {
    let mut sums = vec![0.0; channels];
    for row in y.chunks_exact(channels.max(1)) {
        sums.iter_mut().zip(row).for_each(|(sum, y)| *sum += y);
    }
    sums
}

/// `[columns, channels]` as `[stride, channels, wide]`: phases of the stride, channels first.
fn turn(x: &[f32], channels: usize, stride: usize, wide: usize, out: &mut [f32]) {
    // In tiles that stay in a cache.
    const TILE: usize = 32;
    let columns = x.len() / channels.max(1);
    for (p, out) in out.chunks_exact_mut(channels * wide).enumerate() {
        let there = columns.saturating_sub(p).div_ceil(stride);
        for t0 in (0..there).step_by(TILE) {
            let t1 = (t0 + TILE).min(there);
            for (c, row) in out.chunks_exact_mut(wide).enumerate() {
                for (t, v) in (t0..t1).zip(&mut row[t0..t1]) {
                    *v = x[(t * stride + p) * channels + c];
                }
            }
        }
        out.chunks_exact_mut(wide).for_each(|row| row[there..].fill(0.0));
    }
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

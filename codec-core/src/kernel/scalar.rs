//! The reference: plain loops, one value at a time.

use super::{Epilogue, Out, PANEL, Panels, Pointwise, Rows, Start};

pub(super) fn matmul(a: Rows<'_>, w: Panels<'_>, start: Start<'_>, e: Epilogue<'_>, out: Out<'_>) -> bool {
    for t in 0..a.rows {
        for n in 0..w.columns {
            let o = out.origin + t * out.row_stride + n;
            let mut acc = match start {
                Start::Zero => 0.0,
                Start::Bias(b) => b[n],
                Start::Output => out.data[o],
            };
            let panel = &w.data[n / PANEL * PANEL * w.depth..];
            for j in 0..a.taps {
                let base = (a.origin + t * a.row_stride) as isize + j as isize * a.tap_stride;
                for c in 0..a.depth {
                    acc = fma(a.data[base as usize + c], panel[(j * a.depth + c) * PANEL + n % PANEL], acc);
                }
            }
            if let Some((r, origin, stride)) = e.residual {
                acc += r[origin + t * stride + n];
            }
            out.data[o] = apply(e.then, n, acc);
        }
    }
    true
}

pub(super) fn depthwise(
    x: Rows<'_>,
    channels: usize,
    w: &[f32],
    start: Start<'_>,
    e: Epilogue<'_>,
    out: Out<'_>,
) -> bool {
    for t in 0..x.rows {
        for n in 0..channels {
            let o = out.origin + t * out.row_stride + n;
            let mut acc = match start {
                Start::Zero => 0.0,
                Start::Bias(b) => b[n],
                Start::Output => out.data[o],
            };
            for j in 0..x.taps {
                let base = (x.origin + t * x.row_stride) as isize + j as isize * x.tap_stride;
                acc = fma(x.data[base as usize + n], w[j * channels + n], acc);
            }
            if let Some((r, origin, stride)) = e.residual {
                acc += r[origin + t * stride + n];
            }
            out.data[o] = apply(e.then, n, acc);
        }
    }
    true
}

pub(super) fn pointwise(f: Pointwise<'_>, channels: usize, x: &mut [f32]) {
    for row in x.chunks_exact_mut(channels) {
        for (n, v) in row.iter_mut().enumerate() {
            *v = apply(f, n, *v);
        }
    }
}

pub(super) fn lstm_cell(gates: &[f32], cell: &mut [f32], hidden: &mut [f32]) {
    let h = hidden.len();
    let sigmoid = |x: f32| 1.0 / (1.0 + libm::expf(-x));
    for n in 0..h {
        let c = sigmoid(gates[h + n]) * cell[n] + sigmoid(gates[n]) * libm::tanhf(gates[2 * h + n]);
        cell[n] = c;
        hidden[n] = sigmoid(gates[3 * h + n]) * libm::tanhf(c);
    }
}

fn fma(a: f32, b: f32, c: f32) -> f32 {
    libm::fmaf(a, b, c)
}

fn apply(f: Pointwise<'_>, n: usize, x: f32) -> f32 {
    match f {
        Pointwise::Identity => x,
        Pointwise::Elu(alpha) => {
            if x > 0.0 {
                x
            } else {
                alpha * libm::expm1f(x)
            }
        }
        Pointwise::LeakyRelu(slope) => {
            if x > 0.0 {
                x
            } else {
                slope * x
            }
        }
        Pointwise::Snake { alpha, inverse } => {
            let s = libm::sinf(alpha[n] * x);
            x + s * s * inverse[n]
        }
        Pointwise::Tanh => libm::tanhf(x),
        Pointwise::Divide(d) => x / d,
        Pointwise::Scale(s) => x * s,
        Pointwise::Quantize { inverse_scale, low, high } => libm::rintf((x * inverse_scale).clamp(low, high)),
        Pointwise::Requantize { multiplier, low, high } => libm::rintf(x * multiplier[n]).clamp(low, high),
        Pointwise::LeakyReluInt8 { positive, negative, low, high } => {
            libm::floorf((x * if x >= 0.0 { positive } else { negative } + 128.0) / 256.0).clamp(low, high)
        }
    }
}

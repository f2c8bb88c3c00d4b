//! The arithmetic: one matrix kernel, a depthwise one, and pointwise functions, for each instruction set.
//!
//! **Every value is one chain**: `acc = start`, then fused multiply-adds over (tap, channel) in that order.
//! Instruction sets and tiles differ only in how many such chains run side by side, so every path gives the
//! same bits.

#[cfg(feature = "alloc")]
mod aligned;
mod scalar;

#[cfg(feature = "alloc")]
pub use aligned::Aligned;

/// Output columns in a panel of packed weights, on every instruction set.
pub const PANEL: usize = 16;

/// An instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Portable code; the reference.
    Scalar,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// x86-64 with AVX-512 F.
    Avx512,
    /// 64-bit Arm.
    Neon,
}

impl Isa {
    /// The best that this machine has.
    pub fn detect() -> Self {
        Self::Scalar
    }
}

/// Runs independent tasks, perhaps on several threads. The engine owns no thread: whoever has some lends them.
pub trait Pool: Sync {
    /// Threads that [`Pool::run`] uses, at least 1.
    fn threads(&self) -> usize;
    /// Calls `task(0)`, …, `task(count - 1)`, in any order and on any thread, and returns when all have ended.
    fn run(&self, count: usize, task: &(dyn Fn(usize) + Sync));
}

/// What computes: an instruction set, and threads if there are any.
#[derive(Clone, Copy)]
pub struct Compute<'p> {
    /// The instruction set; must be available on this machine.
    pub isa: Isa,
    /// Threads to spread rows or columns over.
    pub pool: Option<&'p dyn Pool>,
}

/// The left operand: `rows` rows whose elements are gathered as `taps` runs of `depth` contiguous values.
/// Row `t`, tap `j` starts at `origin + t * row_stride + j * tap_stride` of `data`.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// The signal, channels last.
    pub data: &'a [f32],
    /// Where row 0, tap 0 starts.
    pub origin: usize,
    /// Rows.
    pub rows: usize,
    /// Values between two rows.
    pub row_stride: usize,
    /// Runs in a row.
    pub taps: usize,
    /// Values between two runs; negative in a transposed convolution (newest first).
    pub tap_stride: isize,
    /// Values in a run.
    pub depth: usize,
}

/// The right operand in panel order: `ceil(columns / PANEL)` panels of `[taps * depth][PANEL]`, the last one
/// filled with zero columns.
#[derive(Clone, Copy)]
pub struct Panels<'a> {
    /// Output columns.
    pub columns: usize,
    /// Length of the sum, `taps * depth`.
    pub depth: usize,
    /// `panel_len(columns, depth)` values.
    pub data: &'a [f32],
}

/// Values that [`Panels`] of this size hold.
pub const fn panel_len(columns: usize, depth: usize) -> usize {
    columns.div_ceil(PANEL) * PANEL * depth
}

/// Packs a matrix given by `weight(column, k)` into panel order.
pub fn pack(columns: usize, depth: usize, weight: impl Fn(usize, usize) -> f32, out: &mut [f32]) {
    for (p, panel) in out.chunks_exact_mut(PANEL * depth).enumerate() {
        for (k, row) in panel.chunks_exact_mut(PANEL).enumerate() {
            for (c, w) in row.iter_mut().enumerate() {
                let column = p * PANEL + c;
                *w = if column < columns { weight(column, k) } else { 0.0 };
            }
        }
    }
}

/// What an accumulator starts from.
#[derive(Clone, Copy)]
pub enum Start<'a> {
    /// Zero.
    Zero,
    /// One value a column, `columns` long.
    Bias(&'a [f32]),
    /// What the output holds already.
    Output,
}

/// A pointwise function with its parameters.
#[derive(Clone, Copy, Debug)]
pub enum Pointwise<'a> {
    /// `x`.
    Identity,
    /// Positive part, `alpha * (exp(x) - 1)` below zero.
    Elu(f32),
    /// Slope below zero.
    LeakyRelu(f32),
    /// `x + sin(a x)^2 * inv` with `a` and `inv = 1 / (a + 1e-9)` a channel.
    Snake {
        /// `a`, one a channel.
        alpha: &'a [f32],
        /// `1 / (a + 1e-9)`, one a channel.
        inverse: &'a [f32],
    },
    /// Hyperbolic tangent.
    Tanh,
    /// `x / divisor`.
    Divide(f32),
    /// `x * scale`.
    Scale(f32),
    /// `round_half_even(clamp(x * inverse_scale, low, high))`.
    Quantize {
        /// One over the grid's step.
        inverse_scale: f32,
        /// Lowest value.
        low: f32,
        /// Highest value.
        high: f32,
    },
    /// `clamp(round_half_even(x * multiplier[c]), low, high)`.
    Requantize {
        /// One a channel.
        multiplier: &'a [f32],
        /// Lowest value.
        low: f32,
        /// Highest value.
        high: f32,
    },
    /// `clamp(floor((x * (x >= 0 ? positive : negative) + 128) / 256), low, high)` for integers `x`.
    LeakyReluInt8 {
        /// Slope above zero, times 256.
        positive: f32,
        /// Slope below zero, times 256.
        negative: f32,
        /// Lowest value.
        low: f32,
        /// Highest value.
        high: f32,
    },
}

/// The output: row `t`, column `n` is `data[origin + t * row_stride + n]`.
pub struct Out<'a> {
    /// Where it goes.
    pub data: &'a mut [f32],
    /// Where row 0, column 0 goes.
    pub origin: usize,
    /// Values between two rows.
    pub row_stride: usize,
}

/// What is done to a finished sum before it is stored: `then(sum + residual)`.
#[derive(Clone, Copy)]
pub struct Epilogue<'a> {
    /// Added; laid out like the output: row `t`, column `n` is `data[origin + t * row_stride + n]`.
    pub residual: Option<(&'a [f32], usize, usize)>,
    /// Applied last.
    pub then: Pointwise<'a>,
}

/// `out = then(start + rows · panels + residual)`.
///
/// Slices must be long enough for what the arguments describe; a short one is caught before any work
/// (`false` is returned and nothing is written).
#[must_use]
pub fn matmul(
    cx: Compute<'_>,
    a: Rows<'_>,
    w: Panels<'_>,
    start: Start<'_>,
    epilogue: Epilogue<'_>,
    out: Out<'_>,
) -> bool {
    let _ = cx;
    scalar::matmul(a, w, start, epilogue, out)
}

/// A depthwise convolution: `out[t, c] = then(bias[c] + Σ_j x[t·stride + j·dilation, c] · w[j, c])`, rows contiguous
/// (`channels` apart in the input, `out.row_stride` in the output). `w` is `[taps, channels]`.
#[must_use]
#[allow(clippy::too_many_arguments)]
pub fn depthwise(
    cx: Compute<'_>,
    x: Rows<'_>,
    channels: usize,
    w: &[f32],
    start: Start<'_>,
    epilogue: Epilogue<'_>,
    out: Out<'_>,
) -> bool {
    let _ = cx;
    scalar::depthwise(x, channels, w, start, epilogue, out)
}

/// `x = f(x)`, in place, over rows of `channels` values.
pub fn pointwise(cx: Compute<'_>, f: Pointwise<'_>, channels: usize, x: &mut [f32]) {
    let _ = cx;
    scalar::pointwise(f, channels, x);
}

/// One step of a long short-term memory: gates (input, forget, cell, output; `4 * hidden` sums) and the cell
/// state give the new cell state (in place) and the new hidden state.
pub fn lstm_cell(cx: Compute<'_>, gates: &[f32], cell: &mut [f32], hidden: &mut [f32]) {
    let _ = cx;
    scalar::lstm_cell(gates, cell, hidden);
}

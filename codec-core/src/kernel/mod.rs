//! The arithmetic: one matrix kernel, a depthwise one, and pointwise functions, for each instruction set.
//!
//! **Every value is one chain**: `acc = start`, then fused multiply-adds over (tap, channel) in that order.
//! Instruction sets and tiles differ only in how many such chains run side by side, so every path gives the
//! same bits. WebAssembly alone rounds product and sum each, as it has no fused multiply-add.

#[cfg(feature = "alloc")]
mod aligned;
mod attention;
mod depthwise;
#[cfg(embedded_fma)]
mod embedded;
mod fft;
mod int8;
mod isa;
mod map;
mod math;
mod matmul;
mod narrow;
#[cfg(target_arch = "aarch64")]
mod neon;
mod norm;
mod panels;
mod scalar;
mod search;
mod simd;
#[cfg(test)]
mod tests;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm;
#[cfg(target_arch = "x86_64")]
mod x86;

use core::ops::Range;

#[cfg(feature = "alloc")]
pub use aligned::Aligned;
#[cfg(feature = "alloc")]
pub(crate) use aligned::Arena;
pub use attention::{Heads, attend, rotate, sine};
pub use fft::{MAX_FFT, RealFft};
pub use int8::{levels as int8_levels, pack as pack_int8};
pub use isa::{Isa, UnknownIsa};
pub use norm::layer_norm;
use panels::{Element, Matrix};
pub use panels::{Panels, Weights, pack, panel_len};
use simd::{Op, Simd};

/// Output columns in a panel of packed weights, on every instruction set.
pub const PANEL: usize = 16;

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
    /// The instruction set; one that this machine lacks counts as [`Isa::Scalar`].
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
    /// `x * (1 + erf(x / sqrt(2))) / 2`.
    Gelu,
    /// `x / (1 + exp(-x))`.
    Silu,
    /// `x` times a factor a channel.
    Multiply(&'a [f32]),
    /// `x * factor`.
    Scale(f32),
    /// `x / divisor`.
    Divide(f32),
    /// Integer sums to another scale: `clamp(round(x * m), low, high)`, halves to the even integer.
    Requantize {
        /// `m`, one a channel.
        multiplier: &'a [f32],
        /// The least result.
        low: f32,
        /// The greatest result.
        high: f32,
    },
    /// Real values to integers: `round(clamp(x * inverse_scale, low, high))`, halves to the even integer.
    Quantize {
        /// Steps in 1.
        inverse_scale: f32,
        /// The least result.
        low: f32,
        /// The greatest result.
        high: f32,
    },
    /// For integers below 2^16: `clamp(floor((x * slope + 128) / 256), low, high)`, slopes in 1/256.
    LeakyReluInt8 {
        /// The slope of zero and above.
        positive: f32,
        /// The slope below zero.
        negative: f32,
        /// The least result.
        low: f32,
        /// The greatest result.
        high: f32,
    },
}

impl Pointwise<'_> {
    /// Whether the parameters reach that many channels.
    fn reaches(self, channels: usize) -> bool {
        match self {
            Self::Snake { alpha, inverse } => alpha.len() >= channels && inverse.len() >= channels,
            Self::Multiply(factors) => factors.len() >= channels,
            Self::Requantize { multiplier, .. } => multiplier.len() >= channels,
            _ => true,
        }
    }
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

/// What is done to a finished sum: `then(sum + residual)`.
#[derive(Clone, Copy)]
pub struct Epilogue<'a> {
    /// Added; laid out like the output: row `t`, column `n` is `data[origin + t * row_stride + n]`.
    pub residual: Option<(&'a [f32], usize, usize)>,
    /// Applied last.
    pub then: Pointwise<'a>,
}

/// Multiply-adds (or values of a pointwise function) below which a task is not worth a thread.
const TASK: usize = if cfg!(test) { 64 } else { 100_000 };

/// Runs `op` on an instruction set.
fn dispatch<O: Op>(isa: Isa, op: O) -> O::Output {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.is_available() => {
            // SAFETY: available.
            unsafe { x86::Avx512::new() }.call(op)
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.is_available() => {
            // SAFETY: available.
            unsafe { x86::Avx2::new() }.call(op)
        }
        #[cfg(target_arch = "aarch64")]
        Isa::Neon if isa.is_available() => {
            // SAFETY: available.
            unsafe { neon::Neon::new() }.call(op)
        }
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        Isa::Simd128 => wasm::Simd128.call(op),
        #[cfg(target_arch = "x86_64")]
        _ if isa::scalar_has_fma() => {
            // SAFETY: available.
            scalar::Scalar(unsafe { scalar::Hardware::new() }).call(op)
        }
        #[cfg(target_arch = "aarch64")]
        _ => {
            // SAFETY: a part of the architecture.
            scalar::Scalar(unsafe { scalar::Hardware::new() }).call(op)
        }
        #[cfg(embedded_fma)]
        _ => scalar::Scalar(scalar::Hardware::here()).call(op),
        #[cfg(not(any(target_arch = "aarch64", embedded_fma)))]
        _ => scalar::Scalar(scalar::Software).call(op),
    }
}

/// Tasks to split work of that size into: one a thread, and some more of work so large that a thread which the
/// system holds up should not hold up the others.
fn tasks(cx: Compute<'_>, work: usize) -> usize {
    let Some(pool) = cx.pool.filter(|pool| pool.threads() > 1) else { return 1 };
    let threads = pool.threads();
    let most = if work / TASK > 32 * threads { 4 * threads } else { threads };
    most.min(work / TASK).max(1)
}

/// Calls `task` exactly once with each number below `count`.
///
/// Numbers are handed out here, not taken from the pool: a task may rely on being the only one with its number
/// whatever a pool does.
fn spread(cx: Compute<'_>, count: usize, task: &(dyn Fn(usize) + Sync)) {
    #[cfg(target_has_atomic = "ptr")]
    if let Some(pool) = cx.pool.filter(|_| count > 1) {
        use core::sync::atomic::{AtomicUsize, Ordering};
        let next = AtomicUsize::new(0);
        let claim = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|i| *i < count);
        pool.run(count, &|_| {
            if let Some(i) = claim() {
                task(i);
            }
        });
        while let Some(i) = claim() {
            task(i);
        }
        return;
    }
    let _ = cx;
    (0..count).for_each(task);
}

/// Part `i` of `0..len` split into `parts`, cut at multiples of `unit`.
fn part(len: usize, unit: usize, parts: usize, i: usize) -> Range<usize> {
    let units = len.div_ceil(unit);
    let at = |i: usize| ((units / parts) * i + i.min(units % parts)).saturating_mul(unit).min(len);
    at(i)..at(i + 1)
}

/// Whether `rows` rows of `width` values, `stride` apart, lie in `len` values from `origin` on.
fn fits(len: usize, origin: usize, rows: usize, stride: usize, width: usize) -> bool {
    let end = rows.saturating_sub(1).checked_mul(stride).and_then(|n| n.checked_add(origin)?.checked_add(width));
    end.is_some_and(|end| end <= len)
}

/// Whether what the rows describe, with runs of `width` values, lies in their data.
fn rows_fit(a: &Rows<'_>, width: usize) -> bool {
    if a.taps == 0 || width == 0 {
        return true;
    }
    let span = isize::try_from(a.taps - 1).ok().and_then(|n| n.checked_mul(a.tap_stride));
    let Some(span) = span else { return false };
    let lowest = a.origin.checked_add_signed(span.min(0));
    let highest = a.origin.checked_add_signed(span.max(0));
    lowest.is_some() && highest.is_some_and(|origin| fits(a.data.len(), origin, a.rows, a.row_stride, width))
}

/// The job, if every slice is long enough for it.
fn job<'a, E>(
    a: Rows<'a>,
    w: Matrix<'a, E>,
    start: Start<'a>,
    epilogue: Epilogue<'a>,
    out: &mut Out<'_>,
) -> Option<matmul::Job<'a, E>> {
    let columns = w.columns;
    let bias = !matches!(start, Start::Bias(b) if b.len() < columns);
    // Rows of an output that overlap have no one value.
    let rows = a.rows <= 1 || out.row_stride >= columns;
    let output = fits(out.data.len(), out.origin, a.rows, out.row_stride, columns);
    let residual = epilogue.residual.is_none_or(|(r, origin, stride)| fits(r.len(), origin, a.rows, stride, columns));
    (bias && rows && output && residual && epilogue.then.reaches(columns)).then(|| matmul::Job {
        a,
        w,
        start,
        epilogue,
        out: out.data.as_mut_ptr().wrapping_add(out.origin),
        out_stride: out.row_stride,
    })
}

/// `out = then(start + rows · panels + residual)`.
///
/// With [`Weights::I8`], each row is rounded to integers, on a scale of its own, of at most [`int8_levels`] in magnitude, so
/// that sums are exact; then `sum * (step of the row * scale of the column)` is rounded, and `start` added. A row with a NaN
/// or an infinity gives NaN, one that stays below 2^-100 counts as zeros.
///
/// Slices must be long enough for what the arguments describe, `w.depth` be `a.taps * a.depth`, and rows of the
/// output not overlap; int8 takes no [`Start::Output`] and no sum so deep that no level is left. Otherwise `false` is
/// returned before any work and nothing is written.
#[must_use]
pub fn matmul(
    cx: Compute<'_>,
    a: Rows<'_>,
    w: Panels<'_>,
    start: Start<'_>,
    epilogue: Epilogue<'_>,
    out: Out<'_>,
) -> bool {
    let Panels { columns, depth, data } = w;
    if a.rows == 0 || columns == 0 {
        return true;
    }
    if a.taps.checked_mul(a.depth) != Some(depth) {
        return false;
    }
    match data {
        Weights::F32(data) => product(cx, a, Matrix { columns, depth, data }, start, epilogue, out, &|part| {
            let Parted { job, rows, columns } = part;
            // SAFETY: what `product` says.
            dispatch(cx.isa, unsafe { matmul::Part::new(job, rows, columns) });
        }),
        Weights::F16(data) => product(cx, a, Matrix { columns, depth, data }, start, epilogue, out, &|part| {
            let Parted { job, rows, columns } = part;
            // SAFETY: what `product` says.
            dispatch(cx.isa, unsafe { matmul::Part::new(job, rows, columns) });
        }),
        Weights::I8 { values: data, scales } => {
            let Some(even) = depth.checked_next_multiple_of(2) else { return false };
            if int8_levels(depth) == 0 || scales.len() < columns || matches!(start, Start::Output) {
                return false;
            }
            product(cx, a, Matrix { columns, depth: even, data }, start, epilogue, out, &|part| {
                let Parted { job, rows, columns } = part;
                // SAFETY: what `product` says.
                dispatch(cx.isa, unsafe { int8::Int8Part::new(job, scales, rows, columns) });
            })
        }
    }
}

/// Some rows and columns of a product.
struct Parted<'a, E> {
    job: &'a matmul::Job<'a, E>,
    rows: Range<usize>,
    columns: Range<usize>,
}

/// [`matmul`] for weights of one type. The job that `run` gets parts of has slices that are long enough, and no two parts
/// share an output; columns start at a panel, and end at one or with the job.
fn product<E: Copy + Sync>(
    cx: Compute<'_>,
    mut a: Rows<'_>,
    w: Matrix<'_, E>,
    start: Start<'_>,
    epilogue: Epilogue<'_>,
    mut out: Out<'_>,
    run: &(dyn Fn(Parted<'_, E>) + Sync),
) -> bool {
    if !w.fits() || !rows_fit(&a, a.depth) {
        return false;
    }
    if a.tap_stride == a.depth as isize {
        // Runs without gaps are one.
        (a.taps, a.depth) = (1, a.taps * a.depth);
    }
    let Some(job) = job(a, w, start, epilogue, &mut out) else { return false };
    let (rows, columns) = (a.rows, w.columns);
    let count = tasks(cx, rows.saturating_mul(columns).saturating_mul(w.depth));
    // Two panels and twelve rows: the largest tile.
    let (row_units, column_units) = (rows.div_ceil(12), columns.div_ceil(2 * PANEL));
    // Split what is larger: every thread reads all of the other.
    let (row_parts, column_parts) =
        if column_units >= count && columns.saturating_mul(w.depth) > rows.saturating_mul(a.row_stride) {
            (1, count)
        } else {
            let row_parts = row_units.min(count);
            (row_parts, column_units.min(count.div_ceil(row_parts)))
        };
    spread(cx, row_parts * column_parts, &|i| {
        let rows = part(rows, 1, row_parts, i / column_parts);
        let columns = part(columns, 2 * PANEL, column_parts, i % column_parts);
        run(Parted { job: &job, rows, columns });
    });
    true
}

/// A depthwise convolution: `out[t, c] = then(start[c] + Σ_j x[t, j, c] · w[j, c] + residual)`, where row `t`, tap
/// `j` of `x` are `channels` values (`x.depth` is not looked at) and `w` is `[taps, channels]`.
///
/// Returns `false`, and has written nothing, where [`matmul`] would.
#[must_use]
pub fn depthwise(
    cx: Compute<'_>,
    x: Rows<'_>,
    channels: usize,
    w: &[f32],
    start: Start<'_>,
    epilogue: Epilogue<'_>,
    mut out: Out<'_>,
) -> bool {
    if x.rows == 0 || channels == 0 {
        return true;
    }
    if x.taps.checked_mul(channels).is_none_or(|n| n > w.len()) || !rows_fit(&x, channels) {
        return false;
    }
    let w = Matrix { columns: channels, depth: x.taps, data: w };
    let Some(job) = job(x, w, start, epilogue, &mut out) else { return false };
    let parts = tasks(cx, x.rows.saturating_mul(channels).saturating_mul(x.taps)).min(x.rows);
    spread(cx, parts, &|i| {
        // SAFETY: the slices were checked, and no two parts share an output.
        dispatch(cx.isa, unsafe { depthwise::DepthwisePart::new(&job, part(x.rows, 1, parts, i)) });
    });
    true
}

/// `x = f(x)`, in place, over rows of `channels` values.
///
/// Returns `false`, and has written nothing, if `x` is not whole rows or a parameter of `f` is shorter than one.
pub fn pointwise(cx: Compute<'_>, f: Pointwise<'_>, channels: usize, x: &mut [f32]) -> bool {
    if channels == 0 || !x.len().is_multiple_of(channels) || !f.reaches(channels) {
        return false;
    }
    let rows = x.len() / channels;
    // A function costs about as much as ten multiply-adds.
    let parts = tasks(cx, x.len().saturating_mul(10)).min(rows);
    let whole = Whole(x.as_mut_ptr());
    spread(cx, parts, &|i| {
        let rows = part(rows, 1, parts, i);
        let block = map::Finish {
            then: f,
            out: whole.at(rows.start * channels),
            out_stride: channels,
            residual: None,
            rows: rows.len(),
            first: 0,
            columns: channels,
        };
        // SAFETY: whole rows of `x`, and no two parts share one.
        dispatch(cx.isa, unsafe { map::FinishOp::new(block) });
    });
    true
}

/// Memory that parts of a task write, each its own.
struct Whole(*mut f32);

// SAFETY: the parts are disjoint.
unsafe impl Sync for Whole {}

impl Whole {
    fn at(&self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }
}

/// One step of a long short-term memory: gates (input, forget, cell, output; `4 * hidden` sums) and the cell
/// state give the new cell state (in place) and the new hidden state:
/// `c' = fma(sigmoid(f), c, sigmoid(i) * tanh(g))`, `h = sigmoid(o) * tanh(c')`
/// (Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000, as in PyTorch's `LSTM`).
///
/// Returns `false`, and has written nothing, if the lengths do not agree.
pub fn lstm_cell(cx: Compute<'_>, gates: &[f32], cell: &mut [f32], hidden: &mut [f32]) -> bool {
    if cell.len() != hidden.len() || hidden.len().checked_mul(4) != Some(gates.len()) {
        return false;
    }
    dispatch(cx.isa, map::LstmOp { gates, cell, hidden });
    true
}

/// `re = m cos(phase)` and `im = m sin(phase)` with `m = min(exp(log_magnitude), most)`, `most` too where that is NaN.
///
/// Returns `false`, and has written nothing, if the lengths differ.
#[must_use]
pub fn polar(cx: Compute<'_>, log_magnitude: &[f32], phase: &[f32], most: f32, re: &mut [f32], im: &mut [f32]) -> bool {
    if [phase.len(), re.len(), im.len()] != [log_magnitude.len(); 3] {
        return false;
    }
    dispatch(cx.isa, map::PolarOp { log_magnitude, phase, most, re, im });
    true
}

/// `a += b`. Returns `false`, and has written nothing, if the lengths differ.
pub fn add(cx: Compute<'_>, a: &mut [f32], b: &[f32]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    dispatch(cx.isa, map::AddOp(a, b));
    true
}

/// `a /= divisor`.
pub fn divide(cx: Compute<'_>, a: &mut [f32], divisor: f32) {
    pointwise(cx, Pointwise::Divide(divisor), 1, a);
}

/// Squared distances of `x` to every column: `out[n] = Σ_c (x[c] - w[c, n])²`, `c` ascending, squared and then
/// added *without* fusing, which is the order of Lyra's quantizer.
///
/// Returns `false`, and has written nothing, if `x` is not `panels.depth` long, `out` not `panels.columns`, or the
/// panels are too short or not of f32.
#[must_use]
pub fn square_distance(cx: Compute<'_>, x: &[f32], panels: Panels<'_>, out: &mut [f32]) -> bool {
    let Panels { columns, depth, data: Weights::F32(data) } = panels else { return false };
    let panels = Matrix { columns, depth, data };
    if x.len() != panels.depth || out.len() != panels.columns || !panels.fits() {
        return false;
    }
    // SAFETY: just checked.
    dispatch(cx.isa, unsafe { search::DistanceOp::new(x, panels, out) });
    true
}

/// The lowest index of the smallest value. NaN is never the smallest; `None` if there is nothing else.
pub fn argmin(cx: Compute<'_>, row: &[f32]) -> Option<usize> {
    dispatch(cx.isa, search::FirstLeastOp { row, sign: 1.0 })
}

/// The lowest index of the greatest value. NaN is never the greatest; `None` if there is nothing else.
pub fn argmax(cx: Compute<'_>, row: &[f32]) -> Option<usize> {
    dispatch(cx.isa, search::FirstLeastOp { row, sign: -1.0 })
}

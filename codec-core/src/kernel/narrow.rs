//! Few output columns: vectors run over time instead. A block of the input is transposed once, to
//! `[channel][time]`, and serves every tap.

use core::mem::MaybeUninit;
use core::ops::Range;

use super::matmul::Job;
use super::simd::{Op, Simd};
use super::{Element, PANEL, Start};

/// Values of the transposed block, which lies on the stack.
const BLOCK: usize = 16384;

/// The most outputs of a column that are worked through at once.
const GROUP: usize = 8 * PANEL;

/// A transposed block; stores of whole vectors must not straddle cache lines.
#[repr(align(64))]
struct Transposed([MaybeUninit<f32>; BLOCK]);

/// How a job is computed over time.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    /// Values between two input rows, of which `depth` are used.
    input_stride: usize,
    depth: usize,
    taps: usize,
    /// Input rows between two taps.
    step: isize,
    /// Input rows that a block needs more than it has outputs.
    span: usize,
    /// Input rows of a transposed block.
    length: usize,
    /// Output rows of a block.
    rows: usize,
}

/// The plan, if columns are few and rows lie so that blocks can be shared between taps.
#[inline(always)]
pub(super) fn plan<S: Simd, E>(job: &Job<'_, E>) -> Option<Plan> {
    let a = &job.a;
    // The first is known when this is compiled, and leaves no code.
    if S::NARROW == 0
        || job.w.columns > S::NARROW
        || a.rows < 2 * S::W
        || a.depth == 0
        || a.taps == 0
        || a.row_stride == 0
    {
        return None;
    }
    // Overlapping rows are taps too.
    let (taps, depth, tap_stride) = if a.taps == 1 && a.depth > a.row_stride && a.depth.is_multiple_of(a.row_stride) {
        (a.depth / a.row_stride, a.row_stride, a.row_stride as isize)
    } else {
        (a.taps, a.depth, a.tap_stride)
    };
    let input_stride = a.row_stride;
    let step = if taps == 1 { 0 } else { tap_stride / input_stride as isize };
    if depth > input_stride || depth > BLOCK || (taps > 1 && step * input_stride as isize != tap_stride) {
        return None;
    }
    let span = (taps - 1).checked_mul(step.unsigned_abs())?;
    let group = S::W * time_vectors(job.w.columns);
    let size = |block: usize| {
        let length = block / depth / S::W * S::W;
        (length, length.saturating_sub(span) / S::W * S::W)
    };
    // In the first cache, if that leaves room for a group.
    let small = size(BLOCK / 2);
    let (length, rows) = if small.1 >= group { small } else { size(BLOCK) };
    // The rows of a block that belong to its neighbour are transposed twice.
    if rows < S::W || rows < span {
        return None;
    }
    let rows = if rows >= group { rows / group * group } else { rows };
    Some(Plan { input_stride, depth, taps, step, span, length, rows })
}

/// Vectors of time that are worked through at once.
#[inline(always)]
fn time_vectors(columns: usize) -> usize {
    match columns {
        1 => 8,
        2 | 3 => 4,
        _ => 2,
    }
}

#[inline(always)]
pub(super) fn run<S: Simd, E: Element>(s: S, job: &Job<'_, E>, rows: Range<usize>, plan: Plan) {
    let mut x = Transposed([MaybeUninit::uninit(); BLOCK]);
    let x = x.0.as_mut_ptr().cast::<f32>();
    let mut t = rows.start;
    while t < rows.end {
        let end = rows.end.min(t + plan.rows);
        // The oldest input row that the block needs.
        let behind = if plan.step < 0 { plan.span } else { 0 };
        let from = job.row(t).wrapping_sub(behind * plan.input_stride);
        // SAFETY: these are the input rows of outputs `t..end`, and `end - t + span <= length`.
        unsafe { transpose(s, from, end - t + plan.span, &plan, x) };
        let block = Block { job, plan: &plan, x, behind, rows: t..end };
        match job.w.columns {
            1 => s.call(block.columns::<1, 8>()),
            2 => s.call(block.columns::<2, 4>()),
            3 => s.call(block.columns::<3, 4>()),
            4 => s.call(block.columns::<4, 2>()),
            5 => s.call(block.columns::<5, 2>()),
            6 => s.call(block.columns::<6, 2>()),
            7 => s.call(block.columns::<7, 2>()),
            _ => s.call(block.columns::<8, 2>()),
        }
        job.finish(s, t..end, 0..job.w.columns);
        t = end;
    }
}

/// `to[c][r] = from[r][c]` for `rows` input rows, and zero from there to the end of the block.
/// # Safety
/// The rows can be read, and `BLOCK` values written.
#[inline(always)]
unsafe fn transpose<S: Simd>(s: S, from: *const f32, rows: usize, plan: &Plan, to: *mut f32) {
    let (whole_rows, whole_depth) = (rows / S::W * S::W, plan.depth / S::W * S::W);
    // SAFETY: the caller's; `depth * length <= BLOCK` and `rows <= length`.
    unsafe {
        for r in (0..whole_rows).step_by(S::W) {
            for c in (0..whole_depth).step_by(S::W) {
                let block = from.add(r * plan.input_stride + c);
                s.transpose(block, plan.input_stride, to.add(c * plan.length + r), plan.length);
            }
        }
        for r in 0..rows {
            for c in (if r < whole_rows { whole_depth } else { 0 })..plan.depth {
                *to.add(c * plan.length + r) = *from.add(r * plan.input_stride + c);
            }
        }
        for c in 0..plan.depth {
            to.add(c * plan.length + rows).write_bytes(0, plan.length - rows);
        }
    }
}

/// Outputs of one transposed block.
struct Block<'a, E> {
    job: &'a Job<'a, E>,
    plan: &'a Plan,
    /// `[depth][length]`, all of it initialised.
    x: *const f32,
    /// Input rows of the block before that of its first output's tap 0.
    behind: usize,
    rows: Range<usize>,
}

/// `C` columns, `T` vectors of time at once.
struct Columns<'a, E, const C: usize, const T: usize>(Block<'a, E>);

impl<'a, E: Element> Block<'a, E> {
    fn columns<const C: usize, const T: usize>(self) -> Columns<'a, E, C, T> {
        Columns(self)
    }

    /// `T` vectors of outputs, from output `t` of the block on.
    #[inline(always)]
    fn group<S: Simd, const C: usize, const T: usize>(&self, s: S, t: usize) {
        let Job { w, start, out, out_stride, .. } = *self.job;
        let plan = self.plan;
        let count = self.rows.len();
        let out = out.wrapping_add((self.rows.start + t) * out_stride);
        let mut acc = [[s.splat(0.0); C]; T];
        // What is indexed by a variable, and so would keep `acc` out of registers.
        let mut memory = [[0.0f32; GROUP]; C];
        // SAFETY: the job's slices are long enough; lanes past the block's last output read other values of the
        // block, which end at `length`, and are not stored. `T * W <= GROUP` and `C <= 8`.
        unsafe {
            match start {
                Start::Zero => {}
                Start::Bias(bias) => {
                    for sums in &mut acc {
                        for (n, sum) in sums.iter_mut().enumerate() {
                            *sum = s.splat(*bias.as_ptr().add(n));
                        }
                    }
                }
                Start::Output => {
                    for i in 0..count.saturating_sub(t).min(T * S::W) {
                        for (n, column) in memory.iter_mut().enumerate() {
                            *column.as_mut_ptr().add(i) = *out.add(i * out_stride + n);
                        }
                    }
                    for (v, sums) in acc.iter_mut().enumerate() {
                        for (n, sum) in sums.iter_mut().enumerate() {
                            *sum = s.load(memory[n].as_ptr().add(v * S::W));
                        }
                    }
                }
            }
            let mut b = w.data.as_ptr();
            for j in 0..plan.taps {
                let row = (self.behind + t).wrapping_add_signed(j as isize * plan.step);
                let mut x = self.x.add(row);
                for _ in 0..plan.depth {
                    for (v, sums) in acc.iter_mut().enumerate() {
                        let x = s.load(x.add(v * S::W));
                        for (n, sum) in sums.iter_mut().enumerate() {
                            *sum = s.fma(x, E::splat(s, b.add(n)), *sum);
                        }
                    }
                    x = x.wrapping_add(plan.length);
                    b = b.wrapping_add(PANEL);
                }
            }
            for (v, sums) in acc.iter().enumerate() {
                for (n, sum) in sums.iter().enumerate() {
                    s.store(memory[n].as_mut_ptr().add(v * S::W), *sum);
                }
            }
            for i in 0..count.saturating_sub(t).min(T * S::W) {
                for (n, column) in memory.iter().enumerate() {
                    *out.add(i * out_stride + n) = *column.as_ptr().add(i);
                }
            }
        }
    }
}

impl<E: Element, const C: usize, const T: usize> Op for Columns<'_, E, C, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let count = self.0.rows.len();
        let mut t = 0;
        // A last group may be longer than what is left of it, as long as it stays in the block.
        let fits = |t: usize, vectors: usize| t < count && t + vectors * S::W + self.0.plan.span <= self.0.plan.length;
        while fits(t, T) {
            self.0.group::<S, C, T>(s, t);
            t += T * S::W;
        }
        while fits(t, 2) {
            self.0.group::<S, C, 2>(s, t);
            t += 2 * S::W;
        }
        while t < count {
            self.0.group::<S, C, 1>(s, t);
            t += S::W;
        }
    }
}

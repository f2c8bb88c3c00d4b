//! Attention over cached keys and values: two matrix products with a softmax between them.

use super::matmul::{Job, Part};
use super::norm::{Lanes, join};
use super::simd::{Op, Simd};
use super::{
    Compute, Epilogue, Matrix, PANEL, Pointwise, Rows, Start, Whole, dispatch, math, panel_len, part, spread, tasks,
};

/// Keys and values of some heads in `slots` slots, a multiple of [`PANEL`]. What a slot holds must be finite even
/// where nobody attends to it.
#[derive(Clone, Copy)]
pub struct Heads<'a> {
    /// Heads.
    pub heads: usize,
    /// Channels of a head.
    pub dim: usize,
    /// Places for a key and a value.
    pub slots: usize,
    /// Head after head, panels of `dim` values of [`PANEL`] slots: what [`pack`](super::pack) makes of `slots`
    /// columns.
    pub keys: &'a [f32],
    /// Head after head, panels of `slots` values of [`PANEL`] channels: what [`pack`](super::pack) makes of `dim`
    /// columns.
    pub values: &'a [f32],
}

impl Heads<'_> {
    /// Lengths of keys and values of one head.
    pub const fn lens(dim: usize, slots: usize) -> (usize, usize) {
        (panel_len(slots, dim), panel_len(dim, slots))
    }
}

/// Below every score; what nobody attends to.
const MASKED: f32 = f32::MIN;

/// `out[t, h] = Σ_j softmax_j(q[t, h] · key[j, h]) value[j, h]` for `rows` rows of `heads * dim` channels, where `j`
/// runs over the slots that `attended(t)` gives as the first one and their number; slot 0 follows the last slot.
/// `scores` is room for `heads * rows * slots` values.
///
/// A score is one chain over `dim`; the exponentials of slot `j` are added in lane `j % PANEL`, lanes in a fixed
/// order; the values are summed in the order of the slots. Slots that are not attended to add exact zeros, so they
/// change no bit, however many there are.
///
/// Returns `false`, and has written nothing, if a slice is too short or `slots` is no multiple of [`PANEL`].
#[must_use]
pub fn attend(
    cx: Compute<'_>,
    q: &[f32],
    rows: usize,
    of: Heads<'_>,
    attended: &(dyn Fn(usize) -> (usize, usize) + Sync),
    scores: &mut [f32],
    out: &mut [f32],
) -> bool {
    let Heads { heads, dim, slots, keys, values } = of;
    if rows == 0 || heads == 0 || dim == 0 {
        return true;
    }
    let Some(width) = heads.checked_mul(dim) else { return false };
    let io = rows.checked_mul(width);
    let room = rows.checked_mul(slots).and_then(|n| n.checked_mul(heads));
    let memory = dim.checked_next_multiple_of(PANEL).and_then(|n| n.checked_mul(slots)?.checked_mul(heads));
    if slots == 0
        || !slots.is_multiple_of(PANEL)
        || io.is_none_or(|n| n > q.len() || n > out.len())
        || room.is_none_or(|n| n > scores.len())
        || memory.is_none_or(|n| n > values.len() || heads * dim * slots > keys.len())
    {
        return false;
    }
    let (key_len, value_len) = Heads::lens(dim, slots);
    let plain = Epilogue { residual: None, then: Pointwise::Identity };
    let (scores, out) = (Whole(scores.as_mut_ptr()), Whole(out.as_mut_ptr()));
    let head = |h: usize| {
        let room = scores.at(h * rows * slots);
        let dots = Job {
            a: Rows { data: q, origin: h * dim, rows, row_stride: width, taps: 1, tap_stride: 0, depth: dim },
            w: Matrix { columns: slots, depth: dim, data: keys.get(h * key_len..).unwrap_or_default() },
            start: Start::Zero,
            epilogue: plain,
            out: room,
            out_stride: slots,
        };
        // SAFETY: the lengths were checked, and nobody else has this head.
        dispatch(cx.isa, unsafe { Part::new(&dots, 0..rows, 0..slots) });
        // SAFETY: this head's part of `scores`, which the job above is done with.
        let room = unsafe { core::slice::from_raw_parts_mut(room, rows * slots) };
        for (t, row) in room.chunks_exact_mut(slots).enumerate() {
            let (first, count) = attended(t);
            mask(row, first, count);
        }
        dispatch(cx.isa, SoftmaxOp { slots, rows: &mut *room });
        let sums = Job {
            a: Rows { data: room, origin: 0, rows, row_stride: slots, taps: 1, tap_stride: 0, depth: slots },
            w: Matrix { columns: dim, depth: slots, data: values.get(h * value_len..).unwrap_or_default() },
            start: Start::Zero,
            epilogue: plain,
            out: out.at(h * dim),
            out_stride: width,
        };
        // SAFETY: the lengths were checked, and nobody else has this head.
        dispatch(cx.isa, unsafe { Part::new(&sums, 0..rows, 0..dim) });
    };
    let count = tasks(cx, rows.saturating_mul(slots).saturating_mul(2 * width)).min(heads);
    spread(cx, count, &|i| part(heads, 1, count, i).for_each(&head));
    true
}

/// Masks all slots but `count` from `first` on, round the end.
fn mask(row: &mut [f32], first: usize, count: usize) {
    let slots = row.len();
    let first = first.min(slots);
    match count.min(slots).checked_sub(slots - first) {
        Some(wrapped) => row.get_mut(wrapped..first).unwrap_or_default().fill(MASKED),
        None => {
            row[..first].fill(MASKED);
            row.get_mut(first + count..).unwrap_or_default().fill(MASKED);
        }
    }
}

/// Softmax of each row of `slots` values.
struct SoftmaxOp<'a> {
    slots: usize,
    rows: &'a mut [f32],
}

impl Op for SoftmaxOp<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let vectors = PANEL / S::W;
        for row in self.rows.chunks_exact_mut(self.slots) {
            let mut lanes: Lanes<S> = [s.splat(MASKED); PANEL];
            for block in row.chunks_exact(PANEL) {
                for (v, lane) in lanes.iter_mut().enumerate().take(vectors) {
                    // SAFETY: `W` divides `PANEL`.
                    *lane = s.max(unsafe { s.load(block.as_ptr().add(v * S::W)) }, *lane);
                }
            }
            let greatest = s.splat(join(s, &lanes, |a, b| if a > b { a } else { b }));
            let mut lanes: Lanes<S> = [s.splat(0.0); PANEL];
            for block in row.chunks_exact_mut(PANEL) {
                for (v, lane) in lanes.iter_mut().enumerate().take(vectors) {
                    // SAFETY: as above.
                    unsafe {
                        let p = block.as_mut_ptr().add(v * S::W);
                        let x = s.load(p);
                        let e = math::exp(s, s.sub(x, greatest));
                        let e = s.select_gt(x, s.splat(MASKED), e, s.splat(0.0));
                        s.store(p, e);
                        *lane = s.add(*lane, e);
                    }
                }
            }
            let factor = s.splat(1.0 / join(s, &lanes, |a, b| a + b));
            for block in row.chunks_exact_mut(PANEL) {
                for v in 0..vectors {
                    // SAFETY: as above.
                    unsafe {
                        let p = block.as_mut_ptr().add(v * S::W);
                        s.store(p, s.mul(s.load(p), factor));
                    }
                }
            }
        }
    }
}

/// Sines in place.
struct SineOp<'a>(&'a mut [f32]);

impl Op for SineOp<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut n = 0;
        while n < self.0.len() {
            let lanes = (self.0.len() - n).min(S::W);
            // SAFETY: `n + lanes` is at most the length.
            unsafe {
                let p = self.0.as_mut_ptr().add(n);
                let x = if lanes == S::W { s.load(p) } else { s.load_some(p, lanes) };
                let y = math::sin(s, x);
                if lanes == S::W { s.store(p, y) } else { s.store_some(p, y, lanes) }
            }
            n += lanes;
        }
    }
}

/// `x = sin(x)`, in place; the error is absolute, about `1e-7`, for `|x|` up to 10^4.
pub fn sine(cx: Compute<'_>, x: &mut [f32]) {
    dispatch(cx.isa, SineOp(x));
}

/// Rotation of the pairs of some rows.
struct RotateOp<'a> {
    heads: usize,
    dim: usize,
    turns: &'a [f32],
    x: &'a mut [f32],
}

impl Op for RotateOp<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let half = self.dim / 2;
        let turns = self.turns.chunks_exact(self.dim);
        for (row, turn) in self.x.chunks_exact_mut(self.heads * self.dim).zip(turns) {
            for head in row.chunks_exact_mut(self.dim) {
                let mut n = 0;
                while n < half {
                    let lanes = (half - n).min(S::W);
                    // SAFETY: `n + lanes <= half`, and `head` and `turn` are two halves long.
                    unsafe {
                        let load = |p: *const f32| if lanes == S::W { s.load(p) } else { s.load_some(p, lanes) };
                        let store =
                            |p: *mut f32, v| if lanes == S::W { s.store(p, v) } else { s.store_some(p, v, lanes) };
                        let p = head.as_mut_ptr().add(n);
                        let (a, b) = (load(p), load(p.add(half)));
                        let (cos, sin) = (load(turn.as_ptr().add(n)), load(turn.as_ptr().add(half + n)));
                        store(p, s.sub(s.mul(a, cos), s.mul(b, sin)));
                        store(p.add(half), s.add(s.mul(b, cos), s.mul(a, sin)));
                    }
                    n += lanes;
                }
            }
        }
    }
}

/// Turns channel `j` and `j + dim / 2` of each head, in place, by the angle whose cosine and sine are values `j` and
/// `dim / 2 + j` of the row of `turns`, which are `dim` values a row of `x` (Su et al. 2021, section 3.4.2, on halves).
///
/// Returns `false`, and has written nothing, if `x` is not whole rows, `dim` is odd or `turns` has another length.
#[must_use]
pub fn rotate(cx: Compute<'_>, heads: usize, dim: usize, turns: &[f32], x: &mut [f32]) -> bool {
    let Some(width) = heads.checked_mul(dim).filter(|w| *w > 0) else { return false };
    if !dim.is_multiple_of(2)
        || !x.len().is_multiple_of(width)
        || (x.len() / width).checked_mul(dim) != Some(turns.len())
    {
        return false;
    }
    dispatch(cx.isa, RotateOp { heads, dim, turns, x });
    true
}

//! Multi-head attention between projections, which are layers of their own.

use core::ops::Range;

use serde::{Deserialize, Serialize};

use super::{Memory, Slot, Step, View};
use crate::{
    RunError,
    kernel::{self, Compute, Heads, PANEL},
};

/// Rows that are worked through at once.
const ROWS: usize = 24;

/// Which rows a row attends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reach {
    /// Itself and those before it, so many at most: keys and values are kept in a ring.
    Window(usize),
    /// All of its block of so many rows. Steps bring whole blocks, or the signal's last.
    Block(usize),
    /// Every row, or every row up to itself. One step brings them all.
    Whole { causal: bool },
}

/// Rotation by position. Angles are fractions of a turn in 64 bits, so that a product with a position wraps as the
/// angle does: no position is too far, and differences of angles are exact.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct RotaryTable {
    /// Turns a position of each pair, in parts of 16 bits, the lowest first: `[4, head_dim / 2]`.
    steps: Slot,
}

impl RotaryTable {
    /// Values of the table for `dim` channels a head.
    pub(crate) fn values(dim: usize, theta: f64) -> impl Iterator<Item = f32> {
        let half = dim / 2;
        (0..4 * half).map(move |i| {
            let (part, j) = (i / half, i % half);
            let turns = libm::pow(theta, -2.0 * j as f64 / dim as f64) / core::f64::consts::TAU;
            // Less than a turn, for `theta` is not less than 1.
            let turns = (turns * 18_446_744_073_709_551_616.0) as u64;
            (turns >> (16 * part) & 0xffff) as f32
        })
    }

    pub(crate) fn new(steps: Slot) -> Self {
        Self { steps }
    }

    /// Where the table lies.
    pub(crate) fn slot(&self) -> Slot {
        self.steps
    }

    /// Cosines and sines of the pairs at some positions.
    fn turns(
        self,
        cx: Compute<'_>,
        arena: &[f32],
        positions: impl Iterator<Item = u64>,
        out: &mut [f32],
    ) -> Result<(), RunError> {
        let steps = self.steps.of(arena)?;
        let half = steps.len() / 4;
        for (row, position) in out.chunks_exact_mut(2 * half).zip(positions) {
            let (cos, sin) = row.split_at_mut(half);
            for (j, (cos, sin)) in cos.iter_mut().zip(sin).enumerate() {
                let part = |i: usize| (steps.get(i * half + j).copied().unwrap_or(0.0) as u64) << (16 * i);
                let step = part(0) | part(1) | part(2) | part(3);
                let turn = position.wrapping_mul(step);
                // From half a turn back to half a turn on.
                let radians = |turn: u64| (turn as i64 >> 32) as f32 * (core::f32::consts::TAU / 4_294_967_296.0);
                *sin = radians(turn);
                *cos = radians(turn.wrapping_add(1 << 62));
            }
        }
        kernel::sine(cx, out);
        Ok(())
    }
}

/// A planned attention. State, for [`Reach::Window`]: keys, then values, as in [`Heads`].
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct AttentionLayer {
    /// Queries, already divided by `sqrt(head_dim)`, keys and values. Rotated in place.
    pub query: usize,
    pub key: usize,
    pub value: usize,
    pub dst: usize,
    /// Room of [`AttentionLayer::tmp_len`] values.
    pub tmp: usize,
    pub heads: usize,
    pub dim: usize,
    pub reach: Reach,
    pub rotary: Option<RotaryTable>,
}

const SHORT: RunError = RunError::Internal("an attention's slices are too short");

impl AttentionLayer {
    /// Slots for keys and values where `rows` are attended to at once, or ever in a ring.
    fn slots(&self, rows: usize) -> usize {
        let needed = match self.reach {
            // A ring's oldest row must outlast the writing of a block of new ones.
            Reach::Window(window) => window - 1 + ROWS,
            Reach::Block(length) => length.min(rows),
            Reach::Whole { .. } => rows,
        };
        needed.div_ceil(PANEL).saturating_mul(PANEL)
    }

    /// Values of keys and of values of all heads.
    fn cache(&self, slots: usize) -> (usize, usize) {
        let padded = self.dim.next_multiple_of(PANEL);
        let keys = self.heads.saturating_mul(self.dim).saturating_mul(slots);
        (keys, self.heads.saturating_mul(padded).saturating_mul(slots))
    }

    pub(crate) fn state_len(&self) -> usize {
        match self.reach {
            Reach::Window(_) => {
                let (keys, values) = self.cache(self.slots(0));
                keys.saturating_add(values)
            }
            _ => 0,
        }
    }

    /// Angles, scores, and keys and values where the state does not hold them.
    fn tmp_lens(&self, rows: usize) -> [usize; 4] {
        let (slots, at_once) = (self.slots(rows), rows.min(ROWS));
        let (keys, values) = match self.reach {
            Reach::Window(_) => (0, 0),
            _ => self.cache(slots),
        };
        let scores = self.heads.saturating_mul(at_once).saturating_mul(slots);
        [at_once * self.dim, scores, keys, values]
    }

    /// Values of room for a step of `rows` rows.
    pub(crate) fn tmp_len(&self, rows: usize) -> usize {
        self.tmp_lens(rows).into_iter().fold(0, usize::saturating_add)
    }

    pub(crate) fn step(&self, s: Step<'_>, mem: &mut Memory<'_>) -> Result<(), RunError> {
        let views = [self.query, self.key, self.value].map(|b| mem.view(b));
        let (rows, width) = (views[0].rows, self.heads * self.dim);
        if views.iter().any(|v| v.rows != rows) {
            return Err(RunError::Internal("queries, keys and values are not aligned"));
        }
        let (dst, tmp) = (mem.room(self.dst)?, mem.room(self.tmp)?);
        mem.set(self.dst, View { start: dst.data(), rows });
        if rows == 0 {
            return Ok(());
        }
        let [q, k, v] = views.map(|v| v.start..v.start + rows * width);
        let out = dst.data()..dst.data() + rows * width;
        let [q, k, v, out, tmp] = mem
            .scratch
            .get_disjoint_mut([q, k, v, out, tmp.data()..tmp.end()])
            .map_err(|_| RunError::Internal("buffers overlap"))?;
        let lens = self.tmp_lens(rows);
        let (angles, rest) = tmp.split_at_mut_checked(lens[0]).ok_or(SHORT)?;
        let (scores, rest) = rest.split_at_mut_checked(lens[1]).ok_or(SHORT)?;
        let (keys, rest) = rest.split_at_mut_checked(lens[2]).ok_or(SHORT)?;
        let values = rest.get_mut(..lens[3]).ok_or(SHORT)?;

        if let Some(rotary) = self.rotary {
            for first in (0..rows).step_by(ROWS) {
                let now = first..rows.min(first + ROWS);
                let positions = now.clone().map(|t| match self.reach {
                    Reach::Window(_) => s.cursor.position.wrapping_add(t as u64),
                    Reach::Block(length) => (t % length) as u64,
                    Reach::Whole { .. } => t as u64,
                });
                let angles = angles.get_mut(..now.len() * self.dim).ok_or(SHORT)?;
                rotary.turns(s.cx, s.arena, positions, angles)?;
                for x in [&mut *q, &mut *k] {
                    let x = x.get_mut(now.start * width..now.end * width).ok_or(SHORT)?;
                    if !kernel::rotate(s.cx, self.heads, self.dim, angles, x) {
                        return Err(SHORT);
                    }
                }
            }
        }

        let mut rest = Attend { layer: self, cx: s.cx, q, k, v, scores, out };
        match self.reach {
            Reach::Window(window) => {
                let slots = self.slots(0);
                let (keys, values) = s.state.split_at_mut_checked(self.cache(slots).0).ok_or(SHORT)?;
                for first in (0..rows).step_by(ROWS) {
                    let now = first..rows.min(first + ROWS);
                    let place = s.cursor.next;
                    rest.store(now.clone(), place, slots, keys, values)?;
                    let before = s.cursor.seen.min(window - 1);
                    rest.attend(now.clone(), slots, keys, values, &|i| {
                        let count = (before + i + 1).min(window);
                        ((place + i + 1 + slots - count) % slots, count)
                    })?;
                    s.cursor.next = (place + now.len()) % slots;
                    s.cursor.seen = s.cursor.seen.saturating_add(now.len());
                    s.cursor.position = s.cursor.position.wrapping_add(now.len() as u64);
                }
            }
            Reach::Block(_) | Reach::Whole { .. } => {
                let length = if let Reach::Block(length) = self.reach { length } else { rows };
                let causal = self.reach == Reach::Whole { causal: true };
                for start in (0..rows).step_by(length) {
                    let block = start..rows.min(start + length);
                    let slots = self.slots(block.len());
                    let (key_len, value_len) = self.cache(slots);
                    let keys = keys.get_mut(..key_len).ok_or(SHORT)?;
                    let values = values.get_mut(..value_len).ok_or(SHORT)?;
                    if slots > block.len() {
                        // The scratch memory holds anything.
                        keys.fill(0.0);
                        values.fill(0.0);
                    }
                    rest.store(block.clone(), 0, slots, keys, values)?;
                    for first in block.clone().step_by(ROWS) {
                        let now = first..block.end.min(first + ROWS);
                        rest.attend(now, slots, keys, values, &|i| {
                            (0, if causal { first - start + i + 1 } else { block.len() })
                        })?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// What one step attends with.
struct Attend<'a> {
    layer: &'a AttentionLayer,
    cx: Compute<'a>,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    scores: &'a mut [f32],
    out: &'a mut [f32],
}

impl Attend<'_> {
    /// Puts keys and values of some rows into slots from `place` on, round the end.
    fn store(
        &self,
        rows: Range<usize>,
        place: usize,
        slots: usize,
        keys: &mut [f32],
        values: &mut [f32],
    ) -> Result<(), RunError> {
        let (heads, dim) = (self.layer.heads, self.layer.dim);
        let (key_len, value_len) = Heads::lens(dim, slots);
        for (i, t) in rows.enumerate() {
            let slot = (place + i) % slots;
            for h in 0..heads {
                let at = (t * heads + h) * dim;
                let (k, v) = (self.k.get(at..at + dim).ok_or(SHORT)?, self.v.get(at..at + dim).ok_or(SHORT)?);
                let to = keys.get_mut(h * key_len + slot / PANEL * PANEL * dim + slot % PANEL..).ok_or(SHORT)?;
                for (to, from) in to.iter_mut().step_by(PANEL).zip(k) {
                    *to = *from;
                }
                for (p, part) in v.chunks(PANEL).enumerate() {
                    let at = h * value_len + (p * slots + slot) * PANEL;
                    values.get_mut(at..at + part.len()).ok_or(SHORT)?.copy_from_slice(part);
                }
            }
        }
        Ok(())
    }

    /// Some rows; `attended` counts them from 0.
    fn attend(
        &mut self,
        rows: Range<usize>,
        slots: usize,
        keys: &[f32],
        values: &[f32],
        attended: &(dyn Fn(usize) -> (usize, usize) + Sync),
    ) -> Result<(), RunError> {
        let AttentionLayer { heads, dim, .. } = *self.layer;
        let part = rows.start * heads * dim..rows.end * heads * dim;
        let q = self.q.get(part.clone()).ok_or(SHORT)?;
        let out = self.out.get_mut(part).ok_or(SHORT)?;
        let of = Heads { heads, dim, slots, keys, values };
        if kernel::attend(self.cx, q, rows.len(), of, attended, self.scores, out) { Ok(()) } else { Err(SHORT) }
    }
}

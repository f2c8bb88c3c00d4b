//! Layers as planned, plain values: where their weights lie, what they keep between steps, and how a
//! step turns the new rows of one buffer into rows of another.
//!
//! A step works on [`Memory`], slices that somebody else owns. Before its new rows a buffer has *head* rows
//! of room, into which a layer copies the history that it kept, so that every window is contiguous; after
//! them it has *tail* rows for the padding at the end of the signal.

mod attention;
mod conv;
mod conv_transpose;
mod lstm;
mod noise;
mod norm;
mod pointwise;
mod shape;
mod spectral;

pub(crate) use attention::{AttentionLayer, Reach, RotaryTable};
pub(crate) use conv::{ConvLayer, Pad, Window};
pub(crate) use conv_transpose::{BlocksLayer, ConvTransposeLayer, Phase};
pub(crate) use lstm::LstmLayer;
pub(crate) use noise::{NoiseLayer, fnv1a64};
pub(crate) use norm::{GroupNormLayer, LayerNormLayer};
pub(crate) use pointwise::{AddLayer, Fixed, Function, MapLayer};
pub(crate) use shape::{GatherLayer, PadEndLayer, TrimLayer};
pub(crate) use spectral::{IstftLayer, LogMelLayer, StftLayer};

use serde::{Deserialize, Serialize};

use crate::{
    RunError,
    kernel::{Compute, Weights},
    weights::Precision,
};

/// A run of values in the arena of weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Slot {
    pub offset: usize,
    pub len: usize,
}

impl Slot {
    pub(crate) fn of(self, arena: &[f32]) -> Result<&[f32], RunError> {
        let outside = RunError::Internal("weights outside the arena");
        arena.get(self.offset..).and_then(|rest| rest.get(..self.len)).ok_or(outside)
    }
}

/// Packed weights in the arena.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Weight {
    pub slot: Slot,
    pub precision: Precision,
    /// One a column, for int8.
    pub scales: Option<Slot>,
}

impl Weight {
    /// What is narrower than f32 lies in the arena bit for bit.
    pub(crate) fn of(self, arena: &[f32]) -> Result<Weights<'_>, RunError> {
        let words = self.slot.of(arena)?;
        Ok(match self.precision {
            Precision::F32 => Weights::F32(words),
            Precision::F16 => Weights::F16(bytemuck::cast_slice(words)),
            Precision::I8 => {
                Weights::I8 { values: bytemuck::cast_slice(words), scales: self.scales.unwrap_or_default().of(arena)? }
            }
        })
    }
}

/// What a layer keeps beside its rows of history.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cursor {
    /// Rows of history kept.
    pub rows: usize,
    /// Where the next window starts, in rows from the first row of history; the place of the next row in a ring.
    pub next: usize,
    /// Rows seen so far, saturating.
    pub seen: usize,
    /// Rows seen so far by a layer that depends on their number, modulo 2^64.
    pub position: u64,
    /// Whether the padding before the signal is behind us.
    pub started: bool,
    /// Rows that the other path of a sum is ahead by.
    pub skip_rows: usize,
}

/// A [`Cursor`] in a block of memory.
pub(crate) type CursorWords = [usize; 7];

impl From<CursorWords> for Cursor {
    fn from([rows, next, seen, skip_rows, low, high, started]: CursorWords) -> Self {
        let position = low as u64 & 0xffff_ffff | (high as u64) << 32;
        Self { rows, next, seen, skip_rows, position, started: started != 0 }
    }
}

impl From<Cursor> for CursorWords {
    fn from(c: Cursor) -> Self {
        let (low, high) = (c.position & 0xffff_ffff, c.position >> 32);
        [c.rows, c.next, c.seen, c.skip_rows, low as usize, high as usize, c.started.into()]
    }
}

/// Rows of a buffer that are valid now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct View {
    /// Index of the first value in the scratch memory.
    pub start: usize,
    /// Rows.
    pub rows: usize,
}

/// A [`View`] in a block of memory.
pub(crate) type ViewWords = [usize; 2];

/// Room of a buffer in the scratch memory.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Room {
    /// Index of its first value.
    pub base: usize,
    /// Values a row.
    pub channels: usize,
    /// Rows before the place of the data.
    pub head: usize,
    /// Rows of data, and of the tail behind it.
    pub rows: usize,
}

impl Room {
    pub(crate) fn data(&self) -> usize {
        self.base + self.head * self.channels
    }

    pub(crate) fn end(&self) -> usize {
        self.base + (self.head + self.rows) * self.channels
    }

    /// Index in the room's slice of a value of the scratch memory.
    pub(crate) fn offset(&self, start: usize) -> Result<usize, RunError> {
        start.checked_sub(self.base).ok_or(RunError::Internal("rows outside their buffer"))
    }
}

/// A [`Room`] in a block of memory.
pub(crate) type RoomWords = [usize; 4];

impl From<RoomWords> for Room {
    fn from([base, channels, head, rows]: RoomWords) -> Self {
        Self { base, channels, head, rows }
    }
}

impl From<Room> for RoomWords {
    fn from(r: Room) -> Self {
        [r.base, r.channels, r.head, r.rows]
    }
}

/// Everything that a step reads and writes.
pub(crate) struct Memory<'a> {
    pub rooms: &'a [RoomWords],
    pub views: &'a mut [ViewWords],
    pub scratch: &'a mut [f32],
}

impl Memory<'_> {
    pub(crate) fn view(&self, buffer: usize) -> View {
        let [start, rows] = self.views.get(buffer).copied().unwrap_or_default();
        View { start, rows }
    }

    pub(crate) fn room(&self, buffer: usize) -> Result<Room, RunError> {
        self.rooms.get(buffer).map(|words| Room::from(*words)).ok_or(RunError::Internal("no such buffer"))
    }

    pub(crate) fn set(&mut self, buffer: usize, view: View) {
        if let Some(v) = self.views.get_mut(buffer) {
            *v = [view.start, view.rows];
        }
    }

    pub(crate) fn slice(&mut self, start: usize, len: usize) -> Result<&mut [f32], RunError> {
        self.scratch.get_mut(start..start + len).ok_or(RunError::Internal("rows outside the scratch memory"))
    }
}

/// What belongs to one step of one layer.
pub(crate) struct Step<'a> {
    pub cx: Compute<'a>,
    /// Packed weights of the whole chain.
    pub arena: &'a [f32],
    /// Rows that this layer keeps.
    pub state: &'a mut [f32],
    pub cursor: &'a mut Cursor,
    /// Where rows that the other path of a sum is ahead by are kept.
    pub skip: &'a mut [f32],
    /// Whether the signal ends with these rows.
    pub finish: bool,
    /// The signal's seed for noise, in place of the spec's.
    pub noise_seed: Option<u64>,
}

/// Copies kept rows before the new ones and returns where the first of them lies.
pub(crate) fn recall(
    mem: &mut Memory<'_>,
    at: View,
    channels: usize,
    state: &[f32],
    rows: usize,
) -> Result<usize, RunError> {
    let len = rows * channels;
    let start = at.start.checked_sub(len).ok_or(RunError::Internal("no room for history"))?;
    let from = state.get(..len).ok_or(RunError::Internal("history longer than its state"))?;
    mem.slice(start, len)?.copy_from_slice(from);
    Ok(start)
}

/// Keeps `rows` rows that start at `start`.
pub(crate) fn keep(
    mem: &mut Memory<'_>,
    start: usize,
    channels: usize,
    rows: usize,
    state: &mut [f32],
) -> Result<(), RunError> {
    let len = rows * channels;
    let to = state.get_mut(..len).ok_or(RunError::Internal("history longer than its state"))?;
    to.copy_from_slice(mem.slice(start, len)?);
    Ok(())
}

/// Lines a path up with one that has given `rows` rows in this step: what was kept and what is new, the
/// first `rows` of it; the rest is kept.
pub(crate) fn align(
    mem: &mut Memory<'_>,
    at: View,
    channels: usize,
    state: &mut [f32],
    kept: &mut usize,
    rows: usize,
) -> Result<View, RunError> {
    let start = recall(mem, at, channels, state, *kept)?;
    let have = *kept + at.rows;
    // Paths that keep the number of rows do not get further apart than was planned for.
    let unequal = RunError::Unsupported("the model adds two paths that differ in their number of rows");
    let left = have.checked_sub(rows).filter(|left| left * channels <= state.len()).ok_or(unequal)?;
    keep(mem, start + rows * channels, channels, left, state)?;
    *kept = left;
    Ok(View { start, rows })
}

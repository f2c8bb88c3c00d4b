//! Layers that move rows and compute nothing.

use serde::{Deserialize, Serialize};

use super::{Memory, Step, View, keep, recall};
use crate::RunError;

/// Cuts rows off both ends of the signal, in place.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct TrimLayer {
    pub src: usize,
    pub channels: usize,
    pub left: usize,
    pub right: usize,
}

impl TrimLayer {
    pub(crate) fn step(&self, s: Step<'_>, mem: &mut Memory<'_>) -> Result<(), RunError> {
        let at = mem.view(self.src);
        let cut = self.left.saturating_sub(s.cursor.seen).min(at.rows);
        s.cursor.seen = s.cursor.seen.saturating_add(at.rows);
        let at = View { start: at.start + cut * self.channels, rows: at.rows - cut };
        let start = recall(mem, at, self.channels, s.state, s.cursor.rows)?;
        let rows = s.cursor.rows + at.rows;
        let held = rows.min(self.right);
        s.cursor.rows = held;
        keep(mem, start + (rows - held) * self.channels, self.channels, held, s.state)?;
        mem.set(self.src, View { start, rows: rows - held });
        Ok(())
    }
}

/// Appends zeros at the end of the signal until its length is a multiple, in place.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct PadEndLayer {
    pub src: usize,
    pub channels: usize,
    pub multiple: usize,
}

impl PadEndLayer {
    pub(crate) fn step(&self, s: Step<'_>, mem: &mut Memory<'_>) -> Result<(), RunError> {
        let at = mem.view(self.src);
        // Only the remainder matters, so that the count cannot overflow.
        s.cursor.seen = (s.cursor.seen + at.rows) % self.multiple;
        if s.finish && s.cursor.seen > 0 {
            let more = self.multiple - s.cursor.seen;
            mem.slice(at.start + at.rows * self.channels, more * self.channels)?.fill(0.0);
            mem.set(self.src, View { start: at.start, rows: at.rows + more });
        }
        Ok(())
    }
}

/// Holds rows back until they make whole blocks, in place; at the end of the signal the rest comes as it is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct GatherLayer {
    pub src: usize,
    pub channels: usize,
    /// Rows in a block.
    pub block: usize,
}

impl GatherLayer {
    pub(crate) fn step(&self, s: Step<'_>, mem: &mut Memory<'_>) -> Result<(), RunError> {
        let at = mem.view(self.src);
        let start = recall(mem, at, self.channels, s.state, s.cursor.rows)?;
        let rows = s.cursor.rows + at.rows;
        s.cursor.rows = if s.finish { 0 } else { rows % self.block };
        let whole = rows - s.cursor.rows;
        keep(mem, start + whole * self.channels, self.channels, s.cursor.rows, s.state)?;
        mem.set(self.src, View { start, rows: whole });
        Ok(())
    }
}

//! One layer and direction of a long short-term memory.

use serde::{Deserialize, Serialize};

use super::{Memory, Slot, Step, View, Weight};
use crate::{
    RunError,
    kernel::{self, Epilogue, Out, PANEL, Panels, Pointwise, Rows, Start},
};

/// Columns of the recurrent weights that are worked through at once, whole panels.
const BLOCK: usize = 128;

/// `rows` contiguous rows of `depth` values.
fn rows(data: &[f32], origin: usize, rows: usize, depth: usize) -> Rows<'_> {
    Rows { data, origin, rows, row_stride: depth, taps: 1, tap_stride: 0, depth }
}

/// A planned LSTM layer. State: hidden, then cell.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct LstmLayer {
    pub src: usize,
    pub dst: usize,
    /// Room for the gates of every row.
    pub tmp: usize,
    pub input: usize,
    pub hidden: usize,
    /// Column of the output row at which the hidden state goes, and the row's width.
    pub column: usize,
    pub width: usize,
    /// From the last row to the first.
    pub reverse: bool,
    pub weight_input: Weight,
    pub weight_hidden: Weight,
    pub bias: Slot,
}

impl LstmLayer {
    pub(crate) fn step(&self, s: Step<'_>, mem: &mut Memory<'_>) -> Result<(), RunError> {
        let at = mem.view(self.src);
        let (src, dst, tmp) = (mem.room(self.src)?, mem.room(self.dst)?, mem.room(self.tmp)?);
        let [x, y, gates] = mem
            .scratch
            .get_disjoint_mut([src.base..src.end(), dst.data()..dst.end(), tmp.data()..tmp.end()])
            .map_err(|_| RunError::Internal("buffers overlap"))?;
        let short = RunError::Internal("an LSTM's slices are too short");
        let four = 4 * self.hidden;
        let plain = Epilogue { residual: None, then: Pointwise::Identity };
        if at.rows > 0 {
            let w = Panels { columns: four, depth: self.input, data: self.weight_input.of(s.arena)? };
            let out = Out { data: &mut *gates, origin: 0, row_stride: four };
            let input = rows(x, src.offset(at.start)?, at.rows, self.input);
            if !kernel::matmul(s.cx, input, w, Start::Bias(self.bias.of(s.arena)?), plain, out) {
                return Err(short);
            }
        }
        let (hidden, cell) = s.state.split_at_mut_checked(self.hidden).ok_or(short)?;
        let weight = self.weight_hidden.of(s.arena)?;
        // Threads share out the columns of one product.
        let block = if s.cx.pool.is_some_and(|pool| pool.threads() > 1) { four } else { BLOCK };
        for i in 0..at.rows {
            let t = if self.reverse { at.rows - 1 - i } else { i };
            let row = gates.get_mut(t * four..(t + 1) * four).ok_or(short)?;
            for b in 0..four.div_ceil(block) {
                // Every other row goes through the weights backwards, so that it finds what the row before left in the
                // cache. Columns do not depend on each other.
                let b = if i % 2 == 0 { b } else { four.div_ceil(block) - 1 - b };
                let (first, last) = (b * block, four.min((b + 1) * block));
                let panels = weight.panels(self.hidden, first / PANEL..last.div_ceil(PANEL)).ok_or(short)?;
                let w = Panels { columns: last - first, depth: self.hidden, data: panels };
                let out = Out { data: &mut *row, origin: first, row_stride: four };
                if !kernel::matmul(s.cx, rows(hidden, 0, 1, self.hidden), w, Start::Output, plain, out) {
                    return Err(short);
                }
            }
            kernel::lstm_cell(s.cx, row, cell, hidden);
            let to = t * self.width + self.column;
            y.get_mut(to..to + self.hidden).ok_or(short)?.copy_from_slice(hidden);
        }
        mem.set(self.dst, View { start: dst.data(), rows: at.rows });
        Ok(())
    }
}

//! Transposed convolution over time: `stride` dense layers (phases), each from the newest input rows.

use serde::{Deserialize, Serialize};

use super::{Function, Memory, Slot, Step, View, Weight, Window, keep, recall};
use crate::{
    RunError,
    kernel::{self, Compute, Epilogue, Out, Panels, Rows, Start},
    table::Table,
};

/// Neighbouring phases of one channel group that have the same number of taps.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Phase {
    /// Column of the output row at which the results go.
    pub column: usize,
    /// Results.
    pub columns: usize,
    /// Input rows that they see.
    pub taps: usize,
    /// First input channel, and how many.
    pub channel: usize,
    pub channels: usize,
    pub weight: Weight,
    pub bias: Option<Slot>,
}

/// The input rows of a transposed convolution: from which value on, and how they lie.
struct Source<'a> {
    data: &'a [f32],
    /// Index of the newest row that the first output row sees.
    newest: usize,
    rows: usize,
    input: usize,
}

fn run(
    phases: Table<'_, Option<Phase>>,
    cx: Compute<'_>,
    arena: &[f32],
    x: &Source<'_>,
    then: Function,
    y: &mut [f32],
    width: usize,
) -> Result<(), RunError> {
    for p in phases.iter().flatten() {
        let rows = Rows {
            data: x.data,
            origin: x.newest + p.channel,
            rows: x.rows,
            row_stride: x.input,
            taps: p.taps,
            tap_stride: -(x.input as isize),
            depth: p.channels,
        };
        let panels = Panels { columns: p.columns, depth: p.taps * p.channels, data: p.weight.of(arena)? };
        let start = p.bias.map(|b| b.of(arena)).transpose()?.map_or(Start::Zero, Start::Bias);
        let epilogue = Epilogue { residual: None, then: then.resolve(arena, p.column, p.columns)? };
        let out = Out { data: &mut *y, origin: p.column, row_stride: width };
        if !kernel::matmul(cx, rows, panels, start, epilogue, out) {
            return Err(RunError::Internal("a transposed convolution's slices are too short"));
        }
    }
    Ok(())
}

/// A planned transposed convolution.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct ConvTransposeLayer {
    pub src: usize,
    pub dst: usize,
    /// Over input rows: `span` rows are seen by an output row; what follows the signal is zeros.
    pub window: Window,
    pub input: usize,
    pub output: usize,
    pub stride: usize,
    /// Rows to drop at the start, and at the end.
    pub drop_left: usize,
    pub drop_right: usize,
    /// First of its phases in the chain's list, and how many.
    pub phases: (usize, usize),
    pub then: Function,
}

impl ConvTransposeLayer {
    pub(crate) fn step(
        &self,
        mut s: Step<'_>,
        mem: &mut Memory<'_>,
        phases: Table<'_, Option<Phase>>,
    ) -> Result<(), RunError> {
        let before = s.cursor.seen;
        let opened = self.window.open(&mut s, mem, mem.view(self.src), self.input)?;
        let (src, dst) = (mem.room(self.src)?, mem.room(self.dst)?);
        let width = self.stride * self.output;
        let mut view = View { start: dst.data(), rows: 0 };
        if opened.windows > 0 {
            let [x, y] = mem
                .scratch
                .get_disjoint_mut([src.base..src.end(), dst.data()..dst.end()])
                .map_err(|_| RunError::Internal("buffers overlap"))?;
            let newest = src.offset(opened.start)? + (opened.next + self.window.span - 1) * self.input;
            let source = Source { data: x, newest, rows: opened.windows, input: self.input };
            run(phases, s.cx, s.arena, &source, self.then, y, width)?;
            let rows = opened.windows * self.stride;
            let left = self.drop_left.saturating_sub(before.saturating_mul(self.stride)).min(rows);
            let right = if s.finish { self.drop_right } else { 0 };
            view = View { start: dst.data() + left * self.output, rows: (rows - left).saturating_sub(right) };
        }
        self.window.close(&mut s, mem, &opened, self.input)?;
        mem.set(self.dst, view);
        Ok(())
    }
}

/// A transposed convolution that is defined block by block ([`crate::spec::Blocks`]).
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct BlocksLayer {
    pub src: usize,
    pub dst: usize,
    /// Room for one block, zeros around it, and its full result.
    pub tmp: usize,
    /// Input rows in a block.
    pub rows: usize,
    pub input: usize,
    pub output: usize,
    pub kernel: usize,
    pub stride: usize,
    pub phases: (usize, usize),
    /// Subtracted from the tail that is kept.
    pub state_bias: Option<Slot>,
    /// Four values a channel when the sums are integers: multiplier, lowest, highest, scale.
    pub int8: Option<Slot>,
}

impl BlocksLayer {
    fn reach(&self) -> usize {
        self.kernel.div_ceil(self.stride) - 1
    }

    /// Values of the temporary buffer.
    pub(crate) fn tmp_len(&self) -> usize {
        (self.rows + 2 * self.reach()) * self.input + self.full() * self.output
    }

    /// Rows that a block gives before they are cut to whole strides, rounded up to whole phases.
    fn full(&self) -> usize {
        (self.rows + self.reach()) * self.stride
    }

    pub(crate) fn state_len(&self) -> usize {
        (self.rows - 1) * self.input + (self.kernel - self.stride) * self.output
    }

    pub(crate) fn step(
        &self,
        s: Step<'_>,
        mem: &mut Memory<'_>,
        phases: Table<'_, Option<Phase>>,
    ) -> Result<(), RunError> {
        let (pending, tail) = s
            .state
            .split_at_mut_checked((self.rows - 1) * self.input)
            .ok_or(RunError::Internal("history longer than its state"))?;
        let at = mem.view(self.src);
        let start = recall(mem, at, self.input, pending, s.cursor.rows)?;
        let have = s.cursor.rows + at.rows;
        let (src, dst, tmp) = (mem.room(self.src)?, mem.room(self.dst)?, mem.room(self.tmp)?);
        let [x, y, t] = mem
            .scratch
            .get_disjoint_mut([src.base..src.end(), dst.data()..dst.end(), tmp.data()..tmp.end()])
            .map_err(|_| RunError::Internal("buffers overlap"))?;
        let (block, full) = t
            .split_at_mut_checked((self.rows + 2 * self.reach()) * self.input)
            .ok_or(RunError::Internal("a block does not fit its buffer"))?;
        block.fill(0.0);
        let mut done = 0;
        let mut written = 0;
        while done < have {
            let rows = self.rows.min(have - done);
            if rows < self.rows && !s.finish {
                break;
            }
            let from = src.offset(start)? + done * self.input;
            let inside =
                x.get(from..from + rows * self.input).ok_or(RunError::Internal("a block outside its buffer"))?;
            let lead = self.reach() * self.input;
            let (room, after) = block[lead..].split_at_mut(rows * self.input);
            room.copy_from_slice(inside);
            after.fill(0.0);
            let source = Source { data: block, newest: lead, rows: rows + self.reach(), input: self.input };
            run(phases, s.cx, s.arena, &source, Function::Identity, full, self.stride * self.output)?;
            let result = &mut full[..((rows - 1) * self.stride + self.kernel) * self.output];
            if let Some(slot) = self.int8 {
                requantize(slot.of(s.arena)?, self.output, result);
            }
            for (v, carried) in result.iter_mut().zip(&*tail) {
                *v += carried;
            }
            let (out, rest) = result.split_at(rows * self.stride * self.output);
            y.get_mut(written..written + out.len())
                .ok_or(RunError::Internal("a block outside its output"))?
                .copy_from_slice(out);
            match self.state_bias {
                Some(bias) => {
                    let bias = bias.of(s.arena)?;
                    for (kept, row) in tail.chunks_exact_mut(self.output).zip(rest.chunks_exact(self.output)) {
                        for ((k, v), b) in kept.iter_mut().zip(row).zip(bias) {
                            *k = v - b;
                        }
                    }
                }
                None => tail.copy_from_slice(rest),
            }
            written += out.len();
            done += rows;
        }
        s.cursor.rows = have - done;
        s.cursor.seen = s.cursor.seen.saturating_add(at.rows);
        keep(mem, start + done * self.input, self.input, have - done, pending)?;
        mem.set(self.dst, View { start: dst.data(), rows: written / self.output });
        Ok(())
    }
}

/// Integer sums onto each group's grid and back to real values.
fn requantize(table: &[f32], channels: usize, x: &mut [f32]) {
    let (multiplier, rest) = table.split_at(channels);
    let (low, rest) = rest.split_at(channels);
    let (high, scale) = rest.split_at(channels);
    for row in x.chunks_exact_mut(channels) {
        for (c, v) in row.iter_mut().enumerate() {
            // Not `clamp`, which panics on bounds that an image may have the wrong way round.
            *v = super::pointwise::round_half_even(*v * multiplier[c]).max(low[c]).min(high[c]) * scale[c];
        }
    }
}

//! Convolution over time, exact at any chunking.

use serde::{Deserialize, Serialize};

use super::{Function, Memory, Slot, Step, View, Weight, align, keep, recall};
use crate::{
    RunError,
    kernel::{self, Epilogue, Out, PANEL, Panels, Rows, Start},
};

/// What a windowed layer needs to know of time: how windows lie, and what stands before and after the signal.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Window {
    /// Rows that a window spans, `(kernel - 1) * dilation + 1`.
    pub span: usize,
    pub stride: usize,
    pub left: usize,
    pub right: usize,
    pub pad: Pad,
    /// Pad on the right until the last window is full.
    pub complete: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Pad {
    Zero,
    Reflect,
    Replicate,
}

impl Window {
    /// Rows of padding at the end, at most.
    pub(crate) fn tail(&self) -> usize {
        self.right + if self.complete { self.stride - 1 } else { 0 }
    }

    /// Rows that must be there before the padding on the left is known.
    fn first(&self) -> usize {
        match self.pad {
            _ if self.left == 0 => 0,
            Pad::Zero => 0,
            Pad::Replicate => 1,
            Pad::Reflect => self.left + 1,
        }
    }

    /// Rows that must be kept for the padding at the end.
    fn last(&self) -> usize {
        match self.pad {
            _ if self.tail() == 0 => 0,
            Pad::Zero => 0,
            Pad::Replicate => 1,
            Pad::Reflect => self.tail().max(self.left) + 1,
        }
    }

    /// Rows of history, at most.
    pub(crate) fn history(&self) -> usize {
        (self.span - 1).max(self.last()).max(self.first().saturating_sub(1))
    }

    /// Rows of room before the data.
    pub(crate) fn head(&self) -> usize {
        self.history().max(self.left + self.first().saturating_sub(1))
    }

    /// Output rows of one step that brings `rows` rows, at most.
    pub(crate) fn max_out(&self, rows: usize) -> usize {
        rows.saturating_add(self.head() + self.tail()).saturating_sub(self.span) / self.stride + 1
    }

    /// Lays the padding around the rows of this step and history, and says how many windows are whole.
    pub(crate) fn open(
        &self,
        s: &mut Step<'_>,
        mem: &mut Memory<'_>,
        at: View,
        channels: usize,
    ) -> Result<Opened, RunError> {
        let mut start = recall(mem, at, channels, s.state, s.cursor.rows)?;
        let mut rows = s.cursor.rows + at.rows;
        // Past every padding the exact number no longer matters.
        let seen = s.cursor.seen.saturating_add(at.rows).min(usize::MAX / 4);
        s.cursor.seen = seen;
        if !s.cursor.started {
            if (seen < self.first() && !s.finish) || seen == 0 {
                return Ok(Opened { start, rows, next: 0, windows: 0 });
            }
            start = self.pad_left(mem, start, rows, channels)?;
            rows += self.left;
            s.cursor.next = 0;
            s.cursor.started = true;
        }
        let next = s.cursor.next;
        if s.finish && seen > 0 {
            let mut tail = self.right;
            if self.complete {
                // Windows that start in what is left, counting one that only partly lies in it; where the stride is
                // longer than the window, the next one may start past the end.
                let (have, span, stride) = ((rows + tail) as i64 - next as i64, self.span as i64, self.stride as i64);
                let windows = (have - span + stride - 1).div_euclid(stride) + 1;
                if windows > 0 {
                    tail += usize::try_from((windows - 1) * stride + span - have).unwrap_or(0);
                }
            }
            self.pad_right(mem, start, rows, channels, tail, seen)?;
            rows += tail;
        }
        let have = rows.saturating_sub(next);
        let windows = if have >= self.span { (have - self.span) / self.stride + 1 } else { 0 };
        Ok(Opened { start, rows, next, windows })
    }

    /// Keeps what later windows need.
    pub(crate) fn close(
        &self,
        s: &mut Step<'_>,
        mem: &mut Memory<'_>,
        o: &Opened,
        channels: usize,
    ) -> Result<(), RunError> {
        if s.finish {
            return Ok(());
        }
        let next = o.next + o.windows * self.stride;
        let from = if s.cursor.started { next.min(o.rows.saturating_sub(self.last())).min(o.rows) } else { 0 };
        s.cursor.rows = o.rows - from;
        s.cursor.next = next - from;
        keep(mem, o.start + from * channels, channels, s.cursor.rows, s.state)
    }

    fn pad_left(&self, mem: &mut Memory<'_>, start: usize, rows: usize, channels: usize) -> Result<usize, RunError> {
        let len = self.left * channels;
        let to = start.checked_sub(len).ok_or(RunError::Internal("no room for padding"))?;
        let region = mem.slice(to, len + rows * channels)?;
        let (pad, signal) = region.split_at_mut(len);
        for (i, row) in pad.chunks_exact_mut(channels.max(1)).enumerate() {
            // Distance from the first row of the signal.
            let d = self.left - i;
            let source = match self.pad {
                Pad::Zero => None,
                Pad::Replicate => signal.get(..channels),
                // A signal no longer than the padding counts as extended by zeros.
                Pad::Reflect => signal.get(d * channels..(d + 1) * channels),
            };
            match source {
                Some(source) => row.copy_from_slice(source),
                None => row.fill(0.0),
            }
        }
        Ok(to)
    }

    fn pad_right(
        &self,
        mem: &mut Memory<'_>,
        start: usize,
        rows: usize,
        channels: usize,
        tail: usize,
        seen: usize,
    ) -> Result<(), RunError> {
        let region = mem.slice(start, (rows + tail) * channels)?;
        let (laid, pad) = region.split_at_mut(rows * channels);
        // The signal's last `known` rows end `laid`.
        let known = seen.min(rows);
        let signal = laid.get((rows - known) * channels..).unwrap_or_default();
        // EnCodec's rule for a short signal: as if zeros were appended until it is longer than the padding.
        let extended = seen.max(self.left.max(tail) + 1);
        for (j, row) in pad.chunks_exact_mut(channels.max(1)).enumerate() {
            let source = match self.pad {
                Pad::Zero => None,
                Pad::Replicate => known.checked_sub(1),
                Pad::Reflect => {
                    let index = seen + j;
                    let index = if index < extended { index } else { (2 * (extended - 1)).saturating_sub(index) };
                    if index < seen { (known + index).checked_sub(seen) } else { None }
                }
            };
            match source.and_then(|i| signal.get(i * channels..(i + 1) * channels)) {
                Some(source) => row.copy_from_slice(source),
                None => row.fill(0.0),
            }
        }
        Ok(())
    }
}

/// Rows laid out contiguously for one step.
pub(crate) struct Opened {
    /// Index of the first value laid.
    pub start: usize,
    /// Rows laid.
    pub rows: usize,
    /// Row at which the first window starts.
    pub next: usize,
    /// Whole windows.
    pub windows: usize,
}

/// A planned convolution.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct ConvLayer {
    pub src: usize,
    pub dst: usize,
    /// Added to the result; as wide as `dst`.
    pub residual: Option<usize>,
    pub window: Window,
    pub input: usize,
    pub output: usize,
    pub kernel: usize,
    pub dilation: usize,
    pub groups: usize,
    /// Panels group after group; `[kernel, channels]` of f32 for a depthwise layer.
    pub weight: Weight,
    pub bias: Option<Slot>,
    pub then: Function,
}

impl ConvLayer {
    pub(crate) fn depthwise(&self) -> bool {
        self.groups == self.input && self.groups == self.output && self.groups > 1
    }

    pub(crate) fn step(&self, mut s: Step<'_>, mem: &mut Memory<'_>) -> Result<(), RunError> {
        let opened = self.window.open(&mut s, mem, mem.view(self.src), self.input)?;
        let (src, dst) = (mem.room(self.src)?, mem.room(self.dst)?);
        let windows = opened.windows;
        let residual = match self.residual {
            Some(b) => {
                let at = mem.view(b);
                let r = align(mem, at, self.output, s.skip, &mut s.cursor.skip_rows, windows)?;
                Some(r.start..r.start + windows * self.output)
            }
            None => None,
        };
        if windows > 0 {
            let arena = s.arena;
            let bias = self.bias.map(|b| b.of(arena)).transpose()?;
            let empty = dst.end()..dst.end();
            let [x, y, r] = mem
                .scratch
                .get_disjoint_mut([src.base..src.end(), dst.data()..dst.end(), residual.clone().unwrap_or(empty)])
                .map_err(|_| RunError::Internal("buffers overlap"))?;
            let origin = src.offset(opened.start)? + opened.next * self.input;
            let rows = |depth, offset| Rows {
                data: x,
                origin: origin + offset,
                rows: windows,
                row_stride: self.window.stride * self.input,
                taps: self.kernel,
                tap_stride: (self.dilation * self.input) as isize,
                depth,
            };
            let ok = if self.depthwise() {
                let e = Epilogue {
                    residual: residual.map(|_| (&*r, 0, self.output)),
                    then: self.then.resolve(arena, 0, self.output)?,
                };
                let start = bias.map_or(Start::Zero, Start::Bias);
                let out = Out { data: y, origin: 0, row_stride: self.output };
                kernel::depthwise(s.cx, rows(self.input, 0), self.input, self.weight.slot.of(arena)?, start, e, out)
            } else {
                let (ci, co) = (self.input / self.groups, self.output / self.groups);
                let depth = self.kernel * ci;
                let (weight, panels) = (self.weight.of(arena)?, co.div_ceil(PANEL));
                let mut ok = true;
                for g in 0..self.groups {
                    let e = Epilogue {
                        residual: residual.as_ref().map(|_| (&*r, g * co, self.output)),
                        then: self.then.resolve(arena, g * co, co)?,
                    };
                    let start = bias.and_then(|b| b.get(g * co..(g + 1) * co)).map_or(Start::Zero, Start::Bias);
                    let short = RunError::Internal("a convolution's weights are too short");
                    let data = weight.panels(depth, g * panels..(g + 1) * panels).ok_or(short)?;
                    let out = Out { data: &mut *y, origin: g * co, row_stride: self.output };
                    ok &= kernel::matmul(s.cx, rows(ci, g * ci), Panels { columns: co, depth, data }, start, e, out);
                }
                ok
            };
            if !ok {
                return Err(RunError::Internal("a convolution's slices are too short"));
            }
        }
        self.window.close(&mut s, mem, &opened, self.input)?;
        mem.set(self.dst, View { start: dst.data(), rows: windows });
        Ok(())
    }
}

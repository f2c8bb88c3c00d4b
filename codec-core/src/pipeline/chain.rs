//! A planned chain of layers, and the memory in which it runs.

use alloc::{vec, vec::Vec};

use super::plan::ChainPlan;
use crate::{
    BuildError, RunError,
    kernel::Compute,
    layer::*,
    spec::Layer,
    weights::{Precision, Tensors},
};

/// One layer of a chain with its place in the state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Op {
    pub kind: Kind,
    /// Offsets and lengths in the state: own history, and rows of a sum's other path.
    pub state: (usize, usize),
    pub skip: (usize, usize),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Conv(ConvLayer),
    ConvTranspose(ConvTransposeLayer),
    Blocks(BlocksLayer),
    Map(MapLayer),
    Add(AddLayer),
    Lstm(LstmLayer),
    GroupNorm(GroupNormLayer),
    LayerNorm(LayerNormLayer),
    Attention(AttentionLayer),
    Gather(GatherLayer),
    Trim(TrimLayer),
    PadEnd(PadEndLayer),
    Istft(IstftLayer),
    LogMel(LogMelLayer),
    Noise(NoiseLayer),
}

impl Kind {
    /// Buffers that the layer reads and the one that it writes.
    pub(super) fn buffers(&self) -> ([Option<usize>; 4], usize) {
        let one = |b| [Some(b), None, None, None];
        let two = |a, b| [Some(a), Some(b), None, None];
        match *self {
            Self::Conv(l) => ([Some(l.src), l.residual, None, None], l.dst),
            Self::ConvTranspose(l) => (one(l.src), l.dst),
            Self::Blocks(l) => (two(l.src, l.tmp), l.dst),
            Self::Map(l) => (one(l.src), l.dst),
            Self::Add(l) => (two(l.src, l.dst), l.dst),
            Self::Lstm(l) => (two(l.src, l.tmp), l.dst),
            Self::GroupNorm(l) => (two(l.src, l.tmp), l.src),
            Self::Attention(l) => ([l.query, l.key, l.value, l.tmp].map(Some), l.dst),
            Self::Trim(TrimLayer { src, .. })
            | Self::PadEnd(PadEndLayer { src, .. })
            | Self::Gather(GatherLayer { src, .. })
            | Self::LayerNorm(LayerNormLayer { src, .. }) => (one(src), src),
            Self::Istft(l) => (two(l.src, l.tmp), l.dst),
            Self::LogMel(l) => (two(l.src, l.tmp), l.dst),
            Self::Noise(l) => (two(l.src, l.tmp), l.src),
        }
    }
}

/// A buffer between layers, before its place is known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Buffer {
    pub channels: usize,
    /// Rows of room before and after the data: for a reader's history or padding, and for rows that were kept
    /// back and move the start.
    pub head: usize,
    pub shift: usize,
    pub tail: usize,
    /// Rows, where these do not depend on the step.
    pub fixed: Option<usize>,
}

/// An encoder's or decoder's network, planned and with its weights packed. Immutable: many states, on many
/// threads, can run on one chain.
#[derive(Debug)]
pub struct Chain {
    pub(super) ops: Vec<Op>,
    pub(super) phases: Vec<Option<Phase>>,
    pub(super) buffers: Vec<Buffer>,
    pub(super) arena: crate::kernel::Aligned,
    pub(super) state_len: usize,
    pub(super) input: usize,
    pub(super) output: usize,
    pub(super) last: usize,
    pub(super) plan: ChainPlan,
}

/// What a [`Chain`] remembers of a signal, and the memory in which it works.
#[derive(Debug)]
pub struct ChainState {
    rooms: Vec<Room>,
    views: Vec<View>,
    cursors: Vec<(Cursor, usize)>,
    state: Vec<f32>,
    scratch: crate::kernel::Aligned,
    max_rows: usize,
    started: bool,
    finished: bool,
}

impl Chain {
    /// Plans `layers` on signals of `input` channels and packs their weights.
    ///
    /// # Errors
    /// The spec is inconsistent, or a tensor is missing or of another shape.
    pub fn new(layers: &[Layer], input: usize, tensors: &dyn Tensors) -> Result<Self, BuildError> {
        Self::with_precision(layers, input, tensors, Precision::F32)
    }

    /// As [`Chain::new`], with packed weights in a precision of one's choice. Biases, depthwise weights and the parameters
    /// of norms and activations stay in f32.
    ///
    /// # Errors
    /// As [`Chain::new`]; a weight that the precision cannot hold.
    pub fn with_precision(
        layers: &[Layer],
        input: usize,
        tensors: &dyn Tensors,
        precision: Precision,
    ) -> Result<Self, BuildError> {
        super::build::build(layers, input, tensors, precision)
    }

    /// Channels of the input.
    pub fn input_channels(&self) -> usize {
        self.input
    }

    /// Channels of the output.
    pub fn output_channels(&self) -> usize {
        self.output
    }

    /// Sizes, delays and costs.
    pub fn plan(&self) -> &ChainPlan {
        &self.plan
    }

    /// Rows that one step of `max_rows` rows can give, at most.
    pub fn max_output_rows(&self, max_rows: usize) -> usize {
        self.flow(max_rows).get(self.last).copied().unwrap_or(0)
    }

    /// Memory for a signal that arrives in steps of at most `max_rows` rows; see [`Chain::memory`] for how much. If that is
    /// more than can be addressed, the state takes no row at all.
    pub fn state(&self, max_rows: usize) -> ChainState {
        let ((rooms, len), max_rows) = self.layout(max_rows).map_or_else(Default::default, |l| (l, max_rows));
        ChainState {
            views: vec![View::default(); rooms.len()],
            rooms,
            cursors: vec![(Cursor::default(), 0); self.ops.len()],
            state: vec![0.0; self.state_len],
            scratch: crate::kernel::Aligned::zeroed(len),
            max_rows,
            started: false,
            finished: false,
        }
    }

    /// Bytes of state that a signal carries from step to step, and bytes of scratch memory for steps of at
    /// most `max_rows` rows; `usize::MAX` where these cannot be addressed.
    pub fn memory(&self, max_rows: usize) -> (usize, usize) {
        let scratch = self.layout(max_rows).map_or(usize::MAX, |(_, len)| len.saturating_mul(size_of::<f32>()));
        (self.state_len.saturating_mul(size_of::<f32>()), scratch)
    }

    /// Rows of each buffer, at most, when a step brings `max_rows`.
    fn flow(&self, max_rows: usize) -> Vec<usize> {
        let mut rows: Vec<usize> = self.buffers.iter().map(|b| b.fixed.unwrap_or(0)).collect();
        if let Some(first) = rows.first_mut() {
            *first = max_rows;
        }
        for op in &self.ops {
            let of = |b: usize| rows.get(b).copied().unwrap_or(0);
            let (dst, n) = match op.kind {
                Kind::Conv(l) => (l.dst, l.window.max_out(of(l.src))),
                Kind::ConvTranspose(l) => (l.dst, l.window.max_out(of(l.src)).saturating_mul(l.stride)),
                Kind::Blocks(l) => (l.dst, of(l.src).saturating_add(l.rows - 1).saturating_mul(l.stride)),
                Kind::Map(l) => (l.dst, of(l.src)),
                Kind::Add(l) => (l.dst, of(l.dst).saturating_add(op.skip.1 / l.width.max(1))),
                Kind::Lstm(l) => (l.dst, of(l.src)),
                Kind::GroupNorm(l) => (l.src, of(l.src)),
                Kind::Trim(l) => (l.src, of(l.src).saturating_add(l.right)),
                Kind::PadEnd(l) => (l.src, of(l.src).saturating_add(l.multiple - 1)),
                Kind::LayerNorm(l) => (l.src, of(l.src)),
                Kind::Attention(l) => (l.dst, of(l.query)),
                Kind::Gather(l) => (l.src, of(l.src).saturating_add(l.block - 1)),
                Kind::Istft(l) => (l.dst, of(l.src).saturating_mul(l.hop).saturating_add(l.cut())),
                Kind::LogMel(l) => (l.dst, l.frames.max_out(of(l.src))),
                Kind::Noise(l) => (l.tmp, of(l.src)),
            };
            if let Some(r) = rows.get_mut(dst) {
                *r = n.max(*r);
            }
            let tmp = match op.kind {
                Kind::Lstm(l) => Some((l.tmp, n)),
                Kind::Attention(l) => Some((l.tmp, l.tmp_len(n))),
                _ => None,
            };
            if let Some((tmp, n)) = tmp
                && let Some(r) = rows.get_mut(tmp)
            {
                *r = n;
            }
        }
        rows
    }

    /// Places every buffer so that those alive at the same time do not overlap; `None` where that is more than can be
    /// addressed.
    fn layout(&self, max_rows: usize) -> Option<(Vec<Room>, usize)> {
        const ALIGN: usize = 16;
        const MOST: usize = isize::MAX as usize / size_of::<f32>() - ALIGN;
        let rows = self.flow(max_rows);
        let mut life = vec![(usize::MAX, 0usize); self.buffers.len()];
        let mut touch = |b: usize, at: usize| {
            if let Some((first, last)) = life.get_mut(b) {
                *first = (*first).min(at);
                *last = (*last).max(at);
            }
        };
        touch(0, 0);
        touch(self.last, self.ops.len() + 1);
        for (i, op) in self.ops.iter().enumerate() {
            let (reads, writes) = op.kind.buffers();
            reads.into_iter().flatten().for_each(|b| touch(b, i + 1));
            touch(writes, i + 1);
        }
        let mut rooms = vec![Room::default(); self.buffers.len()];
        let mut order: Vec<usize> = (0..rooms.len()).collect();
        order.sort_by_key(|&b| life[b].0);
        let mut placed: Vec<usize> = Vec::new();
        let mut total = 0usize;
        for b in order {
            let Buffer { channels, head, shift, tail, .. } = self.buffers[b];
            let head = head.saturating_add(shift);
            let room = Room { base: 0, channels, head, rows: rows[b].saturating_add(tail) };
            let len = head.saturating_add(room.rows).saturating_mul(channels);
            if len > MOST {
                return None;
            }
            let len = len.next_multiple_of(ALIGN);
            let mut busy: Vec<(usize, usize)> = placed
                .iter()
                .filter(|&&p| life[p].0 <= life[b].1 && life[b].0 <= life[p].1)
                .map(|&p| (rooms[p].base, rooms[p].end().next_multiple_of(ALIGN)))
                .collect();
            busy.sort_unstable();
            let mut base = 0;
            for (from, to) in busy {
                if base + len <= from {
                    break;
                }
                base = base.max(to);
            }
            rooms[b] = Room { base, ..room };
            total = total.max(base.saturating_add(len));
            if total > MOST {
                return None;
            }
            placed.push(b);
        }
        Some((rooms, total))
    }

    /// Runs one step: new rows in (`[rows, input_channels]`), finished rows out (`[rows, output_channels]`).
    /// `finish` ends the signal: everything that was held back comes out.
    ///
    /// # Errors
    /// More rows than the state was made for, rows after the end, or, for a chain that needs the whole
    /// signal, more than one step.
    pub fn step<'s>(
        &self,
        cx: Compute<'_>,
        state: &'s mut ChainState,
        input: &[f32],
        finish: bool,
    ) -> Result<&'s [f32], RunError> {
        let rows = input.len() / self.input;
        if state.finished {
            return Err(RunError::Finished);
        }
        if rows > state.max_rows || state.rooms.is_empty() || (self.plan.whole.is_some() && (state.started || !finish))
        {
            return Err(RunError::TooLong { planned: state.max_rows });
        }
        state.started = true;
        state.finished = finish;
        let mut mem = Memory { rooms: &state.rooms, views: &mut state.views, scratch: state.scratch.as_mut() };
        let first = View { start: mem.room(0)?.data(), rows };
        mem.slice(first.start, rows * self.input)?.copy_from_slice(&input[..rows * self.input]);
        mem.set(0, first);
        for (op, (cursor, skip_rows)) in self.ops.iter().zip(&mut state.cursors) {
            let outside = RunError::Internal("state outside its memory");
            let [own, skip] = state
                .state
                .get_disjoint_mut([op.state.0..op.state.0 + op.state.1, op.skip.0..op.skip.0 + op.skip.1])
                .map_err(|_| outside)?;
            let step = Step { cx, arena: self.arena.as_ref(), state: own, cursor, skip, skip_rows, finish };
            let phases = |(first, count): (usize, usize)| self.phases.get(first..first + count).unwrap_or_default();
            match op.kind {
                Kind::Conv(l) => l.step(step, &mut mem)?,
                Kind::ConvTranspose(l) => l.step(step, &mut mem, phases(l.phases))?,
                Kind::Blocks(l) => l.step(step, &mut mem, phases(l.phases))?,
                Kind::Map(l) => l.step(&step, &mut mem)?,
                Kind::Add(l) => l.step(step, &mut mem)?,
                Kind::Lstm(l) => l.step(step, &mut mem)?,
                Kind::GroupNorm(l) => l.step(step, &mut mem)?,
                Kind::Trim(l) => l.step(step, &mut mem)?,
                Kind::PadEnd(l) => l.step(step, &mut mem)?,
                Kind::LayerNorm(l) => l.step(&step, &mut mem)?,
                Kind::Attention(l) => l.step(step, &mut mem)?,
                Kind::Gather(l) => l.step(step, &mut mem)?,
                Kind::Istft(l) => l.step(step, &mut mem)?,
                Kind::LogMel(l) => l.step(step, &mut mem)?,
                Kind::Noise(l) => l.step(step, &mut mem)?,
            }
        }
        let out = mem.view(self.last);
        state
            .scratch
            .as_ref()
            .get(out.start..out.start + out.rows * self.output)
            .ok_or(RunError::Internal("output outside the scratch memory"))
    }
}

impl ChainState {
    /// Forgets the signal: the next step starts a new one.
    pub fn reset(&mut self) {
        self.cursors.fill((Cursor::default(), 0));
        self.state.fill(0.0);
        self.started = false;
        self.finished = false;
    }

    /// Rows that a step may bring.
    pub fn max_rows(&self) -> usize {
        self.max_rows
    }

    /// As if so many rows had gone by, and been forgotten.
    #[cfg(test)]
    pub(super) fn jump(&mut self, rows: u64) {
        self.cursors.iter_mut().for_each(|(cursor, _)| cursor.position = rows);
    }
}

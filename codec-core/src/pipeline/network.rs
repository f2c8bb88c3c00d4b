//! A planned chain of layers, borrowed, and a step of it on a block of memory.

use serde::{Deserialize, Serialize};

use super::memory::{self, part, sum, take};
use crate::{RunError, kernel::Compute, layer::*, table::Table};

/// One layer of a chain with its place in the state.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Op {
    pub kind: Kind,
    /// Offsets and lengths in the state: own history, and rows of a sum's other path.
    pub state: (usize, usize),
    pub skip: (usize, usize),
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Kind {
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
    Stft(StftLayer),
}

impl Kind {
    /// The buffer that the layer writes.
    pub(crate) fn output(&self) -> usize {
        match self {
            Self::Conv(ConvLayer { dst, .. })
            | Self::ConvTranspose(ConvTransposeLayer { dst, .. })
            | Self::Blocks(BlocksLayer { dst, .. })
            | Self::Map(MapLayer { dst, .. })
            | Self::Add(AddLayer { dst, .. })
            | Self::Lstm(LstmLayer { dst, .. })
            | Self::Attention(AttentionLayer { dst, .. })
            | Self::Istft(IstftLayer { dst, .. })
            | Self::LogMel(LogMelLayer { dst, .. })
            | Self::Stft(StftLayer { dst, .. }) => *dst,
            Self::GroupNorm(GroupNormLayer { src, .. })
            | Self::Trim(TrimLayer { src, .. })
            | Self::PadEnd(PadEndLayer { src, .. })
            | Self::Gather(GatherLayer { src, .. })
            | Self::LayerNorm(LayerNormLayer { src, .. })
            | Self::Noise(NoiseLayer { src, .. }) => *src,
        }
    }
}

/// A buffer between layers, before its place is known.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Buffer {
    pub channels: usize,
    /// Rows of room before and after the data: for a reader's history or padding, and for rows that were kept
    /// back and move the start.
    pub head: usize,
    pub shift: usize,
    pub tail: usize,
    /// Rows, where these do not depend on the step.
    pub fixed: Option<usize>,
}

/// Where the buffers of a chain lie for steps of a certain size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout<'a> {
    pub rooms: Table<'a, Room>,
    /// Values of scratch memory.
    pub scratch: usize,
    /// Input rows of a step, at most.
    pub max_rows: usize,
    /// Output rows that such a step gives, at most.
    pub output_rows: usize,
}

/// A planned chain with its packed weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Network<'a> {
    pub ops: Table<'a, Op>,
    pub phases: Table<'a, Option<Phase>>,
    pub buffers: Table<'a, Buffer>,
    pub arena: &'a [f32],
    /// Values that are kept between steps.
    pub state_len: usize,
    /// Channels in and out.
    pub input: usize,
    pub output: usize,
    /// The buffer that holds the output.
    pub last: usize,
    /// Whether a signal must come in one step.
    pub whole: bool,
}

/// Words at the start of a chain's block.
const HEAD: usize = 16;
/// "chain" in the first of them.
const MAGIC: usize = 0x6368_6169;

/// A chain's block, taken apart.
struct Parts<'m> {
    head: &'m mut [usize],
    rooms: &'m [RoomWords],
    views: &'m mut [ViewWords],
    cursors: &'m mut [CursorWords],
    state: &'m mut [f32],
    scratch: &'m mut [f32],
}

fn parts(mut block: &mut [u8]) -> Result<Parts<'_>, RunError> {
    let head = take::<usize>(&mut block, HEAD)?;
    let &mut [MAGIC, rooms, cursors, state, scratch, ..] = head else { return Err(RunError::Uninitialized) };
    Ok(Parts {
        head,
        rooms: take(&mut block, rooms)?,
        views: take(&mut block, rooms)?,
        cursors: take(&mut block, cursors)?,
        state: take(&mut block, state)?,
        scratch: take(&mut block, scratch)?,
    })
}

impl<'a> Network<'a> {
    /// Bytes of a block for steps of that size; `None` if it cannot be addressed.
    pub(crate) fn state_bytes(&self, layout: &Layout<'_>) -> Option<usize> {
        let rooms = layout.rooms.len();
        sum(&[
            part(HEAD, size_of::<usize>()),
            part(rooms, size_of::<RoomWords>()),
            part(rooms, size_of::<ViewWords>()),
            part(self.ops.len(), size_of::<CursorWords>()),
            part(self.state_len, size_of::<f32>()),
            part(layout.scratch, size_of::<f32>()),
        ])
    }

    /// Makes a block of at least [`Network::state_bytes`] bytes hold the state before the first sample.
    pub(crate) fn init(&self, layout: &Layout<'_>, block: &mut [u8]) -> Result<(), RunError> {
        let needed = memory::check(block, self.state_bytes(layout))?;
        let block = block.get_mut(..needed).unwrap_or_default();
        block.fill(0);
        let head = [MAGIC, layout.rooms.len(), self.ops.len(), self.state_len, layout.scratch, layout.max_rows];
        take::<usize>(&mut &mut *block, HEAD)?[..head.len()].copy_from_slice(&head);
        let mut rest = block;
        take::<usize>(&mut rest, HEAD)?;
        let rooms = take::<RoomWords>(&mut rest, layout.rooms.len())?;
        rooms.iter_mut().zip(layout.rooms.iter()).for_each(|(words, room)| *words = room.into());
        Ok(())
    }

    /// Forgets the signal.
    pub(crate) fn reset(block: &mut [u8]) -> Result<(), RunError> {
        let parts = parts(block)?;
        parts.cursors.fill(Cursor::default().into());
        parts.state.fill(0.0);
        // Started and finished.
        parts.head[6..8].fill(0);
        Ok(())
    }

    /// Whether the signal has ended.
    pub(crate) fn is_finished(block: &mut [u8]) -> Result<bool, RunError> {
        Ok(parts(block)?.head[7] != 0)
    }

    /// Seed of the noise layers, in place of the spec's.
    pub(crate) fn set_noise_seed(block: &mut [u8], seed: Option<u64>) -> Result<(), RunError> {
        let low = seed.unwrap_or(0) & 0xffff_ffff;
        let high = seed.unwrap_or(0) >> 32;
        parts(block)?.head[8..11].copy_from_slice(&[seed.is_some().into(), low as usize, high as usize]);
        Ok(())
    }

    /// As if so many rows had gone by, and been forgotten.
    #[cfg(test)]
    pub(super) fn jump(block: &mut [u8], rows: u64) {
        for words in parts(block).unwrap().cursors {
            *words = Cursor { position: rows, ..(*words).into() }.into();
        }
    }

    /// Rows of each buffer, at most, when a step brings `max_rows`: the last word of each entry.
    pub(crate) fn flow<const N: usize>(&self, max_rows: usize, rows: &mut [[usize; N]]) {
        let get = |rows: &[[usize; N]], b: usize| rows.get(b).and_then(|r| r.last()).copied().unwrap_or(0);
        fn set<const N: usize>(rows: &mut [[usize; N]], b: usize, n: usize) {
            if let Some(r) = rows.get_mut(b).and_then(|r| r.last_mut()) {
                *r = n;
            }
        }
        for (b, buffer) in self.buffers.iter().enumerate() {
            set(rows, b, buffer.fixed.unwrap_or(0));
        }
        set(rows, 0, max_rows);
        for op in self.ops.iter() {
            let of = |b: usize| get(rows, b);
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
                Kind::Stft(l) => (l.dst, l.frames.max_out(of(l.src))),
                Kind::Noise(l) => (l.tmp, of(l.src)),
            };
            let before = of(dst);
            set(rows, dst, n.max(before));
            match op.kind {
                Kind::Lstm(l) => set(rows, l.tmp, n),
                Kind::Attention(l) => set(rows, l.tmp, l.tmp_len(n)),
                _ => {}
            }
        }
    }

    /// Output rows of a step of `rows` rows on this block, at most.
    pub(crate) fn max_output_rows(&self, block: &mut [u8], rows: usize) -> Result<usize, RunError> {
        // Views say where rows lie during a step only: between steps their room is free.
        let views = parts(block)?.views;
        self.flow(rows, views);
        Ok(views.get(self.last).map_or(0, |v| v[1]))
    }

    /// Runs one step: new rows in (`[rows, input]`), finished rows out (`[rows, output]`).
    pub(crate) fn step<'m>(
        &self,
        cx: Compute<'_>,
        block: &'m mut [u8],
        input: &[f32],
        finish: bool,
    ) -> Result<&'m [f32], RunError> {
        self.step_watched(cx, block, input, finish, &mut |_, _| {})
    }

    /// As [`Network::step`]; `watch` sees the rows that each op made.
    pub(crate) fn step_watched<'m>(
        &self,
        cx: Compute<'_>,
        block: &'m mut [u8],
        input: &[f32],
        finish: bool,
        watch: &mut impl FnMut(usize, &[f32]),
    ) -> Result<&'m [f32], RunError> {
        let Parts { head, rooms, views, cursors, state, scratch } = parts(block)?;
        let &mut [_, _, ops, state_len, _, planned, ref mut started, ref mut finished, seeded, low, high, ..] = head
        else {
            return Err(RunError::Uninitialized);
        };
        let noise_seed = (seeded != 0).then_some(low as u64 | (high as u64) << 32);
        // A block without rooms is one for more than can be addressed.
        if !rooms.is_empty()
            && (ops != self.ops.len() || state_len != self.state_len || rooms.len() != self.buffers.len())
        {
            return Err(RunError::Uninitialized);
        }
        if !input.len().is_multiple_of(self.input) {
            return Err(RunError::PartialRow { values: input.len(), channels: self.input });
        }
        let rows = input.len() / self.input;
        if *finished != 0 {
            return Err(RunError::Finished);
        }
        if rows > planned || rooms.is_empty() || (self.whole && (*started != 0 || !finish)) {
            return Err(RunError::TooLong { planned });
        }
        *started = 1;
        *finished = finish.into();
        let mut mem = Memory { rooms, views, scratch };
        let first = View { start: mem.room(0)?.data(), rows };
        mem.slice(first.start, input.len())?.copy_from_slice(input);
        mem.set(0, first);
        for (index, (op, words)) in self.ops.iter().zip(cursors).enumerate() {
            let outside = RunError::Internal("state outside its memory");
            let [own, skip] = state
                .get_disjoint_mut([op.state.0..op.state.0 + op.state.1, op.skip.0..op.skip.0 + op.skip.1])
                .map_err(|_| outside)?;
            let mut cursor = Cursor::from(*words);
            let step = Step { cx, arena: self.arena, state: own, cursor: &mut cursor, skip, finish, noise_seed };
            let phases = |(first, count): (usize, usize)| self.phases.range(first, first + count);
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
                Kind::Stft(l) => l.step(step, &mut mem)?,
                Kind::Noise(l) => l.step(step, &mut mem)?,
            }
            *words = cursor.into();
            let made = op.kind.output();
            let (view, channels) = (mem.view(made), mem.room(made)?.channels);
            watch(index, mem.slice(view.start, view.rows * channels)?);
        }
        let out = mem.view(self.last);
        let outside = RunError::Internal("output outside the scratch memory");
        mem.scratch.get(out.start..).and_then(|rest| rest.get(..out.rows * self.output)).ok_or(outside)
    }
}

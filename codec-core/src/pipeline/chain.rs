//! A planned chain of layers, and the memory in which it runs.

use alloc::{vec, vec::Vec};

use super::{
    network::{Buffer, Kind, Layout, Network, Op},
    plan::ChainPlan,
};
use crate::{
    BuildError, RunError,
    kernel::{Aligned, Arena, Compute},
    layer::*,
    spec::Layer,
    table::Table,
    weights::{Precision, Tensors},
};

impl Kind {
    /// Buffers that the layer reads.
    fn inputs(&self) -> [Option<usize>; 4] {
        let one = |b| [Some(b), None, None, None];
        let two = |a, b| [Some(a), Some(b), None, None];
        match *self {
            Self::Conv(l) => [Some(l.src), l.residual, None, None],
            Self::ConvTranspose(l) => one(l.src),
            Self::Blocks(l) => two(l.src, l.tmp),
            Self::Map(l) => one(l.src),
            Self::Add(l) => two(l.src, l.dst),
            Self::Lstm(l) => two(l.src, l.tmp),
            Self::GroupNorm(l) => two(l.src, l.tmp),
            Self::Attention(l) => [l.query, l.key, l.value, l.tmp].map(Some),
            Self::Trim(TrimLayer { src, .. })
            | Self::PadEnd(PadEndLayer { src, .. })
            | Self::Gather(GatherLayer { src, .. })
            | Self::LayerNorm(LayerNormLayer { src, .. }) => one(src),
            Self::Istft(l) => two(l.src, l.tmp),
            Self::LogMel(l) => two(l.src, l.tmp),
            Self::Stft(l) => two(l.src, l.tmp),
            Self::Noise(l) => two(l.src, l.tmp),
        }
    }
}

/// An encoder's or decoder's network, planned and with its weights packed. Immutable: many states, on many
/// threads, can run on one chain.
#[derive(Debug)]
pub struct Chain {
    pub(super) ops: Vec<Op>,
    pub(super) phases: Vec<Option<Phase>>,
    pub(super) buffers: Vec<Buffer>,
    pub(super) arena: Arena,
    pub(super) state_len: usize,
    pub(super) input: usize,
    pub(super) output: usize,
    pub(super) last: usize,
    pub(super) plan: ChainPlan,
}

/// What a [`Chain`] remembers of a signal, and the memory in which it works.
#[derive(Debug)]
pub struct ChainState {
    memory: Aligned,
    max_rows: usize,
}

/// The buffers of a chain, placed.
pub(crate) struct Placed {
    pub rooms: Vec<Room>,
    pub scratch: usize,
    pub max_rows: usize,
    pub output_rows: usize,
}

impl Placed {
    pub(crate) fn layout(&self) -> Layout<'_> {
        let Self { scratch, max_rows, output_rows, .. } = *self;
        Layout { rooms: Table::Built(&self.rooms), scratch, max_rows, output_rows }
    }
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

    /// A chain that was planned before.
    pub(crate) fn from_network(network: &Network<'_>, arena: Arena, plan: ChainPlan) -> Self {
        Self {
            ops: network.ops.iter().collect(),
            phases: network.phases.iter().collect(),
            buffers: network.buffers.iter().collect(),
            arena,
            state_len: network.state_len,
            input: network.input,
            output: network.output,
            last: network.last,
            plan,
        }
    }

    /// Channels of the input.
    pub fn input_channels(&self) -> usize {
        self.input
    }

    /// Channels of the output.
    pub fn output_channels(&self) -> usize {
        self.output
    }

    /// Whether a layer adds noise where it has a seed ([`ChainState::set_noise_seed`]).
    pub fn has_noise(&self) -> bool {
        self.ops.iter().any(|op| matches!(op.kind, Kind::Noise(_)))
    }

    /// Sizes, delays and costs.
    pub fn plan(&self) -> &ChainPlan {
        &self.plan
    }

    /// Rows that one step of `max_rows` rows can give, at most.
    pub fn max_output_rows(&self, max_rows: usize) -> usize {
        self.flow(max_rows).get(self.last).map_or(0, |r| r[0])
    }

    pub(crate) fn network(&self) -> Network<'_> {
        Network {
            ops: Table::Built(&self.ops),
            phases: Table::Built(&self.phases),
            buffers: Table::Built(&self.buffers),
            arena: self.arena.as_ref(),
            state_len: self.state_len,
            input: self.input,
            output: self.output,
            last: self.last,
            whole: self.plan.whole.is_some(),
        }
    }

    /// Memory for a signal that arrives in steps of at most `max_rows` rows; see [`Chain::memory`] for how much. If that is
    /// more than can be addressed, the state takes no row at all.
    pub fn state(&self, max_rows: usize) -> ChainState {
        let nothing = Placed { rooms: Vec::new(), scratch: 0, max_rows: 0, output_rows: 0 };
        let placed = self.placed(max_rows).unwrap_or(nothing);
        let (network, layout) = (self.network(), placed.layout());
        let bytes = network.state_bytes(&layout).unwrap_or(0);
        let mut state = ChainState { memory: Aligned::zeroed(bytes / size_of::<f32>()), max_rows: placed.max_rows };
        // It is as long as it was asked to be.
        let _ = network.init(&layout, state.block());
        state
    }

    /// Bytes of state that a signal carries from step to step, and bytes of scratch memory for steps of at
    /// most `max_rows` rows; `usize::MAX` where these cannot be addressed.
    pub fn memory(&self, max_rows: usize) -> (usize, usize) {
        let scratch = self.placed(max_rows).map_or(usize::MAX, |p| p.scratch.saturating_mul(size_of::<f32>()));
        (self.state_len.saturating_mul(size_of::<f32>()), scratch)
    }

    /// Rows of each buffer, at most, when a step brings `max_rows`.
    fn flow(&self, max_rows: usize) -> Vec<[usize; 1]> {
        let mut rows = vec![[0]; self.buffers.len()];
        self.network().flow(max_rows, &mut rows);
        rows
    }

    /// Places every buffer so that those alive at the same time do not overlap; `None` where that is more than can be
    /// addressed.
    pub(crate) fn placed(&self, max_rows: usize) -> Option<Placed> {
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
            op.kind.inputs().into_iter().flatten().for_each(|b| touch(b, i + 1));
            touch(op.kind.output(), i + 1);
        }
        let mut rooms = vec![Room::default(); self.buffers.len()];
        let mut order: Vec<usize> = (0..rooms.len()).collect();
        order.sort_by_key(|&b| life[b].0);
        let mut placed: Vec<usize> = Vec::new();
        let mut total = 0usize;
        for b in order {
            let Buffer { channels, head, shift, tail, .. } = self.buffers[b];
            let head = head.saturating_add(shift);
            let room = Room { base: 0, channels, head, rows: rows[b][0].saturating_add(tail) };
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
        let output_rows = rows.get(self.last).map_or(0, |r| r[0]);
        Some(Placed { rooms, scratch: total, max_rows, output_rows })
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
        self.network().step(cx, state.block(), input, finish)
    }

    /// As [`Chain::step`]; `watch` is shown the rows that each planned step made, with the step's number. Steps are numbered
    /// as in [`LayerPlan::first_step`](super::LayerPlan::first_step).
    ///
    /// # Errors
    /// As [`Chain::step`].
    pub fn step_watched<'s>(
        &self,
        cx: Compute<'_>,
        state: &'s mut ChainState,
        input: &[f32],
        finish: bool,
        mut watch: impl FnMut(usize, &[f32]),
    ) -> Result<&'s [f32], RunError> {
        self.network().step_watched(cx, state.block(), input, finish, &mut watch)
    }
}

impl ChainState {
    fn block(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(self.memory.as_mut())
    }

    /// Forgets the signal: the next step starts a new one.
    pub fn reset(&mut self) {
        // The block is one that `Chain::state` made.
        let _ = Network::reset(self.block());
    }

    /// Seed of the noise layers ([`crate::spec::Noise`]) for this signal and those after a reset; `None` for the spec's,
    /// which may be none. To be set before the first step.
    pub fn set_noise_seed(&mut self, seed: Option<u64>) {
        // The block is one that `Chain::state` made.
        let _ = Network::set_noise_seed(self.block(), seed);
    }

    /// Rows that a step may bring.
    pub fn max_rows(&self) -> usize {
        self.max_rows
    }

    /// As if so many rows had gone by, and been forgotten.
    #[cfg(test)]
    pub(super) fn jump(&mut self, rows: u64) {
        Network::jump(self.block(), rows);
    }
}

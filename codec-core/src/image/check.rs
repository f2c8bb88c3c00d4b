//! That the numbers of an image agree with each other, so that a step can go by them. A checksum guards against damage;
//! this guards against bytes made up with a right checksum: whatever they hold, a step ends, with an error at worst.

use crate::{
    kernel::panel_len,
    layer::*,
    pipeline::network::{Kind, Layout, Network, Op},
    quantizer::{self, Program},
};

/// Sizes past this are nonsense, and products of a few of them could overflow.
const BIG: usize = 1 << 24;
/// As in a planned model.
const MOST_OPS: usize = 1 << 13;

fn hold(condition: bool) -> Option<()> {
    condition.then_some(())
}

/// Sizes from 1 to [`BIG`].
fn sizes<const N: usize>(values: [usize; N]) -> Option<()> {
    hold(values.iter().all(|v| (1..=BIG).contains(v)))
}

/// Sizes from 0 to [`BIG`].
fn perhaps_none<const N: usize>(values: [usize; N]) -> Option<()> {
    hold(values.iter().all(|v| *v <= BIG))
}

fn within(start: usize, len: usize, total: usize) -> Option<()> {
    hold(start.checked_add(len)? <= total)
}

struct Checker<'a> {
    network: &'a Network<'a>,
    layout: &'a Layout<'a>,
}

impl Checker<'_> {
    fn buffers<const N: usize>(&self, buffers: [usize; N]) -> Option<()> {
        hold(buffers.iter().all(|b| *b < self.network.buffers.len()))
    }

    /// A buffer with room for `len` values or more.
    fn room(&self, buffer: usize, len: usize) -> Option<()> {
        let room = self.layout.rooms.get(buffer)?;
        hold(room.rows.checked_mul(room.channels)? >= len)
    }

    /// A slot of `len` values or more in the arena.
    fn slot(&self, slot: Slot, len: usize) -> Option<()> {
        within(slot.offset, slot.len, self.network.arena.len())?;
        hold(slot.len >= len)
    }

    /// Packed weights; a step refuses those that are too short for it.
    fn weight(&self, weight: Weight) -> Option<()> {
        weight.scales.map_or(Some(()), |s| self.slot(s, 0))?;
        self.slot(weight.slot, 0)
    }

    fn slots<const N: usize>(&self, slots: [(Slot, usize); N]) -> Option<()> {
        slots.into_iter().try_for_each(|(slot, len)| self.slot(slot, len))
    }

    fn function(&self, function: Function) -> Option<()> {
        match function {
            Function::Snake { alpha, inverse } => self.slots([(alpha, 0), (inverse, 0)]),
            Function::Multiply(slot) | Function::Requantize { multiplier: slot, .. } => self.slot(slot, 0),
            _ => Some(()),
        }
    }

    fn window(&self, w: &Window) -> Option<()> {
        sizes([w.span, w.stride])?;
        perhaps_none([w.left, w.right])
    }

    fn phases(&self, (first, count): (usize, usize), width: usize, input: usize) -> Option<()> {
        within(first, count, self.network.phases.len())?;
        for phase in self.network.phases.range(first, first + count).iter().flatten() {
            sizes([phase.columns, phase.taps, phase.channels])?;
            within(phase.column, phase.columns, width)?;
            within(phase.channel, phase.channels, input)?;
            self.weight(phase.weight)?;
            phase.bias.map_or(Some(()), |b| self.slot(b, phase.columns))?;
        }
        Some(())
    }

    fn op(&self, op: &Op) -> Option<()> {
        within(op.state.0, op.state.1, self.network.state_len)?;
        within(op.skip.0, op.skip.1, self.network.state_len)?;
        match &op.kind {
            Kind::Conv(l) => {
                self.buffers([l.src, l.dst, l.residual.unwrap_or(0)])?;
                sizes([l.input, l.output, l.kernel, l.dilation, l.groups])?;
                hold(l.input % l.groups == 0 && l.output % l.groups == 0)?;
                self.window(&l.window)?;
                self.weight(l.weight)?;
                l.bias.map_or(Some(()), |b| self.slot(b, l.output))?;
                self.function(l.then)
            }
            Kind::ConvTranspose(l) => {
                self.buffers([l.src, l.dst])?;
                sizes([l.input, l.output, l.stride])?;
                perhaps_none([l.drop_left, l.drop_right])?;
                self.window(&l.window)?;
                self.phases(l.phases, l.stride * l.output, l.input)?;
                self.function(l.then)
            }
            Kind::Blocks(l) => {
                self.buffers([l.src, l.dst, l.tmp])?;
                sizes([l.rows, l.input, l.output, l.kernel, l.stride])?;
                hold(l.kernel >= l.stride && op.state.1 == l.state_len())?;
                self.room(l.tmp, l.tmp_len())?;
                self.phases(l.phases, l.stride * l.output, l.input)?;
                l.state_bias.map_or(Some(()), |b| self.slot(b, l.output))?;
                l.int8.map_or(Some(()), |b| self.slot(b, 4 * l.output))
            }
            Kind::Map(l) => {
                self.buffers([l.src, l.dst])?;
                sizes([l.channels])?;
                self.function(l.function)
            }
            Kind::Add(l) => {
                self.buffers([l.src, l.dst])?;
                sizes([l.channels, l.width])?;
                l.fixed.map_or(Some(()), |f| hold((1..=62).contains(&f.shift) && f.low <= f.high))
            }
            Kind::Lstm(l) => {
                self.buffers([l.src, l.dst, l.tmp])?;
                sizes([l.input, l.hidden, l.width])?;
                within(l.column, l.hidden, l.width)?;
                hold(op.state.1 == 2 * l.hidden)?;
                self.weight(l.weight_input)?;
                self.weight(l.weight_hidden)?;
                self.slot(l.bias, 4 * l.hidden)
            }
            Kind::GroupNorm(l) => {
                self.buffers([l.src, l.tmp])?;
                sizes([l.channels, l.groups])?;
                self.slots([(l.weight, l.channels), (l.bias, l.channels)])
            }
            Kind::LayerNorm(l) => {
                self.buffers([l.src])?;
                self.slots([(l.weight, 1), (l.bias, l.weight.len)])
            }
            Kind::Attention(l) => {
                self.buffers([l.query, l.key, l.value, l.dst, l.tmp])?;
                sizes([l.heads, l.dim])?;
                match l.reach {
                    Reach::Window(n) | Reach::Block(n) => sizes([n])?,
                    Reach::Whole { .. } => {}
                }
                hold(op.state.1 >= l.state_len())?;
                l.rotary.map_or(Some(()), |r| {
                    hold(l.dim % 2 == 0)?;
                    self.slot(r.slot(), 2 * l.dim)
                })
            }
            Kind::Gather(l) => {
                self.buffers([l.src])?;
                sizes([l.channels, l.block])
            }
            Kind::Trim(l) => {
                self.buffers([l.src])?;
                sizes([l.channels])?;
                perhaps_none([l.left, l.right])
            }
            Kind::PadEnd(l) => {
                self.buffers([l.src])?;
                sizes([l.channels, l.multiple])
            }
            Kind::Istft(l) => {
                self.buffers([l.src, l.dst, l.tmp])?;
                sizes([l.n_fft, l.hop])?;
                hold(l.hop <= l.n_fft && op.state.1 == 2 * l.overlap())?;
                self.slots([(l.table, 0), (l.window, l.n_fft)])
            }
            Kind::LogMel(l) => {
                self.buffers([l.src, l.dst, l.tmp])?;
                sizes([l.mels])?;
                self.window(&l.frames)?;
                self.weight(l.filters)?;
                self.slots([(l.table, 0), (l.window, l.frames.span)])
            }
            Kind::Stft(l) => {
                self.buffers([l.src, l.dst, l.tmp])?;
                self.window(&l.frames)?;
                self.room(l.tmp, l.tmp_len())?;
                self.slots([(l.table, 0), (l.window, l.frames.span)])
            }
            Kind::Noise(l) => {
                self.buffers([l.src, l.tmp])?;
                sizes([l.channels])?;
                self.weight(l.weight)
            }
        }
    }
}

/// Whether a step of the network stays in its memory.
pub(super) fn network(network: &Network<'_>, layout: &Layout<'_>) -> Option<()> {
    let (ops, buffers) = (network.ops.len(), network.buffers.len());
    hold(ops <= MOST_OPS && buffers <= MOST_OPS && network.phases.len() <= BIG)?;
    hold(network.last < buffers && layout.rooms.len() == buffers)?;
    sizes([network.input, network.output, layout.max_rows])?;
    hold(network.state_len <= isize::MAX as usize && layout.output_rows <= isize::MAX as usize)?;
    for i in 0..buffers {
        let (room, buffer) = (layout.rooms.get(i)?, network.buffers.get(i)?);
        sizes([room.channels])?;
        perhaps_none([room.head, room.rows])?;
        let values = room.head.checked_add(room.rows)?.checked_mul(room.channels)?;
        within(room.base, values, layout.scratch)?;
        hold(buffer.channels == room.channels && buffer.fixed.unwrap_or(0) <= BIG)?;
    }
    hold(network.buffers.get(0)?.channels == network.input)?;
    hold(network.buffers.get(network.last)?.channels == network.output)?;
    (0..network.phases.len()).try_for_each(|i| network.phases.get(i).map(|_| ()))?;
    let checker = Checker { network, layout };
    (0..ops).try_for_each(|i| checker.op(&network.ops.get(i)?))
}

/// Whether a quantizer's tables are as long as it goes by.
pub(super) fn quantizer(q: &Program<'_>) -> Option<()> {
    sizes([q.dim, q.rows, q.sizes.len()])?;
    hold(q.spaces.len() <= MOST_OPS && q.chains.len() <= MOST_OPS && q.steps.len() <= MOST_OPS)?;
    hold(q.sizes.iter().all(|size| (1..=1 << 16).contains(size)))?;
    // Every chain belongs to one space and every step to one chain, in their order.
    let (mut chains, mut steps) = (0, 0);
    for i in 0..q.spaces.len() {
        let space = q.spaces.get(i)?;
        within(space.column, space.outer, q.dim)?;
        sizes([space.outer, space.width])?;
        let (start, end) = (space.chains.start, space.chains.end);
        hold(start == chains && start <= end && end <= q.chains.len())?;
        chains = end;
        hold(space.project_in.is_some() || space.outer == space.width)?;
        hold(space.project_out.is_some() || space.outer == space.width || !q.can_decode)?;
        let projections = [(space.project_in, space.outer, space.width), (space.project_out, space.width, space.outer)];
        projections
            .into_iter()
            .try_for_each(|(p, input, output)| p.map_or(Some(()), |d| dense(q, d, input, output)))?;
        for c in start..end {
            let chain = q.chains.get(c)?;
            within(chain.column, chain.width, space.width)?;
            let (start, end) = (chain.steps.start, chain.steps.end);
            hold(start == steps && start < end && end <= q.steps.len())?;
            steps = end;
            for s in start..end {
                let step = q.steps.get(s)?;
                sizes([step.width, step.inner, step.codes, step.stride, step.times])?;
                within(step.column, step.width, chain.column + chain.width)?;
                hold(step.column >= chain.column)?;
                within(step.code, step.codes.checked_mul(step.times)?, q.sizes.len())?;
                hold(step.stride.checked_mul(step.times)? == q.rows)?;
                hold(step.project_in.is_some() || step.inner == step.width)?;
                hold(step.project_out.is_some() || step.inner == step.width || !step.decodes)?;
                let projections =
                    [(step.project_in, step.width, step.inner), (step.project_out, step.inner, step.width)];
                projections
                    .into_iter()
                    .try_for_each(|(p, input, output)| p.map_or(Some(()), |d| dense(q, d, input, output)))?;
                hold(step.decodes || (end - start == 1 && !q.can_decode))?;
                let sizes = q.sizes.get(step.code..step.end())?;
                quantizer::check_kind(&step, sizes, q.data)?;
            }
        }
    }
    hold(chains == q.chains.len() && steps == q.steps.len())
}

fn dense(q: &Program<'_>, d: quantizer::Dense, input: usize, output: usize) -> Option<()> {
    hold(d.input == input && d.output == output)?;
    within(d.panels, panel_len(output, input), q.data.len())?;
    d.bias.map_or(Some(()), |at| within(at, output, q.data.len()))
}

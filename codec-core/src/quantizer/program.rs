//! The flat form of a quantizer and its run.

use serde::{Deserialize, Serialize};

use super::beam;
use super::fsq::Fsq;
use super::lfq::Lfq;
use super::mvq::Mvq;
use super::random::Random;
use super::rows::{Dense, Matrix, Run, take};
use super::vq::Book;
use crate::RunError;
use crate::kernel::Compute;
use crate::spec::ResidualRounding;
use crate::table::Table;

/// Frames that are worked on at once: enough for the matrix kernel, little enough for the cache.
const BLOCK: usize = 64;
/// Frames whose merged codes are one.
pub(super) const MERGED_FRAMES: usize = 2;

/// A range of the next table.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Span {
    pub start: usize,
    pub end: usize,
}

/// Columns of the latent, perhaps projected, that chains work in. Spaces may share columns of the latent;
/// each then quantises the latent itself, and what they decode adds up.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Space {
    /// First column of the latent.
    pub column: usize,
    /// Columns of the latent.
    pub outer: usize,
    /// Columns inside.
    pub width: usize,
    pub project_in: Option<Dense>,
    pub project_out: Option<Dense>,
    pub chains: Span,
}

/// Columns of a space that share a residual, and the steps that take from it, in order.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Chain {
    /// First column of the space.
    pub column: usize,
    pub width: usize,
    pub steps: Span,
}

/// One elementary quantizer.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Step {
    /// First column of the space.
    pub column: usize,
    pub width: usize,
    /// Channels after `project_in`.
    pub inner: usize,
    pub project_in: Option<Dense>,
    pub project_out: Option<Dense>,
    /// How the residual is rounded after this step.
    pub rounding: ResidualRounding,
    /// Index of its first code in a frame.
    pub code: usize,
    /// Codes that it makes at a time.
    pub codes: usize,
    /// Rows of the latent that it quantises as one, their average.
    pub stride: usize,
    /// Times that it makes its codes in a frame.
    pub times: usize,
    /// Whether its codes have a way back to its columns.
    pub decodes: bool,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Kind {
    Vq(Vq),
    Fsq(Fsq),
    Lfq(Lfq),
    Random(Random),
    Mvq(Mvq),
}

/// A codebook as a step.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Vq {
    /// What the published search goes by.
    pub search: Book,
    /// The entries as stored, scored by how near the *decoded* (projected) entry is to the residual. The
    /// residual meets them through `back`.
    pub entries: Book,
    /// The transpose of `project_out`, less its bias.
    pub back: Option<Dense>,
}

/// Where a step's codes lie in a frame.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// The first.
    code: usize,
    /// Codes at a time, and times in a frame.
    codes: usize,
    times: usize,
}

impl Place {
    /// Frame, and index in it, of a code of one of the step's rows.
    fn of(&self, row: usize, index: usize) -> (usize, usize) {
        (row / self.times, self.code + row % self.times * self.codes + index)
    }
}

/// Codes of a step, written by row. Those past the codebooks in use are dropped.
pub(crate) struct CodesMut<'a> {
    pub data: &'a mut [u16],
    /// Codes of a frame.
    pub count: usize,
    pub place: Place,
    /// Neighbouring rows that share their codes; at the end of the signal there may be fewer.
    pub shared: usize,
}

impl CodesMut<'_> {
    pub fn set(&mut self, row: usize, index: usize, code: usize) {
        for row in row * self.shared..(row + 1) * self.shared {
            let (frame, index) = self.place.of(row, index);
            if index < self.count
                && let Some(to) = self.data.get_mut(frame * self.count + index)
            {
                *to = code as u16;
            }
        }
    }
}

/// Codes of a step, read by row.
#[derive(Clone, Copy)]
pub(crate) struct CodesRef<'a> {
    pub data: &'a [u16],
    /// The first codebook there.
    pub first: usize,
    /// Codes of a frame.
    pub count: usize,
    pub place: Place,
}

impl CodesRef<'_> {
    /// `None` where the codebook is not in use.
    pub fn get(&self, row: usize, index: usize) -> Option<usize> {
        let (frame, index) = self.place.of(row, index);
        let index = index.checked_sub(self.first).filter(|i| *i < self.count)?;
        Some(usize::from(self.data[frame * self.count + index]))
    }
}

impl Step {
    fn in_use(&self, first: usize, count: usize) -> bool {
        self.code < first + count && first < self.end()
    }

    /// Index of the code after its last in a frame.
    pub fn end(&self) -> usize {
        self.code + self.codes * self.times
    }

    fn place(&self) -> Place {
        Place { code: self.code, codes: self.codes, times: self.times }
    }

    /// `[rows, inner]`: the columns, projected.
    fn enter(&self, run: Run<'_>, x: Matrix<'_>, inner: &mut [f32]) -> Result<(), RunError> {
        match self.project_in {
            Some(dense) => dense.apply(run, x, inner),
            None => {
                x.copy_to(inner);
                Ok(())
            }
        }
    }

    fn scratch_len(&self, rows: usize) -> usize {
        match &self.kind {
            Kind::Vq(vq) => vq.search.scratch_len(rows),
            Kind::Fsq(_) | Kind::Lfq(_) => 0,
            Kind::Random(random) => random.scratch_len(rows),
            Kind::Mvq(mvq) => mvq.scratch_len(rows),
        }
    }

    /// Codes of `inner`, which is used up.
    fn encode(
        &self,
        run: Run<'_>,
        inner: &mut [f32],
        scratch: &mut [f32],
        codes: &mut CodesMut<'_>,
    ) -> Result<(), RunError> {
        match &self.kind {
            Kind::Vq(vq) => vq.search.search(run, inner, scratch, |t, entry| codes.set(t, 0, entry)),
            Kind::Fsq(fsq) => {
                fsq.encode(run, inner, codes);
                Ok(())
            }
            Kind::Lfq(lfq) => {
                lfq.encode(inner, codes);
                Ok(())
            }
            Kind::Random(random) => random.encode(run, inner, scratch, codes),
            Kind::Mvq(mvq) => mvq.encode(run, inner, scratch, codes),
        }
    }

    /// Codes to `outer`, `[rows, width]`, by way of `inner`.
    fn decode(&self, run: Run<'_>, codes: CodesRef<'_>, inner: &mut [f32], outer: &mut [f32]) -> Result<(), RunError> {
        let rows = outer.len() / self.width;
        match &self.kind {
            Kind::Vq(vq) => {
                for (t, row) in inner.chunks_exact_mut(self.inner).enumerate() {
                    if let Some(code) = codes.get(t, 0) {
                        vq.entries.fold_entry(run.data, code, row, |_, e| e);
                    }
                }
            }
            Kind::Fsq(fsq) => fsq.decode(run, codes, inner),
            Kind::Lfq(lfq) => lfq.decode(codes, inner),
            Kind::Mvq(mvq) => mvq.decode(run, codes, inner),
            Kind::Random(_) => return Err(RunError::Unsupported("a random projection has no inverse")),
        }
        self.leave(run, inner, rows, outer)
    }

    /// `outer`, `[rows, width]`: what was decoded, projected back.
    pub fn leave(&self, run: Run<'_>, inner: &[f32], rows: usize, outer: &mut [f32]) -> Result<(), RunError> {
        match self.project_out {
            Some(dense) => dense.apply(run, Matrix::contiguous(inner, rows, self.inner), outer),
            None => {
                outer.copy_from_slice(inner);
                Ok(())
            }
        }
    }

    /// Takes `entry` off a row of residual.
    pub fn subtract(&self, residual: &mut [f32], entry: &[f32]) {
        let pairs = residual.iter_mut().zip(entry);
        match self.rounding {
            ResidualRounding::Plain => pairs.for_each(|(r, e)| *r -= e),
            ResidualRounding::StraightThrough => pairs.for_each(|(r, e)| *r -= *r + (e - *r)),
        }
    }
}

/// A built quantizer, borrowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Program<'a> {
    pub dim: usize,
    /// Rows of the latent in a frame.
    pub rows: usize,
    pub can_decode: bool,
    pub spaces: Table<'a, Space>,
    pub chains: Table<'a, Chain>,
    pub steps: Table<'a, Step>,
    /// Entries of each codebook, in the order of a frame's codes.
    pub sizes: &'a [u32],
    pub data: &'a [f32],
}

/// How scratch memory is shared out for a block.
struct Layout {
    space: usize,
    inner: usize,
    outer: usize,
    rest: usize,
}

impl<'a> Program<'a> {
    /// Frames that are worked on at once.
    fn block(&self, frames: usize, beam: usize) -> usize {
        // Even, so that no pair of frames is torn.
        frames.min((BLOCK / beam / self.rows).max(2) & !1).max(1)
    }

    fn layout(&self, rows: usize, beam: usize) -> Layout {
        let most = |values: &mut dyn Iterator<Item = usize>| values.max().unwrap_or(0);
        let beams = match beam {
            1 => 0,
            _ => most(&mut self.chains.iter().map(|chain| beam::scratch_len(self.chain_steps(&chain), rows, beam))),
        };
        Layout {
            space: rows * most(&mut self.spaces.iter().map(|s| s.width)),
            inner: rows * most(&mut self.steps.iter().map(|s| s.inner)),
            outer: rows * most(&mut self.steps.iter().map(|s| s.width).chain(self.spaces.iter().map(|s| s.outer))),
            rest: most(&mut self.steps.iter().map(|s| s.scratch_len(rows))).max(beams),
        }
    }

    pub fn scratch_len(&self, frames: usize, beam: usize) -> usize {
        let Layout { space, inner, outer, rest } = self.layout(self.block(frames, beam) * self.rows, beam);
        space + inner + outer + rest
    }

    fn chain_steps(&self, chain: &Chain) -> Table<'a, Step> {
        self.steps.range(chain.steps.start, chain.steps.end)
    }

    fn space_chains(&self, space: &Space) -> Table<'a, Chain> {
        self.chains.range(space.chains.start, space.chains.end)
    }

    fn space_in_use(&self, space: &Space, first: usize, count: usize) -> bool {
        self.space_chains(space).iter().any(|c| self.chain_steps(&c).iter().any(|s| s.in_use(first, count)))
    }

    /// `latents` is whole frames, and every buffer is long enough.
    #[expect(clippy::too_many_arguments, reason = "what to code, how, and where to")]
    pub fn encode(
        &self,
        cx: Compute<'_>,
        latents: &[f32],
        codebooks: usize,
        beam: usize,
        merged: usize,
        codes: &mut [u16],
        scratch: &mut [f32],
    ) -> Result<(), RunError> {
        let run = Run { cx, data: self.data };
        let frame = self.rows * self.dim;
        let block = self.block(latents.len() / frame, beam);
        for (x, codes) in latents.chunks(block * frame).zip(codes.chunks_mut(block * codebooks)) {
            let rows = x.len() / self.dim;
            let codes = &mut codes[..x.len() / frame * codebooks];
            let layout = self.layout(rows, beam);
            let mut rest = &mut scratch[..];
            let residual = take(&mut rest, layout.space);
            let work = take(&mut rest, layout.inner + layout.outer + layout.rest);
            for space in self.spaces.iter().filter(|s| self.space_in_use(s, 0, codebooks)) {
                let space = &space;
                let residual = &mut residual[..rows * space.width];
                let columns = Matrix { data: x, origin: space.column, stride: self.dim, rows, width: space.outer };
                match space.project_in {
                    Some(dense) => dense.apply(run, columns, residual)?,
                    None => columns.copy_to(residual),
                }
                for chain in self.space_chains(space).iter() {
                    self.encode_chain(run, space, &chain, &layout, residual, codebooks, beam, merged, codes, work)?;
                }
            }
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn encode_chain(
        &self,
        run: Run<'_>,
        space: &Space,
        chain: &Chain,
        layout: &Layout,
        residual: &mut [f32],
        codebooks: usize,
        beam: usize,
        merged: usize,
        codes: &mut [u16],
        mut work: &mut [f32],
    ) -> Result<(), RunError> {
        let rows = residual.len() / space.width;
        let inner = take(&mut work, layout.inner);
        let outer = take(&mut work, layout.outer);
        let steps = self.chain_steps(chain);
        let searched = beam > 1 && beam::applies(steps);
        let (steps, _) = steps.split_at(steps.partition_point(|s| s.in_use(0, codebooks)));
        let (shared, own) = steps.split_at(steps.partition_point(|s| s.end() <= merged));
        for (i, step) in steps.iter().enumerate() {
            if searched && i == shared.len() {
                // The beam starts from what the merged books left.
                let (origin, stride, width) = (chain.column, space.width, chain.width);
                beam::begin(Matrix { data: residual, origin, stride, rows, width }, &mut *work);
            }
            let together = if i < shared.len() { MERGED_FRAMES } else { 1 };
            let averaged = step.stride * together;
            let times = rows.div_ceil(averaged);
            let entered = &mut inner[..times * step.inner];
            let x = Matrix { data: residual, origin: step.column, stride: space.width, rows, width: step.width };
            if averaged == 1 {
                step.enter(run, x, entered)?;
            } else {
                let means = &mut outer[..times * step.width];
                average(x, averaged, means);
                step.enter(run, Matrix::contiguous(means, times, step.width), entered)?;
            }
            // The beam keeps its start where a search has its scores.
            let held = searched && i >= shared.len();
            let scores = if held { beam::after_start(&mut *work, rows, chain.width) } else { &mut *work };
            let place = step.place();
            let mut made = CodesMut { data: codes, count: codebooks, place, shared: together };
            step.encode(run, entered, scores, &mut made)?;
            if i + 1 < steps.len() || held {
                let inner = &mut inner[..rows / step.stride * step.inner];
                let outer = &mut outer[..rows / step.stride * step.width];
                step.decode(run, CodesRef { data: codes, first: 0, count: codebooks, place }, inner, outer)?;
                let same = residual.chunks_exact_mut(step.stride * space.width);
                for (rows, entry) in same.zip(outer.chunks_exact(step.width)) {
                    for row in rows.chunks_exact_mut(space.width) {
                        step.subtract(&mut row[step.column..][..step.width], entry);
                    }
                }
            }
        }
        if searched && !own.is_empty() {
            let end = Matrix { data: residual, origin: chain.column, stride: space.width, rows, width: chain.width };
            beam::improve(run, own, chain, beam, end, codes, codebooks, work)?;
        }
        Ok(())
    }

    /// Codes are in range, and every buffer is long enough.
    #[allow(clippy::too_many_arguments)]
    pub fn decode(
        &self,
        cx: Compute<'_>,
        codes: &[u16],
        frames: usize,
        first: usize,
        count: usize,
        out: &mut [f32],
        scratch: &mut [f32],
    ) -> Result<(), RunError> {
        let run = Run { cx, data: self.data };
        let block = self.block(frames, 1);
        let out = &mut out[..frames * self.rows * self.dim];
        for (y, codes) in out.chunks_mut(block * self.rows * self.dim).zip(codes.chunks(block * count)) {
            let rows = y.len() / self.dim;
            let layout = self.layout(rows, 1);
            let mut rest = &mut scratch[..];
            let sum = take(&mut rest, layout.space);
            let inner = take(&mut rest, layout.inner);
            let outer = take(&mut rest, layout.outer);
            y.fill(0.0);
            for space in self.spaces.iter().filter(|s| self.space_in_use(s, first, count)) {
                let sum = &mut sum[..rows * space.width];
                sum.fill(0.0);
                for step in self.space_chains(&space).iter().flat_map(|chain| self.chain_steps(&chain).iter()) {
                    if !step.in_use(first, count) {
                        continue;
                    }
                    let outer = &mut outer[..rows / step.stride * step.width];
                    let inner = &mut inner[..rows / step.stride * step.inner];
                    step.decode(run, CodesRef { data: codes, first, count, place: step.place() }, inner, outer)?;
                    add(sum, space.width, step.column, outer, step.width, step.stride);
                }
                match space.project_out {
                    Some(dense) => {
                        let outer = &mut outer[..rows * space.outer];
                        dense.apply(run, Matrix::contiguous(sum, rows, space.width), outer)?;
                        add(y, self.dim, space.column, outer, space.outer, 1);
                    }
                    None => add(y, self.dim, space.column, sum, space.width, 1),
                }
            }
        }
        Ok(())
    }
}

/// Adds rows of `width`, each `times` times, to the columns from `column` on of rows of `stride`.
fn add(to: &mut [f32], stride: usize, column: usize, x: &[f32], width: usize, times: usize) {
    for (to, x) in to.chunks_exact_mut(times * stride).zip(x.chunks_exact(width)) {
        for to in to.chunks_exact_mut(stride) {
            to[column..].iter_mut().zip(x).for_each(|(to, x)| *to += x);
        }
    }
}

/// The averages of every `count` neighbouring rows, `[rows / count, width]`, of the last ones that there are.
fn average(x: Matrix<'_>, count: usize, out: &mut [f32]) {
    for (i, out) in out.chunks_exact_mut(x.width).enumerate() {
        let end = ((i + 1) * count).min(x.rows);
        out.copy_from_slice(x.row(i * count));
        for t in i * count + 1..end {
            out.iter_mut().zip(x.row(t)).for_each(|(sum, v)| *sum += v);
        }
        out.iter_mut().for_each(|sum| *sum /= (end - i * count) as f32);
    }
}

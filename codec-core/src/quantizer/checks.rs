//! What is checked before a quantizer runs.

use super::fsq;
use super::program::Kind;
use super::rows::Dense;
use super::vq::Book;
use super::{MAX_BEAM, Program, Step};
use crate::RunError;
use crate::kernel::{Compute, panel_len};

impl Program<'_> {
    /// [`Quantizer::encode_merged`](super::Quantizer::encode_merged).
    #[allow(clippy::too_many_arguments)]
    pub fn encode_merged(
        &self,
        cx: Compute<'_>,
        latents: &[f32],
        codebooks: usize,
        beam: usize,
        merged: usize,
        codes: &mut [u16],
        scratch: &mut [f32],
    ) -> Result<(), RunError> {
        self.check_codebooks(0, codebooks)?;
        self.check_merged(merged, codebooks)?;
        let frame = self.rows * self.dim;
        let frames = latents.len() / frame;
        let whole = latents.len().div_ceil(frame).saturating_mul(frame);
        hold(whole, latents.len())?;
        hold(frames.saturating_mul(codebooks), codes.len())?;
        hold(self.scratch_len(frames, beam.clamp(1, MAX_BEAM)), scratch.len())?;
        self.encode(cx, latents, codebooks, beam.clamp(1, MAX_BEAM), merged, codes, scratch)
    }

    /// [`Quantizer::decode_range`](super::Quantizer::decode_range).
    #[allow(clippy::too_many_arguments)]
    pub fn decode_range(
        &self,
        cx: Compute<'_>,
        codes: &[u16],
        frames: usize,
        first: usize,
        count: usize,
        out: &mut [f32],
        scratch: &mut [f32],
    ) -> Result<(), RunError> {
        if !self.can_decode {
            return Err(RunError::Unsupported("this quantizer only makes codes: it has no way back to a latent"));
        }
        self.check_codebooks(first, count)?;
        hold(frames.saturating_mul(count), codes.len())?;
        hold(frames.saturating_mul(self.rows * self.dim), out.len())?;
        hold(self.scratch_len(frames, 1), scratch.len())?;
        for (frame, row) in codes.chunks_exact(count).take(frames).enumerate() {
            for (i, (&code, &size)) in row.iter().zip(self.sizes.get(first..).unwrap_or_default()).enumerate() {
                if u32::from(code) >= size {
                    return Err(RunError::CodeOutOfRange { frame, codebook: first + i, code, size });
                }
            }
        }
        self.decode(cx, codes, frames, first, count, out, scratch)
    }

    pub fn check_merged(&self, merged: usize, codebooks: usize) -> Result<(), RunError> {
        if merged == 0 {
            return Ok(());
        }
        if merged > codebooks {
            return Err(RunError::Codebooks { asked: merged, available: codebooks });
        }
        if self.rows > 1 {
            return Err(RunError::Unsupported("codebooks of several rates cannot be merged: the first ones are slow"));
        }
        match self.steps.iter().find(|s| s.code < merged && merged < s.end()) {
            Some(step) => Err(RunError::Level { asked: merged, first: step.code, end: step.end() }),
            None => Ok(()),
        }
    }

    pub fn check_codebooks(&self, first: usize, count: usize) -> Result<(), RunError> {
        let available = self.sizes.len();
        let end = first.saturating_add(count);
        if count == 0 || end > available {
            return Err(RunError::Codebooks { asked: if count == 0 { 0 } else { end }, available });
        }
        for code in [first, end] {
            let cut = |s: &Step| s.times > 1 && s.code < code && code < s.end();
            if let Some(step) = self.steps.iter().find(cut) {
                return Err(RunError::Level { asked: code, first: step.code, end: step.end() });
            }
        }
        Ok(())
    }
}

fn hold(needed: usize, got: usize) -> Result<(), RunError> {
    if got < needed { Err(RunError::BufferTooShort { needed, got }) } else { Ok(()) }
}

/// Whether a step's kind fits the step, its codebooks' sizes and the tables; all other numbers of the step are sound.
pub(crate) fn check_kind(step: &Step, sizes: &[u32], data: &[f32]) -> Option<()> {
    let hold = |condition: bool| condition.then_some(());
    let room = |at: usize, len: usize| hold(at.checked_add(len)? <= data.len());
    let book = |b: &Book, books: usize, dim: usize| {
        hold(b.dim == dim && (1..=1 << 16).contains(&b.size))?;
        room(b.panels, panel_len(b.size, dim).checked_mul(books)?)?;
        room(b.bias, b.size.checked_mul(books)?)?;
        b.rows.map_or(Some(()), |at| room(at, b.size.checked_mul(dim)?.checked_mul(books)?))
    };
    let dense = |d: &Dense, input: usize, output: usize| {
        hold(d.input == input && d.output == output)?;
        room(d.panels, panel_len(output, input))?;
        d.bias.map_or(Some(()), |at| room(at, output))
    };
    let all = |most: usize| hold(sizes.iter().all(|size| *size as usize <= most));
    match &step.kind {
        Kind::Vq(vq) => {
            hold(step.codes == 1 && vq.entries.size == vq.search.size)?;
            book(&vq.search, 1, step.inner)?;
            book(&vq.entries, 1, step.inner)?;
            vq.back.map_or(Some(()), |back| dense(&back, step.width, step.inner))?;
            all(vq.entries.size)
        }
        Kind::Fsq(fsq) => {
            hold(fsq.channels == step.inner && fsq.stages == step.codes)?;
            room(fsq.parameters, fsq.channels.checked_mul(fsq::PARAMETERS)?)
        }
        Kind::Lfq(lfq) => {
            hold((1..=16).contains(&lfq.bits) && lfq.codebooks == step.codes)?;
            hold(lfq.bits.checked_mul(lfq.codebooks)? == step.inner)?;
            all(1 << lfq.bits)
        }
        Kind::Random(random) => {
            hold(step.codes == 1 && !step.decodes)?;
            dense(&random.projection, step.inner, random.book.dim)?;
            book(&random.book, 1, random.book.dim)?;
            all(random.book.size)
        }
        Kind::Mvq(mvq) => {
            hold(mvq.codebooks == step.codes && mvq.codebooks.is_power_of_two())?;
            hold(mvq.logits.size == mvq.centers.size && mvq.refinements <= 1000)?;
            book(&mvq.logits, mvq.codebooks, step.inner)?;
            book(&mvq.centers, mvq.codebooks, step.inner)?;
            all(mvq.centers.size)
        }
    }
}

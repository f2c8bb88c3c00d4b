//! A quantizer that owns its tables.

use alloc::vec::Vec;

use super::{Chain, MAX_BEAM, Program, Space, Step, build};
use crate::kernel::{Arena, Compute};
use crate::table::Table;
use crate::{BuildError, RunError, spec, weights};

/// A quantizer with its codebooks, ready to run.
#[derive(Debug)]
pub struct Quantizer {
    pub(super) dim: usize,
    pub(super) rows: usize,
    pub(super) can_decode: bool,
    pub(super) spaces: Vec<Space>,
    pub(super) chains: Vec<Chain>,
    pub(super) steps: Vec<Step>,
    pub(super) sizes: Vec<u32>,
    pub(super) data: Arena,
}

impl Quantizer {
    /// Builds a quantizer from what it is and its tensors.
    ///
    /// # Errors
    /// [`BuildError::Spec`] where sizes contradict each other, are zero, or pass the limits (65536 channels,
    /// 65536 entries a codebook, 4096 codebooks); [`BuildError::MissingTensor`] and
    /// [`BuildError::TensorMismatch`] where the tensors are not those of the spec.
    pub fn new(spec: &spec::Quantizer, tensors: &dyn weights::Tensors) -> Result<Self, BuildError> {
        build::build(spec, tensors)
    }

    /// A quantizer that was built before.
    pub(crate) fn from_program(program: &Program<'_>, data: Arena) -> Self {
        Self {
            dim: program.dim,
            rows: program.rows,
            can_decode: program.can_decode,
            spaces: program.spaces.iter().collect(),
            chains: program.chains.iter().collect(),
            steps: program.steps.iter().collect(),
            sizes: program.sizes.to_vec(),
            data,
        }
    }

    pub(crate) fn program(&self) -> Program<'_> {
        Program {
            dim: self.dim,
            rows: self.rows,
            can_decode: self.can_decode,
            spaces: Table::Built(&self.spaces),
            chains: Table::Built(&self.chains),
            steps: Table::Built(&self.steps),
            sizes: &self.sizes,
            data: self.data.as_ref(),
        }
    }

    /// Channels of a latent.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Rows of the latent in a frame: 1, but in a multi-rate quantizer ([`spec::Quantizer::Rated`]) its largest stride.
    pub fn rows_per_frame(&self) -> usize {
        self.rows
    }

    /// Codes of a frame when all codebooks are used. A codebook that is used several times in a frame counts as often.
    pub fn codebooks(&self) -> usize {
        self.sizes.len()
    }

    /// The levels of a frame's `count` codes from `first` on, in the order of the codes; the ends are rounded outwards
    /// to whole levels.
    pub fn levels(&self, first: usize, count: usize) -> Vec<Level> {
        let mut steps: Vec<&Step> = self.steps.iter().collect();
        steps.sort_by_key(|s| s.code);
        let mut rates: Vec<usize> = steps.iter().map(|s| s.times).collect();
        rates.sort_unstable();
        rates.dedup();
        let end = first.saturating_add(count);
        let mut levels: Vec<Level> = Vec::new();
        let mut book = 0;
        for step in steps {
            // Codes of a step that comes once may be cut.
            let cut = if step.times == 1 { step.code.max(first)..step.end().min(end) } else { step.code..step.end() };
            let skipped = cut.start - step.code;
            let (first_book, books) = (book + skipped, cut.len() / step.times);
            book += step.codes;
            if cut.is_empty() || step.code >= end || step.end() <= first {
                continue;
            }
            let size = self.sizes.get(step.code).copied().unwrap_or(0);
            let rate = rates.partition_point(|&r| r < step.times);
            match levels.last_mut() {
                Some(last) if last.steps == 1 && step.times == 1 && last.size == size => last.books += books,
                _ => levels.push(Level { rate, first_book, books, steps: step.times, size }),
            }
        }
        levels
    }

    /// Entries of each codebook, in the order of a frame's codes.
    pub fn sizes(&self) -> &[u32] {
        &self.sizes
    }

    /// Bits of a frame's first `codebooks` codes, each in the fewest whole bits that hold its codebook.
    pub fn bits_per_frame(&self, codebooks: usize) -> u32 {
        self.sizes.iter().take(codebooks).map(|&size| size.saturating_sub(1).checked_ilog2().map_or(0, |b| b + 1)).sum()
    }

    /// Whether codes have a way back to a latent: random projections have none, nor has what was projected to
    /// fewer channels and not back.
    pub fn can_decode(&self) -> bool {
        self.can_decode
    }

    /// Values of scratch memory that a call on `frames` frames needs, encoding with this beam or decoding.
    /// It stops growing with `frames`: long inputs are worked off in blocks.
    pub fn scratch_len(&self, frames: usize, beam: usize) -> usize {
        self.program().scratch_len(frames, beam.clamp(1, MAX_BEAM))
    }

    /// Latents `[frames * rows_per_frame, dim]` to codes `[frames, codebooks]`, frame by frame.
    ///
    /// `codebooks` below [`Quantizer::codebooks`] gives the first codes of each frame.
    ///
    /// `beam` is how many partial codings are kept from stage to stage. 1 is the published, greedy search; a
    /// wider one (up to [`MAX_BEAM`]) never leaves a larger squared error, measured where the residual lives,
    /// and any decoder reads its codes. It applies to codebooks of one rate that are searched one after the other, and
    /// changes nothing in other quantizers.
    ///
    /// NaN and infinite latents give some code that is in range.
    ///
    /// # Errors
    /// [`RunError::Codebooks`] for none or too many, [`RunError::Level`] for a part of a level;
    /// [`RunError::BufferTooShort`] where `latents` is not a whole number of frames, or `codes` or `scratch` are too short. Nothing is written then.
    pub fn encode(
        &self,
        cx: Compute<'_>,
        latents: &[f32],
        codebooks: usize,
        beam: usize,
        codes: &mut [u16],
        scratch: &mut [f32],
    ) -> Result<(), RunError> {
        self.encode_merged(cx, latents, codebooks, beam, 0, codes, scratch)
    }

    /// As [`Quantizer::encode`], the first `merged` codebooks at half the rate: the residual that they quantise is
    /// averaged over frames 0 and 1, 2 and 3, …, and the codes of such a pair are the same. A last frame without a partner
    /// is coded by itself. Later codebooks quantise what is left of each frame. Codes decode as ever. A beam searches the books that
    /// are not merged.
    ///
    /// This is the codec-merging of VALL-E R (Han et al. 2024, arXiv 2406.07855, "Codec-merging approach": average
    /// pooling before the quantizer of a layer and repetition after it, without training), with a merging rate of 2.
    ///
    /// # Errors
    /// As [`Quantizer::encode`] and [`Quantizer::check_merged`].
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
        self.program().encode_merged(cx, latents, codebooks, beam, merged, codes, scratch)
    }

    /// The first `codebooks` codes of each frame, `[frames, codebooks]`, to latents `[frames * rows_per_frame, dim]`.
    ///
    /// # Errors
    /// As [`Quantizer::decode_range`].
    pub fn decode(
        &self,
        cx: Compute<'_>,
        codes: &[u16],
        frames: usize,
        codebooks: usize,
        out: &mut [f32],
        scratch: &mut [f32],
    ) -> Result<(), RunError> {
        self.decode_range(cx, codes, frames, 0, codebooks, out, scratch)
    }

    /// The codes of `count` codebooks from `first` on, `[frames, count]`, to what those codebooks add to the
    /// latents, `[frames * rows_per_frame, dim]`.
    ///
    /// # Errors
    /// [`RunError::Unsupported`] if there is no way back; [`RunError::Codebooks`] for none or too many;
    /// [`RunError::Level`] for a part of a level; [`RunError::BufferTooShort`]; [`RunError::CodeOutOfRange`]. Nothing is written then.
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
        self.program().decode_range(cx, codes, frames, first, count, out, scratch)
    }

    /// Whether the first `merged` of `codebooks` codebooks can be merged ([`Quantizer::encode_merged`]).
    ///
    /// # Errors
    /// [`RunError::Codebooks`] if they are more than there are; [`RunError::Level`] where one quantizer makes several
    /// codes at a time and only some of them would be merged; [`RunError::Unsupported`] for a quantizer of several rates.
    pub fn check_merged(&self, merged: usize, codebooks: usize) -> Result<(), RunError> {
        self.program().check_merged(merged, codebooks)
    }

    /// Whether `count` codes of a frame from `first` on can be coded by themselves.
    ///
    /// # Errors
    /// [`RunError::Codebooks`] for none or too many; [`RunError::Level`] for a part of a level.
    pub fn check_codebooks(&self, first: usize, count: usize) -> Result<(), RunError> {
        self.program().check_codebooks(first, count)
    }
}

/// Neighbouring codes of a frame that are made at one rate, of codebooks of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// 0 for the slowest codes of the quantizer, 1 for the next, and so on.
    pub rate: usize,
    /// The first codebook, counted over all levels.
    pub first_book: usize,
    /// Neighbouring codebooks.
    pub books: usize,
    /// Times that they are used in a frame.
    pub steps: usize,
    /// Entries of each.
    pub size: u32,
}

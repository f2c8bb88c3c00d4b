//! A codec's encoder and decoder, borrowed: a chain and the quantizer, and a step of them on a block of memory.

use super::{
    memory::{self, part, sum, take},
    network::{Layout, Network},
};
use crate::{
    RunError,
    kernel::Compute,
    quantizer::{MAX_BEAM, MERGED_FRAMES, Program},
};

/// Words at the start of a block.
const HEAD: usize = 16;
/// "enco" and "deco" in the first of them.
const ENCODER: usize = 0x656e_636f;
const DECODER: usize = 0x6465_636f;
/// Codes in the room of a word of scratch memory.
const CODES_A_WORD: usize = size_of::<f32>() / size_of::<u16>();

/// A planned encoder with its weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EncoderRef<'a> {
    pub network: Network<'a>,
    pub quantizer: Program<'a>,
}

/// A planned decoder with its weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DecoderRef<'a> {
    pub network: Network<'a>,
    pub quantizer: Program<'a>,
}

/// How a signal is to be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coding {
    /// Which of the model's codes of a frame is the first that is given out; those before it are searched too.
    pub first: usize,
    /// Codes a frame that are given out, at least 1.
    pub codebooks: usize,
    /// Width of the codebook search over residual stages, 1 (greedy) to [`MAX_BEAM`]; others count as the nearest.
    pub beam: usize,
    /// Codebooks, from the model's first on, at half the rate ([`Quantizer::encode_merged`]); 0 for none.
    ///
    /// [`Quantizer::encode_merged`]: crate::quantizer::Quantizer::encode_merged
    pub merged: usize,
}

impl Coding {
    /// The first `codebooks` codes, by the greedy search.
    pub const fn new(codebooks: usize) -> Self {
        Self { first: 0, codebooks, beam: 1, merged: 0 }
    }

    /// Codes a frame that are searched.
    fn searched(&self) -> usize {
        self.first.saturating_add(self.codebooks)
    }
}

/// How a signal is to be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoding {
    /// Which of the model's codes of a frame is the first that is there.
    pub first: usize,
    /// Codes a frame, at least 1.
    pub codebooks: usize,
    /// Seed of the noise that the decoder adds ([`crate::spec::Noise`]); `None` for the model's own.
    pub noise_seed: Option<u64>,
}

impl Decoding {
    /// The first `codebooks` codes, with the model's own noise.
    pub const fn new(codebooks: usize) -> Self {
        Self { first: 0, codebooks, noise_seed: None }
    }
}

/// Lengths of the parts of a block, in bytes and values.
#[derive(Clone, Copy)]
struct Sizes {
    chain: usize,
    rows: usize,
    scratch: usize,
}

impl Sizes {
    fn bytes(&self) -> Option<usize> {
        sum(&[
            part(HEAD, size_of::<usize>()),
            part(self.chain, 1),
            part(self.rows, size_of::<f32>()),
            part(self.scratch, size_of::<f32>()),
        ])
    }
}

/// A block, taken apart. The words at its start: what it is, the [`Sizes`], and numbers of the coder's own.
struct Parts<'m> {
    own: &'m mut [usize],
    chain: &'m mut [u8],
    rows: &'m mut [f32],
    scratch: &'m mut [f32],
}

fn parts(mut block: &mut [u8], magic: usize) -> Result<Parts<'_>, RunError> {
    let head = take::<usize>(&mut block, HEAD)?;
    let [is, chain, rows, scratch, own @ ..] = head else { return Err(RunError::Uninitialized) };
    if *is != magic {
        return Err(RunError::Uninitialized);
    }
    let (chain, rows, scratch) = (*chain, *rows, *scratch);
    Ok(Parts {
        own,
        chain: take(&mut block, chain)?,
        rows: take(&mut block, rows)?,
        scratch: take(&mut block, scratch)?,
    })
}

/// Writes the start of a block and its chain's state.
fn init(
    block: &mut [u8],
    magic: usize,
    sizes: Option<Sizes>,
    own: [usize; 6],
    network: &Network<'_>,
    layout: &Layout<'_>,
) -> Result<(), RunError> {
    let needed = memory::check(block, sizes.and_then(|s| s.bytes()))?;
    let block = block.get_mut(..needed).unwrap_or_default();
    block.fill(0);
    let Some(Sizes { chain, rows, scratch }) = sizes else { return Err(RunError::Uninitialized) };
    let [a, b, c, d, e, f] = own;
    let head = take::<usize>(&mut &mut *block, HEAD)?;
    head.copy_from_slice(&[magic, chain, rows, scratch, a, b, c, d, e, f, 0, 0, 0, 0, 0, 0]);
    network.init(layout, parts(block, magic)?.chain)
}

impl EncoderRef<'_> {
    /// Frames whose codes are made together.
    fn together(coding: &Coding) -> usize {
        if coding.merged > 0 { MERGED_FRAMES } else { 1 }
    }

    fn sizes(&self, layout: &Layout<'_>, coding: &Coding) -> Option<Sizes> {
        let each = self.quantizer.rows;
        let rows = match each * Self::together(coding) {
            1 => 0,
            n => (n - 1).checked_add(layout.output_rows)?,
        };
        let frames = self.frames(layout.output_rows);
        let searched = Self::searched(coding, frames)?;
        Some(Sizes {
            chain: self.network.state_bytes(layout)?,
            rows: rows.checked_mul(self.quantizer.dim)?,
            scratch: self.quantizer.scratch_len(frames, coding.beam.clamp(1, MAX_BEAM)).checked_add(searched)?,
        })
    }

    /// Words of memory for all codes of `frames` frames, of which only those from the first on are given out.
    fn searched(coding: &Coding, frames: usize) -> Option<usize> {
        if coding.first == 0 { Some(0) } else { Some(frames.checked_mul(coding.searched())?.div_ceil(CODES_A_WORD)) }
    }

    /// Frames that so many rows of the chain's output can give, with one that waited to be merged.
    pub(crate) fn frames(&self, rows: usize) -> usize {
        let each = self.quantizer.rows;
        rows.saturating_add(each * MERGED_FRAMES - 1) / each
    }

    /// Bytes of a block of state.
    pub(crate) fn state_bytes(&self, layout: &Layout<'_>, coding: &Coding) -> Option<usize> {
        self.sizes(layout, coding)?.bytes()
    }

    /// Prepares a block for one signal.
    pub(crate) fn init(&self, layout: &Layout<'_>, coding: &Coding, block: &mut [u8]) -> Result<(), RunError> {
        self.quantizer.check_codebooks(coding.first, coding.codebooks)?;
        self.quantizer.check_merged(coding.merged, coding.searched())?;
        let own = [coding.codebooks, coding.beam, coding.merged, Self::together(coding), 0, coding.first];
        init(block, ENCODER, self.sizes(layout, coding), own, &self.network, layout)
    }

    /// Whether the signal has ended.
    pub(crate) fn is_finished(block: &mut [u8]) -> Result<bool, RunError> {
        Network::is_finished(parts(block, ENCODER)?.chain)
    }

    /// Forgets the signal.
    pub(crate) fn reset(block: &mut [u8]) -> Result<(), RunError> {
        let parts = parts(block, ENCODER)?;
        if let Some(open) = parts.own.get_mut(4) {
            *open = 0;
        }
        Network::reset(parts.chain)
    }

    /// Encodes interleaved samples to frame-major codes; the frames written.
    pub(crate) fn step(
        &self,
        cx: Compute<'_>,
        block: &mut [u8],
        pcm: &[f32],
        finish: bool,
        codes: &mut [u16],
    ) -> Result<usize, RunError> {
        let channels = self.network.input;
        if let Some(index) = pcm.iter().position(|v| !v.is_finite()) {
            return Err(RunError::NotFinite { index });
        }
        if !pcm.len().is_multiple_of(channels) {
            return Err(RunError::PartialRow { values: pcm.len(), channels });
        }
        let Parts { own, chain, rows: open, scratch } = parts(block, ENCODER)?;
        let &mut [codebooks, beam, merged, together, ref mut open_rows, first, ..] = own else {
            return Err(RunError::Uninitialized);
        };
        let coding = Coding { first, codebooks, beam, merged };
        let most = self.network.max_output_rows(chain, pcm.len() / channels)?;
        let needed = self.frames(most).saturating_mul(codebooks);
        if codes.len() < needed {
            return Err(RunError::BufferTooShort { needed, got: codes.len() });
        }
        let latent = self.network.step(cx, chain, pcm, finish)?;
        let (rows, dim) = (self.quantizer.rows, self.quantizer.dim);
        let too_many = RunError::Internal("more frames than planned");
        let kept = *open_rows * dim;
        let latent = if rows * together == 1 {
            latent
        } else {
            let laid = open.get_mut(..kept + latent.len()).ok_or(too_many)?;
            laid[kept..].copy_from_slice(latent);
            &*laid
        };
        let ready = latent.len() / (rows * dim);
        let frames = if finish { ready } else { ready - ready % together };
        let codes = codes.get_mut(..frames * codebooks).ok_or(too_many)?;
        let (whole, rest) = latent.split_at(frames * rows * dim);
        if first == 0 {
            self.quantizer.encode_merged(cx, whole, codebooks, beam, merged, codes, scratch)?;
        } else {
            let searched = coding.searched();
            let at = Self::searched(&coding, frames).and_then(|words| scratch.len().checked_sub(words));
            let (scratch, all) = scratch.split_at_mut(at.ok_or(too_many)?);
            let all = bytemuck::cast_slice_mut::<f32, u16>(all).get_mut(..frames * searched).ok_or(too_many)?;
            self.quantizer.encode_merged(cx, whole, searched, beam, merged, all, scratch)?;
            for (to, from) in codes.chunks_exact_mut(codebooks.max(1)).zip(all.chunks_exact(searched)) {
                to.iter_mut().zip(from.iter().skip(first)).for_each(|(to, from)| *to = *from);
            }
        }
        if rows * together > 1 {
            *open_rows = rest.len() / dim;
            let from = whole.len();
            let to = from + rest.len();
            open.copy_within(from..to, 0);
        }
        Ok(frames)
    }
}

impl DecoderRef<'_> {
    fn sizes(&self, layout: &Layout<'_>) -> Option<Sizes> {
        let rows = layout.max_rows;
        Some(Sizes {
            chain: self.network.state_bytes(layout)?,
            rows: rows.checked_mul(self.quantizer.dim)?,
            scratch: self.quantizer.scratch_len(rows / self.quantizer.rows, 1),
        })
    }

    /// Bytes of a block of state.
    pub(crate) fn state_bytes(&self, layout: &Layout<'_>) -> Option<usize> {
        self.sizes(layout)?.bytes()
    }

    /// Prepares a block for one signal.
    pub(crate) fn init(&self, layout: &Layout<'_>, decoding: &Decoding, block: &mut [u8]) -> Result<(), RunError> {
        let Decoding { first, codebooks, noise_seed } = *decoding;
        self.quantizer.check_codebooks(first, codebooks)?;
        init(block, DECODER, self.sizes(layout), [codebooks, first, 0, 0, 0, 0], &self.network, layout)?;
        Network::set_noise_seed(parts(block, DECODER)?.chain, noise_seed)
    }

    /// Whether the signal has ended.
    pub(crate) fn is_finished(block: &mut [u8]) -> Result<bool, RunError> {
        Network::is_finished(parts(block, DECODER)?.chain)
    }

    /// Forgets the signal.
    pub(crate) fn reset(block: &mut [u8]) -> Result<(), RunError> {
        Network::reset(parts(block, DECODER)?.chain)
    }

    /// Decodes frame-major codes to interleaved samples.
    pub(crate) fn step<'m>(
        &self,
        cx: Compute<'_>,
        block: &'m mut [u8],
        codes: &[u16],
        finish: bool,
    ) -> Result<&'m [f32], RunError> {
        let Parts { own, chain, rows: latent, scratch } = parts(block, DECODER)?;
        let &mut [codebooks, first, ..] = own else { return Err(RunError::Uninitialized) };
        if codebooks == 0 || !codes.len().is_multiple_of(codebooks) {
            return Err(RunError::PartialRow { values: codes.len(), channels: codebooks });
        }
        let frames = codes.len() / codebooks;
        let each = self.quantizer.rows * self.quantizer.dim;
        let too_long = RunError::TooLong { planned: latent.len() / each };
        let latent = latent.get_mut(..frames.saturating_mul(each)).ok_or(too_long)?;
        self.quantizer.decode_range(cx, codes, frames, first, codebooks, latent, scratch)?;
        self.network.step(cx, chain, latent, finish)
    }
}

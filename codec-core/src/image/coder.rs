//! A model's encoder and decoder in an image, and their steps on the caller's memory.

use super::Planned;
use crate::{
    RunError,
    kernel::Compute,
    pipeline::coder::{Coding, DecoderRef, Decoding, EncoderRef},
    quantizer::Program,
};

/// Samples to codes. It owns nothing: the state of a signal is a block of bytes of the caller's, which may be moved
/// between steps.
#[derive(Clone, Copy, Debug)]
pub struct Encoder<'a> {
    plan: EncoderRef<'a>,
    part: Planned<'a>,
}

/// Codes to samples, as [`Encoder`].
#[derive(Clone, Copy, Debug)]
pub struct Decoder<'a> {
    plan: DecoderRef<'a>,
    part: Planned<'a>,
}

fn bytes(needed: Option<usize>) -> usize {
    needed.unwrap_or(usize::MAX)
}

impl<'a> Encoder<'a> {
    pub(super) fn new(quantizer: Program<'a>, part: Planned<'a>) -> Self {
        Self { plan: EncoderRef { network: part.network, quantizer }, part }
    }

    /// Bytes of a block of state.
    pub fn state_bytes(&self) -> usize {
        bytes(self.plan.state_bytes(&self.part.layout, &Coding::new(1)))
    }

    /// Samples (a channel) that a step may bring.
    pub fn max_samples(&self) -> usize {
        self.part.layout.max_rows
    }

    /// Frames that a step can give, at most.
    pub fn max_frames(&self) -> usize {
        self.plan.frames(self.part.layout.output_rows)
    }

    /// Prepares a block of at least [`Encoder::state_bytes`] bytes for one signal of `codebooks` codes a frame.
    ///
    /// # Errors
    /// The block is too short or not aligned to [`STATE_ALIGN`](crate::pipeline::STATE_ALIGN) bytes, or the model does not
    /// have so many codebooks.
    pub fn init(&self, state: &mut [u8], codebooks: usize) -> Result<(), RunError> {
        self.plan.init(&self.part.layout, &Coding::new(codebooks), state)
    }

    /// Bytes of a block of state for [`Encoder::init_for`].
    pub fn state_bytes_for(&self, coding: &Coding) -> usize {
        bytes(self.plan.state_bytes(&self.part.layout, coding))
    }

    /// As [`Encoder::init`], of any of the codebooks, by a wider search, some codebooks at half the rate. The block holds
    /// [`Encoder::state_bytes_for`] bytes.
    ///
    /// # Errors
    /// As [`Encoder::init`].
    pub fn init_for(&self, state: &mut [u8], coding: &Coding) -> Result<(), RunError> {
        self.plan.init(&self.part.layout, coding, state)
    }

    /// Whether the signal has ended: the next step would be an error.
    ///
    /// # Errors
    /// The block was not prepared.
    pub fn is_finished(&self, state: &mut [u8]) -> Result<bool, RunError> {
        EncoderRef::is_finished(state)
    }

    /// Forgets the signal.
    ///
    /// # Errors
    /// The block was not prepared.
    pub fn reset(&self, state: &mut [u8]) -> Result<(), RunError> {
        EncoderRef::reset(state)
    }

    /// Encodes interleaved samples, at most [`Encoder::max_samples`] a channel; `finish` ends the signal. Returns the number
    /// of frames written to `codes`, frame-major, which must have room for those of [`Encoder::max_frames`].
    ///
    /// # Errors
    /// A sample is not finite, `codes` is too short, the signal has ended, or the block was not prepared.
    pub fn step(
        &self,
        cx: Compute<'_>,
        state: &mut [u8],
        pcm: &[f32],
        finish: bool,
        codes: &mut [u16],
    ) -> Result<usize, RunError> {
        self.plan.step(cx, state, pcm, finish, codes)
    }
}

impl<'a> Decoder<'a> {
    pub(super) fn new(quantizer: Program<'a>, part: Planned<'a>) -> Self {
        Self { plan: DecoderRef { network: part.network, quantizer }, part }
    }

    /// Bytes of a block of state.
    pub fn state_bytes(&self) -> usize {
        bytes(self.plan.state_bytes(&self.part.layout))
    }

    /// Frames that a step may bring.
    pub fn max_frames(&self) -> usize {
        self.part.layout.max_rows / self.plan.quantizer.rows
    }

    /// Prepares a block of at least [`Decoder::state_bytes`] bytes for one signal of `codebooks` codes a frame.
    ///
    /// # Errors
    /// As [`Encoder::init`].
    pub fn init(&self, state: &mut [u8], codebooks: usize) -> Result<(), RunError> {
        self.plan.init(&self.part.layout, &Decoding::new(codebooks), state)
    }

    /// As [`Decoder::init`], of any of the codebooks and with a seed for the decoder's noise.
    ///
    /// # Errors
    /// As [`Decoder::init`].
    pub fn init_for(&self, state: &mut [u8], decoding: &Decoding) -> Result<(), RunError> {
        self.plan.init(&self.part.layout, decoding, state)
    }

    /// Whether the signal has ended: the next step would be an error.
    ///
    /// # Errors
    /// The block was not prepared.
    pub fn is_finished(&self, state: &mut [u8]) -> Result<bool, RunError> {
        DecoderRef::is_finished(state)
    }

    /// Forgets the signal.
    ///
    /// # Errors
    /// The block was not prepared.
    pub fn reset(&self, state: &mut [u8]) -> Result<(), RunError> {
        DecoderRef::reset(state)
    }

    /// Decodes frame-major codes, at most [`Decoder::max_frames`] frames; `finish` ends the signal. Returns interleaved
    /// samples, which lie in the block.
    ///
    /// # Errors
    /// A code is out of range, there are more frames than planned, the signal has ended, or the block was not prepared.
    pub fn step<'m>(
        &self,
        cx: Compute<'_>,
        state: &'m mut [u8],
        codes: &[u16],
        finish: bool,
    ) -> Result<&'m [f32], RunError> {
        self.plan.step(cx, state, codes, finish)
    }
}

//! A codec's encoder and decoder that own their plans and weights.

use alloc::format;

use super::{
    chain::Chain,
    coder::{Coding, DecoderRef, Decoding, EncoderRef},
};
use crate::{
    BuildError, RunError,
    kernel::{Aligned, Compute},
    quantizer::Quantizer,
    spec::{CodecSpec, Framing, SPEC_VERSION},
    weights::{Precision, Tensors},
};

/// Samples to codes. Immutable; every signal has an [`EncoderState`].
#[derive(Debug)]
pub struct Encoder {
    chain: Chain,
    quantizer: Quantizer,
    hop: usize,
}

/// What an encoder remembers of a signal.
#[derive(Debug)]
pub struct EncoderState {
    memory: Aligned,
    codebooks: usize,
    max_samples: usize,
    max_frames: usize,
}

/// Codes to samples. Immutable; every signal has a [`DecoderState`].
#[derive(Debug)]
pub struct Decoder {
    chain: Chain,
    quantizer: Quantizer,
    channels: usize,
    hop: usize,
}

/// What a decoder remembers of a signal.
#[derive(Debug)]
pub struct DecoderState {
    memory: Aligned,
    codebooks: usize,
    frames: usize,
}

/// Memory for a state of so many bytes.
fn allocate(bytes: Option<usize>) -> Result<Aligned, RunError> {
    let bytes = bytes.ok_or(RunError::BufferTooShort { needed: usize::MAX, got: 0 })?;
    Ok(Aligned::zeroed(bytes / size_of::<f32>()))
}

fn block(memory: &mut Aligned) -> &mut [u8] {
    bytemuck::cast_slice_mut(memory.as_mut())
}

fn check(spec: &CodecSpec, quantizer: &Quantizer, chain: &Chain, end: usize) -> Result<(), BuildError> {
    if spec.version != SPEC_VERSION {
        return Err(BuildError::Spec(format!(
            "schema version {}; this build reads {SPEC_VERSION}: update `codec`",
            spec.version
        )));
    }
    match spec.framing {
        Framing::Segments { length, stride, .. } if length == 0 || stride == 0 => {
            return Err(BuildError::Spec(format!("segments of {length} samples every {stride}: at least 1 is needed")));
        }
        Framing::Windows { length, stride } => check_windows(length, stride, spec.hop)?,
        _ => {}
    }
    let latent = spec.latent as usize;
    if quantizer.dim() != latent || end != latent {
        return Err(BuildError::Spec(format!(
            "the latent has {latent} channels, the network's end {end}, the quantizer {}",
            quantizer.dim()
        )));
    }
    if chain.plan().whole.is_none() && spec.hop == 0 {
        return Err(BuildError::Spec("a hop of 0".into()));
    }
    Ok(())
}

fn check_windows(length: u32, stride: u32, hop: u32) -> Result<(), BuildError> {
    let whole = |samples: u32, frames: u64| u64::from(samples).is_multiple_of(frames * u64::from(hop));
    let fits = |overlap: u32| hop > 0 && stride > 0 && whole(stride, 1) && whole(overlap, 2);
    if length.checked_sub(stride).is_some_and(fits) {
        return Ok(());
    }
    Err(BuildError::Spec(format!(
        "windows of {length} samples every {stride}: with a hop of {hop} the stride and half of what they share are whole frames"
    )))
}

impl Encoder {
    pub(crate) fn from_parts(chain: Chain, quantizer: Quantizer, hop: usize) -> Self {
        Self { chain, quantizer, hop }
    }

    /// Plans the encoder of `spec` and packs its weights.
    ///
    /// # Errors
    /// The spec is inconsistent or has no encoder, or a tensor is missing or of another shape.
    pub fn new(spec: &CodecSpec, tensors: &dyn Tensors) -> Result<Self, BuildError> {
        Self::with_precision(spec, tensors, Precision::F32)
    }

    /// As [`Encoder::new`], with the network's weights in a precision of one's choice
    /// ([`Chain::with_precision`]). The quantizer's tables stay in f32.
    ///
    /// # Errors
    /// As [`Encoder::new`]; a weight that the precision cannot hold.
    pub fn with_precision(spec: &CodecSpec, tensors: &dyn Tensors, precision: Precision) -> Result<Self, BuildError> {
        let Some(layers) = &spec.encoder else {
            return Err(BuildError::NoEncoder(spec.name.clone()));
        };
        let chain = Chain::with_precision(layers, spec.channels as usize, tensors, precision)?;
        let quantizer = Quantizer::new(&spec.quantizer, tensors)?;
        check(spec, &quantizer, &chain, chain.output_channels())?;
        let (up, down) = chain.plan().rate;
        let rows = quantizer.rows_per_frame();
        if up != 1 || down.checked_mul(rows as u64) != Some(u64::from(spec.hop)) {
            return Err(BuildError::Spec(format!(
                "a hop of {} samples, but the encoder gives {up} rows for {down} and a frame has {rows}",
                spec.hop
            )));
        }
        Ok(Self { chain, quantizer, hop: spec.hop as usize })
    }

    /// The network.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The quantizer.
    pub fn quantizer(&self) -> &Quantizer {
        &self.quantizer
    }

    /// State for one signal. `frames` is how much one step may bring, in hops; `beam` is the width of the
    /// codebook search (1: greedy).
    ///
    /// # Errors
    /// `codebooks` is 0 or more than there are.
    pub fn state(&self, frames: usize, codebooks: usize, beam: usize) -> Result<EncoderState, RunError> {
        self.state_for(frames, &Coding { beam, ..Coding::new(codebooks) })
    }

    /// As [`Encoder::state`], of any of the codebooks, some at half the rate. Pairs of merged frames count from the start of
    /// the signal, whatever the steps; so a frame may wait for its partner.
    ///
    /// # Errors
    /// [`Quantizer::check_codebooks`] and [`Quantizer::check_merged`].
    pub fn state_for(&self, frames: usize, coding: &Coding) -> Result<EncoderState, RunError> {
        let samples = frames.max(1).saturating_mul(self.hop);
        let placed = self.chain.placed(samples).ok_or(RunError::BufferTooShort { needed: usize::MAX, got: 0 })?;
        let (plan, layout) = (self.plan(), placed.layout());
        let mut memory = allocate(plan.state_bytes(&layout, coding))?;
        plan.init(&layout, coding, block(&mut memory))?;
        let max_frames = plan.frames(layout.output_rows);
        Ok(EncoderState { memory, codebooks: coding.codebooks, max_samples: samples, max_frames })
    }

    /// Bytes of a block of state for steps of `frames` hops, to be used with [`Encoder::init`]; `usize::MAX` where that cannot
    /// be addressed.
    pub fn state_bytes(&self, frames: usize, coding: &Coding) -> usize {
        let placed = self.chain.placed(frames.max(1).saturating_mul(self.hop));
        placed.and_then(|p| self.plan().state_bytes(&p.layout(), coding)).unwrap_or(usize::MAX)
    }

    /// Makes a block of memory of the caller's, at least [`Encoder::state_bytes`] bytes, the state of one signal, as
    /// [`Encoder::state_for`]. The block may be moved between steps.
    ///
    /// # Errors
    /// As [`Encoder::state_for`]; the block is too short or not aligned to [`STATE_ALIGN`](super::STATE_ALIGN) bytes.
    pub fn init(&self, memory: &mut [u8], frames: usize, coding: &Coding) -> Result<(), RunError> {
        let placed = self.chain.placed(frames.max(1).saturating_mul(self.hop));
        let placed = placed.ok_or(RunError::BufferTooShort { needed: usize::MAX, got: memory.len() })?;
        self.plan().init(&placed.layout(), coding, memory)
    }

    /// [`Encoder::step`] on a block that [`Encoder::init`] made.
    ///
    /// # Errors
    /// As [`Encoder::step`]; the block holds no state of this encoder.
    pub fn step_in(
        &self,
        cx: Compute<'_>,
        memory: &mut [u8],
        pcm: &[f32],
        finish: bool,
        codes: &mut [u16],
    ) -> Result<usize, RunError> {
        self.plan().step(cx, memory, pcm, finish, codes)
    }

    /// Whether the signal of a block has ended, so that a step on it is [`RunError::Finished`].
    ///
    /// # Errors
    /// The block holds no state of an encoder.
    pub fn is_finished_in(memory: &mut [u8]) -> Result<bool, RunError> {
        EncoderRef::is_finished(memory)
    }

    /// Makes a block forget its signal.
    ///
    /// # Errors
    /// The block holds no state of an encoder.
    pub fn reset_in(memory: &mut [u8]) -> Result<(), RunError> {
        EncoderRef::reset(memory)
    }

    fn plan(&self) -> EncoderRef<'_> {
        EncoderRef { network: self.chain.network(), quantizer: self.quantizer.program() }
    }

    /// Frames that a step of `samples` samples (a channel) can give, at most; with one that waited to be merged.
    pub fn max_frames(&self, samples: usize) -> usize {
        self.plan().frames(self.chain.max_output_rows(samples))
    }

    /// Encodes interleaved samples, at most as many as the state was made for; `finish` ends the signal.
    /// Returns the number of frames written to `codes`, frame-major `[frames, codebooks]`.
    ///
    /// Where a frame has several latent rows, rows at the end that do not fill one are dropped, as a convolution without
    /// padding drops a partial hop; specs pad ([`crate::spec::Layer::PadEnd`]) so that there are none.
    ///
    /// # Errors
    /// A sample is not finite, `codes` is too short (see [`Encoder::max_frames`]), or the signal has ended.
    pub fn step(
        &self,
        cx: Compute<'_>,
        state: &mut EncoderState,
        pcm: &[f32],
        finish: bool,
        codes: &mut [u16],
    ) -> Result<usize, RunError> {
        self.plan().step(cx, block(&mut state.memory), pcm, finish, codes)
    }
}

impl EncoderState {
    /// Forgets the signal.
    pub fn reset(&mut self) {
        // The block is one that `Encoder::state` made.
        let _ = EncoderRef::reset(block(&mut self.memory));
    }

    /// Codes a frame.
    pub fn codebooks(&self) -> usize {
        self.codebooks
    }

    /// Samples (a channel) that a step may bring.
    pub fn max_samples(&self) -> usize {
        self.max_samples
    }

    /// Frames that such a step can give, at most; with one that waited to be merged.
    pub fn max_frames(&self) -> usize {
        self.max_frames
    }
}

impl Decoder {
    pub(crate) fn from_parts(chain: Chain, quantizer: Quantizer, channels: usize, hop: usize) -> Self {
        Self { chain, quantizer, channels, hop }
    }

    /// Plans the decoder of `spec` and packs its weights.
    ///
    /// # Errors
    /// The spec is inconsistent or has no decoder, or a tensor is missing or of another shape.
    pub fn new(spec: &CodecSpec, tensors: &dyn Tensors) -> Result<Self, BuildError> {
        Self::with_precision(spec, tensors, Precision::F32)
    }

    /// As [`Decoder::new`], with the network's weights in a precision of one's choice
    /// ([`Chain::with_precision`]). The quantizer's tables stay in f32.
    ///
    /// # Errors
    /// As [`Decoder::new`]; a weight that the precision cannot hold.
    pub fn with_precision(spec: &CodecSpec, tensors: &dyn Tensors, precision: Precision) -> Result<Self, BuildError> {
        let Some(layers) = &spec.decoder else {
            return Err(BuildError::NoDecoder(spec.name.clone()));
        };
        let chain = Chain::with_precision(layers, spec.latent as usize, tensors, precision)?;
        let quantizer = Quantizer::new(&spec.quantizer, tensors)?;
        check(spec, &quantizer, &chain, spec.latent as usize)?;
        let (up, down) = chain.plan().rate;
        let rows = quantizer.rows_per_frame();
        let fits = down == 1 && up.checked_mul(rows as u64) == Some(u64::from(spec.hop));
        if !fits || chain.output_channels() != spec.channels as usize {
            return Err(BuildError::Spec(format!(
                "a hop of {} samples in {} channels, but the decoder gives {up}/{down} samples a row in {}, and a frame \
                 has {rows} rows",
                spec.hop,
                spec.channels,
                chain.output_channels()
            )));
        }
        Ok(Self { chain, quantizer, channels: spec.channels as usize, hop: spec.hop as usize })
    }

    /// The network.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The quantizer.
    pub fn quantizer(&self) -> &Quantizer {
        &self.quantizer
    }

    /// State for one signal whose steps bring at most `frames` frames of `codebooks` codes.
    ///
    /// # Errors
    /// `codebooks` is 0 or more than there are.
    pub fn state(&self, frames: usize, codebooks: usize) -> Result<DecoderState, RunError> {
        self.state_for(frames, &Decoding::new(codebooks))
    }

    /// Whether signals can be decoded so.
    ///
    /// # Errors
    /// [`Quantizer::check_codebooks`]; a seed for a decoder that adds no noise.
    pub fn check(&self, decoding: &Decoding) -> Result<(), RunError> {
        if decoding.noise_seed.is_some() && !self.chain.has_noise() {
            return Err(RunError::Unsupported("this model's decoder adds no noise: decode without a seed for it"));
        }
        self.quantizer.check_codebooks(decoding.first, decoding.codebooks)
    }

    /// As [`Decoder::state`], for frames of any of the codes: what those codebooks add to the latent is decoded by itself
    /// ([`Quantizer::decode_range`]).
    ///
    /// # Errors
    /// [`Decoder::check`].
    pub fn state_for(&self, frames: usize, decoding: &Decoding) -> Result<DecoderState, RunError> {
        self.check(decoding)?;
        let frames = frames.max(1);
        let rows = frames.saturating_mul(self.quantizer.rows_per_frame());
        let placed = self.chain.placed(rows).ok_or(RunError::BufferTooShort { needed: usize::MAX, got: 0 })?;
        let (plan, layout) = (self.plan(), placed.layout());
        let mut memory = allocate(plan.state_bytes(&layout))?;
        plan.init(&layout, decoding, block(&mut memory))?;
        Ok(DecoderState { memory, codebooks: decoding.codebooks, frames })
    }

    /// Bytes of a block of state for steps of `frames` frames, to be used with [`Decoder::init`]; `usize::MAX` where that
    /// cannot be addressed.
    pub fn state_bytes(&self, frames: usize) -> usize {
        let placed = self.chain.placed(frames.max(1).saturating_mul(self.quantizer.rows_per_frame()));
        placed.and_then(|p| self.plan().state_bytes(&p.layout())).unwrap_or(usize::MAX)
    }

    /// Makes a block of memory of the caller's, at least [`Decoder::state_bytes`] bytes, the state of one signal, as
    /// [`Decoder::state_for`]. The block may be moved between steps.
    ///
    /// # Errors
    /// As [`Decoder::state_for`]; the block is too short or not aligned to [`STATE_ALIGN`](super::STATE_ALIGN) bytes.
    pub fn init(&self, memory: &mut [u8], frames: usize, decoding: &Decoding) -> Result<(), RunError> {
        self.check(decoding)?;
        let placed = self.chain.placed(frames.max(1).saturating_mul(self.quantizer.rows_per_frame()));
        let placed = placed.ok_or(RunError::BufferTooShort { needed: usize::MAX, got: memory.len() })?;
        self.plan().init(&placed.layout(), decoding, memory)
    }

    /// [`Decoder::step`] on a block that [`Decoder::init`] made.
    ///
    /// # Errors
    /// As [`Decoder::step`]; the block holds no state of this decoder.
    pub fn step_in<'m>(
        &self,
        cx: Compute<'_>,
        memory: &'m mut [u8],
        codes: &[u16],
        finish: bool,
    ) -> Result<&'m [f32], RunError> {
        self.plan().step(cx, memory, codes, finish)
    }

    /// Makes a block forget its signal.
    ///
    /// # Errors
    /// The block holds no state of a decoder.
    pub fn reset_in(memory: &mut [u8]) -> Result<(), RunError> {
        DecoderRef::reset(memory)
    }

    fn plan(&self) -> DecoderRef<'_> {
        DecoderRef { network: self.chain.network(), quantizer: self.quantizer.program() }
    }

    /// Samples that one frame stands for.
    pub fn hop(&self) -> usize {
        self.hop
    }

    /// Audio channels.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Decodes frames of codes, frame-major `[frames, codebooks]`, at most as many as the state was made for;
    /// `finish` ends the signal. Returns interleaved samples.
    ///
    /// # Errors
    /// A code is out of range, there are more frames than planned, or the signal has ended.
    pub fn step<'s>(
        &self,
        cx: Compute<'_>,
        state: &'s mut DecoderState,
        codes: &[u16],
        finish: bool,
    ) -> Result<&'s [f32], RunError> {
        self.plan().step(cx, block(&mut state.memory), codes, finish)
    }
}

impl DecoderState {
    /// Forgets the signal.
    pub fn reset(&mut self) {
        // The block is one that `Decoder::state` made.
        let _ = DecoderRef::reset(block(&mut self.memory));
    }

    /// Codes a frame.
    pub fn codebooks(&self) -> usize {
        self.codebooks
    }

    /// Frames that a step may bring.
    pub fn max_frames(&self) -> usize {
        self.frames
    }
}

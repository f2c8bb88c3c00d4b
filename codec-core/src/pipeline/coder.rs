//! A codec's encoder and decoder: a chain and the quantizer.

use alloc::{format, vec, vec::Vec};

use super::chain::{Chain, ChainState};
use crate::{
    BuildError, RunError,
    kernel::Compute,
    quantizer::{MERGED_FRAMES, Quantizer},
    spec::{CodecSpec, Framing, SPEC_VERSION},
    weights::{Precision, Tensors},
};

/// Samples to codes. Immutable; every signal has an [`EncoderState`].
#[derive(Debug)]
pub struct Encoder {
    chain: Chain,
    quantizer: Quantizer,
    channels: usize,
    hop: usize,
}

/// What an encoder remembers of a signal.
#[derive(Debug)]
pub struct EncoderState {
    chain: ChainState,
    /// Latent rows of a frame that is not whole yet, where frames have several, or of a frame that waits for the one it
    /// is merged with; room for a step's behind them.
    open: Vec<f32>,
    open_rows: usize,
    scratch: Vec<f32>,
    codebooks: usize,
    beam: usize,
    merged: usize,
    /// Frames that are coded together.
    together: usize,
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
    chain: ChainState,
    latent: Vec<f32>,
    frames: usize,
    scratch: Vec<f32>,
    codebooks: usize,
}

fn check(spec: &CodecSpec, quantizer: &Quantizer, chain: &Chain, end: usize) -> Result<(), BuildError> {
    if spec.version != SPEC_VERSION {
        return Err(BuildError::Spec(format!(
            "schema version {}; this build reads {SPEC_VERSION}: update `codec`",
            spec.version
        )));
    }
    if let Framing::Segments { length, stride, .. } = spec.framing
        && (length == 0 || stride == 0)
    {
        return Err(BuildError::Spec(format!("segments of {length} samples every {stride}: at least 1 is needed")));
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

impl Encoder {
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

    /// State for one signal. `frames` is how much one step may bring, in hops; `beam` is the width of the
    /// codebook search (1: greedy).
    ///
    /// # Errors
    /// `codebooks` is 0 or more than there are.
    pub fn state(&self, frames: usize, codebooks: usize, beam: usize) -> Result<EncoderState, RunError> {
        self.state_merging(frames, codebooks, beam, 0)
    }

    /// As [`Encoder::state`], the first `merged` codebooks at half the rate ([`Quantizer::encode_merged`]). Pairs of
    /// frames count from the start of the signal, whatever the steps; so a frame may wait for its partner.
    ///
    /// # Errors
    /// As [`Encoder::state`] and [`Quantizer::check_merged`].
    pub fn state_merging(
        &self,
        frames: usize,
        codebooks: usize,
        beam: usize,
        merged: usize,
    ) -> Result<EncoderState, RunError> {
        self.quantizer.check_codebooks(0, codebooks)?;
        self.quantizer.check_merged(merged, codebooks)?;
        let together = if merged > 0 { MERGED_FRAMES } else { 1 };
        let chain = self.chain.state(frames.max(1).saturating_mul(self.hop));
        let scratch = vec![0.0; self.quantizer.scratch_len(self.max_frames(chain.max_rows()), beam)];
        let rows = match self.quantizer.rows_per_frame() * together {
            1 => 0,
            n => (n - 1).saturating_add(self.chain.max_output_rows(chain.max_rows())),
        };
        let open = vec![0.0; rows.saturating_mul(self.quantizer.dim())];
        Ok(EncoderState { chain, open, open_rows: 0, scratch, codebooks, beam, merged, together })
    }

    /// Frames that a step of `samples` samples (a channel) can give, at most; with one that waited to be merged.
    pub fn max_frames(&self, samples: usize) -> usize {
        let rows = self.quantizer.rows_per_frame();
        self.chain.max_output_rows(samples).saturating_add(rows * MERGED_FRAMES - 1) / rows
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
        if let Some(index) = pcm.iter().position(|v| !v.is_finite()) {
            return Err(RunError::NotFinite { index });
        }
        if !pcm.len().is_multiple_of(self.channels) {
            return Err(RunError::PartialRow { values: pcm.len(), channels: self.channels });
        }
        let needed = self.max_frames(pcm.len() / self.channels).saturating_mul(state.codebooks);
        if codes.len() < needed {
            return Err(RunError::BufferTooShort { needed, got: codes.len() });
        }
        let latent = self.chain.step(cx, &mut state.chain, pcm, finish)?;
        let (rows, dim) = (self.quantizer.rows_per_frame(), self.quantizer.dim());
        let too_many = RunError::Internal("more frames than planned");
        let kept = state.open_rows * dim;
        let latent = if rows * state.together == 1 {
            latent
        } else {
            let laid = state.open.get_mut(..kept + latent.len()).ok_or(too_many)?;
            laid[kept..].copy_from_slice(latent);
            &*laid
        };
        let ready = latent.len() / (rows * dim);
        let frames = if finish { ready } else { ready - ready % state.together };
        let codes = codes.get_mut(..frames * state.codebooks).ok_or(too_many)?;
        let (whole, rest) = latent.split_at(frames * rows * dim);
        let EncoderState { codebooks, beam, merged, .. } = *state;
        self.quantizer.encode_merged(cx, whole, codebooks, beam, merged, codes, &mut state.scratch)?;
        if rows * state.together > 1 {
            state.open_rows = rest.len() / dim;
            let from = whole.len();
            let to = from + rest.len();
            state.open.copy_within(from..to, 0);
        }
        Ok(frames)
    }
}

impl EncoderState {
    /// Forgets the signal.
    pub fn reset(&mut self) {
        self.chain.reset();
        self.open_rows = 0;
    }

    /// Codes a frame.
    pub fn codebooks(&self) -> usize {
        self.codebooks
    }

    /// Samples (a channel) that a step may bring.
    pub fn max_samples(&self) -> usize {
        self.chain.max_rows()
    }
}

impl Decoder {
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
        self.quantizer.check_codebooks(0, codebooks)?;
        let frames = frames.max(1);
        let rows = frames.saturating_mul(self.quantizer.rows_per_frame());
        Ok(DecoderState {
            chain: self.chain.state(rows),
            latent: vec![0.0; rows.saturating_mul(self.quantizer.dim())],
            frames,
            scratch: vec![0.0; self.quantizer.scratch_len(frames, 1)],
            codebooks,
        })
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
        let frames = codes.len() / state.codebooks;
        let too_long = RunError::TooLong { planned: state.frames };
        let len = frames.saturating_mul(self.quantizer.rows_per_frame() * self.quantizer.dim());
        let latent = state.latent.get_mut(..len).ok_or(too_long)?;
        self.quantizer.decode(cx, codes, frames, state.codebooks, latent, &mut state.scratch)?;
        self.chain.step(cx, &mut state.chain, latent, finish)
    }
}

impl DecoderState {
    /// Forgets the signal.
    pub fn reset(&mut self) {
        self.chain.reset();
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

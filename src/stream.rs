//! Signals in pieces of any size: the engine's steps, segments, and models that need the whole signal.

use codec_core::{
    RunError,
    pipeline::{self, Chain, Coding, Crossfade, Decoding, Segmented, Window, Windowed, normalize},
    quantizer::Quantizer,
    spec::{CodecSpec, Framing},
};

use crate::{Codes, Error, Model, Options, Segment, threads::Threads};

/// Scratch memory that one signal should stay under: small enough for caches, large enough that weights are
/// not read too often.
const WORKSPACE: usize = 24 << 20;

/// Scratch memory over which even short steps are cut further.
const MOST_WORKSPACE: usize = 256 << 20;

/// Frames of one step: about a second, fewer where activations are large. `rows` is the chain's input rows a frame.
pub(crate) fn chunk_frames(chain: &Chain, spec: &CodecSpec, rows: usize) -> usize {
    let mut frames = (spec.sample_rate / spec.hop.max(1)).clamp(1, 128) as usize;
    while frames > 1 && chain.memory(frames * rows).1 > if frames > 8 { WORKSPACE } else { MOST_WORKSPACE } {
        frames /= 2;
    }
    frames
}

/// Fails where the memory of a signal is more than allowed.
fn check_memory(spec: &CodecSpec, options: &Options, parts: [usize; 4]) -> Result<(), Error> {
    let needed = parts.into_iter().fold(0, usize::saturating_add) as u64;
    if needed <= options.max_memory {
        return Ok(());
    }
    let (needed, allowed) = (needed >> 20, options.max_memory >> 20);
    Err(Error::SignalMemory { model: spec.name.clone(), needed, allowed })
}

/// Bytes of an encoder's state for steps of `frames` frames.
fn encoder_memory(plan: &pipeline::Encoder, frames: usize, hop: usize, coding: &Coding) -> [usize; 4] {
    let (state, workspace) = plan.chain().memory(frames.saturating_mul(hop));
    let frames = plan.max_frames(frames.saturating_mul(hop));
    let scratch = plan.quantizer().scratch_len(frames, coding.beam);
    // Codes that are only searched lie in the state.
    let codes = frames.saturating_mul(coding.first.saturating_add(coding.codebooks));
    [state, workspace, scratch.saturating_mul(4), codes.saturating_mul(2)]
}

/// Bytes of a decoder's state for steps of `frames` frames.
fn decoder_memory(plan: &pipeline::Decoder, frames: usize) -> [usize; 4] {
    let rows = frames.saturating_mul(plan.quantizer().rows_per_frame());
    let (state, workspace) = plan.chain().memory(rows);
    let latent = rows.saturating_mul(plan.quantizer().dim());
    let scratch = plan.quantizer().scratch_len(frames, 1);
    [state, workspace, scratch.saturating_mul(4), latent.saturating_mul(4)]
}

/// Segment length and stride, if the model cuts signals.
fn segments(spec: &CodecSpec) -> Option<(usize, usize, bool)> {
    match spec.framing {
        Framing::Stream | Framing::Windows { .. } => None,
        Framing::Segments { length, stride, normalize } => Some((length as usize, stride as usize, normalize)),
    }
}

/// What a whole signal may take.
struct Limit {
    model: String,
    reason: String,
    sample_rate: u32,
    hop: usize,
    bytes: u64,
}

impl Limit {
    /// Whether `parts` bytes and a signal of `samples` samples are allowed.
    fn check(&self, parts: [usize; 4], samples: usize) -> Result<(), Error> {
        let signal = samples.saturating_mul(8);
        let needed = parts.iter().fold(signal, |sum, part| sum.saturating_add(*part)) as u64;
        if needed <= self.bytes {
            return Ok(());
        }
        Err(Error::Memory {
            model: self.model.clone(),
            reason: self.reason.clone(),
            seconds: samples as f64 / f64::from(self.sample_rate),
            needed: needed >> 20,
            allowed: self.bytes >> 20,
        })
    }
}

/// How the engine gets a signal.
enum Mode<S> {
    /// Step by step.
    Steps(S),
    /// All of it at the end.
    Whole(Limit),
    /// Segment by segment.
    Segments(S),
}

/// Encodes one signal, given in pieces of any size.
pub struct Encoder<'m> {
    plan: &'m pipeline::Encoder,
    threads: Threads,
    mode: Mode<pipeline::EncoderState>,
    splitter: Option<(Segmented, bool)>,
    windows: Option<(Windowed, Option<pipeline::EncoderState>)>,
    whole: Vec<f32>,
    channels: usize,
    coding: Coding,
    codes: Vec<u16>,
    samples: u64,
    frames: u64,
    hop: u64,
    finished: bool,
}

impl<'m> Encoder<'m> {
    pub(crate) fn new(model: &'m Model, options: &Options) -> Result<Self, Error> {
        let plan = model.encoder_plan()?;
        let spec = model.spec();
        let channels = spec.channels as usize;
        let (first, codebooks) = books(plan.quantizer(), options)?;
        let coding = Coding { first, codebooks, beam: options.beam.max(1), merged: options.merged_books };
        plan.quantizer().check_merged(coding.merged, first + codebooks)?;
        let hop = spec.hop as usize;
        let (mut splitter, mut windows) = (None, None);
        let whole = |reason| Limit {
            model: spec.name.clone(),
            reason,
            sample_rate: spec.sample_rate,
            hop,
            bytes: options.max_memory,
        };
        let mut reason = plan.chain().plan().whole.clone();
        if let Framing::Windows { length, stride } = spec.framing {
            windows = Some((Windowed::new(channels, hop, length as usize, stride as usize), None));
            reason = Some(format!("in windows of {length} samples"));
        }
        let mode = match (segments(spec), reason) {
            (Some((length, stride, normalize)), _) => {
                splitter = Some((Segmented::new(channels, length, stride), normalize));
                let frames = length.div_ceil(hop);
                check_memory(spec, options, encoder_memory(plan, frames, hop, &coding))?;
                Mode::Segments(plan.state_for(frames, &coding)?)
            }
            (None, Some(reason)) => Mode::Whole(whole(reason)),
            (None, None) => {
                let frames = chunk_frames(plan.chain(), spec, hop);
                check_memory(spec, options, encoder_memory(plan, frames, hop, &coding))?;
                Mode::Steps(plan.state_for(frames, &coding)?)
            }
        };
        Ok(Self {
            plan,
            threads: Threads::new(options.threads, options.isa)?,
            mode,
            splitter,
            windows,
            whole: Vec::new(),
            channels,
            coding,
            codes: Vec::new(),
            samples: 0,
            frames: 0,
            hop: spec.hop.into(),
            finished: false,
        })
    }

    /// Codes a frame.
    pub fn codebooks(&self) -> usize {
        self.coding.codebooks
    }

    /// Frames that the next [`Encoder::push`] of `samples` samples (a channel), or [`Encoder::finish`] after 0, can give,
    /// at most.
    pub fn max_frames(&self, samples: usize) -> usize {
        match &self.mode {
            Mode::Steps(state) => in_steps(samples, state.max_samples(), |n| self.plan.max_frames(n)),
            Mode::Whole(_) => match &self.windows {
                Some((windows, _)) => {
                    windows.max_windows(samples).saturating_mul(self.plan.max_frames(windows.length()))
                }
                None => self.plan.max_frames((self.whole.len() / self.channels).saturating_add(samples)),
            },
            Mode::Segments(_) => {
                let Some((splitter, _)) = &self.splitter else { return 0 };
                splitter.max_segments(samples).saturating_mul(self.plan.max_frames(splitter.length()))
            }
        }
    }

    /// Samples (a channel) of the finished signal that no frame stands for: published systems without padding drop
    /// a last partial hop. They decode as silence.
    pub fn uncoded_samples(&self) -> u64 {
        self.samples.saturating_sub(self.frames.saturating_mul(self.hop))
    }

    /// Takes interleaved samples and appends the frames that are ready to `out`.
    ///
    /// # Errors
    /// A sample is not finite, the samples do not fill the channels, the signal has ended, or a model that needs the
    /// whole signal would need more memory than allowed.
    pub fn push(&mut self, pcm: &[f32], out: &mut Codes) -> Result<(), Error> {
        self.feed(pcm, false, out)
    }

    /// Ends the signal and appends its last frames to `out`.
    ///
    /// # Errors
    /// As [`Encoder::push`].
    pub fn finish(&mut self, out: &mut Codes) -> Result<(), Error> {
        self.feed(&[], true, out)
    }

    /// Forgets the signal: the next samples start a new one.
    pub fn reset(&mut self) {
        match &mut self.mode {
            Mode::Steps(state) | Mode::Segments(state) => state.reset(),
            Mode::Whole(_) => self.whole.clear(),
        }
        if let Some((splitter, _)) = &mut self.splitter {
            splitter.reset();
        }
        if let Some((windows, _)) = &mut self.windows {
            windows.reset();
        }
        (self.samples, self.frames, self.finished) = (0, 0, false);
    }

    fn feed(&mut self, pcm: &[f32], finish: bool, out: &mut Codes) -> Result<(), Error> {
        if !pcm.len().is_multiple_of(self.channels) {
            return Err(RunError::PartialRow { values: pcm.len(), channels: self.channels }.into());
        }
        if let Some(index) = pcm.iter().position(|v| !v.is_finite()) {
            return Err(RunError::NotFinite { index: index + self.samples as usize * self.channels }.into());
        }
        if self.finished {
            return Err(RunError::Finished.into());
        }
        out.codebooks = self.coding.codebooks;
        self.samples += (pcm.len() / self.channels) as u64;
        let before = out.frames();
        let (plan, channels, coding) = (self.plan, self.channels, &self.coding);
        let (codes, threads) = (&mut self.codes, &self.threads);
        match &mut self.mode {
            Mode::Steps(state) => threads.run(|cx| -> Result<(), Error> {
                let chunk = state.max_samples() * channels;
                let mut rest = pcm;
                loop {
                    let (now, later) = rest.split_at(chunk.min(rest.len()));
                    rest = later;
                    let last = finish && rest.is_empty();
                    step(plan, cx, state, now, last, ALL, codes, out)?;
                    if rest.is_empty() {
                        return Ok(());
                    }
                }
            })?,
            Mode::Whole(limit) => {
                let Some((windows, state)) = &mut self.windows else {
                    let rows = (self.whole.len() + pcm.len()) / channels;
                    let parts = encoder_memory(plan, rows.div_ceil(limit.hop), limit.hop, coding);
                    limit.check(parts, rows)?;
                    self.whole.extend_from_slice(pcm);
                    if finish {
                        let mut state = plan.state_for(rows.div_ceil(limit.hop), coding)?;
                        let whole = std::mem::take(&mut self.whole);
                        threads.run(|cx| step(plan, cx, &mut state, &whole, true, ALL, codes, out))?;
                    }
                    self.frames += (out.frames() - before) as u64;
                    self.finished = finish;
                    return Ok(());
                };
                let mut each = |pcm: &[f32], window: Window| -> Result<(), Error> {
                    let rows = pcm.len() / channels;
                    // The first window of a signal is its longest.
                    if state.as_ref().is_none_or(|state| state.max_samples() < rows) {
                        let frames = rows.div_ceil(limit.hop);
                        limit.check(encoder_memory(plan, frames, limit.hop, coding), rows)?;
                        *state = Some(plan.state_for(frames, coding)?);
                    }
                    let Some(state) = state else { return Ok(()) };
                    state.reset();
                    threads.run(|cx| step(plan, cx, state, pcm, true, window, codes, out))
                };
                windows.push(pcm, &mut each)?;
                if finish {
                    windows.finish(&mut each)?;
                }
            }
            Mode::Segments(state) => {
                let Some((splitter, loud)) = &mut self.splitter else { return Ok(()) };
                let mut each = |segment: &[f32]| -> Result<(), Error> {
                    let mut segment = segment.to_vec();
                    let scale = if *loud { normalize(&mut segment, channels) } else { 1.0 };
                    let before = out.frames();
                    state.reset();
                    threads.run(|cx| step(plan, cx, state, &segment, true, ALL, codes, out))?;
                    out.segments.push(Segment { frames: out.frames() - before, scale });
                    Ok(())
                };
                splitter.push(pcm, &mut each)?;
                if finish {
                    splitter.finish(&mut each)?;
                }
            }
        }
        self.frames += (out.frames() - before) as u64;
        self.finished = finish;
        Ok(())
    }
}

/// Every frame of a step.
const ALL: Window = Window { skip: 0, frames: None };

/// The codebooks asked for: the first, and how many.
fn books(quantizer: &Quantizer, options: &Options) -> Result<(usize, usize), RunError> {
    let first = options.first_codebook;
    let count = options.codebooks.unwrap_or_else(|| quantizer.codebooks().saturating_sub(first));
    quantizer.check_codebooks(first, count)?;
    Ok((first, count))
}

/// Appends the codes of those of a step's frames that a window gives.
#[allow(clippy::too_many_arguments)]
fn step(
    plan: &pipeline::Encoder,
    cx: codec_core::kernel::Compute<'_>,
    state: &mut pipeline::EncoderState,
    pcm: &[f32],
    finish: bool,
    window: Window,
    codes: &mut Vec<u16>,
    out: &mut Codes,
) -> Result<(), Error> {
    // As long as ever needed: nothing is allocated from step to step.
    codes.resize(state.max_frames().saturating_mul(state.codebooks()), 0);
    let frames = plan.step(cx, state, pcm, finish, codes)?;
    let frames = codes.chunks_exact(state.codebooks()).take(frames);
    for frame in frames.skip(window.skip).take(window.frames.unwrap_or(usize::MAX)) {
        out.data.extend_from_slice(frame);
    }
    Ok(())
}

/// Decodes one signal, given in pieces of any size.
pub struct Decoder<'m> {
    plan: &'m pipeline::Decoder,
    threads: Threads,
    mode: Mode<pipeline::DecoderState>,
    crossfade: Option<Crossfade>,
    whole: Vec<u16>,
    decoding: Decoding,
    segment_frames: usize,
    finished: bool,
}

impl<'m> Decoder<'m> {
    pub(crate) fn new(model: &'m Model, options: &Options) -> Result<Self, Error> {
        let plan = model.decoder_plan()?;
        let spec = model.spec();
        if !plan.quantizer().can_decode() {
            return Err(
                RunError::Unsupported("this model's quantizer has no inverse: its codes cannot be decoded").into()
            );
        }
        let (first, codebooks) = books(plan.quantizer(), options)?;
        let decoding = Decoding { first, codebooks, noise_seed: options.noise_seed };
        plan.check(&decoding)?;
        let hop = spec.hop as usize;
        let (mut crossfade, mut segment_frames) = (None, 0);
        let mode = match (segments(spec), &plan.chain().plan().whole) {
            (Some((length, stride, _)), _) => {
                crossfade = Some(Crossfade::new(spec.channels as usize, stride));
                segment_frames = length.div_ceil(hop);
                check_memory(spec, options, decoder_memory(plan, segment_frames))?;
                Mode::Segments(plan.state_for(segment_frames, &decoding)?)
            }
            (None, Some(reason)) => Mode::Whole(Limit {
                model: spec.name.clone(),
                reason: reason.clone(),
                sample_rate: spec.sample_rate,
                hop,
                bytes: options.max_memory,
            }),
            (None, None) => {
                let rows = plan.quantizer().rows_per_frame();
                let frames = chunk_frames(plan.chain(), spec, rows);
                check_memory(spec, options, decoder_memory(plan, frames))?;
                Mode::Steps(plan.state_for(frames, &decoding)?)
            }
        };
        let threads = Threads::new(options.threads, options.isa)?;
        Ok(Self { plan, threads, mode, crossfade, whole: Vec::new(), decoding, segment_frames, finished: false })
    }

    /// Codes a frame.
    pub fn codebooks(&self) -> usize {
        self.decoding.codebooks
    }

    /// Samples (a channel) that the next [`Decoder::push`] of `frames` frames, of one segment where the model cuts signals,
    /// or [`Decoder::finish`] after 0, can give, at most.
    pub fn max_samples(&self, frames: usize) -> usize {
        let rows = self.plan.quantizer().rows_per_frame();
        let step = |frames: usize| self.plan.chain().max_output_rows(frames.saturating_mul(rows));
        match &self.mode {
            Mode::Steps(state) => in_steps(frames, state.max_frames(), step),
            Mode::Whole(_) => step((self.whole.len() / self.decoding.codebooks.max(1)).saturating_add(frames)),
            // A segment lets out what lies before it, and the end what is left.
            Mode::Segments(_) => step(self.segment_frames),
        }
    }

    /// Takes frames and appends the samples (interleaved) that are ready to `out`. For a model that cuts the signal,
    /// `codes` holds whole segments.
    ///
    /// # Errors
    /// Codes out of range or of another number a frame, segments where there should be none or none where there
    /// should be, the signal has ended, or a model that needs the whole signal would need more memory than allowed.
    pub fn push(&mut self, codes: &Codes, out: &mut Vec<f32>) -> Result<(), Error> {
        self.feed(codes, false, out)
    }

    /// Ends the signal and appends its last samples to `out`.
    ///
    /// # Errors
    /// As [`Decoder::push`].
    pub fn finish(&mut self, out: &mut Vec<f32>) -> Result<(), Error> {
        self.feed(&Codes::new(self.decoding.codebooks), true, out)
    }

    /// Forgets the signal: the next frames start a new one.
    pub fn reset(&mut self) {
        self.finished = false;
        match &mut self.mode {
            Mode::Steps(state) | Mode::Segments(state) => state.reset(),
            Mode::Whole(_) => self.whole.clear(),
        }
        if let Some(crossfade) = &mut self.crossfade {
            crossfade.finish(&mut Vec::new());
        }
    }

    fn feed(&mut self, codes: &Codes, finish: bool, out: &mut Vec<f32>) -> Result<(), Error> {
        if self.finished {
            return Err(RunError::Finished.into());
        }
        self.run(codes, finish, out)?;
        self.finished = finish;
        Ok(())
    }

    fn run(&mut self, codes: &Codes, finish: bool, out: &mut Vec<f32>) -> Result<(), Error> {
        if codes.codebooks != self.decoding.codebooks || !codes.data.len().is_multiple_of(self.decoding.codebooks) {
            return Err(Error::CodesPerFrame {
                codes: codes.data.len(),
                got: codes.codebooks,
                expected: self.decoding.codebooks,
            });
        }
        let plan = self.plan;
        match &mut self.mode {
            Mode::Steps(state) => {
                no_segments(codes)?;
                let chunk = state.max_frames() * self.decoding.codebooks;
                let all = codes.frames();
                self.threads.run(|cx| -> Result<(), Error> {
                    let mut rest = &codes.data[..];
                    loop {
                        let before = all - rest.len() / state.codebooks();
                        let (now, later) = rest.split_at(chunk.min(rest.len()));
                        rest = later;
                        let step = plan.step(cx, state, now, finish && rest.is_empty());
                        out.extend_from_slice(step.map_err(|e| from_frame(e, before))?);
                        if rest.is_empty() {
                            return Ok(());
                        }
                    }
                })
            }
            Mode::Whole(limit) => {
                no_segments(codes)?;
                let frames = (self.whole.len() + codes.data.len()) / self.decoding.codebooks;
                limit.check(decoder_memory(plan, frames), frames.saturating_mul(limit.hop))?;
                self.whole.extend_from_slice(&codes.data);
                if finish {
                    let mut state = plan.state_for(frames, &self.decoding)?;
                    let whole = std::mem::take(&mut self.whole);
                    self.threads.run(|cx| -> Result<(), Error> {
                        out.extend_from_slice(plan.step(cx, &mut state, &whole, true)?);
                        Ok(())
                    })?;
                }
                Ok(())
            }
            Mode::Segments(state) => {
                let Some(crossfade) = &mut self.crossfade else { return Ok(()) };
                let mut rest = &codes.data[..];
                for segment in &codes.segments {
                    let len = segment.frames.saturating_mul(self.decoding.codebooks);
                    if segment.frames > self.segment_frames || len > rest.len() || !segment.scale.is_finite() {
                        return Err(Error::Segment {
                            frames: segment.frames,
                            scale: segment.scale,
                            most: self.segment_frames,
                            given: rest.len() / self.decoding.codebooks,
                        });
                    }
                    let (now, later) = rest.split_at(len);
                    rest = later;
                    state.reset();
                    self.threads.run(|cx| -> Result<(), Error> {
                        crossfade.push(plan.step(cx, state, now, true)?, segment.scale, out);
                        Ok(())
                    })?;
                }
                if !rest.is_empty() {
                    let frames = rest.len() / self.decoding.codebooks;
                    return Err(Error::NoSegment { frames });
                }
                if finish {
                    crossfade.finish(out);
                }
                Ok(())
            }
        }
    }
}

/// What `count` items give at most, if `step` of them at a time give `of(step)`; none are a step too.
fn in_steps(count: usize, step: usize, of: impl Fn(usize) -> usize) -> usize {
    let (whole, rest) = (count / step.max(1), count % step.max(1));
    let last = if rest > 0 || whole == 0 { of(rest) } else { 0 };
    whole.saturating_mul(if whole > 0 { of(step.max(1)) } else { 0 }).saturating_add(last)
}

/// An engine's error with its frame counted from the start of the call.
fn from_frame(e: RunError, before: usize) -> RunError {
    match e {
        RunError::CodeOutOfRange { frame, codebook, code, size } => {
            RunError::CodeOutOfRange { frame: frame + before, codebook, code, size }
        }
        e => e,
    }
}

fn no_segments(codes: &Codes) -> Result<(), Error> {
    if codes.segments.is_empty() {
        return Ok(());
    }
    Err(Error::Segments { segments: codes.segments.len() })
}

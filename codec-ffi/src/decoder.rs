use std::{
    ffi::{c_char, c_void},
    sync::Arc,
};

use codec::{Codes, Options, Segment, core::spec::Framing};

use crate::{
    args::{self, Args, Out},
    codec_decoder_options, codec_model,
    codec_status::{self, *},
    encoder::limits,
    handle::{self, Kind},
    model::{self, Loaded, Shared},
    placed::PlacedDecoder,
    status::Failure,
    structs,
};

/// Decodes one signal, given in pieces of any size.
pub struct codec_decoder {
    _opaque: (),
}

/// What a `codec_decoder` does, wherever its state lies.
pub(crate) trait Decode {
    fn channels(&self) -> usize;
    fn codebooks(&self) -> usize;
    /// Entries of each codebook.
    fn sizes(&self) -> Result<&[u32], Failure>;
    fn is_segmented(&self) -> bool;
    fn max_samples(&self, frames: usize) -> usize;
    /// Returns the samples (a channel) written to `pcm`, which has room for `max_samples`.
    fn run(&mut self, codes: &[u16], what: Part, pcm: Out<'_, f32>) -> Result<usize, Failure>;
    fn reset(&mut self) -> Result<(), Failure>;
}

/// What codes are.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Part {
    Frames,
    /// A whole one, with its scale.
    Segment(f32),
    End,
}

/// The body of a `codec_decoder` of the library's memory.
pub(crate) struct Decoder {
    // Before the model that it borrows from.
    stream: codec::Decoder<'static>,
    codes: Codes,
    pcm: Vec<f32>,
    /// Which of the model's codes of a frame is the first.
    first: usize,
    channels: usize,
    model: Arc<Loaded>,
}

impl Kind for Decoder {
    type Opaque = codec_decoder;
    const NAME: &'static str = "codec_decoder";
    const MAGIC: u64 = u64::from_le_bytes(*b"codecDEC");
}

/// Handles move between threads.
const fn is_send<T: Send>() {}
const _: () = is_send::<Decoder>();

/// The seed of a decoder's noise, if there is one.
pub(crate) fn noise_seed(options: &codec_decoder_options) -> Result<Option<u64>, Failure> {
    match (options.has_noise_seed, options.noise_seed) {
        (0, 0) => Ok(None),
        (1, seed) => Ok(Some(seed)),
        (0, seed) => {
            Err(Failure::new(CODEC_ERROR_ARGUMENT, format!("`noise_seed` is {seed} and `has_noise_seed` is not 1")))
        }
        (n, _) => Err(Failure::new(CODEC_ERROR_ARGUMENT, format!("`has_noise_seed` is {n}; it is 0 or 1"))),
    }
}

/// Makes a decoder; `options` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_decoder_create(
    model: *const codec_model,
    options: *const codec_decoder_options,
    decoder: *mut *mut codec_decoder,
) -> codec_status {
    // SAFETY: the caller's pointers are null or valid, `options` for the size that it states.
    unsafe {
        handle::create(decoder, || {
            let shared = Arc::clone(&handle::body::<Shared>(model)?.0);
            let asked = structs::options(options)?;
            structs::unused(asked.reserved)?;
            let channels = shared.model.spec().channels as usize;
            // Planning the decoder first: its absence is the better error.
            shared.model.decoder_plan()?;
            let (first_codebook, codebooks) = model::codebooks(&shared.model, asked.first_codebook, asked.codebooks)?;
            let options = Options {
                first_codebook,
                codebooks: Some(codebooks),
                noise_seed: noise_seed(&asked)?,
                ..limits(asked.threads, asked.max_memory)?
            };
            // `stream` goes before the `Arc` beside it.
            let stream = shared.forever().decoder(&options)?;
            let codes = Codes::new(stream.codebooks());
            Ok(Decoder { stream, codes, pcm: Vec::new(), first: first_codebook, channels, model: shared })
        })
    }
}

/// Bytes that codec_decoder_init needs for these options, which may be null; 0 on an error, of which codec_last_error tells.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_decoder_state_size(
    model: *const codec_model,
    options: *const codec_decoder_options,
) -> usize {
    let mut size = 0;
    // SAFETY: the caller's pointers are null or valid, `options` for the size that it states.
    handle::call(|| unsafe {
        size = PlacedDecoder::plan(model, structs::options(options)?)?.0;
        Ok(())
    });
    size
}

/// Makes a decoder in memory of the caller's, as codec_encoder_init makes an encoder.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_decoder_init(
    memory: *mut c_void,
    size: usize,
    model: *const codec_model,
    options: *const codec_decoder_options,
    decoder: *mut *mut codec_decoder,
) -> codec_status {
    // SAFETY: the caller's pointers are null or valid, `options` for the size that it states.
    handle::call(|| unsafe { PlacedDecoder::init((memory, size), model, structs::options(options)?, decoder) })
}

/// Ends a decoder; null is none. Of one in memory of the caller's, it marks the memory and nothing else.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_decoder_destroy(decoder: *mut codec_decoder) -> codec_status {
    // SAFETY: the caller's pointer is null or a handle that no other call uses.
    unsafe {
        match handle::is::<PlacedDecoder>(decoder) {
            true => handle::destroy::<PlacedDecoder>(decoder, false),
            false => handle::destroy::<Decoder>(decoder, true),
        }
    }
}

/// The text of the decoder's last error; empty if there was none. It stays until the next call with the decoder. Never null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_decoder_error(decoder: *const codec_decoder) -> *const c_char {
    // SAFETY: the caller's pointer is null or a handle that no other call uses.
    unsafe {
        match handle::is::<PlacedDecoder>(decoder) {
            true => handle::error::<PlacedDecoder>(decoder),
            false => handle::error::<Decoder>(decoder),
        }
    }
}

/// The most samples (a channel) that the next push of `frames` frames can give, or, of 0 frames, the next
/// codec_decoder_finish: what their `capacity` must be at least. For a model that cuts signals it is the same for every
/// segment.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_decoder_max_samples(
    decoder: *mut codec_decoder,
    frames: usize,
    samples: *mut usize,
) -> codec_status {
    // SAFETY: the caller's pointers are null or valid.
    unsafe {
        with(decoder, |decoder, args| {
            args::check(samples, 1, "samples")?;
            let out = args.output(samples, 1, "samples")?;
            args.disjoint()?;
            out.fill(&[decoder.max_samples(frames)], "samples")
        })
    }
}

impl Decode for Decoder {
    fn channels(&self) -> usize {
        self.channels
    }

    fn codebooks(&self) -> usize {
        self.stream.codebooks()
    }

    fn sizes(&self) -> Result<&[u32], Failure> {
        let sizes = self.model.model.quantizer()?.sizes();
        Ok(sizes.get(self.first..self.first.saturating_add(self.codebooks())).unwrap_or_default())
    }

    fn is_segmented(&self) -> bool {
        matches!(self.model.model.spec().framing, Framing::Segments { .. })
    }

    fn max_samples(&self, frames: usize) -> usize {
        self.stream.max_samples(frames)
    }

    fn run(&mut self, codes: &[u16], what: Part, pcm: Out<'_, f32>) -> Result<usize, Failure> {
        self.codes.clear();
        self.codes.data.extend_from_slice(codes);
        self.pcm.clear();
        if let Part::Segment(scale) = what {
            self.codes.segments.push(Segment { frames: self.codes.frames(), scale });
        }
        match what {
            Part::End => self.stream.finish(&mut self.pcm)?,
            _ => self.stream.push(&self.codes, &mut self.pcm)?,
        }
        pcm.fill(&self.pcm, "pcm")?;
        Ok(self.pcm.len() / self.channels.max(1))
    }

    fn reset(&mut self) -> Result<(), Failure> {
        self.stream.reset();
        Ok(())
    }
}

/// A call with a decoder of either kind.
///
/// # Safety
/// The pointer is null, misaligned or a handle.
unsafe fn with(
    decoder: *mut codec_decoder,
    f: impl FnOnce(&mut dyn Decode, &mut Args) -> Result<(), Failure>,
) -> codec_status {
    // SAFETY: this function's condition.
    unsafe {
        if handle::is::<PlacedDecoder>(decoder) {
            handle::exclusive::<PlacedDecoder>(decoder, |head, args| f(&mut head.view(decoder)?, args))
        } else {
            handle::exclusive::<Decoder>(decoder, |decoder, args| f(decoder, args))
        }
    }
}

/// Checks what C gives, and gets samples from the decoder.
///
/// # Safety
/// The pointers are null, misaligned or valid.
unsafe fn run(
    decoder: &mut dyn Decode,
    args: &mut Args,
    (codes, frames, what): (*const u16, usize, Part),
    (pcm, capacity, samples): (*mut f32, usize, *mut usize),
) -> Result<(), Failure> {
    args::check(samples, 1, "samples")?;
    let codebooks = decoder.codebooks();
    // SAFETY: this function's condition.
    let (codes, pcm, samples) = unsafe {
        (
            args.input(codes, frames.saturating_mul(codebooks), "codes")?,
            args.output(pcm, capacity.saturating_mul(decoder.channels()), "pcm")?,
            args.output(samples, 1, "samples")?,
        )
    };
    args.disjoint()?;
    let needed = decoder.max_samples(frames);
    if capacity < needed {
        let text = format!("`pcm` has room for {capacity} samples a channel and needs {needed}");
        return Err(Failure::new(CODEC_ERROR_BUFFER_TOO_SHORT, text));
    }
    // SAFETY: all arguments are disjoint.
    let codes = unsafe { codes.get() };
    model::check_codes(decoder.sizes()?, codes)?;
    let written = decoder.run(codes, what, pcm)?;
    samples.fill(&[written], "samples")
}

/// Takes frames and gives the samples that are ready, interleaved: `*samples` of every channel. `capacity` is a channel's, at least
/// codec_decoder_max_samples.
///
/// After CODEC_ERROR_MEMORY the signal cannot go on: reset. Other errors take nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_decoder_push(
    decoder: *mut codec_decoder,
    codes: *const u16,
    frames: usize,
    pcm: *mut f32,
    capacity: usize,
    samples: *mut usize,
) -> codec_status {
    // SAFETY: the caller's pointers are null or valid for the lengths given with them.
    unsafe {
        with(decoder, |decoder, args| {
            if decoder.is_segmented() {
                let text = "this model codes in segments: give them to codec_decoder_push_segment";
                return Err(Failure::new(CODEC_ERROR_UNSUPPORTED, text));
            }
            run(decoder, args, (codes, frames, Part::Frames), (pcm, capacity, samples))
        })
    }
}

/// As codec_decoder_push, of a whole segment and its scale, for a model that cuts signals into segments.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_decoder_push_segment(
    decoder: *mut codec_decoder,
    codes: *const u16,
    frames: usize,
    scale: f32,
    pcm: *mut f32,
    capacity: usize,
    samples: *mut usize,
) -> codec_status {
    // SAFETY: the caller's pointers are null or valid for the lengths given with them.
    unsafe {
        with(decoder, |decoder, args| {
            if !decoder.is_segmented() {
                let text = "this model does not code in segments: use codec_decoder_push";
                return Err(Failure::new(CODEC_ERROR_UNSUPPORTED, text));
            }
            run(decoder, args, (codes, frames, Part::Segment(scale)), (pcm, capacity, samples))
        })
    }
}

/// Ends the signal and gives its last samples. `capacity` is at least codec_decoder_max_samples of 0 frames.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_decoder_finish(
    decoder: *mut codec_decoder,
    pcm: *mut f32,
    capacity: usize,
    samples: *mut usize,
) -> codec_status {
    // SAFETY: the caller's pointers are null or valid for the lengths given with them.
    unsafe {
        with(decoder, |decoder, args| run(decoder, args, (std::ptr::null(), 0, Part::End), (pcm, capacity, samples)))
    }
}

/// Forgets the signal: the next frames start a new one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_decoder_reset(decoder: *mut codec_decoder) -> codec_status {
    // SAFETY: the caller's pointer is null or a handle.
    unsafe { with(decoder, |decoder, _| decoder.reset()) }
}

use std::{
    ffi::{c_char, c_void},
    sync::Arc,
};

use codec::{Codes, Options, Segment};

use crate::{
    args::{self, Args, Out},
    codec_encoder_options, codec_model, codec_segment,
    codec_status::{self, *},
    handle::{self, Kind},
    model::{self, Loaded, Shared},
    placed::PlacedEncoder,
    status::Failure,
    structs,
};

/// Encodes one signal, given in pieces of any size.
pub struct codec_encoder {
    _opaque: (),
}

/// What a `codec_encoder` does, wherever its state lies.
pub(crate) trait Encode {
    fn channels(&self) -> usize;
    fn codebooks(&self) -> usize;
    fn max_frames(&self, samples: usize) -> usize;
    /// Returns the frames written to `codes`, which has room for `max_frames`.
    fn run(&mut self, pcm: &[f32], finish: bool, codes: Out<'_, u16>) -> Result<usize, Failure>;
    /// Of what the last run gave.
    fn segments(&self) -> &[Segment];
    fn reset(&mut self) -> Result<(), Failure>;
}

/// The body of a `codec_encoder` of the library's memory.
pub(crate) struct Encoder {
    // Before the model that it borrows from.
    stream: codec::Encoder<'static>,
    codes: Codes,
    channels: usize,
    _model: Arc<Loaded>,
}

impl Kind for Encoder {
    type Opaque = codec_encoder;
    const NAME: &'static str = "codec_encoder";
    const MAGIC: u64 = u64::from_le_bytes(*b"codecENC");
}

/// Handles move between threads.
const fn is_send<T: Send>() {}
const _: () = is_send::<Encoder>();

/// A number of threads, and a limit of memory, as the library takes them.
pub(crate) fn limits(threads: u32, max_memory: u64) -> Result<Options, Failure> {
    let threads = match threads {
        0 => 1,
        structs::CODEC_ALL_THREADS => 0,
        n @ 1..=structs::CODEC_MAX_THREADS => n as usize,
        n => {
            let text = format!("{n} threads; at most {}, or CODEC_ALL_THREADS", structs::CODEC_MAX_THREADS);
            return Err(Failure::new(CODEC_ERROR_ARGUMENT, text));
        }
    };
    let defaults = Options::default();
    let max_memory = if max_memory == 0 { defaults.max_memory } else { max_memory };
    Ok(Options { threads, max_memory, ..defaults })
}

/// Makes an encoder; `options` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_encoder_create(
    model: *const codec_model,
    options: *const codec_encoder_options,
    encoder: *mut *mut codec_encoder,
) -> codec_status {
    // SAFETY: the caller's pointers are null or valid, `options` for the size that it states.
    unsafe {
        handle::create(encoder, || {
            let shared = Arc::clone(&handle::body::<Shared>(model)?.0);
            let asked = structs::options(options)?;
            let channels = shared.model.spec().channels as usize;
            // Planning the encoder first: its absence is the better error.
            shared.model.encoder_plan()?;
            let (first_codebook, codebooks) = model::codebooks(&shared.model, asked.first_codebook, asked.codebooks)?;
            let options = Options {
                first_codebook,
                codebooks: Some(codebooks),
                beam: asked.beam as usize,
                merged_books: asked.merged_codebooks as usize,
                ..limits(asked.threads, asked.max_memory)?
            };
            // `stream` goes before the `Arc` beside it.
            let stream = shared.forever().encoder(&options)?;
            let codes = Codes::new(stream.codebooks());
            Ok(Encoder { stream, codes, channels, _model: shared })
        })
    }
}

/// Bytes that codec_encoder_init needs for these options, which may be null; 0 on an error, of which codec_last_error tells.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_encoder_state_size(
    model: *const codec_model,
    options: *const codec_encoder_options,
) -> usize {
    let mut size = 0;
    // SAFETY: the caller's pointers are null or valid, `options` for the size that it states.
    handle::call(|| unsafe {
        size = PlacedEncoder::plan(model, structs::options(options)?)?.0;
        Ok(())
    });
    size
}

/// Makes an encoder in memory of the caller's: `size` bytes, at least codec_encoder_state_size for the same options, at a multiple of
/// CODEC_STATE_ALIGN. `*encoder` gets the address of the memory. No call with it allocates, unless it fails.
///
/// The memory is plain and position independent: between calls it may be copied, also to continue twice from one place, or
/// simply be forgotten. The model must stay until then. It computes with the calling thread. For models that take a
/// signal in pieces; else CODEC_ERROR_UNSUPPORTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_encoder_init(
    memory: *mut c_void,
    size: usize,
    model: *const codec_model,
    options: *const codec_encoder_options,
    encoder: *mut *mut codec_encoder,
) -> codec_status {
    // SAFETY: the caller's pointers are null or valid, `options` for the size that it states.
    handle::call(|| unsafe { PlacedEncoder::init((memory, size), model, structs::options(options)?, encoder) })
}

/// Ends an encoder; null is none. Of one in memory of the caller's, it marks the memory and nothing else.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_encoder_destroy(encoder: *mut codec_encoder) -> codec_status {
    // SAFETY: the caller's pointer is null or a handle that no other call uses.
    unsafe {
        match handle::is::<PlacedEncoder>(encoder) {
            true => handle::destroy::<PlacedEncoder>(encoder, false),
            false => handle::destroy::<Encoder>(encoder, true),
        }
    }
}

/// The text of the encoder's last error; empty if there was none. It stays until the next call with the encoder. Never null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_encoder_error(encoder: *const codec_encoder) -> *const c_char {
    // SAFETY: the caller's pointer is null or a handle that no other call uses.
    unsafe {
        match handle::is::<PlacedEncoder>(encoder) {
            true => handle::error::<PlacedEncoder>(encoder),
            false => handle::error::<Encoder>(encoder),
        }
    }
}

/// The most frames that the next codec_encoder_push of `samples` samples can give, or, of 0 samples, the next
/// codec_encoder_finish: what their `capacity` must be at least.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_encoder_max_frames(
    encoder: *mut codec_encoder,
    samples: usize,
    frames: *mut usize,
) -> codec_status {
    // SAFETY: the caller's pointers are null or valid.
    unsafe {
        with(encoder, |encoder, args| {
            args::check(frames, 1, "frames")?;
            let out = args.output(frames, 1, "frames")?;
            args.disjoint()?;
            out.fill(&[encoder.max_frames(samples)], "frames")
        })
    }
}

impl Encode for Encoder {
    fn channels(&self) -> usize {
        self.channels
    }

    fn codebooks(&self) -> usize {
        self.stream.codebooks()
    }

    fn max_frames(&self, samples: usize) -> usize {
        self.stream.max_frames(samples)
    }

    fn run(&mut self, pcm: &[f32], finish: bool, codes: Out<'_, u16>) -> Result<usize, Failure> {
        self.codes.clear();
        match finish {
            true => self.stream.finish(&mut self.codes)?,
            false => self.stream.push(pcm, &mut self.codes)?,
        }
        codes.fill(&self.codes.data, "codes")?;
        Ok(self.codes.frames())
    }

    fn segments(&self) -> &[Segment] {
        &self.codes.segments
    }

    fn reset(&mut self) -> Result<(), Failure> {
        self.codes.clear();
        self.stream.reset();
        Ok(())
    }
}

/// A call with an encoder of either kind.
///
/// # Safety
/// The pointer is null, misaligned or a handle.
unsafe fn with(
    encoder: *mut codec_encoder,
    f: impl FnOnce(&mut dyn Encode, &mut Args) -> Result<(), Failure>,
) -> codec_status {
    // SAFETY: this function's condition.
    unsafe {
        if handle::is::<PlacedEncoder>(encoder) {
            handle::exclusive::<PlacedEncoder>(encoder, |head, args| f(&mut head.view(encoder)?, args))
        } else {
            handle::exclusive::<Encoder>(encoder, |encoder, args| f(encoder, args))
        }
    }
}

/// Checks where frames go and gets them from the encoder.
///
/// # Safety
/// The pointers are null, misaligned or valid.
unsafe fn run(
    encoder: &mut dyn Encode,
    args: &mut Args,
    (pcm, samples, finish): (*const f32, usize, bool),
    (codes, capacity, frames): (*mut u16, usize, *mut usize),
) -> Result<(), Failure> {
    args::check(frames, 1, "frames")?;
    let values = capacity.saturating_mul(encoder.codebooks());
    // SAFETY: this function's condition.
    let (pcm, codes, frames) = unsafe {
        (
            args.input(pcm, samples.saturating_mul(encoder.channels()), "pcm")?,
            args.output(codes, values, "codes")?,
            args.output(frames, 1, "frames")?,
        )
    };
    args.disjoint()?;
    let needed = encoder.max_frames(samples);
    if capacity < needed {
        let text = format!("`codes` has room for {capacity} frames and needs {needed}");
        return Err(Failure::new(CODEC_ERROR_BUFFER_TOO_SHORT, text));
    }
    // SAFETY: all arguments are disjoint.
    let written = encoder.run(unsafe { pcm.get() }, finish, codes)?;
    frames.fill(&[written], "frames")
}

/// Takes `samples` samples of every channel, interleaved, and gives the frames that are ready: `*frames` of them, each of as many codes as
/// the encoder was made for. `capacity` is in frames, at least codec_encoder_max_frames.
///
/// After CODEC_ERROR_MEMORY the signal cannot go on: reset. Other errors take nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_encoder_push(
    encoder: *mut codec_encoder,
    pcm: *const f32,
    samples: usize,
    codes: *mut u16,
    capacity: usize,
    frames: *mut usize,
) -> codec_status {
    // SAFETY: the caller's pointers are null or valid for the lengths given with them.
    unsafe { with(encoder, |encoder, args| run(encoder, args, (pcm, samples, false), (codes, capacity, frames))) }
}

/// Ends the signal and gives its last frames. `capacity` is at least codec_encoder_max_frames of 0 samples.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_encoder_finish(
    encoder: *mut codec_encoder,
    codes: *mut u16,
    capacity: usize,
    frames: *mut usize,
) -> codec_status {
    // SAFETY: the caller's pointers are null or valid for the lengths given with them.
    unsafe { with(encoder, |encoder, args| run(encoder, args, (std::ptr::null(), 0, true), (codes, capacity, frames))) }
}

/// The segments that the frames of the last push or finish belong to, for a model that cuts signals into segments; none for
/// others. `count` gets how many there are; with a capacity of 0, only that.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_encoder_segments(
    encoder: *mut codec_encoder,
    segments: *mut codec_segment,
    capacity: usize,
    count: *mut usize,
) -> codec_status {
    // SAFETY: the caller's pointers are null or valid for the lengths given with them.
    unsafe {
        with(encoder, |encoder, args| {
            let segment = |s: &codec::Segment| codec_segment { frames: s.frames, scale: s.scale };
            let all: Vec<codec_segment> = encoder.segments().iter().map(segment).collect();
            model::list(args, &all, (segments, capacity), count)
        })
    }
}

/// Forgets the signal: the next samples start a new one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_encoder_reset(encoder: *mut codec_encoder) -> codec_status {
    // SAFETY: the caller's pointer is null or a handle.
    unsafe { with(encoder, |encoder, _| encoder.reset()) }
}

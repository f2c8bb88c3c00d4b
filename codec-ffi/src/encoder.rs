use std::{ffi::c_char, sync::Arc};

use codec::{Codes, Options};

use crate::{
    args::{self, Args, Out},
    codec_encoder_options, codec_model, codec_segment,
    codec_status::{self, *},
    handle::{self, Kind},
    model::{self, Loaded, Shared},
    status::Failure,
    structs,
};

/// Encodes one signal, given in pieces of any size.
pub struct codec_encoder {
    _opaque: (),
}

/// The body of a `codec_encoder`.
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
            let options = Options {
                codebooks: Some(model::codebooks(&shared.model, asked.codebooks)?),
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

/// Ends an encoder; null is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_encoder_destroy(encoder: *mut codec_encoder) -> codec_status {
    // SAFETY: the caller's pointer is null or a handle that no other call uses.
    unsafe { handle::destroy::<Encoder>(encoder) }
}

/// The text of the encoder's last error; empty if there was none. It stays until the next call with the encoder. Never null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_encoder_error(encoder: *const codec_encoder) -> *const c_char {
    // SAFETY: the caller's pointer is null or a handle that no other call uses.
    unsafe { handle::error::<Encoder>(encoder) }
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
        handle::exclusive::<Encoder>(encoder, |encoder, args| {
            args::check(frames, 1, "frames")?;
            let out = args.output(frames, 1, "frames")?;
            args.disjoint()?;
            out.fill(&[encoder.stream.max_frames(samples)], "frames")
        })
    }
}

impl Encoder {
    /// # Safety
    /// The pointers are null, misaligned or valid.
    unsafe fn outputs<'a>(
        &self,
        args: &mut Args,
        samples: usize,
        (codes, capacity): (*mut u16, usize),
        frames: *mut usize,
    ) -> Result<(Out<'a, u16>, Out<'a, usize>), Failure> {
        args::check(frames, 1, "frames")?;
        let values = capacity.saturating_mul(self.stream.codebooks());
        // SAFETY: this function's condition.
        let outputs = unsafe { (args.output(codes, values, "codes")?, args.output(frames, 1, "frames")?) };
        args.disjoint()?;
        let needed = self.stream.max_frames(samples);
        if capacity < needed {
            let text = format!("`codes` has room for {capacity} frames and needs {needed}");
            return Err(Failure::new(CODEC_ERROR_BUFFER_TOO_SHORT, text));
        }
        Ok(outputs)
    }

    fn deliver(&self, (codes, frames): (Out<'_, u16>, Out<'_, usize>)) -> Result<(), Failure> {
        codes.fill(&self.codes.data, "codes")?;
        frames.fill(&[self.codes.frames()], "frames")
    }
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
    unsafe {
        handle::exclusive::<Encoder>(encoder, |encoder, args| {
            let pcm = args.input(pcm, samples.saturating_mul(encoder.channels), "pcm")?;
            let outputs = encoder.outputs(args, samples, (codes, capacity), frames)?;
            encoder.codes.clear();
            encoder.stream.push(pcm, &mut encoder.codes)?;
            encoder.deliver(outputs)
        })
    }
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
    unsafe {
        handle::exclusive::<Encoder>(encoder, |encoder, args| {
            let outputs = encoder.outputs(args, 0, (codes, capacity), frames)?;
            encoder.codes.clear();
            encoder.stream.finish(&mut encoder.codes)?;
            encoder.deliver(outputs)
        })
    }
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
        handle::exclusive::<Encoder>(encoder, |encoder, args| {
            let segment = |s: &codec::Segment| codec_segment { frames: s.frames, scale: s.scale };
            let all: Vec<codec_segment> = encoder.codes.segments.iter().map(segment).collect();
            model::list(args, &all, (segments, capacity), count)
        })
    }
}

/// Forgets the signal: the next samples start a new one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_encoder_reset(encoder: *mut codec_encoder) -> codec_status {
    // SAFETY: the caller's pointer is null or a handle.
    unsafe {
        handle::exclusive::<Encoder>(encoder, |encoder, _| {
            encoder.codes.clear();
            encoder.stream.reset();
            Ok(())
        })
    }
}

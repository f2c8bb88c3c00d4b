use std::{ffi::c_char, sync::Arc};

use codec::{Codes, Options, Segment, core::spec::Framing};

use crate::{
    args::{self, Args, Out},
    codec_decoder_options, codec_model,
    codec_status::{self, *},
    encoder::limits,
    handle::{self, Kind},
    model::{self, Loaded, Shared},
    status::Failure,
    structs,
};

/// Decodes one signal, given in pieces of any size.
pub struct codec_decoder {
    _opaque: (),
}

/// The body of a `codec_decoder`.
pub(crate) struct Decoder {
    // Before the model that it borrows from.
    stream: codec::Decoder<'static>,
    codes: Codes,
    pcm: Vec<f32>,
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
            let channels = shared.model.spec().channels as usize;
            // Planning the decoder first: its absence is the better error.
            shared.model.decoder_plan()?;
            let options = Options {
                codebooks: Some(model::codebooks(&shared.model, asked.codebooks)?),
                ..limits(asked.threads, asked.max_memory)?
            };
            // `stream` goes before the `Arc` beside it.
            let stream = shared.forever().decoder(&options)?;
            let codes = Codes::new(stream.codebooks());
            Ok(Decoder { stream, codes, pcm: Vec::new(), channels, model: shared })
        })
    }
}

/// Ends a decoder; null is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_decoder_destroy(decoder: *mut codec_decoder) -> codec_status {
    // SAFETY: the caller's pointer is null or a handle that no other call uses.
    unsafe { handle::destroy::<Decoder>(decoder) }
}

/// The text of the decoder's last error; empty if there was none. It stays until the next call with the decoder. Never null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_decoder_error(decoder: *const codec_decoder) -> *const c_char {
    // SAFETY: the caller's pointer is null or a handle that no other call uses.
    unsafe { handle::error::<Decoder>(decoder) }
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
        handle::exclusive::<Decoder>(decoder, |decoder, args| {
            args::check(samples, 1, "samples")?;
            let out = args.output(samples, 1, "samples")?;
            args.disjoint()?;
            out.fill(&[decoder.stream.max_samples(frames)], "samples")
        })
    }
}

/// What C gives with codes to decode.
struct Call {
    codes: *const u16,
    frames: usize,
    pcm: *mut f32,
    capacity: usize,
    samples: *mut usize,
}

impl Decoder {
    fn is_segmented(&self) -> bool {
        matches!(self.model.model.spec().framing, Framing::Segments { .. })
    }

    /// Checks what C gives and takes the codes.
    ///
    /// # Safety
    /// The pointers are null, misaligned or valid.
    unsafe fn prepare<'a>(
        &mut self,
        args: &mut Args,
        call: &Call,
    ) -> Result<(Out<'a, f32>, Out<'a, usize>), Failure> {
        let codebooks = self.stream.codebooks();
        args::check(call.samples, 1, "samples")?;
        // SAFETY: this function's condition.
        let (codes, pcm, samples) = unsafe {
            (
                args.input(call.codes, call.frames.saturating_mul(codebooks), "codes")?,
                args.output(call.pcm, call.capacity.saturating_mul(self.channels), "pcm")?,
                args.output(call.samples, 1, "samples")?,
            )
        };
        args.disjoint()?;
        let needed = self.stream.max_samples(call.frames);
        if call.capacity < needed {
            let text = format!("`pcm` has room for {} samples a channel and needs {needed}", call.capacity);
            return Err(Failure::new(CODEC_ERROR_BUFFER_TOO_SHORT, text));
        }
        let sizes = self.model.model.quantizer()?.sizes();
        model::check_codes(sizes.get(..codebooks).unwrap_or(sizes), codes)?;
        self.codes.clear();
        self.codes.data.extend_from_slice(codes);
        self.pcm.clear();
        Ok((pcm, samples))
    }

    fn deliver(&self, (pcm, samples): (Out<'_, f32>, Out<'_, usize>)) -> Result<(), Failure> {
        pcm.fill(&self.pcm, "pcm")?;
        samples.fill(&[self.pcm.len() / self.channels.max(1)], "samples")
    }
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
        handle::exclusive::<Decoder>(decoder, |decoder, args| {
            if decoder.is_segmented() {
                let text = "this model codes in segments: give them to codec_decoder_push_segment";
                return Err(Failure::new(CODEC_ERROR_UNSUPPORTED, text));
            }
            let outputs = decoder.prepare(args, &Call { codes, frames, pcm, capacity, samples })?;
            decoder.stream.push(&decoder.codes, &mut decoder.pcm)?;
            decoder.deliver(outputs)
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
        handle::exclusive::<Decoder>(decoder, |decoder, args| {
            if !decoder.is_segmented() {
                let text = "this model does not code in segments: use codec_decoder_push";
                return Err(Failure::new(CODEC_ERROR_UNSUPPORTED, text));
            }
            let outputs = decoder.prepare(args, &Call { codes, frames, pcm, capacity, samples })?;
            decoder.codes.segments.push(Segment { frames, scale });
            decoder.stream.push(&decoder.codes, &mut decoder.pcm)?;
            decoder.deliver(outputs)
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
        handle::exclusive::<Decoder>(decoder, |decoder, args| {
            let none = Call { codes: std::ptr::null(), frames: 0, pcm, capacity, samples };
            let outputs = decoder.prepare(args, &none)?;
            decoder.stream.finish(&mut decoder.pcm)?;
            decoder.deliver(outputs)
        })
    }
}

/// Forgets the signal: the next frames start a new one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_decoder_reset(decoder: *mut codec_decoder) -> codec_status {
    // SAFETY: the caller's pointer is null or a handle.
    unsafe {
        handle::exclusive::<Decoder>(decoder, |decoder, _| {
            decoder.stream.reset();
            Ok(())
        })
    }
}

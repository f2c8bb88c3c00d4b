use std::{
    ffi::{CStr, CString, OsStr, c_char, c_void},
    path::Path,
    sync::Arc,
};

use codec::{
    Model,
    core::{bitstream::CodeGroup, pipeline::Chain, spec::Framing, weights::Precision},
};

use crate::{
    args::{self, Args, Out},
    codec_model_info, codec_precision,
    codec_status::{self, *},
    codec_unit,
    handle::{self, Kind},
    status::Failure,
    structs,
};

/// A model. Immutable, and shared by any number of threads, encoders and decoders.
pub struct codec_model {
    _opaque: (),
}

/// A model and what C asks of it.
pub(crate) struct Loaded {
    pub(crate) model: Model,
    name: CString,
}

/// The body of a `codec_model`.
pub(crate) struct Shared(pub(crate) Arc<Loaded>);

impl Kind for Shared {
    type Opaque = codec_model;
    const NAME: &'static str = "codec_model";
    const MAGIC: u64 = u64::from_le_bytes(*b"codecMDL");
}

impl Shared {
    fn of(model: Model) -> Self {
        let name = CString::new(model.spec().name.replace('\0', " ")).unwrap_or_default();
        Self(Arc::new(Loaded { model, name }))
    }
}

impl Loaded {
    /// The model for as long as somebody holds the `Arc`.
    ///
    /// # Safety
    /// The reference is used no longer than the `Arc`, or a clone of it, is there.
    pub(crate) unsafe fn forever(self: &Arc<Self>) -> &'static Model {
        // SAFETY: what an `Arc` holds does not move; how long it is there is this function's condition.
        unsafe { &(*Arc::as_ptr(self)).model }
    }
}

/// The first code of a frame that is asked for, by its codebook, and how many there are: 0 is all from there on.
pub(crate) fn codebooks(model: &Model, book: u32, asked: u32) -> Result<(usize, usize), Failure> {
    let quantizer = model.quantizer()?;
    let mut first = 0;
    if book > 0 {
        let groups = CodeGroup::of(quantizer, 0, usize::MAX)?;
        let position = u16::try_from(book).ok().and_then(|book| CodeGroup::position(&groups, book));
        first = position.ok_or_else(|| {
            let books: usize = groups.iter().map(|group| usize::from(group.books)).sum();
            let text = format!("`first_codebook` is {book}; this model has codebooks 0 to {}", books.saturating_sub(1));
            Failure::new(CODEC_ERROR_ARGUMENT, text)
        })?;
    }
    let count = if asked == 0 { quantizer.codebooks().saturating_sub(first) } else { asked as usize };
    quantizer.check_codebooks(first, count)?;
    Ok((first, count))
}

/// How an encoder or a decoder of the model takes a signal.
pub(crate) fn unit(model: &Model, chain: &Chain, encodes: bool) -> codec_unit {
    match model.spec().framing {
        Framing::Segments { .. } => codec_unit::CODEC_UNIT_SEGMENT,
        Framing::Windows { .. } if encodes => codec_unit::CODEC_UNIT_WINDOW,
        _ if chain.plan().whole.is_some() => codec_unit::CODEC_UNIT_SIGNAL,
        _ => codec_unit::CODEC_UNIT_STEP,
    }
}

/// Fails if a code is not below the size of its codebook; `sizes` are those of a frame's codes.
pub(crate) fn check_codes(sizes: &[u32], codes: &[u16]) -> Result<(), Failure> {
    for (frame, row) in codes.chunks_exact(sizes.len().max(1)).enumerate() {
        for (codebook, (&code, &size)) in row.iter().zip(sizes).enumerate() {
            if u32::from(code) >= size {
                return Err(codec::core::RunError::CodeOutOfRange { frame, codebook, code, size }.into());
            }
        }
    }
    Ok(())
}

/// Opens a model file or a deploy image, which is mapped: it must not be changed while the model, or an encoder, decoder or writer of it, is
/// there. `path` is UTF-8 on Windows, and bytes as the system takes them elsewhere.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_model_from_file(path: *const c_char, model: *mut *mut codec_model) -> codec_status {
    // SAFETY: the caller's pointers are null or valid, `path` up to its zero.
    unsafe {
        handle::create(model, || {
            args::check(path, 1, "path")?;
            let bytes = CStr::from_ptr(path).to_bytes();
            Ok(Shared::of(Model::load(file_name(bytes)?)?))
        })
    }
}

#[cfg(unix)]
fn file_name(bytes: &[u8]) -> Result<&Path, Failure> {
    use std::os::unix::ffi::OsStrExt;
    Ok(Path::new(OsStr::from_bytes(bytes)))
}

#[cfg(not(unix))]
fn file_name(bytes: &[u8]) -> Result<&Path, Failure> {
    let text = std::str::from_utf8(bytes);
    let text = text.map_err(|_| Failure::new(CODEC_ERROR_ARGUMENT, "`path` is not UTF-8"))?;
    Ok(Path::new(OsStr::new(text)))
}

/// Takes a model that lies in memory: a deploy image at a multiple of 8 bytes (64 are faster), whose weights are used where they
/// lie, or a model file of any alignment, whose weights are packed when first used. The bytes must stay as they are until the
/// model and every encoder, decoder and writer of it are destroyed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_model_from_memory(
    data: *const c_void,
    len: usize,
    model: *mut *mut codec_model,
) -> codec_status {
    // SAFETY: the caller's pointers are null or valid, and `data` stays, as documented.
    unsafe {
        handle::create(model, || {
            args::check(data.cast::<u8>(), len, "data")?;
            let bytes: &'static [u8] = Args::default().input(data.cast::<u8>(), len, "data")?.get();
            Ok(Shared::of(Model::from_static(bytes)?))
        })
    }
}

/// The model in the box, nano-16k, for speech at 16 kHz. A build without it: CODEC_ERROR_NO_DEFAULT_MODEL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_model_default(model: *mut *mut codec_model) -> codec_status {
    // SAFETY: the caller's pointer is null or valid.
    unsafe { handle::create(model, || Ok(Shared::of(built_in()?))) }
}

/// The one place where a built-in model goes.
fn built_in() -> Result<Model, Failure> {
    #[cfg(feature = "default-model")]
    return Model::built_in().map_err(Failure::from);
    #[cfg(not(feature = "default-model"))]
    no_model()
}

#[cfg(not(feature = "default-model"))]
fn no_model() -> Result<Model, Failure> {
    let text = "this build has no built-in model; make a model file of a published checkpoint with \
                `codec import CHECKPOINT -o MODEL.safetensors` and open it with codec_model_from_file";
    Err(Failure::new(CODEC_ERROR_NO_DEFAULT_MODEL, text))
}

/// Ends a model; null is none. Encoders, decoders and writers of it go on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_model_destroy(model: *mut codec_model) -> codec_status {
    // SAFETY: the caller's pointer is null or a handle that no other call uses.
    unsafe { handle::destroy::<Shared>(model, true) }
}

/// The name of the codec; it belongs to the model. Null if this is no model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_model_name(model: *const codec_model) -> *const c_char {
    // SAFETY: the caller's pointer is null or a handle.
    match unsafe { handle::body::<Shared>(model) } {
        Ok(shared) => shared.0.name.as_ptr(),
        Err(_) => std::ptr::null(),
    }
}

/// Rates, sizes and what the model can do. The first call plans encoder and decoder, which packs their weights.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_model_get_info(model: *const codec_model, info: *mut codec_model_info) -> codec_status {
    // SAFETY: the caller's pointers are null or valid, `info` for the size that it states.
    unsafe {
        handle::shared::<Shared>(model, |shared, args| {
            let model = &shared.0.model;
            let spec = model.spec();
            let quantizer = model.quantizer()?;
            let (segment_samples, segment_stride) = match spec.framing {
                Framing::Stream | Framing::Windows { .. } => (0, 0),
                Framing::Segments { length, stride, .. } => (length, stride),
            };
            let can_decode = spec.decoder.is_some() && quantizer.can_decode();
            let mut encoder_unit = codec_unit::CODEC_UNIT_NONE;
            if spec.encoder.is_some() {
                encoder_unit = unit(model, model.encoder_plan()?.chain(), true);
            }
            let mut decoder_unit = codec_unit::CODEC_UNIT_NONE;
            if can_decode {
                decoder_unit = unit(model, model.decoder_plan()?.chain(), false);
            }
            let value = codec_model_info {
                struct_size: size_of::<codec_model_info>(),
                sample_rate: spec.sample_rate,
                channels: spec.channels,
                hop: spec.hop,
                codebooks: u32::try_from(quantizer.codebooks()).unwrap_or(u32::MAX),
                can_encode: spec.encoder.is_some().into(),
                can_decode: can_decode.into(),
                segment_samples,
                segment_stride,
                fingerprint: model.fingerprint().0,
                encoder_unit: encoder_unit as u32,
                decoder_unit: decoder_unit as u32,
                precision: match model.precision() {
                    Precision::F32 => codec_precision::CODEC_PRECISION_F32,
                    Precision::F16 => codec_precision::CODEC_PRECISION_F16,
                    _ => codec_precision::CODEC_PRECISION_OTHER,
                } as u32,
                reserved: 0,
            };
            args.note(info, 1, "info", true);
            args.disjoint()?;
            structs::write(info, &value)
        })
    }
}

/// Puts a list into the caller's array: all of it, or only its length where the caller's is 0.
///
/// # Safety
/// The pointers are null, misaligned or valid.
pub(crate) unsafe fn list<T: Copy>(
    args: &mut Args,
    values: &[T],
    (out, capacity): (*mut T, usize),
    count: *mut usize,
) -> Result<(), Failure> {
    // SAFETY: the caller's pointers are null or valid.
    let (out, total): (Out<'_, T>, Out<'_, usize>) = unsafe {
        args::check(count, 1, "count")?;
        (args.output(out, capacity, "the array")?, args.output(count, 1, "count")?)
    };
    args.disjoint()?;
    total.fill(&[values.len()], "count")?;
    if out.len() == 0 { Ok(()) } else { out.fill(values, "the array") }
}

/// Entries of the codebook of each of a frame's codes, up to `capacity`; `count` gets how many there are. With a capacity of 0, only
/// that.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_model_codebook_sizes(
    model: *const codec_model,
    sizes: *mut u32,
    capacity: usize,
    count: *mut usize,
) -> codec_status {
    // SAFETY: the caller's pointers are null or valid.
    unsafe {
        handle::shared::<Shared>(model, |shared, args| {
            list(args, shared.0.model.quantizer()?.sizes(), (sizes, capacity), count)
        })
    }
}

/// The numbers of codebooks that the model's publisher offers, as codec_model_codebook_sizes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_model_codebook_choices(
    model: *const codec_model,
    choices: *mut u32,
    capacity: usize,
    count: *mut usize,
) -> codec_status {
    // SAFETY: the caller's pointers are null or valid.
    unsafe {
        handle::shared::<Shared>(model, |shared, args| {
            let all: Vec<u32> = shared.0.model.bitrates()?.iter().map(|b| b.codebooks as u32).collect();
            list(args, &all, (choices, capacity), count)
        })
    }
}

/// Bits a second of `codebooks` codes a frame; 0: all that the model has.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_model_bitrate(
    model: *const codec_model,
    codebooks: u32,
    bits_per_second: *mut f64,
) -> codec_status {
    // SAFETY: the caller's pointers are null or valid.
    unsafe {
        handle::shared::<Shared>(model, |shared, args| {
            args::check(bits_per_second, 1, "bits_per_second")?;
            let out = args.output(bits_per_second, 1, "bits_per_second")?;
            args.disjoint()?;
            let model = &shared.0.model;
            let (_, codebooks) = self::codebooks(model, 0, codebooks)?;
            let bits = f64::from(model.quantizer()?.bits_per_frame(codebooks));
            out.fill(&[bits * model.frame_rate()], "bits_per_second")
        })
    }
}

/// The algorithmic delay from a sample's arrival at the encoder to its leaving the decoder, in samples: a hop, and what
/// the networks look ahead. CODEC_ERROR_UNSUPPORTED for a model that needs whole signals or segments. Plans encoder and decoder.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_model_delay(model: *const codec_model, samples: *mut f64) -> codec_status {
    // SAFETY: the caller's pointers are null or valid.
    unsafe {
        handle::shared::<Shared>(model, |shared, args| {
            args::check(samples, 1, "samples")?;
            let out = args.output(samples, 1, "samples")?;
            args.disjoint()?;
            let info = shared.0.model.info()?;
            let Some(delay) = info.delay_samples else {
                let text = format!("{} needs whole signals or segments: its delay depends on them", info.name);
                return Err(Failure::new(CODEC_ERROR_UNSUPPORTED, text));
            };
            out.fill(&[delay], "samples")
        })
    }
}

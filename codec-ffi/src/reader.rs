use std::{
    ffi::{c_char, c_void},
    io::Cursor,
    ptr,
};

use codec::{
    Codes,
    core::{bitstream::CodeGroup, spec::Framing},
    tokens::{NacTokens, Step, TokenReader},
};

use crate::{
    args::Args,
    codec_io, codec_model, codec_nac_info, codec_nac_item, codec_nac_kind, codec_nac_reader_options,
    codec_status::{self, *},
    handle::{self, Kind},
    io::{Calls, Input},
    model::Shared,
    status::Failure,
    structs::{self, CODEC_UNKNOWN},
};

/// Reads a .nac file in constant memory.
pub struct codec_nac_reader {
    _opaque: (),
}

/// The body of a `codec_nac_reader`.
pub(crate) struct Reader {
    tokens: NacTokens<Input>,
    codes: Codes,
    can_seek: bool,
}

impl Kind for Reader {
    type Opaque = codec_nac_reader;
    const NAME: &'static str = "codec_nac_reader";
    const MAGIC: u64 = u64::from_le_bytes(*b"codecNRD");
}

impl Reader {
    fn open(input: Input, options: codec_nac_reader_options) -> Result<Self, Failure> {
        structs::unused(options.reserved)?;
        if options.salvage > 1 {
            let text = format!("`salvage` is {}; it is 0 or 1", options.salvage);
            return Err(Failure::new(CODEC_ERROR_ARGUMENT, text));
        }
        let can_seek = match &input {
            Input::Memory(_) => true,
            Input::Calls(calls) => calls.can_seek(),
        };
        let tokens = NacTokens::new(input, options.salvage == 1)?;
        Ok(Self { codes: Codes::new(tokens.info().codebooks), tokens, can_seek })
    }
}

/// Reads a file that lies in memory, from where it is: the bytes must stay until the reader is destroyed. `options` may
/// be null. Reads the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_nac_reader_create_memory(
    data: *const c_void,
    len: usize,
    options: *const codec_nac_reader_options,
    reader: *mut *mut codec_nac_reader,
) -> codec_status {
    // SAFETY: the caller's pointers are null or valid, `options` for the size that it states, and `data` stays, as
    // documented.
    unsafe {
        handle::create(reader, || {
            let options = structs::options(options)?;
            crate::args::check(data.cast::<u8>(), len, "data")?;
            let bytes: &'static [u8] = Args::default().input(data.cast::<u8>(), len, "data")?.get();
            Reader::open(Input::Memory(Cursor::new(bytes)), options)
        })
    }
}

/// Reads a file by callbacks; `io` itself is copied, and `options` may be null. Reads the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_nac_reader_create_io(
    io: *const codec_io,
    options: *const codec_nac_reader_options,
    reader: *mut *mut codec_nac_reader,
) -> codec_status {
    // SAFETY: the caller's pointers are null or valid, the structs for the sizes that they state.
    unsafe {
        handle::create(reader, || {
            let options = structs::options(options)?;
            Reader::open(Input::Calls(Calls::to_read(structs::read(io)?)?), options)
        })
    }
}

/// Ends a reader; null is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_nac_reader_destroy(reader: *mut codec_nac_reader) -> codec_status {
    // SAFETY: the caller's pointer is null or a handle that no other call uses.
    unsafe { handle::destroy::<Reader>(reader, true) }
}

/// The text of the reader's last error; empty if there was none. It stays until the next call with the reader. Never null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_nac_reader_error(reader: *const codec_nac_reader) -> *const c_char {
    // SAFETY: the caller's pointer is null or a handle that no other call uses.
    unsafe { handle::error::<Reader>(reader) }
}

/// What the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_nac_reader_get_info(
    reader: *mut codec_nac_reader,
    info: *mut codec_nac_info,
) -> codec_status {
    // SAFETY: the caller's pointers are null or valid, `info` for the size that it states.
    unsafe {
        handle::exclusive::<Reader>(reader, |reader, args| {
            let stream = reader.tokens.info();
            let value = codec_nac_info {
                struct_size: size_of::<codec_nac_info>(),
                sample_rate: stream.sample_rate.unwrap_or(0),
                channels: stream.channels.and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
                hop: stream.hop.unwrap_or(0),
                codebooks: u32::try_from(stream.codebooks).unwrap_or(u32::MAX),
                samples: stream.samples.unwrap_or(CODEC_UNKNOWN),
                segmented: stream.segmented.into(),
                first_codebook: stream.levels.first().map_or(0, |level| level.first_book.into()),
                fingerprint: stream.fingerprint.unwrap_or_default(),
            };
            args.note(info, 1, "info", true);
            args.disjoint()?;
            structs::write(info, &value)
        })
    }
}

/// Whether the model made this file: CODEC_OK or CODEC_ERROR_WRONG_MODEL. A decoder of the model decodes it if `codebooks` and
/// `first_codebook` of its options are those of codec_nac_info.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_nac_reader_check_model(
    reader: *mut codec_nac_reader,
    model: *const codec_model,
) -> codec_status {
    // SAFETY: the caller's pointers are null or valid.
    unsafe {
        handle::exclusive::<Reader>(reader, |reader, _| {
            let model = &handle::body::<Shared>(model)?.0.model;
            let stream = reader.tokens.info();
            let file = stream.fingerprint.unwrap_or_default();
            if file != model.fingerprint().0 {
                let error = codec::core::bitstream::Error::WrongModel { file, model: model.fingerprint().0 };
                return Err(error.into());
            }
            // With the right fingerprint these hold unless the file lies.
            let wrong = |what: &str| {
                let text = format!("the file names this model, but {what} are not the model's");
                Err(Failure::new(CODEC_ERROR_WRONG_MODEL, text))
            };
            let quantizer = model.quantizer()?;
            let book = stream.levels.first().map_or(0, |level| level.first_book);
            let first = CodeGroup::position(&CodeGroup::of(quantizer, 0, usize::MAX)?, book);
            let Some(first) = first.filter(|&first| quantizer.check_codebooks(first, stream.codebooks).is_ok()) else {
                return wrong("its codes a frame");
            };
            if !CodeGroup::each(&stream.levels).eq(CodeGroup::each(&CodeGroup::of(quantizer, first, stream.codebooks)?))
            {
                return wrong("the sizes of its codebooks");
            }
            if stream.segmented != matches!(model.spec().framing, Framing::Segments { .. }) {
                return wrong("its segments");
            }
            Ok(())
        })
    }
}

/// The next item. After CODEC_ERROR_FORMAT or CODEC_ERROR_IO the file cannot be read on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_nac_reader_next(
    reader: *mut codec_nac_reader,
    item: *mut codec_nac_item,
) -> codec_status {
    // SAFETY: the caller's pointers are null or valid, `item` for the size that it states.
    unsafe {
        handle::exclusive::<Reader>(reader, |reader, args| {
            args.note(item, 1, "item", true);
            args.disjoint()?;
            // A wrong size is an error before an item is lost to it.
            structs::read(item)?;
            let step = reader.tokens.next(&mut reader.codes)?;
            let (kind, frames) = match step {
                Step::Frames => (codec_nac_kind::CODEC_NAC_FRAMES, reader.codes.frames() as u64),
                Step::Lost(frames) => (codec_nac_kind::CODEC_NAC_LOST, frames.unwrap_or(CODEC_UNKNOWN)),
                Step::End => (codec_nac_kind::CODEC_NAC_END, 0),
            };
            let value = codec_nac_item {
                struct_size: size_of::<codec_nac_item>(),
                kind: kind as u32,
                scale: reader.codes.segments.first().map_or(1.0, |segment| segment.scale),
                first_frame: reader.tokens.first_frame(),
                frames,
                codes: if step == Step::Frames { reader.codes.data.as_ptr() } else { ptr::null() },
                samples: if step == Step::End {
                    reader.tokens.info().samples.unwrap_or(CODEC_UNKNOWN)
                } else {
                    CODEC_UNKNOWN
                },
            };
            structs::write(item, &value)
        })
    }
}

/// Goes to a frame: the next frames begin with it, or with the first after it that is there. In a file with segments they
/// begin with the first segment that starts there or after it; the rest of the one before comes out as CODEC_NAC_LOST. By
/// callbacks it needs `seek`; else CODEC_ERROR_UNSUPPORTED. A decoder is reset by its owner.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_nac_reader_seek(reader: *mut codec_nac_reader, frame: u64) -> codec_status {
    // SAFETY: the caller's pointer is null or a handle.
    unsafe {
        handle::exclusive::<Reader>(reader, |reader, _| {
            if !reader.can_seek {
                return Err(Failure::new(CODEC_ERROR_UNSUPPORTED, "the codec_io of this reader has no `seek`"));
            }
            Ok(reader.tokens.seek(frame)?)
        })
    }
}

use std::{
    ffi::{c_char, c_void},
    io::Cursor,
    ptr,
};

use codec::{
    core::{bitstream::CodeGroup, spec::Framing},
    nac::{GROUP_LEN, Header, Layout, Method, NacWriter},
};

use crate::{
    args, codec_io, codec_model, codec_nac_writer_options,
    codec_status::{self, *},
    handle::{self, Kind},
    io::{Calls, Output},
    model::{self, Shared},
    status::Failure,
    structs::{self, CODEC_UNKNOWN},
};

/// Writes a .nac file.
pub struct codec_nac_writer {
    _opaque: (),
}

/// The body of a `codec_nac_writer`.
pub(crate) struct Writer {
    /// `None` once finished or failed.
    writer: Option<NacWriter<Output>>,
    /// What was written to memory, once finished.
    bytes: Vec<u8>,
    /// Entries of each code's codebook.
    sizes: Vec<u32>,
    /// Samples a channel that the header states.
    samples: Option<u64>,
    to_memory: bool,
    in_place: bool,
    failed: bool,
}

impl Kind for Writer {
    type Opaque = codec_nac_writer;
    const NAME: &'static str = "codec_nac_writer";
    const MAGIC: u64 = u64::from_le_bytes(*b"codecNWR");
}

impl Writer {
    fn open(model: &Shared, out: Output, options: codec_nac_writer_options) -> Result<Self, Failure> {
        let model = &model.0.model;
        let spec = model.spec();
        structs::unused(options.reserved)?;
        let (first, codebooks) = model::codebooks(model, options.first_codebook, options.codebooks)?;
        let quantizer = model.quantizer()?;
        let groups = CodeGroup::of(quantizer, first, codebooks)?;
        let mut storage = vec![0; groups.len() * GROUP_LEN];
        let layout = Layout::new(&groups, &mut storage)?;
        let segments = matches!(spec.framing, Framing::Segments { .. });
        let range = |name| move |_| Failure::new(CODEC_ERROR_ARGUMENT, format!("`{name}` is at most 65535"));
        let chunk_frames = match options.chunk_frames {
            0 => Header::default_chunk_frames(spec.sample_rate, spec.hop, segments, &layout),
            n => u16::try_from(n).map_err(range("chunk_frames"))?,
        };
        let header = Header {
            fingerprint: model.fingerprint().0,
            sample_rate: spec.sample_rate,
            channels: u16::try_from(spec.channels).map_err(range("channels"))?,
            hop: spec.hop,
            samples: (options.samples != 0).then_some(options.samples),
            method: Method::default(),
            segments,
            chunk_frames,
            layout,
        };
        let (to_memory, in_place) = match &out {
            Output::Memory(_) => (true, true),
            Output::Calls(calls) => (false, calls.can_seek()),
        };
        let writer = Some(NacWriter::new(out, &header)?);
        let sizes = quantizer.sizes().iter().skip(first).take(codebooks).copied().collect();
        let samples = header.samples;
        Ok(Self { writer, bytes: Vec::new(), sizes, samples, to_memory, in_place, failed: false })
    }

    /// Calls the writer behind, which takes no more once its output failed.
    fn run(&mut self, f: impl FnOnce(&mut NacWriter<Output>) -> Result<(), codec::nac::Error>) -> Result<(), Failure> {
        let result = self.open_writer().and_then(|writer| Ok(f(writer)?));
        if result.as_ref().is_err_and(|failure| failure.status == CODEC_ERROR_IO) {
            (self.writer, self.failed) = (None, true);
        }
        result
    }

    fn open_writer(&mut self) -> Result<&mut NacWriter<Output>, Failure> {
        let failed = self.failed;
        self.writer.as_mut().ok_or_else(|| match failed {
            true => Failure::new(CODEC_ERROR_IO, "an earlier write failed: the file is not whole"),
            false => Failure::new(CODEC_ERROR_FINISHED, "the file was finished"),
        })
    }
}

/// Writes a file for codes of this model to memory of the writer's; codec_nac_writer_data gives it. `options` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_nac_writer_create_memory(
    model: *const codec_model,
    options: *const codec_nac_writer_options,
    writer: *mut *mut codec_nac_writer,
) -> codec_status {
    // SAFETY: the caller's pointers are null or valid, `options` for the size that it states.
    unsafe {
        handle::create(writer, || {
            let model = handle::body::<Shared>(model)?;
            Writer::open(model, Output::Memory(Cursor::default()), structs::options(options)?)
        })
    }
}

/// Writes a file for codes of this model by callbacks; `io` itself is copied, and `options` may be null. Writes the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_nac_writer_create_io(
    model: *const codec_model,
    io: *const codec_io,
    options: *const codec_nac_writer_options,
    writer: *mut *mut codec_nac_writer,
) -> codec_status {
    // SAFETY: the caller's pointers are null or valid, the structs for the sizes that they state.
    unsafe {
        handle::create(writer, || {
            let model = handle::body::<Shared>(model)?;
            let calls = Calls::to_write(structs::read(io)?)?;
            Writer::open(model, Output::Calls(calls), structs::options(options)?)
        })
    }
}

/// Ends a writer; null is none. A file that was not finished stays without its end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_nac_writer_destroy(writer: *mut codec_nac_writer) -> codec_status {
    // SAFETY: the caller's pointer is null or a handle that no other call uses.
    unsafe { handle::destroy::<Writer>(writer, true) }
}

/// The text of the writer's last error; empty if there was none. It stays until the next call with the writer. Never null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_nac_writer_error(writer: *const codec_nac_writer) -> *const c_char {
    // SAFETY: the caller's pointer is null or a handle that no other call uses.
    unsafe { handle::error::<Writer>(writer) }
}

/// Begins a segment, for a model that cuts signals: the frames that follow have this scale.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_nac_writer_begin_segment(writer: *mut codec_nac_writer, scale: f32) -> codec_status {
    // SAFETY: the caller's pointer is null or a handle.
    unsafe { handle::exclusive::<Writer>(writer, |writer, _| writer.run(|w| w.begin_segment(scale))) }
}

/// Takes frames. A code out of range is an error, and then none of them is taken.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_nac_writer_write(
    writer: *mut codec_nac_writer,
    codes: *const u16,
    frames: usize,
) -> codec_status {
    // SAFETY: the caller's pointers are null or valid for the lengths given with them.
    unsafe {
        handle::exclusive::<Writer>(writer, |writer, args| {
            let codes = args.input(codes, frames.saturating_mul(writer.sizes.len()), "codes")?;
            args.disjoint()?;
            let codes = codes.get();
            model::check_codes(&writer.sizes, codes)?;
            writer.run(|w| w.write(codes))
        })
    }
}

/// Says that frames were lost before they came here.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_nac_writer_lost(writer: *mut codec_nac_writer, frames: u32) -> codec_status {
    // SAFETY: the caller's pointer is null or a handle.
    unsafe { handle::exclusive::<Writer>(writer, |writer, _| writer.run(|w| w.lost(frames))) }
}

/// Writes out what was taken, however little: all frames so far can then be read by others.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_nac_writer_flush(writer: *mut codec_nac_writer) -> codec_status {
    // SAFETY: the caller's pointer is null or a handle.
    unsafe { handle::exclusive::<Writer>(writer, |writer, _| writer.run(NacWriter::flush)) }
}

/// Ends the file. `samples` is the exact number a channel of the signal that was encoded, or CODEC_UNKNOWN. If the options stated
/// another number, it is CODEC_ERROR_ARGUMENT, and the file is not ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_nac_writer_finish(writer: *mut codec_nac_writer, samples: u64) -> codec_status {
    // SAFETY: the caller's pointer is null or a handle.
    unsafe {
        handle::exclusive::<Writer>(writer, |writer, _| {
            writer.open_writer()?;
            let samples = (samples != CODEC_UNKNOWN).then_some(samples);
            if let (Some(given), Some(stated)) = (samples, writer.samples)
                && given != stated
            {
                let text = format!("`samples` is {given}, and the options of the writer stated {stated}");
                return Err(Failure::new(CODEC_ERROR_ARGUMENT, text));
            }
            let Some(inner) = writer.writer.take() else { return Ok(()) };
            // Set for the case that this fails.
            writer.failed = true;
            let (out, _) = if writer.in_place { inner.finish_in_place(samples) } else { inner.finish(samples) }?;
            writer.failed = false;
            if let Output::Memory(memory) = out {
                writer.bytes = memory.into_inner();
            }
            Ok(())
        })
    }
}

/// The bytes of a finished file of codec_nac_writer_create_memory. They belong to the writer and stay until it is destroyed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn codec_nac_writer_data(
    writer: *mut codec_nac_writer,
    data: *mut *const c_void,
    len: *mut usize,
) -> codec_status {
    // SAFETY: the caller's pointers are null or valid.
    unsafe {
        handle::exclusive::<Writer>(writer, |writer, args| {
            args::check(data, 1, "data")?;
            args::check(len, 1, "len")?;
            let (data, len) = (args.output(data, 1, "data")?, args.output(len, 1, "len")?);
            args.disjoint()?;
            if !writer.to_memory {
                return Err(Failure::new(CODEC_ERROR_UNSUPPORTED, "this writer writes by callbacks"));
            }
            if writer.writer.is_some() || writer.failed {
                return Err(Failure::new(CODEC_ERROR_STATE, "finish the file first"));
            }
            data.fill(&[ptr::from_ref(writer.bytes.as_slice()).cast()], "data")?;
            len.fill(&[writer.bytes.len()], "len")
        })
    }
}

//! Whatever is wrong with an argument is an error that says so, and nothing happens.

mod support;

use std::{ffi::c_void, ptr};

use codec::core::pipeline::Coding;
use codec_ffi::{codec_status::*, *};
use support::{Model, models, models::signal, sized, text};

/// A coder of each kind.
struct Bench {
    model: Model,
    encoder: *mut codec_encoder,
    decoder: *mut codec_decoder,
    reader: *mut codec_nac_reader,
    writer: *mut codec_nac_writer,
    _file: Box<[u8]>,
}

impl Bench {
    fn new() -> Self {
        let model = Model::load("stream");
        let (mut encoder, mut decoder) = (ptr::null_mut(), ptr::null_mut());
        let (mut reader, mut writer) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: a model, and pointers to values of this function; the file lives as long as its reader.
        unsafe {
            assert_eq!(codec_encoder_create(model.0, ptr::null(), &mut encoder), CODEC_OK);
            assert_eq!(codec_decoder_create(model.0, ptr::null(), &mut decoder), CODEC_OK);
            assert_eq!(codec_nac_writer_create_memory(model.0, ptr::null(), &mut writer), CODEC_OK);
            assert_eq!(codec_nac_writer_write(writer, [1, 2, 3].as_ptr(), 1), CODEC_OK);
            assert_eq!(codec_nac_writer_finish(writer, 40), CODEC_OK);
            let (mut data, mut len) = (ptr::null(), 0);
            assert_eq!(codec_nac_writer_data(writer, &mut data, &mut len), CODEC_OK);
            let file: Box<[u8]> = std::slice::from_raw_parts(data.cast::<u8>(), len).into();
            let bytes = file.as_ptr().cast();
            assert_eq!(codec_nac_reader_create_memory(bytes, len, ptr::null(), &mut reader), CODEC_OK);
            Self { model, encoder, decoder, reader, writer, _file: file }
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // SAFETY: the handles are this one's.
        unsafe {
            assert_eq!(codec_encoder_destroy(self.encoder), CODEC_OK);
            assert_eq!(codec_decoder_destroy(self.decoder), CODEC_OK);
            assert_eq!(codec_nac_reader_destroy(self.reader), CODEC_OK);
            assert_eq!(codec_nac_writer_destroy(self.writer), CODEC_OK);
        }
    }
}

/// The pointer a byte further, which no type of more than a byte may have.
fn off<T>(ptr: *const T) -> *mut T {
    ptr.wrapping_byte_add(1).cast_mut()
}

#[test]
fn a_null_or_misaligned_pointer_is_an_error() {
    let b = Bench::new();
    let (pcm, mut codes, mut out, mut n) = ([0.0f32; 400], [0u16; 3000], [0.0f32; 9000], 0usize);
    let (none, c, o, p) = (ptr::null_mut::<u32>(), codes.as_mut_ptr(), out.as_mut_ptr(), pcm.as_ptr());
    let n: *mut usize = &mut n;
    // SAFETY: every pointer is null, misaligned, or valid for its length.
    unsafe {
        for (wrong, status) in [(true, CODEC_ERROR_NULL), (false, CODEC_ERROR_MISALIGNED)] {
            macro_rules! bad {
                ($ptr:expr) => {
                    if wrong { ptr::null_mut() } else { off($ptr) }
                };
            }
            // Handles.
            assert_eq!(codec_encoder_push(bad!(b.encoder), p, 400, c, 1000, n), status);
            assert_eq!(codec_decoder_push(bad!(b.decoder), c, 1, o, 9000, n), status);
            assert_eq!(codec_encoder_reset(bad!(b.encoder)), status);
            assert_eq!(codec_decoder_reset(bad!(b.decoder)), status);
            assert_eq!(codec_nac_writer_flush(bad!(b.writer)), status);
            assert_eq!(codec_nac_reader_seek(bad!(b.reader), 0), status);
            assert_eq!(codec_model_bitrate(bad!(b.model.0), 0, &mut 0.0), status);
            assert_eq!(codec_encoder_create(bad!(b.model.0), ptr::null(), &mut ptr::null_mut()), status);
            assert_eq!(codec_nac_reader_check_model(b.reader, bad!(b.model.0)), status);
            assert_eq!(codec_encoder_state_size(bad!(b.model.0), ptr::null()), 0);
            // What a handle goes to.
            let mut encoder = ptr::null_mut();
            assert_eq!(codec_encoder_create(b.model.0, ptr::null(), bad!(&encoder)), status);
            assert_eq!(codec_model_default(bad!(&ptr::null_mut())), status);
            // Buffers.
            assert_eq!(codec_encoder_push(b.encoder, bad!(p), 400, c, 1000, n), status);
            assert_eq!(codec_encoder_push(b.encoder, p, 400, bad!(c), 900, n), status);
            assert_eq!(codec_encoder_push(b.encoder, p, 400, c, 1000, bad!(n)), status);
            assert_eq!(codec_encoder_finish(b.encoder, bad!(c), 900, n), status);
            assert_eq!(codec_encoder_max_frames(b.encoder, 1, bad!(n)), status);
            assert_eq!(codec_decoder_push(b.decoder, bad!(c), 10, o, 9000, n), status);
            assert_eq!(codec_decoder_push(b.decoder, c, 10, bad!(o), 8000, n), status);
            assert_eq!(codec_decoder_finish(b.decoder, o, 9000, bad!(n)), status);
            assert_eq!(codec_nac_writer_write(b.writer, bad!(c), 1), status);
            assert_eq!(codec_nac_writer_data(b.writer, bad!(&ptr::null()), n), status);
            assert_eq!(codec_nac_reader_next(b.reader, bad!(&sized!(codec_nac_item {}))), status);
            assert_eq!(codec_nac_reader_get_info(b.reader, bad!(&sized!(codec_nac_info {}))), status);
            assert_eq!(codec_model_get_info(b.model.0, bad!(&sized!(codec_model_info {}))), status);
            assert_eq!(codec_model_codebook_sizes(b.model.0, bad!(&0), 3, n), status);
            assert_eq!(codec_model_codebook_sizes(b.model.0, none, 0, bad!(n)), status);
            assert_eq!(codec_model_delay(b.model.0, bad!(&0.0)), status);
            let io = sized!(codec_io {});
            assert_eq!(codec_nac_writer_create_io(b.model.0, bad!(&io), ptr::null(), &mut ptr::null_mut()), status);
            let text = text(codec_last_error());
            assert!(text.contains("codec_io"), "{text}");
            if !wrong {
                let options = sized!(codec_encoder_options {});
                assert_eq!(codec_encoder_create(b.model.0, off(&options), &mut encoder), status);
            }
        }
        assert_eq!(codec_model_from_memory(ptr::null(), 5, &mut ptr::null_mut()), CODEC_ERROR_NULL);
        assert_eq!(codec_model_from_file(ptr::null(), &mut ptr::null_mut()), CODEC_ERROR_NULL);
        let io = sized!(codec_io {});
        assert_eq!(codec_nac_reader_create_io(&io, ptr::null(), &mut ptr::null_mut()), CODEC_ERROR_NULL);
        assert_eq!(codec_nac_writer_create_io(b.model.0, &io, ptr::null(), &mut ptr::null_mut()), CODEC_ERROR_NULL);
        // None at all is nothing to end.
        assert_eq!(codec_model_destroy(ptr::null_mut()), CODEC_OK);
        assert_eq!(codec_encoder_destroy(ptr::null_mut()), CODEC_OK);
        // Nothing of this has reached the coders.
        assert_eq!(codec_encoder_push(b.encoder, p, 400, c, 1000, n), CODEC_OK);
    }
}

#[test]
fn a_short_buffer_takes_nothing_and_a_length_past_memory_is_an_error() {
    let b = Bench::new();
    let pcm = signal(400, 1);
    let (mut codes, mut out, mut n, mut most) = ([0u16; 3000], [0.0f32; 9000], 77, 0);
    // SAFETY: every pointer is valid for as much as the library may touch.
    unsafe {
        let c = codes.as_mut_ptr();
        assert_eq!(codec_encoder_max_frames(b.encoder, 400, &mut most), CODEC_OK);
        for short in [0, most - 1] {
            let status = codec_encoder_push(b.encoder, pcm.as_ptr(), 400, c, short, &mut n);
            assert_eq!((status, n), (CODEC_ERROR_BUFFER_TOO_SHORT, 77));
            let text = text(codec_encoder_error(b.encoder));
            assert!(text.contains(&format!("needs {most}")), "{text}");
        }
        assert_eq!(codec_encoder_push(b.encoder, pcm.as_ptr(), 400, c, most, &mut n), CODEC_OK);
        assert!(n > 0 && n <= most);
        assert_eq!(codec_decoder_max_samples(b.decoder, n, &mut most), CODEC_OK);
        let (frames, o) = (n, out.as_mut_ptr());
        assert_eq!(codec_decoder_push(b.decoder, c, frames, o, most - 1, &mut n), CODEC_ERROR_BUFFER_TOO_SHORT);
        assert_eq!(codec_decoder_push(b.decoder, c, frames, o, most, &mut n), CODEC_OK);
        for huge in [usize::MAX, usize::MAX / 2, usize::MAX / 4] {
            assert_eq!(codec_encoder_push(b.encoder, pcm.as_ptr(), huge, c, 1000, &mut n), CODEC_ERROR_ARGUMENT);
            assert_eq!(codec_encoder_push(b.encoder, pcm.as_ptr(), 4, c, huge, &mut n), CODEC_ERROR_ARGUMENT);
            assert_eq!(codec_decoder_push(b.decoder, c, huge, o, 9000, &mut n), CODEC_ERROR_ARGUMENT);
            assert_eq!(codec_nac_writer_write(b.writer, c, huge), CODEC_ERROR_ARGUMENT);
            assert_eq!(codec_encoder_max_frames(b.encoder, huge, &mut most), CODEC_OK);
            assert!(most > huge / 100);
        }
        assert_eq!(
            codec_nac_reader_create_memory(c.cast(), usize::MAX, ptr::null(), &mut ptr::null_mut()),
            CODEC_ERROR_ARGUMENT
        );
    }
}

#[test]
fn what_is_written_may_not_overlap_anything() {
    let b = Bench::new();
    let mut memory = [0u64; 4000];
    let base = memory.as_mut_ptr();
    let overlap = CODEC_ERROR_OVERLAP;
    // SAFETY: every pointer is valid for its length.
    unsafe {
        let mut n = 0;
        let (pcm, codes) = (base.cast::<f32>(), base.cast::<u16>());
        assert_eq!(codec_encoder_push(b.encoder, pcm, 400, codes, 1000, &mut n), overlap);
        let last = codes.add(798);
        assert_eq!(codec_encoder_push(b.encoder, pcm, 400, last, 1000, &mut n), overlap);
        // One behind the other is none.
        assert_eq!(codec_encoder_push(b.encoder, pcm, 400, codes.add(800), 1000, &mut n), CODEC_OK);
        assert_eq!(codec_encoder_push(b.encoder, pcm, 400, codes.add(800), 1000, pcm.cast()), overlap);
        assert_eq!(codec_encoder_push(b.encoder, pcm, 400, codes.add(800), 1000, base.add(300).cast()), overlap);
        assert_eq!(codec_decoder_push(b.decoder, codes, 10, pcm, 7000, &mut n), overlap);
        assert_eq!(codec_decoder_finish(b.decoder, pcm, 7000, base.cast()), overlap);
        // Over the handle itself.
        let handle: *mut usize = b.encoder.cast();
        assert_eq!(codec_encoder_push(b.encoder, pcm, 400, codes.add(800), 1000, handle.add(1)), overlap);
        assert_eq!(codec_encoder_max_frames(b.encoder, 4, handle), overlap);
        assert_eq!(codec_decoder_max_samples(b.decoder, 4, b.decoder.cast()), overlap);
        // What is read may not lie in the handle either: the call changes it.
        assert_eq!(codec_encoder_push(b.encoder, handle.add(70).cast(), 4, codes, 1000, &mut n), overlap);
        assert_eq!(codec_decoder_push(b.decoder, b.decoder.cast(), 1, pcm, 7000, &mut n), overlap);
        assert_eq!(codec_nac_writer_write(b.writer, b.writer.cast(), 1), overlap);
        assert_eq!(codec_nac_writer_data(b.writer, base.cast(), base.cast()), overlap);
        assert_eq!(codec_model_codebook_sizes(b.model.0, base.cast(), 3, base.cast()), overlap);
        let text = text(codec_last_error());
        assert!(text.contains("count"), "{text}");
    }
}

#[test]
fn the_state_in_memory_of_the_caller_is_checked_too() {
    let model = Model::load("stream");
    let options = sized!(codec_decoder_options {});
    let mut decoder = ptr::null_mut();
    // SAFETY: every pointer is null, misaligned, or valid for its length.
    unsafe {
        let size = codec_decoder_state_size(model.0, &options);
        let mut memory = vec![0u8; size + CODEC_STATE_ALIGN];
        let shift = memory.as_ptr().align_offset(CODEC_STATE_ALIGN);
        let place: *mut c_void = memory.as_mut_ptr().add(shift).cast();
        let init = |place, size, out| codec_decoder_init(place, size, model.0, &options, out);
        assert_eq!(init(ptr::null_mut(), size, &mut decoder), CODEC_ERROR_NULL);
        assert_eq!(init(place.add(8), size, &mut decoder), CODEC_ERROR_MISALIGNED);
        assert_eq!(init(place, size - 1, &mut decoder), CODEC_ERROR_BUFFER_TOO_SHORT);
        assert_eq!(init(place, 0, &mut decoder), CODEC_ERROR_BUFFER_TOO_SHORT);
        assert_eq!(init(place, size, place.cast()), CODEC_ERROR_OVERLAP);
        assert_eq!(init(place, size, ptr::null_mut()), CODEC_ERROR_NULL);
        assert_eq!(init(place, size, &mut decoder), CODEC_OK);
        // Samples into the state.
        let (mut out, mut n) = (vec![0.0f32; 9000], 0);
        let inside = place.add(size - 40_000.min(size / 2)).cast::<f32>();
        assert_eq!(codec_decoder_finish(decoder, inside, 40, &mut n), CODEC_ERROR_OVERLAP);
        // Codes out of it, and a number into its last bytes.
        assert_eq!(codec_decoder_push(decoder, inside.cast(), 1, out.as_mut_ptr(), 9000, &mut n), CODEC_ERROR_OVERLAP);
        let last = (size - size_of::<usize>()) / size_of::<usize>();
        assert_eq!(codec_decoder_max_samples(decoder, 1, place.cast::<usize>().add(last)), CODEC_ERROR_OVERLAP);
        assert_eq!(
            codec_decoder_push(decoder, [64, 0, 0].as_ptr(), 1, out.as_mut_ptr(), 9000, &mut n),
            CODEC_ERROR_CODES
        );
        assert_eq!(codec_decoder_push(decoder, [63, 0, 16].as_ptr(), 1, out.as_mut_ptr(), 9000, &mut n), CODEC_OK);
        assert!(n > 0);
        out.fill(7.0);
        assert_eq!(codec_decoder_finish(decoder, out.as_mut_ptr(), 9000, &mut n), CODEC_OK);
        // Only the samples are written, and they stay.
        assert!(out[n..].iter().all(|v| *v == 7.0));
        let made = out.clone();
        assert_eq!(codec_decoder_finish(decoder, out.as_mut_ptr(), 9000, &mut n), CODEC_ERROR_FINISHED);
        assert_eq!(out, made);
        // An encoder it is not.
        assert_eq!(codec_encoder_reset(decoder.cast()), CODEC_ERROR_HANDLE);

        for (name, threads, status) in [
            ("segments", 0, CODEC_ERROR_UNSUPPORTED),
            ("whole", 0, CODEC_ERROR_UNSUPPORTED),
            ("windows", 0, CODEC_ERROR_UNSUPPORTED),
            ("stream", 2, CODEC_ERROR_UNSUPPORTED),
        ] {
            let (model, options) = (Model::load(name), sized!(codec_encoder_options { threads: threads }));
            let mut encoder = ptr::null_mut();
            assert_eq!(codec_encoder_state_size(model.0, &options), 0);
            assert_eq!(codec_encoder_init(place, size, model.0, &options, &mut encoder), status, "{name}");
        }
        // The head of the memory is as long whatever the state.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        models::write("stream", &path);
        let own = codec::Model::load(path).unwrap();
        let bytes = |frames| own.encoder_plan().unwrap().state_bytes(frames, &Coding::new(3));
        let asked = |frames| codec_encoder_state_size(model.0, &sized!(codec_encoder_options { step_frames: frames }));
        let expected = if usize::BITS == 64 { bytes(u32::MAX as usize) + (asked(1) - bytes(1)) } else { 0 };
        assert_eq!(asked(u32::MAX), expected);
        let limited = sized!(codec_encoder_options { max_memory: 1 });
        assert_eq!(codec_encoder_state_size(model.0, &limited), 0);
        assert!(text(codec_last_error()).contains("max_memory"));
    }
}

#[test]
fn a_second_end_leaves_the_frames_of_the_first() {
    let model = Model::load("stream");
    // SAFETY: memory of the size and alignment that the library asks for, and buffers of the lengths given.
    unsafe {
        let size = codec_encoder_state_size(model.0, ptr::null());
        let mut memory = vec![0u8; size + CODEC_STATE_ALIGN];
        let shift = memory.as_ptr().align_offset(CODEC_STATE_ALIGN);
        let place: *mut c_void = memory.as_mut_ptr().add(shift).cast();
        let mut encoder = ptr::null_mut();
        assert_eq!(codec_encoder_init(place, size, model.0, ptr::null(), &mut encoder), CODEC_OK);
        // Samples out of the state.
        let (mut codes, mut n, mut most) = ([0xa5a5u16; 3000], 0, 0);
        let inside = place.add(size / 8 * 4).cast::<f32>();
        assert_eq!(codec_encoder_push(encoder, inside, 4, codes.as_mut_ptr(), 1000, &mut n), CODEC_ERROR_OVERLAP);
        let pcm = signal(430, 1);
        assert_eq!(codec_encoder_push(encoder, pcm.as_ptr(), 430, codes.as_mut_ptr(), 1000, &mut n), CODEC_OK);
        assert_eq!(codec_encoder_max_frames(encoder, 0, &mut most), CODEC_OK);
        codes.fill(0xa5a5);
        assert_eq!(codec_encoder_finish(encoder, codes.as_mut_ptr(), 1000, &mut n), CODEC_OK);
        assert!(n > 0 && codes[..n * 3].iter().all(|c| *c < 64) && codes[most * 3..].iter().all(|c| *c == 0xa5a5));
        let made = codes;
        assert_eq!(codec_encoder_finish(encoder, codes.as_mut_ptr(), 1000, &mut n), CODEC_ERROR_FINISHED);
        assert_eq!(codes, made);
    }
}

#[test]
fn another_kind_of_handle_and_a_destroyed_one_are_found_out() {
    let b = Bench::new();
    // SAFETY: handles of other kinds, and memory that is no handle.
    unsafe {
        assert_eq!(codec_encoder_reset(b.decoder.cast()), CODEC_ERROR_HANDLE);
        assert_eq!(codec_decoder_reset(b.model.0.cast()), CODEC_ERROR_HANDLE);
        assert_eq!(codec_nac_reader_seek(b.writer.cast(), 0), CODEC_ERROR_HANDLE);
        assert_eq!(codec_encoder_create(b.encoder.cast(), ptr::null(), &mut ptr::null_mut()), CODEC_ERROR_HANDLE);
        assert_eq!(codec_model_destroy(b.encoder.cast()), CODEC_ERROR_HANDLE);
        assert!(codec_model_name(b.encoder.cast()).is_null());
        assert!(text(codec_encoder_error(b.decoder.cast())).contains("not a handle"));
        let mut zeros = [0u64; 200];
        assert_eq!(codec_encoder_reset(zeros.as_mut_ptr().cast()), CODEC_ERROR_HANDLE);
        assert_eq!(codec_nac_writer_destroy(zeros.as_mut_ptr().cast()), CODEC_ERROR_HANDLE);
    }
}

#[test]
fn structs_may_be_older_or_newer_but_not_of_another_size() {
    let model = Model::load("stream");
    #[repr(C)]
    struct Newer {
        known: codec_encoder_options,
        unknown: [u64; 2],
    }
    // SAFETY: every struct has the bytes that it says.
    unsafe {
        let mut encoder = ptr::null_mut();
        let good = sized!(codec_encoder_options {});
        for size in [0, 1, good.struct_size - 1, 4097, usize::MAX] {
            let options = codec_encoder_options { struct_size: size, ..good };
            assert_eq!(codec_encoder_create(model.0, &options, &mut encoder), CODEC_ERROR_STRUCT_SIZE, "{size}");
            assert!(text(codec_last_error()).contains("struct_size"), "{}", text(codec_last_error()));
            let mut info = codec_model_info { struct_size: size, ..sized!(codec_model_info {}) };
            assert_eq!(codec_model_get_info(model.0, &mut info), CODEC_ERROR_STRUCT_SIZE);
            assert_eq!(info.sample_rate, 0);
        }
        let mut newer =
            Newer { known: codec_encoder_options { struct_size: size_of::<Newer>(), ..good }, unknown: [0; 2] };
        assert_eq!(codec_encoder_create(model.0, ptr::from_ref(&newer).cast(), &mut encoder), CODEC_OK);
        assert_eq!(codec_encoder_destroy(encoder), CODEC_OK);
        newer.unknown[1] = 1;
        let status = codec_encoder_create(model.0, ptr::from_ref(&newer).cast(), &mut encoder);
        assert_eq!((status, encoder.is_null()), (CODEC_ERROR_STRUCT_SIZE, true));
        // A newer caller gets zeros for what this library does not know.
        let mut wide = [u64::MAX; 20];
        wide[0] = 160;
        assert_eq!(codec_model_get_info(model.0, wide.as_mut_ptr().cast()), CODEC_OK);
        assert_eq!((wide[0], wide[19], wide[1] as u32), (160, 0, 8000));
    }
}

#[test]
fn values_out_of_range_are_errors_that_say_the_range() {
    let model = Model::load("stream");
    let (mut encoder, mut decoder, mut writer) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
    // SAFETY: a model, and pointers to values of this function; the handles end once.
    unsafe {
        let create = |options: codec_encoder_options, encoder: &mut _| codec_encoder_create(model.0, &options, encoder);
        for options in [
            sized!(codec_encoder_options { codebooks: 4 }),
            sized!(codec_encoder_options { codebooks: u32::MAX }),
            sized!(codec_encoder_options { threads: 1025 }),
            sized!(codec_encoder_options { first_codebook: 3 }),
            sized!(codec_encoder_options { first_codebook: u32::MAX }),
            sized!(codec_encoder_options { first_codebook: 2, codebooks: 2 }),
        ] {
            assert_eq!(create(options, &mut encoder), CODEC_ERROR_ARGUMENT, "{options:?}");
        }
        assert_eq!(create(sized!(codec_encoder_options { max_memory: 1 }), &mut encoder), CODEC_ERROR_MEMORY);
        let options = sized!(codec_nac_writer_options { chunk_frames: 65536 });
        assert_eq!(codec_nac_writer_create_memory(model.0, &options, &mut writer), CODEC_ERROR_ARGUMENT);
        let options = sized!(codec_nac_reader_options { salvage: 2 });
        let status = codec_nac_reader_create_memory([0u8].as_ptr().cast(), 1, &options, &mut ptr::null_mut());
        assert_eq!(status, CODEC_ERROR_ARGUMENT);

        assert_eq!(create(sized!(codec_encoder_options { threads: CODEC_ALL_THREADS }), &mut encoder), CODEC_OK);
        let (mut codes, mut n) = ([0u16; 3000], 0);
        for bad in [f32::NAN, f32::INFINITY] {
            let pcm = [0.0, 0.5, bad];
            let status = codec_encoder_push(encoder, pcm.as_ptr(), 3, codes.as_mut_ptr(), 1000, &mut n);
            assert_eq!(status, CODEC_ERROR_SAMPLES);
            assert!(text(codec_encoder_error(encoder)).contains("sample 2"), "{}", text(codec_encoder_error(encoder)));
        }
        assert_eq!(codec_encoder_finish(encoder, codes.as_mut_ptr(), 1000, &mut n), CODEC_OK);
        let status = codec_encoder_push(encoder, [0.0f32].as_ptr(), 1, codes.as_mut_ptr(), 1000, &mut n);
        assert_eq!(status, CODEC_ERROR_FINISHED);
        assert_eq!(codec_encoder_reset(encoder), CODEC_OK);
        assert_eq!(codec_encoder_destroy(encoder), CODEC_OK);

        for options in [
            sized!(codec_decoder_options { reserved: 1 }),
            sized!(codec_decoder_options { has_noise_seed: 2 }),
            sized!(codec_decoder_options { noise_seed: 1 }),
            sized!(codec_decoder_options { first_codebook: 3 }),
        ] {
            assert_eq!(codec_decoder_create(model.0, &options, &mut decoder), CODEC_ERROR_ARGUMENT, "{options:?}");
            assert_eq!(codec_decoder_state_size(model.0, &options), 0, "{options:?}");
        }
        assert_eq!(codec_decoder_create(model.0, ptr::null(), &mut decoder), CODEC_OK);
        let mut pcm = [0.0f32; 9000];
        let codes = [0, 0, 0, 63, 63, 17];
        let status = codec_decoder_push(decoder, codes.as_ptr(), 2, pcm.as_mut_ptr(), 9000, &mut n);
        assert_eq!(status, CODEC_ERROR_CODES);
        let text = text(codec_decoder_error(decoder));
        assert!(["17", "frame 1", "codebook 2"].iter().all(|part| text.contains(part)), "{text}");
        let status = codec_decoder_push_segment(decoder, codes.as_ptr(), 1, 1.0, pcm.as_mut_ptr(), 9000, &mut n);
        assert_eq!(status, CODEC_ERROR_UNSUPPORTED);
        assert_eq!(codec_decoder_destroy(decoder), CODEC_OK);
        assert_eq!(codec_nac_writer_create_memory(model.0, ptr::null(), &mut writer), CODEC_OK);
        assert_eq!(codec_nac_writer_write(writer, codes.as_ptr(), 2), CODEC_ERROR_CODES);
        assert_eq!(codec_nac_writer_begin_segment(writer, 1.0), CODEC_ERROR_STATE);
        assert_eq!(codec_nac_writer_destroy(writer), CODEC_OK);
    }
}

#[test]
fn what_is_no_model_or_cannot_do_it_is_an_error_that_says_what_to_do() {
    let mut model = ptr::null_mut();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    models::write("stream", &path);
    let bytes = std::fs::read(&path).unwrap();
    // SAFETY: texts that end in a zero, bytes that outlive the models, and pointers to values of this function.
    unsafe {
        assert_eq!(codec_model_from_file(c"/no/such/model".as_ptr(), &mut model), CODEC_ERROR_IO);
        assert!(text(codec_last_error()).contains("/no/such/model"));
        if cfg!(feature = "default-model") {
            assert_eq!(codec_model_default(&mut model), CODEC_OK);
            assert_eq!(text(codec_model_name(model)), "nano-16k");
            assert_eq!(codec_model_destroy(model), CODEC_OK);
            model = ptr::null_mut();
        } else {
            assert_eq!(codec_model_default(&mut model), CODEC_ERROR_NO_DEFAULT_MODEL);
            let told = text(codec_last_error());
            assert!(told.contains("codec import") && told.contains("codec_model_from_file"), "{told}");
        }
        for len in (0..bytes.len()).step_by(7) {
            let status = codec_model_from_memory(bytes.as_ptr().cast(), len, &mut model);
            assert_eq!((status, model.is_null()), (CODEC_ERROR_MODEL, true), "{len} bytes");
        }
        let model = Model::load("encoder-only");
        let mut decoder = ptr::null_mut();
        assert_eq!(codec_decoder_create(model.0, ptr::null(), &mut decoder), CODEC_ERROR_UNSUPPORTED);
        assert_eq!(codec_decoder_state_size(model.0, ptr::null()), 0);
        let mut info = sized!(codec_model_info {});
        assert_eq!(codec_model_get_info(model.0, &mut info), CODEC_OK);
        assert_eq!((info.can_encode, info.can_decode), (1, 0));
    }
}

/// A callback that uses the writer that calls it.
unsafe extern "C" fn reenters(user: *mut c_void, _: *const c_void, len: usize) -> i64 {
    // SAFETY: `user` is the test's cell.
    let (writer, seen) = unsafe { &mut *user.cast::<(*mut codec_nac_writer, Vec<codec_status>)>() };
    if !writer.is_null() {
        // SAFETY: the writer is there: it calls.
        unsafe {
            seen.push(codec_nac_writer_flush(*writer));
            seen.push(codec_nac_writer_destroy(*writer));
        }
    }
    len as i64
}

#[test]
fn a_callback_cannot_use_the_handle_that_calls_it() {
    let model = Model::load("stream");
    let mut cell: (*mut codec_nac_writer, Vec<codec_status>) = (ptr::null_mut(), Vec::new());
    let user = &raw mut cell;
    let io = sized!(codec_io { user: user.cast(), write: Some(reenters) });
    let mut writer = ptr::null_mut();
    // SAFETY: a model, and pointers to values of this function; the handle ends once.
    unsafe {
        assert_eq!(codec_nac_writer_create_io(model.0, &io, ptr::null(), &mut writer), CODEC_OK);
        (*user).0 = writer;
        assert_eq!(codec_nac_writer_write(writer, [1, 2, 3].as_ptr(), 1), CODEC_OK);
        assert_eq!(codec_nac_writer_finish(writer, 40), CODEC_OK);
        assert!((*user).1.len() >= 2);
        assert!((*user).1.iter().all(|status| *status == CODEC_ERROR_BUSY), "{:?}", (*user).1);
        assert_eq!(codec_nac_writer_destroy(writer), CODEC_OK);
    }
}

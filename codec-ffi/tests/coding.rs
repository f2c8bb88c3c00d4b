//! What goes through the C functions is what the library gives, whatever memory it lies in.

mod support;

use std::{
    alloc::{Layout, alloc, dealloc},
    ptr,
};

use codec::{Codes, Options};
use codec_ffi::{codec_status::*, *};
use support::{Model, models, models::signal, sized, text};

/// The same model for the library.
fn library(name: &str) -> codec::Model {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    models::write(name, &path);
    codec::Model::load(path).unwrap()
}

/// Memory at a 64-byte boundary.
struct Memory(*mut u8, Layout);

impl Memory {
    fn new(size: usize) -> Self {
        let layout = Layout::from_size_align(size, CODEC_STATE_ALIGN).unwrap();
        // SAFETY: of a size above zero.
        Self(unsafe { alloc(layout) }, layout)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: as allocated.
        unsafe { dealloc(self.0, self.1) }
    }
}

fn encode(encoder: *mut codec_encoder, channels: usize, codebooks: usize, pcm: &[f32], piece: usize) -> Codes {
    let mut all = Codes::new(codebooks);
    let mut pieces: Vec<&[f32]> = pcm.chunks(piece * channels).collect();
    pieces.push(&[]);
    let last = pieces.len() - 1;
    for (i, piece) in pieces.into_iter().enumerate() {
        let (mut most, mut frames, samples) = (0, 0, piece.len() / channels);
        // SAFETY: pointers to values of this function.
        unsafe {
            assert_eq!(codec_encoder_max_frames(encoder, samples, &mut most), CODEC_OK);
            let mut codes = vec![0xffffu16; most * codebooks];
            let status = if i == last {
                codec_encoder_finish(encoder, codes.as_mut_ptr(), most, &mut frames)
            } else {
                codec_encoder_push(encoder, piece.as_ptr(), samples, codes.as_mut_ptr(), most, &mut frames)
            };
            assert_eq!(status, CODEC_OK, "{}", text(codec_encoder_error(encoder)));
            all.data.extend_from_slice(&codes[..frames * codebooks]);
            let mut count = 0;
            assert_eq!(codec_encoder_segments(encoder, ptr::null_mut(), 0, &mut count), CODEC_OK);
            let mut segments = vec![codec_segment { frames: 0, scale: 0.0 }; count];
            assert_eq!(codec_encoder_segments(encoder, segments.as_mut_ptr(), count, &mut count), CODEC_OK);
            all.segments.extend(segments.iter().map(|s| codec::Segment { frames: s.frames, scale: s.scale }));
        }
    }
    all
}

fn decode(decoder: *mut codec_decoder, channels: usize, codes: &Codes, piece: usize) -> Vec<f32> {
    let mut pcm = Vec::new();
    let mut rest = codes.data.as_slice();
    let mut segments = codes.segments.iter();
    let mut end = false;
    while !end {
        let segment = segments.next();
        let frames = segment.map_or(piece, |s| s.frames).min(rest.len() / codes.codebooks);
        let (now, later) = rest.split_at(frames * codes.codebooks);
        end = rest.is_empty();
        rest = later;
        let (mut most, mut samples) = (0, 0);
        // SAFETY: pointers to values of this function.
        unsafe {
            assert_eq!(codec_decoder_max_samples(decoder, frames, &mut most), CODEC_OK);
            let mut out = vec![f32::NAN; most * channels];
            let to = out.as_mut_ptr();
            let status = match segment {
                _ if end => codec_decoder_finish(decoder, to, most, &mut samples),
                Some(s) => codec_decoder_push_segment(decoder, now.as_ptr(), frames, s.scale, to, most, &mut samples),
                None => codec_decoder_push(decoder, now.as_ptr(), frames, to, most, &mut samples),
            };
            assert_eq!(status, CODEC_OK, "{}", text(codec_decoder_error(decoder)));
            pcm.extend_from_slice(&out[..samples * channels]);
        }
    }
    pcm
}

#[test]
fn handles_give_what_the_library_gives_in_pieces_of_any_size() {
    for (name, channels) in [("stream", 1), ("segments", 2), ("whole", 1), ("windows", 1)] {
        let (model, own) = (Model::load(name), library(name));
        let pcm = signal(9137, channels);
        let options = Options { codebooks: Some(2), ..Options::default() };
        let expected = own.encode(&pcm, &options).unwrap();
        let sound = own.decode(&expected, None, &options).unwrap();
        let asked = sized!(codec_encoder_options { codebooks: 2, threads: 2 });
        let back = sized!(codec_decoder_options { codebooks: 2 });
        let (mut encoder, mut decoder) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: a model, and pointers to values of this function; the handles end once.
        unsafe {
            assert_eq!(codec_encoder_create(model.0, &asked, &mut encoder), CODEC_OK, "{}", text(codec_last_error()));
            assert_eq!(codec_decoder_create(model.0, &back, &mut decoder), CODEC_OK, "{}", text(codec_last_error()));
            // The coders go on without the model's handle.
            drop(model);
            for piece in [9137, 1, 77, 4000] {
                assert_eq!(encode(encoder, channels, 2, &pcm, piece), expected, "{name}, pieces of {piece}");
                assert_eq!(codec_encoder_reset(encoder), CODEC_OK);
                assert_eq!(decode(decoder, channels, &expected, piece), sound, "{name}, pieces of {piece}");
                assert_eq!(codec_decoder_reset(decoder), CODEC_OK);
            }
            assert_eq!(codec_encoder_destroy(encoder), CODEC_OK);
            assert_eq!(codec_decoder_destroy(decoder), CODEC_OK);
        }
    }
}

#[test]
fn any_of_the_codebooks_go_both_ways_and_a_file_says_which() {
    let pcm = signal(9137, 1);
    // The codebook, the code of a frame where it begins, and codes from there on.
    for (name, book, code, count, beam, merged) in
        [("stream", 1, 1, 2, 1, 0), ("stream", 2, 2, 1, 3, 2), ("rates", 1, 1, 2, 2, 0), ("rates", 2, 3, 4, 1, 0)]
    {
        let (model, own) = (Model::load(name), library(name));
        let options =
            Options { first_codebook: code, codebooks: Some(count), beam, merged_books: merged, ..Options::default() };
        let expected = own.encode(&pcm, &options).unwrap();
        let sound = own.decode(&expected, None, &options).unwrap();
        let asked = sized!(codec_encoder_options {
            first_codebook: book,
            codebooks: count as u32,
            beam: beam as u32,
            merged_codebooks: merged as u32,
            step_frames: 3,
        });
        let written = sized!(codec_nac_writer_options { first_codebook: book, codebooks: count as u32 });
        let (mut encoder, mut decoder) = (ptr::null_mut(), ptr::null_mut());
        let (mut writer, mut reader) = (ptr::null_mut(), ptr::null_mut());
        let (mut data, mut len) = (ptr::null(), 0);
        // SAFETY: a model, memory of the size asked for, and pointers to values of this function; the handles end once.
        unsafe {
            assert_eq!(codec_encoder_create(model.0, &asked, &mut encoder), CODEC_OK, "{}", text(codec_last_error()));
            assert_eq!(encode(encoder, 1, count, &pcm, 700), expected, "{name}, from {book}");
            assert_eq!(codec_encoder_destroy(encoder), CODEC_OK);
            let size = codec_encoder_state_size(model.0, &asked);
            let memory = Memory::new(size);
            let status = codec_encoder_init(memory.0.cast(), size, model.0, &asked, &mut encoder);
            assert_eq!(status, CODEC_OK, "{}", text(codec_last_error()));
            assert_eq!(encode(encoder, 1, count, &pcm, 700), expected, "{name}, from {book}, placed");

            assert_eq!(codec_nac_writer_create_memory(model.0, &written, &mut writer), CODEC_OK);
            assert_eq!(codec_nac_writer_write(writer, expected.data.as_ptr(), expected.frames()), CODEC_OK);
            assert_eq!(codec_nac_writer_finish(writer, 9137), CODEC_OK);
            assert_eq!(codec_nac_writer_data(writer, &mut data, &mut len), CODEC_OK);
            assert_eq!(codec_nac_reader_create_memory(data, len, ptr::null(), &mut reader), CODEC_OK);
            let status = codec_nac_reader_check_model(reader, model.0);
            assert_eq!(status, CODEC_OK, "{}", text(codec_nac_reader_error(reader)));
            let mut info = sized!(codec_nac_info {});
            assert_eq!(codec_nac_reader_get_info(reader, &mut info), CODEC_OK);
            assert_eq!((info.first_codebook, info.codebooks), (book, count as u32));

            let back = sized!(codec_decoder_options { first_codebook: info.first_codebook, codebooks: info.codebooks });
            assert_eq!(codec_decoder_create(model.0, &back, &mut decoder), CODEC_OK);
            assert_eq!(decode(decoder, 1, &expected, 50), sound, "{name}, from {book}");
            assert_eq!(codec_decoder_destroy(decoder), CODEC_OK);
            let size = codec_decoder_state_size(model.0, &back);
            let memory = Memory::new(size);
            let status = codec_decoder_init(memory.0.cast(), size, model.0, &back, &mut decoder);
            assert_eq!(status, CODEC_OK, "{}", text(codec_last_error()));
            assert_eq!(decode(decoder, 1, &expected, 50), sound, "{name}, from {book}, placed");
            assert_eq!(codec_nac_reader_destroy(reader), CODEC_OK);
            assert_eq!(codec_nac_writer_destroy(writer), CODEC_OK);
        }
    }
}

#[test]
fn a_seed_makes_the_noise_of_a_decoder() {
    let (model, own) = (Model::load("noise"), library("noise"));
    let codes = own.encode(&signal(2000, 1), &Options::default()).unwrap();
    let plain = own.decode(&codes, None, &Options::default()).unwrap();
    for seed in [0, u64::MAX - 7] {
        let sound = own.decode(&codes, None, &Options { noise_seed: Some(seed), ..Options::default() }).unwrap();
        assert_ne!(sound, plain);
        let options = sized!(codec_decoder_options { has_noise_seed: 1, noise_seed: seed });
        let mut decoder = ptr::null_mut();
        // SAFETY: a model, memory of the size asked for, and pointers to values of this function.
        unsafe {
            assert_eq!(codec_decoder_create(model.0, &options, &mut decoder), CODEC_OK);
            assert_eq!(decode(decoder, 1, &codes, 7), sound);
            assert_eq!(codec_decoder_destroy(decoder), CODEC_OK);
            let size = codec_decoder_state_size(model.0, &options);
            let memory = Memory::new(size);
            let status = codec_decoder_init(memory.0.cast(), size, model.0, &options, &mut decoder);
            assert_eq!(status, CODEC_OK, "{}", text(codec_last_error()));
            assert_eq!(decode(decoder, 1, &codes, 7), sound);
            // The seed stays.
            assert_eq!(codec_decoder_reset(decoder), CODEC_OK);
            assert_eq!(decode(decoder, 1, &codes, 50), sound);
            let without = Model::load("stream");
            assert_eq!(codec_decoder_create(without.0, &options, &mut decoder), CODEC_ERROR_UNSUPPORTED);
            assert_eq!(codec_decoder_state_size(without.0, &options), 0);
            assert!(text(codec_last_error()).contains("noise"), "{}", text(codec_last_error()));
        }
    }
}

#[test]
fn a_model_says_how_it_takes_signals_and_holds_its_weights() {
    use codec_precision::*;
    use codec_unit::*;
    for (name, encoder, decoder) in [
        ("stream", CODEC_UNIT_STEP, CODEC_UNIT_STEP),
        ("segments", CODEC_UNIT_SEGMENT, CODEC_UNIT_SEGMENT),
        ("whole", CODEC_UNIT_SIGNAL, CODEC_UNIT_STEP),
        ("windows", CODEC_UNIT_WINDOW, CODEC_UNIT_STEP),
        ("encoder-only", CODEC_UNIT_STEP, CODEC_UNIT_NONE),
    ] {
        let model = Model::load(name);
        let mut info = sized!(codec_model_info {});
        // SAFETY: a model, and a value of this function.
        unsafe {
            assert_eq!(codec_model_get_info(model.0, &mut info), CODEC_OK);
            assert_eq!((info.encoder_unit, info.decoder_unit), (encoder as u32, decoder as u32), "{name}");
            assert_eq!(info.precision, CODEC_PRECISION_F32 as u32);
            // What the functions that make states in the caller's memory take.
            assert_eq!(codec_encoder_state_size(model.0, ptr::null()) > 0, encoder == CODEC_UNIT_STEP, "{name}");
            assert_eq!(codec_decoder_state_size(model.0, ptr::null()) > 0, decoder == CODEC_UNIT_STEP, "{name}");
        }
    }
    let half = library("stream").with_precision(codec::core::weights::Precision::F16);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), half.pack(&codec::PackOptions::default()).unwrap()).unwrap();
    let (model, mut info) = (Model::open(file.path()), sized!(codec_model_info {}));
    // SAFETY: as above.
    unsafe { assert_eq!(codec_model_get_info(model.0, &mut info), CODEC_OK) };
    assert_eq!(info.precision, CODEC_PRECISION_F16 as u32);
}

#[test]
fn states_in_memory_of_the_caller_can_be_moved_between_any_two_calls() {
    let (model, own) = (Model::load("stream"), library("stream"));
    let pcm = signal(3001, 1);
    let expected = own.encode(&pcm, &Options::default()).unwrap();
    let sound = own.decode(&expected, None, &Options::default()).unwrap();
    for step in [0, 1, 7] {
        let asked = sized!(codec_encoder_options { step_frames: step });
        let back = sized!(codec_decoder_options { step_frames: step });
        // SAFETY: the memory is of the size and alignment that the library asks for, and outlives its handles.
        unsafe {
            let (ours, theirs) = (codec_encoder_state_size(model.0, &asked), codec_decoder_state_size(model.0, &back));
            assert!(ours > 0 && theirs > 0, "{}", text(codec_last_error()));
            let (a, b, c, d) = (Memory::new(ours), Memory::new(ours), Memory::new(theirs), Memory::new(theirs));
            let (mut encoder, mut decoder) = (ptr::null_mut(), ptr::null_mut());
            let status = codec_encoder_init(a.0.cast(), ours, model.0, &asked, &mut encoder);
            assert_eq!(status, CODEC_OK, "{}", text(codec_last_error()));
            assert_eq!(encoder.cast::<u8>(), a.0);
            let status = codec_decoder_init(c.0.cast(), theirs, model.0, &back, &mut decoder);
            assert_eq!(status, CODEC_OK, "{}", text(codec_last_error()));

            // One signal, the state moved after every piece; then the rest of it from both copies.
            let (mut codes, mut here, mut there) = (Vec::new(), a.0, b.0);
            for piece in pcm.chunks(53) {
                let (mut most, mut frames) = (0, 0);
                let encoder = here.cast::<codec_encoder>();
                assert_eq!(codec_encoder_max_frames(encoder, piece.len(), &mut most), CODEC_OK);
                let mut out = vec![0; most * 3];
                let (len, to) = (piece.len(), out.as_mut_ptr());
                assert_eq!(codec_encoder_push(encoder, piece.as_ptr(), len, to, most, &mut frames), CODEC_OK);
                codes.extend_from_slice(&out[..frames * 3]);
                here.copy_to_nonoverlapping(there, ours);
                here.write_bytes(0xa5, ours);
                (here, there) = (there, here);
            }
            here.copy_to_nonoverlapping(there, ours);
            for copy in [here, there] {
                let rest = encode(copy.cast(), 1, 3, &[], 1);
                assert_eq!([codes.clone(), rest.data].concat(), expected.data, "steps of {step}");
            }
            assert_eq!(codec_encoder_destroy(encoder), CODEC_OK);

            for piece in [1, 5, 1000] {
                assert_eq!(decode(decoder, 1, &expected, piece), sound, "steps of {step}, pieces of {piece}");
                assert_eq!(codec_decoder_reset(decoder), CODEC_OK);
            }
            c.0.copy_to_nonoverlapping(d.0, theirs);
            assert_eq!(decode(d.0.cast(), 1, &expected, 9), sound);
            assert_eq!(codec_decoder_destroy(decoder), CODEC_OK);
            // It has no magic word any more.
            assert_eq!(codec_decoder_reset(decoder), CODEC_ERROR_HANDLE);
        }
    }
}

#[test]
fn a_model_of_memory_is_the_same_and_one_model_serves_many_threads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    models::write("stream", &path);
    let bytes = std::fs::read(&path).unwrap();
    // Not even aligned.
    let shifted = [&[0][..], &bytes].concat();
    let pcm = signal(4000, 1);
    let expected = library("stream").encode(&pcm, &Options::default()).unwrap();
    // A deploy image, on a boundary of its own.
    let image = library("stream").pack(&codec::PackOptions::default()).unwrap();
    let mut lines = vec![[0u64; 8]; image.len() / 64 + 2];
    let place = lines.as_mut_ptr().cast::<u8>();
    // SAFETY: the lines have room for the image from the first multiple of 64 on.
    let image = unsafe {
        let place = place.add(place.align_offset(64));
        image.as_ptr().copy_to_nonoverlapping(place, image.len());
        std::slice::from_raw_parts(place, image.len())
    };
    for data in [&bytes[..], &shifted[1..], image] {
        let mut model = ptr::null_mut();
        // SAFETY: the bytes outlive the model, whose handle ends once.
        unsafe {
            assert_eq!(codec_model_from_memory(data.as_ptr().cast(), data.len(), &mut model), CODEC_OK);
            let model = Model(model);
            let address = model.0.expose_provenance();
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let model = ptr::with_exposed_provenance_mut::<codec_model>(address);
                        let mut encoder = ptr::null_mut();
                        assert_eq!(codec_encoder_create(model, ptr::null(), &mut encoder), CODEC_OK);
                        assert_eq!(encode(encoder, 1, 3, &pcm, 500), expected);
                        assert_eq!(codec_encoder_destroy(encoder), CODEC_OK);
                    });
                }
            });
        }
    }
}

#[test]
fn queries_tell_what_the_library_tells() {
    let (model, own) = (Model::load("stream"), library("stream"));
    let info = own.info().unwrap();
    // SAFETY: a model, and pointers to values of this function.
    unsafe {
        let mut told = sized!(codec_model_info {});
        assert_eq!(codec_model_get_info(model.0, &mut told), CODEC_OK);
        assert_eq!((told.sample_rate, told.channels, told.hop, told.codebooks), (8000, 1, 40, 3));
        assert_eq!((told.can_encode, told.can_decode, told.segment_samples, told.segment_stride), (1, 1, 0, 0));
        assert_eq!(told.fingerprint, own.fingerprint().0);
        assert_eq!(text(codec_model_name(model.0)), "stream");
        let mut sizes = [0; 3];
        let mut count = 0;
        assert_eq!(codec_model_codebook_sizes(model.0, ptr::null_mut(), 0, &mut count), CODEC_OK);
        assert_eq!(count, 3);
        assert_eq!(codec_model_codebook_sizes(model.0, sizes.as_mut_ptr(), 3, &mut count), CODEC_OK);
        assert_eq!(sizes, [64, 64, 17]);
        let status = codec_model_codebook_sizes(model.0, sizes.as_mut_ptr(), 2, &mut count);
        assert_eq!(status, CODEC_ERROR_BUFFER_TOO_SHORT);
        assert_eq!(codec_model_codebook_choices(model.0, sizes.as_mut_ptr(), 3, &mut count), CODEC_OK);
        assert_eq!((count, &sizes[..2]), (2, &[1, 3][..]));
        let (mut bits, mut delay) = (0.0, 0.0);
        assert_eq!(codec_model_bitrate(model.0, 0, &mut bits), CODEC_OK);
        assert_eq!(bits, 17.0 * 200.0);
        assert_eq!(codec_model_bitrate(model.0, 1, &mut bits), CODEC_OK);
        assert_eq!(bits, 6.0 * 200.0);
        assert_eq!(codec_model_delay(model.0, &mut delay), CODEC_OK);
        assert_eq!(delay, info.delay_ms.unwrap() / 1000.0 * 8000.0);
        assert!(delay >= 40.0);
        let segments = Model::load("segments");
        assert_eq!(codec_model_get_info(segments.0, &mut told), CODEC_OK);
        assert_eq!((told.segment_samples, told.segment_stride, told.channels), (2000, 1800, 2));
        assert_eq!(codec_model_delay(segments.0, &mut delay), CODEC_ERROR_UNSUPPORTED);
    }
    assert_eq!(text(codec_version()), env!("CARGO_PKG_VERSION"));
    assert_eq!(codec_version_number(), 0x000100);
}

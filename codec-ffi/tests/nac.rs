//! `.nac` files by memory and by callbacks.

mod support;

use std::{ffi::c_void, ptr};

use codec_ffi::{codec_status::*, *};
use support::{Model, sized, text};

/// A file in memory behind callbacks, which can be told to fail.
#[derive(Default)]
struct File {
    bytes: Vec<u8>,
    at: usize,
    /// Calls until it fails, and with what.
    fails: Option<(usize, i64)>,
    /// Bytes that it takes or gives at once; 0: all.
    at_once: usize,
}

impl File {
    fn next(&mut self, len: usize) -> Result<usize, i64> {
        if let Some((left, with)) = &mut self.fails {
            if *left == 0 {
                return Err(*with);
            }
            *left -= 1;
        }
        Ok(if self.at_once == 0 { len } else { len.min(self.at_once) })
    }

    fn io(&mut self) -> codec_io {
        sized!(codec_io { user: ptr::from_mut(self).cast(), read: Some(read), write: Some(write), seek: Some(seek) })
    }
}

unsafe extern "C" fn read(user: *mut c_void, data: *mut c_void, len: usize) -> i64 {
    // SAFETY: `user` is the test's file, and `data` the library's buffer of `len` bytes.
    unsafe {
        let file = &mut *user.cast::<File>();
        let len = match file.next(len) {
            Ok(len) => len.min(file.bytes.len() - file.at.min(file.bytes.len())),
            Err(with) => return with,
        };
        file.bytes[file.at..].as_ptr().copy_to_nonoverlapping(data.cast(), len);
        file.at += len;
        len as i64
    }
}

unsafe extern "C" fn write(user: *mut c_void, data: *const c_void, len: usize) -> i64 {
    // SAFETY: `user` is the test's file, and `data` the library's `len` bytes.
    unsafe {
        let file = &mut *user.cast::<File>();
        let len = match file.next(len) {
            Ok(len) => len,
            Err(with) => return with,
        };
        let end = file.at + len;
        file.bytes.resize(file.bytes.len().max(end), 0);
        file.bytes[file.at..end].copy_from_slice(std::slice::from_raw_parts(data.cast(), len));
        file.at = end;
        len as i64
    }
}

unsafe extern "C" fn seek(user: *mut c_void, offset: i64, whence: i32) -> i64 {
    // SAFETY: `user` is the test's file.
    let file = unsafe { &mut *user.cast::<File>() };
    let from = [0, file.at, file.bytes.len()][whence as usize] as i64;
    if let Err(with) = file.next(1) {
        return with;
    }
    file.at = (from + offset) as usize;
    file.at as i64
}

fn codes(frames: usize) -> Vec<u16> {
    (0..frames * 3).map(|i| (i * 7 % 17) as u16).collect()
}

/// A file in memory of the library's.
fn in_memory(model: &Model, frames: usize, samples: u64) -> Vec<u8> {
    let options = sized!(codec_nac_writer_options { chunk_frames: 50 });
    let mut writer = ptr::null_mut();
    // SAFETY: a model, and pointers to values of this function; the handle ends once.
    unsafe {
        assert_eq!(codec_nac_writer_create_memory(model.0, &options, &mut writer), CODEC_OK);
        let codes = codes(frames);
        let (first, rest) = codes.split_at(frames / 3 * 3);
        let (mut data, mut len) = (ptr::null(), 0);
        assert_eq!(codec_nac_writer_write(writer, first.as_ptr(), first.len() / 3), CODEC_OK);
        assert_eq!(codec_nac_writer_data(writer, &mut data, &mut len), CODEC_ERROR_STATE);
        assert_eq!(codec_nac_writer_write(writer, rest.as_ptr(), rest.len() / 3), CODEC_OK);
        assert_eq!(codec_nac_writer_finish(writer, samples), CODEC_OK, "{}", text(codec_nac_writer_error(writer)));
        assert_eq!(codec_nac_writer_finish(writer, samples), CODEC_ERROR_FINISHED);
        assert_eq!(codec_nac_writer_write(writer, codes.as_ptr(), 1), CODEC_ERROR_FINISHED);
        assert_eq!(codec_nac_writer_data(writer, &mut data, &mut len), CODEC_OK);
        let bytes = std::slice::from_raw_parts(data.cast::<u8>(), len).to_vec();
        assert_eq!(codec_nac_writer_destroy(writer), CODEC_OK);
        bytes
    }
}

/// Kind, first frame and frames.
type Items = Vec<(u32, u64, u64)>;

/// The items of a file, by kind, first frame and frames, and all codes; or the error, with what came before it.
fn read_all(reader: *mut codec_nac_reader) -> Result<(Items, Vec<u16>), codec_status> {
    let (mut items, mut codes) = (Vec::new(), Vec::new());
    loop {
        let mut item = sized!(codec_nac_item {});
        // SAFETY: a reader, and a value of this function; the item's codes are read before the next call.
        unsafe {
            match codec_nac_reader_next(reader, &mut item) {
                CODEC_OK => {}
                status => return Err(status),
            }
            items.push((item.kind, item.first_frame, item.frames));
            if item.kind == codec_nac_kind::CODEC_NAC_FRAMES as u32 {
                codes.extend_from_slice(std::slice::from_raw_parts(item.codes, item.frames as usize * 3));
            }
        }
        if item.kind == codec_nac_kind::CODEC_NAC_END as u32 {
            return Ok((items, codes));
        }
        assert!(items.len() < 10_000);
    }
}

fn open(bytes: &[u8], salvage: bool) -> Result<*mut codec_nac_reader, codec_status> {
    let options = sized!(codec_nac_reader_options { salvage: salvage.into() });
    let mut reader = ptr::null_mut();
    // SAFETY: the callers keep the bytes until they end the reader.
    match unsafe { codec_nac_reader_create_memory(bytes.as_ptr().cast(), bytes.len(), &options, &mut reader) } {
        CODEC_OK => Ok(reader),
        status => {
            assert!(reader.is_null() && !text(codec_last_error()).is_empty());
            Err(status)
        }
    }
}

#[test]
fn callbacks_write_the_bytes_that_memory_gets_and_read_them_back() {
    let model = Model::load("stream");
    let frames = 217;
    let expected = in_memory(&model, frames, 8670);
    let options = sized!(codec_nac_writer_options { chunk_frames: 50 });
    for at_once in [0, 1, 13] {
        let mut file = File { at_once, ..File::default() };
        let io = file.io();
        let mut writer = ptr::null_mut();
        // SAFETY: a model, and pointers to values of this function; the handles end once.
        unsafe {
            assert_eq!(codec_nac_writer_create_io(model.0, &io, &options, &mut writer), CODEC_OK);
            assert_eq!(codec_nac_writer_write(writer, codes(frames).as_ptr(), frames), CODEC_OK);
            assert_eq!(codec_nac_writer_finish(writer, 8670), CODEC_OK);
            let (mut data, mut len) = (ptr::null(), 0);
            assert_eq!(codec_nac_writer_data(writer, &mut data, &mut len), CODEC_ERROR_UNSUPPORTED);
            assert_eq!(codec_nac_writer_destroy(writer), CODEC_OK);
            assert_eq!(file.bytes, expected);

            file.at = 0;
            let (io, mut reader) = (file.io(), ptr::null_mut());
            assert_eq!(codec_nac_reader_create_io(&io, ptr::null(), &mut reader), CODEC_OK);
            let mut info = sized!(codec_nac_info {});
            assert_eq!(codec_nac_reader_get_info(reader, &mut info), CODEC_OK);
            assert_eq!((info.sample_rate, info.channels, info.hop, info.codebooks), (8000, 1, 40, 3));
            assert_eq!((info.samples, info.segmented), (8670, 0));
            assert_eq!(codec_nac_reader_check_model(reader, model.0), CODEC_OK);
            let other = Model::load("whole");
            assert_eq!(codec_nac_reader_check_model(reader, other.0), CODEC_ERROR_WRONG_MODEL);
            let (items, read) = read_all(reader).unwrap();
            assert_eq!(items, [(1, 0, 50), (1, 50, 50), (1, 100, 50), (1, 150, 50), (1, 200, 17), (3, 217, 0)]);
            assert_eq!(read, codes(frames));
            // The end stays, until it is left.
            assert_eq!(read_all(reader).unwrap().0, [(3, 217, 0)]);
            for to in [0, 1, 50, 77, 216] {
                assert_eq!(codec_nac_reader_seek(reader, to), CODEC_OK, "{}", text(codec_nac_reader_error(reader)));
                let (items, read) = read_all(reader).unwrap();
                assert_eq!((items[0].1, &read[..]), (to, &codes(frames)[to as usize * 3..]));
            }
            assert_eq!(codec_nac_reader_destroy(reader), CODEC_OK);
        }
    }
    // Without `seek` only the end states the length, and frames cannot be looked for.
    let mut file = File::default();
    let io = codec_io { seek: None, ..file.io() };
    let (mut writer, mut reader) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: as above.
    unsafe {
        assert_eq!(codec_nac_writer_create_io(model.0, &io, &options, &mut writer), CODEC_OK);
        assert_eq!(codec_nac_writer_write(writer, codes(frames).as_ptr(), frames), CODEC_OK);
        assert_eq!(codec_nac_writer_finish(writer, 8670), CODEC_OK);
        assert_eq!(codec_nac_writer_destroy(writer), CODEC_OK);
        assert_eq!(file.bytes.len(), expected.len());
        assert_ne!(file.bytes, expected);
        file.at = 0;
        assert_eq!(codec_nac_reader_create_io(&io, ptr::null(), &mut reader), CODEC_OK);
        let mut info = sized!(codec_nac_info {});
        assert_eq!(codec_nac_reader_get_info(reader, &mut info), CODEC_OK);
        assert_eq!(info.samples, CODEC_UNKNOWN);
        assert_eq!(codec_nac_reader_seek(reader, 3), CODEC_ERROR_UNSUPPORTED);
        assert_eq!(read_all(reader).unwrap().1, codes(frames));
        assert_eq!(codec_nac_reader_get_info(reader, &mut info), CODEC_OK);
        assert_eq!(info.samples, 8670);
        assert_eq!(codec_nac_reader_destroy(reader), CODEC_OK);
    }
}

#[test]
fn another_length_than_stated_does_not_cost_the_file() {
    let model = Model::load("stream");
    let options = sized!(codec_nac_writer_options { samples: 1000 });
    for last in [1000, CODEC_UNKNOWN] {
        let mut writer = ptr::null_mut();
        // SAFETY: a model, and pointers to values of this function; the handle ends once.
        unsafe {
            assert_eq!(codec_nac_writer_create_memory(model.0, &options, &mut writer), CODEC_OK);
            assert_eq!(codec_nac_writer_write(writer, codes(20).as_ptr(), 20), CODEC_OK);
            assert_eq!(codec_nac_writer_finish(writer, 999), CODEC_ERROR_ARGUMENT);
            let told = text(codec_nac_writer_error(writer));
            assert!(told.contains("999") && told.contains("1000"), "{told}");
            assert_eq!(codec_nac_writer_write(writer, codes(25)[60..].as_ptr(), 5), CODEC_OK);
            assert_eq!(codec_nac_writer_finish(writer, last), CODEC_OK, "{}", text(codec_nac_writer_error(writer)));
            let (mut data, mut len) = (ptr::null(), 0);
            assert_eq!(codec_nac_writer_data(writer, &mut data, &mut len), CODEC_OK);
            let reader = open(std::slice::from_raw_parts(data.cast(), len), false).unwrap();
            assert_eq!(read_all(reader).unwrap().1, codes(25));
            let mut info = sized!(codec_nac_info {});
            assert_eq!(codec_nac_reader_get_info(reader, &mut info), CODEC_OK);
            assert_eq!(info.samples, 1000);
            assert_eq!(codec_nac_reader_destroy(reader), CODEC_OK);
            assert_eq!(codec_nac_writer_destroy(writer), CODEC_OK);
        }
    }
}

#[test]
fn a_failing_callback_is_an_error_with_its_number_and_the_writer_stays_failed() {
    let model = Model::load("stream");
    let options = sized!(codec_nac_writer_options { chunk_frames: 50 });
    let all = codes(200);
    let mut failed = 0;
    for left in 0..20 {
        // A number that says more than there was is as bad as a negative one.
        for with in [-5, i64::MAX, i64::MIN] {
            let mut file = File { fails: Some((left, with)), ..File::default() };
            let io = file.io();
            let mut writer = ptr::null_mut();
            // SAFETY: a model, and pointers to values of this function; the handle ends once.
            unsafe {
                let created = codec_nac_writer_create_io(model.0, &io, &options, &mut writer);
                if created == CODEC_ERROR_IO {
                    assert!(writer.is_null());
                    assert!(text(codec_last_error()).contains(&with.to_string()), "{}", text(codec_last_error()));
                    failed += 1;
                    continue;
                }
                assert_eq!(created, CODEC_OK);
                let mut status = codec_nac_writer_write(writer, all.as_ptr(), 200);
                if status == CODEC_OK {
                    status = codec_nac_writer_finish(writer, 8000);
                }
                if status != CODEC_OK {
                    assert!(with < 0 || status == CODEC_ERROR_IO);
                    failed += 1;
                    file.fails = None;
                    assert_eq!(codec_nac_writer_write(writer, all.as_ptr(), 1), CODEC_ERROR_IO);
                    assert_eq!(codec_nac_writer_finish(writer, 8000), CODEC_ERROR_IO);
                }
                assert_eq!(codec_nac_writer_destroy(writer), CODEC_OK);
            }
        }
    }
    assert!(failed > 15, "{failed}");
    let bytes = in_memory(&model, 200, 8000);
    for left in 0..3 {
        let mut file = File { bytes: bytes.clone(), fails: Some((left, -9)), at_once: 100, ..File::default() };
        let (io, mut reader) = (file.io(), ptr::null_mut());
        // SAFETY: as above.
        unsafe {
            let mut status = codec_nac_reader_create_io(&io, ptr::null(), &mut reader);
            if status == CODEC_OK {
                status = read_all(reader).unwrap_err();
                assert!(text(codec_nac_reader_error(reader)).contains("-9"));
            }
            assert_eq!(status, CODEC_ERROR_IO);
            assert_eq!(codec_nac_reader_destroy(reader), CODEC_OK);
        }
    }
}

#[test]
fn a_truncated_or_changed_file_is_an_error_and_salvage_gives_what_is_whole() {
    let model = Model::load("stream");
    let bytes = in_memory(&model, 217, 8670);
    let whole = codes(217);
    for len in 0..bytes.len() {
        let status = open(&bytes[..len], false).and_then(|reader| {
            let result = read_all(reader);
            // SAFETY: the reader ends once.
            assert_eq!(unsafe { codec_nac_reader_destroy(reader) }, CODEC_OK);
            result.map(drop)
        });
        assert_eq!(status, Err(CODEC_ERROR_FORMAT), "{len} bytes");
    }
    let mut damaged = bytes.clone();
    let at = bytes.len() / 2;
    damaged[at] ^= 0x40;
    let reader = open(&damaged, false).unwrap();
    assert_eq!(read_all(reader), Err(CODEC_ERROR_FORMAT));
    // SAFETY: the readers end once.
    assert_eq!(unsafe { codec_nac_reader_destroy(reader) }, CODEC_OK);
    let reader = open(&damaged, true).unwrap();
    let (items, read) = read_all(reader).unwrap();
    let lost = items.iter().find(|item| item.0 == 2).unwrap();
    assert_eq!(lost.2, 50);
    let without = [&whole[..lost.1 as usize * 3], &whole[(lost.1 + lost.2) as usize * 3..]].concat();
    assert_eq!(read, without);
    // SAFETY: as above.
    assert_eq!(unsafe { codec_nac_reader_destroy(reader) }, CODEC_OK);
}

#[test]
fn segments_come_out_whole_with_their_scales_and_after_a_seek_too() {
    let model = Model::load("segments");
    // Segments of 50 frames in chunks of 20.
    let options = sized!(codec_nac_writer_options { chunk_frames: 20 });
    let (mut writer, mut reader) = (ptr::null_mut(), ptr::null_mut());
    let all = codes(150);
    // SAFETY: a model, and pointers to values of this function; the handles end once, the reader before its bytes.
    unsafe {
        assert_eq!(codec_nac_writer_create_memory(model.0, &options, &mut writer), CODEC_OK);
        for (i, segment) in all.chunks(150).enumerate() {
            assert_eq!(codec_nac_writer_begin_segment(writer, 0.5 + i as f32), CODEC_OK);
            assert_eq!(codec_nac_writer_write(writer, segment.as_ptr(), 50), CODEC_OK);
        }
        assert_eq!(codec_nac_writer_finish(writer, 5600), CODEC_OK);
        let (mut data, mut len) = (ptr::null(), 0);
        assert_eq!(codec_nac_writer_data(writer, &mut data, &mut len), CODEC_OK);
        assert_eq!(codec_nac_reader_create_memory(data, len, ptr::null(), &mut reader), CODEC_OK);
        assert_eq!(codec_nac_reader_check_model(reader, model.0), CODEC_OK);
        let (items, read) = read_all(reader).unwrap();
        assert_eq!((items, read), (vec![(1, 0, 50), (1, 50, 50), (1, 100, 50), (3, 150, 0)], all.clone()));
        // To the start of a segment, and into one, whose rest goes.
        for (to, first) in [(0, 0), (50, 50), (51, 100), (99, 100), (30, 50)] {
            assert_eq!(codec_nac_reader_seek(reader, to), CODEC_OK);
            let mut item = sized!(codec_nac_item { kind: codec_nac_kind::CODEC_NAC_LOST as u32 });
            while item.kind == codec_nac_kind::CODEC_NAC_LOST as u32 {
                assert_eq!(codec_nac_reader_next(reader, &mut item), CODEC_OK);
                assert!(item.first_frame >= to, "{item:?}");
            }
            assert_eq!((item.first_frame, item.frames, item.scale), (first, 50, 0.5 + (first / 50) as f32), "to {to}");
            let read = std::slice::from_raw_parts(item.codes, 150);
            assert_eq!(read, &all[first as usize * 3..][..150]);
        }
        assert_eq!(codec_nac_reader_destroy(reader), CODEC_OK);
        assert_eq!(codec_nac_writer_destroy(writer), CODEC_OK);
    }
}

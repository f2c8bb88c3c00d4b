//! `.nac` files over `std::io`.

use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};

use codec::core::bitstream;
use codec::nac::*;
use proptest::prelude::*;

fn header(books: u16, size: u32, segments: bool, samples: Option<u64>) -> Header<'static> {
    let layout = Layout::new(&[CodeGroup::single_rate(books, size)], vec![0; GROUP_LEN].leak()).unwrap();
    let chunk_frames = Header::default_chunk_frames(24000, 320, segments, &layout);
    Header {
        fingerprint: [9; 16],
        sample_rate: 24000,
        channels: 1,
        hop: 320,
        samples,
        method: Method::Raw,
        segments,
        chunk_frames,
        layout,
    }
}

fn codes(frames: usize, books: usize, size: u32) -> Vec<u16> {
    (0..frames * books).map(|i| (i as u32).wrapping_mul(2654435761).rotate_left(7).rem_euclid(size) as u16).collect()
}

/// One byte at a time, and an interruption before each.
struct Drip<R>(R, bool);

impl<R: Read> Read for Drip<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let n = bytes.len().min(1);
        self.0.read(&mut bytes[..n])
    }
}

/// Codes, losses, the end.
type Everything = (Vec<u16>, Vec<Lost>, Option<End>);

fn read<R: Read>(mut reader: NacReader<R>) -> Result<Everything, Error> {
    let (mut codes, mut lost, mut end) = (Vec::new(), Vec::new(), None);
    while let Some(item) = reader.next()? {
        match item {
            Item::Frames(frames) => codes.extend_from_slice(frames.codes),
            Item::Lost(one) => lost.push(one),
            Item::End(one) => end = Some(one),
            _ => {}
        }
    }
    Ok((codes, lost, end))
}

#[test]
fn a_pipe_carries_what_a_file_does() {
    let codes = codes(1000, 8, 1024);
    let mut writer = NacWriter::new(Vec::new(), &header(8, 1024, false, None)).unwrap();
    // Longer than a chunk of codes.
    let notes = vec![b'x'; 40_000];
    writer.metadata(&[("title", b"t"), ("notes", &notes)]).unwrap();
    codes.chunks(8 * 7).for_each(|codes| writer.write(codes).unwrap());
    let (piped, len) = writer.finish(Some(320_000)).unwrap();
    assert_eq!(piped.len() as u64, len);
    let (read_codes, lost, end) = read(NacReader::new(Drip(&piped[..], false)).unwrap()).unwrap();
    assert_eq!((read_codes, lost), (codes.clone(), vec![]));
    assert_eq!(end, Some(End { samples: Some(320_000), frames: 1000, complete: true }));
    let mut reader = NacReader::new(&piped[..]).unwrap();
    assert_eq!(reader.header().unwrap().samples, None);
    let entries = vec![("title".into(), b"t".to_vec()), ("notes".into(), notes)];
    assert_eq!(reader.next().unwrap(), Some(Item::Metadata(entries)));

    // In place, behind something else in the file: the header states the length too.
    let mut file = in_memory();
    file.write_all(b"before").unwrap();
    let mut writer = NacWriter::new(file, &header(8, 1024, false, None)).unwrap();
    writer.write(&codes).unwrap();
    let (mut file, len) = writer.finish_in_place(Some(319_999)).unwrap();
    assert_eq!(file.stream_position().unwrap(), 6 + len);
    file.seek(SeekFrom::Start(6)).unwrap();
    let reader = NacReader::new(file).unwrap();
    assert_eq!(reader.header().unwrap().samples, Some(319_999));
    assert_eq!(read(reader).unwrap().0, codes);
}

fn in_memory() -> Cursor<Vec<u8>> {
    Cursor::new(Vec::new())
}

#[test]
fn every_frame_can_be_sought() {
    let frames = 15_000;
    let all = codes(frames, 2, 1000);
    for gaps in [false, true] {
        let mut writer = NacWriter::new(in_memory(), &header(2, 1000, false, None)).unwrap();
        // Short chunks, so that there is a table; with gaps, one before every chunk.
        for codes in all.chunks(2 * 25) {
            if gaps {
                writer.lost(1).unwrap();
            }
            writer.write(codes).unwrap();
            writer.flush().unwrap();
        }
        let (mut file, len) = writer.finish_in_place(Some(1)).unwrap();
        assert_eq!(file.get_ref().len() as u64, len);
        file.set_position(0);
        let mut reader = NacReader::new(file).unwrap();
        // A chunk's frames with the gap before them.
        let period = if gaps { 26 } else { 25 };
        for frame in (0..frames as u64).step_by(97).chain([0, 1, 399, 400, 401, 14_999]) {
            reader.seek(frame).unwrap();
            let (first, got) = loop {
                match reader.next().unwrap() {
                    Some(Item::Frames(frames)) => break (frames.first_frame, frames.codes.to_vec()),
                    Some(Item::Lost(lost)) if gaps => assert!(lost.first_frame + lost.frames.unwrap() >= frame),
                    other => panic!("frame {frame}: {other:?}"),
                }
            };
            // The frame, or the one after it where it was lost.
            let found = if gaps && frame % period == 0 { frame + 1 } else { frame };
            assert_eq!(first, found);
            let index = if gaps { found / period * 25 + found % period - 1 } else { found };
            let index = index as usize;
            let end = (index / 25 + 1) * 25;
            assert_eq!(got, all[index * 2..end * 2], "frame {frame}");
        }
        // Past the end there is only the end.
        reader.seek(u64::MAX).unwrap();
        assert!(matches!(reader.next().unwrap(), Some(Item::End(_))));
        assert_eq!(reader.next().unwrap(), None);
        // And back.
        reader.seek(0).unwrap();
        assert_eq!(read(reader).unwrap().0, all);
    }
}

#[test]
fn seeking_reads_little_and_needs_no_table() {
    struct Count(Cursor<Vec<u8>>, u64);
    impl Read for Count {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            let n = self.0.read(bytes)?;
            self.1 += n as u64;
            Ok(n)
        }
    }
    impl Seek for Count {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }
    // Two hours at 6 kbps: 5.4 MB.
    let minute = codes(75 * 60, 8, 1024);
    let mut writer = NacWriter::new(in_memory(), &header(8, 1024, false, None)).unwrap();
    (0..120).for_each(|_| writer.write(&minute).unwrap());
    let (file, len) = writer.finish_in_place(None).unwrap();
    // What the codes need, and 1.2 %.
    assert!((len as f64) < 5_400_000.0 * 1.012, "{len}");
    let bytes = file.into_inner();
    let frame = 75 * 60 * 100 + 1234;
    for cut in [false, true] {
        let mut bytes = bytes.clone();
        if cut {
            bytes.truncate(bytes.len() - 1);
        }
        let mut reader = NacReader::new(Count(Cursor::new(bytes), 0)).unwrap();
        reader.seek(frame as u64).unwrap();
        match reader.next().unwrap() {
            Some(Item::Frames(frames)) => {
                assert_eq!(frames.first_frame, frame as u64);
                assert_eq!(frames.codes[..8], minute[1234 * 8..1235 * 8]);
            }
            other => panic!("{other:?}"),
        }
        let read = reader.into_inner().1;
        assert_eq!(read < 400_000, !cut, "{read} bytes read");
    }
}

#[test]
fn a_wrong_seek_table_is_found_out() {
    let all = codes(2000, 1, 2);
    let mut writer = NacWriter::new(in_memory(), &header(1, 2, false, None)).unwrap();
    for codes in all.chunks(10) {
        writer.write(codes).unwrap();
        writer.flush().unwrap();
    }
    let (file, _) = writer.finish_in_place(None).unwrap();
    let good = file.into_inner();
    // The first entry, one byte on; and one frame on. Its CRC is put right.
    let distance = u32::from_le_bytes(good[good.len() - 8..good.len() - 4].try_into().unwrap()) as usize;
    let end = good.len() - distance;
    for (at, name) in [(end + 27 + 8, "offset"), (end + 27, "frame")] {
        let mut bytes = good.clone();
        bytes[at] += 1;
        let crc_at = bytes.len() - 12;
        let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        let crc = !bytes[end..crc_at].iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step));
        bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
        let mut reader = NacReader::new(Cursor::new(bytes.clone())).unwrap();
        reader.seek(170).unwrap();
        let error = reader.next().unwrap_err();
        assert!(matches!(error, Error::Format(bitstream::Error::Seek { .. })), "{name}: {error}");
        // In order, and in salvage, the file is as good as before.
        assert_eq!(read(NacReader::new(&bytes[..]).unwrap()).unwrap().0, all);
        let mut reader = NacReader::salvage(Cursor::new(bytes)).unwrap();
        reader.seek(170).unwrap();
        assert_eq!(read(reader).unwrap().0, all[170..]);
    }
}

#[test]
fn segments_come_out_one_by_one() {
    // EnCodec at 48 kHz: segments of 150 frames, two in a chunk.
    let mut header = header(4, 1024, true, None);
    (header.sample_rate, header.channels) = (48000, 2);
    header.chunk_frames = Header::default_chunk_frames(48000, 320, true, &header.layout);
    assert_eq!(header.chunk_frames, 300);
    let segments: Vec<(f32, Vec<u16>)> =
        (1..8).map(|i| (1.0 / i as f32, codes(if i == 7 { 31 } else { 150 }, 4, 1024))).collect();
    let mut writer = NacWriter::new(Vec::new(), &header).unwrap();
    for (scale, codes) in &segments {
        writer.begin_segment(*scale).unwrap();
        writer.write(codes).unwrap();
    }
    let (bytes, len) = writer.finish(None).unwrap();
    assert_eq!(len, 66 + 4 * 15 + 7 * 6 + (6 * 150 + 31) * 5 + 39);
    let mut reader = NacReader::new(&bytes[..]).unwrap();
    let mut got = Vec::new();
    while let Some(item) = reader.next().unwrap() {
        if let Item::Frames(frames) = item {
            assert!(!frames.continues);
            got.push((frames.scale.unwrap(), frames.codes.to_vec()));
        }
    }
    assert_eq!(got, segments);
}

#[test]
fn salvage_says_exactly_what_is_lost() {
    let all = codes(1500, 8, 1024);
    let mut writer = NacWriter::new(Vec::new(), &header(8, 1024, false, Some(480_000))).unwrap();
    writer.write(&all).unwrap();
    let (mut bytes, _) = writer.finish(None).unwrap();
    // Ten chunks of 150 frames, 1515 bytes each: the third and the last are hit.
    bytes[66 + 2 * 1515 + 700] ^= 1;
    bytes[66 + 9 * 1515 + 1] ^= 1;
    let error = read(NacReader::new(&bytes[..]).unwrap()).unwrap_err();
    let crc = bitstream::Error::ChunkCrc { index: 2, offset: 66 + 2 * 1515, first_frame: 300, frames: 150 };
    assert!(matches!(error, Error::Format(found) if found == crc), "{error}");
    let (codes, lost, end) = read(NacReader::salvage(Drip(&bytes[..], false)).unwrap()).unwrap();
    assert_eq!(codes, [&all[..300 * 8], &all[450 * 8..1350 * 8]].concat());
    let lost_at =
        |chunk: u64| Lost { first_frame: chunk * 150, frames: Some(150), offset: 66 + chunk * 1515, bytes: 1515 };
    assert_eq!(lost, [lost_at(2), lost_at(9)]);
    assert_eq!(end, Some(End { samples: Some(480_000), frames: 1500, complete: true }));
}

#[test]
fn errors_of_the_reader_and_writer_come_through() {
    assert!(matches!(NacReader::new(&b""[..]), Err(Error::Format(bitstream::Error::Truncated { got: 0, .. }))));
    assert!(matches!(NacReader::new(&b"RIFF1234WAVE"[..]), Err(Error::Format(bitstream::Error::NotNac))));
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("unplugged"))
        }
    }
    assert!(matches!(NacReader::new(Broken), Err(Error::Io(_))));
    let full = Cursor::new([0; 100]);
    let mut writer = NacWriter::new(full, &header(8, 1024, false, None)).unwrap();
    assert!(matches!(writer.write(&codes(200, 8, 1024)), Err(Error::Io(_))));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

    /// A file cut anywhere still gives its whole chunks, and says that it was cut.
    #[test]
    fn cut_files(cut in 66_usize..6000, live in any::<bool>()) {
        let all = codes(600, 8, 1024);
        let mut writer = NacWriter::new(Vec::new(), &header(8, 1024, false, (!live).then_some(192_000))).unwrap();
        writer.write(&all).unwrap();
        let (bytes, _) = writer.finish(None).unwrap();
        let cut = cut.min(bytes.len() - 1);
        let whole = ((cut - 66) / 1515).min(4) * 150 * 8;
        let mut reader = NacReader::new(&bytes[..cut]).unwrap();
        let mut got = Vec::new();
        let error = loop {
            match reader.next() {
                Ok(Some(Item::Frames(frames))) => got.extend_from_slice(frames.codes),
                Ok(Some(Item::End(end))) => prop_assert!(!end.complete),
                Ok(Some(other)) => prop_assert!(false, "{:?}", other),
                Ok(None) => break None,
                Err(Error::Format(error)) => break Some(error),
                Err(error) => panic!("{error}"),
            }
        };
        prop_assert_eq!(&got, &all[..whole]);
        let boundary = (cut - 66).is_multiple_of(1515);
        prop_assert_eq!(error.is_none(), live && boundary, "{:?}", error);
        prop_assert_eq!(read(NacReader::salvage(&bytes[..cut]).unwrap()).unwrap().0, got);
    }
}

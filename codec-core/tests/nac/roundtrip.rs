use codec_core::bitstream::*;
use proptest::prelude::*;

use crate::*;

fn group() -> impl Strategy<Value = CodeGroup> {
    // Every width, and sizes that are not powers of two.
    let size = prop_oneof![(1_u32..=16).prop_map(|width| 1 << width), 2_u32..=65536];
    (0_u8..8, 0_u16..1000, 1_u16..6, 1_u16..5, size).prop_map(|(level, first_book, books, steps, size)| CodeGroup {
        level,
        first_book,
        books,
        steps,
        size,
    })
}

fn groups() -> impl Strategy<Value = Vec<CodeGroup>> {
    prop::collection::vec(group(), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn write_read_identity(
        groups in groups(),
        frames in 0_usize..200,
        chunk_frames in 1_u16..60,
        cuts in prop::collection::vec(1_usize..50, 1..8),
        flush in any::<bool>(),
        seed in any::<u64>(),
        piece in 1_usize..500,
        known in any::<bool>(),
    ) {
        let layout = layout(&groups);
        let per_frame = layout.codes_per_frame();
        let samples = frames as u64 * 320 + 7;
        let header = header(layout, false, chunk_frames, known.then_some(samples));
        let codes = codes(&layout, frames, seed);
        let mut out = Out::new(&header);
        let (mut rest, mut turn) = (&codes[..], 0);
        while !rest.is_empty() {
            let n = (cuts[turn % cuts.len()] * per_frame).min(rest.len());
            out.push(&rest[..n]);
            if flush { out.flush(); }
            rest = &rest[n..];
            turn += 1;
        }
        let bytes = out.finish(Some(samples));

        let (parsed, len) = Header::parse(&bytes).unwrap();
        prop_assert_eq!(parsed, header);
        prop_assert_eq!(len, header.len());
        prop_assert!(parsed.layout.groups().eq(groups.iter().copied()));
        let (got, error) = read(&bytes, false);
        prop_assert_eq!(error, None);
        prop_assert_eq!(all_codes(&got), codes);
        let ends = matches!(got.last(), Some(Got::End { samples: Some(s), frames: f, complete: true, .. })
            if *s == samples && *f == frames as u64);
        prop_assert!(ends, "{:?}", got.last());
        prop_assert_eq!(read(&bytes, true), (got.clone(), None));
        prop_assert_eq!(read_pieces(&bytes, false, piece, MAX_READER_BUFFER), (got, None));
        if !flush {
            // The real size is the stated one, to the byte.
            let bits = layout.bits_per_frame();
            let full = frames / usize::from(chunk_frames);
            let last = frames % usize::from(chunk_frames);
            let payload = full * (usize::from(chunk_frames) * bits).div_ceil(8) + (last * bits).div_ceil(8);
            let chunks = full + usize::from(last > 0);
            let table = (chunks.max(1) - 1) / 16 * SEEK_ENTRY_LEN;
            prop_assert_eq!(bytes.len(), header.len() + payload + chunks * 15 + 39 + table);
        }
    }

    #[test]
    fn segments_keep_their_scales(
        groups in groups(),
        segments in prop::collection::vec((any::<u32>(), 1_usize..90), 0..12),
        chunk_frames in 1_u16..60,
        seed in any::<u64>(),
        piece in 1_usize..500,
    ) {
        let layout = layout(&groups);
        let header = header(layout, true, chunk_frames, None);
        let mut out = Out::new(&header);
        let mut written = Vec::new();
        for (i, (scale, frames)) in segments.into_iter().enumerate() {
            let scale = Some(f32::from_bits(scale)).filter(|s| s.is_finite()).unwrap_or(f32::MIN_POSITIVE / 3.0);
            let codes = codes(&layout, frames, seed ^ i as u64);
            out.segment(scale, &codes);
            written.push((scale.to_bits(), codes));
        }
        let bytes = out.finish(Some(1));
        let (got, error) = read(&bytes, false);
        prop_assert_eq!(error, None);
        prop_assert_eq!(read_pieces(&bytes, false, piece, MAX_READER_BUFFER), (got.clone(), None));
        let mut read: Vec<(u32, Vec<u16>)> = Vec::new();
        for got in got {
            let Got::Codes { segments, .. } = got else { continue };
            for segment in segments {
                let scale = segment.scale.unwrap();
                if segment.continues {
                    let last = read.last_mut().unwrap();
                    prop_assert_eq!(last.0, scale);
                    last.1.extend(segment.codes);
                } else {
                    read.push((scale, segment.codes));
                }
            }
        }
        prop_assert_eq!(read, written);
    }

    #[test]
    fn any_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), piece in 1_usize..50) {
        let mut file = Out::new(&header(layout(&[CodeGroup::single_rate(2, 16)]), false, 9, None)).bytes;
        file.extend_from_slice(&bytes);
        let salvaged = read(&file, true);
        prop_assert_eq!(salvaged.1, None);
        prop_assert_eq!(read_pieces(&file, true, piece, MAX_READER_BUFFER), salvaged);
        let strict = read(&file, false);
        prop_assert_eq!(strict.1.is_some(), !bytes.is_empty());
        prop_assert_eq!(read_pieces(&file, false, piece, MAX_READER_BUFFER), strict);
        let _ = read(&bytes, true);
    }
}

#[test]
fn the_file_of_the_specification() {
    // Lyra at 3.2 kbps, 10 s: docs/format.md, "Size".
    let layout = layout(&[CodeGroup::single_rate(16, 16)]);
    let mut header = header(layout, false, 0, Some(160_000));
    (header.sample_rate, header.hop) = (16000, 320);
    header.chunk_frames = Header::default_chunk_frames(16000, 320, false, &layout);
    assert_eq!((header.chunk_frames, header.bitrate()), (100, 3200.0));
    let ten_seconds = codes(&layout, 500, 1);
    let mut out = Out::new(&header);
    out.push(&ten_seconds);
    assert_eq!(out.finish(None).len(), 4180);
    header.samples = Some(160_000 * 360);
    let mut out = Out::new(&header);
    (0..360).for_each(|_| out.push(&ten_seconds));
    assert_eq!(out.finish(None).len(), 1_440_000 + 28_897);

    // Byte by byte.
    let small = Layout::new(&[CodeGroup { level: 3, first_book: 4, books: 2, steps: 1, size: 1000 }], &mut [0; 10])
        .map(|layout| {
            let header = Header { samples: None, segments: true, chunk_frames: 7, layout, ..header };
            let mut out = Out::new(&header);
            out.segment(1.0, &[0x3e7, 1]);
            out.finish(Some(0x0102))
        })
        .unwrap();
    let mut expected = b"\x89NAC\r\n\x1a\n\x01\x00\x42\x000123456789abcdef".to_vec();
    expected.extend(16000_u32.to_le_bytes());
    expected.extend(320_u32.to_le_bytes());
    expected.extend([0xff; 8]);
    expected.extend([1, 0, 0, 1, 7, 0, 1, 0]);
    expected.extend([3, 0, 4, 0, 2, 0, 1, 0, 0xe7, 0x03]);
    let with_crc = |part: &[u8]| [part, &crc32c_bitwise(part).to_le_bytes()].concat();
    let mut expected = with_crc(&expected);
    // 1111100111 0000000001 0000
    expected.extend(with_crc(&[
        0xf3,
        0x9d,
        1,
        0,
        0,
        0,
        0,
        1,
        0,
        9,
        0,
        1,
        0,
        0,
        0,
        0x80,
        0x3f,
        0b1111_1001,
        0b1100_0000,
        0b0001_0000,
    ]));
    let mut end = vec![0xf3, 0x9d, 2, 1, 0, 0, 0, 0, 0, 16, 0];
    end.extend([2, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend(with_crc(&end));
    expected.extend([39, 0, 0, 0, b'N', b'A', b'C', b'E']);
    assert_eq!(small, expected);
}

/// CRC-32C by its definition.
fn crc32c_bitwise(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

#[test]
fn the_check_value_of_crc32c() {
    assert_eq!(crc32c_bitwise(b"123456789"), 0xe306_9283);
}

#[test]
fn multi_rate_codes_keep_their_order() {
    // SNAC: levels of 1, 2 and 4 codes a frame.
    let group = |level, steps| CodeGroup { level, first_book: level.into(), books: 1, steps, size: 4096 };
    let layout = layout(&[group(0, 1), group(1, 2), group(2, 4)]);
    assert_eq!((layout.codes_per_frame(), layout.bits_per_frame()), (7, 84));
    let codes = codes(&layout, 33, 9);
    let mut out = Out::new(&header(layout, false, 10, None));
    out.push(&codes);
    let (got, error) = read(&out.finish(None), false);
    assert_eq!((all_codes(&got), error), (codes, None));
}

#[test]
fn a_live_stream_needs_no_end() {
    let layout = layout(&[CodeGroup::single_rate(4, 1024)]);
    let codes = codes(&layout, 25, 3);
    let mut out = Out::new(&header(layout, false, 10, None));
    out.push(&codes);
    out.flush();
    let (got, error) = read(&out.bytes, false);
    assert_eq!((all_codes(&got), error), (codes, None));
    let end = Got::End { samples: None, frames: 25, complete: false, seek: vec![] };
    assert_eq!(got.last(), Some(&end));

    // The end says nothing of samples either, or for the first time.
    for samples in [None, Some(8000)] {
        let mut out = Out::new(&header(layout, false, 10, None));
        out.push(&[1, 2, 3, 4]);
        let (got, error) = read(&out.finish(samples), false);
        assert_eq!(error, None);
        assert_eq!(got.last(), Some(&Got::End { samples, frames: 1, complete: true, seek: vec![] }));
    }
}

#[test]
fn frames_lost_before_writing_are_carried() {
    let layout = layout(&[CodeGroup::single_rate(1, 256)]);
    let mut out = Out::new(&header(layout, false, 10, None));
    out.lost(3);
    out.lost(2);
    out.push(&[9; 4]);
    out.lost(0);
    out.push(&[8; 2]);
    out.lost(1000);
    let bytes = out.finish(None);
    let (got, error) = read(&bytes, false);
    assert_eq!(error, None);
    assert_eq!(read(&bytes, true).0, got);
    let lost: Vec<_> = got
        .iter()
        .filter_map(|got| match got {
            Got::Lost(lost) => Some((lost.first_frame, lost.frames, lost.bytes)),
            _ => None,
        })
        .collect();
    assert_eq!(lost, [(0, Some(5), 0), (11, Some(1000), 0)]);
    assert!(matches!(got.last(), Some(Got::End { frames: 1011, complete: true, .. })), "{got:?}");
    // Positions are 32 bits; a gap that they cannot tell is refused.
    let mut out = Out::new(&header(layout, false, 10, None));
    out.lost(i32::MAX as u32);
    assert!(matches!(out.writer.lost(1), Err(Error::Field { name: "lost frames", .. })));
}

#[test]
fn metadata_is_kept_and_skippable() {
    let layout = layout(&[CodeGroup::single_rate(2, 64)]);
    let mut out = Out::new(&header(layout, false, 50, None));
    let entries: [(&str, &[u8]); 3] = [("title", "Für Elise".as_bytes()), ("empty", b""), ("bytes", &[0, 255, 10])];
    out.metadata(&entries);
    out.push(&[1, 2]);
    assert!(matches!(out.writer.metadata(&entries), Err(Error::State(_))));
    out.metadata(&[]);
    out.push(&[3, 4]);
    assert!(matches!(out.writer.metadata(&[("", b"x")]), Err(Error::State(_))));
    out.flush();
    assert!(matches!(out.writer.metadata(&[("", b"x")]), Err(Error::Field { .. })));
    assert!(matches!(out.writer.metadata(&[("k", &[0; 65535])]), Err(Error::Field { .. })));
    assert!(matches!(out.writer.metadata(&[("k", &[0; 6000])]), Err(Error::Buffer { .. })));
    let (got, error) = read(&out.finish(None), false);
    assert_eq!((all_codes(&got), error), (vec![1, 2, 3, 4], None));
    let kept: Vec<_> = entries.iter().map(|(k, v)| (k.to_string(), v.to_vec())).collect();
    assert!(
        matches!(&got[..], [Got::Metadata(first), _, Got::Metadata(second), _, _] if *first == kept && second.is_empty())
    );
}

#[test]
fn the_seek_table_is_right_and_stays_bounded() {
    let layout = layout(&[CodeGroup::single_rate(1, 2)]);
    let frames = 40_000;
    let codes = codes(&layout, frames, 2);
    let mut out = Out::new(&header(layout, false, 1, None));
    out.push(&codes);
    let bytes = out.finish(None);
    let (got, error) = read(&bytes, false);
    assert_eq!(error, None);
    let Some(Got::End { seek, .. }) = got.last() else { panic!("no end") };
    // 2499 entries of 16 chunks each do not fit: one every 64 chunks is left.
    let offsets: Vec<(u64, u64)> = got
        .iter()
        .filter_map(|got| match got {
            Got::Codes { first, offset, .. } if *first > 0 && first % 64 == 0 => Some((*first, *offset)),
            _ => None,
        })
        .collect();
    assert!(seek.len() <= MAX_SEEK_ENTRIES);
    assert_eq!(seek.iter().map(|e| (e.frame, e.offset)).collect::<Vec<_>>(), offsets);

    let Some(Ok(Event::End(end))) = Stream::new(&bytes).unwrap().last() else { panic!("no end") };
    assert_eq!(end.seek.find(63), None);
    assert_eq!(end.seek.find(64).map(|e| e.frame), Some(64));
    assert_eq!(end.seek.find(12345).map(|e| e.frame), Some(12345 / 64 * 64));
    assert_eq!(end.seek.find(u64::MAX).map(|e| e.frame), Some(39_936));

    // The push reader goes on anywhere.
    let mut reader = Reader::new(vec![0; MAX_READER_BUFFER]);
    assert!(matches!(reader.resume(0, 0), Err(Error::State(_))));
    reader.feed(&bytes[..100]);
    while reader.next().unwrap().is_some() {}
    let entry = end.seek.find(30_000).unwrap();
    reader.resume(entry.frame, entry.offset).unwrap();
    reader.feed(&bytes[entry.offset as usize..]);
    match reader.next().unwrap() {
        Some(Event::Codes(chunk)) => assert_eq!((chunk.first_frame, chunk.offset), (entry.frame, entry.offset)),
        other => panic!("{other:?}"),
    }
    // An entry that names another chunk is found out.
    reader.resume(entry.frame + 1, entry.offset).unwrap();
    reader.feed(&bytes[entry.offset as usize..]);
    assert!(matches!(reader.next(), Err(Error::Order { .. })));
}

#[test]
fn small_buffers_suffice_or_say_so() {
    let layout = layout(&[CodeGroup::single_rate(8, 1024)]);
    let header = header(layout, false, 20, None);
    let codes = codes(&layout, 100, 5);
    let mut out = Out::new(&header);
    out.push(&codes);
    let bytes = out.finish(None);
    // Header, one chunk; the end is shorter.
    let enough = header.len() + 15 + 200;
    let (got, error) = read_pieces(&bytes, false, 7, enough);
    assert_eq!((all_codes(&got), error), (codes, None));
    assert!(matches!(read_pieces(&bytes, false, 7, enough - 1).1, Some(Error::Buffer { needed: 215, got: 214 })));
    assert!(matches!(read_pieces(&bytes, false, 7, 50).1, Some(Error::Buffer { needed: 66, got: 50 })));
    let needed = Writer::<Vec<u8>>::buffer_len(&header, 0);
    assert!(Writer::new(&header, vec![0; needed]).is_ok());
    assert!(matches!(Writer::new(&header, vec![0; needed - 1]), Err(Error::Buffer { .. })));
}

#[test]
fn the_largest_frames_fit() {
    let layout = layout(&[CodeGroup::single_rate(1024, 65536)]);
    for segments in [false, true] {
        let mut header = header(layout, segments, 0, None);
        header.chunk_frames = Header::default_chunk_frames(48000, 1, segments, &layout);
        let codes = codes(&layout, 100, 8);
        let mut out = Out::new(&header);
        if segments {
            out.segment(0.5, &codes)
        } else {
            out.push(&codes)
        }
        let (got, error) = read(&out.finish(None), false);
        assert_eq!((all_codes(&got) == codes, error), (true, None));
    }
    let too_many = header(layout, false, 32, None);
    assert!(matches!(Writer::new(&too_many, vec![0; 1 << 18]), Err(Error::Field { name: "chunk frames", .. })));
}

#[test]
fn wrong_calls_are_errors() {
    let layout = layout(&[CodeGroup::single_rate(2, 100), CodeGroup { level: 1, ..CodeGroup::single_rate(1, 2) }]);
    let mut out = Out::new(&header(layout, false, 5, Some(10)));
    assert_eq!(out.writer.push(&[0, 1]), Err(Error::Codes { codes: 2, per_frame: 3 }));
    out.push(&[99, 99, 0]);
    let bad = Err(Error::Code { frame: 2, position: 1, code: 100, size: 100 });
    assert_eq!(out.writer.push(&[1, 2, 0, 1, 100, 0]), bad);
    assert!(matches!(out.writer.push(&[1, 2, 2]), Err(Error::Code { frame: 1, position: 2, code: 2, size: 2 })));
    out.push(&[5, 6, 0]);
    assert!(matches!(out.writer.begin_segment(1.0), Err(Error::State(_))));
    assert!(matches!(out.writer.finish(Some(11)), Err(Error::Field { value: 11, .. })));
    let end = out.writer.finish(Some(10)).unwrap().to_vec();
    let bytes = [out.bytes, end].concat();
    assert_eq!(all_codes(&read(&bytes, false).0), [99, 99, 0, 5, 6, 0]);
    assert!(matches!(out.writer.push(&[1, 2, 0]), Err(Error::State(_))));
    assert!(matches!(out.writer.finish(None), Err(Error::State(_))));

    let mut out = Out::new(&header(layout, true, 5, None));
    assert!(matches!(out.writer.push(&[1, 2, 0]), Err(Error::State(_))));
    assert_eq!(out.writer.begin_segment(f32::NAN), Err(Error::Scale));
    assert_eq!(out.writer.begin_segment(f32::INFINITY), Err(Error::Scale));

    let bad = |groups: &[CodeGroup]| Layout::new(groups, &mut [0; 20480]).err();
    let one = CodeGroup::single_rate(1, 2);
    for groups in [
        &[][..],
        &[CodeGroup { books: 0, ..one }],
        &[CodeGroup { steps: 0, ..one }],
        &[CodeGroup { size: 0, ..one }],
        &[CodeGroup { size: 65537, ..one }],
        &[CodeGroup { first_book: 65535, books: 2, ..one }],
        &[CodeGroup { books: 65535, steps: 65535, ..one }],
        &[CodeGroup { books: 1025, ..one }],
        &[CodeGroup { size: 1, ..one }],
        &[one; 1025],
    ] {
        assert!(matches!(bad(groups), Some(Error::Field { .. })), "{groups:?}");
    }
    assert_eq!(Layout::new(&[one], &mut [0; 9]).err(), Some(Error::Buffer { needed: 10, got: 9 }));
}

use codec_core::bitstream::*;
use proptest::prelude::*;

use crate::*;

/// Two small files with every kind of chunk: one plain, one of segments.
fn samples() -> Vec<Vec<u8>> {
    let layout = layout(&[CodeGroup::single_rate(2, 1000), CodeGroup { level: 1, ..CodeGroup::single_rate(1, 7) }]);
    let mut plain = Out::new(&header(layout, false, 4, Some(9999)));
    plain.metadata(&[("k", b"v")]);
    plain.push(&codes(&layout, 9, 1));
    plain.lost(5);
    plain.push(&codes(&layout, 70, 2));
    let mut segments = Out::new(&header(layout, true, 6, None));
    for i in 1..5 {
        segments.segment(1.0 / i as f32, &codes(&layout, i * 2, 3));
    }
    vec![plain.finish(None), segments.finish(Some(77))]
}

/// Offset, first frame and frames of every chunk of codes, and of the end.
fn chunks(bytes: &[u8]) -> (Vec<(u64, u64, u64)>, u64) {
    let (got, error) = read(bytes, false);
    assert_eq!(error, None);
    let (mut chunks, mut total) = (Vec::new(), 0);
    let per_frame = Header::parse(bytes).unwrap().0.layout.codes_per_frame();
    for got in &got {
        match got {
            Got::Codes { offset, first, segments } => {
                let frames = segments.iter().map(|s| s.codes.len() / per_frame).sum::<usize>() as u64;
                chunks.push((*offset, *first, frames));
            }
            Got::End { frames, .. } => total = *frames,
            _ => {}
        }
    }
    (chunks, total)
}

fn codes_events(got: &[Got]) -> Vec<Got> {
    got.iter().filter(|got| matches!(got, Got::Codes { .. })).cloned().collect()
}

/// Frames that are in no chunk of codes, by the events.
fn lost_frames(got: &[Got]) -> Vec<(u64, Option<u64>)> {
    let lost = got.iter().filter_map(|got| match got {
        Got::Lost(lost) if lost.frames != Some(0) => Some((lost.first_frame, lost.frames)),
        _ => None,
    });
    lost.collect()
}

#[test]
fn every_flipped_bit_is_an_error() {
    for bytes in samples() {
        let whole = read(&bytes, false).0;
        for at in 0..bytes.len() {
            for flip in [1, 2, 4, 8, 16, 32, 64, 128, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                let (got, error) = read(&damaged, false);
                assert!(error.is_some(), "byte {at} ^ {flip}");
                assert!(whole.starts_with(&got), "byte {at} ^ {flip}: only what is right comes before the error");
                assert_eq!(read_pieces(&damaged, false, 13, MAX_READER_BUFFER), (got, error), "byte {at} ^ {flip}");
            }
        }
    }
}

#[test]
fn every_truncation_is_an_error_after_the_whole_chunks() {
    for bytes in samples() {
        let whole = read(&bytes, false).0;
        let (parsed, header_len) = Header::parse(&bytes).unwrap();
        for len in 0..bytes.len() {
            let (got, error) = read(&bytes[..len], false);
            assert_eq!(read_pieces(&bytes[..len], false, 13, MAX_READER_BUFFER), (got.clone(), error), "length {len}");
            match (&got[..], error) {
                (got, Some(Error::Truncated { offset, needed, got: there })) => {
                    assert_eq!(offset + there as u64, len as u64);
                    assert!(needed > there);
                    assert!(whole.starts_with(got));
                }
                // A live stream may end after any chunk.
                ([rest @ .., Got::End { complete: false, .. }], None) => {
                    assert!(parsed.samples.is_none() && len >= header_len);
                    assert!(whole.starts_with(rest));
                }
                other => panic!("length {len}: {other:?}"),
            }
            if len >= header_len {
                let salvaged = read(&bytes[..len], true);
                assert_eq!(salvaged.1, None);
                let before = got.iter().filter(|got| matches!(got, Got::Codes { .. })).count();
                assert_eq!(codes_events(&salvaged.0), codes_events(&whole)[..before]);
                assert_eq!(read_pieces(&bytes[..len], true, 13, MAX_READER_BUFFER), salvaged);
            }
        }
    }
}

#[test]
fn salvage_returns_exactly_the_intact_chunks() {
    for bytes in samples() {
        let (whole, (chunks, total)) = (read(&bytes, false).0, chunks(&bytes));
        let (_, header_len) = Header::parse(&bytes).unwrap();
        for at in header_len..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x5a;
            let (got, error) = read(&damaged, true);
            assert_eq!(error, None);
            assert_eq!(read_pieces(&damaged, true, 11, MAX_READER_BUFFER), (got.clone(), None));
            let hit = chunks.iter().rposition(|(offset, ..)| *offset <= at as u64);
            let hit = hit.filter(|&i| {
                let payload =
                    u64::from(u16::from_le_bytes([bytes[chunks[i].0 as usize + 9], bytes[chunks[i].0 as usize + 10]]));
                (at as u64) < chunks[i].0 + payload + 15
            });
            let intact = codes_events(&whole);
            match hit {
                Some(hit) => {
                    let mut left = intact.clone();
                    left.remove(hit);
                    assert_eq!(codes_events(&got), left, "byte {at}");
                    // The frames lost are those of the chunk and of the gap, one run where they touch.
                    let missing: u64 = lost_frames(&got).iter().map(|(_, n)| n.unwrap()).sum();
                    let gap: u64 = lost_frames(&whole).iter().map(|(_, n)| n.unwrap()).sum();
                    assert_eq!(missing, gap + chunks[hit].2, "byte {at}");
                    assert!(
                        lost_frames(&got)
                            .iter()
                            .any(|(first, n)| { (*first..first + n.unwrap()).contains(&chunks[hit].1) })
                    );
                    assert!(matches!(got.last(), Some(Got::End { frames, complete: true, .. }) if *frames == total));
                }
                None => assert_eq!(codes_events(&got), intact, "byte {at}"),
            }
        }
    }
}

#[test]
fn salvage_resynchronises_after_junk_and_holes() {
    let bytes = samples().remove(0);
    let (whole, (chunks, total)) = (codes_events(&read(&bytes, false).0), chunks(&bytes));
    let at = |i: usize| chunks[i].0 as usize;

    // Junk, syncs in it, between two chunks: nothing is lost, and the junk is counted.
    let junk = [0xf3, 0x9d, 0xf3, 0xf3, 0x9d, 1, 0, 0, 0, 0, 1, 0, 3, 0, 0xf3];
    let damaged = [&bytes[..at(5)], &junk, &bytes[at(5)..]].concat();
    // The seek table is off by the junk but consistent in itself.
    let (got, error) = read(&damaged, true);
    assert_eq!((codes_events(&got).len(), error), (whole.len(), None));
    assert!(got.contains(&Got::Lost(Lost {
        first_frame: chunks[5].1,
        frames: Some(0),
        offset: chunks[5].0,
        bytes: junk.len() as u64
    })));

    // Chunks 4 to 6 cut out.
    let damaged = [&bytes[..at(4)], &bytes[at(7)..]].concat();
    assert!(matches!(read(&damaged, false).1, Some(Error::Order { .. })));
    let (got, error) = read(&damaged, true);
    assert_eq!(error, None);
    let hole = chunks[7].1 - chunks[4].1;
    assert!(lost_frames(&got).contains(&(chunks[4].1, Some(hole))), "{got:?}");
    assert_eq!(codes_events(&got).len(), whole.len() - 3);
    assert!(matches!(got.last(), Some(Got::End { frames, .. }) if *frames == total));

    // A chunk twice: the second is passed over.
    let damaged = [&bytes[..at(5)], &bytes[at(4)..]].concat();
    assert!(matches!(read(&damaged, false).1, Some(Error::Order { .. })));
    let (got, error) = read(&damaged, true);
    assert_eq!((codes_events(&got).len(), error), (whole.len(), None));

    // The end in shreds: nobody knows what was there.
    let damaged = [&bytes[..at(8)], &[0; 40][..]].concat();
    let (got, error) = read(&damaged, true);
    assert_eq!((codes_events(&got), error), (whole[..8].to_vec(), None));
    assert_eq!(lost_frames(&got), [(9, Some(5)), (chunks[8].1, None)]);
    assert!(matches!(got.last(), Some(Got::End { complete: false, samples: Some(9999), .. })));
}

#[test]
fn nothing_may_follow_the_end() {
    for mut bytes in samples() {
        let len = bytes.len() as u64;
        bytes.push(0);
        assert_eq!(read(&bytes, false).1, Some(Error::Trailing { offset: len }));
        let pushed = read_pieces(&bytes, false, 10, MAX_READER_BUFFER);
        assert_eq!(pushed.1, Some(Error::Trailing { offset: len }));
        assert_eq!(read(&bytes, true).1, None);
    }
}

/// A header made by `change` from a good one, its CRC put right.
fn patched(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = samples().remove(0);
    let rest = bytes.split_off(66 + 10);
    bytes.truncate(72);
    change(&mut bytes);
    let crc = crc(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(&rest);
    bytes
}

fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

#[test]
fn versions() {
    assert_eq!(patched(|_| {}), samples()[0]);
    let error = |change: fn(&mut Vec<u8>)| read(&patched(change), false).1;
    assert_eq!(error(|b| b[8] = 2), Some(Error::Version { major: 2, supported: 1 }));
    assert_eq!(error(|b| b[8] = 0), Some(Error::Version { major: 0, supported: 1 }));
    assert_eq!(error(|b| b[46] = 1), Some(Error::Method(1)));
    assert!(matches!(error(|b| b[47] |= 2), Some(Error::Field { name: "header flags", .. })));
    assert!(matches!(error(|b| b[50] = 0), Some(Error::Field { name: "code groups", .. })));
    assert!(matches!(error(|b| b[50] = 3), Some(Error::Field { name: "code groups", .. })));
    assert!(matches!(error(|b| b[53] = 1), Some(Error::Field { .. })));
    for field in [28, 32, 44, 48] {
        let zero = |b: &mut Vec<u8>| (field..field + if field < 44 { 4 } else { 2 }).for_each(|i| b[i] = 0);
        assert!(matches!(read(&patched(zero), false).1, Some(Error::Field { value: 0, .. })), "field at {field}");
    }

    // A later minor version with eight more bytes of header: the same codes, but for the seek table's offsets.
    let bytes = patched(|b| {
        (b[9], b[10]) = (3, b[10] + 8);
        b.extend_from_slice(b"whatever");
    });
    let (old, new) = (read(&samples()[0], false), read(&bytes, false));
    assert_eq!((all_codes(&new.0), new.1), (all_codes(&old.0), None));
}

#[test]
fn chunks_of_later_versions() {
    let bytes = samples().remove(0);
    let (_, len) = Header::parse(&bytes).unwrap();
    let insert = |kind: u8| {
        let mut chunk = vec![0xf3, 0x9d, kind, 0, 0, 0, 0, 0, 0, 3, 0, 1, 2, 3];
        chunk.extend_from_slice(&crc(&chunk).to_le_bytes());
        [&bytes[..len], &chunk, &bytes[len..]].concat()
    };
    for kind in [9, 15, 0x7b] {
        let (got, error) = read(&insert(kind), false);
        assert_eq!((all_codes(&got), error), (all_codes(&read(&bytes, false).0), None), "kind {kind}");
    }
    for kind in [0, 3, 7] {
        let error = read(&insert(kind), false).1;
        assert!(matches!(error, Some(Error::ChunkField { name: "kind", index: 0, .. })), "kind {kind}: {error:?}");
    }
}

#[test]
fn a_writer_that_errs_is_found_out() {
    let layout = layout(&[CodeGroup::single_rate(1, 5)]);
    let live = header(layout, false, 8, None);
    let file = |kind: u8, first: u32, frames: u16, payload: &[u8]| {
        let mut bytes = Out::new(&live).bytes;
        let mut chunk = vec![0xf3, 0x9d, kind];
        chunk.extend(first.to_le_bytes());
        chunk.extend(frames.to_le_bytes());
        chunk.extend((payload.len() as u16).to_le_bytes());
        chunk.extend(payload);
        chunk.extend(crc(&chunk).to_le_bytes());
        bytes.extend(chunk);
        bytes
    };
    let error = |bytes: Vec<u8>| read(&bytes, false).1.unwrap();
    assert_eq!(read(&file(1, 0, 2, &[0b0111_0000]), false).1, None);
    let code = Error::Code { frame: 1, position: 0, code: 5, size: 5 };
    assert_eq!(error(file(1, 0, 2, &[0b0111_0100])), code);
    assert!(matches!(error(file(1, 0, 2, &[0b0111_0001])), Error::ChunkField { name: "padding", .. }));
    assert!(matches!(error(file(1, 0, 2, &[0, 0])), Error::ChunkField { name: "length", .. }));
    assert!(matches!(error(file(1, 0, 0, &[])), Error::ChunkField { name: "number of frames", .. }));
    assert!(matches!(error(file(1, 0, 9, &[0; 4])), Error::ChunkField { name: "number of frames", .. }));
    assert!(matches!(error(file(0x21, 0, 1, &[0])), Error::ChunkField { name: "flags", .. }));
    assert!(matches!(error(file(0x41, 0, 1, &[0])), Error::ChunkField { name: "flags", .. }));
    assert!(matches!(error(file(1, 4, 1, &[0])), Error::Order { expected: 0, found: 4, .. }));
    assert!(matches!(error(file(0x11, 0, 1, &[0])), Error::Order { .. }));
    assert!(matches!(error(file(0x11, 1 << 31, 1, &[0])), Error::Order { .. }));
    assert!(matches!(error(file(8, 0, 0, &[1, 9, 0, b'k'])), Error::ChunkField { name: "metadata length", .. }));
    assert!(matches!(error(file(8, 0, 0, &[1, 0, 0, 0xff])), Error::ChunkField { name: "metadata length", .. }));
    assert!(matches!(error(file(2, 0, 0, &[0; 17])), Error::ChunkField { name: "length", .. }));
    let end = |frames: u64, seek: &[(u64, u64)]| {
        let mut payload = [u64::MAX.to_le_bytes(), frames.to_le_bytes()].concat();
        seek.iter().for_each(|(f, o)| payload.extend([f.to_le_bytes(), o.to_le_bytes()].concat()));
        error(file(0x12, frames as u32, 0, &payload))
    };
    for seek in [&[(1, 66)][..], &[(0, 68)], &[(100, 68)], &[(1, 80)], &[(5, 68), (5, 69)], &[(5, 69), (6, 68)]] {
        assert!(matches!(end(100, seek), Error::Seek { .. }), "{seek:?}");
    }
    assert!(matches!(end(1 << 32 | 5, &[]), Error::ChunkField { name: "number of all frames", .. }));
}

#[test]
fn lying_lengths_cost_nothing() {
    // A header that promises the largest of everything, and a chunk that promises the largest payload.
    let layout = layout(&[CodeGroup::single_rate(1, 2)]);
    let mut bytes = Out::new(&header(layout, false, u16::MAX, Some(u64::MAX - 1))).bytes;
    let mut chunk = vec![0xf3, 0x9d, 8, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    chunk.extend([0; 50]);
    bytes.extend(&chunk);
    assert!(matches!(read(&bytes, false).1, Some(Error::Truncated { needed: 65550, got: 61, .. })));
    assert!(matches!(read_pieces(&bytes, false, 100, 4096).1, Some(Error::Buffer { needed: 65550, .. })));
    // Nothing but the beginnings of chunks: salvage comes to its end.
    for _ in 0..2000 {
        bytes.extend(&chunk[..11]);
    }
    let (got, error) = read(&bytes, true);
    assert_eq!((codes_events(&got).len(), error), (0, None));
    assert_eq!(lost_frames(&got), [(0, None)]);
}

#[test]
fn nested_beginnings_of_chunks_cost_no_time() {
    let mut bytes = Out::new(&header(layout(&[CodeGroup::single_rate(1, 2)]), false, 9, None)).bytes;
    // 4 MB: checking each to its end would be 25 GB of checksums.
    while bytes.len() < 4_000_000 {
        bytes.extend([0xf3, 0x9d, 8, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
    }
    let begin = std::time::Instant::now();
    let (got, error) = read(&bytes, true);
    assert_eq!((lost_frames(&got), error), (vec![(0, None)], None));
    assert_eq!(read_pieces(&bytes, true, 40_000, MAX_READER_BUFFER), (got, None));
    assert!(begin.elapsed().as_secs() < 10, "{:?}", begin.elapsed());
}

#[test]
fn another_model_is_named() {
    let bytes = samples().remove(0);
    let (parsed, _) = Header::parse(&bytes).unwrap();
    assert_eq!(parsed.check_model(&FINGERPRINT), Ok(()));
    let error = parsed.check_model(&[0xab; 16]).unwrap_err();
    assert_eq!(error, Error::WrongModel { file: FINGERPRINT, model: [0xab; 16] });
    let text = error.to_string();
    assert!(text.contains("30313233343536373839616263646566") && text.contains(&"ab".repeat(16)), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    /// Any damage anywhere after the header: salvage gives only chunks that were written, all that were not touched,
    /// and both readers agree.
    #[test]
    fn salvage_under_any_damage(
        overwrite in prop::collection::vec((76_usize..800, prop::collection::vec(any::<u8>(), 1..60)), 0..4),
        cut in prop::option::of((76_usize..800, 1_usize..100)),
        piece in 1_usize..200,
    ) {
        let bytes = samples().remove(0);
        let (whole, (chunks, _)) = (codes_events(&read(&bytes, false).0), chunks(&bytes));
        let mut damaged = bytes.clone();
        let mut touched: Vec<std::ops::Range<usize>> = Vec::new();
        for (at, patch) in overwrite {
            let at = at.min(damaged.len());
            let n = patch.len().min(damaged.len() - at);
            damaged[at..at + n].copy_from_slice(&patch[..n]);
            touched.push(at..at + n);
        }
        if let Some((at, n)) = cut {
            let at = at.min(damaged.len());
            let n = n.min(damaged.len() - at);
            damaged.drain(at..at + n);
            touched.push(at..at + n);
        }
        let (got, error) = read(&damaged, true);
        prop_assert_eq!(error, None);
        prop_assert_eq!(read_pieces(&damaged, true, piece, MAX_READER_BUFFER), (got.clone(), None));
        let keys = |got: &[Got]| -> Vec<(u64, Vec<u16>)> {
            got.iter()
                .filter_map(|got| match got {
                    Got::Codes { first, segments, .. } => Some((*first, segments[0].codes.clone())),
                    _ => None,
                })
                .collect()
        };
        let (written, read) = (keys(&whole), keys(&got));
        prop_assert!(read.iter().all(|chunk| written.contains(chunk)));
        for (i, (offset, ..)) in chunks.iter().enumerate() {
            let offset = *offset as usize;
            let payload = usize::from(u16::from_le_bytes([bytes[offset + 9], bytes[offset + 10]]));
            let range = offset..offset + payload + 15;
            if touched.iter().all(|t| t.end <= range.start || t.start >= range.end) {
                prop_assert!(read.contains(&written[i]), "chunk {} at {:?} was not touched", i, range);
            }
        }
    }
}

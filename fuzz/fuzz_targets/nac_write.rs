//! Any sequence of calls to the writer: what it wrote is what is read.
#![no_main]

use arbitrary::Arbitrary;
use codec::nac::{CodeGroup, GROUP_LEN, Header, Item, Layout, Method, NacReader, NacWriter};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Case {
    groups: Vec<(u8, u16, u8, u8, u16)>,
    segments: bool,
    chunk_frames: u16,
    samples: Option<u64>,
    calls: Vec<Call>,
}

#[derive(Arbitrary, Debug)]
enum Call {
    Write(u8, u16),
    Segment(f32),
    Lost(u32),
    Flush,
    Metadata(String, Vec<u8>),
}

#[derive(Debug, Default, PartialEq)]
struct Written {
    codes: Vec<u16>,
    /// Scale and frames of each segment.
    segments: Vec<(u32, u64)>,
    /// Where frames were lost.
    lost: Vec<(u64, u64)>,
    metadata: Vec<(String, Vec<u8>)>,
    frames: u64,
}

fuzz_target!(|case: Case| {
    let groups: Vec<CodeGroup> = case
        .groups
        .iter()
        .map(|&(level, first_book, books, steps, size)| CodeGroup {
            level,
            first_book,
            books: books.into(),
            steps: steps.into(),
            size: u32::from(size) + 1,
        })
        .collect();
    let mut storage = vec![0; groups.len() * GROUP_LEN];
    let Ok(layout) = Layout::new(&groups, &mut storage) else { return };
    let header = Header {
        fingerprint: [1; 16],
        sample_rate: 16000,
        channels: 1,
        hop: 320,
        samples: None,
        method: Method::Raw,
        segments: case.segments,
        chunk_frames: case.chunk_frames,
        layout,
    };
    let Ok(mut writer) = NacWriter::new(std::io::Cursor::new(Vec::new()), &header) else { return };
    let mut written = Written::default();
    let per_frame = layout.codes_per_frame();
    let sizes: Vec<u32> = groups.iter().flat_map(|g| std::iter::repeat_n(g.size, g.codes())).collect();
    for call in &case.calls {
        match call {
            Call::Write(frames, seed) => {
                let n = usize::from(*frames) * per_frame;
                let codes = (0..n).map(|i| ((i as u32 * 7919 + u32::from(*seed)) % sizes[i % per_frame]) as u16);
                let codes: Vec<u16> = codes.collect();
                let ready = !case.segments || !written.segments.is_empty();
                assert_eq!(writer.write(&codes).is_ok(), ready || n == 0);
                if ready {
                    written.codes.extend(codes);
                    written.frames += u64::from(*frames);
                    if let Some(segment) = written.segments.last_mut() {
                        segment.1 += u64::from(*frames);
                    }
                }
            }
            Call::Segment(scale) => {
                let ok = writer.begin_segment(*scale).is_ok();
                assert_eq!(ok, case.segments && scale.is_finite());
                if ok {
                    written.segments.push((scale.to_bits(), 0));
                }
            }
            Call::Lost(frames) => {
                let frames = u64::from(*frames);
                let first = written.frames;
                if writer.lost(frames as u32).is_ok() && frames > 0 {
                    match written.lost.last_mut() {
                        Some(last) if last.0 + last.1 == first => last.1 += frames,
                        _ => written.lost.push((first, frames)),
                    }
                    written.frames += frames;
                }
            }
            Call::Flush => writer.flush().unwrap(),
            Call::Metadata(key, value) => {
                if writer.metadata(&[(key, value)]).is_ok() {
                    written.metadata.push((key.clone(), value.clone()));
                }
            }
        }
    }
    assert_eq!(writer.frames(), written.frames);
    let samples = case.samples.filter(|&samples| samples != u64::MAX);
    let (file, len) = writer.finish_in_place(samples).unwrap();
    let bytes = file.into_inner();
    assert_eq!(bytes.len() as u64, len);
    // Segments without frames leave nothing behind.
    written.segments.retain(|segment| segment.1 > 0);

    let mut reader = NacReader::new(&bytes[..]).unwrap();
    assert_eq!(reader.header().unwrap(), Header { samples, ..header });
    let mut read = Written::default();
    while let Some(item) = reader.next().unwrap() {
        match item {
            Item::Frames(frames) => {
                read.codes.extend_from_slice(frames.codes);
                let n = (frames.codes.len() / per_frame) as u64;
                match (frames.scale, read.segments.last_mut()) {
                    (Some(scale), Some(last)) if frames.continues => {
                        assert_eq!(last.0, scale.to_bits());
                        last.1 += n;
                    }
                    (Some(scale), _) => read.segments.push((scale.to_bits(), n)),
                    (None, _) => assert!(!case.segments && !frames.continues),
                }
            }
            Item::Lost(lost) => read.lost.push((lost.first_frame, lost.frames.unwrap())),
            Item::Metadata(entries) => read.metadata.extend(entries),
            Item::End(end) => {
                assert!(end.complete);
                assert_eq!(end.samples, samples);
                read.frames = end.frames;
            }
            _ => {}
        }
    }
    assert_eq!(read, written);
});

//! The `.nac` container: identity, damage, truncation, salvage, seeking.

mod damage;
mod roundtrip;

use codec_core::bitstream::*;

pub(crate) const FINGERPRINT: [u8; 16] = *b"0123456789abcdef";

/// Leaks: tests only.
pub(crate) fn layout(groups: &[CodeGroup]) -> Layout<'static> {
    Layout::new(groups, vec![0; groups.len() * GROUP_LEN].leak()).unwrap()
}

pub(crate) fn header(
    layout: Layout<'static>,
    segments: bool,
    chunk_frames: u16,
    samples: Option<u64>,
) -> Header<'static> {
    Header {
        fingerprint: FINGERPRINT,
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

/// Codes that depend on everything before them, in range.
pub(crate) fn codes(layout: &Layout<'_>, frames: usize, seed: u64) -> Vec<u16> {
    let mut state = seed | 1;
    let mut codes = Vec::new();
    for _ in 0..frames {
        for group in layout.groups() {
            for _ in 0..group.codes() {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                codes.push(((state >> 33) % u64::from(group.size)) as u16);
            }
        }
    }
    codes
}

pub(crate) struct Out {
    pub(crate) writer: Writer<Vec<u8>>,
    pub(crate) bytes: Vec<u8>,
    per_frame: usize,
}

impl Out {
    pub(crate) fn new(header: &Header<'_>) -> Self {
        let writer = Writer::new(header, vec![0xaa; Writer::<Vec<u8>>::buffer_len(header, MAX_SEEK_ENTRIES)]).unwrap();
        let bytes = writer.header_bytes().to_vec();
        Self { writer, bytes, per_frame: header.layout.codes_per_frame() }
    }

    pub(crate) fn push(&mut self, mut codes: &[u16]) {
        while !codes.is_empty() {
            let (frames, bytes) = self.writer.push(codes).unwrap();
            assert!(frames > 0, "push must take something");
            self.bytes.extend_from_slice(bytes);
            codes = &codes[frames * self.per_frame..];
        }
    }

    pub(crate) fn segment(&mut self, scale: f32, codes: &[u16]) {
        let bytes = self.writer.begin_segment(scale).unwrap();
        self.bytes.extend_from_slice(bytes);
        self.push(codes);
    }

    pub(crate) fn flush(&mut self) {
        let bytes = self.writer.flush().unwrap();
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn lost(&mut self, frames: u32) {
        let bytes = self.writer.lost(frames).unwrap();
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn metadata(&mut self, entries: &[(&str, &[u8])]) {
        self.flush();
        let bytes = self.writer.metadata(entries).unwrap();
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn finish(mut self, samples: Option<u64>) -> Vec<u8> {
        let bytes = self.writer.finish(samples).unwrap();
        self.bytes.extend_from_slice(bytes);
        self.bytes
    }
}

/// An event with everything in it, owned.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Got {
    Codes { offset: u64, first: u64, segments: Vec<GotSegment> },
    Metadata(Vec<(String, Vec<u8>)>),
    Lost(Lost),
    End { samples: Option<u64>, frames: u64, complete: bool, seek: Vec<SeekEntry> },
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GotSegment {
    pub(crate) first: u64,
    pub(crate) scale: Option<u32>,
    pub(crate) continues: bool,
    pub(crate) codes: Vec<u16>,
}

pub(crate) fn own(event: Event<'_>, per_frame: usize) -> Result<Got, Error> {
    Ok(match event {
        Event::Codes(chunk) => {
            let mut segments = Vec::new();
            for segment in chunk.segments() {
                let mut codes = vec![0; segment.frames() * per_frame];
                assert_eq!(segment.unpack(0, &mut codes), segment.frames());
                segments.push(GotSegment {
                    first: segment.first_frame,
                    scale: segment.scale.map(f32::to_bits),
                    continues: segment.continues,
                    codes,
                });
            }
            assert_eq!(segments.iter().map(|s| s.codes.len()).sum::<usize>(), chunk.frames() * per_frame);
            Got::Codes { offset: chunk.offset, first: chunk.first_frame, segments }
        }
        Event::Metadata(entries) => Got::Metadata(entries.map(|(k, v)| (k.to_owned(), v.to_vec())).collect()),
        Event::Lost(lost) => Got::Lost(lost),
        Event::End(end) => Got::End {
            samples: end.samples,
            frames: end.frames,
            complete: end.complete,
            seek: end.seek.entries().collect(),
        },
        other => panic!("an event that the tests do not know: {other:?}"),
    })
}

/// Events until the end or the first error.
pub(crate) fn read(bytes: &[u8], salvage: bool) -> (Vec<Got>, Option<Error>) {
    let mut got = Vec::new();
    let stream = if salvage { Stream::salvage(bytes) } else { Stream::new(bytes) };
    let stream = match stream {
        Ok(stream) => stream,
        Err(error) => return (got, Some(error)),
    };
    let per_frame = stream.header().layout.codes_per_frame();
    for event in stream {
        match event.and_then(|event| own(event, per_frame)) {
            Ok(event) => got.push(event),
            Err(error) => return (got, Some(error)),
        }
    }
    (got, None)
}

/// The same through the push reader, in pieces of `piece` bytes.
pub(crate) fn read_pieces(bytes: &[u8], salvage: bool, piece: usize, buffer: usize) -> (Vec<Got>, Option<Error>) {
    let mut got = Vec::new();
    let buffer = vec![0x55; buffer];
    let mut reader = if salvage { Reader::salvage(buffer) } else { Reader::new(buffer) };
    let per_frame = Header::parse(bytes).map_or(1, |(header, _)| header.layout.codes_per_frame());
    let mut rest = bytes;
    let mut eof = false;
    loop {
        match reader.next() {
            Ok(Some(event)) => match own(event, per_frame) {
                Ok(event) => got.push(event),
                Err(error) => return (got, Some(error)),
            },
            Ok(None) if rest.is_empty() && eof => return (got, None),
            Ok(None) if rest.is_empty() => {
                eof = true;
                reader.end_of_input();
            }
            Ok(None) => {
                let n = reader.feed(&rest[..piece.min(rest.len())]);
                assert!(n > 0, "a reader that wants bytes has room for some");
                rest = &rest[n..];
            }
            Err(error) => return (got, Some(error)),
        }
    }
}

/// All codes in order.
pub(crate) fn all_codes(got: &[Got]) -> Vec<u16> {
    let segments = got.iter().filter_map(|got| match got {
        Got::Codes { segments, .. } => Some(segments),
        _ => None,
    });
    segments.flatten().flat_map(|segment| segment.codes.iter().copied()).collect()
}

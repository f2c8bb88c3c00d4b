//! Any bytes as a `.nac` file: no panic, no hang, no more memory than documented, and all three readers agree.
#![no_main]

use std::io::Cursor;

use codec::core::bitstream::{Error, Event, Header, MAX_READER_BUFFER, Reader, Stream};
use codec::nac::{Item, NacReader};
use libfuzzer_sys::fuzz_target;

const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

/// Filling it anew for every input would take longer than everything else.
static BUFFER: std::sync::Mutex<[u8; MAX_READER_BUFFER]> = std::sync::Mutex::new([0; MAX_READER_BUFFER]);

/// One line an event, with a hash of what is in it.
type Log = (Vec<(u64, u64, u64)>, Option<Error>);

fn note(event: Event<'_>, log: &mut Log) {
    log.0.push(match event {
        Event::Codes(chunk) => {
            let mut hash = 0_u64;
            let mut codes = vec![0; chunk.layout().codes_per_frame() * chunk.frames()];
            for segment in chunk.segments() {
                let n = segment.unpack(0, &mut codes);
                assert_eq!(n, segment.frames());
                hash ^= u64::from(segment.scale.unwrap_or(0.0).to_bits());
                let mut sizes = chunk.layout().groups().flat_map(|g| std::iter::repeat_n(g.size, g.codes()));
                let sizes: Vec<u32> = sizes.by_ref().collect();
                for (i, &code) in codes[..n * sizes.len()].iter().enumerate() {
                    assert!(u32::from(code) < sizes[i % sizes.len()]);
                    hash = hash.wrapping_mul(31).wrapping_add(code.into());
                }
            }
            (1, chunk.first_frame, hash)
        }
        Event::Metadata(entries) => (2, entries.map(|(k, v)| k.len() + v.len()).sum::<usize>() as u64, 0),
        Event::Lost(lost) => (3, lost.first_frame ^ lost.offset << 32, lost.frames.unwrap_or(u64::MAX) ^ lost.bytes),
        Event::End(end) => (4, end.frames, end.samples.unwrap_or(u64::MAX) ^ end.seek.len() as u64),
        _ => (5, 0, 0),
    });
}

fn whole(bytes: &[u8], salvage: bool) -> Log {
    let mut log = Log::default();
    let stream = if salvage { Stream::salvage(bytes) } else { Stream::new(bytes) };
    match stream {
        Err(error) => log.1 = Some(error),
        Ok(stream) => {
            for event in stream {
                match event {
                    Ok(event) => note(event, &mut log),
                    Err(error) => log.1 = Some(error),
                }
            }
        }
    }
    log
}

fn pieces(bytes: &[u8], salvage: bool, piece: usize) -> Log {
    let mut log = Log::default();
    let buffer = &mut BUFFER.lock().unwrap()[..];
    let mut reader = if salvage { Reader::salvage(buffer) } else { Reader::new(buffer) };
    let mut rest = bytes;
    loop {
        if reader.is_done() {
            return log;
        }
        match reader.next() {
            Ok(Some(event)) => note(event, &mut log),
            Err(error) => {
                log.1 = Some(error);
                return log;
            }
            Ok(None) if rest.is_empty() => reader.end_of_input(),
            Ok(None) => {
                let n = reader.feed(&rest[..piece.min(rest.len())]);
                assert!(n > 0);
                rest = &rest[n..];
            }
        }
    }
}

/// Puts the CRCs right of the header and of the chunks that follow each other, or the fuzzer gets no further than
/// them.
fn repair(bytes: &mut [u8]) {
    let Ok(Some(mut at)) = Header::stated_len(bytes) else { return };
    if at > bytes.len() {
        return;
    }
    let crc = CRC.checksum(&bytes[..at - 4]);
    bytes[at - 4..at].copy_from_slice(&crc.to_le_bytes());
    while at + 15 <= bytes.len() {
        let body = at + 11 + usize::from(u16::from_le_bytes([bytes[at + 9], bytes[at + 10]]));
        if body + 4 > bytes.len() {
            return;
        }
        let crc = CRC.checksum(&bytes[at..body]);
        bytes[body..body + 4].copy_from_slice(&crc.to_le_bytes());
        at = body + 4;
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&how, bytes)) = input.split_first() else { return };
    let mut bytes = bytes.to_vec();
    if how & 1 == 0 {
        repair(&mut bytes);
    }
    let salvage = how & 2 == 0;
    let piece = usize::from(how >> 2) + 1;
    let log = whole(&bytes, salvage);
    if salvage && Header::parse(&bytes).is_ok() {
        assert_eq!(log.1, None, "salvage never fails after the header");
        assert!(log.0.last().is_some_and(|last| last.0 == 4), "and always ends");
    }
    assert_eq!(pieces(&bytes, salvage, piece), log);
    let reader = if salvage { NacReader::salvage(Cursor::new(&bytes)) } else { NacReader::new(Cursor::new(&bytes)) };
    let Ok(mut reader) = reader else { return };
    while let Ok(Some(_)) = reader.next() {}
    // To a frame in the middle: what comes is not before it.
    let frame = log.0.iter().find(|line| line.0 == 4).map_or(0, |end| end.1 / 2);
    if reader.seek(frame).is_ok() {
        while let Ok(Some(item)) = reader.next() {
            if let Item::Frames(frames) = item {
                assert!(frames.first_frame >= frame);
            }
        }
    }
});

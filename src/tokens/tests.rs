use std::io::{Cursor, Write as _};

use super::*;
use crate::Segment;

fn stream(codebooks: usize, segmented: bool) -> StreamInfo {
    StreamInfo {
        fingerprint: Some(std::array::from_fn(|i| i as u8 * 17)),
        sample_rate: Some(24_000),
        channels: Some(1),
        hop: Some(320),
        codebooks,
        segmented,
        ..StreamInfo::default()
    }
}

fn codes(codebooks: usize, frames: usize) -> Codes {
    let data = (0..frames * codebooks).map(|i| (i * 40_503 % 65_536) as u16).collect();
    Codes { codebooks, data, ..Codes::default() }
}

fn writer(kind: Kind, path: &Path, stream: &StreamInfo) -> Box<dyn TokenWriter> {
    let file = File::create(path).unwrap();
    match kind {
        Kind::Npy => Box::new(NpyWriter::new(file, stream).unwrap()),
        Kind::Safetensors => Box::new(SafetensorsWriter::new(file, tempfile::tempfile().unwrap(), stream).unwrap()),
        Kind::Jsonl => Box::new(JsonlWriter::new(file, stream).unwrap()),
        Kind::Nac => unreachable!(),
    }
}

fn write(kind: Kind, path: &Path, stream: &StreamInfo, codes: &Codes, chunk: usize) {
    let mut out = writer(kind, path, stream);
    for block in codes.data.chunks(chunk * codes.codebooks) {
        out.write(&Codes { codebooks: codes.codebooks, data: block.to_vec(), segments: vec![] }).unwrap();
    }
    out.finish(12_345).unwrap();
}

fn read(path: &Path) -> Result<(StreamInfo, Codes), TokenError> {
    let mut reader = open(path, false)?;
    let (mut all, mut block) = (Codes::default(), Codes::default());
    while reader.next(&mut block)? == Step::Frames {
        all.codebooks = block.codebooks;
        all.data.extend(&block.data);
        all.segments.extend(&block.segments);
    }
    Ok((reader.info().clone(), all))
}

fn reason(result: Result<(StreamInfo, Codes), TokenError>) -> String {
    result.map(|(info, _)| info).unwrap_err().to_string()
}

#[test]
fn every_kind_gives_back_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    for kind in [Kind::Npy, Kind::Safetensors, Kind::Jsonl] {
        for (codebooks, frames) in [(1, 1), (8, 75), (3, 40_000), (2, 0)] {
            let path = folder.path().join(format!("{codebooks}x{frames}.{}", kind.extension()));
            let sent = codes(codebooks, frames);
            write(kind, &path, &stream(codebooks, false), &sent, 999);
            assert_eq!(Kind::of_content(&path).unwrap(), Some(kind));
            let (info, got) = read(&path).unwrap();
            assert!(got.data == sent.data, "{kind:?} {codebooks} {frames}");
            assert_eq!((info.codebooks, info.frames), (codebooks, Some(frames as u64)));
            if kind != Kind::Npy {
                let samples = info.samples;
                assert_eq!(samples, Some(12_345));
                assert_eq!(StreamInfo { frames: None, samples: None, ..info }, stream(codebooks, false));
            }
        }
    }
}

#[test]
fn scales_of_segments_are_kept_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let scales = [0.1f32, f32::from_bits(0x3eaa_aaab), 1e-30, 123.456];
    for kind in [Kind::Safetensors, Kind::Jsonl] {
        let path = folder.path().join("segments");
        let mut out = writer(kind, &path, &stream(2, true));
        let mut sent = codes(2, 4 * 150);
        for (i, &scale) in scales.iter().enumerate() {
            let data = sent.data[i * 300..(i + 1) * 300].to_vec();
            sent.segments.push(Segment { frames: 150, scale });
            out.write(&Codes { codebooks: 2, data, segments: vec![Segment { frames: 150, scale }] }).unwrap();
        }
        out.finish(142_000).unwrap();
        drop(out);
        let (info, got) = read(&path).unwrap();
        assert!(info.segmented);
        assert_eq!(got, sent, "{kind:?}");
    }
    let refused = NpyWriter::new(Cursor::new(Vec::new()), &stream(2, true));
    assert!(matches!(refused, Err(TokenError::NoPlaceForScales)));
}

fn npy(descr: &str, fortran: &str, shape: &str, data: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}");
    while (header.len() + 11) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    file.write_all(b"\x93NUMPY\x01\x00").unwrap();
    file.write_all(&(header.len() as u16).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.write_all(data).unwrap();
    file
}

#[test]
fn npy_of_every_integer_type_order_and_shape_is_read() {
    let check = |file: tempfile::NamedTempFile, codebooks: usize, expected: &[u16]| {
        let (info, got) = read(file.path()).unwrap();
        assert_eq!((info.codebooks, got.data.as_slice()), (codebooks, expected));
    };
    // As C order has it: codebook 0 is 1, 2, 3.
    let rows = [1u8, 2, 3, 4, 5, 6];
    check(npy("|u1", "False", "(2, 3)", &rows), 2, &[1, 4, 2, 5, 3, 6]);
    check(npy("|i1", "True", "(2, 3)", &rows), 2, &[1, 2, 3, 4, 5, 6]);
    check(npy("|u1", "False", "(1, 2, 3)", &rows), 2, &[1, 4, 2, 5, 3, 6]);
    check(npy("|u1", "False", "(6,)", &rows), 1, &[1, 2, 3, 4, 5, 6]);
    let wide: Vec<u8> = rows.iter().flat_map(|&v| i64::from(v).to_le_bytes()).collect();
    check(npy("<i8", "False", "(2, 3)", &wide), 2, &[1, 4, 2, 5, 3, 6]);
    let big: Vec<u8> = rows.iter().flat_map(|&v| (u16::from(v) * 257).to_be_bytes()).collect();
    check(npy(">u2", "False", "(2, 3)", &big), 2, &[257, 1028, 514, 1285, 771, 1542]);
}

#[test]
fn bad_npy_says_what_is_wrong() {
    let bad = |file: tempfile::NamedTempFile| reason(read(file.path()));
    assert!(bad(npy("<f4", "False", "(2, 3)", &[0; 24])).contains("type is `<f4`"));
    assert!(bad(npy("|u1", "False", "(2, 2, 3)", &[0; 12])).contains("[2, 2, 3]"));
    assert!(bad(npy("|u1", "False", "(2, 3)", &[0; 5])).contains("cut off"));
    assert!(bad(npy("|u1", "False", "(2, 18446744073709551615)", &[0; 5])).contains("do not fit"));
    assert!(bad(npy("|u1", "False", "(4294967296, 4294967296)", &[0; 5])).contains("4294967296 codebooks"));
    assert!(bad(npy("|u1", "False", "(0, 3)", &[])).contains("0 codebooks"));
    assert!(bad(npy("|u1", "False", "(18446744073709551616, 3)", &[])).contains("no tuple of sizes"));
    let negative: Vec<u8> = [5i32, 6, -1, 7].iter().flat_map(|v| v.to_le_bytes()).collect();
    let text = bad(npy("<i4", "False", "(2, 2)", &negative));
    assert_eq!(text, "code -1 of frame 0, codebook 1 is out of range (0 to 65535)");
    let whole = std::fs::read(npy("|u1", "False", "(2, 3)", &[1; 6]).path()).unwrap();
    for cut in 0..whole.len() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&whole[..cut]).unwrap();
        assert!(read(file.path()).is_err(), "{cut}");
    }
}

#[test]
fn bad_safetensors_say_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    write(Kind::Safetensors, &path, &stream(2, false), &codes(2, 10), 10);
    let whole = std::fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        assert!(read(&path).is_err(), "{cut}");
    }
    let put = |header: &str, data: usize| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 1);
        std::fs::write(&path, bytes).unwrap();
        reason(read(&path))
    };
    let other = put(r#"{"x":{"dtype":"I32","shape":[1,1],"data_offsets":[0,4]}}"#, 4);
    assert!(other.contains("no tensor `codes`"), "{other}");
    let float = put(r#"{"codes":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}}"#, 4);
    assert!(float.contains("F32"), "{float}");
    let mark = put(
        r#"{"__metadata__":{"codec.fingerprint":"zz"},"codes":{"dtype":"I32","shape":[1,1],"data_offsets":[0,4]}}"#,
        4,
    );
    assert!(mark.contains("fingerprint"), "{mark}");
    let sum = put(
        r#"{"codes":{"dtype":"U8","shape":[1,4],"data_offsets":[0,4]},
            "segment_frames":{"dtype":"I32","shape":[1],"data_offsets":[4,8]},
            "segment_scales":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}"#,
        12,
    );
    assert!(sum.contains("do not add up"), "{sum}");
}

#[test]
fn bad_jsonl_names_the_line() {
    let head = r#"{"format":"codec-tokens","version":1,"codebooks":2}"#;
    let bad = |rest: &str| {
        let mut reader = JsonlReader::new(Cursor::new(format!("{head}\n{rest}")))?;
        let mut block = Codes::default();
        while reader.next(&mut block)? == Step::Frames {}
        Ok(reader.info().clone())
    };
    let text = |rest: &str| bad(rest).map_err(|e: TokenError| e.to_string()).unwrap_err();
    assert!(bad("[1,2]\n{\"end\":{}}\n").is_ok());
    assert!(text("[1,2]\n").contains("line 2: the file ends without its `end`"));
    assert!(text("[1,2]\n[1]\n{\"end\":{}}\n").contains("line 3: 1 codes"));
    assert!(text("[1,65536]\n{\"end\":{}}\n").contains("code 65536 of frame 0, codebook 1"));
    assert!(text("[1,-1]\n{\"end\":{}}\n").contains("code -1 of"));
    assert!(text("[1,1.5]\n{\"end\":{}}\n").contains("1.5 is not a whole number"));
    assert!(text("[1,2]\n{\"end\":{\"frames\":2}}\n").contains("2 frames stated, 1 found"));
    assert!(text("{\"end\":{}}\n[1,2]\n").contains("text after"));
    assert!(text("{\"segment\":{\"frames\":1,\"scale\":1}}\n").contains("a segment where none"));
    assert!(text("hello\n").contains("line 2: it is neither"));
    assert!(text(&"[".repeat(3 << 20)).contains("too long"));
    for header in [
        "{}",
        r#"{"format":"codec-tokens","version":2,"codebooks":2}"#,
        r#"{"format":"codec-tokens","version":1,"codebooks":0}"#,
    ] {
        assert!(JsonlReader::new(Cursor::new(header)).is_err(), "{header}");
    }
    assert!(matches!(JsonlReader::new(Cursor::new("")), Err(TokenError::Empty)));
}

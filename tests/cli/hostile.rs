//! `codec import` of files that mean harm: an error, and nothing else.

use std::io::{Cursor, Write};

use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use crate::support::*;

/// A PyTorch archive with this pickle.
fn archive(pickle: &[u8]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    zip.start_file("archive/data.pkl", stored).unwrap();
    zip.write_all(pickle).unwrap();
    zip.finish().unwrap().into_inner()
}

/// Imports a file of this content, which must fail with these words and leave nothing behind.
#[track_caller]
fn refused(name: &str, bytes: &[u8], parts: &[&str]) {
    let bench = Bench::new();
    std::fs::write(bench.path(name), bytes).unwrap();
    bench.codec(&["import", name, "-o", "out.safetensors"]).fails(1, parts);
    bench.assert_only(&[name]);
}

#[test]
fn an_empty_file() {
    refused("empty.pth", b"", &["empty.pth"]);
}

#[test]
fn a_truncated_archive() {
    let whole = archive(b"\x80\x02}.");
    for cut in [4, 30, whole.len() / 2, whole.len() - 1] {
        refused("cut.pth", &whole[..cut], &["cut.pth"]);
    }
}

#[test]
fn a_pickle_that_calls_the_system_is_not_executed() {
    let call = b"cos\nsystem\n(X\x0b\x00\x00\x00touch pwnedtR";
    let mut plain = b"\x80\x02".to_vec();
    plain.extend(call);
    plain.push(b'.');
    refused("call.pth", &archive(&plain), &["call.pth"]);
    // As a value beside others, and as what an object is made with.
    let mut inside = b"\x80\x02}X\x01\x00\x00\x00a".to_vec();
    inside.extend(call);
    inside.extend(b"s.");
    refused("call.pth", &archive(&inside), &["call.pth"]);
    let mut built = b"\x80\x02ccollections\nOrderedDict\n)R".to_vec();
    built.extend(call);
    built.extend(b"b.");
    refused("call.pth", &archive(&built), &["call.pth"]);
    // Before PyTorch 1.6: the magic number, the protocol, what the system was, then the object.
    let mut legacy = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.".to_vec();
    legacy.extend(&plain);
    legacy.extend(b"\x80\x02].");
    refused("call.pth", &legacy, &["call.pth"]);
}

#[test]
fn a_safetensors_file_with_a_huge_header() {
    for length in [1_u64 << 40, 100_000_001, 1 << 55] {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(b"{\"a\":{}}");
        refused("huge.safetensors", &bytes, &["huge.safetensors"]);
    }
}

//! Any bytes as a published checkpoint: no panic, no hang, no more memory than the file justifies.
#![no_main]

mod support;

use std::io::{Cursor, Write};

use codec::{
    checkpoint::Checkpoint,
    import::{ImportOptions, import},
    model_file::write_model,
};
use libfuzzer_sys::fuzz_target;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// Bytes of elements that are converted for one input.
const MOST_BYTES: usize = 8 << 20;

/// A PyTorch archive with this pickle and two storages; the fuzzer knows no checksums.
fn archive(pickle: &[u8]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, data) in [("archive/data.pkl", pickle), ("archive/data/0", &[1; 256]), ("archive/data/1", &[2; 64])] {
        zip.start_file(name, options).unwrap();
        zip.write_all(data).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fuzz_target!(|input: &[u8]| {
    let Some((&how, bytes)) = input.split_first() else { return };
    let bytes = if how == b'p' { archive(bytes) } else { bytes.to_vec() };
    support::with_file(&bytes, |path, folder| {
        if let Ok(checkpoint) = Checkpoint::open(path) {
            let mut left = MOST_BYTES;
            for (_, tensor) in checkpoint.tensors() {
                let elements = tensor.shape().iter().try_fold(1_usize, |n, d| n.checked_mul(*d));
                let bytes = elements.and_then(|n| n.checked_mul(tensor.element_type().size()));
                let Some(rest) = bytes.and_then(|bytes| left.checked_sub(bytes)) else { continue };
                left = rest;
                if let Ok(values) = tensor.to_f32() {
                    assert_eq!(Some(values.len()), elements, "as many elements as the shape says");
                }
            }
        }
        if let Ok(imported) = import(path, &ImportOptions::default()) {
            write_model(&folder.join("model"), &imported.spec, &imported.tensors, &imported.provenance).unwrap();
        }
    });
});

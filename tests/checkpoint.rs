//! Published checkpoint containers, and hostile ones.

use std::{fs, io::Write, path::Path};

use codec::checkpoint::{Checkpoint, CheckpointError, ElementType};
use safetensors::SafeTensors;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

const CONTAINERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/containers");

/// Opens `bytes` as a file of this name.
fn open_bytes(name: &str, bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    Checkpoint::open(&path)
}

/// Opens a checkpoint and reads every tensor, as an importer would.
fn read_all(name: &str, bytes: &[u8]) -> Result<usize, CheckpointError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let checkpoint = Checkpoint::open(&path)?;
    let mut elements = 0;
    for (_, tensor) in checkpoint.tensors() {
        elements += tensor.to_f32()?.len();
    }
    Ok(elements)
}

fn archive(pickle: &[u8], storages: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(method);
    zip.start_file("x/data.pkl", options).unwrap();
    zip.write_all(pickle).unwrap();
    for (key, bytes) in storages {
        zip.start_file(format!("x/data/{key}"), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A pickle of `{"w": tensor}` whose storage declares `declared` elements, with the given shape and strides.
fn tensor_pickle(declared: u32, shape: [u32; 2], strides: [u32; 2]) -> Vec<u8> {
    let mut p = b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu".to_vec();
    let int = |p: &mut Vec<u8>, n: u32| {
        p.push(b'J');
        p.extend(n.to_le_bytes());
    };
    int(&mut p, declared);
    p.extend(b"tQK\x00");
    for pair in [shape, strides] {
        int(&mut p, pair[0]);
        int(&mut p, pair[1]);
        p.push(0x86);
    }
    p.extend(b"\x89ccollections\nOrderedDict\n)RtRs.");
    p
}

#[test]
fn every_container_gives_the_published_tensors() {
    let mut seen = 0;
    for entry in fs::read_dir(CONTAINERS).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.ends_with(".expected.safetensors") {
            continue;
        }
        seen += 1;
        let bytes = fs::read(path.with_file_name(format!("{name}.expected.safetensors"))).unwrap();
        let expected = SafeTensors::deserialize(&bytes).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut wanted: Vec<_> = expected.names();
        wanted.sort_unstable();
        let found: Vec<_> = checkpoint.tensors().map(|(n, _)| n).collect();
        assert_eq!(found, wanted, "{name}");
        for (key, tensor) in checkpoint.tensors() {
            let view = expected.tensor(key).unwrap();
            assert_eq!(tensor.shape(), view.shape(), "{name}: {key}");
            if matches!(tensor.element_type(), ElementType::F16 | ElementType::Bf16) {
                let wide: Vec<f32> = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
                assert_eq!(tensor.to_f32().unwrap(), wide, "{name}: {key}");
            } else {
                assert_eq!(tensor.bytes().unwrap(), view.data(), "{name}: {key}");
            }
        }
    }
    assert_eq!(seen, 9);
}

#[test]
fn what_is_beside_the_tensors_is_kept() {
    let dac = Checkpoint::open(Path::new(CONTAINERS).join("dac_weights.pth")).unwrap();
    let kwargs = &dac.attributes()["metadata"]["kwargs"];
    assert!(kwargs["sample_rate"].is_number(), "{kwargs}");
    assert!(kwargs["encoder_rates"].is_array(), "{kwargs}");
}

#[test]
fn a_folder_is_opened_by_its_only_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Checkpoint::open(folder.path()), Err(CheckpointError::NothingInFolder { .. })));
    let source = Path::new(CONTAINERS);
    // Without a suffix, as HiFi-Codec publishes it.
    fs::copy(source.join("hificodec_g_00001000"), folder.path().join("g_00001000")).unwrap();
    fs::write(folder.path().join("README"), "words").unwrap();
    fs::write(folder.path().join("config.json"), r#"{"sampling_rate": 24000}"#).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert!(checkpoint.tensors().len() > 0);
    assert_eq!(checkpoint.config().unwrap()["sampling_rate"], 24000);
    fs::copy(source.join("encodec_flat.th"), folder.path().join("other.th")).unwrap();
    let Err(CheckpointError::SeveralInFolder { names, .. }) = Checkpoint::open(folder.path()) else { panic!() };
    assert_eq!(names, ["g_00001000", "other.th"]);
    fs::copy(source.join("protocol4.pth"), folder.path().join("pytorch_model.bin")).unwrap();
    assert!(Checkpoint::open(folder.path()).is_ok());
    fs::write(folder.path().join("config.json"), "{").unwrap();
    assert!(matches!(Checkpoint::open(folder.path()), Err(CheckpointError::Config { .. })));
}

#[test]
fn other_files_are_told_apart() {
    assert!(matches!(Checkpoint::open("/no/such/file"), Err(CheckpointError::Io { .. })));
    for bytes in [&b""[..], b"RIFF\0\0\0\0WAVE", b"\x80\x02}q\x00.", &[0; 4096]] {
        assert!(matches!(open_bytes("x.pth", bytes), Err(CheckpointError::UnknownFormat { .. })));
    }
}

#[test]
fn a_call_in_a_pickle_is_never_made() {
    let folder = tempfile::tempdir().unwrap();
    let witness = folder.path().join("witness");
    let command = format!("touch {}", witness.display());
    for (module, function) in [("posix", "system"), ("os", "system"), ("builtins", "eval"), ("subprocess", "call")] {
        // {"weights": <call>(command)}, by GLOBAL and REDUCE, and by NEWOBJ.
        for call in [&b"\x85R"[..], b"\x85\x81"] {
            let mut pickle = b"\x80\x02}X\x07\x00\x00\x00weights".to_vec();
            pickle.extend(format!("c{module}\n{function}\n").bytes());
            pickle.push(b'X');
            pickle.extend((command.len() as u32).to_le_bytes());
            pickle.extend(command.bytes());
            pickle.extend(call);
            pickle.extend(b"s.");
            let checkpoint = open_bytes("x.pth", &archive(&pickle, &[], CompressionMethod::Stored));
            // Read as a value of no meaning, or refused.
            if let Ok(checkpoint) = checkpoint {
                assert_eq!(checkpoint.tensors().len(), 0);
            }
        }
    }
    assert!(!witness.exists());
}

#[test]
fn truncated_files_are_errors() {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for entry in fs::read_dir(CONTAINERS).unwrap() {
        let path = entry.unwrap().path();
        files.push((path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()));
    }
    for (name, bytes) in files {
        let whole = read_all("x", &bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        let step = (bytes.len() / 60).max(1);
        for cut in (0..bytes.len()).step_by(step).chain([bytes.len() - 1]) {
            if let Ok(elements) = read_all("x", &bytes[..cut]) {
                // A zip archive may lose the end of its trailing comment, never a tensor.
                assert_eq!(elements, whole, "{name} cut at {cut}");
                assert!(cut + 64 > bytes.len(), "{name} cut at {cut} still reads");
            }
        }
    }
}

#[test]
fn damaged_files_do_not_panic() {
    // A fixed pseudo-random walk over bytes and files: whatever comes back, it comes back.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    for name in ["views.pth", "legacy_format.pth", "protocol4.pth", "views.pth.expected.safetensors"] {
        let bytes = fs::read(Path::new(CONTAINERS).join(name)).unwrap();
        for _ in 0..400 {
            let mut damaged = bytes.clone();
            for _ in 0..1 + random() % 4 {
                let at = random() % damaged.len();
                damaged[at] = random() as u8;
            }
            let _ = read_all("x", &damaged);
        }
    }
}

#[test]
fn a_view_past_its_storage_is_an_error() {
    let storage = [0u8; 16];
    let file = |pickle: &[u8]| archive(pickle, &[("0", &storage)], CompressionMethod::Stored);
    assert_eq!(read_all("x.pth", &file(&tensor_pickle(4, [2, 2], [2, 1]))).unwrap(), 4);
    // The view needs more than the storage declares; the storage declares more than the file holds.
    assert!(read_all("x.pth", &file(&tensor_pickle(4, [2, 3], [3, 1]))).is_err());
    assert!(read_all("x.pth", &file(&tensor_pickle(1_000_000, [1000, 1000], [1000, 1]))).is_err());
    // No storage at all.
    let bare = archive(&tensor_pickle(4, [2, 2], [2, 1]), &[], CompressionMethod::Stored);
    assert!(read_all("x.pth", &bare).is_err());
}

#[test]
fn a_huge_expanded_view_is_refused_before_memory_is_spent() {
    let file = archive(&tensor_pickle(4, [50_000, 50_000], [0, 0]), &[("0", &[0; 16])], CompressionMethod::Stored);
    let error = open_bytes("x.pth", &file).err().unwrap();
    let CheckpointError::TooLarge { name, bytes, .. } = error else { panic!("{error}") };
    assert_eq!((name.as_str(), bytes), ("w", 10_000_000_000));
}

#[test]
fn bombs_are_refused() {
    let refused = |file: &[u8], why: &str| match open_bytes("x.pth", file).err() {
        Some(CheckpointError::Torch { reason, .. }) => assert!(reason.contains(why), "{reason}"),
        other => panic!("{other:?}"),
    };
    // Compressed: 90 MB of NONE from a file of 90 kB.
    let mut nones = b"\x80\x02".to_vec();
    nones.resize(90_000_000, b'N');
    refused(&archive(&nones, &[], CompressionMethod::Deflated), "compressed");
    refused(&archive(&nones, &[], CompressionMethod::Stored), "more than");
    nones.truncate(10_000_000);
    nones.push(b'.');
    refused(&archive(&nones, &[], CompressionMethod::Stored), "operations");
    // Before 1.6: the same after the header.
    let legacy = fs::read(Path::new(CONTAINERS).join("legacy_format.pth")).unwrap();
    let mut bomb = legacy[..139].to_vec();
    bomb.extend(&nones);
    refused(&bomb, "operations");
    // Depth: a list in a list in a list.
    let mut deep = b"\x80\x02".to_vec();
    deep.extend(std::iter::repeat_n(b']', 1_000_000));
    deep.extend(std::iter::repeat_n(b'a', 999_999));
    deep.push(b'.');
    refused(&archive(&deep, &[], CompressionMethod::Stored), "nesting");
    // A tuple of ten of itself, ten times over: 10^12 items.
    let mut laughs = b"\x80\x02)".to_vec();
    for _ in 0..12 {
        laughs.extend(b"q\x00(");
        laughs.extend([b'h', 0].repeat(10));
        laughs.push(b't');
    }
    laughs.push(b'.');
    refused(&archive(&laughs, &[], CompressionMethod::Stored), "bomb");
    // Lengths of 4 and 8 bytes that no file holds.
    for length in [&b"X\xff\xff\xff\x7f"[..], b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x8b\xff\xff\xff\xff"] {
        let pickle = [b"\x80\x04", length, b"abc."].concat();
        refused(&archive(&pickle, &[], CompressionMethod::Stored), "cut off");
    }
    refused(&archive(b"\x80\x02\xff.", &[], CompressionMethod::Stored), "unknown");
}

#[test]
fn hostile_safetensors_headers_are_errors() {
    let file = |header: &str, data: usize| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    };
    let good = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    assert_eq!(read_all("x", &file(good, 8)).unwrap(), 2);
    for (header, data) in [
        (good, 7),
        (good, 9),
        (r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, 8),
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#, 8),
        (r#"{"a":{"dtype":"F32","shape":[18446744073709551615,8],"data_offsets":[0,8]}}"#, 8),
        (
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
            8,
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[12,16]}}"#,
            16,
        ),
        (r#"{"a":{"dtype":"F99","shape":[2],"data_offsets":[0,8]}}"#, 8),
        (r#"{"a":[1,2]}"#, 8),
        ("{", 8),
    ] {
        let result = read_all("x", &file(header, data));
        assert!(matches!(result, Err(CheckpointError::Safetensors { .. })), "{header}: {result:?}");
    }
    let mut huge = u64::MAX.to_le_bytes().to_vec();
    huge.extend(b"{}");
    assert!(read_all("x", &huge).is_err());
    huge[..8].copy_from_slice(&((1u64 << 55) - 1).to_le_bytes());
    assert!(matches!(read_all("x", &huge), Err(CheckpointError::Safetensors { .. })));
}

#[test]
fn tflite_files_are_read_whole_or_not_at_all() {
    let shared =
        std::env::var("CODEC_SHARED").unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../shared").into());
    let folder = Path::new(&shared).join("lyra/model_coeffs");
    if !folder.is_dir() {
        eprintln!("skipped: {} is not there", folder.display());
        return;
    }
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let mut stems: Vec<_> = checkpoint.graphs().keys().cloned().collect();
    stems.sort();
    assert_eq!(stems, ["lyragan", "quantizer", "soundstream_encoder"]);
    assert_eq!(checkpoint.graphs()["quantizer"].graphs.len(), 2);
    let bytes = fs::read(folder.join("quantizer.tflite")).unwrap();
    for cut in (0..bytes.len()).step_by(bytes.len() / 200) {
        assert!(read_all("q.tflite", &bytes[..cut]).is_err(), "cut at {cut}");
    }
    let mut state = 1u64;
    for _ in 0..300 {
        let mut damaged = bytes.clone();
        // The tables lie in the last part of the file.
        for _ in 0..3 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let at = bytes.len() - 1 - (state >> 33) as usize % 100_000;
            damaged[at] = (state >> 20) as u8;
        }
        let _ = read_all("q.tflite", &damaged);
    }
}

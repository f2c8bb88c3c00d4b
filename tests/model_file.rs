//! Model files: what is written, and what is refused.

use std::{fs, path::Path};

use codec::{
    Codes, Model, Options,
    core::{
        spec::{CodecSpec, ConvTranspose, Framing, Layer, Quantizer, SPEC_VERSION, Vq},
        weights::{Dtype, Precision, Tensors, f32_to_f16},
    },
    model_file::{ModelFile, ModelFileError, OwnedTensor, Provenance, TensorMap, write_model},
};
use serde_json::{Value, json};

fn spec() -> CodecSpec {
    let book =
        Vq { name: "q".into(), size: 2, dim: 3, metric: Default::default(), project_in: None, project_out: None };
    CodecSpec {
        version: SPEC_VERSION,
        name: "test".into(),
        sample_rate: 8000,
        channels: 1,
        hop: 3,
        latent: 3,
        framing: Framing::Stream,
        codebook_choices: vec![1],
        encoder: None,
        quantizer: Quantizer::Vq(book),
        decoder: Some(vec![]),
    }
}

fn tensors() -> TensorMap {
    let mut map = TensorMap::default();
    map.0.insert("q.codebook".into(), OwnedTensor::f32(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    map.0.insert("big".into(), OwnedTensor::f32(&[32], &[0.5; 32]));
    map.0.insert("i8".into(), OwnedTensor { dtype: Dtype::I8, shape: vec![3], bytes: vec![1, 2, 255] });
    map.0.insert("half".into(), OwnedTensor { dtype: Dtype::F16, shape: vec![1], bytes: vec![0, 0x3c] });
    map.0.insert("empty".into(), OwnedTensor::f32(&[0, 4], &[]));
    map
}

fn provenance() -> Provenance {
    Provenance { system: Some("s".into()), license: Some("MIT".into()), source: None }
}

/// A written file taken apart: header and data.
fn parts(path: &Path) -> (Value, Vec<u8>) {
    let bytes = fs::read(path).unwrap();
    let size = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..8 + size]).unwrap(), bytes[8 + size..].to_vec())
}

fn assemble(path: &Path, header: &Value, data: &[u8]) {
    let text = header.to_string();
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.bytes());
    bytes.extend(data);
    fs::write(path, bytes).unwrap();
}

#[test]
fn what_is_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.codec");
    let fingerprint = write_model(&path, &spec(), &tensors(), &provenance()).unwrap();
    let model = ModelFile::open(&path).unwrap();
    assert_eq!(model.spec(), &spec());
    assert_eq!(model.fingerprint(), fingerprint);
    assert_eq!(model.provenance(), &provenance());
    model.verify().unwrap();
    let read: Vec<_> =
        model.tensors().map(|(name, t)| (name.to_owned(), t.dtype, t.shape.to_vec(), t.bytes.to_vec())).collect();
    let written: Vec<_> = tensors().0.into_iter().map(|(name, t)| (name, t.dtype, t.shape, t.bytes)).collect();
    assert_eq!(read, written);
    assert!(model.tensor("none").is_none());
    // Nothing is left beside it, and it can be written again.
    write_model(&path, &spec(), &tensors(), &provenance()).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let (_, data) = parts(&path);
    assert_eq!((fs::metadata(&path).unwrap().len() as usize - data.len()) % 64, 0);
}

#[test]
fn the_fingerprint_is_the_documented_hash() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.codec");
    let fingerprint = write_model(&path, &spec(), &tensors(), &provenance()).unwrap();
    let (header, data) = parts(&path);
    let mut stream = Vec::new();
    let mut part = |bytes: &[u8]| {
        stream.extend((bytes.len() as u64).to_le_bytes());
        stream.extend(bytes);
    };
    part(header["__metadata__"]["codec.spec"].as_str().unwrap().as_bytes());
    part(&5u64.to_le_bytes());
    for name in ["big", "empty", "half", "i8", "q.codebook"] {
        let entry = &header[name];
        part(name.as_bytes());
        part(entry["dtype"].as_str().unwrap().as_bytes());
        let shape = entry["shape"].as_array().unwrap().iter().flat_map(|n| n.as_u64().unwrap().to_le_bytes());
        part(&shape.collect::<Vec<_>>());
        let offset = |i: usize| entry["data_offsets"][i].as_u64().unwrap() as usize;
        part(&data[offset(0)..offset(1)]);
    }
    assert_eq!(fingerprint.0, blake3::hash(&stream).as_bytes()[..16]);
    assert_eq!(header["__metadata__"]["codec.fingerprint"], fingerprint.to_string());

    // It depends on spec and tensors, not on where they come from.
    let other = folder.path().join("other.codec");
    assert_eq!(write_model(&other, &spec(), &tensors(), &Provenance::default()).unwrap(), fingerprint);
    let renamed = CodecSpec { sample_rate: 8001, ..spec() };
    assert_ne!(write_model(&other, &renamed, &tensors(), &provenance()).unwrap(), fingerprint);
    let mut changed = tensors();
    changed.0.get_mut("i8").unwrap().bytes[0] = 7;
    assert_ne!(write_model(&other, &spec(), &changed, &provenance()).unwrap(), fingerprint);
}

#[test]
fn a_change_is_found_by_verify() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.codec");
    let stated = write_model(&path, &spec(), &tensors(), &provenance()).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let model = ModelFile::open(&path).unwrap();
    let Err(ModelFileError::Fingerprint { stated: found, computed, .. }) = model.verify() else { panic!() };
    assert_eq!(found, stated);
    assert_ne!(computed, stated);
}

#[test]
fn wrong_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.codec");
    write_model(&path, &spec(), &tensors(), &provenance()).unwrap();
    let bytes = fs::read(&path).unwrap();
    let bad = folder.path().join("bad.codec");
    for cut in 0..bytes.len() {
        fs::write(&bad, &bytes[..cut]).unwrap();
        assert!(ModelFile::open(&bad).is_err(), "cut at {cut}");
    }
    fs::write(&bad, [&bytes[..], b"more"].concat()).unwrap();
    assert!(matches!(ModelFile::open(&bad), Err(ModelFileError::Header { .. })));
    assert!(matches!(ModelFile::open(folder.path()), Err(ModelFileError::Io { .. })));
    assert!(matches!(ModelFile::open(folder.path().join("none")), Err(ModelFileError::Io { .. })));

    let (header, data) = parts(&path);
    let open = |change: &dyn Fn(&mut Value)| {
        let mut header = header.clone();
        change(&mut header);
        assemble(&bad, &header, &data);
        ModelFile::open(&bad)
    };
    assert!(open(&|_| {}).is_ok());
    for key in ["codec.format", "codec.spec", "codec.fingerprint"] {
        let result = open(&|h| drop(h["__metadata__"].as_object_mut().unwrap().remove(key)));
        assert!(matches!(result, Err(ModelFileError::NoKey { key: found, .. }) if found == key));
    }
    let set = |key: &'static str, text: &'static str| open(&move |h| h["__metadata__"][key] = json!(text));
    assert!(matches!(set("codec.format", "2"), Err(ModelFileError::Version { .. })));
    assert!(matches!(set("codec.spec", r#"{"version": 2, "new": 1}"#), Err(ModelFileError::Version { .. })));
    for text in ["", "{", "[]", r#"{"version": 1}"#] {
        assert!(matches!(set("codec.spec", text), Err(ModelFileError::Metadata { key: "codec.spec", .. })), "{text}");
    }
    let nested = "[".repeat(100_000).leak();
    assert!(matches!(set("codec.spec", nested), Err(ModelFileError::Metadata { .. })));
    for text in ["", "0", "+0000000000000000000000000000000", "0123456789abcdef0123456789abcdeF", "é".repeat(16).leak()]
    {
        assert!(matches!(set("codec.fingerprint", text), Err(ModelFileError::Metadata { .. })), "{text}");
    }
    let big = |entry: Value| open(&move |h| h["big"] = entry.clone());
    for entry in [
        json!({"dtype": "F32", "shape": [31], "data_offsets": [0, 128]}),
        json!({"dtype": "F32", "shape": [32], "data_offsets": [0, 127]}),
        json!({"dtype": "F32", "shape": [32], "data_offsets": [128, 0]}),
        json!({"dtype": "F32", "shape": [32], "data_offsets": [64, 192]}),
        json!({"dtype": "F32", "shape": [u64::MAX, 2], "data_offsets": [0, 128]}),
        json!({"dtype": "F32", "shape": [32], "data_offsets": [0, u64::MAX]}),
        json!({"dtype": "?", "shape": [32], "data_offsets": [0, 128]}),
    ] {
        assert!(matches!(big(entry.clone()), Err(ModelFileError::Header { .. })), "{entry}");
    }
    let double = json!({"dtype": "F64", "shape": [16], "data_offsets": [0, 128]});
    assert!(matches!(big(double), Err(ModelFileError::TensorType { name, .. }) if name == "big"));
}

#[test]
fn tensors_that_contradict_themselves_are_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.codec");
    for shape in [vec![2], vec![usize::MAX, 2]] {
        let mut tensors = tensors();
        tensors.0.get_mut("i8").unwrap().shape = shape;
        let result = write_model(&path, &spec(), &tensors, &provenance());
        assert!(matches!(result, Err(ModelFileError::TensorSize { name, .. }) if name == "i8"));
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let nowhere = folder.path().join("none/m.codec");
    assert!(matches!(write_model(&nowhere, &spec(), &tensors(), &provenance()), Err(ModelFileError::Io { .. })));
}

#[test]
fn weights_are_stored_in_other_types() {
    for (dtype, bits) in [(Dtype::F16, 0x3e00u16), (Dtype::Bf16, 0x3fc0)] {
        let mut stored = tensors();
        stored.0.insert("q.codebook".into(), OwnedTensor::f32(&[2, 3], &[1.5; 6]));
        stored.store_as(dtype).unwrap();
        let book = &stored.0["q.codebook"];
        assert_eq!((book.dtype, &book.bytes), (dtype, &bits.to_le_bytes().repeat(6)));
        // Vectors and what is not f32 stay.
        for name in ["big", "i8", "half"] {
            assert_eq!(stored.0[name], tensors().0[name], "{name}");
        }
    }
    let mut same = tensors();
    same.store_as(Dtype::F32).unwrap();
    assert_eq!(same, tensors());
    assert!(matches!(same.store_as(Dtype::I8), Err(ModelFileError::Stored { dtype: Dtype::I8 })));
    same.0.insert("q.codebook".into(), OwnedTensor::f32(&[2, 3], &[1.0, 2.0, -7e4, 4.0, 5.0, 6.0]));
    let error = same.store_as(Dtype::F16).unwrap_err();
    assert!(
        matches!(&error, ModelFileError::Range { name, value } if name == "q.codebook" && *value == -7e4),
        "{error}"
    );
    same.store_as(Dtype::Bf16).unwrap();
}

/// A file in f16 decodes as the f32 file whose weights are held in f16, bit for bit.
#[test]
fn a_file_of_halves_runs_in_halves() {
    let folder = tempfile::tempdir().unwrap();
    let layer = ConvTranspose {
        name: "up".into(),
        input: 3,
        output: 1,
        kernel: 6,
        stride: 3,
        groups: 1,
        bias: true,
        trim_left: 0,
        trim_right: 3,
        blocks: None,
    };
    let spec = CodecSpec { decoder: Some(vec![Layer::ConvTranspose(layer)]), ..spec() };
    let mut tensors = TensorMap::default();
    tensors.0.insert("q.codebook".into(), OwnedTensor::f32(&[2, 3], &[0.5, -0.25, 1.0, 0.125, 2.0, -1.0]));
    let weight: Vec<f32> = (0..18).map(|i| (i as f32 * 0.7).sin()).collect();
    assert!(weight[1..].iter().all(|w| codec::core::weights::f16_to_f32(f32_to_f16(*w)) != *w));
    tensors.0.insert("up.weight".into(), OwnedTensor::f32(&[3, 1, 6], &weight));
    tensors.0.insert("up.bias".into(), OwnedTensor::f32(&[1], &[0.1]));
    let mut halves = tensors.clone();
    halves.store_as(Dtype::F16).unwrap();
    let load = |name: &str, tensors| {
        let path = folder.path().join(name);
        write_model(&path, &spec, tensors, &provenance()).unwrap();
        Model::load(&path).unwrap()
    };
    let codes = Codes { codebooks: 1, data: vec![0, 1, 1, 0, 1, 0, 0, 0, 1], segments: vec![] };
    let decode = |model: Model| model.decode(&codes, None, &Options::default()).unwrap();
    let single = decode(load("single.safetensors", &tensors));
    let half = decode(load("half.safetensors", &halves));
    assert_ne!(single, half);
    assert_eq!(half, decode(load("single.safetensors", &tensors).with_precision(Precision::F16)));
}

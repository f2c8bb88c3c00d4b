//! Synthetic checkpoints of the published systems, by the closed-form rule of the golden cases, files of them, and
//! models imported from those.
#![allow(dead_code)]

#[path = "../../codec-core/tests/support/golden.rs"]
pub mod golden;

use std::{collections::BTreeMap, fs, io::Write};

use codec::{
    Model,
    import::{ImportOptions, import},
    model_file::write_model,
};
use serde_json::Value;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// Shape and values by name.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

pub fn manifest(case: &str) -> Value {
    serde_json::from_slice(&fs::read(golden::committed().join(format!("{case}.json"))).unwrap()).unwrap()
}

/// The tensors of a case, under the names of its manifest.
pub fn tensors(manifest: &Value) -> Tensors {
    golden::make_tensors(manifest, |_| true)
}

/// Writes a case's checkpoint as a file, imports it, and loads the model.
pub fn import_case(case: &golden::Case, tensors: &golden::TensorMap) -> Model {
    import_changed(case, tensors, |_| {})
}

/// As [`import_case`], with a change to the spec.
pub fn import_changed(
    case: &golden::Case,
    tensors: &golden::TensorMap,
    change: impl Fn(&mut codec::core::spec::CodecSpec),
) -> Model {
    let folder = import_folder(case, tensors, change);
    // The mapping outlives the file's name.
    Model::load(folder.path().join("model.safetensors")).unwrap()
}

/// As [`import_changed`], a folder with the file `model.safetensors`.
pub fn import_folder(
    case: &golden::Case,
    tensors: &golden::TensorMap,
    change: impl Fn(&mut codec::core::spec::CodecSpec),
) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let name = case.manifest["case"].as_str().unwrap();
    let checkpoint = folder.path().join(format!("{name}.safetensors"));
    let named = |name: &str| (name.to_owned(), (tensors.shape(name).to_vec(), tensors.values(name)));
    fs::write(&checkpoint, safetensors(&tensors.names().map(named).collect())).unwrap();
    // What the hub's files of this family need to say how they pad.
    if case.manifest["config"]["model_type"] == "encodec" {
        fs::write(folder.path().join("config.json"), case.manifest["config"].to_string()).unwrap();
    }
    let system = match name.trim_end_matches("_transformers").replace('_', "-").as_str() {
        "speechtokenizer-hubert-avg" | "speechtokenizer-snake" => "speechtokenizer".to_string(),
        "mimi-native" => "mimi".to_string(),
        "academicodec-soundstream-24k-240d" => "soundstream-24k-240d".to_string(),
        system => system.to_string(),
    };
    let mut imported = import(&checkpoint, &ImportOptions { system: Some(system), ..Default::default() }).unwrap();
    change(&mut imported.spec);
    let path = folder.path().join("model.safetensors");
    write_model(&path, &imported.spec, &imported.tensors, &imported.provenance).unwrap();
    folder
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A safetensors file of f32.
pub fn safetensors(tensors: &Tensors) -> Vec<u8> {
    let data: Vec<_> = tensors.iter().map(|(name, (shape, values))| (name, shape.clone(), bytes(values))).collect();
    let views = data.iter().map(|(name, shape, bytes)| {
        (name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

/// The pickle operations that push a text.
pub fn text(text: &str) -> Vec<u8> {
    let mut p = vec![b'X'];
    p.extend((text.len() as u32).to_le_bytes());
    p.extend(text.bytes());
    p
}

/// A PyTorch file: dictionaries nested along `path` around the tensors, and numbers under `metadata.kwargs`.
pub fn torch(tensors: &Tensors, path: &[&str], kwargs: &[(&str, u32)]) -> Vec<u8> {
    let mut extra = Vec::new();
    if !kwargs.is_empty() {
        extra = [text("metadata"), b"}".to_vec(), text("kwargs"), b"}".to_vec()].concat();
        for (key, number) in kwargs {
            extra.extend(text(key));
            extra.push(b'J');
            extra.extend(number.to_le_bytes());
            extra.push(b's');
        }
        extra.extend(b"ss");
    }
    torch_with(tensors, path, &extra)
}

/// A PyTorch file: dictionaries nested along `path` around the tensors; before them, `extra` sets items of the outermost.
pub fn torch_with(tensors: &Tensors, path: &[&str], extra: &[u8]) -> Vec<u8> {
    let text = |p: &mut Vec<u8>, value: &str| p.extend(text(value));
    let int = |p: &mut Vec<u8>, n: usize| {
        p.push(b'J');
        p.extend((n as u32).to_le_bytes());
    };
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut p = b"\x80\x02}".to_vec();
    p.extend(extra);
    for key in path {
        text(&mut p, key);
        p.push(b'}');
    }
    for (index, (name, (shape, values))) in tensors.iter().enumerate() {
        text(&mut p, name);
        p.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut p, "storage");
        p.extend(b"ctorch\nFloatStorage\n");
        text(&mut p, &index.to_string());
        text(&mut p, "cpu");
        int(&mut p, values.len());
        p.extend(b"tQ");
        int(&mut p, 0);
        let strides = (0..shape.len()).map(|axis| shape[axis + 1..].iter().product());
        for list in [shape.clone(), strides.collect()] {
            p.push(b'(');
            list.iter().for_each(|n| int(&mut p, *n));
            p.push(b't');
        }
        p.extend(b"\x89ccollections\nOrderedDict\n)RtRs");
        zip.start_file(format!("archive/data/{index}"), options).unwrap();
        zip.write_all(&bytes(values)).unwrap();
    }
    p.extend(std::iter::repeat_n(b's', path.len()));
    p.push(b'.');
    zip.start_file("archive/data.pkl", options).unwrap();
    zip.write_all(&p).unwrap();
    zip.finish().unwrap().into_inner()
}

//! Models for tests.
#![allow(dead_code)]

use codec::Model;
use codec_core::spec::CodecSpec;

use crate::golden::{Case, TensorMap};

/// Writes a case's checkpoint as a file, imports it, and loads the model.
pub fn import_case(case: &Case, tensors: &TensorMap) -> Model {
    import_changed(case, tensors, |_| {})
}

/// As [`import_case`], with a change to the spec.
pub fn import_changed(case: &Case, tensors: &TensorMap, change: impl Fn(&mut CodecSpec)) -> Model {
    let folder = tempfile::tempdir().unwrap();
    let name = case.manifest["case"].as_str().unwrap();
    let checkpoint = folder.path().join(format!("{name}.safetensors"));
    let views = tensors.names().map(|name| {
        let view = codec_core::weights::Tensors::tensor(tensors, name).unwrap();
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, view.shape.to_vec(), view.bytes).unwrap();
        (name.to_string(), view)
    });
    safetensors::serialize_to_file(views, None, &checkpoint).unwrap();
    let system = match name.trim_end_matches("_transformers").replace('_', "-").as_str() {
        "speechtokenizer-hubert-avg" => "speechtokenizer".to_string(),
        "mimi-native" => "mimi".to_string(),
        "academicodec-soundstream-24k-240d" => "soundstream-24k-240d".to_string(),
        system => system.to_string(),
    };
    let options = codec::import::ImportOptions { system: Some(system), ..Default::default() };
    let mut imported = codec::import::import(&checkpoint, &options).unwrap();
    change(&mut imported.spec);
    let path = folder.path().join("model.safetensors");
    codec::model_file::write_model(&path, &imported.spec, &imported.tensors, &imported.provenance).unwrap();
    // The mapping outlives the file's name.
    Model::load(&path).unwrap()
}

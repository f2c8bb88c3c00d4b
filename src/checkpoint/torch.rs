//! PyTorch files: the zip archives of 1.6 and later, and the stream of pickles before. The `pytorch-reader` crate
//! reads them; what it leaves unbounded is bounded here first.

use std::{
    collections::BTreeMap,
    io::{Cursor, Read},
    path::Path,
};

use pytorch_reader::{DType, PickleValue, PytorchReader};
use serde_json::Value;
use zip::{CompressionMethod, ZipArchive};

use super::{CheckpointError, CheckpointTensor, Data, ElementType, check_size, pickle};

/// The largest `data.pkl`; the pickles of real checkpoints have well under 10 MB.
const MAX_PICKLE_BYTES: u64 = 64 << 20;

/// Pickles in a file from before 1.6: magic number, protocol, system, object, storage keys.
const LEGACY_PICKLES: usize = 5;

/// Checks a file's pickle without building anything from it.
pub(super) fn check(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    let error = |reason: String| CheckpointError::Torch { path: path.to_path_buf(), reason };
    if pickle::is_legacy(bytes) {
        return pickle::check(bytes, LEGACY_PICKLES).map_err(error);
    }
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|e| error(e.to_string()))?;
    let mut pickles = 0;
    for index in 0..archive.len() {
        let mut entry = archive.by_index_raw(index).map_err(|e| error(e.to_string()))?;
        let name = entry.name().map_or_else(|_| format!("number {index}"), |name| name.to_string());
        if entry.encrypted() || entry.compression() != CompressionMethod::Stored {
            return Err(error(format!(
                "entry `{name}` of the archive is compressed or encrypted, which PyTorch never writes; store it uncompressed"
            )));
        }
        if name == "data.pkl" || name.ends_with("/data.pkl") {
            let size = entry.size();
            if size > MAX_PICKLE_BYTES {
                return Err(error(format!("`{name}` has {size} bytes, more than {MAX_PICKLE_BYTES}")));
            }
            let mut text = Vec::new();
            entry.by_ref().take(size).read_to_end(&mut text).map_err(|e| error(e.to_string()))?;
            pickle::check(&text, 1).map_err(error)?;
            pickles += 1;
        }
    }
    match pickles {
        1 => Ok(()),
        _ => Err(error(format!("the archive has {pickles} entries called `data.pkl`; a checkpoint has one"))),
    }
}

/// Reads a file that [`check`] passed.
pub(super) fn read(
    path: &Path,
    file_bytes: u64,
) -> Result<(BTreeMap<String, CheckpointTensor>, Value), CheckpointError> {
    let error =
        |e: pytorch_reader::PytorchError| CheckpointError::Torch { path: path.to_path_buf(), reason: e.to_string() };
    let mut tensors = BTreeMap::new();
    for (name, tensor) in PytorchReader::new(path).map_err(error)?.into_tensors() {
        let element = element_type(tensor.dtype());
        let shape = tensor.shape().to_vec();
        let bytes = shape.iter().try_fold(element.size() as u64, |n, d| n.checked_mul(*d as u64));
        check_size(&name, bytes, file_bytes)?;
        tensors.insert(name.clone(), CheckpointTensor { name, element, shape, data: Data::Torch(tensor) });
    }
    let attributes = PytorchReader::read_pickle_data(path, None).map_err(error)?;
    Ok((tensors, json(attributes).unwrap_or(Value::Null)))
}

/// The part of a pickled value that JSON can hold; nothing for a tensor, an object or an infinite number.
fn json(value: PickleValue) -> Option<Value> {
    Some(match value {
        PickleValue::None => Value::Null,
        PickleValue::Bool(b) => b.into(),
        PickleValue::Int(i) => i.into(),
        PickleValue::Float(f) => Value::Number(serde_json::Number::from_f64(f)?),
        PickleValue::String(s) => s.into(),
        PickleValue::List(items) => items.into_iter().map(|item| json(item).unwrap_or(Value::Null)).collect(),
        PickleValue::Dict(entries) => {
            Value::Object(entries.into_iter().filter_map(|(key, value)| Some((key, json(value)?))).collect())
        }
        PickleValue::Bytes(_) | PickleValue::Unsupported(_) => return None,
    })
}

fn element_type(dtype: DType) -> ElementType {
    match dtype {
        DType::F64 => ElementType::F64,
        DType::F32 => ElementType::F32,
        DType::F16 => ElementType::F16,
        DType::BF16 => ElementType::Bf16,
        DType::I64 => ElementType::I64,
        DType::I32 => ElementType::I32,
        DType::I16 => ElementType::I16,
        DType::I8 => ElementType::I8,
        DType::U64 => ElementType::U64,
        DType::U32 => ElementType::U32,
        DType::U16 => ElementType::U16,
        DType::U8 => ElementType::U8,
        DType::Bool => ElementType::Bool,
    }
}

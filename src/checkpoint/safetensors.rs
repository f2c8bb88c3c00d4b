//! Safetensors files; the header is checked by the format's own crate (sizes, bounds, overlaps, gaps).

use std::{collections::BTreeMap, path::Path, sync::Arc};

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde_json::Value;

use super::{CheckpointError, CheckpointTensor, Data, ElementType};

pub(super) fn read(
    path: &Path,
    file: &Arc<Mmap>,
) -> Result<(BTreeMap<String, CheckpointTensor>, Value), CheckpointError> {
    let error = |source| CheckpointError::Safetensors { path: path.to_path_buf(), source };
    let (header, metadata) = SafeTensors::read_metadata(file).map_err(error)?;
    let start = 8 + header;
    let mut tensors = BTreeMap::new();
    for name in metadata.offset_keys() {
        let info = metadata.info(&name).ok_or_else(|| error(SafeTensorError::TensorNotFound(name.clone())))?;
        // Other types (complex, 8-bit floats, sub-byte) occur in no codec; the tensor is left out and is missing then.
        let Some(element) = element_type(info.dtype) else { continue };
        let (from, to) = info.data_offsets;
        let data = Data::Mapped(Arc::clone(file), start.saturating_add(from)..start.saturating_add(to));
        tensors.insert(name.clone(), CheckpointTensor { name, element, shape: info.shape.clone(), data });
    }
    // The bounds of every tensor against the length of the file.
    SafeTensors::deserialize(file).map_err(error)?;
    let attributes = metadata.metadata().as_ref().map_or(Value::Null, |texts| {
        Value::Object(texts.iter().map(|(key, text)| (key.clone(), Value::String(text.clone()))).collect())
    });
    Ok((tensors, attributes))
}

fn element_type(dtype: Dtype) -> Option<ElementType> {
    Some(match dtype {
        Dtype::F64 => ElementType::F64,
        Dtype::F32 => ElementType::F32,
        Dtype::F16 => ElementType::F16,
        Dtype::BF16 => ElementType::Bf16,
        Dtype::I64 => ElementType::I64,
        Dtype::I32 => ElementType::I32,
        Dtype::I16 => ElementType::I16,
        Dtype::I8 => ElementType::I8,
        Dtype::U64 => ElementType::U64,
        Dtype::U32 => ElementType::U32,
        Dtype::U16 => ElementType::U16,
        Dtype::U8 => ElementType::U8,
        Dtype::BOOL => ElementType::Bool,
        _ => return None,
    })
}

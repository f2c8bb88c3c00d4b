//! The tensors that a spec names.

use std::collections::BTreeSet;

use codec_core::{spec::CodecSpec, weights::Dtype};

/// A tensor that a spec names.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedTensor {
    /// The name that the layer has in the spec.
    pub layer: String,
    /// What follows it and a dot in the tensor's name.
    pub part: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Element type.
    pub dtype: Dtype,
}

impl WantedTensor {
    /// The tensor's name.
    pub fn name(&self) -> String {
        format!("{}.{}", self.layer, self.part)
    }
}

/// The tensors that a spec names: encoder, quantizer, decoder, in the order of their layers.
pub fn wanted_tensors(spec: &CodecSpec) -> Vec<WantedTensor> {
    let list = spec.tensors();
    let int8: BTreeSet<_> =
        list.iter().filter_map(|tensor| tensor.name.strip_suffix(".weight_scale")).map(str::to_owned).collect();
    let wanted = |tensor: codec_core::spec::TensorSpec| {
        let (layer, part) = tensor.name.rsplit_once('.').unwrap_or(("", &tensor.name));
        let dtype = match part {
            "weight" if int8.contains(layer) => Dtype::I8,
            "bias" if int8.contains(layer) => Dtype::I32,
            _ => Dtype::F32,
        };
        WantedTensor { layer: layer.to_owned(), part: part.to_owned(), shape: tensor.shape, dtype }
    };
    list.into_iter().map(wanted).collect()
}

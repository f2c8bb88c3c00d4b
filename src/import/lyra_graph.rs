//! Lyra's layers, out of its three TFLite graphs or out of one safetensors file with the same content.

use std::collections::{BTreeMap, btree_map::Entry};

use codec_core::{spec::Grid, weights::Dtype};
use serde_json::Value;

use super::ImportError;
use crate::{
    checkpoint::{
        Checkpoint, CheckpointError, CheckpointTensor, ElementType,
        tflite::{Graph, Operator, OperatorKind, ValueInfo},
    },
    model_file::OwnedTensor,
};

/// What the graphs say of one layer.
#[derive(Clone, Debug, Default)]
pub(super) struct LayerData {
    /// As the spec's convolutions want it; i8 for an int8 layer, else f32.
    pub weight: Option<OwnedTensor>,
    /// i32 for an int8 layer, else f32.
    pub bias: Option<OwnedTensor>,
    /// Of an int8 layer: a step an output channel, or a group of a transposed convolution.
    pub weight_scale: Vec<f32>,
    /// Of an int8 transposed convolution.
    pub state_bias: Vec<f32>,
    pub input: Option<Grid>,
    /// One, or one a group of a transposed convolution.
    pub outputs: Vec<Grid>,
}

/// Everything that the importer needs.
#[derive(Debug, Default)]
pub(super) struct Lyra {
    pub layers: BTreeMap<String, LayerData>,
    /// Grids that belong to no convolution: of sums (`*.add`), and of one result that is quantised later (`*.later`).
    pub grids: BTreeMap<String, Grid>,
    /// Codebooks in their order, `[size, dim]` each.
    pub codebooks: Vec<OwnedTensor>,
}

/// The convolutions of a graph in execution order: name, and channel groups where each group is an operator of its own.
pub(super) fn order(side: &str) -> Vec<(String, usize)> {
    let mut out = Vec::new();
    let units = |out: &mut Vec<_>, stage: usize| {
        for unit in 0..3 {
            for part in ["depthwise", "conv1", "conv2"] {
                out.push((format!("{side}.stage{stage}.unit{unit}.{part}"), 1));
            }
        }
    };
    out.push((format!("{side}.conv_in"), 1));
    for stage in 0..3 {
        if side == "encoder" {
            units(&mut out, stage);
            out.push((format!("{side}.stage{stage}.down"), 1));
        } else {
            out.push((format!("{side}.stage{stage}.up"), [4, 2, 1][stage]));
            units(&mut out, stage);
        }
    }
    out.push((format!("{side}.conv_out"), 1));
    out
}

/// Reads the layers from whatever the checkpoint holds.
pub(super) fn read(checkpoint: &Checkpoint, system: &str) -> Result<Lyra, ImportError> {
    if checkpoint.graphs().is_empty() { from_safetensors(checkpoint, system) } else { from_graphs(checkpoint, system) }
}

const FILES: [(&str, &str); 2] = [("encoder", "soundstream_encoder"), ("decoder", "lyragan")];
const QUANTIZER: &str = "quantizer";

/// Whether the checkpoint holds Lyra's graphs, or the safetensors file.
pub(super) fn looks_like(checkpoint: &Checkpoint) -> bool {
    let graphs = checkpoint.graphs();
    FILES.iter().all(|(_, file)| graphs.contains_key(*file)) && graphs.contains_key(QUANTIZER)
        || checkpoint.attributes()["lyra_v2"].is_string() && checkpoint.get("quantizer.codebooks").is_some()
}

struct Walk<'a> {
    checkpoint: &'a Checkpoint,
    system: &'a str,
    file: &'a str,
}

impl<'a> Walk<'a> {
    fn error(&self, reason: impl Into<String>) -> ImportError {
        ImportError::Graph { system: self.system.to_owned(), file: self.file.to_owned(), reason: reason.into() }
    }

    fn graph(&self, index: usize) -> Result<&'a Graph, ImportError> {
        let model = self.checkpoint.graphs().get(self.file);
        model.and_then(|model| model.graphs.get(index)).ok_or_else(|| self.error("the file or graph is missing"))
    }

    fn value(&self, graph: &'a Graph, index: Option<usize>) -> Result<&'a ValueInfo, ImportError> {
        index.and_then(|index| graph.values.get(index)).ok_or_else(|| self.error("an operand is missing"))
    }

    fn constant(&self, value: &'a ValueInfo) -> Result<&'a CheckpointTensor, ImportError> {
        let tensor = value.constant.as_ref().and_then(|name| self.checkpoint.get(name));
        tensor.ok_or_else(|| self.error(format!("`{}` is not a constant", value.name)))
    }

    /// The grid of an int8 value with one step.
    fn grid(&self, value: &ValueInfo) -> Result<Option<Grid>, ImportError> {
        match (value.scales.as_slice(), value.zero_points.as_slice()) {
            ([], _) => Ok(None),
            ([scale], [zero_point]) => checked_grid(*scale, *zero_point)
                .map(Some)
                .ok_or_else(|| self.error(format!("the int8 grid of `{}` is out of range", value.name))),
            _ => Err(self.error(format!("`{}` has a grid a channel where one was expected", value.name))),
        }
    }
}

fn checked_grid(scale: f32, zero_point: i64) -> Option<Grid> {
    let valid = scale.is_finite() && scale > 0.0 && (-128..=127).contains(&zero_point);
    valid.then_some(Grid { scale, zero_point: zero_point as i32 })
}

fn from_graphs(checkpoint: &Checkpoint, system: &str) -> Result<Lyra, ImportError> {
    let mut lyra = Lyra::default();
    for (side, file) in FILES {
        side_from_graph(&Walk { checkpoint, system, file }, side, &mut lyra)?;
    }
    lyra.codebooks = codebooks_from_graph(&Walk { checkpoint, system, file: QUANTIZER })?;
    Ok(lyra)
}

fn side_from_graph(walk: &Walk<'_>, side: &str, lyra: &mut Lyra) -> Result<(), ImportError> {
    let graph = walk.graph(0)?;
    let mut order =
        order(side).into_iter().flat_map(|(name, groups)| (0..groups).map(move |group| (name.clone(), group)));
    let mut last = String::new();
    let mut unit_ends = false;
    for operator in &graph.operators {
        match operator.kind {
            OperatorKind::Conv2d | OperatorKind::DepthwiseConv2d | OperatorKind::TransposeConv => {
                let (name, group) = order.next().ok_or_else(|| walk.error("it has more convolutions"))?;
                let entry = lyra.layers.entry(name.clone());
                if group > 0 && matches!(entry, Entry::Vacant(_)) {
                    return Err(walk.error(format!("{name}: its first group is missing")));
                }
                convolution(walk, graph, operator, entry.or_default()).map_err(|error| match error {
                    ImportError::Graph { reason, .. } => walk.error(format!("{name}: {reason}")),
                    other => other,
                })?;
                unit_ends = name.ends_with(".conv2");
                last = name;
            }
            // A sum's grid: of the sum itself, or of its real result, which is quantised next.
            OperatorKind::Add | OperatorKind::Quantize => {
                let output = walk.value(graph, operator.outputs.first().copied())?;
                if let Some(grid) = walk.grid(output)? {
                    if unit_ends {
                        let unit = last.strip_suffix(".conv2").unwrap_or(&last);
                        lyra.grids.entry(format!("{unit}.add")).or_insert(grid);
                        unit_ends = false;
                    } else {
                        lyra.grids.entry(format!("{last}.later")).or_insert(grid);
                    }
                }
            }
            // What an int8 transposed convolution takes off the tail that it keeps.
            OperatorKind::Sub => {
                if let Some(layer) = lyra.layers.get_mut(&last).filter(|layer| !layer.weight_scale.is_empty()) {
                    let bias = walk.constant(walk.value(graph, operator.inputs.get(1).copied().flatten())?)?;
                    layer.state_bias.extend(bias.to_f32()?);
                }
            }
            _ => {}
        }
    }
    match order.next() {
        Some((name, _)) => Err(walk.error(format!("it has no {name}"))),
        None => Ok(()),
    }
}

/// Adds a convolution, or one more group of a transposed one, to what is known of its layer.
fn convolution(walk: &Walk<'_>, graph: &Graph, operator: &Operator, layer: &mut LayerData) -> Result<(), ImportError> {
    let operand = |index: usize| walk.value(graph, operator.inputs.get(index).copied().flatten());
    let transposed = operator.kind == OperatorKind::TransposeConv;
    // Operands are (input, weight, bias), or (output shape, weight, input, bias).
    let (input, weight, bias) =
        (operand(if transposed { 2 } else { 0 })?, operand(1)?, operand(if transposed { 3 } else { 2 })?);
    let output = walk.value(graph, operator.outputs.first().copied())?;

    // Weights are [a, kernel, 1, b]: (output, input) of a convolution and of a transposed one, (1, channel) depthwise.
    let [a, kernel, 1, b] = *weight.shape.as_slice() else {
        return Err(walk.error(format!("weights of shape {:?}", weight.shape)));
    };
    // Ours are [output, input, kernel]; transposed [input, output, kernel], depthwise [channel, 1, kernel].
    let swap = operator.kind != OperatorKind::Conv2d;
    let values = walk.constant(weight)?;
    let (bytes, size) = (values.bytes()?, values.element_type().size());
    let mut ours = Vec::with_capacity(bytes.len());
    let (outer, inner) = if swap { (b, a) } else { (a, b) };
    for o in 0..outer {
        for i in 0..inner {
            let (a, b) = if swap { (i, o) } else { (o, i) };
            for k in 0..kernel {
                let at = ((a * kernel + k) * (weight.shape[3]) + b) * size;
                ours.extend_from_slice(bytes.get(at..at + size).unwrap_or_default());
            }
        }
    }
    let int8 = values.element_type() == ElementType::I8;
    let (weight_type, bias_type) = if int8 { (Dtype::I8, Dtype::I32) } else { (Dtype::F32, Dtype::F32) };
    let bias = walk.constant(bias)?;
    let wanted = if int8 { ElementType::I32 } else { ElementType::F32 };
    if bias.element_type() != wanted || !int8 && values.element_type() != ElementType::F32 {
        return Err(walk.error(format!(
            "weights of {:?} with a bias of {:?}",
            values.element_type(),
            bias.element_type()
        )));
    }
    append(&mut layer.weight, weight_type, &[outer, inner, kernel], ours);
    append(&mut layer.bias, bias_type, bias.shape(), bias.bytes()?.into_owned());
    if int8 {
        if weight.zero_points.iter().any(|zero| *zero != 0) {
            return Err(walk.error("weights that are not symmetric"));
        }
        layer.weight_scale.extend_from_slice(&weight.scales);
        let (input, output) = (walk.grid(input)?, walk.grid(output)?);
        let (Some(input), Some(output)) = (input, output) else { return Err(walk.error("a missing int8 grid")) };
        layer.input = Some(input);
        layer.outputs.push(output);
    }
    Ok(())
}

/// Appends along the first axis.
fn append(tensor: &mut Option<OwnedTensor>, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) {
    match tensor {
        None => *tensor = Some(OwnedTensor { dtype, shape: shape.to_vec(), bytes }),
        Some(tensor) => {
            if let (Some(have), Some(more)) = (tensor.shape.first_mut(), shape.first()) {
                *have += more;
            }
            tensor.bytes.extend(bytes);
        }
    }
}

/// The codebooks of the decoding graph: each is gathered from by the code at one position of the input.
fn codebooks_from_graph(walk: &Walk<'_>) -> Result<Vec<OwnedTensor>, ImportError> {
    let graph = walk.graph(0)?;
    // Slices of the codes, by the value that they make: the position is the first number of their begin.
    let mut positions = BTreeMap::new();
    for operator in graph.operators.iter().filter(|operator| operator.kind == OperatorKind::StridedSlice) {
        let begin = walk.constant(walk.value(graph, operator.inputs.get(1).copied().flatten())?)?.to_f32()?;
        if let (Some(output), Some(begin)) = (operator.outputs.first(), begin.first()) {
            positions.insert(*output, *begin as usize);
        }
    }
    let mut books = BTreeMap::new();
    for operator in graph.operators.iter().filter(|operator| operator.kind == OperatorKind::Gather) {
        let book = walk.value(graph, operator.inputs.first().copied().flatten())?;
        let position = operator.inputs.get(1).copied().flatten().and_then(|index| positions.get(&index));
        let position = *position.ok_or_else(|| walk.error("a codebook that no code chooses from"))?;
        let values = walk.constant(book)?.to_f32()?;
        if books.insert(position, OwnedTensor::f32(&book.shape, &values)).is_some() {
            return Err(walk.error(format!("two codebooks for code {position}")));
        }
    }
    if books.keys().copied().ne(0..books.len()) {
        return Err(walk.error("codebooks are missing"));
    }
    Ok(books.into_values().collect())
}

/// The safetensors file names the parts otherwise.
fn theirs(ours: &str) -> String {
    let name =
        ours.replace(".unit", ".res").replace(".depthwise", ".dw").replace(".conv1", ".pw1").replace(".conv2", ".pw2");
    match name.as_str() {
        "encoder.conv_out" => "encoder.bottleneck".to_owned(),
        "decoder.conv_in" => "decoder.bottleneck".to_owned(),
        _ => name,
    }
}

fn from_safetensors(checkpoint: &Checkpoint, system: &str) -> Result<Lyra, ImportError> {
    let walk = Walk { checkpoint, system, file: "lyra_v2" };
    let text = checkpoint.attributes()["lyra_v2"].as_str().ok_or_else(|| walk.error("no `lyra_v2` in its metadata"))?;
    let meta: Value = serde_json::from_str(text).map_err(|error| walk.error(error.to_string()))?;
    let grid = |value: &Value| {
        let (scale, zero_point) = (value["scale"].as_f64()?, value["zero_point"].as_i64()?);
        checked_grid(scale as f32, zero_point)
    };
    let get = |name: &str| checkpoint.get(name).ok_or_else(|| CheckpointError::NoTensor(name.to_owned()));
    let owned = |name: &str, element: ElementType, dtype: Dtype| -> Result<OwnedTensor, ImportError> {
        let tensor = get(name)?;
        if tensor.element_type() != element {
            return Err(walk.error(format!("`{name}` holds {:?}", tensor.element_type())));
        }
        Ok(OwnedTensor { dtype, shape: tensor.shape().to_vec(), bytes: tensor.bytes()?.into_owned() })
    };
    let mut lyra = Lyra::default();
    for (ours, groups) in ["encoder", "decoder"].into_iter().flat_map(order) {
        let name = theirs(&ours);
        let entry = &meta["layers"][&name];
        let mut layer = LayerData::default();
        if entry["quantized"].as_bool() == Some(true) {
            layer.weight = Some(owned(&format!("{name}.weight_q"), ElementType::I8, Dtype::I8)?);
            layer.bias = Some(owned(&format!("{name}.bias_q"), ElementType::I32, Dtype::I32)?);
            layer.weight_scale = checkpoint.f32(&format!("{name}.weight_scale"))?;
            if groups > 1 {
                layer.state_bias = checkpoint.f32(&format!("{name}.state_bias"))?;
            }
            layer.input = grid(&entry["in_q"]);
            layer.outputs = match entry["out_q"].as_array() {
                Some(several) => several.iter().filter_map(grid).collect(),
                None => grid(&entry["out_q"]).into_iter().collect(),
            };
            if layer.input.is_none() || layer.outputs.is_empty() {
                return Err(walk.error(format!("`{name}` has no valid int8 grids")));
            }
        } else {
            layer.weight = Some(owned(&format!("{name}.weight"), ElementType::F32, Dtype::F32)?);
            if get(&format!("{name}.bias")).is_ok() {
                layer.bias = Some(owned(&format!("{name}.bias"), ElementType::F32, Dtype::F32)?);
            }
        }
        lyra.layers.insert(ours.clone(), layer);
        for (key, suffix) in [(format!("{name}.out_q"), "later"), (name.replace(".pw2", ".add_q"), "add")] {
            if let Some(grid) = grid(&meta["extra_q"][&key]) {
                lyra.grids.insert(format!("{}.{suffix}", ours.strip_suffix(".conv2").unwrap_or(&ours)), grid);
            }
        }
    }
    let books = get("quantizer.codebooks")?;
    let ([count, size, dim], values) = (books.shape(), books.to_f32()?) else {
        return Err(walk.error(format!("codebooks of shape {:?}", books.shape())));
    };
    let book = (size * dim).max(1);
    lyra.codebooks =
        values.chunks_exact(book).take(*count).map(|book| OwnedTensor::f32(&[*size, *dim], book)).collect();
    Ok(lyra)
}

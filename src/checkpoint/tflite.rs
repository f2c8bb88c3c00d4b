//! TFLite models: the part of the flatbuffer that holds the graph, its constants and their int8 grids.
//!
//! Field numbers follow TensorFlow Lite's published `schema.fbs` (version 3). Every offset is checked against the
//! file, so a damaged file is an error and nothing else.

use std::{cell::Cell, collections::BTreeMap, path::Path, sync::Arc};

use memmap2::Mmap;

use super::{CheckpointError, CheckpointTensor, Data, ElementType};

/// Limits on what a file may declare; Lyra's largest graph has 800 tensors.
const MAX_ITEMS: usize = 1 << 16;
const MAX_RANK: usize = 8;
const MAX_NAME: usize = 256;

/// A model: its graphs in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// The graphs.
    pub graphs: Vec<Graph>,
}

/// A graph: its values, and the operators in execution order.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Its name.
    pub name: String,
    /// The values, constant or computed.
    pub values: Vec<ValueInfo>,
    /// The operators.
    pub operators: Vec<Operator>,
}

/// A value of a graph.
#[derive(Clone, Debug, Default)]
pub struct ValueInfo {
    /// The name in the file.
    pub name: String,
    /// The name of the constant in the checkpoint; `None` for a computed value.
    pub constant: Option<String>,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Steps of its int8 grid, one or one a channel; empty for a real value.
    pub scales: Vec<f32>,
    /// The integers that stand for zero.
    pub zero_points: Vec<i64>,
}

/// An operator; its operands are indices into [`Graph::values`].
#[derive(Clone, Debug)]
pub struct Operator {
    /// What it does.
    pub kind: OperatorKind,
    /// Operands; `None` where an optional one is absent.
    pub inputs: Vec<Option<usize>>,
    /// Results.
    pub outputs: Vec<usize>,
}

/// What an operator does; only kinds that an importer looks at are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum OperatorKind {
    Add,
    Conv2d,
    DepthwiseConv2d,
    Gather,
    LeakyRelu,
    Quantize,
    StridedSlice,
    Sub,
    TransposeConv,
    Other(i32),
}

impl OperatorKind {
    fn of(code: i32) -> Self {
        match code {
            0 => Self::Add,
            3 => Self::Conv2d,
            4 => Self::DepthwiseConv2d,
            36 => Self::Gather,
            41 => Self::Sub,
            45 => Self::StridedSlice,
            67 => Self::TransposeConv,
            98 => Self::LeakyRelu,
            114 => Self::Quantize,
            other => Self::Other(other),
        }
    }
}

/// What is wrong, and at which byte.
struct Malformed(&'static str, usize);
type Parsed<T> = Result<T, Malformed>;

pub(super) fn read(
    path: &Path,
    stem: &str,
    file: &Arc<Mmap>,
) -> Result<(Model, BTreeMap<String, CheckpointTensor>), CheckpointError> {
    parse(stem, file).map_err(|Malformed(what, at)| CheckpointError::TfLite {
        path: path.to_path_buf(),
        reason: format!("{what} at byte {at}"),
    })
}

fn parse(stem: &str, file: &Arc<Mmap>) -> Parsed<(Model, BTreeMap<String, CheckpointTensor>)> {
    // Lists may overlap, so that a small file could ask for much: all lists together are bounded by the file's size.
    let file_data = File { bytes: file, budget: Cell::new(file.len().saturating_mul(4)) };
    let root = Table::at(&file_data, indirect(file, 0)?)?;
    let mut kinds = Vec::new();
    for code in root.tables(1)? {
        // Codes above 127 moved to a wider field; the narrow one keeps the smaller of the two.
        let narrow = i32::from(code.scalar::<1>(0)?.map_or(0, i8::from_le_bytes));
        let wide = code.scalar::<4>(3)?.map_or(0, i32::from_le_bytes);
        kinds.push(OperatorKind::of(narrow.max(wide)));
    }
    let mut buffers = Vec::new();
    for buffer in root.tables(4)? {
        buffers.push(buffer.vector(0, 1)?.map(|(start, count)| start..start + count));
    }
    let (mut model, mut tensors) = (Model::default(), BTreeMap::new());
    let mut budget = MAX_ITEMS;
    for (index, graph) in root.tables(2)?.into_iter().enumerate() {
        let mut out = Graph { name: graph.text(4)?, ..Graph::default() };
        for (number, value) in graph.tables(0)?.into_iter().enumerate() {
            budget = budget.checked_sub(1).ok_or(Malformed("too many values", value.start))?;
            let mut info = ValueInfo { name: value.text(3)?, ..ValueInfo::default() };
            for size in value.numbers::<4>(0)? {
                info.shape.push(
                    usize::try_from(i32::from_le_bytes(size)).map_err(|_| Malformed("a negative size", value.start))?,
                );
            }
            if info.shape.len() > MAX_RANK {
                return Err(Malformed("a shape of too many dimensions", value.start));
            }
            if let Some(grid) = value.table(4)? {
                info.scales = grid.numbers::<4>(2)?.map(f32::from_le_bytes).collect();
                info.zero_points = grid.numbers::<8>(3)?.map(i64::from_le_bytes).collect();
            }
            let element = value.scalar::<1>(1)?.map_or(Some(ElementType::F32), |[code]| element_type(code));
            let buffer = value.scalar::<4>(2)?.map_or(0, u32::from_le_bytes) as usize;
            let range = buffers.get(buffer).ok_or(Malformed("a value of a buffer that is not there", value.start))?;
            if let (Some(range), Some(element)) = (range, element) {
                let bytes = info.shape.iter().try_fold(element.size(), |n, d| n.checked_mul(*d));
                if bytes != Some(range.len()) {
                    return Err(Malformed("a constant whose size is not that of its shape", range.start));
                }
                // Names repeat in real files; numbers do not.
                let name = format!("{stem}/{index}.{number}");
                let data = Data::Mapped(Arc::clone(file), range.clone());
                tensors.insert(
                    name.clone(),
                    CheckpointTensor { name: name.clone(), element, shape: info.shape.clone(), data },
                );
                info.constant = Some(name);
            }
            out.values.push(info);
        }
        for operator in graph.tables(3)? {
            budget = budget.checked_sub(1).ok_or(Malformed("too many operators", operator.start))?;
            let code = operator.scalar::<4>(0)?.map_or(0, u32::from_le_bytes) as usize;
            let kind = *kinds.get(code).ok_or(Malformed("an operator of an unknown code", operator.start))?;
            let index = |number: [u8; 4]| match usize::try_from(i32::from_le_bytes(number)) {
                Ok(index) if index < out.values.len() => Ok(Some(index)),
                Ok(_) => Err(Malformed("an operand that is not there", operator.start)),
                Err(_) => Ok(None),
            };
            let inputs = operator.numbers::<4>(1)?.map(index).collect::<Parsed<Vec<_>>>()?;
            let outputs = operator.numbers::<4>(2)?.map(index).collect::<Parsed<Vec<_>>>()?;
            out.operators.push(Operator { kind, inputs, outputs: outputs.into_iter().flatten().collect() });
        }
        model.graphs.push(out);
    }
    Ok((model, tensors))
}

fn element_type(code: u8) -> Option<ElementType> {
    Some(match code {
        0 => ElementType::F32,
        1 => ElementType::F16,
        2 => ElementType::I32,
        3 => ElementType::U8,
        4 => ElementType::I64,
        6 => ElementType::Bool,
        7 => ElementType::I16,
        9 => ElementType::I8,
        10 => ElementType::F64,
        _ => return None,
    })
}

fn bytes_at<const N: usize>(file: &[u8], at: usize) -> Parsed<[u8; N]> {
    let chunk = at.checked_add(N).and_then(|end| file.get(at..end)).and_then(|b| b.first_chunk::<N>());
    chunk.copied().ok_or(Malformed("the file ends", at))
}

/// Follows the 32-bit offset at `at`, which counts from there.
fn indirect(file: &[u8], at: usize) -> Parsed<usize> {
    let offset = u32::from_le_bytes(bytes_at(file, at)?) as usize;
    let target = at.checked_add(offset).filter(|target| *target < file.len() && offset > 0);
    target.ok_or(Malformed("an offset that leads out of the file", at))
}

/// A flatbuffer, and how many bytes of lists may still be read from it.
struct File<'a> {
    bytes: &'a [u8],
    budget: Cell<usize>,
}

/// A table of a flatbuffer.
#[derive(Clone, Copy)]
struct Table<'a> {
    file: &'a File<'a>,
    start: usize,
    /// Where its field offsets lie, and how many there are.
    fields: usize,
    count: usize,
}

impl<'a> Table<'a> {
    fn at(file: &'a File<'a>, start: usize) -> Parsed<Self> {
        let offset = i64::from(i32::from_le_bytes(bytes_at(file.bytes, start)?));
        let outside = Malformed("a table whose layout lies outside of the file", start);
        let layout = (start as i64).checked_sub(offset).and_then(|at| usize::try_from(at).ok()).ok_or(outside)?;
        let size = usize::from(u16::from_le_bytes(bytes_at(file.bytes, layout)?));
        Ok(Self { file, start, fields: layout.saturating_add(4), count: size.saturating_sub(4) / 2 })
    }

    /// Where a field lies; `None` if it has its default value.
    fn field(&self, index: usize) -> Parsed<Option<usize>> {
        if index >= self.count {
            return Ok(None);
        }
        let offset = u16::from_le_bytes(bytes_at(self.file.bytes, self.fields.saturating_add(2 * index))?);
        Ok((offset != 0).then(|| self.start.saturating_add(offset.into())))
    }

    fn scalar<const N: usize>(&self, index: usize) -> Parsed<Option<[u8; N]>> {
        self.field(index)?.map(|at| bytes_at(self.file.bytes, at)).transpose()
    }

    fn table(&self, index: usize) -> Parsed<Option<Self>> {
        self.field(index)?.map(|at| Self::at(self.file, indirect(self.file.bytes, at)?)).transpose()
    }

    /// Start and count of a vector of elements of `size` bytes, checked to lie in the file.
    fn vector(&self, index: usize, size: usize) -> Parsed<Option<(usize, usize)>> {
        let Some(at) = self.field(index)? else { return Ok(None) };
        let at = indirect(self.file.bytes, at)?;
        let count = u32::from_le_bytes(bytes_at(self.file.bytes, at)?) as usize;
        let end = count.checked_mul(size).and_then(|bytes| bytes.checked_add(at + 4));
        match end {
            Some(end) if end <= self.file.bytes.len() => Ok(Some((at + 4, count))),
            _ => Err(Malformed("a list that is longer than the file", at)),
        }
    }

    fn spend(&self, at: usize, bytes: usize) -> Parsed<()> {
        let left = self.file.budget.get().checked_sub(bytes).ok_or(Malformed("lists that overlap", at))?;
        self.file.budget.set(left);
        Ok(())
    }

    fn numbers<const N: usize>(&self, index: usize) -> Parsed<impl Iterator<Item = [u8; N]> + use<'a, N>> {
        let (start, count) = self.vector(index, N)?.unwrap_or((0, 0));
        self.spend(start, count * N)?;
        let bytes = self.file.bytes.get(start..start + count * N).unwrap_or_default();
        Ok(bytes.as_chunks::<N>().0.iter().copied())
    }

    fn tables(&self, index: usize) -> Parsed<Vec<Self>> {
        let Some((start, count)) = self.vector(index, 4)? else { return Ok(Vec::new()) };
        if count > MAX_ITEMS {
            return Err(Malformed("too many items", start));
        }
        self.spend(start, count * 4)?;
        (0..count).map(|i| Self::at(self.file, indirect(self.file.bytes, start + 4 * i)?)).collect()
    }

    fn text(&self, index: usize) -> Parsed<String> {
        let Some((start, count)) = self.vector(index, 1)? else { return Ok(String::new()) };
        let bytes = self.file.bytes.get(start..start + count.min(MAX_NAME)).unwrap_or_default();
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }
}

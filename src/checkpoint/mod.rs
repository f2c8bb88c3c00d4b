//! Reading published checkpoints: named tensors out of safetensors, PyTorch and TFLite files.
//!
//! No file is ever executed: a PyTorch pickle is read by a machine that builds data and calls nothing, and
//! a value it does not know is left out. Tensors are read when they are asked for.

mod pickle;
mod safetensors;
pub mod tflite;
mod torch;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use memmap2::Mmap;
use serde_json::Value;
use thiserror::Error;

use crate::mapped::map;

/// A tensor that is larger than both its file and this is refused: only a hostile view (an expanded
/// storage) or a compressed file can ask for it.
const ALWAYS_ALLOWED_BYTES: u64 = 64 << 20;

/// The largest `config.json` that is read.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// Why a checkpoint could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file could not be opened or read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The first bytes belong to no container that is known here.
    #[error(
        "{path} is no checkpoint known here: its first bytes are {found:02x?}. Readable are safetensors, PyTorch \
         (.pth, .pt, .bin, .ckpt, .th) and TFLite files"
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// Its first bytes, at most 8.
        found: Vec<u8>,
    },
    /// A folder holds no checkpoint.
    #[error("{folder} holds no checkpoint file; give the path of the file itself")]
    NothingInFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// A folder holds several checkpoints.
    #[error("{folder} holds {} checkpoint files ({}); give the path of one of them", names.len(), names.join(", "))]
    SeveralInFolder {
        /// The folder.
        folder: PathBuf,
        /// File names.
        names: Vec<String>,
    },
    /// Not a valid safetensors file.
    #[error("{path} is not a valid safetensors file: {source}")]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with its header.
        source: ::safetensors::SafeTensorError,
    },
    /// Not a PyTorch file that can be read.
    #[error("{path} is not a readable PyTorch checkpoint: {reason}")]
    Torch {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Not a TFLite file that can be read.
    #[error("{path} is not a readable TFLite model: {reason}")]
    TfLite {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and at which byte.
        reason: String,
    },
    /// A tensor that would need far more memory than its file justifies.
    #[error("tensor `{name}` would need {bytes} bytes, more than the {limit} allowed for a file of its size")]
    TooLarge {
        /// The tensor.
        name: String,
        /// Bytes it would need.
        bytes: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// There is no such tensor.
    #[error("the checkpoint has no tensor `{0}`")]
    NoTensor(String),
    /// A tensor's elements could not be read.
    #[error("cannot read tensor `{name}`: {source}")]
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong.
        source: io::Error,
    },
    /// The `config.json` in the folder is not valid.
    #[error("{path} is not a valid configuration: {reason}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// The type of a checkpoint tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ElementType {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
}

impl ElementType {
    /// Bytes an element.
    pub const fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }
}

/// Where a tensor's bytes lie.
#[derive(Debug)]
enum Data {
    /// As they are in a mapped file.
    Mapped(Arc<Mmap>, Range<usize>),
    /// In a PyTorch storage, to be gathered through a view.
    Torch(pytorch_reader::Tensor),
}

/// A tensor of a checkpoint; its elements are read on demand.
#[derive(Debug)]
pub struct CheckpointTensor {
    name: String,
    element: ElementType,
    shape: Vec<usize>,
    data: Data,
}

impl CheckpointTensor {
    /// Element type.
    pub fn element_type(&self) -> ElementType {
        self.element
    }

    /// Sizes, outermost first; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements' little-endian bytes in row-major order of the logical shape, whatever the strides in the file.
    ///
    /// # Errors
    /// [`CheckpointError::Tensor`] when the file does not hold what it declares.
    pub fn bytes(&self) -> Result<Cow<'_, [u8]>, CheckpointError> {
        let truncated = || io::Error::new(io::ErrorKind::UnexpectedEof, "the data lies outside of the file");
        match &self.data {
            Data::Mapped(map, range) => map.get(range.clone()).map(Cow::Borrowed).ok_or_else(truncated),
            Data::Torch(tensor) => tensor.read().map(|bytes| {
                let mut bytes = bytes;
                if cfg!(target_endian = "big") {
                    bytes.chunks_exact_mut(self.element.size()).for_each(<[u8]>::reverse);
                }
                Cow::Owned(bytes)
            }),
        }
        .map_err(|source| CheckpointError::Tensor { name: self.name.clone(), source })
    }

    /// The elements as f32, row-major: exact for f32, f16, bf16, bool and the 8- and 16-bit integers, rounded to
    /// nearest for the wider types.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn to_f32(&self) -> Result<Vec<f32>, CheckpointError> {
        let bytes = self.bytes()?;
        Ok(match self.element {
            ElementType::F32 => convert(&bytes, f32::from_le_bytes),
            ElementType::F64 => convert(&bytes, |b| f64::from_le_bytes(b) as f32),
            ElementType::F16 => convert(&bytes, |b| f16_to_f32(u16::from_le_bytes(b))),
            ElementType::Bf16 => convert(&bytes, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)),
            ElementType::I64 => convert(&bytes, |b| i64::from_le_bytes(b) as f32),
            ElementType::U64 => convert(&bytes, |b| u64::from_le_bytes(b) as f32),
            ElementType::I32 => convert(&bytes, |b| i32::from_le_bytes(b) as f32),
            ElementType::U32 => convert(&bytes, |b| u32::from_le_bytes(b) as f32),
            ElementType::I16 => convert(&bytes, |b| i16::from_le_bytes(b).into()),
            ElementType::U16 => convert(&bytes, |b| u16::from_le_bytes(b).into()),
            ElementType::I8 => convert(&bytes, |b| i8::from_le_bytes(b).into()),
            ElementType::U8 | ElementType::Bool => convert(&bytes, |[b]: [u8; 1]| b.into()),
        })
    }
}

fn convert<const N: usize>(bytes: &[u8], element: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| element(*chunk)).collect()
}

fn f16_to_f32(half: u16) -> f32 {
    let bytes = half.to_le_bytes();
    codec_core::weights::TensorView { dtype: codec_core::weights::Dtype::F16, shape: &[1], bytes: &bytes }.get(0)
}

/// A checkpoint file, or a folder with one: its tensors by dotted path, what it says beside them, and the
/// `config.json` next to it.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    tensors: BTreeMap<String, CheckpointTensor>,
    attributes: Value,
    config: Option<Value>,
    graphs: BTreeMap<String, tflite::Model>,
}

impl Checkpoint {
    /// Opens a checkpoint file, or the only checkpoint in a folder; of a folder of TFLite files all are opened, and
    /// their tensors are named `file stem/tensor`.
    ///
    /// # Errors
    /// Every variant of [`CheckpointError`]; a damaged file is told from a file of another kind.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        let path = path.as_ref();
        let io_error = |source| CheckpointError::Io { path: path.to_path_buf(), source };
        let mut checkpoint = Self {
            path: path.to_path_buf(),
            tensors: BTreeMap::new(),
            attributes: Value::Null,
            config: None,
            graphs: BTreeMap::new(),
        };
        if fs::metadata(path).map_err(io_error)?.is_dir() {
            for file in files_of(path)? {
                checkpoint.read(&file)?;
            }
            checkpoint.config = read_config(&path.join("config.json"))?;
        } else {
            checkpoint.read(path)?;
            // Beside a single file, anything may be called config.json.
            checkpoint.config = read_config(&path.with_file_name("config.json")).unwrap_or(None);
        }
        Ok(checkpoint)
    }

    fn read(&mut self, path: &Path) -> Result<(), CheckpointError> {
        let bytes = Arc::new(map(path).map_err(|source| CheckpointError::Io { path: path.to_path_buf(), source })?);
        match sniff(&bytes) {
            Some(Format::Safetensors) => {
                (self.tensors, self.attributes) = safetensors::read(path, &bytes)?;
            }
            Some(Format::Torch) => {
                let pickle_is_small = torch::check(path, &bytes);
                let file_bytes = bytes.len() as u64;
                drop(bytes);
                pickle_is_small?;
                (self.tensors, self.attributes) = torch::read(path, file_bytes)?;
            }
            Some(Format::TfLite) => {
                let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
                let (model, tensors) = tflite::read(path, &stem, &bytes)?;
                self.tensors.extend(tensors);
                self.graphs.insert(stem, model);
            }
            None => {
                let found = bytes.iter().take(8).copied().collect();
                return Err(CheckpointError::UnknownFormat { path: path.to_path_buf(), found });
            }
        }
        Ok(())
    }

    /// What was given to [`Self::open`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tensors, sorted by name.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = (&str, &CheckpointTensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&CheckpointTensor> {
        self.tensors.get(name)
    }

    /// The elements of a tensor as f32, see [`CheckpointTensor::to_f32`].
    ///
    /// # Errors
    /// [`CheckpointError::NoTensor`], or as [`CheckpointTensor::to_f32`].
    pub fn f32(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        self.get(name).ok_or_else(|| CheckpointError::NoTensor(name.to_owned()))?.to_f32()
    }

    /// What the file says beside its tensors: numbers, texts, lists and dictionaries of a pickle, or the metadata
    /// of a safetensors file (a dictionary of texts). `Null` where there is nothing.
    pub fn attributes(&self) -> &Value {
        &self.attributes
    }

    /// The `config.json` of the folder.
    pub fn config(&self) -> Option<&Value> {
        self.config.as_ref()
    }

    /// The graphs of the TFLite files that were opened, by file stem.
    pub fn graphs(&self) -> &BTreeMap<String, tflite::Model> {
        &self.graphs
    }
}

enum Format {
    Safetensors,
    Torch,
    TfLite,
}

fn sniff(bytes: &[u8]) -> Option<Format> {
    if bytes.starts_with(b"PK\x03\x04") || pickle::is_legacy(bytes) {
        Some(Format::Torch)
    } else if bytes.get(4..8) == Some(b"TFL3") {
        Some(Format::TfLite)
    } else if bytes.get(8) == Some(&b'{') && bytes.get(7) == Some(&0) {
        Some(Format::Safetensors)
    } else {
        None
    }
}

/// The checkpoint files of a folder that belong together.
fn files_of(folder: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let io_error = |source| CheckpointError::Io { path: folder.to_path_buf(), source };
    let (mut weights, mut graphs) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).map_err(io_error)? {
        let path = entry.map_err(io_error)?.path();
        match path.extension().and_then(|e| e.to_str()) {
            Some("safetensors" | "pth" | "pt" | "bin" | "ckpt" | "th") => weights.push(path),
            Some("tflite") => graphs.push(path),
            // Some projects publish PyTorch files without a suffix.
            None if path.is_file() && map(&path).is_ok_and(|bytes| matches!(sniff(&bytes), Some(Format::Torch))) => {
                weights.push(path);
            }
            _ => {}
        }
    }
    weights.sort();
    graphs.sort();
    if weights.is_empty() && !graphs.is_empty() {
        return Ok(graphs);
    }
    // A hub's folder often holds the same weights twice.
    for preferred in ["model.safetensors", "pytorch_model.bin"] {
        if let Some(at) = weights.iter().position(|path| path.ends_with(preferred)) {
            return Ok(vec![weights.swap_remove(at)]);
        }
    }
    match weights.len() {
        0 => Err(CheckpointError::NothingInFolder { folder: folder.to_path_buf() }),
        1 => Ok(weights),
        _ => {
            let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let names = weights.iter().map(name).collect();
            Err(CheckpointError::SeveralInFolder { folder: folder.to_path_buf(), names })
        }
    }
}

fn read_config(path: &Path) -> Result<Option<Value>, CheckpointError> {
    let config_error = |reason| CheckpointError::Config { path: path.to_path_buf(), reason };
    let io_error = |source| CheckpointError::Io { path: path.to_path_buf(), source };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(error)),
        Ok(meta) if meta.len() > MAX_CONFIG_BYTES => {
            return Err(config_error(format!("it has {} bytes, more than {MAX_CONFIG_BYTES}", meta.len())));
        }
        Ok(_) => {}
    }
    let text = fs::read(path).map_err(io_error)?;
    serde_json::from_slice(&text).map(Some).map_err(|error| config_error(error.to_string()))
}

/// Refuses a tensor that needs far more memory than its file justifies.
fn check_size(name: &str, bytes: Option<u64>, file_bytes: u64) -> Result<(), CheckpointError> {
    let limit = file_bytes.max(ALWAYS_ALLOWED_BYTES);
    match bytes {
        Some(bytes) if bytes <= limit => Ok(()),
        _ => Err(CheckpointError::TooLarge { name: name.to_owned(), bytes: bytes.unwrap_or(u64::MAX), limit }),
    }
}

//! The model file: one safetensors file whose metadata holds the codec's spec (`docs/model-file.md`).

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, BufWriter, Write},
    ops::{Deref, Range},
    path::{Path, PathBuf},
};

use codec_core::{
    spec::{CodecSpec, SPEC_VERSION},
    weights::{Dtype, F16_MAX, TensorView, Tensors, f32_to_bf16, f32_to_f16},
};
use memmap2::Mmap;
use safetensors::{SafeTensorError, SafeTensors};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::mapped::map;

/// The version of the file's metadata that is written, and the only one that is read.
const FORMAT: &str = "1";

/// Where tensors are aligned to, so that they can be used in place.
const ALIGNMENT: usize = 64;

/// Why a model file could not be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ModelFileError {
    /// The file could not be opened, read or written.
    #[error("cannot access {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The header is not that of a valid safetensors file.
    #[error("{path} is not a valid safetensors file: {source}")]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: SafeTensorError,
    },
    /// A safetensors file, but no model file.
    #[error("{path} has no `{key}` in its metadata; if it is a published checkpoint, import it first")]
    NoKey {
        /// The file.
        path: PathBuf,
        /// The missing key.
        key: &'static str,
    },
    /// A model file of another version.
    #[error(
        "{path} is a model file of format {found}; this version reads format {FORMAT} with a spec up to {SPEC_VERSION}"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: String,
    },
    /// A metadata entry that cannot be understood.
    #[error("`{key}` in the metadata of {path} is not valid: {reason}")]
    Metadata {
        /// The file.
        path: PathBuf,
        /// The entry.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor of a type that models do not have.
    #[error("tensor `{name}` of {path} is of type {found}; a model's tensors are F32, F16, BF16, I8 or I32")]
    TensorType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
    },
    /// A tensor whose bytes do not match its shape.
    #[error("tensor `{name}` has {found} bytes; its shape and type need {expected}")]
    TensorSize {
        /// The tensor.
        name: String,
        /// Bytes it has.
        found: usize,
        /// Bytes it needs.
        expected: String,
    },
    /// A type that weights are not stored in.
    #[error("weights are stored in F32, F16 or BF16, not in {dtype:?}")]
    Stored {
        /// The type asked for.
        dtype: Dtype,
    },
    /// A value that a type asked for cannot hold.
    #[error("tensor `{name}` holds {value}, and f16 reaches {F16_MAX}: store the model in bf16 or f32")]
    Range {
        /// The tensor.
        name: String,
        /// The value.
        value: f32,
    },
    /// The content is not what the fingerprint was made of.
    #[error("{path} is damaged or was changed: its fingerprint says {stated}, its content gives {computed}")]
    Fingerprint {
        /// The file.
        path: PathBuf,
        /// From the metadata.
        stated: Fingerprint,
        /// From the content.
        computed: Fingerprint,
    },
}

/// What identifies a model: the first 16 bytes of a BLAKE3 hash over its spec and tensors, see
/// `docs/model-file.md`. Names, licence and provenance do not enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 16]);

impl Fingerprint {
    /// The fingerprint of a spec, as the JSON text that is stored, and of tensors sorted by name.
    fn compute<'a>(spec: &str, tensors: impl ExactSizeIterator<Item = (&'a str, TensorView<'a>)>) -> Self {
        let mut hasher = blake3::Hasher::new();
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        part(spec.as_bytes());
        part(&(tensors.len() as u64).to_le_bytes());
        for (name, tensor) in tensors {
            part(name.as_bytes());
            part(dtype_name(tensor.dtype).as_bytes());
            let shape: Vec<u8> = tensor.shape.iter().flat_map(|size| (*size as u64).to_le_bytes()).collect();
            part(&shape);
            part(tensor.bytes);
        }
        let mut out = [0; 16];
        hasher.finalize_xof().fill(&mut out);
        Self(out)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut out = [0; 16];
        if text.len() != 32 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        for (index, byte) in out.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
        }
        Some(Self(out))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A tensor that owns its bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnedTensor {
    /// Element type.
    pub dtype: Dtype,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Little-endian, row-major; `dtype.size() * product(shape)` bytes.
    pub bytes: Vec<u8>,
}

impl OwnedTensor {
    /// A tensor of f32.
    pub fn f32(shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { dtype: Dtype::F32, shape: shape.to_vec(), bytes }
    }

    /// Borrows it.
    pub fn view(&self) -> TensorView<'_> {
        TensorView { dtype: self.dtype, shape: &self.shape, bytes: &self.bytes }
    }
}

/// Named tensors in memory, ready for [`write_model`] or for the engine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TensorMap(pub BTreeMap<String, OwnedTensor>);

impl TensorMap {
    /// Stores tensors of f32 with two or more dimensions (weights and codebooks, not biases) in f16 or bf16, rounded to
    /// nearest; for f32, does nothing.
    ///
    /// # Errors
    /// [`ModelFileError::Range`]: a value past f16; [`ModelFileError::Stored`]: a type that weights are not stored in.
    pub fn store_as(&mut self, dtype: Dtype) -> Result<(), ModelFileError> {
        let round = match dtype {
            Dtype::F32 => return Ok(()),
            Dtype::F16 => f32_to_f16,
            Dtype::Bf16 => f32_to_bf16,
            _ => return Err(ModelFileError::Stored { dtype }),
        };
        for (name, tensor) in &mut self.0 {
            if tensor.dtype != Dtype::F32 || tensor.shape.len() < 2 {
                continue;
            }
            let values = tensor.view().values().into_owned();
            if let Some(value) = values.iter().find(|v| dtype == Dtype::F16 && v.abs() > F16_MAX) {
                return Err(ModelFileError::Range { name: name.clone(), value: *value });
            }
            tensor.bytes = values.iter().flat_map(|v| round(*v).to_le_bytes()).collect();
            tensor.dtype = dtype;
        }
        Ok(())
    }
}

impl Tensors for TensorMap {
    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        self.0.get(name).map(OwnedTensor::view)
    }
}

/// Where a model comes from and what may be done with it; free text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The published system, such as `encodec-24khz`.
    pub system: Option<String>,
    /// The licence of the weights.
    pub license: Option<String>,
    /// Where the weights were published.
    pub source: Option<String>,
}

/// Writes a model file beside `path`, then renames it, so that a reader sees the old file or the new one whole.
///
/// # Errors
/// [`ModelFileError::Io`]; [`ModelFileError::TensorSize`] for a tensor whose bytes do not match its shape.
pub fn write_model(
    path: &Path,
    spec: &CodecSpec,
    tensors: &TensorMap,
    provenance: &Provenance,
) -> Result<Fingerprint, ModelFileError> {
    let io_error = |source| ModelFileError::Io { path: path.to_path_buf(), source };
    let json_error = |error: serde_json::Error| io_error(io::Error::other(error));
    for (name, tensor) in &tensors.0 {
        if dtype_name(tensor.dtype).is_empty() {
            let found = format!("{:?}", tensor.dtype);
            return Err(ModelFileError::TensorType { path: path.to_path_buf(), name: name.clone(), found });
        }
        let bytes = tensor.shape.iter().try_fold(tensor.dtype.size(), |n, size| n.checked_mul(*size));
        if bytes != Some(tensor.bytes.len()) {
            let expected = bytes.map_or_else(|| "too many".to_owned(), |n| n.to_string());
            return Err(ModelFileError::TensorSize { name: name.clone(), found: tensor.bytes.len(), expected });
        }
    }
    let spec_text = serde_json::to_string(spec).map_err(json_error)?;
    let fingerprint = Fingerprint::compute(&spec_text, tensors.0.iter().map(|(name, t)| (name.as_str(), t.view())));
    let stated = [
        ("codec.format", Some(FORMAT.to_owned())),
        ("codec.spec", Some(spec_text)),
        ("codec.fingerprint", Some(fingerprint.to_string())),
        ("codec.system", provenance.system.clone()),
        ("codec.license", provenance.license.clone()),
        ("codec.source", provenance.source.clone()),
    ];
    let metadata: serde_json::Map<_, _> =
        stated.into_iter().filter_map(|(key, text)| Some((key.to_owned(), text?.into()))).collect();

    // The format allows no gaps. Tensors whose size is a multiple of the alignment come first, then those of ever
    // smaller powers of two, so that each lies at a multiple of its own power.
    let mut order: Vec<_> = tensors.0.iter().collect();
    order.sort_by_key(|(_, t)| std::cmp::Reverse(t.bytes.len().trailing_zeros().min(ALIGNMENT.trailing_zeros())));
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".to_owned(), metadata.into());
    let mut offset = 0;
    for (name, tensor) in &order {
        let end = offset + tensor.bytes.len();
        let entry = serde_json::json!({
            "dtype": dtype_name(tensor.dtype), "shape": tensor.shape, "data_offsets": [offset, end],
        });
        header.insert((*name).clone(), entry);
        offset = end;
    }
    let mut header = serde_json::to_vec(&header).map_err(json_error)?;
    header.resize((8 + header.len()).next_multiple_of(ALIGNMENT) - 8, b' ');

    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".model-").suffix(".part").tempfile_in(folder).map_err(io_error)?;
    let mut out = BufWriter::new(&mut file);
    out.write_all(&(header.len() as u64).to_le_bytes()).map_err(io_error)?;
    out.write_all(&header).map_err(io_error)?;
    for (_, tensor) in order {
        out.write_all(&tensor.bytes).map_err(io_error)?;
    }
    out.flush().map_err(io_error)?;
    drop(out);
    make_readable(file.as_file()).map_err(io_error)?;
    file.as_file().sync_all().map_err(io_error)?;
    file.persist(path).map_err(|error| io_error(error.error))?;
    Ok(fingerprint)
}

/// A temporary file is its owner's alone; a model is an ordinary file.
#[cfg(unix)]
fn make_readable(file: &std::fs::File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn make_readable(_: &std::fs::File) -> io::Result<()> {
    Ok(())
}

/// An open model file. Tensors are borrowed from the mapped file.
#[derive(Debug)]
pub struct ModelFile {
    path: PathBuf,
    bytes: Bytes,
    spec: CodecSpec,
    spec_text: String,
    fingerprint: Fingerprint,
    provenance: Provenance,
    tensors: BTreeMap<String, Entry>,
}

/// Where the file's bytes lie.
#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    Static(&'static [u8]),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Static(bytes) => bytes,
        }
    }
}

#[derive(Debug)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    range: Range<usize>,
}

impl ModelFile {
    /// Opens a model file and checks its header, but does not hash its tensors; see [`Self::verify`].
    ///
    /// # Errors
    /// Every variant of [`ModelFileError`] but `Fingerprint`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ModelFileError> {
        let path = path.as_ref().to_path_buf();
        let map = map(&path).map_err(|source| ModelFileError::Io { path: path.clone(), source })?;
        Self::parse(path, Bytes::Mapped(map))
    }

    /// Reads a model file that lies in memory, without copying its tensors. Errors call it `(memory)`.
    ///
    /// # Errors
    /// As [`ModelFile::open`].
    pub fn from_static(bytes: &'static [u8]) -> Result<Self, ModelFileError> {
        Self::parse("(memory)".into(), Bytes::Static(bytes))
    }

    fn parse(path: PathBuf, bytes: Bytes) -> Result<Self, ModelFileError> {
        let header_error = |source| ModelFileError::Header { path: path.clone(), source };
        let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(header_error)?;
        let file = SafeTensors::deserialize(&bytes).map_err(header_error)?;

        let text = |key: &str| metadata.metadata().as_ref().and_then(|texts| texts.get(key)).cloned();
        let required = |key| text(key).ok_or_else(|| ModelFileError::NoKey { path: path.clone(), key });
        let invalid = |key, reason| ModelFileError::Metadata { path: path.clone(), key, reason };
        let format = required("codec.format")?;
        if format != FORMAT {
            return Err(ModelFileError::Version { path, found: format });
        }
        let spec_text = required("codec.spec")?;
        // A newer spec may have fields that this version cannot even parse: ask for its version first.
        let outline: serde_json::Value =
            serde_json::from_str(&spec_text).map_err(|e| invalid("codec.spec", e.to_string()))?;
        if let Some(version) = outline["version"].as_u64().filter(|v| *v == 0 || *v > u64::from(SPEC_VERSION)) {
            return Err(ModelFileError::Version { path, found: format!("{FORMAT} with a spec of version {version}") });
        }
        let spec = serde_json::from_str(&spec_text).map_err(|e| invalid("codec.spec", e.to_string()))?;
        let fingerprint = Fingerprint::parse(&required("codec.fingerprint")?)
            .ok_or_else(|| invalid("codec.fingerprint", "it is not 32 lower-case hexadecimal digits".to_owned()))?;
        let provenance =
            Provenance { system: text("codec.system"), license: text("codec.license"), source: text("codec.source") };

        let mut tensors = BTreeMap::new();
        for (name, view) in file.iter() {
            let dtype = TYPES.iter().find(|(_, stored, _)| *stored == view.dtype()).map(|(own, ..)| *own);
            let Some(dtype) = dtype else {
                let found = format!("{:?}", view.dtype());
                return Err(ModelFileError::TensorType { path, name: name.to_owned(), found });
            };
            let Some(info) = metadata.info(name) else { continue };
            let start = 8 + header;
            let range = start + info.data_offsets.0..start + info.data_offsets.1;
            tensors.insert(name.to_owned(), Entry { dtype, shape: info.shape.clone(), range });
        }
        Ok(Self { path, bytes, spec, spec_text, fingerprint, provenance, tensors })
    }

    /// The codec's spec.
    pub fn spec(&self) -> &CodecSpec {
        &self.spec
    }

    /// The fingerprint that the file states.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Where the model comes from.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// The tensors, sorted by name.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = (&str, TensorView<'_>)> {
        self.tensors.iter().map(|(name, entry)| (name.as_str(), self.view(entry)))
    }

    /// Hashes spec and tensors and compares with the stated fingerprint.
    ///
    /// # Errors
    /// [`ModelFileError::Fingerprint`], which names both.
    pub fn verify(&self) -> Result<(), ModelFileError> {
        let computed = Fingerprint::compute(&self.spec_text, self.tensors());
        if computed == self.fingerprint {
            return Ok(());
        }
        Err(ModelFileError::Fingerprint { path: self.path.clone(), stated: self.fingerprint, computed })
    }

    fn view<'a>(&'a self, entry: &'a Entry) -> TensorView<'a> {
        let bytes = self.bytes.get(entry.range.clone()).unwrap_or_default();
        TensorView { dtype: entry.dtype, shape: &entry.shape, bytes }
    }
}

impl Tensors for ModelFile {
    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        self.tensors.get(name).map(|entry| self.view(entry))
    }
}

/// The element types of a model, as the engine and as the file call them.
const TYPES: [(Dtype, safetensors::Dtype, &str); 5] = [
    (Dtype::F32, safetensors::Dtype::F32, "F32"),
    (Dtype::F16, safetensors::Dtype::F16, "F16"),
    (Dtype::Bf16, safetensors::Dtype::BF16, "BF16"),
    (Dtype::I8, safetensors::Dtype::I8, "I8"),
    (Dtype::I32, safetensors::Dtype::I32, "I32"),
];

/// The name of a type in the file; empty for a type that model files do not have.
fn dtype_name(dtype: Dtype) -> &'static str {
    TYPES.iter().find(|(own, ..)| *own == dtype).map_or("", |(.., name)| name)
}

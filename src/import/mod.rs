//! Importing published checkpoints: a spec, and tensors under the names that the spec gives them.
//!
//! Each family of systems has a file here. It recognises its checkpoints by tensor names and shapes, builds the
//! spec as a value, and says how the publisher named each layer; folding, checking and listing is shared.

/// A module's `SYSTEMS`, which share its functions `matches` and `import`: name and hint of each.
macro_rules! systems {
    ($(($name:literal, $hint:literal)),+ $(,)?) => {
        pub(super) const SYSTEMS: &[System] = &[$(System { name: $name, hint: $hint, matches, import }),+];
    };
}

mod academicodec;
mod dac;
mod encodec;
mod hificodec;
mod lyra;
mod lyra_graph;
mod mimi;
mod names;
mod s3tokenizer;
mod seanet;
mod snac;
mod speechtokenizer;
mod stated;
mod transformer;
mod wanted;
mod wavtokenizer;

use std::{fmt, path::Path};

use codec_core::spec::CodecSpec;
use thiserror::Error;

pub use wanted::{WantedTensor, wanted_tensors};

use crate::{
    checkpoint::{Checkpoint, CheckpointError},
    model_file::{Provenance, TensorMap},
};

/// What an import may be told.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// The published system, one of [`systems`]; recognised from the checkpoint if not given.
    pub system: Option<String>,
    /// The licence of the weights, for the model file.
    pub license: Option<String>,
    /// Where the weights were published, for the model file.
    pub source: Option<String>,
}

/// An imported model, ready for [`crate::model_file::write_model`] or for the engine.
#[derive(Clone, Debug)]
pub struct Imported {
    /// What the codec is.
    pub spec: CodecSpec,
    /// Its tensors, by the names in the spec.
    pub tensors: TensorMap,
    /// Where it comes from; `system` is always set.
    pub provenance: Provenance,
}

/// A tensor whose shape or type is not the one that the system has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The tensor, as the checkpoint names it.
    pub name: String,
    /// What the system has.
    pub expected: String,
    /// What the checkpoint holds.
    pub found: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} instead of {}", self.name, self.found, self.expected)
    }
}

/// Why a checkpoint could not be imported.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The checkpoint could not be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// There is no system of this name.
    #[error("there is no system `{name}`; the systems are {}", known.join(", "))]
    UnknownSystem {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<&'static str>,
    },
    /// The checkpoint is of no known system.
    #[error(
        "{path} is of no system known here: none has these names and shapes for its {tensors} tensors (such as {}); name \
         the system to see how it differs from it", examples.join(", ")
    )]
    Unrecognised {
        /// The checkpoint.
        path: String,
        /// Tensors that it holds.
        tensors: usize,
        /// Names of some.
        examples: Vec<String>,
    },
    /// The checkpoint fits several systems.
    #[error("{path} fits {}, which have the same tensors; name the system", candidates.join(" and "))]
    Ambiguous {
        /// The checkpoint.
        path: String,
        /// The systems.
        candidates: Vec<&'static str>,
    },
    /// The tensors are not those of the system.
    #[error("the tensors are not those of {system}:{}", listing(missing, surplus, mismatched))]
    Tensors {
        /// The system.
        system: String,
        /// Tensors that it has and the checkpoint lacks, as the checkpoint would name them.
        missing: Vec<String>,
        /// Tensors of the checkpoint that it does not have.
        surplus: Vec<String>,
        /// Tensors of another shape or type.
        mismatched: Vec<Mismatch>,
    },
    /// A weight is NaN or infinite, or a weight norm divides by zero.
    #[error("tensor `{0}` holds a NaN or infinite value, or a weight norm of zero")]
    NotFinite(String),
    /// The configuration in or beside the checkpoint describes a model that is not supported.
    #[error("the checkpoint's configuration, field `{field}`: {reason}")]
    Config {
        /// The field, as a dotted path.
        field: String,
        /// What is wrong with its value.
        reason: String,
    },
    /// A graph is not the one that the system has.
    #[error("the graph of `{file}` is not that of {system}: {reason}")]
    Graph {
        /// The system.
        system: String,
        /// The file, without its suffix.
        file: String,
        /// What differs.
        reason: String,
    },
}

fn listing(missing: &[String], surplus: &[String], mismatched: &[Mismatch]) -> String {
    let mut text = String::new();
    let mut group = |title: &str, lines: &mut dyn ExactSizeIterator<Item = String>| {
        if lines.len() > 0 {
            text.push_str(&format!("\n  {title} ({}):", lines.len()));
            lines.for_each(|line| text.push_str(&format!("\n    {line}")));
        }
    };
    group("missing", &mut missing.iter().cloned());
    group("not part of it", &mut surplus.iter().cloned());
    group("of another shape", &mut mismatched.iter().map(ToString::to_string));
    text
}

/// A spec and the tensors that it names.
type ModelParts = Result<(CodecSpec, TensorMap), ImportError>;

/// A published system.
struct System {
    /// Its name here.
    name: &'static str,
    /// Part of the usual file names, lower case, which tells it from a system with the same tensors.
    hint: &'static str,
    /// Whether a checkpoint looks like it.
    matches: fn(&Checkpoint, &str) -> bool,
    /// Makes it a model.
    import: fn(&Checkpoint, &str) -> ModelParts,
}

fn all_systems() -> impl Iterator<Item = &'static System> {
    let systems = [
        encodec::SYSTEMS,
        academicodec::SYSTEMS,
        hificodec::SYSTEMS,
        dac::SYSTEMS,
        lyra::SYSTEMS,
        speechtokenizer::SYSTEMS,
        mimi::SYSTEMS,
        snac::SYSTEMS,
        wavtokenizer::SYSTEMS,
        s3tokenizer::SYSTEMS,
    ];
    systems.into_iter().flatten()
}

/// The names of the systems that can be imported.
pub fn systems() -> Vec<&'static str> {
    all_systems().map(|system| system.name).collect()
}

/// The name of [`crate::nano::spec`].
const NANO: &str = "nano-16k";

/// The systems whose spec is known without a checkpoint, see [`published_spec`].
pub fn published_specs() -> Vec<&'static str> {
    systems().into_iter().chain([NANO]).filter(|name| published_spec(name).is_some()).collect()
}

/// The spec of a published system with all its codebooks, or of [`crate::nano`], for training one like it. `None` for a name
/// that is no system, or one whose spec follows from its checkpoint.
pub fn published_spec(system: &str) -> Option<CodecSpec> {
    if system == NANO {
        return Some(crate::nano::spec());
    }
    let families = [encodec::spec, academicodec::spec, hificodec::spec, dac::spec];
    families.iter().find_map(|spec| spec(system))
}

/// Imports a published checkpoint: a file, or a folder with one.
///
/// # Errors
/// Every variant of [`ImportError`].
pub fn import(path: impl AsRef<Path>, options: &ImportOptions) -> Result<Imported, ImportError> {
    let checkpoint = Checkpoint::open(path)?;
    let system = match &options.system {
        Some(name) => all_systems()
            .find(|system| system.name == name)
            .ok_or_else(|| ImportError::UnknownSystem { name: name.clone(), known: systems() })?,
        None => recognise(&checkpoint)?,
    };
    let (spec, tensors) = (system.import)(&checkpoint, system.name)?;
    let provenance = Provenance {
        system: Some(system.name.to_owned()),
        license: options.license.clone(),
        source: options.source.clone(),
    };
    Ok(Imported { spec, tensors, provenance })
}

fn recognise(checkpoint: &Checkpoint) -> Result<&'static System, ImportError> {
    let path = || checkpoint.path().display().to_string();
    let mut candidates: Vec<_> = all_systems().filter(|system| (system.matches)(checkpoint, system.name)).collect();
    if candidates.len() > 1 {
        let file = checkpoint.path().file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
        let hinted: Vec<_> =
            candidates.iter().copied().filter(|s| !s.hint.is_empty() && file.contains(s.hint)).collect();
        if !hinted.is_empty() {
            candidates = hinted;
        }
    }
    match candidates.as_slice() {
        [system] => Ok(system),
        [] => {
            let names = checkpoint.tensors().map(|(name, _)| name.to_owned());
            Err(ImportError::Unrecognised {
                path: path(),
                tensors: checkpoint.tensors().len(),
                examples: names.take(3).collect(),
            })
        }
        several => {
            Err(ImportError::Ambiguous { path: path(), candidates: several.iter().map(|system| system.name).collect() })
        }
    }
}

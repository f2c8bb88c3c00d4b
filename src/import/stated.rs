//! What a checkpoint says of itself: fields of a `config.json`, or of a YAML text in a pickle.

use codec_core::spec::PadMode;
use serde_json::Value;

use super::ImportError;

/// No size, rate or count of a real codec comes near, and sums of products of a few stay in their types.
const MAX_SIZE: u64 = 1 << 20;

/// Fields of a configuration, found by dotted path. A value of the form `${path}` stands for that field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a> {
    root: &'a Value,
}

impl<'a> Fields<'a> {
    pub fn new(root: &'a Value) -> Self {
        Self { root }
    }

    /// A field; `None` where it is absent or null.
    fn get(&self, path: &str) -> Option<&'a Value> {
        let at = |path: &str| path.split('.').try_fold(self.root, |value, key| value.get(key));
        let mut value = at(path)?;
        // References may be chained; real ones are two deep.
        for _ in 0..4 {
            let Some(next) = value.as_str().and_then(|text| text.strip_prefix("${")?.strip_suffix('}')) else { break };
            value = at(next)?;
        }
        (!value.is_null()).then_some(value)
    }

    pub fn has(&self, path: &str) -> bool {
        self.get(path).is_some()
    }

    fn read<T>(
        &self,
        path: &str,
        default: Option<T>,
        what: &str,
        parse: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<T, ImportError> {
        match (self.get(path), default) {
            (Some(value), _) => parse(value).ok_or_else(|| unsupported(path, format!("{value} is not {what}"))),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(unsupported(path, format!("it is missing; {what} is needed"))),
        }
    }

    /// A size, 1 to 2^20.
    pub fn size(&self, path: &str, default: impl Into<Option<u32>>) -> Result<u32, ImportError> {
        self.read(path, default.into(), "a size from 1 to 1048576", size)
    }

    /// A count, 0 to 2^20.
    pub fn count(&self, path: &str, default: u32) -> Result<u32, ImportError> {
        self.read(path, Some(default), "a count from 0 to 1048576", |value| {
            value.as_u64().filter(|n| *n <= MAX_SIZE).map(|n| n as u32)
        })
    }

    /// Sizes, of which there are 1 to 16.
    pub fn sizes(&self, path: &str, default: &[u32]) -> Result<Vec<u32>, ImportError> {
        self.read(path, Some(default.to_vec()), "a list of 1 to 16 sizes", |value| {
            let list: Option<Vec<u32>> = value.as_array()?.iter().map(size).collect();
            list.filter(|list| (1..=16).contains(&list.len()))
        })
    }

    pub fn number(&self, path: &str, default: f64) -> Result<f64, ImportError> {
        self.read(path, Some(default), "a number", |value| value.as_f64().filter(|number| number.is_finite()))
    }

    pub fn numbers(&self, path: &str) -> Result<Vec<f64>, ImportError> {
        self.read(path, Some(Vec::new()), "a list of numbers", |value| {
            value.as_array()?.iter().take(64).map(Value::as_f64).collect()
        })
    }

    pub fn flag(&self, path: &str, default: bool) -> Result<bool, ImportError> {
        self.read(path, Some(default), "true or false", Value::as_bool)
    }

    /// One of a few words.
    pub fn word(&self, path: &str, default: &'static str, known: &[&'static str]) -> Result<&'static str, ImportError> {
        let what = format!("one of {}", known.join(", "));
        self.read(path, Some(default), &what, |value| {
            let word = value.as_str()?;
            known.iter().copied().find(|known| *known == word)
        })
    }

    /// A padding by its usual name.
    pub fn padding(&self, path: &str, default: &'static str) -> Result<PadMode, ImportError> {
        Ok(match self.word(path, default, &["reflect", "constant", "replicate"])? {
            "constant" => PadMode::Zero,
            "replicate" => PadMode::Replicate,
            _ => PadMode::Reflect,
        })
    }

    /// A field that must have one value.
    pub fn only<T: PartialEq + std::fmt::Display>(
        &self,
        path: &str,
        value: T,
        supported: T,
    ) -> Result<(), ImportError> {
        if value == supported {
            return Ok(());
        }
        Err(unsupported(path, format!("{value} is not supported, only {supported}")))
    }
}

fn size(value: &Value) -> Option<u32> {
    value.as_u64().filter(|n| (1..=MAX_SIZE).contains(n)).map(|n| n as u32)
}

/// A field of a configuration that no model here can have.
pub(super) fn unsupported(field: &str, reason: impl Into<String>) -> ImportError {
    ImportError::Config { field: field.to_owned(), reason: reason.into() }
}

/// A YAML text as a value.
pub(super) fn yaml(field: &str, text: &str) -> Result<Value, ImportError> {
    serde_saphyr::from_str(text).map_err(|error| {
        let first = error.to_string().lines().next().unwrap_or_default().to_owned();
        unsupported(field, format!("it is not valid YAML: {first}"))
    })
}

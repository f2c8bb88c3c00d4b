//! From a publisher's tensor names to ours: prefixes, weight norm, and the listing of what does not fit.

use std::collections::{BTreeMap, BTreeSet};

use codec_core::{spec::CodecSpec, weights::Dtype};

use super::{ImportError, Mismatch, WantedTensor, wanted_tensors};
use crate::{
    checkpoint::Checkpoint,
    model_file::{OwnedTensor, TensorMap},
};

/// More codebooks than any codec has; a count is read from names, which a file chooses.
const MAX_CODEBOOKS: usize = 1024;

/// Buffers of training that play no part at inference, by the last part of the name.
const IGNORED_ENDS: [&str; 6] =
    ["cluster_size", "embed_avg", "inited", "initialized", "_initialized", "num_batches_tracked"];

/// What a trainer saves beside the model, by the start of the first part of the name.
const IGNORED_STARTS: [&str; 9] = ["disc", "msd", "mpd", "mrd", "msstftd", "stft_disc", "optim", "sched", "lr_sched"];

/// How a publisher names the layers of a spec.
pub(super) struct NameMap {
    /// Our layers' names to theirs.
    layers: BTreeMap<String, String>,
    /// What a codebook's tensor is called after the name of its layer.
    codebook: &'static str,
    /// Our tensors that are not simply a part of a layer of theirs.
    tensors: BTreeMap<String, Recipe>,
    /// Which of their tensors play no part, by the name below the prefix.
    ignored: fn(&str) -> bool,
}

/// How a tensor is made of tensors of other names.
#[derive(Clone, Debug)]
pub(super) enum Recipe {
    /// It is another tensor.
    Same(String),
    /// Equal runs of rows make several tensors; it is one of them, counted from 0.
    Rows { stacked: String, part: usize, parts: usize },
    /// Each row of the sum over how often it was used, at least 1e-5: a codebook kept as running averages.
    Mean { sum: String, usage: String },
}

impl NameMap {
    /// An empty map; `codebook` is what a codebook's tensor is called after the name of its layer.
    pub fn new(codebook: &'static str) -> Self {
        Self { layers: BTreeMap::new(), codebook, tensors: BTreeMap::new(), ignored: |_| false }
    }

    /// Tensors that are not part of the model, beside what every trainer leaves.
    pub fn ignoring(self, ignored: fn(&str) -> bool) -> Self {
        Self { ignored, ..self }
    }

    /// The tensor `ours` is made in this way.
    pub fn tensor(&mut self, ours: impl Into<String>, recipe: Recipe) {
        self.tensors.insert(ours.into(), recipe);
    }

    /// What `ours` is called.
    pub fn get(&self, ours: &str) -> Option<&str> {
        self.layers.get(ours).map(String::as_str)
    }

    /// `ours` is called `theirs`.
    pub fn add(&mut self, ours: impl Into<String>, theirs: impl Into<String>) {
        self.layers.insert(ours.into(), theirs.into());
    }
}

/// A checkpoint, seen from below a prefix that all tensors of the model share.
pub(super) struct Source<'a> {
    checkpoint: &'a Checkpoint,
    prefix: String,
}

impl<'a> Source<'a> {
    /// Looks for a tensor whose name is `anchor` or ends in `.anchor`; what is before it is the prefix.
    pub fn find(checkpoint: &'a Checkpoint, anchor: &str) -> Option<Self> {
        let prefixes = checkpoint.tensors().filter_map(|(name, _)| name.strip_suffix(anchor));
        let prefix = prefixes.filter(|p| p.is_empty() || p.ends_with('.')).min_by_key(|p| p.len())?;
        Some(Self { checkpoint, prefix: prefix.to_owned() })
    }

    /// Without a prefix.
    pub fn whole(checkpoint: &'a Checkpoint) -> Self {
        Self { checkpoint, prefix: String::new() }
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&'a [usize]> {
        self.checkpoint.get(&self.full(name)).map(|tensor| tensor.shape())
    }

    /// The shape of a layer's weight in any of its spellings.
    pub fn weight_shape(&self, layer: &str) -> Option<&'a [usize]> {
        ["weight", "weight_v", "parametrizations.weight.original1"]
            .iter()
            .find_map(|part| self.shape(&format!("{layer}.{part}")))
    }

    /// One more than the highest `N` in names of the form `{before}N{after}`.
    pub fn count(&self, before: &str, after: &str) -> usize {
        let before = self.full(before);
        let number = |name: &str| name.strip_prefix(&before)?.strip_suffix(after)?.parse::<usize>().ok();
        let highest =
            self.checkpoint.tensors().filter_map(|(name, _)| number(name)).filter(|n| *n < MAX_CODEBOOKS).max();
        highest.map_or(0, |n| n + 1)
    }

    /// Reads every tensor that `spec` names.
    pub fn tensors(&self, system: &str, spec: &CodecSpec, names: &NameMap) -> Result<TensorMap, ImportError> {
        let mut reader = Reader { source: self, used: BTreeSet::new(), missing: Vec::new(), mismatched: Vec::new() };
        let (mut found, wanted) = (Vec::new(), wanted_tensors(spec));
        for tensor in &wanted {
            if let Some(origin) = reader.locate(tensor, names) {
                found.push((tensor, origin));
            }
        }
        let surplus: Vec<_> = self
            .checkpoint
            .tensors()
            .map(|(name, _)| name)
            .filter(|name| !reader.used.contains(*name) && !Self::ignored(name))
            .filter(|name| !(names.ignored)(name.strip_prefix(&self.prefix).unwrap_or(name)))
            .map(str::to_owned)
            .collect();
        let Reader { missing, mismatched, .. } = reader;
        if !(missing.is_empty() && surplus.is_empty() && mismatched.is_empty()) {
            return Err(ImportError::Tensors { system: system.to_owned(), missing, surplus, mismatched });
        }
        let mut out = TensorMap::default();
        for (tensor, origin) in found {
            let values = match &origin {
                Origin::Plain(name) => self.checkpoint.f32(name)?,
                Origin::WeightNorm { g, v } => fold(&self.checkpoint.f32(g)?, self.checkpoint.f32(v)?),
                Origin::Rows { stacked, first } => {
                    let all = self.checkpoint.f32(stacked)?;
                    all.into_iter().skip(*first).take(tensor.shape.iter().product()).collect()
                }
                Origin::Mean { sum, usage } => mean(self.checkpoint.f32(sum)?, &self.checkpoint.f32(usage)?),
            };
            if !values.iter().all(|value| value.is_finite()) {
                let (Origin::Plain(name)
                | Origin::WeightNorm { v: name, .. }
                | Origin::Rows { stacked: name, .. }
                | Origin::Mean { sum: name, .. }) = origin;
                return Err(ImportError::NotFinite(name));
            }
            out.0.insert(tensor.name(), OwnedTensor::f32(&tensor.shape, &values));
        }
        Ok(out)
    }

    fn ignored(name: &str) -> bool {
        let last = name.rsplit('.').next().unwrap_or(name);
        let first = name.split('.').next().unwrap_or(name);
        IGNORED_ENDS.contains(&last) || IGNORED_STARTS.iter().any(|start| first.starts_with(start))
    }
}

/// Where the values of a wanted tensor are.
enum Origin {
    /// In a tensor.
    Plain(String),
    /// In a direction and its length (Salimans & Kingma 2016).
    WeightNorm { g: String, v: String },
    /// In a tensor, from this element on.
    Rows { stacked: String, first: usize },
    /// In a sum and how many are in it.
    Mean { sum: String, usage: String },
}

struct Reader<'a> {
    source: &'a Source<'a>,
    used: BTreeSet<String>,
    missing: Vec<String>,
    mismatched: Vec<Mismatch>,
}

impl Reader<'_> {
    fn locate(&mut self, tensor: &WantedTensor, names: &NameMap) -> Option<Origin> {
        if let Some(recipe) = names.tensors.get(&tensor.name()) {
            return self.follow(tensor, recipe);
        }
        let Some(theirs) = names.layers.get(&tensor.layer) else {
            self.missing.push(format!("{} (the import has no name for it)", tensor.name()));
            return None;
        };
        let plain = match tensor.part.as_str() {
            "codebook" => self.source.full(&format!("{theirs}{}", names.codebook)),
            part => self.source.full(&format!("{theirs}.{part}")),
        };
        if self.source.checkpoint.get(&plain).is_some() {
            return self.fits(&plain, tensor, &tensor.shape).then_some(Origin::Plain(plain));
        }
        if tensor.part == "weight" {
            for (g, v) in [("_g", "_v"), ("s.weight.original0", "s.weight.original1")] {
                let stem =
                    if g == "_g" { plain.clone() } else { self.source.full(&format!("{theirs}.parametrization")) };
                let (g, v) = (format!("{stem}{g}"), format!("{stem}{v}"));
                let exists = |name: &String| self.source.checkpoint.get(name).is_some();
                match (exists(&g), exists(&v)) {
                    (false, false) => {}
                    (true, true) => {
                        let mut lengths = vec![1; tensor.shape.len()];
                        lengths.iter_mut().zip(&tensor.shape).take(1).for_each(|(g, v)| *g = *v);
                        let fits = self.fits(&g, tensor, &lengths) & self.fits(&v, tensor, &tensor.shape);
                        return fits.then_some(Origin::WeightNorm { g, v });
                    }
                    (has_g, _) => {
                        self.used.extend([g.clone(), v.clone()]);
                        self.missing.push(if has_g { v } else { g });
                        return None;
                    }
                }
            }
        }
        self.missing.push(plain);
        None
    }

    fn follow(&mut self, tensor: &WantedTensor, recipe: &Recipe) -> Option<Origin> {
        let source = self.source;
        let rows = tensor.shape.first().copied().unwrap_or(1);
        let (parts, origin) = match recipe {
            Recipe::Same(name) => {
                let name = source.full(name);
                (vec![(name.clone(), tensor.shape.clone())], Origin::Plain(name))
            }
            Recipe::Rows { stacked, part, parts } => {
                let stacked = source.full(stacked);
                let mut shape = tensor.shape.clone();
                shape.iter_mut().take(1).for_each(|rows| *rows *= parts);
                let first = part * tensor.shape.iter().product::<usize>();
                (vec![(stacked.clone(), shape)], Origin::Rows { stacked, first })
            }
            Recipe::Mean { sum, usage } => {
                let (sum, usage) = (source.full(sum), source.full(usage));
                let shapes = vec![(sum.clone(), tensor.shape.clone()), (usage.clone(), vec![rows])];
                (shapes, Origin::Mean { sum, usage })
            }
        };
        let mut fits = true;
        for (name, shape) in parts {
            if source.checkpoint.get(&name).is_some() {
                fits &= self.fits(&name, tensor, &shape);
            } else {
                // Several tensors may be parts of one.
                if !self.missing.contains(&name) {
                    self.missing.push(name);
                }
                fits = false;
            }
        }
        fits.then_some(origin)
    }

    /// Checks type and shape; a linear layer may be stored as a convolution of one tap, a vector with sizes of 1.
    fn fits(&mut self, name: &str, tensor: &WantedTensor, expected: &[usize]) -> bool {
        self.used.insert(name.to_owned());
        let Some(found) = self.source.checkpoint.get(name) else { return false };
        let without_ones = |shape: &[usize]| shape.iter().copied().filter(|size| *size != 1).collect::<Vec<_>>();
        let same = found.shape() == expected
            || expected.len() < found.shape().len() && without_ones(found.shape()) == without_ones(expected)
            // The lengths of a linear layer's weight norm have the rank of the convolution.
            || tensor.shape.len() < 3 && without_ones(found.shape()) == without_ones(expected);
        if !same {
            self.mismatched.push(Mismatch {
                name: name.to_owned(),
                expected: format!("{expected:?}"),
                found: format!("{:?}", found.shape()),
            });
        }
        same
    }
}

/// `w = v * g / |v|`, the norm over all axes but the first, which `g` has.
pub(super) fn fold(g: &[f32], mut v: Vec<f32>) -> Vec<f32> {
    let row = (v.len() / g.len().max(1)).max(1);
    for (row, g) in v.chunks_exact_mut(row).zip(g) {
        let norm = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
        let scale = f64::from(*g) / norm;
        row.iter_mut().for_each(|x| *x = (f64::from(*x) * scale) as f32);
    }
    v
}

/// Each row over how often it was used.
fn mean(mut sum: Vec<f32>, usage: &[f32]) -> Vec<f32> {
    let row = (sum.len() / usage.len().max(1)).max(1);
    for (row, usage) in sum.chunks_exact_mut(row).zip(usage) {
        row.iter_mut().for_each(|value| *value /= usage.max(1e-5));
    }
    sum
}

/// A tensor that a spec wants in another type than f32 cannot come from a name map.
pub(super) fn check(system: &str, spec: &CodecSpec, tensors: &TensorMap) -> Result<(), ImportError> {
    let wanted = wanted_tensors(spec);
    let (mut missing, mut mismatched) = (Vec::new(), Vec::new());
    for tensor in &wanted {
        let describe = |dtype: Dtype, shape: &[usize]| format!("{dtype:?} {shape:?}");
        match tensors.0.get(&tensor.name()) {
            None => missing.push(tensor.name()),
            Some(found) if found.dtype == tensor.dtype && found.shape == tensor.shape => {}
            Some(found) => mismatched.push(Mismatch {
                name: tensor.name(),
                expected: describe(tensor.dtype, &tensor.shape),
                found: describe(found.dtype, &found.shape),
            }),
        }
    }
    let names: BTreeSet<_> = wanted.iter().map(WantedTensor::name).collect();
    let surplus: Vec<_> = tensors.0.keys().filter(|name| !names.contains(*name)).cloned().collect();
    if missing.is_empty() && mismatched.is_empty() && surplus.is_empty() {
        return Ok(());
    }
    Err(ImportError::Tensors { system: system.to_owned(), missing, surplus, mismatched })
}

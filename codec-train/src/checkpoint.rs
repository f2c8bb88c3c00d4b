//! Checkpoints: everything that a run needs to go on as if it had never stopped, in one safetensors file that appears whole.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::{Device, Tensor};
use safetensors::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};

use crate::{Store, TrainError, host, optim::Moments};

/// The version of the layout.
const FORMAT: u32 = 1;

/// The only key of the metadata: the order of several would be random.
const KEY: &str = "codec-train.checkpoint";

/// What is not a tensor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// The version of the layout.
    pub format: u32,
    /// Steps done.
    pub step: u64,
    /// The recipe, as JSON.
    pub recipe: String,
    /// The spec, as JSON.
    pub spec: String,
    /// Averages of the loss balancer.
    pub balancer: BTreeMap<String, (f64, f64)>,
    /// What losses are multiplied by where products are in `f16`, and for how many steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<(f64, u64)>,
    /// Steps of each tensor's moments, by the prefix of the optimiser and the tensor.
    pub times: BTreeMap<String, u64>,
    /// Whether a tensor is trained, by the prefix of the store and the tensor.
    pub trained: BTreeMap<String, bool>,
}

/// Stores and moments, by prefix.
pub(crate) struct Contents<'a> {
    pub stores: Vec<(&'static str, &'a Store)>,
    pub moments: Vec<(&'static str, &'a BTreeMap<String, Moments>)>,
}

/// What was read.
pub(crate) struct Loaded {
    pub state: State,
    pub stores: BTreeMap<String, Store>,
    pub moments: BTreeMap<String, BTreeMap<String, Moments>>,
}

struct Values {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Values {
    fn new(shape: Vec<usize>, values: &[f32]) -> Self {
        Self { shape, bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect() }
    }
}

impl View for &Values {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes a checkpoint beside `path`, then renames it: a full disk or a crash leaves what was there.
pub(crate) fn write(path: &Path, mut state: State, contents: &Contents<'_>) -> Result<(), TrainError> {
    let mut tensors = BTreeMap::new();
    for (prefix, store) in &contents.stores {
        for (name, entry) in store.iter() {
            let key = format!("{prefix}/{name}");
            state.trained.insert(key.clone(), entry.trained);
            tensors.insert(key, Values::new(entry.shape.clone(), &host(entry.value.clone())));
        }
    }
    for (prefix, moments) in &contents.moments {
        for (name, m) in *moments {
            state.times.insert(format!("{prefix}/{name}"), m.time as u64);
            for (part, tensor) in [("first", Some(&m.first)), ("second", m.second.as_ref())] {
                let Some(tensor) = tensor else { continue };
                let values = host(tensor.clone());
                tensors.insert(format!("{prefix}.{part}/{name}"), Values::new(vec![values.len()], &values));
            }
        }
    }
    state.format = FORMAT;
    let bad = |reason: String| TrainError::Checkpoint { path: path.to_path_buf(), reason };
    let text = serde_json::to_string(&state).map_err(|e| bad(e.to_string()))?;
    let metadata = HashMap::from([(KEY.to_owned(), text)]);
    let bytes = safetensors::serialize(tensors.iter().map(|(k, v)| (k.as_str(), v)), Some(metadata));
    let bytes = bytes.map_err(|e| bad(e.to_string()))?;
    write_whole(path, &bytes)
}

/// Writes a file so that a reader sees the old one or the new one whole.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    use std::io::Write as _;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file =
        tempfile::Builder::new().prefix(".train-").suffix(".part").tempfile_in(folder).map_err(TrainError::io(path))?;
    file.write_all(bytes).map_err(TrainError::io(path))?;
    file.as_file().sync_all().map_err(TrainError::io(path))?;
    file.persist(path).map_err(|e| TrainError::Io { path: path.to_path_buf(), source: e.error })?;
    Ok(())
}

/// Reads a checkpoint onto a device.
pub(crate) fn read(path: &Path, device: &Device) -> Result<Loaded, TrainError> {
    let bad = |reason: String| TrainError::Checkpoint { path: path.to_path_buf(), reason };
    let bytes = fs::read(path).map_err(TrainError::io(path))?;
    let invalid = |e: safetensors::SafeTensorError| bad(format!("it is damaged: {e}"));
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(invalid)?;
    let file = SafeTensors::deserialize(&bytes).map_err(invalid)?;
    let text = metadata.metadata().as_ref().and_then(|m| m.get(KEY)).cloned();
    let text = text.ok_or_else(|| bad("it is no checkpoint of a training run".to_owned()))?;
    let damaged = |e: serde_json::Error| bad(format!("its state is damaged: {e}"));
    // Another format may have other fields: ask for it first.
    let outline: serde_json::Value = serde_json::from_str(&text).map_err(damaged)?;
    if outline["format"] != FORMAT {
        return Err(bad(format!("it is of format {}; this version reads {FORMAT}", outline["format"])));
    }
    let state: State = serde_json::from_str(&text).map_err(damaged)?;
    let values = |key: &str| {
        let view = file.tensor(key).map_err(|_| bad(format!("it has no tensor `{key}`")))?;
        if view.dtype() != Dtype::F32 {
            return Err(bad(format!("tensor `{key}` is not of type F32")));
        }
        let values: Vec<f32> = view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        Ok((view.shape().to_vec(), values))
    };
    let mut stores: BTreeMap<String, Store> = BTreeMap::new();
    for (key, trained) in &state.trained {
        let (prefix, name) = key.split_once('/').ok_or_else(|| bad(format!("tensor `{key}` has no prefix")))?;
        let (shape, values) = values(key)?;
        let store = stores.entry(prefix.to_owned()).or_insert_with(|| Store::new(device));
        store.insert(name, &shape, values, *trained);
    }
    let mut moments: BTreeMap<String, BTreeMap<String, Moments>> = BTreeMap::new();
    for (key, time) in &state.times {
        let (prefix, name) = key.split_once('/').ok_or_else(|| bad(format!("moment `{key}` has no prefix")))?;
        let tensor = |part: &str| {
            let (_, values) = values(&format!("{prefix}.{part}/{name}"))?;
            Ok::<_, TrainError>(Tensor::<1>::from_floats(values.as_slice(), device))
        };
        let second = file.tensor(&format!("{prefix}.second/{name}")).is_ok().then(|| tensor("second")).transpose()?;
        let m = Moments { time: *time as usize, first: tensor("first")?, second };
        moments.entry(prefix.to_owned()).or_default().insert(name.to_owned(), m);
    }
    Ok(Loaded { state, stores, moments })
}

/// The checkpoint after `step` steps.
pub(crate) fn path_of(run: &Path, step: u64) -> PathBuf {
    run.join("checkpoints").join(format!("step-{step:09}.safetensors"))
}

/// The checkpoints of a run with their steps, oldest first.
pub(crate) fn list(run: &Path) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten();
    let step = |path: &Path| {
        let name = path.file_name()?.to_str()?;
        name.strip_prefix("step-")?.strip_suffix(".safetensors")?.parse().ok()
    };
    let mut found: Vec<_> = entries.filter_map(|e| Some((step(&e.path())?, e.path()))).collect();
    found.sort();
    found
}

//! What a run leaves in its folder: recipe, logs, checkpoints, and the model file that comes out.

use std::{fs, path::Path};

use codec::model_file::{Fingerprint, Provenance, write_model};
use codec_core::weights::Dtype;

use super::Trainer;
use crate::{
    Store, TrainCodec, TrainError,
    checkpoint::{self, Contents, Loaded, State},
    quantizer::Rules,
};

impl Trainer {
    /// The logs, cut off where the run goes on; what is left open is that of steps.
    pub(super) fn open_logs(&self) -> Result<fs::File, TrainError> {
        self.write_recipe()?;
        // A validation's step is the number of steps done.
        drop(self.open_log("validation.jsonl", self.step + 1)?);
        self.open_log("metrics.jsonl", self.step)
    }

    fn write_recipe(&self) -> Result<(), TrainError> {
        let path = self.run.join("recipe.toml");
        let bad = |e: toml::ser::Error| TrainError::Recipe { path: path.clone(), reason: e.to_string() };
        checkpoint::write_whole(&path, toml::to_string(&self.recipe).map_err(bad)?.as_bytes())
    }

    /// Opens a log for appending; lines from step `end` on, which the checkpoint does not know of, are cut off.
    pub(super) fn open_log(&self, name: &str, end: u64) -> Result<fs::File, TrainError> {
        let path = self.run.join(name);
        let old = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(TrainError::Io { path, source: e }),
        };
        let known = |line: &&str| {
            let value = serde_json::from_str::<serde_json::Value>(line).unwrap_or_default();
            value["step"].as_u64().is_some_and(|step| step < end)
        };
        let kept: String = old.lines().filter(known).flat_map(|line| [line, "\n"]).collect();
        if kept != old {
            checkpoint::write_whole(&path, kept.as_bytes())?;
        }
        fs::OpenOptions::new().create(true).append(true).open(&path).map_err(TrainError::io(&path))
    }

    /// Writes a checkpoint of where the run stands, and removes the oldest.
    ///
    /// # Errors
    /// The disk is full, say; older checkpoints stand.
    pub fn write_checkpoint(&mut self) -> Result<(), TrainError> {
        let path = checkpoint::path_of(&self.run, self.step);
        let json = |value: Result<String, serde_json::Error>| {
            value.map_err(|e| TrainError::Checkpoint { path: path.clone(), reason: e.to_string() })
        };
        let state = State {
            step: self.step,
            recipe: json(serde_json::to_string(&self.recipe))?,
            spec: json(serde_json::to_string(self.codec.spec()))?,
            balancer: self.balancer.averages().clone(),
            loss_scale: self.scale.state(),
            ..State::default()
        };
        let mut stores = vec![("codec", &self.weights), ("judges", &self.judges)];
        stores.extend(self.average.as_ref().map(|store| ("average", store)));
        let moments = vec![("codec", self.optimizer.moments()), ("judges", self.judge_optimizer.moments())];
        checkpoint::write(&path, state, &Contents { stores, moments }).map_err(|e| {
            let mut older = checkpoint::list(&self.run).into_iter().map(|(_, older)| older);
            let stands = older.rfind(|older| *older != path && older.is_file()).map_or_else(
                || "there is no earlier one".to_owned(),
                |older| format!("{} stands, and the same command goes on from it", older.display()),
            );
            TrainError::Checkpoint { path: path.clone(), reason: format!("it cannot be written ({e}); {stands}") }
        })?;
        self.last_checkpoint = Some(path);
        let mut all = checkpoint::list(&self.run);
        while all.len() > self.recipe.run.keep {
            let (_, oldest) = all.remove(0);
            fs::remove_file(&oldest).map_err(TrainError::io(&oldest))?;
        }
        Ok(())
    }

    pub(super) fn resume(&mut self, path: &Path) -> Result<(), TrainError> {
        let bad = |reason: String| TrainError::Checkpoint { path: path.to_path_buf(), reason };
        let loaded = checkpoint::read(path, &self.device).map_err(|e| match e {
            TrainError::Io { source, .. } if self.group.size() > 1 => bad(format!(
                "process {} cannot read it ({source}); the run's folder must be one that all machines see",
                self.group.rank()
            )),
            e => e,
        });
        let Loaded { state, mut stores, mut moments } = loaded?;
        let spec: codec_core::spec::CodecSpec = serde_json::from_str(&state.spec).map_err(|e| bad(e.to_string()))?;
        if spec != *self.codec.spec() {
            return Err(bad(format!("it is of a model `{}` that the recipe's is not; use another folder", spec.name)));
        }
        let mut take = |prefix: &str, own: &Store| {
            let store = stores.remove(prefix).unwrap_or_else(|| Store::new(&self.device));
            let names = |s: &Store| s.iter().map(|(n, e)| (n.to_owned(), e.shape.clone())).collect::<Vec<_>>();
            if names(&store) == names(own) {
                return Ok(store);
            }
            Err(bad(format!("the tensors of `{prefix}` are not those of the recipe; use another folder")))
        };
        self.weights = take("codec", &self.weights)?;
        self.judges = take("judges", &self.judges)?;
        if let Some(average) = &self.average {
            self.average = Some(take("average", average)?);
        }
        for (prefix, store, optimizer) in
            [("codec", &self.weights, &self.optimizer), ("judges", &self.judges, &self.judge_optimizer)]
        {
            let whole = |name: &str, second: bool| {
                second || store.get(name).is_some_and(|entry| optimizer.by_muon(name, &entry.shape))
            };
            let lost = moments.get(prefix).into_iter().flatten().find(|(name, m)| !whole(name, m.second.is_some()));
            if let Some((name, _)) = lost {
                return Err(bad(format!("it has no second moment of `{name}`, which is not Muon's by the recipe")));
            }
        }
        self.optimizer.set_moments(moments.remove("codec").unwrap_or_default());
        self.judge_optimizer.set_moments(moments.remove("judges").unwrap_or_default());
        self.balancer.set_averages(state.balancer);
        self.scale.set_state(state.loss_scale);
        self.step = state.step;
        self.last_checkpoint = Some(path.to_path_buf());
        Ok(())
    }
}

/// Writes the model file of a run's last checkpoint, or of a certain checkpoint: the average of weights if there is one, stored
/// as `dtype` ([`TensorMap::store_as`](codec::model_file::TensorMap::store_as)). Neither recipe nor audio is needed.
///
/// # Errors
/// There is no checkpoint, a weight is past `dtype`, or the file cannot be written.
pub fn export(run: &Path, output: &Path, dtype: Dtype, provenance: &Provenance) -> Result<Fingerprint, TrainError> {
    let bad =
        |path: &Path, reason: &str| TrainError::Checkpoint { path: path.to_path_buf(), reason: reason.to_owned() };
    let path = if run.is_file() {
        run.to_path_buf()
    } else {
        let last = checkpoint::list(run).pop();
        last.ok_or_else(|| bad(run, "the folder has none; it should hold `checkpoints/`"))?.1
    };
    let Loaded { state, mut stores, .. } = checkpoint::read(&path, &crate::device::cpu())?;
    let spec = serde_json::from_str(&state.spec).map_err(|e| bad(&path, &e.to_string()))?;
    let codec = TrainCodec::new(&spec, Rules::default())?;
    let store = stores.remove("average").or_else(|| stores.remove("codec"));
    let store = store.ok_or_else(|| bad(&path, "it has no weights"))?;
    let mut tensors = codec.tensors(&store)?;
    tensors.store_as(dtype)?;
    Ok(write_model(output, codec.spec(), &tensors, provenance)?)
}

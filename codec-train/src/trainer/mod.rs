//! Runs a recipe.

mod step;

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use burn::tensor::Device;
use codec::model_file::{Fingerprint, Provenance};
use serde::Serialize;

use crate::{
    Store, TrainCodec, TrainError,
    checkpoint::{self, Contents, Loaded, State},
    data::{Corpus, Cut, Loader},
    disc::Discriminators,
    loss::{Balancer, CompressedLoss, MelLoss, StftLoss},
    optim::Optimizer,
    quantizer::BookReport,
    recipe::Recipe,
    validation,
};

pub use crate::validation::Report as ValidationReport;

/// What a step gave; a line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepReport {
    /// The step, from 0.
    pub step: u64,
    /// Every loss before its weight, the mean over the batches of the step.
    pub losses: BTreeMap<String, f64>,
    /// Norms of the gradients: of the codec, of the discriminators, and with a balancer of each loss at the output.
    pub gradient_norms: BTreeMap<String, f64>,
    /// Learning rate of the codec.
    pub rate: f64,
    /// Of each codebook.
    pub perplexity: Vec<f64>,
    /// Of each codebook, the share of dead entries.
    pub dead: Vec<f64>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All steps of the recipe are done.
    Finished,
    /// It was asked to stop, and wrote a checkpoint.
    Stopped,
}

/// A run: networks, their optimisers, and where it stands.
pub struct Trainer {
    recipe: Recipe,
    run: PathBuf,
    device: Device,
    codec: TrainCodec,
    provenance: Provenance,
    weights: Store,
    average: Option<Store>,
    optimizer: Optimizer,
    discriminators: Discriminators,
    judges: Store,
    judge_optimizer: Optimizer,
    mel: MelLoss,
    stft: StftLoss,
    compressed: CompressedLoss,
    balancer: Balancer,
    corpus: Arc<Corpus>,
    cut: Cut,
    choices: Vec<usize>,
    step: u64,
    last_checkpoint: Option<PathBuf>,
}

impl Trainer {
    /// Opens a run in the folder `run`, which is made if need be; goes on from its last checkpoint if it has one. `recipe_path` is
    /// for messages and for files beside the recipe.
    ///
    /// # Errors
    /// The recipe, the data or a checkpoint cannot be used, or the checkpoint is of another recipe.
    pub fn open(
        recipe: Recipe,
        recipe_path: &Path,
        data: &Path,
        run: &Path,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let (spec, model) = recipe.spec(recipe_path)?;
        let codec = TrainCodec::new(&spec, recipe.rules())?;
        let error = |reason: String| TrainError::Recipe { path: recipe_path.to_path_buf(), reason };
        if spec.encoder.is_none() || spec.decoder.is_none() {
            return Err(error(format!(
                "{} has no {}",
                spec.name,
                if spec.encoder.is_none() { "encoder" } else { "decoder" }
            )));
        }
        let cut = recipe.cut(&spec);
        let discriminators = Discriminators::new(&recipe.discriminators, spec.channels as usize);
        let (mel, stft, compressed) = losses(&recipe, spec.sample_rate, cut.samples);
        for (what, shortest, wanted) in [
            ("the mel loss", mel.shortest(), recipe.loss.mel != 0.0),
            ("the STFT loss", stft.shortest(), recipe.loss.stft != 0.0),
            ("the compressed loss", compressed.shortest(), recipe.loss.compressed != 0.0),
            ("a discriminator", discriminators.shortest(), !discriminators.is_empty()),
        ] {
            if wanted && cut.samples < shortest {
                let reason = format!("`data.segment` gives {} samples, and {what} needs {shortest}", cut.samples);
                return Err(error(reason));
            }
        }
        let choices = choices(&recipe, &codec, &error)?;
        let cache = recipe.data.cache_mib.saturating_mul(1 << 20);
        let corpus = Arc::new(Corpus::open(data, recipe.fit(&spec), cut.samples, cache)?);
        let mut weights = match &model {
            Some(model) => codec.load(model, device)?,
            None => codec.initialise(device, recipe.seed)?,
        };
        if recipe.model.weight_norm {
            codec.add_weight_norm(&mut weights)?;
        }
        let mut judges = Store::new(device);
        discriminators.initialise(&mut judges, recipe.seed)?;
        let mut provenance = model.map(|m| m.provenance().clone()).unwrap_or_default();
        provenance.system = None;
        let mut trainer = Self {
            run: run.to_path_buf(),
            device: device.clone().inner(),
            average: (recipe.run.average > 0.0).then(|| weights.clone()),
            weights,
            optimizer: Optimizer::new(&recipe.optimizer),
            judge_optimizer: Optimizer::new(&recipe.discriminator_optimizer),
            balancer: Balancer::new(recipe.weights(), recipe.loss.balance_decay),
            recipe,
            codec,
            provenance,
            discriminators,
            judges,
            mel,
            stft,
            compressed,
            corpus,
            cut,
            choices,
            step: 0,
            last_checkpoint: None,
        };
        fs::create_dir_all(run.join("checkpoints")).map_err(TrainError::io(run))?;
        if let Some((_, path)) = checkpoint::list(run).pop() {
            trainer.resume(&path)?;
        }
        Ok(trainer)
    }

    /// Steps done.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The recipe.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The audio.
    pub fn corpus(&self) -> &Corpus {
        &self.corpus
    }

    /// The codec's tensors as they are trained.
    pub fn weights(&self) -> &Store {
        &self.weights
    }

    /// The discriminators' tensors.
    pub fn judges(&self) -> &Store {
        &self.judges
    }

    /// The codec.
    pub fn codec(&self) -> &TrainCodec {
        &self.codec
    }

    /// The weights that are validated and exported: their average, if the recipe has one.
    pub fn best(&self) -> &Store {
        self.average.as_ref().unwrap_or(&self.weights)
    }

    /// Writes the model file of where the run stands.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn export(&self, path: &Path) -> Result<Fingerprint, TrainError> {
        self.codec.export(self.best(), path, &self.provenance)
    }

    /// Runs until the recipe's last step, or until `stop` is set, and then writes a checkpoint. `progress` is told of each step
    /// and of the seconds that it took.
    ///
    /// # Errors
    /// Audio, disk or numbers fail; the last checkpoint stands.
    pub fn run(&mut self, stop: &AtomicBool, mut progress: impl FnMut(&StepReport, f64)) -> Result<Ended, TrainError> {
        self.write_recipe()?;
        // A validation's step is the number of steps done.
        drop(self.open_log("validation.jsonl", self.step + 1)?);
        let mut metrics = self.open_log("metrics.jsonl", self.step)?;
        let metrics_path = self.run.join("metrics.jsonl");
        let first = self.step * self.recipe.run.accumulate;
        let mut loader = Loader::start(self.corpus.clone(), self.cut.clone(), first, self.recipe.data.threads)?;
        while self.step < self.recipe.run.steps {
            if stop.load(Ordering::Relaxed) {
                self.write_checkpoint()?;
                return Ok(Ended::Stopped);
            }
            let started = Instant::now();
            let batches =
                (0..self.recipe.run.accumulate).map(|_| loader.take()).collect::<Result<Vec<_>, TrainError>>()?;
            let report = self.take_step(&batches)?;
            progress(&report, started.elapsed().as_secs_f64());
            let mut line = serde_json::to_string(&report).unwrap_or_default();
            line.push('\n');
            metrics.write_all(line.as_bytes()).map_err(TrainError::io(&metrics_path))?;
            self.step += 1;
            let r = &self.recipe.run;
            if r.validate_every > 0 && self.step.is_multiple_of(r.validate_every) {
                self.validate()?;
            }
            if self.step.is_multiple_of(self.recipe.run.checkpoint_every) {
                metrics.flush().map_err(TrainError::io(&metrics_path))?;
                self.write_checkpoint()?;
            }
        }
        if self.last_checkpoint.as_ref() != Some(&checkpoint::path_of(&self.run, self.step)) {
            self.write_checkpoint()?;
        }
        Ok(Ended::Finished)
    }

    /// Codes the fixed items and writes what became of them to `validation/`.
    ///
    /// # Errors
    /// Audio cannot be read or written.
    pub fn validate(&self) -> Result<ValidationReport, TrainError> {
        let report = validation::run(
            &self.codec,
            self.best(),
            &self.corpus,
            &self.cut,
            &self.mel,
            &self.recipe,
            &self.run,
            self.step,
        )?;
        let path = self.run.join("validation.jsonl");
        let mut file = self.open_log("validation.jsonl", u64::MAX)?;
        let mut line = serde_json::to_string(&report).unwrap_or_default();
        line.push('\n');
        file.write_all(line.as_bytes()).map_err(TrainError::io(&path))?;
        Ok(report)
    }

    fn write_recipe(&self) -> Result<(), TrainError> {
        let path = self.run.join("recipe.toml");
        let bad = |e: toml::ser::Error| TrainError::Recipe { path: path.clone(), reason: e.to_string() };
        checkpoint::write_whole(&path, toml::to_string(&self.recipe).map_err(bad)?.as_bytes())
    }

    /// Opens a log for appending; lines from step `end` on, which the checkpoint does not know of, are cut off.
    fn open_log(&self, name: &str, end: u64) -> Result<fs::File, TrainError> {
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
            ..State::default()
        };
        let mut stores = vec![("codec", &self.weights), ("judges", &self.judges)];
        stores.extend(self.average.as_ref().map(|store| ("average", store)));
        let moments = vec![("codec", self.optimizer.moments()), ("judges", self.judge_optimizer.moments())];
        checkpoint::write(&path, state, &Contents { stores, moments })?;
        self.last_checkpoint = Some(path);
        let mut all = checkpoint::list(&self.run);
        while all.len() > self.recipe.run.keep {
            let (_, oldest) = all.remove(0);
            fs::remove_file(&oldest).map_err(TrainError::io(&oldest))?;
        }
        Ok(())
    }

    fn resume(&mut self, path: &Path) -> Result<(), TrainError> {
        let bad = |reason: String| TrainError::Checkpoint { path: path.to_path_buf(), reason };
        let Loaded { state, mut stores, mut moments } = checkpoint::read(path, &self.device)?;
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
        self.optimizer.set_moments(moments.remove("codec").unwrap_or_default());
        self.judge_optimizer.set_moments(moments.remove("judges").unwrap_or_default());
        self.balancer.set_averages(state.balancer);
        self.step = state.step;
        self.last_checkpoint = Some(path.to_path_buf());
        Ok(())
    }
}

/// Writes the model file of a run's last checkpoint, or of a certain checkpoint: the average of weights if there is one. Neither
/// recipe nor audio is needed.
///
/// # Errors
/// There is no checkpoint, or the file cannot be written.
pub fn export(
    run: &Path,
    output: &Path,
    license: Option<String>,
    source: Option<String>,
) -> Result<Fingerprint, TrainError> {
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
    let codec = TrainCodec::new(&spec, crate::quantizer::Rules::default())?;
    let store = stores.remove("average").or_else(|| stores.remove("codec"));
    let store = store.ok_or_else(|| bad(&path, "it has no weights"))?;
    codec.export(&store, output, &Provenance { system: None, license, source })
}

/// The spectral losses; without stated resolutions, those that a segment is long enough for.
fn losses(recipe: &Recipe, rate: u32, samples: usize) -> (MelLoss, StftLoss, CompressedLoss) {
    let l = &recipe.loss;
    let scales = if l.mel_scales.is_empty() {
        MelLoss::dac_scales().into_iter().filter(|s| s.window <= samples).collect()
    } else {
        l.mel_scales.clone()
    };
    let mut mel = MelLoss::new(rate, &scales);
    [mel.log, mel.linear, mel.square] = l.mel_terms;
    let usual = || StftLoss::usual_scales().into_iter().filter(|s| s.n_fft <= samples).collect();
    let stft = if l.stft_scales.is_empty() { usual() } else { l.stft_scales.clone() };
    let usual = || CompressedLoss::usual_scales().into_iter().filter(|s| s.n_fft <= samples).collect();
    let compressed = if l.compressed_scales.is_empty() { usual() } else { l.compressed_scales.clone() };
    (mel, StftLoss::new(&stft), CompressedLoss::new(&compressed))
}

/// The codebook counts that dropout chooses from.
fn choices(
    recipe: &Recipe,
    codec: &TrainCodec,
    error: &dyn Fn(String) -> TrainError,
) -> Result<Vec<usize>, TrainError> {
    let most = codec.quantizer().codebooks();
    let mut choices = recipe.quantizer.choices.clone();
    if let Some(bad) = choices.iter().find(|n| !(1..=most).contains(*n)) {
        return Err(error(format!("`quantizer.choices` has {bad}, and the model has 1 to {most} codebooks")));
    }
    if choices.is_empty() {
        choices = codec.spec().codebook_choices.iter().map(|n| *n as usize).filter(|n| *n <= most).collect();
    }
    if choices.is_empty() {
        choices = (1..=most).collect();
    }
    Ok(choices)
}

/// Perplexities and shares of dead entries.
fn of_books(reports: &[BookReport]) -> (Vec<f64>, Vec<f64>) {
    reports.iter().map(|r| (r.perplexity, r.dead)).unzip()
}

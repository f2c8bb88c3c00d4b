//! Runs a recipe.

mod scale;
mod step;
mod teacher;

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use burn::tensor::{Device, Tensor};
use codec::model_file::{Fingerprint, Provenance};
use serde::Serialize;

use crate::{
    Store, TrainCodec, TrainError,
    checkpoint::{self, Contents, Loaded, State},
    data::{Corpus, Cut, Loader},
    disc::Discriminators,
    group::{self, Alone, Group, together},
    loss::{Balancer, CompressedLoss, LoudnessLoss, MelLoss, SimilarityLoss, StftLoss},
    optim::Optimizer,
    quantizer::BookReport,
    recipe::Recipe,
    validation,
};

use scale::LossScale;
use teacher::Teacher;

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
    /// With products in `f16`, what losses were multiplied by for their gradients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<f64>,
    /// Learning rate of the codec.
    pub rate: f64,
    /// Of each codebook.
    pub perplexity: Vec<f64>,
    /// Of each codebook, the share of dead entries.
    pub dead: Vec<f64>,
}

/// The losses that compare spectra.
struct SpectralLosses {
    mel: MelLoss,
    stft: StftLoss,
    compressed: CompressedLoss,
    loudness: LoudnessLoss,
    similarity: SimilarityLoss,
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
    group: Rc<dyn Group>,
    recipe: Recipe,
    run: PathBuf,
    device: Device,
    codec: TrainCodec,
    provenance: Provenance,
    teacher: Option<Teacher>,
    weights: Store,
    average: Option<Store>,
    optimizer: Optimizer,
    discriminators: Discriminators,
    judges: Store,
    judge_optimizer: Optimizer,
    spectral: SpectralLosses,
    balancer: Balancer,
    scale: LossScale,
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
        Self::open_in(Rc::new(Alone), recipe, recipe_path, data, run, device)
    }

    /// As [`Trainer::open`], as one of a group of processes: they train one model, with batches that are as many times as large as
    /// there are processes. Process 0 writes all files; all read the last checkpoint.
    ///
    /// # Errors
    /// As there, for all processes if it is one for any; their recipes, data or checkpoints differ.
    pub fn open_in(
        group: Rc<dyn Group>,
        recipe: Recipe,
        recipe_path: &Path,
        data: &Path,
        run: &Path,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let trainer = Self::prepare(group.clone(), recipe, recipe_path, data, run, device);
        let mut trainer = together(&*group, trainer)?;
        // Only what decides the items: paths may differ between machines.
        let noise = trainer.corpus.noise().map(Corpus::clips).unwrap_or_default();
        let clips = trainer.corpus.clips().iter().chain(noise);
        let clips = clips.flat_map(|c| (c.samples as u64).to_le_bytes().into_iter().chain(c.weight.to_le_bytes()));
        let mut plan = trainer.recipe.clone();
        (plan.model.model, plan.model.spec) = (None, None);
        plan.data.noise.iter_mut().for_each(|noise| noise.data.clear());
        plan.teacher.iter_mut().for_each(|teacher| teacher.model.clear());
        let recipe = serde_json::to_string(&plan);
        let spec = serde_json::to_string(trainer.codec.spec());
        group::same(&*group, "the recipe", group::digest(recipe.unwrap_or_default().into_bytes()))?;
        group::same(&*group, "the spec of the model", group::digest(spec.unwrap_or_default().into_bytes()))?;
        let teacher = trainer.teacher.as_ref().map(|teacher| teacher.fingerprint().to_string());
        group::same(&*group, "the teacher", group::digest(teacher.unwrap_or_default().into_bytes()))?;
        group::same(&*group, "the audio", group::digest(clips))?;
        let last = if group.rank() == 0 { trainer.last_of_folder() } else { Ok(None) };
        let last = together(&*group, last)?;
        let mut step = last.map_or_else(Vec::new, |step| step.to_le_bytes().to_vec());
        group.broadcast(&mut step);
        if let Ok(step) = <[u8; 8]>::try_from(step.as_slice()) {
            let resumed = trainer.resume(&checkpoint::path_of(run, u64::from_le_bytes(step)));
            together(&*group, resumed)?;
        }
        group::same(&*group, "the step", trainer.step)?;
        trainer.align();
        Ok(trainer)
    }

    /// What a process does by itself before the run's files are looked at.
    fn prepare(
        group: Rc<dyn Group>,
        recipe: Recipe,
        recipe_path: &Path,
        data: &Path,
        run: &Path,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let (spec, model) = recipe.spec(recipe_path)?;
        let codec = TrainCodec::new(&spec, recipe.rules())?;
        let error = |reason: String| TrainError::Recipe { path: recipe_path.to_path_buf(), reason };
        let dtype = recipe.run.precision.dtype().into();
        if !device.supports_dtype(dtype) {
            return Err(TrainError::Precision(dtype));
        }
        if spec.encoder.is_none() || spec.decoder.is_none() {
            return Err(error(format!(
                "{} has no {}",
                spec.name,
                if spec.encoder.is_none() { "encoder" } else { "decoder" }
            )));
        }
        let cut = Cut { part: (group.rank(), group.size()), ..recipe.cut(&spec) };
        let discriminators = Discriminators::new(&recipe.discriminators, spec.channels as usize);
        let spectral = losses(&recipe, spec.sample_rate, cut.samples);
        for (what, shortest, wanted) in [
            ("the mel loss", spectral.mel.shortest(), recipe.loss.mel != 0.0),
            ("the STFT loss", spectral.stft.shortest(), recipe.loss.stft != 0.0),
            ("the compressed loss", spectral.compressed.shortest(), recipe.loss.compressed != 0.0),
            ("the loudness loss", spectral.loudness.shortest(), recipe.loss.loudness != 0.0),
            ("the similarity loss", spectral.similarity.shortest(), recipe.loss.similarity != 0.0),
            ("a discriminator", discriminators.shortest(), !discriminators.is_empty()),
        ] {
            if wanted && cut.samples < shortest {
                let reason = format!("`data.segment` gives {} samples, and {what} needs {shortest}", cut.samples);
                return Err(error(reason));
            }
        }
        let choices = choices(&recipe, &codec, &error)?;
        let teacher =
            recipe.teacher.as_ref().map(|teacher| Teacher::open(teacher, &spec, device, &error)).transpose()?;
        let cache = recipe.data.cache_mib.saturating_mul(1 << 20);
        let fit = recipe.fit(&spec);
        let mut corpus = Corpus::open(data, fit, cut.longest(), cache)?;
        if let Some(noise) = &recipe.data.noise {
            corpus = corpus.with_noise(Corpus::open(&noise.data, fit, cut.samples, cache)?);
        }
        let corpus = Arc::new(corpus);
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
        Ok(Self {
            group,
            run: run.to_path_buf(),
            device: device.clone().inner(),
            average: (recipe.run.average > 0.0).then(|| weights.clone()),
            weights,
            optimizer: Optimizer::new(&recipe.optimizer),
            judge_optimizer: Optimizer::new(&recipe.discriminator_optimizer),
            balancer: Balancer::new(recipe.weights(), recipe.loss.balance_decay),
            scale: LossScale::new(recipe.run.precision),
            recipe,
            codec,
            teacher,
            provenance,
            discriminators,
            judges,
            spectral,
            corpus,
            cut,
            choices,
            step: 0,
            last_checkpoint: None,
        })
    }

    /// Makes the run's folder, and says which step its last checkpoint is of.
    fn last_of_folder(&self) -> Result<Option<u64>, TrainError> {
        fs::create_dir_all(self.run.join("checkpoints")).map_err(TrainError::io(&self.run))?;
        Ok(checkpoint::list(&self.run).pop().map(|(step, _)| step))
    }

    /// Takes the tensors of process 0, which another kind of machine may have rounded differently.
    fn align(&mut self) {
        let own = self.state_digest().to_le_bytes();
        if self.group.gather(&own).iter().all(|other| *other == own) {
            return;
        }
        for store in [Some(&mut self.weights), Some(&mut self.judges), self.average.as_mut()].into_iter().flatten() {
            let names: Vec<String> = store.iter().map(|(name, _)| name.to_owned()).collect();
            for name in names {
                let Some(entry) = store.get(&name) else { continue };
                let mut bytes = group::to_bytes(&crate::host(entry.value.clone()));
                self.group.broadcast(&mut bytes);
                store.set(&name, Tensor::from_floats(group::from_bytes(&bytes).as_slice(), &self.device));
            }
        }
    }

    /// A number that tells the states of two processes apart.
    fn state_digest(&self) -> u64 {
        if self.group.size() == 1 {
            return 0;
        }
        let stores = [Some(&self.weights), Some(&self.judges), self.average.as_ref()];
        let tensors = stores.into_iter().flatten().flat_map(Store::iter);
        group::digest(tensors.flat_map(|(_, entry)| group::to_bytes(&crate::host(entry.value.clone()))))
    }

    /// Whether this process writes the run's files.
    fn writes(&self) -> bool {
        self.group.rank() == 0
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
    /// and of the seconds that it took. Of a group, it is enough that `stop` is set for one process.
    ///
    /// # Errors
    /// Audio, disk or numbers fail; the last checkpoint stands.
    pub fn run(&mut self, stop: &AtomicBool, mut progress: impl FnMut(&StepReport, f64)) -> Result<Ended, TrainError> {
        let group = self.group.clone();
        let metrics_path = self.run.join("metrics.jsonl");
        let metrics = if self.writes() { self.open_logs().map(Some) } else { Ok(None) };
        let mut metrics = together(&*group, metrics)?;
        let accumulate = self.recipe.run.accumulate;
        let first = self.step * accumulate;
        let loader = Loader::start(self.corpus.clone(), self.cut.clone(), first, self.recipe.data.threads);
        let mut loader = together(&*group, loader)?;
        while self.step < self.recipe.run.steps {
            if group.agree(stop.load(Ordering::Relaxed)) {
                self.checkpoint()?;
                return Ok(Ended::Stopped);
            }
            let started = Instant::now();
            let batches = (0..accumulate).map(|_| loader.take()).collect::<Result<Vec<_>, TrainError>>();
            let batches = together(&*group, batches)?;
            if self.step == 0 {
                self.start_codebooks()?;
            }
            let report = self.take_step(&batches)?;
            progress(&report, started.elapsed().as_secs_f64());
            self.step += 1;
            if let Some(metrics) = &mut metrics {
                let mut line = serde_json::to_string(&report).unwrap_or_default();
                line.push('\n');
                metrics.write_all(line.as_bytes()).map_err(TrainError::io(&metrics_path))?;
                let every = self.recipe.run.validate_every;
                if every > 0 && self.step.is_multiple_of(every) {
                    self.validate()?;
                }
            }
            if self.step.is_multiple_of(self.recipe.run.checkpoint_every) {
                self.checkpoint()?;
            }
        }
        if self.last_checkpoint.as_ref() != Some(&checkpoint::path_of(&self.run, self.step)) {
            self.checkpoint()?;
        }
        Ok(Ended::Finished)
    }

    /// The logs, cut off where the run goes on; what is left open is that of steps.
    fn open_logs(&self) -> Result<fs::File, TrainError> {
        self.write_recipe()?;
        // A validation's step is the number of steps done.
        drop(self.open_log("validation.jsonl", self.step + 1)?);
        self.open_log("metrics.jsonl", self.step)
    }

    /// Process 0 writes a checkpoint; who has drifted away from it (machines of several kinds round differently) reads it.
    fn checkpoint(&mut self) -> Result<(), TrainError> {
        let group = self.group.clone();
        let written = if self.writes() { self.write_checkpoint() } else { Ok(()) };
        together(&*group, written)?;
        let path = checkpoint::path_of(&self.run, self.step);
        let own = self.state_digest().to_le_bytes();
        let states = group.gather(&own);
        let back = if states.first().is_some_and(|first| *first == own) { Ok(()) } else { self.resume(&path) };
        together(&*group, back)?;
        self.last_checkpoint = Some(path);
        Ok(())
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
            &self.spectral.mel,
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

    fn resume(&mut self, path: &Path) -> Result<(), TrainError> {
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
fn losses(recipe: &Recipe, rate: u32, samples: usize) -> SpectralLosses {
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
    SpectralLosses {
        mel,
        stft: StftLoss::new(&stft),
        compressed: CompressedLoss::new(&compressed),
        loudness: LoudnessLoss::new(rate),
        similarity: SimilarityLoss::new(rate),
    }
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

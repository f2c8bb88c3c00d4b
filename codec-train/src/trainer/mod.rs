//! Runs a recipe.

mod files;
mod losses;
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
    Store, TrainCodec, TrainError, checkpoint,
    data::{Corpus, Cut, Loader},
    disc::Discriminators,
    group::{self, Alone, Group, together},
    loss::Balancer,
    optim::Optimizer,
    quantizer::BookReport,
    recipe::Recipe,
    validation,
};

use losses::SpectralLosses;
use scale::LossScale;
use teacher::Teacher;

pub use crate::validation::Report as ValidationReport;
pub use files::export;

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
        let spectral = SpectralLosses::new(&recipe, spec.sample_rate, cut.samples);
        let judge = (!discriminators.is_empty()).then(|| ("a discriminator", discriminators.shortest()));
        if let Some((what, shortest)) = spectral.shortest(&recipe).chain(judge).find(|(_, n)| cut.samples < *n) {
            let reason = format!("`data.segment` gives {} samples, and {what} needs {shortest}", cut.samples);
            return Err(error(reason));
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

//! Recipes: everything that a run depends on beside its audio, as TOML.

use std::{collections::BTreeMap, path::Path};

use codec::{audio::Allow, model_file::ModelFile};
use codec_core::spec::{CodecSpec, Quantizer};
use serde::{Deserialize, Serialize};

use crate::{
    Precision, TrainError,
    data::{Cut, Fit, Noise},
    disc::DiscriminatorSpec,
    loss::{AdversarialKind, FeatureNorm, MelScale, StftScale},
    optim::{MuonRecipe, OptimizerRecipe},
    quantizer::{Estimator, Learning, Rules},
};

/// A whole recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Seed of all random choices.
    #[serde(default)]
    pub seed: u64,
    /// What is trained.
    pub model: ModelRecipe,
    /// On what.
    #[serde(default)]
    pub data: DataRecipe,
    /// How the quantizer learns.
    #[serde(default)]
    pub quantizer: QuantizerRecipe,
    /// Whose latents are learned; nobody's if not given.
    #[serde(default)]
    pub teacher: Option<TeacherRecipe>,
    /// Towards what.
    #[serde(default)]
    pub loss: LossRecipe,
    /// Against whom.
    #[serde(default)]
    pub discriminators: Vec<DiscriminatorSpec>,
    /// How the codec is optimised.
    #[serde(default)]
    pub optimizer: OptimizerRecipe,
    /// How the discriminators are.
    #[serde(default)]
    pub discriminator_optimizer: OptimizerRecipe,
    /// How long, and what is kept.
    #[serde(default)]
    pub run: RunRecipe,
}

/// What is trained: exactly one of `system`, `model` and `spec`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelRecipe {
    /// A published system, from first values; see [`codec::import::published_spec`].
    pub system: Option<String>,
    /// A model file to go on from.
    pub model: Option<std::path::PathBuf>,
    /// A file with a spec as JSON, from first values.
    pub spec: Option<std::path::PathBuf>,
    /// Stages that are kept of a residual quantizer; all if not given.
    pub stages: Option<usize>,
    /// Train convolutions and projections under weight norm.
    pub weight_norm: bool,
}

/// How audio is cut.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataRecipe {
    /// Seconds of an item; rounded up to whole frames.
    pub segment: f64,
    /// Items in a batch, of each process if there are several.
    pub batch: usize,
    /// Change the sample rate of files that have another.
    pub resample: bool,
    /// Replace several channels by their mean.
    pub downmix: bool,
    /// Copy one channel to all that the model has.
    pub upmix: bool,
    /// Gain in decibels, uniform between the two.
    pub gain_db: [f64; 2],
    /// Items quieter than this are drawn again.
    pub silence_db: f64,
    /// Speed, uniform between the two: pitch and tempo alike.
    pub speed: [f64; 2],
    /// Noise that is mixed in; none if not given.
    pub noise: Option<NoiseRecipe>,
    /// Threads that decode.
    pub threads: usize,
    /// Mebibytes of decoded audio that are kept in memory.
    pub cache_mib: usize,
}

/// Sounds that are mixed into items.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoiseRecipe {
    /// A folder or a manifest of them, from the folder of the recipe.
    pub data: std::path::PathBuf,
    /// Part of the items that get one.
    pub share: f64,
    /// Level of the item over that of its noise in decibels, uniform between the two.
    pub snr_db: [f64; 2],
}

impl Default for DataRecipe {
    fn default() -> Self {
        Self {
            segment: 1.0,
            batch: 8,
            resample: false,
            downmix: false,
            upmix: false,
            gain_db: [0.0, 0.0],
            silence_db: -60.0,
            speed: [1.0; 2],
            noise: None,
            threads: 2,
            cache_mib: 1024,
        }
    }
}

/// How the quantizer learns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuantizerRecipe {
    /// `ema` or `gradient`.
    pub learning: LearningKind,
    /// What a step keeps of the averages.
    pub decay: f32,
    /// How gradients pass the search.
    pub estimator: EstimatorKind,
    /// Rounds of k-means on the latents of the first batches; 0 for none. A run that goes on from a model file has none.
    pub kmeans: usize,
    /// Batches that k-means looks at; 0 for as many as give 16 rows for each entry of the largest codebook.
    pub kmeans_batches: u64,
    /// An entry used less than this part of the average is dead and is placed anew; 0 for never.
    pub restart: f32,
    /// Share of the items that are coded with fewer codebooks, evenly among `choices`.
    pub dropout: f64,
    /// Codebook counts of these; empty for those that the spec offers.
    pub choices: Vec<usize>,
}

impl Default for QuantizerRecipe {
    fn default() -> Self {
        Self {
            learning: LearningKind::Ema,
            decay: 0.99,
            estimator: EstimatorKind::StraightThrough,
            kmeans: 10,
            kmeans_batches: 0,
            restart: 0.1,
            dropout: 0.0,
            choices: Vec::new(),
        }
    }
}

/// A codec whose latents the encoder learns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherRecipe {
    /// Its model file, from the folder of the recipe: of the rate, channels, hop and latent channels of what is trained.
    pub model: std::path::PathBuf,
    /// Weight of the mean squared distance from its latents; never balanced.
    #[serde(default = "one")]
    pub weight: f32,
    /// Its latents are multiplied by this.
    #[serde(default = "one")]
    pub scale: f32,
    /// Quantizer and decoder get its latents and not the encoder's, so that no part waits for another; what they share is
    /// `optimizer.clip`.
    #[serde(default)]
    pub forced: bool,
}

fn one() -> f32 {
    1.0
}

/// See [`Learning`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LearningKind {
    /// By moving averages.
    Ema,
    /// By gradients.
    Gradient,
}

/// See [`Estimator`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EstimatorKind {
    /// As if the search were the identity.
    StraightThrough,
    /// As if it were a rotation and a scaling.
    Rotation,
}

/// Weights of the losses; 0 for none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossRecipe {
    /// Mean absolute difference of samples.
    pub waveform_l1: f32,
    /// Mean squared difference of samples.
    pub waveform_l2: f32,
    /// The negative ratio of signal to distortion, in decibels; see [`crate::loss::negative_si_sdr`].
    pub si_sdr: f32,
    /// Mel spectrograms.
    pub mel: f32,
    /// Weights inside of the mel loss: absolute difference of logarithms, of values, squared difference of logarithms.
    pub mel_terms: [f32; 3],
    /// Resolutions of the mel loss; empty for those of DAC that a segment is long enough for.
    pub mel_scales: Vec<MelScale>,
    /// Multi-resolution STFT.
    pub stft: f32,
    /// Resolutions of the STFT loss; empty for the usual three.
    pub stft_scales: Vec<StftScale>,
    /// Complex spectra with compressed magnitudes.
    pub compressed: f32,
    /// Resolutions of it; empty for the usual three.
    pub compressed_scales: Vec<StftScale>,
    /// Loudness patterns on the Bark scale; see [`crate::loss::LoudnessLoss`].
    pub loudness: f32,
    /// One minus the similarity of auditory images (NSIM); see [`crate::loss::SimilarityLoss`].
    pub similarity: f32,
    /// The discriminators' judgement.
    pub adversarial: f32,
    /// Its form.
    pub adversarial_kind: AdversarialKind,
    /// Difference of the discriminators' features.
    pub features: f32,
    /// How features are compared.
    pub feature_norm: FeatureNorm,
    /// Distance of latents from entries, for the encoder; never balanced.
    pub commitment: f32,
    /// The same for codebooks that learn by gradients.
    pub codebook: f32,
    /// Weights are shares of the gradient at the output and not factors (EnCodec).
    pub balance: bool,
    /// What a step keeps of the balancer's averages.
    pub balance_decay: f64,
}

impl Default for LossRecipe {
    fn default() -> Self {
        Self {
            waveform_l1: 0.0,
            waveform_l2: 0.0,
            si_sdr: 0.0,
            mel: 1.0,
            mel_terms: [1.0, 0.0, 0.0],
            mel_scales: Vec::new(),
            stft: 0.0,
            stft_scales: Vec::new(),
            compressed: 0.0,
            compressed_scales: Vec::new(),
            loudness: 0.0,
            similarity: 0.0,
            adversarial: 0.0,
            adversarial_kind: AdversarialKind::Hinge,
            features: 0.0,
            feature_norm: FeatureNorm::Relative,
            commitment: 0.25,
            codebook: 1.0,
            balance: false,
            balance_decay: 0.999,
        }
    }
}

/// How long a run is, and what it keeps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunRecipe {
    /// Steps in all.
    pub steps: u64,
    /// Batches whose gradients make a step.
    pub accumulate: u64,
    /// Precision of products while training, of codec and discriminators, where the device has it. Validation and what is
    /// exported have single precision.
    pub precision: Precision,
    /// The step at which the discriminators begin.
    pub discriminator_start: u64,
    /// What a step keeps of the average of weights that is validated and exported; 0 for no average.
    pub average: f64,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Checkpoints that are kept.
    pub keep: usize,
    /// Steps between validations; 0 for none.
    pub validate_every: u64,
    /// Items of a validation.
    pub validation_items: usize,
}

impl Default for RunRecipe {
    fn default() -> Self {
        Self {
            steps: 100_000,
            accumulate: 1,
            precision: Precision::F32,
            discriminator_start: 0,
            average: 0.0,
            checkpoint_every: 1000,
            keep: 3,
            validate_every: 1000,
            validation_items: 4,
        }
    }
}

impl Recipe {
    /// Reads a recipe.
    ///
    /// # Errors
    /// [`TrainError::Io`]; [`TrainError::Recipe`], which says which line or field is wrong.
    pub fn load(path: &Path) -> Result<Self, TrainError> {
        let text = std::fs::read_to_string(path).map_err(TrainError::io(path))?;
        let mut recipe = Self::parse(path, &text)?;
        // Files that it names are beside it.
        let base = path.parent().unwrap_or(Path::new("."));
        let noise = recipe.data.noise.as_mut().map(|noise| &mut noise.data);
        let teacher = recipe.teacher.as_mut().map(|teacher| &mut teacher.model);
        for file in [&mut recipe.model.model, &mut recipe.model.spec].into_iter().flatten().chain(noise).chain(teacher)
        {
            *file = base.join(&*file);
        }
        Ok(recipe)
    }

    /// Reads a recipe's text; `path` is for messages.
    ///
    /// # Errors
    /// [`TrainError::Recipe`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, TrainError> {
        let error = |reason: String| TrainError::Recipe { path: path.to_path_buf(), reason };
        let recipe: Self = toml::from_str(text).map_err(|e| {
            let line = e.span().map(|s| text[..s.start.min(text.len())].matches('\n').count() + 1);
            error(line.map_or_else(|| e.message().to_owned(), |line| format!("line {line}: {}", e.message())))
        })?;
        match recipe.contradiction() {
            Some((field, reason)) => {
                let key = field.rsplit('.').next().unwrap_or(field);
                let at = text.lines().position(|l| l.split('=').next().is_some_and(|k| k.trim() == key));
                Err(error(match at {
                    Some(line) => format!("line {}: `{field}` {reason}", line + 1),
                    None => format!("`{field}` {reason}"),
                }))
            }
            None => Ok(recipe),
        }
    }

    /// The first field that cannot be as it is, and why.
    fn contradiction(&self) -> Option<(&'static str, &'static str)> {
        let (m, d, q, l, r) = (&self.model, &self.data, &self.quantizer, &self.loss, &self.run);
        let sources = [m.system.is_some(), m.model.is_some(), m.spec.is_some()].iter().filter(|s| **s).count();
        let adversarial = l.adversarial != 0.0 || l.features != 0.0;
        let weights = [
            l.waveform_l1,
            l.waveform_l2,
            l.si_sdr,
            l.mel,
            l.stft,
            l.compressed,
            l.loudness,
            l.similarity,
            l.adversarial,
            l.features,
            l.commitment,
            l.codebook,
        ];
        let optimizers =
            [("optimizer.rate", &self.optimizer), ("discriminator_optimizer.rate", &self.discriminator_optimizer)];
        let bad_noise = |n: &NoiseRecipe| {
            !((0.0..=1.0).contains(&n.share) && n.snr_db[0] <= n.snr_db[1] && n.snr_db.iter().all(|s| s.abs() <= 120.0))
        };
        let bad_teacher = |t: &TeacherRecipe| [t.weight, t.scale].iter().any(|v| !(*v > 0.0 && v.is_finite()));
        let rules: [(bool, &'static str, &'static str); 23] = [
            (sources != 1, "model", "needs one of `system`, `model` and `spec`"),
            (m.stages == Some(0), "model.stages", "must be at least 1"),
            (!(d.segment > 0.0 && d.segment <= 3600.0), "data.segment", "must be above 0 and at most 3600 seconds"),
            (!(1..=65_536).contains(&d.batch), "data.batch", "must be from 1 to 65536"),
            (!(1..=64).contains(&d.threads), "data.threads", "must be from 1 to 64"),
            (
                !(d.gain_db[0] <= d.gain_db[1] && d.gain_db.iter().all(|g| g.abs() <= 120.0)),
                "data.gain_db",
                "must be two numbers, the lower first, within ±120",
            ),
            (
                !(d.speed[0] <= d.speed[1] && d.speed.iter().all(|s| (0.25..=4.0).contains(s))),
                "data.speed",
                "must be two numbers of 0.25 to 4, the lower first",
            ),
            (
                d.noise.as_ref().is_some_and(bad_noise),
                "data.noise",
                "needs a `share` of 0 to 1 and two numbers in `snr_db`, the lower first, within ±120",
            ),
            (d.silence_db.is_nan(), "data.silence_db", "must be a number"),
            (q.kmeans_batches > 65_536, "quantizer.kmeans_batches", "must be at most 65536"),
            (!(0.0..1.0).contains(&q.decay), "quantizer.decay", "must be at least 0 and below 1"),
            (!(0.0..1.0).contains(&q.restart), "quantizer.restart", "must be at least 0 and below 1"),
            (!(0.0..=1.0).contains(&q.dropout), "quantizer.dropout", "must be from 0 to 1"),
            (self.teacher.as_ref().is_some_and(bad_teacher), "teacher", "needs a `weight` and a `scale` above 0"),
            (
                weights.iter().any(|w| !(*w >= 0.0 && w.is_finite())),
                "loss",
                "has a weight that is negative or no number",
            ),
            (
                weights[..9].iter().all(|w| *w == 0.0) && self.teacher.is_none(),
                "loss",
                "has no weight but those of the quantizer: nothing to train for",
            ),
            (adversarial && self.discriminators.is_empty(), "loss.adversarial", "needs [[discriminators]]"),
            (
                !adversarial && !self.discriminators.is_empty(),
                "loss.adversarial",
                "and `loss.features` are 0, so that the discriminators would be trained for nothing",
            ),
            (r.steps == 0, "run.steps", "must be at least 1"),
            (r.accumulate == 0, "run.accumulate", "must be at least 1"),
            (r.checkpoint_every == 0 || r.keep == 0, "run.keep", "and `run.checkpoint_every` must be at least 1"),
            (!(0.0..1.0).contains(&r.average), "run.average", "must be at least 0 and below 1"),
            (!(0.0..1.0).contains(&l.balance_decay), "loss.balance_decay", "must be at least 0 and below 1"),
        ];
        let own = rules.into_iter().find(|(wrong, ..)| *wrong).map(|(_, field, reason)| (field, reason));
        own.or_else(|| {
            let good = |rate: f64| rate > 0.0 && rate.is_finite();
            let bad = |o: &OptimizerRecipe| !(good(o.rate) && o.clip >= 0.0);
            let bad_muon = |m: &MuonRecipe| !(good(m.rate) && (0.0..1.0).contains(&m.momentum)) || m.tensors.is_empty();
            let mut found = optimizers.iter().filter(|(_, o)| bad(o)).map(|(field, _)| *field);
            let muon = || optimizers.iter().any(|(_, o)| o.muon.as_ref().is_some_and(bad_muon));
            found.next().map(|field| (field, "must be above 0, and `clip` at least 0")).or_else(|| {
                muon().then_some((
                    "muon",
                    "needs a `rate` above 0, a `momentum` of 0 to 1, and parts of names in `tensors`",
                ))
            })
        })
    }

    /// The spec of the model, and the model file if it goes on from one.
    ///
    /// # Errors
    /// There is no such system or file, or `stages` is more than there are.
    pub fn spec(&self, path: &Path) -> Result<(CodecSpec, Option<ModelFile>), TrainError> {
        let error = |reason: String| TrainError::Recipe { path: path.to_path_buf(), reason };
        let (mut spec, model) = if let Some(name) = &self.model.system {
            let known = codec::import::published_specs();
            let spec = codec::import::published_spec(name);
            (spec.ok_or_else(|| TrainError::UnknownSystem { name: name.clone(), known })?, None)
        } else if let Some(file) = &self.model.model {
            let model = ModelFile::open(file)?;
            (model.spec().clone(), Some(model))
        } else {
            let file = self.model.spec.as_deref().unwrap_or(Path::new(""));
            let text = std::fs::read_to_string(file).map_err(TrainError::io(file))?;
            let spec = serde_json::from_str(&text);
            (spec.map_err(|e| error(format!("`model.spec`, {}: {e}", file.display())))?, None)
        };
        if let Some(count) = self.model.stages {
            let Quantizer::Residual { stages, .. } = &mut spec.quantizer else {
                return Err(error("`model.stages` is given, and the quantizer is not residual".to_owned()));
            };
            if count > stages.len() {
                return Err(error(format!("`model.stages` is {count}, and the quantizer has {}", stages.len())));
            }
            let per_stage = books(&stages[0]);
            stages.truncate(count);
            let most = (count * per_stage) as u32;
            spec.codebook_choices.retain(|n| *n < most);
            spec.codebook_choices.push(most);
        }
        Ok((spec, model))
    }

    /// What audio is made to fit.
    pub fn fit(&self, spec: &CodecSpec) -> Fit {
        let d = &self.data;
        let allow = Allow { resample: d.resample, downmix: d.downmix, upmix: d.upmix };
        Fit { sample_rate: spec.sample_rate, channels: spec.channels as usize, allow }
    }

    /// How items are cut: whole frames.
    pub fn cut(&self, spec: &CodecSpec) -> Cut {
        let samples = (self.data.segment * f64::from(spec.sample_rate)).round() as usize;
        Cut {
            items: self.data.batch,
            part: (0, 1),
            samples: samples.max(1).next_multiple_of(spec.hop.max(1) as usize),
            gain_db: self.data.gain_db,
            silence_db: self.data.silence_db,
            speed: self.data.speed,
            noise: self.data.noise.as_ref().map(|n| Noise { share: n.share, snr_db: n.snr_db }),
            seed: self.seed,
        }
    }

    /// The quantizer's rules.
    pub fn rules(&self) -> Rules {
        let q = &self.quantizer;
        Rules {
            learning: match q.learning {
                LearningKind::Ema => Learning::Ema { decay: q.decay },
                LearningKind::Gradient => Learning::Gradient,
            },
            estimator: match q.estimator {
                EstimatorKind::StraightThrough => Estimator::StraightThrough,
                EstimatorKind::Rotation => Estimator::Rotation,
            },
            kmeans: if self.model.model.is_some() { 0 } else { q.kmeans },
            restart: q.restart,
        }
    }

    /// Weights of the losses at the output, by name.
    pub fn weights(&self) -> BTreeMap<String, f32> {
        let l = &self.loss;
        let all = [
            ("waveform_l1", l.waveform_l1),
            ("waveform_l2", l.waveform_l2),
            ("si_sdr", l.si_sdr),
            ("mel", l.mel),
            ("stft", l.stft),
            ("compressed", l.compressed),
            ("loudness", l.loudness),
            ("similarity", l.similarity),
            ("adversarial", l.adversarial),
            ("features", l.features),
        ];
        all.into_iter().filter(|(_, w)| *w != 0.0).map(|(name, w)| (name.to_owned(), w)).collect()
    }
}

/// Codes of a part of a quantizer.
fn books(q: &Quantizer) -> usize {
    match q {
        Quantizer::Residual { stages: parts, .. }
        | Quantizer::Grouped { groups: parts }
        | Quantizer::Split { parts } => parts.iter().map(books).sum(),
        Quantizer::Fsq(f) => f.stages as usize,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str = "[model]\nsystem = \"encodec-24khz\"\n";

    fn error(text: &str) -> String {
        Recipe::parse(Path::new("r.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn the_smallest_recipe() {
        let recipe = Recipe::parse(Path::new("r.toml"), SMALLEST).unwrap();
        let (spec, _) = recipe.spec(Path::new("r.toml")).unwrap();
        assert_eq!((spec.name.as_str(), recipe.cut(&spec).samples), ("encodec-24khz", 24_000));
    }

    #[test]
    fn mistakes_are_found_with_their_line() {
        let with = |text: &str| error(&format!("{SMALLEST}{text}"));
        assert!(
            with("[data]\nbatches = 3\n").contains("line 4: unknown field `batches`"),
            "{}",
            with("[data]\nbatches = 3\n")
        );
        assert!(with("[data]\nbatch = \"many\"\n").contains("line 4"));
        assert!(with("[data]\nsegment = 1.0\nbatch = 0\n").contains("line 5: `data.batch`"));
        assert!(with("[data]\nsegment = nan\n").contains("line 4: `data.segment`"));
        assert!(with("[loss]\nadversarial = 1.0\n").contains("line 4: `loss.adversarial` needs [[discriminators]]"));
        assert!(with("[teacher]\nmodel = \"t\"\nscale = 0.0\n").contains("`teacher` needs"));
        assert!(with("[teacher]\nmodel = \"t\"\nweight = nan\n").contains("`teacher` needs"));
        assert!(with("[teacher]\nweight = 1.0\n").contains("line 3: missing field `model`"));
        assert!(with("[loss]\nmel = 0.0\n").contains("`loss` has no weight"));
        assert!(error("[model]\nsystem = \"a\"\nspec = \"b\"\n").contains("one of"));
        assert!(error("[model\n").contains("line 1"));
    }

    #[test]
    fn stages_are_cut_with_their_bitrates() {
        let text = "[model]\nsystem = \"encodec-24khz\"\nstages = 8\n";
        let recipe = Recipe::parse(Path::new("r.toml"), text).unwrap();
        let (spec, _) = recipe.spec(Path::new("r.toml")).unwrap();
        assert_eq!((books(&spec.quantizer), spec.codebook_choices), (8, vec![2, 4, 8]));
        let many = Recipe::parse(Path::new("r.toml"), &text.replace('8', "99")).unwrap();
        assert!(many.spec(Path::new("r.toml")).unwrap_err().to_string().contains("32"));
    }
}

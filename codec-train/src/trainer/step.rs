//! One step.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};

use super::{StepReport, Trainer, of_books};
use crate::{
    Grads, Tracking, TrainError, Vars,
    data::Batch,
    group::{self, together},
    loss::{self, Judged},
    net::Random,
    quantizer::{BookUse, Limits},
};

/// Batches that a k-means start looks at by itself, at most.
const START_BATCHES: u64 = 256;

/// Sums over the batches of a step.
#[derive(Default)]
struct Sums {
    losses: BTreeMap<String, f64>,
    norms: BTreeMap<String, f64>,
    grads: Grads,
    judge_grads: Grads,
    uses: Vec<BookUse>,
}

impl Sums {
    fn note(&mut self, name: &str, value: &Tensor<1>, batches: usize) {
        let value = f64::from(value.clone().inner().into_scalar::<f32>());
        *self.losses.entry(name.to_owned()).or_default() += value / batches as f64;
    }
}

impl Trainer {
    /// Before the first step: codebooks by k-means on the latents of the first batches, which are cut again for the steps. From the
    /// seed alone, so that a run that stopped before its first step starts them as it would have.
    pub(super) fn start_codebooks(&mut self) -> Result<(), TrainError> {
        let quantizer = self.codec.quantizer();
        if !quantizer.starts() {
            return Ok(());
        }
        let vars = self.weights.vars(Tracking::None);
        let (mut latents, mut rows) = (Vec::new(), 0);
        for index in 0.. {
            let batch = together(&*self.group, self.cut.batch(&self.corpus, index))?;
            let signal = self.signal(&batch).inner();
            let latent = match self.teacher.as_ref().filter(|teacher| teacher.forced()) {
                Some(teacher) => teacher.latent(signal)?,
                None => self.codec.encode(&vars, signal)?,
            };
            let [items, channels, length] = latent.dims();
            for part in self.group.gather(&group::to_bytes(&crate::host(latent))) {
                let values = TensorData::new(group::from_bytes(&part), [items, channels, length]);
                latents.push(Tensor::<3>::from_data(values, &self.device));
                rows += items * length;
            }
            let enough = match self.recipe.quantizer.kmeans_batches {
                0 => rows >= quantizer.start_rows() || index + 1 >= START_BATCHES,
                batches => index + 1 >= batches,
            };
            // Too short for a row: the step says so.
            if enough || items * length == 0 {
                break;
            }
        }
        quantizer.start(&*self.group, &mut self.weights, Tensor::cat(latents, 0), self.recipe.seed)?;
        if let Some(average) = &mut self.average {
            *average = self.weights.clone();
        }
        Ok(())
    }

    /// Trains on the batches of one step. Codec and discriminators both see the other as it was before the step.
    ///
    /// Each process computes its part of the mean over the whole batch, so that gradients are added up over processes.
    pub(super) fn take_step(&mut self, batches: &[Batch]) -> Result<StepReport, TrainError> {
        let step = self.step;
        let weights = self.weights.vars(Tracking::Gradients).in_precision(self.recipe.run.precision);
        let mut sums = Sums::default();
        for batch in batches {
            let real = self.signal(batch);
            self.learn(batch, real, &weights, batches.len(), &mut sums)?;
        }
        self.put_together(&mut sums);
        let not_finite = |what: &str, value: f64| {
            let files: Vec<_> = batches.iter().flat_map(|b| &b.files).map(|f| f.display().to_string()).collect();
            let files = self.group.gather(files.join("\n").as_bytes());
            let files =
                files.iter().flat_map(|f| String::from_utf8_lossy(f).lines().map(Into::into).collect::<Vec<_>>());
            TrainError::NotFinite {
                step,
                what: what.to_owned(),
                value,
                files: files.collect(),
                checkpoint: self.last_checkpoint.clone(),
            }
        };
        if let Some((name, value)) = sums.losses.iter().find(|(_, v)| !v.is_finite()) {
            return Err(not_finite(name, *value));
        }
        let loss_scale = self.scale.state().map(|(scale, _)| scale);
        let factor = 1.0 / (batches.len() as f32 * self.scale.scale());
        sums.grads.scale(factor);
        sums.judge_grads.scale(factor);
        let [norm, judge_norm] = [sums.grads.norm(), sums.judge_grads.norm()];
        let norms = [("gradient of the codec", norm), ("gradient of the discriminators", judge_norm)];
        let wrong = norms.into_iter().find(|(_, norm)| !norm.is_finite());
        let goes_on = self.scale.step(wrong.is_none());
        if let Some((what, norm)) = wrong {
            if !goes_on {
                return Err(not_finite(what, norm));
            }
            // Left out for this step; the next one has half the scale.
            (sums.grads, sums.judge_grads) = Default::default();
        }
        let steps = self.recipe.run.steps;
        let rate = self.recipe.optimizer.rate_at(step, steps);
        if !sums.grads.0.is_empty() {
            self.optimizer.step(&*self.group, &mut self.weights, sums.grads, norm, rate);
            sums.norms.insert("codec".to_owned(), norm);
        }
        if !sums.judge_grads.0.is_empty() {
            let since = step.saturating_sub(self.recipe.run.discriminator_start);
            let judge_rate = self.recipe.discriminator_optimizer.rate_at(since, steps);
            self.judge_optimizer.step(&*self.group, &mut self.judges, sums.judge_grads, judge_norm, judge_rate);
            sums.norms.insert("discriminators".to_owned(), judge_norm);
        }
        let quantizer = self.codec.quantizer();
        let (books, revived) = quantizer.update(&*self.group, &mut self.weights, &sums.uses, self.recipe.seed, step)?;
        self.optimizer.forget(&revived);
        if let Some(average) = &mut self.average {
            follow(average, &self.weights, self.recipe.run.average as f32);
        }
        let (perplexity, dead) = of_books(&books);
        Ok(StepReport { step, losses: sums.losses, gradient_norms: sums.norms, loss_scale, rate, perplexity, dead })
    }

    /// Losses and gradients of all processes.
    fn put_together(&self, sums: &mut Sums) {
        if self.group.size() == 1 {
            return;
        }
        let mut losses: Vec<f64> = sums.losses.values().copied().collect();
        self.group.sum_f64(&mut losses);
        for (own, all) in sums.losses.values_mut().zip(losses) {
            *own = all / self.group.size() as f64;
        }
        for grads in [&mut sums.grads, &mut sums.judge_grads] {
            let mut values: Vec<f32> = grads.0.values().flat_map(|g| crate::host(g.clone())).collect();
            self.group.sum(&mut values);
            let mut values = values.as_slice();
            for grad in grads.0.values_mut() {
                let own = values.split_off(..grad.dims()[0]).unwrap_or_default();
                *grad = Tensor::from_floats(own, &self.device);
            }
        }
    }

    fn judge_vars(&self, tracking: Tracking) -> Vars {
        self.judges.vars(tracking).in_precision(self.recipe.run.precision)
    }

    fn signal(&self, batch: &Batch) -> Tensor<3> {
        let channels = self.codec.spec().channels as usize;
        let items = batch.files.len();
        let shape = [items, channels, batch.data.len() / (items * channels).max(1)];
        Tensor::from_data(TensorData::new(batch.data.clone(), shape), &self.device.clone().autodiff())
    }

    /// Adds the gradients of one batch.
    fn learn(
        &mut self,
        batch: &Batch,
        real: Tensor<3>,
        weights: &Vars,
        batches: usize,
        sums: &mut Sums,
    ) -> Result<(), TrainError> {
        let limits = self.limits(batch);
        let (rank, size) = (self.group.rank(), self.group.size());
        let share = self.scale.scale() / size as f32;
        let mut latent = self.codec.encode(weights, real.clone())?;
        let mut taught = None;
        if let Some(teacher) = &self.teacher {
            let (goal, distance) = teacher.teach(&latent, real.clone())?;
            sums.note("teacher", &distance, batches);
            taught = Some(distance.mul_scalar(teacher.weight() * share));
            if teacher.forced() {
                latent = goal;
            }
        }
        let limits = limits.as_deref().map(|all| Limits { all, rank, size });
        let quantized = self.codec.quantizer().forward_part(weights, latent, limits)?;
        let fake = self.codec.decode(weights, quantized.latent)?;
        let samples = fake.dims()[2].min(real.dims()[2]);
        let (fake, real) = (fake.slice_dim(2, 0..samples), real.slice_dim(2, 0..samples));
        sums.note("commitment", &quantized.commitment, batches);
        sums.note("codebook", &quantized.codebook, batches);
        for (i, used) in quantized.uses.into_iter().enumerate() {
            match sums.uses.get_mut(i) {
                Some(sum) => sum.add(used),
                None => sums.uses.push(used),
            }
        }
        let judging = !self.discriminators.is_empty() && self.step >= self.recipe.run.discriminator_start;
        let l = &self.recipe.loss;
        let mut inner =
            quantized.commitment.mul_scalar(l.commitment * share) + quantized.codebook.mul_scalar(l.codebook * share);
        if let Some(taught) = taught {
            inner = inner + taught;
        }
        let judged_real = if judging {
            // The judges' own loss, on a decoded signal without a past.
            let vars = self.judge_vars(Tracking::Gradients);
            let seen_real = self.discriminators.forward(&vars, real.clone())?;
            let seen_fake = self.discriminators.forward(&vars, fake.clone().detach())?;
            if let Some(loss) = loss::discriminator_loss(l.adversarial_kind, &seen_real, &seen_fake) {
                sums.note("discriminators", &loss, batches);
                let grads = vars.gradients(&mut loss.mul_scalar(share).backward());
                sums.judge_grads.add(grads);
            }
            // What the codec is compared with, by the discriminators as they were before the step too.
            seen_real.iter().map(Judged::inner).collect()
        } else {
            Vec::new()
        };
        let names: Vec<String> = self.balancer.weights.keys().cloned().collect();
        let total = if self.recipe.loss.balance {
            let output = fake.clone().detach();
            let mut gradients = Vec::new();
            let whole = 1.0 / self.scale.scale();
            for name in &names {
                // A graph for each loss: what runs backwards is used up.
                let leaf = output.clone().require_grad();
                let judged = self.judged(std::slice::from_ref(name), &leaf, &judged_real)?;
                let judged = [judged_real.as_slice(), &judged];
                let Some(loss) = self.output_loss(name, leaf.clone(), real.clone(), judged) else { continue };
                sums.note(name, &loss, batches);
                if let Some(gradient) = leaf.grad(&loss.mul_scalar(share).backward()) {
                    gradients.push((name.as_str(), gradient.mul_scalar(whole)));
                }
            }
            match self.balancer.combine_in(&*self.group, gradients) {
                Some(balanced) => {
                    for (name, norm) in balanced.norms {
                        *sums.norms.entry(format!("output.{name}")).or_default() += norm / batches as f64;
                    }
                    (fake * balanced.gradient.autodiff()).sum().mul_scalar(self.scale.scale()) + inner
                }
                None => inner,
            }
        } else {
            let mut total = inner;
            let judged = self.judged(&names, &fake, &judged_real)?;
            let judged = [judged_real.as_slice(), &judged];
            for name in &names {
                let weight = self.balancer.weights.get(name).copied().unwrap_or_default();
                let Some(loss) = self.output_loss(name, fake.clone(), real.clone(), judged) else { continue };
                sums.note(name, &loss, batches);
                total = total + loss.mul_scalar(weight * share);
            }
            total
        };
        sums.grads.add(weights.gradients(&mut total.backward()));
        Ok(())
    }

    /// What the discriminators, as they are, say of the decoded signal, if a loss of these names goes by it. They have begun if they
    /// said something of the real one.
    fn judged(&self, names: &[String], fake: &Tensor<3>, of_real: &[Judged]) -> Result<Vec<Judged>, TrainError> {
        if of_real.is_empty() || !names.iter().any(|name| ["adversarial", "features"].contains(&name.as_str())) {
            return Ok(Vec::new());
        }
        self.discriminators.forward(&self.judge_vars(Tracking::Constant), fake.clone())
    }

    /// A loss of the decoded signal by name, `judged` being what the discriminators say of the real and the decoded one; `None`
    /// before they begin.
    fn output_loss(
        &self,
        name: &str,
        fake: Tensor<3>,
        real: Tensor<3>,
        [of_real, of_fake]: [&[Judged]; 2],
    ) -> Option<Tensor<1>> {
        let l = &self.recipe.loss;
        match name {
            "waveform_l1" => Some(loss::waveform_l1(fake, real)),
            "waveform_l2" => Some(loss::waveform_l2(fake, real)),
            "si_sdr" => Some(loss::negative_si_sdr(fake, real)),
            "mel" => Some(self.spectral.mel.forward(fake, real)),
            "stft" => Some(self.spectral.stft.forward_in(&*self.group, fake, real)),
            "compressed" => Some(self.spectral.compressed.forward(fake, real)),
            "loudness" => Some(self.spectral.loudness.forward(fake, real)),
            "similarity" => Some(self.spectral.similarity.forward(fake, real)),
            "adversarial" if !of_real.is_empty() => loss::generator_loss(l.adversarial_kind, of_fake),
            "features" if !of_real.is_empty() => loss::feature_loss_in(&*self.group, l.feature_norm, of_real, of_fake),
            _ => None,
        }
    }

    /// How many codebooks each item of a batch uses, of all processes.
    fn limits(&self, batch: &Batch) -> Option<Vec<usize>> {
        let q = &self.recipe.quantizer;
        if q.dropout == 0.0 {
            return None;
        }
        let all = self.codec.quantizer().codebooks();
        let mut random = Random::new(self.recipe.seed, "dropout", batch.index);
        let one = |_| {
            let (dropped, choice) = (random.unit() < q.dropout, random.below(self.choices.len()));
            if dropped { self.choices[choice] } else { all }
        };
        Some((0..batch.files.len() * self.group.size()).map(one).collect())
    }
}

/// Moves averages of weights towards the weights. What no optimiser changes is taken over as it is.
fn follow(average: &mut crate::Store, weights: &crate::Store, decay: f32) {
    for (name, entry) in weights.iter() {
        let value = match average.get(name) {
            Some(old) if entry.trained => {
                old.value.clone().mul_scalar(decay) + entry.value.clone().mul_scalar(1.0 - decay)
            }
            _ => entry.value.clone(),
        };
        average.set(name, value);
    }
}

//! One step.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};

use super::{StepReport, Trainer, of_books};
use crate::{
    Grads, Tracking, TrainError, Vars,
    data::Batch,
    loss::{self, Judged},
    net::Random,
    quantizer::BookUse,
};

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
    /// Trains on the batches of one step. Codec and discriminators both see the other as it was before the step.
    pub(super) fn take_step(&mut self, batches: &[Batch]) -> Result<StepReport, TrainError> {
        let step = self.step;
        let mut weights = self.weights.vars(Tracking::Gradients);
        let mut sums = Sums::default();
        for batch in batches {
            let real = self.signal(batch);
            if step == 0 && batch.index == 0 && self.recipe.rules().kmeans > 0 {
                let latent = self.codec.encode(&self.weights.vars(Tracking::None), real.clone().inner())?;
                self.codec.quantizer().start(&mut self.weights, latent, self.recipe.seed)?;
                weights = self.weights.vars(Tracking::Gradients);
            }
            self.learn(batch, real, &weights, batches.len(), &mut sums)?;
        }
        let files = || batches.iter().flat_map(|b| b.files.clone()).collect::<Vec<_>>();
        let not_finite = |what: &str, value: f64| TrainError::NotFinite {
            step,
            what: what.to_owned(),
            value,
            files: files(),
            checkpoint: self.last_checkpoint.clone(),
        };
        if let Some((name, value)) = sums.losses.iter().find(|(_, v)| !v.is_finite()) {
            return Err(not_finite(name, *value));
        }
        sums.grads.scale(1.0 / batches.len() as f32);
        sums.judge_grads.scale(1.0 / batches.len() as f32);
        for (what, grads) in
            [("gradient of the codec", &sums.grads), ("gradient of the discriminators", &sums.judge_grads)]
        {
            let norm = grads.norm();
            if !norm.is_finite() {
                return Err(not_finite(what, norm));
            }
        }
        let steps = self.recipe.run.steps;
        let rate = self.recipe.optimizer.rate_at(step, steps);
        let norm = self.optimizer.step(&mut self.weights, sums.grads, rate);
        sums.norms.insert("codec".to_owned(), norm);
        if !sums.judge_grads.0.is_empty() {
            let since = step.saturating_sub(self.recipe.run.discriminator_start);
            let judge_rate = self.recipe.discriminator_optimizer.rate_at(since, steps);
            let norm = self.judge_optimizer.step(&mut self.judges, sums.judge_grads, judge_rate);
            sums.norms.insert("discriminators".to_owned(), norm);
        }
        let quantizer = self.codec.quantizer();
        let (books, revived) = quantizer.update(&mut self.weights, &sums.uses, self.recipe.seed, step)?;
        self.optimizer.forget(&revived);
        if let Some(average) = &mut self.average {
            follow(average, &self.weights, self.recipe.run.average as f32);
        }
        let (perplexity, dead) = of_books(&books);
        Ok(StepReport { step, losses: sums.losses, gradient_norms: sums.norms, rate, perplexity, dead })
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
        let latent = self.codec.encode(weights, real.clone())?;
        let quantized = self.codec.quantize(weights, latent, limits.as_deref())?;
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
        let quantizer_loss = quantized.commitment.mul_scalar(l.commitment) + quantized.codebook.mul_scalar(l.codebook);
        let judged_real = if judging {
            // The judges' own loss, on a decoded signal without a past.
            let vars = self.judges.vars(Tracking::Gradients);
            let seen_real = self.discriminators.forward(&vars, real.clone())?;
            let seen_fake = self.discriminators.forward(&vars, fake.clone().detach())?;
            if let Some(loss) = loss::discriminator_loss(l.adversarial_kind, &seen_real, &seen_fake) {
                sums.note("discriminators", &loss, batches);
                let grads = vars.gradients(&mut loss.backward());
                sums.judge_grads.add(grads);
            }
            self.discriminators.forward(&self.judges.vars(Tracking::None), real.clone().inner())?
        } else {
            Vec::new()
        };
        let names: Vec<String> = self.balancer.weights.keys().cloned().collect();
        let total = if self.recipe.loss.balance {
            let output = fake.clone().detach();
            let mut gradients = Vec::new();
            for name in &names {
                // A graph for each loss: what runs backwards is used up.
                let leaf = output.clone().require_grad();
                let Some(loss) = self.output_loss(name, leaf.clone(), real.clone(), &judged_real)? else { continue };
                sums.note(name, &loss, batches);
                if let Some(gradient) = leaf.grad(&loss.backward()) {
                    gradients.push((name.as_str(), gradient));
                }
            }
            match self.balancer.combine(gradients) {
                Some(balanced) => {
                    for (name, norm) in balanced.norms {
                        *sums.norms.entry(format!("output.{name}")).or_default() += norm / batches as f64;
                    }
                    (fake * balanced.gradient.autodiff()).sum() + quantizer_loss
                }
                None => quantizer_loss,
            }
        } else {
            let mut total = quantizer_loss;
            for name in &names {
                let weight = self.balancer.weights.get(name).copied().unwrap_or_default();
                let Some(loss) = self.output_loss(name, fake.clone(), real.clone(), &judged_real)? else { continue };
                sums.note(name, &loss, batches);
                total = total + loss.mul_scalar(weight);
            }
            total
        };
        sums.grads.add(weights.gradients(&mut total.backward()));
        Ok(())
    }

    /// A loss of the decoded signal by name; `None` before the discriminators begin.
    fn output_loss(
        &self,
        name: &str,
        fake: Tensor<3>,
        real: Tensor<3>,
        judged_real: &[Judged],
    ) -> Result<Option<Tensor<1>>, TrainError> {
        let judged = |fake: Tensor<3>| self.discriminators.forward(&self.judges.vars(Tracking::Constant), fake);
        let l = &self.recipe.loss;
        Ok(match name {
            "waveform_l1" => Some(loss::waveform_l1(fake, real)),
            "waveform_l2" => Some(loss::waveform_l2(fake, real)),
            "mel" => Some(self.mel.forward(fake, real)),
            "stft" => Some(self.stft.forward(fake, real)),
            "compressed" => Some(self.compressed.forward(fake, real)),
            "adversarial" if !judged_real.is_empty() => loss::generator_loss(l.adversarial_kind, &judged(fake)?),
            "features" if !judged_real.is_empty() => loss::feature_loss(l.feature_norm, judged_real, &judged(fake)?),
            _ => None,
        })
    }

    /// How many codebooks each item of a batch uses.
    fn limits(&self, batch: &Batch) -> Option<Vec<usize>> {
        let q = &self.recipe.quantizer;
        if q.dropout == 0.0 {
            return None;
        }
        let all = self.codec.quantizer().codebooks();
        let mut random = Random::new(self.recipe.seed, "dropout", batch.index);
        let one = |_: &_| {
            let (dropped, choice) = (random.unit() < q.dropout, random.below(self.choices.len()));
            if dropped { self.choices[choice] } else { all }
        };
        Some(batch.files.iter().map(one).collect())
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

//! Optimisation by name: AdamW, or Muon for chosen matrices, with all its state open to checkpoints.

use std::{collections::BTreeMap, f64::consts::PI};

use burn::{
    optim::{
        AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState, Muon, MuonConfig, Optimizer as _,
        momentum::MomentumConfig,
    },
    tensor::Tensor,
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{Grads, Store, cpu::Operand, group::Group, quantizer::Revived};

/// How a network is optimised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerRecipe {
    /// Learning rate at its highest.
    pub rate: f64,
    /// Decay of the first and second moment.
    pub betas: [f32; 2],
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Decoupled weight decay of tensors of two or more dimensions (Loshchilov & Hutter 2019).
    pub weight_decay: f32,
    /// The gradient's norm is brought down to this where it is greater; 0 for never.
    pub clip: f64,
    /// Steps over which the rate rises from zero.
    pub warmup: u64,
    /// What it does after that.
    pub schedule: Schedule,
    /// Matrices that are optimised by Muon; none if not given.
    pub muon: Option<MuonRecipe>,
}

/// Muon (Jordan et al. 2024): of the momentum of a matrix's gradients only the directions count, all singular values being
/// made one by Newton-Schulz iterations. For hidden layers; clipped and scheduled with the rest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MuonRecipe {
    /// Learning rate at its highest, times `sqrt(max(1, rows / columns))`.
    pub rate: f64,
    /// What a step keeps of the momentum (Nesterov's).
    #[serde(default = "muon_momentum")]
    pub momentum: f32,
    /// Parts of names: tensors of two axes that have one of them.
    pub tensors: Vec<String>,
}

fn muon_momentum() -> f32 {
    0.95
}

impl Default for OptimizerRecipe {
    fn default() -> Self {
        Self {
            rate: 3e-4,
            betas: [0.8, 0.99],
            epsilon: 1e-8,
            weight_decay: 0.0,
            clip: 0.0,
            warmup: 0,
            schedule: Schedule::Constant,
            muon: None,
        }
    }
}

/// Learning rates over time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// The same always.
    Constant,
    /// Multiplied by `factor` each step.
    Exponential {
        /// A little below 1.
        factor: f64,
    },
    /// Half a cosine down to `floor` times the rate at the end of the run (Loshchilov & Hutter 2017).
    Cosine {
        /// Part of the rate that is left at the end.
        floor: f64,
    },
}

impl OptimizerRecipe {
    /// The learning rate of step `step` (from 0) of `steps`.
    pub fn rate_at(&self, step: u64, steps: u64) -> f64 {
        if step < self.warmup {
            return self.rate * (step + 1) as f64 / self.warmup as f64;
        }
        let after = (step - self.warmup) as f64;
        self.rate
            * match self.schedule {
                Schedule::Constant => 1.0,
                Schedule::Exponential { factor } => factor.powf(after),
                Schedule::Cosine { floor } => {
                    let part = (after / steps.saturating_sub(self.warmup).max(1) as f64).min(1.0);
                    floor + (1.0 - floor) * 0.5 * (1.0 + (PI * part).cos())
                }
            }
    }
}

/// An optimiser and its moments.
#[derive(Clone)]
pub struct Optimizer {
    recipe: OptimizerRecipe,
    decayed: AdamW,
    plain: AdamW,
    muon: Muon,
    moments: BTreeMap<String, Moments>,
}

/// What is kept of one tensor's gradients.
#[derive(Clone, Debug)]
pub struct Moments {
    /// Steps taken.
    pub time: usize,
    /// Average of gradients; of Muon, their momentum.
    pub first: Tensor<1>,
    /// Average of their squares, of AdamW.
    pub second: Option<Tensor<1>>,
}

impl Optimizer {
    /// An optimiser with no past.
    pub fn new(recipe: &OptimizerRecipe) -> Self {
        let config = |decay: f32| {
            AdamWConfig::new()
                .with_beta_1(recipe.betas[0])
                .with_beta_2(recipe.betas[1])
                .with_epsilon(recipe.epsilon)
                .with_weight_decay(decay)
                .build()
        };
        Self {
            recipe: recipe.clone(),
            decayed: config(recipe.weight_decay),
            plain: config(0.0),
            // The momentum is kept here, open to checkpoints.
            muon: MuonConfig::new()
                .with_momentum(MomentumConfig { momentum: 0.0, dampening: 0.0, nesterov: false })
                .build(),
            moments: BTreeMap::new(),
        }
    }

    /// Its recipe.
    pub fn recipe(&self) -> &OptimizerRecipe {
        &self.recipe
    }

    /// The moments by tensor.
    pub fn moments(&self) -> &BTreeMap<String, Moments> {
        &self.moments
    }

    /// Goes on from a checkpoint's moments.
    pub fn set_moments(&mut self, moments: BTreeMap<String, Moments>) {
        self.moments = moments;
    }

    /// Whether a tensor is Muon's, of which there is no second moment.
    pub fn by_muon(&self, name: &str, shape: &[usize]) -> bool {
        let muon = self.recipe.muon.as_ref();
        shape.len() == 2 && muon.is_some_and(|m| m.tensors.iter().any(|part| name.contains(part.as_str())))
    }

    /// Clips gradients, whose [`Grads::norm`] is `norm`, and takes a step. All processes of the group have the same gradients, and
    /// share the work of Muon.
    pub fn step(&mut self, group: &dyn Group, store: &mut Store, mut grads: Grads, norm: f64, rate: f64) {
        if self.recipe.clip > 0.0 && norm > self.recipe.clip {
            grads.scale((self.recipe.clip / norm) as f32);
        }
        let mut matrices = 0;
        let tensors: Vec<_> = grads
            .0
            .into_iter()
            .filter_map(|(name, grad)| {
                let entry = store.get(&name).filter(|e| e.trained)?;
                let (value, shape, before) = (entry.value.clone(), entry.shape.clone(), self.moments.remove(&name));
                let muon = self.by_muon(&name, &shape);
                let own = !muon || matrices % group.size() == group.rank();
                matrices += usize::from(muon);
                Some(Due { name, shape, value, grad, before, own })
            })
            .collect();
        let shared: Vec<String> =
            tensors.iter().filter(|due| self.by_muon(&due.name, &due.shape)).map(|due| due.name.clone()).collect();
        // Each tensor by itself; with burn's flex backend one beside the other.
        if tensors.first().is_some_and(|due| Operand::of(&due.value).is_some()) {
            let done: Vec<_> = tensors.into_par_iter().map(|due| self.step_of(due, rate)).collect();
            done.into_iter().for_each(|stepped| self.put(store, stepped));
        } else {
            for due in tensors {
                let stepped = self.step_of(due, rate);
                self.put(store, stepped);
            }
        }
        if group.size() > 1 {
            share(group, store, &shared);
        }
    }

    fn put(&mut self, store: &mut Store, (name, value, moments): (String, Tensor<1>, Option<Moments>)) {
        store.set(&name, value);
        self.moments.extend(moments.map(|m| (name, m)));
    }

    /// A step of one tensor: its name, new value and moments. The value of a matrix that is another process's is zero.
    fn step_of(&self, due: Due, rate: f64) -> (String, Tensor<1>, Option<Moments>) {
        let Due { name, shape, value, grad, before, own } = due;
        if let (Some(muon), [rows, columns], true) = (&self.recipe.muon, &*shape, self.by_muon(&name, &shape)) {
            let rate = rate / self.recipe.rate * muon.rate;
            let time = before.as_ref().map_or(0, |m| m.time) + 1;
            let first = match before {
                Some(m) => m.first.mul_scalar(muon.momentum) + grad.clone(),
                None => grad.clone(),
            };
            let moments = Some(Moments { time, first: first.clone(), second: None });
            if !own {
                return (name, value.zeros_like(), moments);
            }
            let ahead = (grad + first.mul_scalar(muon.momentum)).reshape([*rows, *columns]);
            let decay = 1.0 - rate * f64::from(self.recipe.weight_decay);
            let value = value.reshape([*rows, *columns]).mul_scalar(decay);
            let (value, _) = self.muon.step(rate, value, ahead, None);
            return (name, value.reshape([rows * columns]), moments);
        }
        let adam = if shape.len() > 1 { &self.decayed } else { &self.plain };
        let state = before.and_then(|m| {
            let momentum =
                AdaptiveMomentumState { time: m.time, moment_1: m.first, moment_2: m.second?, max_moment_2: None };
            Some(AdamWState { momentum })
        });
        let (value, state) = adam.step(rate, value, grad, state);
        let moments = state.map(|AdamWState { momentum }| {
            let AdaptiveMomentumState { time, moment_1: first, moment_2: second, .. } = momentum;
            Moments { time, first, second: Some(second) }
        });
        (name, value, moments)
    }

    /// Forgets what moved entries of codebooks that are elsewhere now: else the old entry's momentum would carry the new one off.
    pub fn forget(&mut self, revived: &[Revived]) {
        for r in revived {
            let Some(moments) = self.moments.get_mut(&r.tensor) else { continue };
            for tensor in [Some(&mut moments.first), moments.second.as_mut()].into_iter().flatten() {
                let mut values = crate::host(tensor.clone());
                for entry in &r.entries {
                    if let Some(row) = values.get_mut(entry * r.dim..(entry + 1) * r.dim) {
                        row.fill(0.0);
                    }
                }
                *tensor = Tensor::from_floats(values.as_slice(), &tensor.device());
            }
        }
    }
}

/// A tensor whose step is due.
struct Due {
    name: String,
    shape: Vec<usize>,
    value: Tensor<1>,
    grad: Tensor<1>,
    before: Option<Moments>,
    /// Not the work of another process.
    own: bool,
}

/// Gives each process the tensors that another one has stepped, and that are zero in all others.
fn share(group: &dyn Group, store: &mut Store, names: &[String]) {
    let values = |name: &String| store.get(name).map(|entry| entry.value.clone());
    let tensors: Vec<_> = names.iter().filter_map(|name| Some((name, values(name)?))).collect();
    let mut all: Vec<f32> = tensors.iter().flat_map(|(_, value)| crate::host(value.clone())).collect();
    group.sum(&mut all);
    let mut all = all.as_slice();
    for (name, value) in tensors {
        let stepped = all.split_off(..value.dims()[0]).unwrap_or_default();
        store.set(name, Tensor::from_floats(stepped, &value.device()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Tracking, group::Alone, host};

    #[test]
    fn rates_rise_and_fall() {
        let recipe = OptimizerRecipe {
            rate: 1.0,
            warmup: 4,
            schedule: Schedule::Cosine { floor: 0.1 },
            ..OptimizerRecipe::default()
        };
        let rates: Vec<f64> = [0, 1, 3, 4, 9, 14, 99].map(|s| recipe.rate_at(s, 14)).to_vec();
        let expected = [0.25, 0.5, 1.0, 1.0, 0.55, 0.1, 0.1];
        assert!(rates.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{rates:?}");
        let exponential = OptimizerRecipe { schedule: Schedule::Exponential { factor: 0.5 }, warmup: 0, ..recipe };
        assert_eq!(exponential.rate_at(3, 0), 0.125);
    }

    /// Of a matrix whose singular vectors are known: with Muon the values do not matter, and other tensors are AdamW's.
    #[test]
    fn muon_steps_by_directions() {
        let recipe = OptimizerRecipe {
            rate: 0.1,
            muon: Some(MuonRecipe { rate: 0.2, momentum: 0.5, tensors: vec!["blocks".to_owned()] }),
            ..OptimizerRecipe::default()
        };
        let mut store = Store::new(&crate::device::cpu());
        let tensors = ["blocks.w", "head.w"];
        tensors.iter().for_each(|name| store.insert(*name, &[2, 2], vec![0.0; 4], true));
        let mut optimizer = Optimizer::new(&recipe);
        for step in 1..=2 {
            let vars = store.vars(Tracking::Gradients);
            let factors = Tensor::<2>::from_floats([[30.0, 0.0], [0.0, -4.0]], &crate::device::cpu());
            let losses = tensors.map(|name| (vars.get::<2>(name).unwrap() * factors.clone()).sum());
            let [a, b] = losses;
            let grads = vars.gradients(&mut (a + b).backward());
            let norm = grads.norm();
            optimizer.step(&Alone, &mut store, grads, norm, 0.05);
            let moved = host(store.tensor::<2>("blocks.w").unwrap());
            // Half the rate; Newton-Schulz iterations leave singular values between 0.7 and 1.2.
            let steps = [-moved[0] / 0.1, moved[3] / 0.1].map(|v| v / step as f32);
            assert!(steps.iter().all(|v| (0.65..1.25).contains(v)), "{moved:?}");
            assert!(moved[1].abs() < 1e-6 && moved[2].abs() < 1e-6, "{moved:?}");
        }
        let (hidden, other) = (&optimizer.moments()["blocks.w"], &optimizer.moments()["head.w"]);
        assert_eq!((hidden.time, hidden.second.is_none(), other.second.is_some()), (2, true, true));
        assert_eq!(host(hidden.first.clone()), [45.0, 0.0, 0.0, -6.0]);
    }

    /// Five matrices and another tensor, two steps: to the bit what one process does, moments too.
    #[test]
    fn processes_share_muons_work() {
        use crate::group::tests::Threads;
        let muon = MuonRecipe { rate: 0.2, momentum: 0.9, tensors: vec!["blocks".to_owned()] };
        let recipe = OptimizerRecipe { rate: 0.1, clip: 1.0, muon: Some(muon), ..OptimizerRecipe::default() };
        let names = ["blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4", "head"];
        let values = |seed: usize| (0..12).map(|i| ((seed * 12 + i) as f32 * 0.37).sin()).collect::<Vec<_>>();
        let work = |group: &dyn Group| {
            let mut store = Store::new(&crate::device::cpu());
            names.iter().enumerate().for_each(|(i, name)| store.insert(*name, &[3, 4], values(i), true));
            let mut optimizer = Optimizer::new(&recipe);
            for step in 1..3 {
                let gradient = |i| Tensor::from_floats(values(10 * step + i).as_slice(), &crate::device::cpu());
                let grads =
                    Grads(names.iter().enumerate().map(|(i, name)| ((*name).to_owned(), gradient(i))).collect());
                let norm = grads.norm();
                optimizer.step(group, &mut store, grads, norm, 0.1);
            }
            let moments = optimizer.moments().values().map(|m| host(m.first.clone()));
            let stepped = store.iter().map(|(_, entry)| host(entry.value.clone()));
            stepped.chain(moments).collect::<Vec<_>>()
        };
        let alone = work(&Alone);
        assert!(alone[..6].iter().enumerate().all(|(i, stepped)| *stepped != values(i)));
        for size in [2, 3, 7] {
            assert!(Threads::run(size, work).iter().all(|stepped| *stepped == alone), "{size} processes");
        }
    }

    /// Against AdamW by hand, with clipping and decay.
    #[test]
    fn steps_are_adamw() {
        let recipe = OptimizerRecipe {
            rate: 0.1,
            betas: [0.9, 0.99],
            weight_decay: 0.5,
            clip: 1.0,
            ..OptimizerRecipe::default()
        };
        let mut store = Store::new(&crate::device::cpu());
        store.insert("w", &[1, 2], vec![1.0, -2.0], true);
        store.insert("b", &[1], vec![0.5], true);
        let mut optimizer = Optimizer::new(&recipe);
        let (mut w, mut m, mut v) = ([1.0, -2.0, 0.5], [0.0; 3], [0.0; 3]);
        for step in 1..=3 {
            let vars = store.vars(Tracking::Gradients);
            let loss = vars.get::<2>("w").unwrap().square().sum() + vars.get::<1>("b").unwrap().square().sum();
            let grads = vars.gradients(&mut loss.backward());
            let norm = grads.norm();
            optimizer.step(&Alone, &mut store, grads, norm, 0.1);
            let g: Vec<f64> = w.iter().map(|w| 2.0 * w).collect();
            let expected = g.iter().map(|g| g * g).sum::<f64>().sqrt();
            assert!((norm - expected).abs() < 1e-5 * expected);
            for i in 0..3 {
                let g = g[i] / expected.max(1.0);
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.99 * v[i] + 0.01 * g * g;
                let (mh, vh) = (m[i] / (1.0 - 0.9_f64.powi(step)), v[i] / (1.0 - 0.99_f64.powi(step)));
                let decay = if i < 2 { 1.0 - 0.1 * 0.5 } else { 1.0 };
                w[i] = w[i] * decay - 0.1 * mh / (vh.sqrt() + 1e-8);
            }
        }
        let got = [host(store.tensor::<2>("w").unwrap()), host(store.tensor::<1>("b").unwrap())].concat();
        assert!(got.iter().zip(w).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-5), "{got:?} for {w:?}");
    }
}

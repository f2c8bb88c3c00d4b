//! Losses of the game between codec and discriminators.

use burn::tensor::{Tensor, activation::relu};
use serde::{Deserialize, Serialize};

use crate::{
    cpu::layers::{mean_difference, mean_magnitude},
    group::{Alone, Group},
};

/// What a discriminator says of a signal.
#[derive(Clone, Debug)]
pub struct Judged {
    /// How real it looks, at many places.
    pub score: Tensor<4>,
    /// What its layers saw, first layer first.
    pub features: Vec<Tensor<4>>,
}

impl Judged {
    /// The same without a past.
    pub(crate) fn inner(&self) -> Self {
        let features = self.features.iter().map(|f| f.clone().inner()).collect();
        Self { score: self.score.clone().inner(), features }
    }
}

/// The form of the adversarial losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdversarialKind {
    /// Hinge (Lim & Ye 2017; SoundStream, EnCodec).
    Hinge,
    /// Least squares (Mao et al. 2017; HiFi-GAN, DAC).
    LeastSquares,
}

/// How differences of features are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FeatureNorm {
    /// Mean absolute difference over the mean absolute value of the real signal's feature (Défossez et al. 2022, equation 2).
    Relative,
    /// Mean absolute difference (Kong et al. 2020, equation 7, without its factor).
    Absolute,
}

fn mean(terms: impl ExactSizeIterator<Item = Tensor<1>>) -> Option<Tensor<1>> {
    let count = terms.len().max(1) as f32;
    terms.reduce(|a, b| a + b).map(|sum| sum.div_scalar(count))
}

/// The discriminators' loss on real and decoded signals, the mean over discriminators; `None` without any.
pub fn discriminator_loss(kind: AdversarialKind, real: &[Judged], fake: &[Judged]) -> Option<Tensor<1>> {
    mean(real.iter().zip(fake).map(|(r, f)| {
        let (r, f) = (r.score.clone(), f.score.clone());
        match kind {
            AdversarialKind::Hinge => relu(r.neg().add_scalar(1.0)).mean() + relu(f.add_scalar(1.0)).mean(),
            AdversarialKind::LeastSquares => r.sub_scalar(1.0).square().mean() + f.square().mean(),
        }
    }))
}

/// The codec's loss on decoded signals, the mean over discriminators; `None` without any. Hinge is `relu(1 - score)`
/// (Défossez et al. 2022, section 3.4).
pub fn generator_loss(kind: AdversarialKind, fake: &[Judged]) -> Option<Tensor<1>> {
    mean(fake.iter().map(|f| match kind {
        AdversarialKind::Hinge => relu(f.score.clone().neg().add_scalar(1.0)).mean(),
        AdversarialKind::LeastSquares => f.score.clone().sub_scalar(1.0).square().mean(),
    }))
}

/// Difference of features, the mean over layers and discriminators; the real ones are constants. `None` without any.
pub fn feature_loss(norm: FeatureNorm, real: &[Judged], fake: &[Judged]) -> Option<Tensor<1>> {
    feature_loss_in(&Alone, norm, real, fake)
}

/// As [`feature_loss`], each process of a group with its part of the batch: the mean over processes is the loss of the whole
/// batch, since features are compared with their mean over all of it.
pub fn feature_loss_in(group: &dyn Group, norm: FeatureNorm, real: &[Judged], fake: &[Judged]) -> Option<Tensor<1>> {
    let pairs: Vec<_> = real.iter().zip(fake).flat_map(|(r, f)| r.features.iter().zip(&f.features)).collect();
    let means = match norm {
        FeatureNorm::Relative if group.size() > 1 => {
            let means = pairs.iter().map(|(r, _)| Tensor::clone(r).inner().abs().mean()).collect();
            let mut means = crate::host(Tensor::cat(means, 0));
            group.sum(&mut means);
            Some(means.into_iter().map(|sum| (sum / group.size() as f32).max(1e-8)).collect::<Vec<_>>())
        }
        _ => None,
    };
    mean(pairs.into_iter().enumerate().map(|(i, (r, f))| {
        let r = r.clone().detach();
        let difference = mean_difference(f, &r).unwrap_or_else(|| (f.clone() - r.clone()).abs().mean());
        match (norm, &means) {
            (FeatureNorm::Relative, Some(means)) => difference.div_scalar(means[i]),
            (FeatureNorm::Relative, None) => match mean_magnitude(&r) {
                Some(magnitude) => difference.div_scalar(magnitude.max(1e-8)),
                None => difference / r.abs().mean().clamp_min(1e-8),
            },
            (FeatureNorm::Absolute, _) => difference,
        }
    }))
}

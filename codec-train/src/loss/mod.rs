//! What a codec is trained towards. Waveforms are `[batch, channels, samples]`; each channel counts like an item of its own
//! wherever spectra are taken.

mod adversarial;
mod auditory;
mod balancer;
mod spectral;

use burn::tensor::Tensor;

use crate::cpu::layers::mean_difference;

pub use adversarial::{
    AdversarialKind, FeatureNorm, Judged, discriminator_loss, feature_loss, feature_loss_in, generator_loss,
};
pub use auditory::{LoudnessLoss, SimilarityLoss};
pub use balancer::{Balanced, Balancer};
pub use spectral::{CompressedLoss, Ends, MelLoss, MelScale, Spectrogram, StftLoss, StftScale};

/// Mean absolute difference.
pub fn waveform_l1(fake: Tensor<3>, real: Tensor<3>) -> Tensor<1> {
    mean_difference(&fake, &real).unwrap_or_else(|| (fake - real).abs().mean())
}

/// Mean squared difference.
pub fn waveform_l2(fake: Tensor<3>, real: Tensor<3>) -> Tensor<1> {
    (fake - real).square().mean()
}

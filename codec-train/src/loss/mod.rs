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

/// Mean square, of full scale 1, below which a signal is as good as silence.
const SILENCE: f32 = 1e-7;

/// The negative scale-invariant ratio of signal to distortion in decibels (Le Roux et al., "SDR – half-baked or well done?", ICASSP 2019,
/// section 2), the mean over signals, so that quiet ones count as much as loud ones, which have most of a mean difference. The
/// signal is what of the decoded one is the original times a factor; the rest is distortion. Both powers have 1e-7 added, so that
/// silence is worth nothing; unlike there the sign counts, the factor being at least 0.
pub fn negative_si_sdr(fake: Tensor<3>, real: Tensor<3>) -> Tensor<1> {
    let power = |x: Tensor<3>| x.square().mean_dim(2);
    let factor = (fake.clone() * real.clone()).mean_dim(2).clamp_min(0.0) / (power(real.clone()) + SILENCE);
    let signal = real * factor;
    let ratio = (power(signal.clone()) + SILENCE) / (power(fake - signal) + SILENCE);
    ratio.log().mean().mul_scalar(-10.0 / std::f32::consts::LN_10)
}

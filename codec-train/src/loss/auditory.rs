//! Distances between what the ear makes of two signals: powers in its bands, as loudness or as an image in decibels.

use burn::tensor::{Tensor, TensorData, s};

use super::{Ends, Spectrogram};
use crate::cpu::spectrum::{self, Filters};

/// Powers in bands of frames.
#[derive(Clone, Debug)]
struct Bands {
    spectrogram: Spectrogram,
    /// `[bands, bins]`, for devices without sparse filters.
    matrix: Vec<f32>,
    filters: Filters,
}

impl Bands {
    /// Bands of whole frames of `window` samples, from the response to power at `(band, frequency)`. The powers of bands that cover the
    /// spectrum once add up to the signal's mean square.
    fn new(sample_rate: u32, window: usize, hop: usize, bands: usize, response: impl Fn(usize, f64) -> f64) -> Self {
        let scale = 2.0 / window as f64 * Spectrogram::unit_energy(window).powi(2);
        let spectrogram = Spectrogram::new(window, hop, window, Ends::Whole, 1.0);
        let bins = spectrogram.bins();
        let width = f64::from(sample_rate) / window as f64;
        let value = |i: usize| (scale * response(i / bins, (i % bins) as f64 * width)) as f32;
        let matrix: Vec<f32> = (0..bands * bins).map(value).collect();
        let filters = Filters::new(&matrix, bins);
        Self { spectrogram, matrix, filters }
    }

    fn count(&self) -> usize {
        self.matrix.len() / self.spectrogram.bins()
    }

    /// `[batch, channels, samples]` to `[batch * channels, frames, bands]`.
    fn powers(&self, x: Tensor<3>) -> Tensor<3> {
        spectrum::bands(self.spectrogram.frames(), &self.filters, &x).unwrap_or_else(|| self.by_products(x))
    }

    /// The same by burn's operations, for other devices.
    fn by_products(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, channels, samples] = x.dims();
        let (bins, bands) = (self.spectrogram.bins(), self.count());
        let squares = self.spectrogram.power(x.reshape([batch * channels, samples]));
        let frames = squares.dims()[1];
        let matrix = TensorData::new(self.matrix.clone(), [1, bands, bins]);
        let matrix = Tensor::<3>::from_data(matrix, &squares.device()).swap_dims(1, 2);
        let powers = squares.reshape([1, batch * channels * frames, bins]).matmul(matrix);
        powers.reshape([batch * channels, frames, bands])
    }
}

/// Disturbance of loudness patterns: the perceptual model of PESQ (ITU-T P.862, Beerends et al. 2002; as a loss Martín-Doñas et al. 2018,
/// section II). Powers of 32 ms in 49 bands of equal width on the Bark scale, up to 8 kHz, become loudness over the threshold of hearing (Zwicker
/// & Fastl 1990). Differences of less than a quarter of the lesser loudness are masked; the others make a symmetric disturbance of each frame
/// (norm of order 2 over bands), and an asymmetric one (order 1) of what was added. The loss is the sum of their root mean squares over
/// frames, with P.862's weights, the mean over signals.
///
/// Unlike there, bands and thresholds are formulas, all frames count alike, and neither levels nor responses are made equal over time. Signals
/// are taken to be as loud as speech, 79 dB, by the level of the original; where that is below -40 dB of full scale, as quieter.
#[derive(Clone, Debug)]
pub struct LoudnessLoss {
    bands: Bands,
    /// Power that is just heard, by band.
    threshold: Vec<f32>,
    /// What loudness is multiplied by, by band.
    factor: Vec<f32>,
    /// Width of a band in Bark.
    width: f32,
}

/// Bands on the Bark scale.
const BARKS: usize = 49;
/// Exponent of loudness (Zwicker & Fastl 1990, section 8.7).
const EXPONENT: f64 = 0.23;
/// Loudness of a band of unit threshold, as in P.862.
const SONES: f64 = 0.187;
/// Power that a signal is taken to have.
const LEVEL: f64 = 7.943e7;
/// A mean square below which a signal is one of low level, and not speech far away.
const QUIET: f64 = 1e-4;
/// Part of the lesser loudness by which a difference is masked (P.862).
const MASKED: f32 = 0.25;
/// P.862's weight of what was added: a power of the ratio of powers, both raised a little, and none below and no more above.
const RAISED: f32 = 50.0;
const RATIO_POWER: f32 = 1.2;
const RATIO_LIMITS: [f32; 2] = [3.0, 12.0];
/// Opinion scores that a disturbance costs (P.862).
const SYMMETRIC: f32 = 0.1;
const ASYMMETRIC: f32 = 0.0309;

/// Traunmüller's formula (1990).
fn bark(hertz: f64) -> f64 {
    26.81 * hertz / (1960.0 + hertz) - 0.53
}

fn hertz(bark: f64) -> f64 {
    1960.0 * (bark + 0.53) / (26.28 - bark)
}

impl LoudnessLoss {
    /// A loss for a sample rate, up to 8 kHz.
    pub fn new(sample_rate: u32) -> Self {
        // 32 ms, half of one apart.
        let window = (sample_rate as usize * 32 / 1000).max(2);
        let top = bark((f64::from(sample_rate) / 2.0).min(8000.0));
        let low = bark(50.0);
        let edge = |i: usize| hertz(low + (top - low) * i as f64 / BARKS as f64);
        // A bin counts for the bands that it overlaps.
        let half = f64::from(sample_rate) / window as f64 / 2.0;
        let response = |band: usize, f: f64| {
            let overlap = edge(band + 1).min(f + half) - edge(band).max(f - half);
            overlap.max(0.0) / (2.0 * half)
        };
        // Terhardt's threshold in quiet (1979), in decibels.
        let threshold = |i: usize| {
            let f = 0.5 * (edge(i) + edge(i + 1)) / 1000.0;
            let level = 3.64 * f.powf(-0.8) - 6.5 * (-0.6 * (f - 3.3).powi(2)).exp() + 1e-3 * f.powi(4);
            10_f64.powf(level / 10.0)
        };
        let of = |f: &dyn Fn(f64) -> f64| (0..BARKS).map(|i| f(threshold(i)) as f32).collect();
        Self {
            bands: Bands::new(sample_rate, window, window / 2, BARKS, response),
            threshold: of(&|t| t),
            factor: of(&|t| SONES * (2.0 * t).powf(EXPONENT)),
            width: ((top - low) / BARKS as f64) as f32,
        }
    }

    /// The fewest samples that [`Self::forward`] can compare.
    pub fn shortest(&self) -> usize {
        self.bands.spectrogram.shortest()
    }

    /// The distance of `[batch, channels, samples]`, of at least [`Self::shortest`] samples; gradients are of `fake`.
    pub fn forward(&self, fake: Tensor<3>, real: Tensor<3>) -> Tensor<1> {
        let [batch, channels, samples] = real.dims();
        let device = real.device();
        let row = |values: &[f32]| Tensor::<1>::from_floats(values, &device).reshape([1, 1, BARKS]);
        let (threshold, factor) = (row(&self.threshold), row(&self.factor));
        let mean_square = real.clone().detach().reshape([batch * channels, 1, samples]).square().mean_dim(2);
        let gain = mean_square.clamp_min(QUIET).recip().mul_scalar(LEVEL);
        let powers = |x: Tensor<3>| self.bands.powers(x) * gain.clone();
        let loudness = |power: &Tensor<3>| {
            let over = (power.clone() / threshold.clone()).mul_scalar(0.5).add_scalar(0.5);
            (over.powf_scalar(EXPONENT as f32).sub_scalar(1.0) * factor.clone()).clamp_min(0.0)
        };
        let (of_fake, of_real) = (powers(fake), powers(real));
        let (a, b) = (loudness(&of_fake), loudness(&of_real));
        let difference = a.clone() - b.clone();
        let lesser = (a + b - difference.clone().abs()).mul_scalar(0.5);
        let disturbance = (difference.abs() - lesser.mul_scalar(MASKED)).clamp_min(0.0);
        // The weight jumps, and has no part in the gradient.
        let ratio = of_fake.detach().add_scalar(RAISED) / of_real.detach().add_scalar(RAISED);
        let weight = ratio.powf_scalar(RATIO_POWER);
        let added = weight.clone().greater_equal_scalar(RATIO_LIMITS[0]).float() * weight.clamp_max(RATIO_LIMITS[1]);
        // Squares of norms over a pattern of this width.
        let whole = self.width * BARKS as f32;
        let symmetric = disturbance.clone().square().sum_dim(2).mul_scalar(self.width * self.width * whole);
        let asymmetric = (disturbance * added).sum_dim(2).mul_scalar(self.width).square();
        let over_time = |squares: Tensor<3>| squares.mean_dim(1).add_scalar(1e-6).sqrt().mean();
        over_time(symmetric).mul_scalar(SYMMETRIC) + over_time(asymmetric).mul_scalar(ASYMMETRIC)
    }
}

/// One minus the similarity of two images of levels in decibels, of 21 bands of the ear's widths up to 8 kHz and windows of 80 ms a
/// quarter of one apart: the neurogram similarity index (NSIM, Hines & Harte 2012), intensity and structure of neighbourhoods of three
/// bands by three windows. ViSQOL goes by it; it compares patches with voice, each where it fits best, and repeats the edges of the image,
/// where here all whole neighbourhoods count.
#[derive(Clone, Debug)]
pub struct SimilarityLoss {
    bands: Bands,
}

const GAMMATONES: usize = 21;
/// The Gaussian of a neighbourhood is nearly one of bands times one of windows: the root of its centre, and half of what is left.
const MIDDLE: f32 = 0.787_074;
const SIDE: f32 = 0.106_463;
/// Constants of the index.
const INTENSITY: f32 = 1e-4;
const STRUCTURE: f32 = 4.5e-4;
/// Least power of a band, which is the image's zero: 1e-9 of the windowed signal, as ViSQOL has it, over the window's mean square.
const LEAST: f32 = 8.0 / 3.0 * 1e-9;

impl SimilarityLoss {
    /// A loss for a sample rate, from 50 Hz to at most 8 kHz.
    pub fn new(sample_rate: u32) -> Self {
        let window = (sample_rate as usize * 80 / 1000).max(4);
        // Equivalent rectangular bandwidths (Glasberg & Moore 1990), and gammatone filters of fourth order.
        let (quality, least) = (9.26449, 24.7);
        let offset = quality * least;
        let (low, high) = (50.0 + offset, (f64::from(sample_rate) / 2.0).min(8000.0) + offset);
        let response = |band: usize, f: f64| {
            let centre = high * (low / high).powf((GAMMATONES - band) as f64 / GAMMATONES as f64) - offset;
            let bandwidth = 1.019 * (centre / quality + least);
            let response = (1.0 + ((f - centre) / bandwidth).powi(2)).powi(-4);
            if response > 1e-7 { response } else { 0.0 }
        };
        Self { bands: Bands::new(sample_rate, window, window / 4, GAMMATONES, response) }
    }

    /// The fewest samples that [`Self::forward`] can compare.
    pub fn shortest(&self) -> usize {
        let frames = self.bands.spectrogram.frames();
        frames.n_fft + 2 * frames.hop
    }

    /// The distance of `[batch, channels, samples]`, of at least [`Self::shortest`] samples; gradients are of `fake`.
    pub fn forward(&self, fake: Tensor<3>, real: Tensor<3>) -> Tensor<1> {
        let image = |x: Tensor<3>| {
            let power = self.bands.powers(x).div_scalar(LEAST).add_scalar(1.0);
            power.log().mul_scalar(5.0 * std::f32::consts::LOG10_E)
        };
        let (a, b) = (image(fake), image(real));
        let mean = |x: Tensor<3>| {
            let [_, frames, bands] = x.dims();
            let x = x.clone().slice(s![.., 1..frames as i64 - 1, ..]).mul_scalar(MIDDLE)
                + (x.clone().slice(s![.., 0..frames as i64 - 2, ..]) + x.slice(s![.., 2..frames as i64, ..]))
                    .mul_scalar(SIDE);
            x.clone().slice(s![.., .., 1..bands as i64 - 1]).mul_scalar(MIDDLE)
                + (x.clone().slice(s![.., .., 0..bands as i64 - 2]) + x.slice(s![.., .., 2..bands as i64]))
                    .mul_scalar(SIDE)
        };
        let (mean_a, mean_b) = (mean(a.clone()), mean(b.clone()));
        let product = (mean_a.clone() * mean_b.clone()).mul_scalar(2.0).add_scalar(INTENSITY);
        let intensity = product / (mean_a.square() + mean_b.square()).add_scalar(INTENSITY);
        // What is far from zero loses digits in its square, and variances do not depend on where zero is.
        let middle = b.clone().detach().mean_dim(1).mean_dim(2);
        let (a, b) = (a - middle.clone(), b - middle);
        let (mean_a, mean_b) = (mean(a.clone()), mean(b.clone()));
        let variance =
            |x: &Tensor<3>, mean_x: &Tensor<3>| (mean(x.clone().square()) - mean_x.clone().square()).clamp_min(0.0);
        let (variance_a, variance_b) = (variance(&a, &mean_a), variance(&b, &mean_b));
        let covariance = mean(a * b) - mean_a * mean_b;
        // With the constant inside of the root, whose slope then has an end where nothing varies.
        let spread = (variance_a.add_scalar(STRUCTURE) * variance_b.add_scalar(STRUCTURE)).sqrt();
        let structure = covariance.add_scalar(STRUCTURE) / spread;
        (intensity * structure).mean().neg().add_scalar(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{device, host, net::Random};

    /// Several items and channels, windows of even and odd length that their hop does not divide: values and gradients of the
    /// transform are those of the products.
    #[test]
    fn bands_are_those_of_products() {
        let mut random = Random::new(3, "bands", 0);
        for (rate, window, hop) in [(16_000, 64, 20), (22_050, 45, 11)] {
            let bands = Bands::new(rate, window, hop, 5, |band, f| (0.2 + f / 5000.0).powi(band as i32));
            let samples: Vec<f32> = (0..2 * 3 * 200).map(|_| random.normal() as f32).collect();
            let made = |values: &[f32]| {
                let values = TensorData::new(values.to_vec(), [2, 3, 200]);
                Tensor::<3>::from_data(values, &device::cpu().autodiff()).require_grad()
            };
            let (x, y) = (made(&samples), made(&samples));
            let (a, b) = (bands.powers(x.clone()), bands.by_products(y.clone()));
            assert_eq!(a.dims(), [6, (200 - window) / hop + 1, 5]);
            let weights: Vec<f32> = (0..a.dims().iter().product()).map(|_| random.normal() as f32).collect();
            let weights = Tensor::<3>::from_data(TensorData::new(weights, a.dims()), &device::cpu().autodiff());
            let gradients = [(a.clone(), x), (b.clone(), y)]
                .map(|(powers, leaf)| host(leaf.grad(&(powers * weights.clone()).sum().backward()).unwrap()));
            for (a, b) in [(host(a.inner()), host(b.inner())), (gradients[0].clone(), gradients[1].clone())] {
                let size = b.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 2e-5 * size), "window of {window}");
            }
        }
    }
}

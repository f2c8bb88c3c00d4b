//! Distances between what the ear makes of two signals: powers in its bands, as loudness or as an image in decibels.

use burn::tensor::{Tensor, TensorData, s};

use super::{Ends, Spectrogram};
use crate::cpu::spectrum::{self, Filters, hann};

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
        let scale = 2.0 / (window as f64 * hann(window, window, 1.0).iter().map(|w| w * w).sum::<f64>());
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
        if let Some(powers) = spectrum::bands(self.spectrogram.frames(), &self.filters, &x) {
            return powers;
        }
        let [batch, channels, samples] = x.dims();
        let bins = self.spectrogram.bins();
        let spectra = self.spectrogram.complex(x.reshape([batch * channels, samples]));
        let frames = spectra.dims()[1];
        let squares = spectra.square();
        let squares = squares.clone().slice_dim(2, 0..bins) + squares.slice_dim(2, bins..2 * bins);
        let matrix = TensorData::new(self.matrix.clone(), [1, self.count(), bins]);
        let matrix = Tensor::<3>::from_data(matrix, &squares.device()).swap_dims(1, 2);
        squares.reshape([1, batch * channels * frames, bins]).matmul(matrix).reshape([
            batch * channels,
            frames,
            self.count(),
        ])
    }
}

/// Distance of loudness patterns (Zwicker & Fastl 1990; Beerends & Stemerdink 1994, whose weighing of what was added and what is
/// lost ITU-T P.862 took over; as a loss Martín-Doñas et al. 2018, section II): powers in 49 bands of equal width on the Bark
/// scale become loudness over the threshold of hearing, and frames have a distance from all bands (their root mean square) and one of what
/// was added (a sum). Differences of less than a quarter of the lesser loudness are masked.
///
/// Speech is taken to be as loud as people talk, 79 dB, each signal by the level of the original.
#[derive(Clone, Debug)]
pub struct LoudnessLoss {
    bands: Bands,
    /// Of each band, the power that is just heard at 0 dB for a power of 1, and what loudness is multiplied by.
    threshold: Vec<f32>,
    factor: Vec<f32>,
    /// Width of a band in Bark.
    width: f32,
}

/// Bands on the Bark scale.
const BARKS: usize = 49;
/// Exponent of loudness (Zwicker & Fastl 1990, section 8.7).
const EXPONENT: f64 = 0.23;
/// Loudness of a band of unit threshold.
const SONES: f64 = 0.187;
/// Power that a signal is taken to have.
const LEVEL: f64 = 7.943e7;
/// A mean square below which a signal is one of low level, and not speech far away.
const QUIET: f64 = 1e-4;
/// Part of the lesser loudness by which a difference is masked.
const MASKED: f32 = 0.25;
/// Weights of the two distances, in opinion scores.
const SYMMETRIC: f32 = 0.1;
const ADDED: f32 = 0.0309;

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

    /// The fewest samples that it can compare.
    pub fn shortest(&self) -> usize {
        self.bands.spectrogram.shortest()
    }

    /// The distance.
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
        // The lesser of the two, and what of the difference is beyond the mask.
        let difference = a.clone() - b.clone();
        let lesser = (a + b - difference.clone().abs()).mul_scalar(0.5 * MASKED);
        let beyond = (difference.clone().abs() - lesser).clamp_min(0.0);
        // Norms of order 2 and 1 over a pattern of this width.
        let whole = self.width * BARKS as f32;
        let symmetric = beyond.clone().square().sum_dim(2).add_scalar(1e-6).sqrt();
        let symmetric = symmetric.mul_scalar(self.width * whole.sqrt());
        // What was added is heard as something of its own: how much louder it is says how much that counts. The weight jumps, and
        // has no part in the gradient.
        let ratio = of_fake.detach().add_scalar(50.0) / of_real.detach().add_scalar(50.0);
        let weight = ratio.powf_scalar(1.2);
        let heard = weight.clone().greater_equal_scalar(3.0).float();
        let added = (beyond * weight.clamp_max(12.0) * heard).sum_dim(2).mul_scalar(self.width);
        let over_time = |d: Tensor<3>| d.square().mean_dim(1).add_scalar(1e-6).sqrt().mean();
        over_time(symmetric).mul_scalar(SYMMETRIC) + over_time(added).mul_scalar(ADDED)
    }
}

/// One minus the similarity of two images of levels in 21 bands of the ear's widths, windows of 80 ms a quarter of one apart: the neurogram
/// similarity index (NSIM, Hines & Harte 2012), intensity and structure of neighbourhoods of three bands by three windows. It
/// is what ViSQOL compares.
#[derive(Clone, Debug)]
pub struct SimilarityLoss {
    bands: Bands,
}

const GAMMATONES: usize = 21;
/// The Gaussian of a neighbourhood is one of bands times one of windows: the middle, and each side.
const MIDDLE: f32 = 0.787_074;
const SIDE: f32 = 0.106_463;
/// Constants of the index.
const INTENSITY: f32 = 1e-4;
const STRUCTURE: f32 = 4.5e-4;
/// Least power of a band, which is the image's zero.
const LEAST: f32 = 1e-9;

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

    /// The fewest samples that it can compare.
    pub fn shortest(&self) -> usize {
        let frames = self.bands.spectrogram.frames();
        frames.n_fft + 2 * frames.hop
    }

    /// The distance.
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
        // The root's slope has an end where nothing varies.
        let spread = (variance_a * variance_b).add_scalar(STRUCTURE * STRUCTURE).sqrt();
        let structure = covariance.add_scalar(STRUCTURE) / spread.add_scalar(STRUCTURE);
        (intensity * structure).mean().neg().add_scalar(1.0)
    }
}

//! Spectra as matrix products, and distances between them.

use std::{f64::consts::PI, sync::OnceLock};

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::{
    cpu::{
        Operand,
        spectrum::{self, COMPLEX_SHARE, Compared, Filters, Frames, MelTerms, hann, known},
    },
    group::{Alone, Group},
};

/// Smallest power of a bin under a square root, whose slope at zero is infinite: for mel spectra, far below their floor.
const MEL_POWER: f32 = 1e-12;
/// For logarithms of single bins.
const BIN_POWER: f32 = 1e-8;

/// What a transform does at the ends of the signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Only whole frames.
    Whole,
    /// Frame `t` is around sample `t * hop`; the signal is mirrored.
    Centred,
    /// One frame for each hop begun, as a convolution of that stride has; the signal is mirrored.
    Stride,
}

/// A short-time Fourier transform with a Hann window.
#[derive(Clone, Debug)]
pub struct Spectrogram {
    frames: Frames,
    window: Vec<f64>,
    /// `[blocks * hop, 2 * bins]`, real then imaginary; rows past `n_fft` are zero. For devices without the transform.
    basis: OnceLock<Vec<f32>>,
}

impl Spectrogram {
    /// Frames of `n_fft` samples every `hop`, under a periodic Hann window of `window` samples in their middle. Values are
    /// multiplied by `scale`.
    pub fn new(n_fft: usize, hop: usize, window: usize, ends: Ends, scale: f64) -> Self {
        let hop = hop.clamp(1, n_fft.max(1));
        let window = hann(n_fft, window, scale);
        Self { frames: Frames::new(n_fft, hop, ends, &window), window, basis: OnceLock::new() }
    }

    pub(crate) fn frames(&self) -> &Frames {
        &self.frames
    }

    fn basis(&self) -> &[f32] {
        self.basis.get_or_init(|| {
            let (n, hop, bins) = (self.frames.n_fft, self.frames.hop, self.bins());
            let mut basis = vec![0.0; n.div_ceil(hop) * hop * 2 * bins];
            for (t, (row, w)) in basis.chunks_exact_mut(2 * bins).zip(&self.window).enumerate() {
                for k in 0..bins {
                    let angle = 2.0 * PI * ((k * t) % n) as f64 / n as f64;
                    row[k] = (w * angle.cos()) as f32;
                    row[bins + k] = (-w * angle.sin()) as f32;
                }
            }
            basis
        })
    }

    /// The scale that makes the squares of a window sum to one.
    pub fn unit_energy(window: usize) -> f64 {
        1.0 / hann(window, window, 1.0).iter().map(|w| w * w).sum::<f64>().sqrt()
    }

    /// Bins of a spectrum.
    pub fn bins(&self) -> usize {
        self.frames.bins()
    }

    /// The fewest samples that give a frame.
    pub fn shortest(&self) -> usize {
        let (n, hop) = (self.frames.n_fft, self.frames.hop);
        match self.frames.ends {
            Ends::Whole => n,
            Ends::Centred => n / 2 + 1,
            Ends::Stride => (n + hop) / 2 + 1,
        }
    }

    /// `[signals, samples]` to `[signals, frames, 2 * bins]`, real then imaginary parts.
    pub fn complex(&self, x: Tensor<2>) -> Tensor<3> {
        let (n, hop) = (self.frames.n_fft, self.frames.hop);
        let x = match self.frames.mirrored(x.dims()[1]) {
            [0, 0] => x,
            [left, right] => mirrored(x, left, right),
        };
        let [signals, samples] = x.dims();
        let blocks = n.div_ceil(hop);
        let frames = (samples.max(n) - n) / hop + 1;
        // A frame is `blocks` neighbouring blocks of `hop` samples: views, whose gradients are sums of views.
        let needed = (frames + blocks - 1) * hop;
        let x = if needed > samples {
            let zeros = Tensor::zeros([signals, needed - samples], &x.device());
            Tensor::cat(vec![x, zeros], 1)
        } else {
            x.slice_dim(1, 0..needed)
        };
        let x = x.reshape([signals, frames + blocks - 1, hop]);
        let parts = (0..blocks).map(|j| x.clone().slice_dim(1, j..j + frames)).collect();
        let cut = Tensor::cat(parts, 2).reshape([signals * frames, blocks * hop]);
        let basis = TensorData::new(self.basis().to_vec(), [blocks * hop, 2 * self.bins()]);
        cut.matmul(Tensor::from_data(basis, &x.device())).reshape([signals, frames, 2 * self.bins()])
    }

    /// `[batch, channels, samples]` to `[batch, 2 * channels, frames, bins]`: the channels' real parts, then their imaginary
    /// parts.
    pub fn image(&self, x: Tensor<3>) -> Tensor<4> {
        if let Some(image) = spectrum::image(self.frames(), &x) {
            return image;
        }
        let [batch, channels, samples] = x.dims();
        let bins = self.bins();
        let spectra = self.complex(x.reshape([batch * channels, samples]));
        let frames = spectra.dims()[1];
        let part =
            |from: usize| spectra.clone().slice_dim(2, from..from + bins).reshape([batch, channels, frames, bins]);
        Tensor::cat(vec![part(0), part(bins)], 1)
    }

    /// Powers, `[signals, frames, bins]`.
    pub fn power(&self, x: Tensor<2>) -> Tensor<3> {
        let squares = self.complex(x).square();
        let bins = self.bins();
        squares.clone().slice_dim(2, 0..bins) + squares.slice_dim(2, bins..2 * bins)
    }

    /// Magnitudes, `[signals, frames, bins]`, of powers raised to `floor` where they are less.
    pub fn magnitude(&self, x: Tensor<2>, floor: f32) -> Tensor<3> {
        self.power(x).clamp_min(floor).sqrt()
    }
}

/// Mirrors `[signals, samples]` at both ends, the end samples not repeated.
fn mirrored(x: Tensor<2>, left: usize, right: usize) -> Tensor<2> {
    let n = x.dims()[1];
    let mut parts = vec![x.clone()];
    if left > 0 {
        parts.insert(0, x.clone().slice_dim(1, 1..left + 1).flip([1]));
    }
    if right > 0 {
        parts.push(x.slice_dim(1, n - 1 - right..n - 1).flip([1]));
    }
    Tensor::cat(parts, 1)
}

/// Channels as signals of their own.
fn flat(x: Tensor<3>) -> Tensor<2> {
    let [batch, channels, samples] = x.dims();
    x.reshape([batch * channels, samples])
}

/// `share` times the sum of a loss at several resolutions, with its gradient. `None` if the device is not the processor.
fn compared(
    fake: &Tensor<3>,
    real: &Tensor<3>,
    scales: usize,
    share: f64,
    one: impl Fn(usize, usize, &[f32], &[f32]) -> Compared,
) -> Option<Tensor<1>> {
    let shape = fake.dims();
    let (fake, real) = (Operand::of(fake)?, Operand::of(real)?);
    let (a, b) = (fake.plain(), real.plain());
    let mut all = Compared { value: 0.0, gradient: vec![0.0; a.len()] };
    for scale in 0..scales {
        let found = one(scale, shape[2], &a, &b);
        all.value += share * found.value;
        all.gradient.iter_mut().zip(found.gradient).for_each(|(sum, g)| *sum += share as f32 * g);
    }
    Some(known(&fake, &shape, all))
}

/// One resolution of a [`MelLoss`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MelScale {
    /// Samples in a window and in a transform.
    pub window: usize,
    /// Samples between two windows.
    pub hop: usize,
    /// Filters.
    pub mels: usize,
}

/// Distance between mel spectrograms of several resolutions: magnitudes under Slaney's filters of equal area. The sum over
/// resolutions of `log · |log10 a - log10 b| + linear · |a - b| + square · (log10 a - log10 b)^2`, each a mean, values below
/// `floor` raised to it before the logarithm (Kumar et al. 2023, section 3.5; with squares Défossez et al. 2022, section 3.4).
#[derive(Clone, Debug)]
pub struct MelLoss {
    /// With the filters as a matrix, for devices without sparse ones, and without their zeros.
    scales: Vec<(Spectrogram, Vec<f32>, Filters)>,
    /// Weight of the absolute difference of logarithms.
    pub log: f32,
    /// Weight of the absolute difference.
    pub linear: f32,
    /// Weight of the squared difference of logarithms.
    pub square: f32,
    /// Least value before the logarithm.
    pub floor: f32,
}

impl MelLoss {
    /// A loss at these resolutions, for a sample rate; logarithms only.
    pub fn new(sample_rate: u32, scales: &[MelScale]) -> Self {
        let scale = |s: &MelScale| {
            let filters = codec_core::pipeline::mel_filters(f64::from(sample_rate), s.window, s.mels);
            let spectrogram = Spectrogram::new(s.window, s.hop, s.window, Ends::Centred, 1.0);
            let sparse = Filters::new(&filters, spectrogram.bins());
            (spectrogram, filters, sparse)
        };
        Self { scales: scales.iter().map(scale).collect(), log: 1.0, linear: 0.0, square: 0.0, floor: 1e-5 }
    }

    /// The resolutions of DAC: windows of 32 to 2048 samples, 5 to 320 filters.
    pub fn dac_scales() -> Vec<MelScale> {
        let scale = |i: u32| MelScale { window: 32 << i, hop: 8 << i, mels: 5 << i };
        (0..7).map(scale).collect()
    }

    /// The fewest samples that it can compare.
    pub fn shortest(&self) -> usize {
        self.scales.iter().map(|(s, ..)| s.shortest()).max().unwrap_or(1)
    }

    /// The distance.
    pub fn forward(&self, fake: Tensor<3>, real: Tensor<3>) -> Tensor<1> {
        let terms =
            MelTerms { log: self.log, linear: self.linear, square: self.square, floor: self.floor, power: MEL_POWER };
        let quick = compared(&fake, &real, self.scales.len(), 1.0, |i, samples, fake, real| {
            let (spectrogram, _, filters) = &self.scales[i];
            spectrum::mel(spectrogram.frames(), filters, terms, samples, fake, real)
        });
        if let Some(loss) = quick {
            return loss;
        }
        let (fake, real) = (flat(fake), flat(real));
        let terms = self.scales.iter().map(|(spectrogram, filters, _)| {
            let bins = spectrogram.bins();
            let filters = TensorData::new(filters.clone(), [1, filters.len() / bins, bins]);
            let filters = Tensor::<3>::from_data(filters, &fake.device()).swap_dims(1, 2);
            let mel = |x: &Tensor<2>| {
                let magnitude = spectrogram.magnitude(x.clone(), MEL_POWER);
                let [signals, frames, _] = magnitude.dims();
                magnitude.reshape([1, signals * frames, bins]).matmul(filters.clone())
            };
            let (a, b) = (mel(&fake), mel(&real));
            let log10 = |x: Tensor<3>| x.clamp_min(self.floor).log().mul_scalar(std::f32::consts::LOG10_E);
            let difference = log10(a.clone()) - log10(b.clone());
            let mut term = difference.clone().abs().mean().mul_scalar(self.log);
            if self.linear != 0.0 {
                term = term + (a - b).abs().mean().mul_scalar(self.linear);
            }
            if self.square != 0.0 {
                term = term + difference.square().mean().mul_scalar(self.square);
            }
            term
        });
        terms.reduce(|a, b| a + b).unwrap_or_else(|| Tensor::zeros([1], &fake.device()))
    }
}

/// One resolution of a [`StftLoss`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StftScale {
    /// Samples in a transform.
    pub n_fft: usize,
    /// Samples between two windows.
    pub hop: usize,
    /// Samples in a window.
    pub window: usize,
}

/// Distance of complex spectra of several resolutions under a compression of their magnitudes to fourth roots: mean squares of
/// the difference of magnitudes and, with a weight of 0.3 to 0.7, of that of complex values, the mean over resolutions (Ephrat
/// et al. 2018; Braun & Tashev 2021, section 3). It is what teaches phases.
#[derive(Clone, Debug)]
pub struct CompressedLoss {
    scales: Vec<Spectrogram>,
}

/// Smallest power of a bin before the root.
const ROOT_POWER: f32 = 1e-6;

impl CompressedLoss {
    /// A loss at these resolutions.
    pub fn new(scales: &[StftScale]) -> Self {
        let scale = |s: &StftScale| {
            Spectrogram::new(s.n_fft, s.hop, s.window, Ends::Centred, Spectrogram::unit_energy(s.window))
        };
        Self { scales: scales.iter().map(scale).collect() }
    }

    /// Windows of 256, 512 and 1024 samples, a quarter of one apart.
    pub fn usual_scales() -> Vec<StftScale> {
        [256, 512, 1024].map(|n| StftScale { n_fft: n, hop: n / 4, window: n }).to_vec()
    }

    /// The fewest samples that it can compare.
    pub fn shortest(&self) -> usize {
        self.scales.iter().map(Spectrogram::shortest).max().unwrap_or(1)
    }

    /// The distance.
    pub fn forward(&self, fake: Tensor<3>, real: Tensor<3>) -> Tensor<1> {
        let share = 1.0 / self.scales.len().max(1) as f64;
        let quick = compared(&fake, &real, self.scales.len(), share, |i, samples, fake, real| {
            spectrum::compressed(self.scales[i].frames(), ROOT_POWER, samples, fake, real)
        });
        if let Some(loss) = quick {
            return loss;
        }
        let (fake, real) = (flat(fake), flat(real));
        let terms = self.scales.iter().map(|spectrogram| {
            let bins = spectrogram.bins();
            // The root of the magnitude, real and imaginary parts.
            let parts = |x: &Tensor<2>| {
                let z = spectrogram.complex(x.clone());
                let (re, im) = (z.clone().slice_dim(2, 0..bins), z.slice_dim(2, bins..2 * bins));
                let magnitude = (re.clone().square() + im.clone().square()).add_scalar(ROOT_POWER).sqrt();
                let root = magnitude.clone().sqrt().sqrt();
                let by = root.clone() / magnitude;
                [root, re * by.clone(), im * by]
            };
            let (a, b) = (parts(&fake), parts(&real));
            let [root, re, im] = [0, 1, 2].map(|i| (a[i].clone() - b[i].clone()).square().mean());
            root.mul_scalar(1.0 - COMPLEX_SHARE) + (re + im).mul_scalar(COMPLEX_SHARE)
        });
        terms.reduce(|a, b| a + b).unwrap_or_else(|| Tensor::zeros([1], &fake.device())).mul_scalar(share as f32)
    }
}

/// Multi-resolution STFT loss: spectral convergence and mean absolute difference of natural logarithms of magnitudes, the mean
/// over resolutions (Yamamoto et al. 2020, section 2.2).
#[derive(Clone, Debug)]
pub struct StftLoss {
    scales: Vec<Spectrogram>,
}

impl StftLoss {
    /// A loss at these resolutions.
    pub fn new(scales: &[StftScale]) -> Self {
        Self { scales: scales.iter().map(|s| Spectrogram::new(s.n_fft, s.hop, s.window, Ends::Centred, 1.0)).collect() }
    }

    /// The resolutions of the paper.
    pub fn usual_scales() -> Vec<StftScale> {
        let scale = |(n_fft, hop, window)| StftScale { n_fft, hop, window };
        [(1024, 120, 600), (2048, 240, 1200), (512, 50, 240)].map(scale).to_vec()
    }

    /// The fewest samples that it can compare.
    pub fn shortest(&self) -> usize {
        self.scales.iter().map(Spectrogram::shortest).max().unwrap_or(1)
    }

    /// The distance.
    pub fn forward(&self, fake: Tensor<3>, real: Tensor<3>) -> Tensor<1> {
        self.forward_in(&Alone, fake, real)
    }

    /// As [`StftLoss::forward`], each process of a group with its part of the batch: the mean over processes is the loss of the
    /// whole batch, whose norms the spectral convergence is the quotient of.
    pub fn forward_in(&self, group: &dyn Group, fake: Tensor<3>, real: Tensor<3>) -> Tensor<1> {
        let share = 1.0 / self.scales.len().max(1) as f64;
        let quick = compared(&fake, &real, self.scales.len(), share, |i, samples, fake, real| {
            spectrum::stft(group, self.scales[i].frames(), BIN_POWER, MEL_POWER, samples, fake, real)
        });
        if let Some(loss) = quick {
            return loss;
        }
        let (fake, real) = (flat(fake), flat(real));
        let terms = self.scales.iter().map(|spectrogram| {
            let magnitude = |x: &Tensor<2>| spectrogram.magnitude(x.clone(), BIN_POWER);
            let (a, b) = (magnitude(&fake), magnitude(&real));
            let convergence = convergence(group, b.clone() - a.clone(), b.clone());
            convergence + (b.log() - a.log()).abs().mean()
        });
        let count = self.scales.len().max(1) as f32;
        terms.reduce(|a, b| a + b).unwrap_or_else(|| Tensor::zeros([1], &fake.device())).div_scalar(count)
    }
}

/// The norm of `difference` over that of `real`.
fn convergence(group: &dyn Group, difference: Tensor<3>, real: Tensor<3>) -> Tensor<1> {
    let (own, real) = (difference.square().sum(), real.square().sum());
    if group.size() == 1 {
        return own.clamp_min(MEL_POWER).sqrt() / real.clamp_min(MEL_POWER).sqrt();
    }
    let scalar = |x: &Tensor<1>| f64::from(x.clone().inner().into_scalar::<f32>());
    let mut sums = [scalar(&own), scalar(&real)];
    group.sum_f64(&mut sums);
    let [all, real] = sums.map(|sum| sum.max(f64::from(MEL_POWER)).sqrt());
    // The root of the sum has the slope of half this process's part over the root, and both are to be means over processes.
    let factor = group.size() as f64 / (2.0 * all * real);
    (own.clone() + own.detach()).mul_scalar(factor)
}

//! Discriminators: stacks of convolutions on views of a waveform. All convolutions are under weight norm and run in two
//! dimensions; a waveform by itself has a height of 1.

use burn::tensor::{
    Tensor,
    activation::leaky_relu,
    module::{avg_pool1d, conv2d},
    ops::{AvgPoolOptions, ConvOptions},
};
use serde::{Deserialize, Serialize};

use crate::{
    Store, TrainError, Vars, cpu,
    cpu::layers::{Function, forked, pointwise},
    loss::{Ends, Judged, Spectrogram},
    net::{Random, conv_bound},
};

/// A convolution of a stack: output channels, and per axis (height, width) taps, stride and dilation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StackLayer {
    /// Output channels.
    pub channels: usize,
    /// Taps.
    pub kernel: [usize; 2],
    /// Strides.
    #[serde(default = "ones")]
    pub stride: [usize; 2],
    /// Dilations.
    #[serde(default = "ones")]
    pub dilation: [usize; 2],
    /// Channel groups.
    #[serde(default = "one")]
    pub groups: usize,
}

fn ones() -> [usize; 2] {
    [1, 1]
}

fn one() -> usize {
    1
}

/// A family of discriminators.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum DiscriminatorSpec {
    /// The waveform, and the waveform at half, a quarter … of its rate (Kumar et al. 2019; Kong et al. 2020, section 2.3).
    MultiScale {
        /// How many rates.
        scales: usize,
        /// Channels of the first layer; the last has eight times as many.
        channels: usize,
    },
    /// The waveform cut into rows of a period, seen along the columns (Kong et al. 2020, section 2.3).
    MultiPeriod {
        /// Periods in samples.
        periods: Vec<usize>,
        /// Channels of the first layer; the last has thirty-two times as many.
        channels: usize,
    },
    /// Complex spectrograms of several resolutions (Défossez et al. 2022, section 3.4).
    MultiStft {
        /// Samples in a window.
        windows: Vec<usize>,
        /// Channels of every layer.
        channels: usize,
    },
    /// Complex spectrograms of several resolutions, each cut into bands with layers of their own (Kumar et al. 2023, section
    /// 3.4).
    MultiBand {
        /// Samples in a window.
        windows: Vec<usize>,
        /// Channels of every layer.
        channels: usize,
        /// Bounds of the bands, as parts of the spectrum.
        #[serde(default = "dac_bands")]
        bands: Vec<[f64; 2]>,
    },
    /// Complex spectrograms of several resolutions whose bins are channels, seen along time only: dense products, a small
    /// part of what images cost, which is for training on a processor. Magnitudes are raised to 0.3.
    MultiFrame {
        /// Samples in a window.
        windows: Vec<usize>,
        /// Channels of every layer.
        channels: usize,
    },
}

/// The power to which frames' magnitudes are raised, and the power of magnitudes that counts as silence.
const FRAME_POWER: f32 = 0.3;
const FRAME_SILENCE: f32 = 1e-6;

/// The bands of DAC.
pub fn dac_bands() -> Vec<[f64; 2]> {
    vec![[0.0, 0.1], [0.1, 0.25], [0.25, 0.5], [0.5, 0.75], [0.75, 1.0]]
}

/// How a discriminator looks at a waveform.
#[derive(Clone, Debug)]
enum Look {
    /// As it is, after so many halvings of its rate.
    Wave { halvings: usize },
    /// In rows of so many samples.
    Period(usize),
    /// As spectra, cut into bands of bins.
    Spectrum { spectrogram: Spectrogram, bands: Vec<[usize; 2]> },
    /// As spectra whose bins are channels.
    Frames(Spectrogram),
}

/// A discriminator: a look, a stack for each band of it, and one last convolution.
#[derive(Clone, Debug)]
struct Discriminator {
    name: String,
    look: Look,
    input: usize,
    stack: Vec<StackLayer>,
    post: StackLayer,
    slope: f64,
}

/// Discriminators and the names of their tensors.
#[derive(Clone, Debug, Default)]
pub struct Discriminators(Vec<Discriminator>);

impl Discriminators {
    /// All members of some families, for waveforms of `channels` channels.
    pub fn new(families: &[DiscriminatorSpec], channels: usize) -> Self {
        let mut list = Self::default();
        for (index, family) in families.iter().enumerate() {
            let prefix = format!("disc.{index}");
            match family {
                DiscriminatorSpec::MultiScale { scales, channels: width } => {
                    (0..*scales)
                        .for_each(|s| list.add_scale(&format!("{prefix}.{s}"), channels, s, &wave_stack(*width)));
                }
                DiscriminatorSpec::MultiPeriod { periods, channels: width } => {
                    for (i, period) in periods.iter().enumerate() {
                        list.add_period(&format!("{prefix}.{i}"), channels, *period, *width);
                    }
                }
                DiscriminatorSpec::MultiStft { windows, channels: width } => {
                    for (i, window) in windows.iter().enumerate() {
                        list.add_stft(&format!("{prefix}.{i}"), channels, *window, *width);
                    }
                }
                DiscriminatorSpec::MultiBand { windows, channels: width, bands } => {
                    for (i, window) in windows.iter().enumerate() {
                        list.add_bands(&format!("{prefix}.{i}"), channels, *window, *width, bands);
                    }
                }
                DiscriminatorSpec::MultiFrame { windows, channels: width } => {
                    for (i, window) in windows.iter().enumerate() {
                        list.add_frames(&format!("{prefix}.{i}"), channels, *window, *width);
                    }
                }
            }
        }
        list
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// A discriminator on the waveform after `halvings` halvings of its rate, of given layers.
    pub fn add_scale(&mut self, name: &str, channels: usize, halvings: usize, stack: &[StackLayer]) {
        self.0.push(Discriminator {
            name: name.to_owned(),
            look: Look::Wave { halvings },
            input: channels,
            stack: stack.to_vec(),
            post: layer(1, [1, 3]),
            slope: 0.1,
        });
    }

    fn add_period(&mut self, name: &str, channels: usize, period: usize, width: usize) {
        let strided = |channels| StackLayer { stride: [3, 1], ..layer(channels, [5, 1]) };
        let mut stack: Vec<_> = [1, 4, 16, 32].map(|factor| strided(factor * width)).to_vec();
        stack.push(layer(32 * width, [5, 1]));
        self.0.push(Discriminator {
            name: name.to_owned(),
            look: Look::Period(period.max(1)),
            input: channels,
            stack,
            post: layer(1, [3, 1]),
            slope: 0.1,
        });
    }

    fn add_stft(&mut self, name: &str, channels: usize, window: usize, width: usize) {
        let mut stack = vec![layer(width, [3, 9])];
        stack.extend([1, 2, 4].map(|d| StackLayer { stride: [1, 2], dilation: [d, 1], ..layer(width, [3, 9]) }));
        stack.push(layer(width, [3, 3]));
        let scale = Spectrogram::unit_energy(window);
        let spectrogram = Spectrogram::new(window, window / 4, window, Ends::Whole, scale);
        let bands = vec![[0, spectrogram.bins()]];
        self.0.push(Discriminator {
            name: name.to_owned(),
            look: Look::Spectrum { spectrogram, bands },
            input: 2 * channels,
            stack,
            post: layer(1, [3, 3]),
            slope: 0.2,
        });
    }

    fn add_bands(&mut self, name: &str, channels: usize, window: usize, width: usize, bands: &[[f64; 2]]) {
        let mut stack = vec![layer(width, [3, 9])];
        stack.extend((0..3).map(|_| StackLayer { stride: [1, 2], ..layer(width, [3, 9]) }));
        stack.push(layer(width, [3, 3]));
        let spectrogram = Spectrogram::new(window, window / 4, window, Ends::Stride, 1.0);
        let bins = spectrogram.bins();
        let bound = |part: f64| ((part * bins as f64) as usize).min(bins);
        let bands = bands.iter().map(|[low, high]| [bound(*low), bound(*high)]).filter(|[low, high]| low < high);
        self.0.push(Discriminator {
            name: name.to_owned(),
            look: Look::Spectrum { spectrogram, bands: bands.collect() },
            input: 2 * channels,
            stack,
            post: layer(1, [3, 3]),
            slope: 0.1,
        });
    }

    fn add_frames(&mut self, name: &str, channels: usize, window: usize, width: usize) {
        let stack = [1, 1, 2, 4].map(|d| StackLayer { dilation: [1, d], ..layer(width, [1, 3]) }).to_vec();
        let spectrogram = Spectrogram::new(window, window / 4, window, Ends::Whole, Spectrogram::unit_energy(window));
        self.0.push(Discriminator {
            name: name.to_owned(),
            input: 2 * channels * spectrogram.bins(),
            look: Look::Frames(spectrogram),
            stack,
            post: layer(1, [1, 3]),
            slope: 0.2,
        });
    }

    /// First values of all tensors, under weight norm: uniform on `±1 / sqrt(fan in)`.
    ///
    /// # Errors
    /// None; a missing tensor would be a mistake here.
    pub fn initialise(&self, store: &mut Store, seed: u64) -> Result<(), TrainError> {
        for (name, shape) in self.0.iter().flat_map(Discriminator::convs) {
            let mut random = Random::new(seed, &name, 0);
            let bound = conv_bound(shape[1..].iter().product());
            let mut values = |n: usize| (0..n).map(|_| random.within(bound) as f32).collect::<Vec<_>>();
            store.insert(format!("{name}.weight"), &shape, values(shape.iter().product()), true);
            store.insert(format!("{name}.bias"), &shape[..1], values(shape[0]), true);
            store.add_weight_norm(&name)?;
        }
        Ok(())
    }

    /// The fewest samples that all can look at.
    pub fn shortest(&self) -> usize {
        let one = |d: &Discriminator| match &d.look {
            Look::Wave { halvings } => 4 << halvings,
            Look::Period(period) => 2 * period,
            Look::Spectrum { spectrogram, .. } | Look::Frames(spectrogram) => spectrogram.shortest(),
        };
        self.0.iter().map(one).max().unwrap_or(1)
    }

    /// What each says of `[batch, channels, samples]`.
    ///
    /// # Errors
    /// A tensor is missing.
    pub fn forward(&self, vars: &Vars, x: Tensor<3>) -> Result<Vec<Judged>, TrainError> {
        self.0.iter().map(|d| d.forward(vars, x.clone())).collect()
    }
}

fn layer(channels: usize, kernel: [usize; 2]) -> StackLayer {
    StackLayer { channels, kernel, stride: [1, 1], dilation: [1, 1], groups: 1 }
}

/// HiFi-GAN's layers on a waveform.
fn wave_stack(width: usize) -> Vec<StackLayer> {
    let one = |factor: usize, kernel: usize, stride: usize, groups: usize| StackLayer {
        stride: [1, stride],
        groups: if width.is_multiple_of(groups) { groups } else { 1 },
        ..layer(factor * width, [1, kernel])
    };
    vec![
        one(1, 15, 1, 1),
        one(1, 41, 2, 4),
        one(2, 41, 2, 16),
        one(4, 41, 4, 16),
        one(8, 41, 4, 16),
        one(8, 41, 1, 16),
        one(8, 5, 1, 1),
    ]
}

impl Discriminator {
    /// Names and weight shapes of all convolutions.
    fn convs(&self) -> Vec<(String, Vec<usize>)> {
        let mut list = Vec::new();
        let mut channels = self.input;
        for band in 0..self.bands() {
            channels = self.input;
            for (i, l) in self.stack.iter().enumerate() {
                let shape = vec![l.channels, channels / l.groups, l.kernel[0], l.kernel[1]];
                list.push((format!("{}.{band}.{i}", self.name), shape));
                channels = l.channels;
            }
        }
        list.push((format!("{}.post", self.name), vec![1, channels, self.post.kernel[0], self.post.kernel[1]]));
        list
    }

    fn bands(&self) -> usize {
        match &self.look {
            Look::Spectrum { bands, .. } => bands.len(),
            _ => 1,
        }
    }

    fn forward(&self, vars: &Vars, x: Tensor<3>) -> Result<Judged, TrainError> {
        let mut features = Vec::new();
        let mut ends = Vec::new();
        for (band, view) in self.look.views(x).into_iter().enumerate() {
            let mut x = view;
            for (i, l) in self.stack.iter().enumerate() {
                let y = convolve(&format!("{}.{band}.{i}", self.name), l, vars, x)?;
                x = pointwise(&y, Function::LeakyRelu(self.slope as f32)).unwrap_or_else(|| leaky_relu(y, self.slope));
                let [next, feature] = forked(x);
                features.push(feature);
                x = next;
            }
            ends.push(x);
        }
        let x = if ends.len() == 1 { ends.remove(0) } else { Tensor::cat(ends, 3) };
        Ok(Judged { score: convolve(&format!("{}.post", self.name), &self.post, vars, x)?, features })
    }
}

impl Look {
    /// `[batch, channels, samples]` as images, one a band.
    fn views(&self, x: Tensor<3>) -> Vec<Tensor<4>> {
        let [batch, channels, samples] = x.dims();
        match self {
            Self::Wave { halvings } => {
                let mut options = AvgPoolOptions::new([4]);
                (options.stride, options.padding) = ([2], [(2, 2)]);
                let x = (0..*halvings).fold(x, |x, _| avg_pool1d(x, options.clone()));
                let samples = x.dims()[2];
                vec![x.reshape([batch, channels, 1, samples])]
            }
            Self::Period(period) => {
                let more = samples.next_multiple_of(*period) - samples;
                let x = if more > 0 {
                    let end = x.clone().slice_dim(2, samples - 1 - more..samples - 1).flip([2]);
                    Tensor::cat(vec![x, end], 2)
                } else {
                    x
                };
                vec![x.reshape([batch, channels, (samples + more) / period, *period])]
            }
            Self::Spectrum { spectrogram, bands } => {
                let image = spectrogram.image(x);
                match bands.as_slice() {
                    [[0, all]] if *all == spectrogram.bins() => vec![image],
                    bands => bands.iter().map(|[low, high]| image.clone().slice_dim(3, *low..*high)).collect(),
                }
            }
            Self::Frames(spectrogram) => {
                let image = spectrogram.image(x);
                let [_, parts, frames, bins] = image.dims();
                let [re, im] = [0..channels, channels..parts].map(|part| image.clone().slice_dim(1, part));
                let power = (re.clone().square() + im.clone().square()).add_scalar(FRAME_SILENCE);
                let factor = power.log().mul_scalar(0.5 * (FRAME_POWER - 1.0)).exp();
                let image = Tensor::cat(vec![re * factor.clone(), im * factor], 1).swap_dims(2, 3);
                vec![image.reshape([batch, parts * bins, 1, frames])]
            }
        }
    }
}

fn convolve(name: &str, l: &StackLayer, vars: &Vars, x: Tensor<4>) -> Result<Tensor<4>, TrainError> {
    let padding = [0, 1].map(|axis| (l.kernel[axis] - 1) * l.dilation[axis] / 2);
    let (weight, bias) = (vars.weight::<4>(name)?, vars.get::<1>(&format!("{name}.bias"))?);
    let on_its_side = l.kernel[1] == 1 && l.kernel[0] > 1;
    let quick = cpu::conv::Options { stride: l.stride, dilation: l.dilation, groups: l.groups };
    Ok(vars.product(x, weight, Some(bias), |x, weight, bias| {
        let padded = cpu::conv::zeros_around(&x, padding, on_its_side).zip(bias.as_ref());
        if let Some(y) = padded.and_then(|(x, bias)| cpu::conv::conv2d(&x, &weight, bias, quick)) {
            return y;
        }
        conv2d(x, weight, bias, ConvOptions::new(l.stride, padding, l.dilation, l.groups))
    }))
}

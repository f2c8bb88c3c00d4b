//! Differentiable networks from the engine's spec. Signals are `[batch, channels, rows]`.

mod attention;
mod conv;
mod init;
mod log_mel;
mod lstm;
mod spectral;

use std::collections::BTreeMap;

use burn::tensor::{Tensor, activation};
use codec_core::spec::{self, Activation, Layer};

pub use init::initialise;
pub(crate) use init::{Random, conv_bound};
use log_mel::LogMel;
use spectral::{CausalStft, InverseStft};

use crate::{
    TrainError, Vars,
    cpu::{
        conv::{conv1d, rows as conv_rows},
        layers::{self, Function},
    },
};

/// A chain of layers.
#[derive(Clone, Debug)]
pub struct Network {
    layers: Vec<Layer>,
    /// Inverse transforms by length and hop.
    transforms: BTreeMap<(u32, u32), InverseStft>,
    spectrograms: Vec<LogMel>,
    spectra: Vec<CausalStft>,
}

impl Network {
    /// Checks that every layer can be trained.
    ///
    /// # Errors
    /// [`TrainError::Untrainable`], which names the first that cannot.
    pub fn new(layers: &[Layer]) -> Result<Self, TrainError> {
        let mut network =
            Self { layers: Vec::new(), transforms: BTreeMap::new(), spectrograms: Vec::new(), spectra: Vec::new() };
        network.prepare(layers)?;
        network.layers = layers.to_vec();
        Ok(network)
    }

    /// Checks `layers` and plans their transforms.
    fn prepare(&mut self, layers: &[Layer]) -> Result<(), TrainError> {
        for layer in layers {
            if let Some((layer, kind, reason)) = refusal(layer) {
                return Err(TrainError::Untrainable { layer, kind, reason });
            }
            match layer {
                Layer::Residual(l) => {
                    self.prepare(&l.body)?;
                    self.prepare(&l.shortcut)?;
                }
                Layer::Parallel(l) => {
                    for branch in &l.branches {
                        self.prepare(&branch.body)?;
                        self.prepare(&branch.then)?;
                    }
                }
                Layer::LogMel(l) if !self.spectrograms.iter().any(|s| s.is(l)) => {
                    self.spectrograms.push(LogMel::new(l));
                }
                Layer::Stft(l) if !self.spectra.iter().any(|s| s.is(l)) => self.spectra.push(CausalStft::new(l)),
                Layer::Istft(l) => {
                    self.transforms.entry((l.n_fft, l.hop)).or_insert_with(|| InverseStft::new(l));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The output of a signal, as the engine gives it for the whole signal.
    ///
    /// # Errors
    /// A tensor is missing, or the signal is too short for a layer.
    pub fn forward(&self, vars: &Vars, x: Tensor<3>) -> Result<Tensor<3>, TrainError> {
        self.chain(&self.layers, vars, x)
    }

    fn chain(&self, layers: &[Layer], vars: &Vars, x: Tensor<3>) -> Result<Tensor<3>, TrainError> {
        layers.iter().try_fold(x, |x, layer| self.layer(layer, vars, x))
    }

    fn layer(&self, layer: &Layer, vars: &Vars, x: Tensor<3>) -> Result<Tensor<3>, TrainError> {
        Ok(match layer {
            Layer::Conv(l) => conv::forward(l, vars, x)?,
            Layer::ConvTranspose(l) => conv::transposed(l, vars, x)?,
            Layer::Activation(a) => activate(a, vars, x)?,
            Layer::Residual(l) => {
                let [x, again] = layers::forked(x);
                added(self.chain(&l.body, vars, x)?, self.chain(&l.shortcut, vars, again)?)
            }
            Layer::Parallel(l) => {
                let (mut sum, mut rest) = (None, x.clone());
                for branch in &l.branches {
                    let [own, left] = layers::forked(rest);
                    rest = left;
                    let y = self.chain(&branch.body, vars, own)?;
                    let y = match sum {
                        Some(sum) => added(sum, y),
                        None => y,
                    };
                    sum = Some(self.chain(&branch.then, vars, y)?);
                }
                sum.unwrap_or_else(|| x.zeros_like()).div_scalar(l.divisor)
            }
            Layer::Lstm(l) => lstm::forward(l, vars, x)?,
            Layer::GroupNorm(l) => {
                let [batch, channels, rows] = x.dims();
                let groups = (l.groups as usize).max(1);
                let grouped = normalised(x.reshape([batch, groups, channels / groups * rows]), 2, l.epsilon);
                affine(vars, &l.name, grouped.reshape([batch, channels, rows]))?
            }
            Layer::LayerNorm(l) => layer_norm(l, vars, x)?,
            Layer::Linear(l) => linear(l, vars, x)?,
            Layer::Scale { name, channels } => {
                let factors = vars.get::<1>(&format!("{name}.scale"))?;
                layers::scale(&x, &factors).unwrap_or_else(|| x * factors.reshape([1, *channels as usize, 1]))
            }
            Layer::PadEnd { multiple } => {
                let [batch, channels, rows] = x.dims();
                match rows.next_multiple_of((*multiple).max(1) as usize) - rows {
                    0 => x,
                    more => {
                        let sources = (0..rows + more).map(|row| Some(row).filter(|row| *row < rows)).collect();
                        if let Some(y) = conv_rows(&x, sources) {
                            return Ok(y);
                        }
                        let zeros = Tensor::zeros([batch, channels, more], &x.device());
                        Tensor::cat(vec![x, zeros], 2)
                    }
                }
            }
            Layer::Trim { left, right } => {
                let (rows, left, right) = (x.dims()[2], *left as usize, *right as usize);
                if left + right >= rows {
                    return Err(TrainError::TooShort { layer: "trim".into(), rows, needed: left + right + 1 });
                }
                trimmed(x, left, right)
            }
            Layer::Istft(l) => {
                let transform = self.transforms.get(&(l.n_fft, l.hop));
                transform.ok_or_else(|| TrainError::NoTensor("istft".into()))?.forward(x)
            }
            // Without a seed the engine's is the identity; with one it was refused.
            Layer::Noise(_) => x,
            Layer::Attention(l) => attention::forward(l, vars, x)?,
            Layer::LogMel(l) => {
                let spectrogram = self.spectrograms.iter().find(|s| s.is(l));
                spectrogram.ok_or_else(|| TrainError::NoTensor("log-mel".into()))?.forward(x)?
            }
            Layer::Stft(l) => {
                let spectrum = self.spectra.iter().find(|s| s.is(l));
                spectrum.ok_or_else(|| TrainError::NoTensor("stft".into()))?.forward(x)
            }
            Layer::Quantize { .. } | Layer::Dequantize { .. } => {
                let (layer, kind, reason) = refusal(layer).unwrap_or_default();
                return Err(TrainError::Untrainable { layer, kind, reason });
            }
        })
    }
}

fn added(a: Tensor<3>, b: Tensor<3>) -> Tensor<3> {
    layers::add(&a, &b).unwrap_or_else(|| a + b)
}

/// A signal without some of its first and last rows.
fn trimmed(x: Tensor<3>, left: usize, right: usize) -> Tensor<3> {
    let rows = x.dims()[2];
    let kept = left..rows - right;
    conv_rows(&x, kept.clone().map(Some).collect()).unwrap_or_else(|| x.slice_dim(2, kept))
}

const INT8: &str = "it is quantised to int8; train its float form";

/// Why a layer cannot be trained.
fn refusal(layer: &Layer) -> Option<(String, &'static str, &'static str)> {
    let (name, kind, reason) = match layer {
        Layer::Conv(l) if l.int8.is_some() => (&*l.name, "conv", INT8),
        Layer::ConvTranspose(l) if l.blocks.as_ref().is_some_and(|b| b.int8.is_some()) => {
            (&*l.name, "conv-transpose", INT8)
        }
        Layer::Residual(l) if l.int8.is_some() => ("a sum", "residual", INT8),
        Layer::Activation(Activation::LeakyReluInt8 { .. }) => ("leaky-relu-int8", "activation", INT8),
        Layer::Quantize { .. } => ("quantize", "quantize", INT8),
        Layer::Dequantize { .. } => ("dequantize", "dequantize", INT8),
        Layer::Noise(l) if l.seed.is_some() => {
            (&*l.name, "noise", "noise with a seed is for decoding; leave the seed out")
        }
        _ => return None,
    };
    Some((name.to_owned(), kind, reason))
}

fn activate(a: &Activation, vars: &Vars, x: Tensor<3>) -> Result<Tensor<3>, TrainError> {
    let quick = match a {
        Activation::Elu { alpha } => layers::pointwise(&x, Function::Elu(*alpha)),
        Activation::LeakyRelu { slope } => layers::pointwise(&x, Function::LeakyRelu(*slope)),
        Activation::Snake { name } => layers::snake(&x, &vars.get::<1>(&format!("{name}.alpha"))?),
        Activation::Tanh => layers::pointwise(&x, Function::Tanh),
        Activation::Gelu => layers::pointwise(&x, Function::Gelu),
        Activation::Silu => layers::pointwise(&x, Function::Silu),
        Activation::LeakyReluInt8 { .. } => None,
    };
    if let Some(y) = quick {
        return Ok(y);
    }
    Ok(match a {
        Activation::Elu { alpha } => {
            // Not exp of what is large: its gradient would be infinity times zero.
            let below = x.clone().clamp_max(0.0).exp().sub_scalar(1.0).mul_scalar(*alpha);
            x.clamp_min(0.0) + below
        }
        Activation::LeakyRelu { slope } => activation::leaky_relu(x, f64::from(*slope)),
        Activation::Snake { name } => {
            let alpha = vars.get::<1>(&format!("{name}.alpha"))?;
            let alpha = alpha.clone().reshape([1, alpha.dims()[0], 1]);
            let sine = (x.clone() * alpha.clone()).sin();
            x + sine.square() / alpha.add_scalar(1e-9)
        }
        Activation::Tanh => x.tanh(),
        Activation::Gelu => activation::gelu(x),
        Activation::Silu => activation::silu(x),
        Activation::LeakyReluInt8 { .. } => {
            return Err(TrainError::Untrainable { layer: "leaky-relu-int8".into(), kind: "activation", reason: INT8 });
        }
    })
}

/// Zero mean and unit variance over one axis.
fn normalised(x: Tensor<3>, axis: usize, epsilon: f32) -> Tensor<3> {
    let centred = x.clone() - x.mean_dim(axis);
    let variance = centred.clone().square().mean_dim(axis);
    centred / variance.add_scalar(epsilon).sqrt()
}

/// A weight and a bias for each channel.
fn affine(vars: &Vars, name: &str, x: Tensor<3>) -> Result<Tensor<3>, TrainError> {
    let of = |part: &str| {
        let values = vars.get::<1>(&format!("{name}.{part}"))?;
        Ok::<_, TrainError>(values.clone().reshape([1, values.dims()[0], 1]))
    };
    Ok(x * of("weight")? + of("bias")?)
}

fn layer_norm(l: &spec::LayerNorm, vars: &Vars, x: Tensor<3>) -> Result<Tensor<3>, TrainError> {
    let Some(row) = l.row.filter(|_| l.rows.is_some() && l.affine) else {
        if l.affine {
            let (weight, bias) = (vars.get(&format!("{}.weight", l.name))?, vars.get(&format!("{}.bias", l.name))?);
            if let Some(y) = layers::layer_norm(&x, &weight, &bias, l.epsilon) {
                return Ok(y);
            }
        }
        let x = normalised(x, 1, l.epsilon);
        return if l.affine { affine(vars, &l.name, x) } else { Ok(x) };
    };
    let x = normalised(x, 1, l.epsilon);
    let of = |part: &str| {
        let table = vars.get::<2>(&format!("{}.{part}", l.name))?;
        let row = row as usize;
        Ok::<_, TrainError>(table.slice_dim(0, row..row + 1).reshape([1, l.channels as usize, 1]))
    };
    Ok(x * of("weight")? + of("bias")?)
}

fn linear(l: &spec::Linear, vars: &Vars, x: Tensor<3>) -> Result<Tensor<3>, TrainError> {
    let (weight, bias) = (vars.weight::<2>(&l.name)?, vars.bias(&l.name, l.bias)?);
    Ok(vars.product(x, weight, bias, |x, weight, bias| {
        if let Some(y) = conv1d(&x, &weight.clone().unsqueeze_dim::<3>(2), bias.as_ref(), 1, 1, 1) {
            return y;
        }
        let y = weight.unsqueeze::<3>().matmul(x);
        match bias {
            Some(bias) => y + bias.reshape([1, l.output as usize, 1]),
            None => y,
        }
    }))
}

//! The tensors that a spec names, with their shapes.

use alloc::{format, string::String, vec::Vec};

use super::{Activation, CodecSpec, Layer, Linear, Quantizer};

/// The most stacked layers of an [`super::Lstm`].
pub(crate) const MAX_LSTM_LAYERS: u32 = 64;

/// A tensor that a spec asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
}

impl CodecSpec {
    /// Every tensor of the encoder, the quantizer and the decoder, in this order.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut list = List(Vec::new());
        if let Some(layers) = &self.encoder {
            list.layers(layers, self.channels);
        }
        list.quantizer(&self.quantizer);
        if let Some(layers) = &self.decoder {
            list.layers(layers, self.latent);
        }
        list.0
    }
}

/// Every tensor of a chain of layers on `input` channels.
pub fn layer_tensors(layers: &[Layer], input: u32) -> Vec<TensorSpec> {
    let mut list = List(Vec::new());
    list.layers(layers, input);
    list.0
}

struct List(Vec<TensorSpec>);

impl List {
    fn add(&mut self, name: &str, suffix: &str, shape: &[u32]) {
        self.0
            .push(TensorSpec { name: format!("{name}.{suffix}"), shape: shape.iter().map(|&s| s as usize).collect() });
    }

    /// Returns the channels after the layers.
    fn layers(&mut self, layers: &[Layer], input: u32) -> u32 {
        layers.iter().fold(input, |channels, layer| self.layer(layer, channels))
    }

    fn layer(&mut self, layer: &Layer, channels: u32) -> u32 {
        match layer {
            Layer::Conv(l) => {
                self.add(&l.name, "weight", &[l.output, l.input / l.groups.max(1), l.kernel]);
                if l.bias {
                    self.add(&l.name, "bias", &[l.output]);
                }
                if l.int8.is_some() {
                    self.add(&l.name, "weight_scale", &[l.output]);
                }
                l.output
            }
            Layer::ConvTranspose(l) => {
                self.add(&l.name, "weight", &[l.input, l.output / l.groups.max(1), l.kernel]);
                if l.bias {
                    self.add(&l.name, "bias", &[l.output]);
                }
                if l.blocks.as_ref().is_some_and(|b| b.int8.is_some()) {
                    self.add(&l.name, "weight_scale", &[l.groups]);
                    if l.bias {
                        self.add(&l.name, "state_bias", &[l.output]);
                    }
                }
                l.output
            }
            Layer::Activation(Activation::Snake { name }) => {
                self.add(name, "alpha", &[channels]);
                channels
            }
            Layer::Residual(l) => {
                self.layers(&l.shortcut, channels);
                self.layers(&l.body, channels)
            }
            Layer::Parallel(l) => l.branches.iter().fold(channels, |_, branch| {
                let body = self.layers(&branch.body, channels);
                self.layers(&branch.then, body)
            }),
            Layer::Lstm(l) => {
                let ways: &[&str] = if l.bidirectional { &["", "_reverse"] } else { &[""] };
                let mut input = l.input;
                // More are refused when the model is built.
                for i in 0..l.layers.min(MAX_LSTM_LAYERS) {
                    let gates = l.hidden.saturating_mul(4);
                    for way in ways {
                        for (part, from) in [("ih", input), ("hh", l.hidden)] {
                            self.add(&l.name, &format!("weight_{part}_l{i}{way}"), &[gates, from]);
                            self.add(&l.name, &format!("bias_{part}_l{i}{way}"), &[gates]);
                        }
                    }
                    input = l.hidden.saturating_mul(ways.len() as u32);
                }
                input
            }
            Layer::GroupNorm(l) => {
                self.add(&l.name, "weight", &[l.channels]);
                self.add(&l.name, "bias", &[l.channels]);
                channels
            }
            Layer::Istft(_) => 1,
            Layer::LogMel(l) => l.mels,
            Layer::Stft(l) => (l.n_fft / 2).saturating_add(1).saturating_mul(3),
            Layer::Noise(l) => {
                self.add(&l.name, "weight", &[l.channels, l.channels, 1]);
                channels
            }
            Layer::LayerNorm(l) => {
                if l.affine {
                    let shape = [l.rows.unwrap_or(1), l.channels];
                    let shape = if l.rows.is_some() { &shape[..] } else { &shape[1..] };
                    self.add(&l.name, "weight", shape);
                    self.add(&l.name, "bias", shape);
                }
                channels
            }
            Layer::Linear(l) => {
                self.linear(Some(l));
                l.output
            }
            Layer::Scale { name, channels: own } => {
                self.add(name, "scale", &[*own]);
                channels
            }
            Layer::Attention(l) => {
                let inner = l.heads.saturating_mul(l.head_dim);
                for (part, input, output, bias) in [
                    ("q", l.channels, inner, l.bias.q),
                    ("k", l.channels, inner, l.bias.k),
                    ("v", l.channels, inner, l.bias.v),
                    ("out", inner, l.channels, l.bias.out),
                ] {
                    self.linear(Some(&Linear { name: format!("{}.{part}", l.name), input, output, bias }));
                }
                if let Some(m) = l.memory {
                    self.add(&l.name, "memory.weight", &[inner, 1, m.kernel]);
                }
                channels
            }
            Layer::Activation(_) | Layer::PadEnd { .. } | Layer::Trim { .. } => channels,
            Layer::Quantize { .. } | Layer::Dequantize { .. } => channels,
        }
    }

    fn linear(&mut self, l: Option<&Linear>) {
        let Some(l) = l else { return };
        self.add(&l.name, "weight", &[l.output, l.input]);
        if l.bias {
            self.add(&l.name, "bias", &[l.output]);
        }
    }

    fn quantizer(&mut self, q: &Quantizer) {
        match q {
            Quantizer::Vq(v) => {
                self.add(&v.name, "codebook", &[v.size, v.dim]);
                self.linear(v.project_in.as_deref());
                self.linear(v.project_out.as_deref());
            }
            Quantizer::Residual { stages, project_in, project_out, .. } => {
                self.linear(project_in.as_ref());
                stages.iter().for_each(|s| self.quantizer(s));
                self.linear(project_out.as_ref());
            }
            Quantizer::Grouped { groups: parts } | Quantizer::Split { parts } => {
                parts.iter().for_each(|p| self.quantizer(p));
            }
            Quantizer::Rated { inner, .. } => self.quantizer(inner),
            Quantizer::Fsq(f) => {
                self.linear(f.project_in.as_ref());
                self.linear(f.project_out.as_ref());
            }
            Quantizer::Lfq { project_in, project_out, .. } => {
                self.linear(project_in.as_ref());
                self.linear(project_out.as_ref());
            }
            Quantizer::RandomProjection { name, input, dim, size } => {
                self.add(name, "projection", &[*input, *dim]);
                self.add(name, "codebook", &[*size, *dim]);
            }
            Quantizer::Mvq { name, dim, codebooks, size, .. } => {
                self.add(name, "centers", &[*codebooks, *size, *dim]);
                let logits = codebooks.saturating_mul(*size);
                self.add(name, "to_logits.weight", &[logits, *dim]);
                self.add(name, "to_logits.bias", &[logits]);
            }
        }
    }
}

//! The tensors that a spec names.

use codec_core::{
    spec::{Activation, Attention, CodecSpec, Conv, ConvTranspose, Layer, Linear, Lstm, Quantizer, Vq},
    weights::Dtype,
};

/// A tensor that a spec names.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedTensor {
    /// The name that the layer has in the spec.
    pub layer: String,
    /// What follows it and a dot in the tensor's name.
    pub part: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Element type.
    pub dtype: Dtype,
}

impl WantedTensor {
    /// The tensor's name.
    pub fn name(&self) -> String {
        format!("{}.{}", self.layer, self.part)
    }
}

/// The tensors that a spec names: encoder, quantizer, decoder, in the order of their layers.
pub fn wanted_tensors(spec: &CodecSpec) -> Vec<WantedTensor> {
    let mut out = List(Vec::new());
    out.layers(spec.encoder.as_deref().unwrap_or_default(), spec.channels);
    out.quantizer(&spec.quantizer);
    out.layers(spec.decoder.as_deref().unwrap_or_default(), spec.latent);
    out.0
}

struct List(Vec<WantedTensor>);

impl List {
    fn add(&mut self, layer: &str, part: &str, dtype: Dtype, shape: &[u32]) {
        let shape = shape.iter().map(|size| *size as usize).collect();
        self.0.push(WantedTensor { layer: layer.to_owned(), part: part.to_owned(), shape, dtype });
    }

    /// Lists what a chain of layers names; takes and returns the number of channels.
    fn layers(&mut self, layers: &[Layer], mut channels: u32) -> u32 {
        for layer in layers {
            match layer {
                Layer::Conv(conv) => {
                    self.conv(conv);
                    channels = conv.output;
                }
                Layer::ConvTranspose(conv) => {
                    self.conv_transpose(conv);
                    channels = conv.output;
                }
                Layer::Activation(Activation::Snake { name }) => self.add(name, "alpha", Dtype::F32, &[channels]),
                Layer::Activation(_)
                | Layer::PadEnd { .. }
                | Layer::Trim { .. }
                | Layer::Quantize { .. }
                | Layer::Dequantize { .. } => {}
                Layer::Residual(residual) => {
                    self.layers(&residual.shortcut, channels);
                    channels = self.layers(&residual.body, channels);
                }
                Layer::Parallel(parallel) => {
                    let input = channels;
                    for branch in &parallel.branches {
                        channels = self.layers(&branch.body, input);
                        self.layers(&branch.then, channels);
                    }
                }
                Layer::Lstm(lstm) => {
                    self.lstm(lstm);
                    channels = lstm.hidden.saturating_mul(if lstm.bidirectional { 2 } else { 1 });
                }
                Layer::GroupNorm(norm) => {
                    self.add(&norm.name, "weight", Dtype::F32, &[norm.channels]);
                    self.add(&norm.name, "bias", Dtype::F32, &[norm.channels]);
                }
                Layer::LayerNorm(norm) => {
                    if norm.affine {
                        let shape: Vec<u32> = norm.rows.into_iter().chain([norm.channels]).collect();
                        self.add(&norm.name, "weight", Dtype::F32, &shape);
                        self.add(&norm.name, "bias", Dtype::F32, &shape);
                    }
                }
                Layer::Linear(linear) => {
                    self.linear(linear);
                    channels = linear.output;
                }
                Layer::Scale { name, channels } => self.add(name, "scale", Dtype::F32, &[*channels]),
                Layer::Attention(attention) => self.attention(attention),
            }
        }
        channels
    }

    fn attention(&mut self, l: &Attention) {
        let (inner, bias) = (l.heads.saturating_mul(l.head_dim), l.bias);
        for (part, input, output, bias) in [
            ("q", l.channels, inner, bias.q),
            ("k", l.channels, inner, bias.k),
            ("v", l.channels, inner, bias.v),
            ("out", inner, l.channels, bias.out),
        ] {
            self.linear(&Linear { name: format!("{}.{part}", l.name), input, output, bias });
        }
        if let Some(memory) = l.memory {
            self.add(&format!("{}.memory", l.name), "weight", Dtype::F32, &[inner, 1, memory.kernel]);
        }
    }

    fn conv(&mut self, conv: &Conv) {
        let (weight, bias) = if conv.int8.is_some() { (Dtype::I8, Dtype::I32) } else { (Dtype::F32, Dtype::F32) };
        self.add(&conv.name, "weight", weight, &[conv.output, conv.input / conv.groups.max(1), conv.kernel]);
        if conv.bias {
            self.add(&conv.name, "bias", bias, &[conv.output]);
        }
        if conv.int8.is_some() {
            self.add(&conv.name, "weight_scale", Dtype::F32, &[conv.output]);
        }
    }

    fn conv_transpose(&mut self, conv: &ConvTranspose) {
        let int8 = conv.blocks.as_ref().is_some_and(|blocks| blocks.int8.is_some());
        let (weight, bias) = if int8 { (Dtype::I8, Dtype::I32) } else { (Dtype::F32, Dtype::F32) };
        self.add(&conv.name, "weight", weight, &[conv.input, conv.output / conv.groups.max(1), conv.kernel]);
        if conv.bias {
            self.add(&conv.name, "bias", bias, &[conv.output]);
        }
        if int8 {
            self.add(&conv.name, "weight_scale", Dtype::F32, &[conv.groups]);
            self.add(&conv.name, "state_bias", Dtype::F32, &[conv.output]);
        }
    }

    fn lstm(&mut self, lstm: &Lstm) {
        let directions: &[&str] = if lstm.bidirectional { &["", "_reverse"] } else { &[""] };
        let (mut input, rows) = (lstm.input, lstm.hidden.saturating_mul(4));
        for layer in 0..lstm.layers {
            for direction in directions {
                let part = |what: &str| format!("{what}_l{layer}{direction}");
                self.add(&lstm.name, &part("weight_ih"), Dtype::F32, &[rows, input]);
                self.add(&lstm.name, &part("weight_hh"), Dtype::F32, &[rows, lstm.hidden]);
                self.add(&lstm.name, &part("bias_ih"), Dtype::F32, &[rows]);
                self.add(&lstm.name, &part("bias_hh"), Dtype::F32, &[rows]);
            }
            input = lstm.hidden.saturating_mul(directions.len() as u32);
        }
    }

    fn linear(&mut self, linear: &Linear) {
        self.add(&linear.name, "weight", Dtype::F32, &[linear.output, linear.input]);
        if linear.bias {
            self.add(&linear.name, "bias", Dtype::F32, &[linear.output]);
        }
    }

    fn vq(&mut self, vq: &Vq) {
        vq.project_in.iter().for_each(|linear| self.linear(linear));
        self.add(&vq.name, "codebook", Dtype::F32, &[vq.size, vq.dim]);
        vq.project_out.iter().for_each(|linear| self.linear(linear));
    }

    fn quantizer(&mut self, quantizer: &Quantizer) {
        match quantizer {
            Quantizer::Vq(vq) => self.vq(vq),
            Quantizer::Residual { stages, project_in, project_out, .. } => {
                project_in.iter().for_each(|linear| self.linear(linear));
                stages.iter().for_each(|stage| self.quantizer(stage));
                project_out.iter().for_each(|linear| self.linear(linear));
            }
            Quantizer::Split { parts: groups } | Quantizer::Grouped { groups } => {
                groups.iter().for_each(|group| self.quantizer(group))
            }
            Quantizer::Fsq(fsq) => fsq.project_in.iter().chain(&fsq.project_out).for_each(|linear| self.linear(linear)),
            Quantizer::Lfq { project_in, project_out, .. } => {
                project_in.iter().chain(project_out).for_each(|linear| self.linear(linear));
            }
            Quantizer::RandomProjection { name, input, dim, size } => {
                self.add(name, "projection", Dtype::F32, &[*input, *dim]);
                self.add(name, "codebook", Dtype::F32, &[*size, *dim]);
            }
            Quantizer::Mvq { name, dim, codebooks, size, .. } => {
                let rows = codebooks.saturating_mul(*size);
                self.add(name, "centers", Dtype::F32, &[*codebooks, *size, *dim]);
                self.add(&format!("{name}.to_logits"), "weight", Dtype::F32, &[rows, *dim]);
                self.add(&format!("{name}.to_logits"), "bias", Dtype::F32, &[rows]);
            }
        }
    }
}

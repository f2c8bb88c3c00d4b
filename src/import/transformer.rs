//! A pre-norm transformer layer (Vaswani et al. 2017; Xiong et al. 2020), as Mimi and S3Tokenizer have it.

use codec_core::spec::{
    Activation, Attention, AttentionBias, Fsmn, Layer, LayerNorm, Linear, Pairing, Residual, Rotary, Span,
};

/// What tells one stack of layers from another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Transformer {
    pub channels: u32,
    pub heads: u32,
    pub head_dim: u32,
    /// Channels between the two linear layers.
    pub hidden: u32,
    pub layers: u32,
    pub epsilon: f32,
    pub theta: f32,
    pub pairing: Pairing,
    pub span: Span,
    pub bias: AttentionBias,
    pub linear_bias: bool,
    pub memory: Option<Fsmn>,
    /// A factor for each channel at the end of both branches.
    pub scale: bool,
}

impl Transformer {
    pub fn layers(&self, name: &str) -> impl Iterator<Item = Layer> {
        (0..self.layers).flat_map(move |layer| self.layer(&format!("{name}.layer{layer}")))
    }

    fn layer(&self, name: &str) -> [Layer; 2] {
        let channels = self.channels;
        let mut attention = vec![
            layer_norm(&format!("{name}.norm1"), channels, self.epsilon),
            Layer::Attention(Attention {
                name: format!("{name}.attention"),
                channels,
                heads: self.heads,
                head_dim: self.head_dim,
                bias: self.bias,
                rotary: Some(Rotary { theta: self.theta, pairing: self.pairing }),
                span: self.span,
                memory: self.memory,
            }),
        ];
        let mut dense = vec![
            layer_norm(&format!("{name}.norm2"), channels, self.epsilon),
            linear(&format!("{name}.linear1"), channels, self.hidden, self.linear_bias),
            Layer::Activation(Activation::Gelu),
            linear(&format!("{name}.linear2"), self.hidden, channels, self.linear_bias),
        ];
        if self.scale {
            attention.push(Layer::Scale { name: format!("{name}.scale1"), channels });
            dense.push(Layer::Scale { name: format!("{name}.scale2"), channels });
        }
        [residual(attention), residual(dense)]
    }
}

pub(super) fn residual(body: Vec<Layer>) -> Layer {
    Layer::Residual(Residual { body, shortcut: Vec::new(), int8: None })
}

pub(super) fn linear(name: &str, input: u32, output: u32, bias: bool) -> Layer {
    Layer::Linear(Linear { name: name.to_owned(), input, output, bias })
}

pub(super) fn layer_norm(name: &str, channels: u32, epsilon: f32) -> Layer {
    Layer::LayerNorm(LayerNorm { name: name.to_owned(), channels, epsilon, row: None, rows: None, affine: true })
}

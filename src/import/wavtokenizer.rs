//! WavTokenizer (Ji et al. 2024): EnCodec's encoder, one codebook, and a Vocos decoder with attention that ends in an
//! inverse Fourier transform.

use codec_core::spec::{
    Activation, Attention, AttentionBias, CodecSpec, Conv, Framing, GroupNorm, Istft, Layer, LayerNorm, PadMode,
    Padding, Quantizer, ResidualRounding, SPEC_VERSION, Span, Vq,
};

use super::{
    ModelParts, System,
    names::{NameMap, Recipe, Source},
    seanet::{Layout, Seanet},
    transformer::{layer_norm, linear, residual},
};
use crate::checkpoint::Checkpoint;

systems! {
    ("wavtokenizer-40", "frame40"),
    ("wavtokenizer-75", "frame75"),
}

const PREFIX: &str = "feature_extractor.encodec.";
const EPSILON: f32 = 1e-6;
/// Of the normalisations beside the attention.
const GROUPS: u32 = 32;
/// The row of the adaptive normalisations that the publisher's example takes, of four bandwidths that all mean the one
/// codebook.
const BANDWIDTH: u32 = 0;

fn network(name: &str) -> Seanet {
    let ratios = match name {
        "wavtokenizer-40" => vec![8, 5, 5, 3],
        _ => vec![8, 5, 4, 2],
    };
    Seanet { dimension: 512, ratios, causal: false, ..Seanet::default() }
}

/// Sizes of the decoder, read off its tensors.
struct Config {
    network: Seanet,
    codebook_size: u32,
    width: u32,
    hidden: u32,
    blocks: u32,
    /// Rows of the adaptive normalisations.
    bandwidths: u32,
}

fn source(checkpoint: &Checkpoint) -> Option<Source<'_>> {
    Source::find(checkpoint, "feature_extractor.encodec.encoder.model.0.conv.conv.bias")
}

fn matches(checkpoint: &Checkpoint, name: &str) -> bool {
    source(checkpoint).is_some_and(|source| {
        network(name).matches(&source, Layout::Original, PREFIX) && source.shape("backbone.embed.weight").is_some()
    })
}

fn import(checkpoint: &Checkpoint, name: &str) -> ModelParts {
    let source = source(checkpoint).unwrap_or_else(|| Source::whole(checkpoint));
    let size = |tensor: &str, default: u32| {
        let first = source.shape(tensor).and_then(|shape| shape.first());
        first.and_then(|size| u32::try_from(*size).ok()).filter(|size| (1..=1 << 16).contains(size)).unwrap_or(default)
    };
    let config = Config {
        network: network(name),
        codebook_size: size(&format!("{PREFIX}quantizer.vq.layers.0._codebook.embed"), 4096),
        width: size("backbone.embed.weight", 768),
        hidden: size("backbone.convnext.0.pwconv1.weight", 2304),
        blocks: source.count("backbone.convnext.", ".gamma").max(1) as u32,
        bandwidths: size("backbone.norm.scale.weight", 4),
    };
    let spec = config.spec(name);
    // EnCodec's own decoder, discriminators and losses are stored too; the window follows from its length.
    let names = config.names().ignoring(|name| {
        let part = [PREFIX, "backbone.", "head."].iter().any(|prefix| name.starts_with(prefix));
        !part || name.starts_with("feature_extractor.encodec.decoder.") || name == "head.istft.window"
    });
    let tensors = source.tensors(name, &spec, &names)?;
    Ok((spec, tensors))
}

impl Config {
    fn spec(&self, name: &str) -> CodecSpec {
        let latent = self.network.dimension;
        CodecSpec {
            version: SPEC_VERSION,
            name: name.to_owned(),
            sample_rate: 24_000,
            channels: 1,
            hop: self.network.hop(),
            latent,
            framing: Framing::Stream,
            codebook_choices: vec![1],
            encoder: Some(self.network.encoder()),
            quantizer: Quantizer::Residual {
                stages: vec![Quantizer::Vq(Vq {
                    name: "quantizer.0".into(),
                    size: self.codebook_size,
                    dim: latent,
                    metric: Default::default(),
                    project_in: None,
                    project_out: None,
                })],
                project_in: None,
                project_out: None,
                rounding: ResidualRounding::Plain,
            },
            decoder: Some(self.decoder()),
        }
    }

    fn decoder(&self) -> Vec<Layer> {
        let width = self.width;
        let mut layers = vec![self.conv("decoder.conv_in", self.network.dimension, 7, 1)];
        layers.extend([self.resnet("decoder.resnet0"), self.resnet("decoder.resnet1")]);
        layers.push(residual(vec![
            self.group_norm("decoder.attention.norm"),
            Layer::Attention(Attention {
                name: "decoder.attention".into(),
                channels: width,
                heads: 1,
                head_dim: width,
                bias: AttentionBias { q: true, k: true, v: true, out: true },
                rotary: None,
                span: Span::Full,
                memory: None,
            }),
        ]));
        layers.extend([self.resnet("decoder.resnet2"), self.resnet("decoder.resnet3")]);
        layers.extend([self.group_norm("decoder.norm_in"), self.adaptive("decoder.norm")]);
        for block in 0..self.blocks {
            let name = format!("decoder.block{block}");
            layers.push(residual(vec![
                self.conv(&format!("{name}.depthwise"), width, 7, width),
                self.adaptive(&format!("{name}.norm")),
                linear(&format!("{name}.linear1"), width, self.hidden, true),
                Layer::Activation(Activation::Gelu),
                linear(&format!("{name}.linear2"), self.hidden, width, true),
                Layer::Scale { name, channels: width },
            ]));
        }
        let hop = self.network.hop();
        layers.extend([
            layer_norm("decoder.norm_out", width, EPSILON),
            linear("decoder.head", width, 4 * hop + 2, true),
            Layer::Istft(Istft { n_fft: 4 * hop, hop }),
        ]);
        layers
    }

    fn resnet(&self, name: &str) -> Layer {
        residual(vec![
            self.group_norm(&format!("{name}.norm1")),
            Layer::Activation(Activation::Silu),
            self.conv(&format!("{name}.conv1"), self.width, 3, 1),
            self.group_norm(&format!("{name}.norm2")),
            Layer::Activation(Activation::Silu),
            self.conv(&format!("{name}.conv2"), self.width, 3, 1),
        ])
    }

    fn group_norm(&self, name: &str) -> Layer {
        Layer::GroupNorm(GroupNorm { name: name.to_owned(), channels: self.width, groups: GROUPS, epsilon: EPSILON })
    }

    fn adaptive(&self, name: &str) -> Layer {
        Layer::LayerNorm(LayerNorm {
            name: name.to_owned(),
            channels: self.width,
            epsilon: EPSILON,
            row: Some(BANDWIDTH),
            rows: Some(self.bandwidths),
            affine: true,
        })
    }

    /// A convolution that keeps the number of rows.
    fn conv(&self, name: &str, input: u32, kernel: u32, groups: u32) -> Layer {
        let side = (kernel - 1) / 2;
        Layer::Conv(Conv {
            name: name.to_owned(),
            input,
            output: self.width,
            kernel,
            stride: 1,
            dilation: 1,
            groups,
            bias: true,
            padding: Padding { mode: PadMode::Zero, left: side, right: side, complete: false },
            int8: None,
        })
    }

    fn names(&self) -> NameMap {
        let mut names = NameMap::new("._codebook.embed");
        self.network.add_names(&mut names, Layout::Original, PREFIX);
        names.add("quantizer.0", format!("{PREFIX}quantizer.vq.layers.0"));
        // The Vocos decoder takes the place of EnCodec's under some of the same names.
        names.add("decoder.conv_in", "backbone.embed");
        for (resnet, theirs) in [0, 1, 3, 4].into_iter().enumerate() {
            for part in ["norm1", "conv1", "norm2", "conv2"] {
                names.add(format!("decoder.resnet{resnet}.{part}"), format!("backbone.pos_net.{theirs}.{part}"));
            }
        }
        for (ours, theirs) in [("norm", "norm"), ("q", "q"), ("k", "k"), ("v", "v"), ("out", "proj_out")] {
            names.add(format!("decoder.attention.{ours}"), format!("backbone.pos_net.2.{theirs}"));
        }
        names.add("decoder.norm_in", "backbone.pos_net.5");
        adaptive(&mut names, "decoder.norm", "backbone.norm");
        for block in 0..self.blocks {
            let (ours, theirs) = (format!("decoder.block{block}"), format!("backbone.convnext.{block}"));
            names.add(format!("{ours}.depthwise"), format!("{theirs}.dwconv"));
            adaptive(&mut names, &format!("{ours}.norm"), &format!("{theirs}.norm"));
            names.add(format!("{ours}.linear1"), format!("{theirs}.pwconv1"));
            names.add(format!("{ours}.linear2"), format!("{theirs}.pwconv2"));
            names.tensor(format!("{ours}.scale"), Recipe::Same(format!("{theirs}.gamma")));
        }
        names.add("decoder.norm_out", "backbone.final_layer_norm");
        names.add("decoder.head", "head.out");
        names
    }
}

fn adaptive(names: &mut NameMap, ours: &str, theirs: &str) {
    names.tensor(format!("{ours}.weight"), Recipe::Same(format!("{theirs}.scale.weight")));
    names.tensor(format!("{ours}.bias"), Recipe::Same(format!("{theirs}.shift.weight")));
}

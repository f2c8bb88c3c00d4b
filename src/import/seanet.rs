//! The SEANet autoencoder of EnCodec and its relatives (Tagliasacchi et al. 2020; Défossez et al. 2022, section 3.1).

use codec_core::spec::{
    Activation, CodecSpec, Conv, ConvTranspose, Framing, GroupNorm, Layer, Lstm, PadMode, Padding, Quantizer, Residual,
    ResidualRounding, SPEC_VERSION, Vq,
};

use super::{
    ModelParts,
    names::{NameMap, Source},
};
use crate::checkpoint::Checkpoint;

/// Channels after the first convolution, in every published model.
const FILTERS: u32 = 32;
const CODEBOOK_SIZE: u32 = 1024;

/// What tells one SEANet codec from another.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Config {
    pub sample_rate: u32,
    pub channels: u32,
    /// Channels of the latent.
    pub dimension: u32,
    /// Upsampling of the decoder, first stage first; the encoder has them in reverse.
    pub ratios: [u32; 4],
    pub causal: bool,
    /// A group normalisation over all channels after each convolution.
    pub norm: bool,
    pub framing: Framing,
    /// Codebook counts that the publisher offers.
    pub choices: &'static [u32],
}

/// Who named the tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Original,
    Transformers,
}

impl Layout {
    fn of(checkpoint: &Checkpoint) -> Option<(Self, Source<'_>)> {
        let original = Source::find(checkpoint, "encoder.model.0.conv.conv.bias").map(|s| (Self::Original, s));
        original.or_else(|| Source::find(checkpoint, "encoder.layers.0.conv.bias").map(|s| (Self::Transformers, s)))
    }

    /// Places where the names differ: layers, after a convolution, after a transposed one, codebooks.
    fn parts(self) -> [&'static str; 5] {
        match self {
            Self::Original => ["model", ".conv.conv", ".convtr.convtr", "quantizer.vq.layers.", "._codebook.embed"],
            Self::Transformers => ["layers", ".conv", ".conv", "quantizer.layers.", ".codebook.embed"],
        }
    }
}

impl Config {
    /// Whether the checkpoint has the shapes of this codec.
    pub fn matches(&self, checkpoint: &Checkpoint) -> bool {
        let Some((layout, source)) = Layout::of(checkpoint) else { return false };
        let [layers, conv, _, books, embed] = layout.parts();
        let weight = |index: usize| source.weight_shape(&format!("encoder.{layers}.{index}{conv}"));
        let has = |index: usize, shape: [u32; 3]| {
            weight(index).is_some_and(|found| found.iter().copied().eq(shape.map(|size| size as usize)))
        };
        let stages = self.ratios.iter().rev().enumerate().all(|(stage, ratio)| {
            let width = FILTERS << stage;
            has(3 * stage + 3, [2 * width, width, 2 * ratio])
        });
        let norm = source.shape(&self.norm_name(layout, &format!("encoder.{layers}.0{conv}"))).is_some();
        stages
            && has(0, [FILTERS, self.channels, 7])
            && has(15, [self.dimension, FILTERS << 4, 7])
            && norm == self.norm
            && source.shape(&format!("{books}0{embed}")) == Some(&[CODEBOOK_SIZE as usize, self.dimension as usize])
    }

    fn norm_name(&self, layout: Layout, theirs: &str) -> String {
        format!("{}.weight", norm_of(layout, theirs))
    }

    /// Builds spec and tensors.
    pub fn import(&self, name: &str, checkpoint: &Checkpoint) -> ModelParts {
        let (layout, source) = Layout::of(checkpoint).unwrap_or((Layout::Original, Source::whole(checkpoint)));
        let [.., books, embed] = layout.parts();
        let count = source.count(books, embed).max(1) as u32;
        let spec = self.spec(name, count);
        let tensors = source.tensors(name, &spec, &self.names(layout, count))?;
        Ok((spec, tensors))
    }

    /// The codec with this many codebooks.
    pub fn spec(&self, name: &str, codebooks: u32) -> CodecSpec {
        let mut choices: Vec<_> = self.choices.iter().copied().filter(|n| *n < codebooks).collect();
        choices.push(codebooks);
        let book = |n| Vq {
            name: format!("quantizer.{n}"),
            size: CODEBOOK_SIZE,
            dim: self.dimension,
            metric: Default::default(),
            project_in: None,
            project_out: None,
        };
        CodecSpec {
            version: SPEC_VERSION,
            name: name.to_owned(),
            sample_rate: self.sample_rate,
            channels: self.channels,
            hop: self.ratios.iter().product(),
            latent: self.dimension,
            framing: self.framing.clone(),
            codebook_choices: choices,
            encoder: Some(self.encoder()),
            quantizer: Quantizer::Residual {
                stages: (0..codebooks).map(|n| Quantizer::Vq(book(n))).collect(),
                project_in: None,
                project_out: None,
                rounding: ResidualRounding::Plain,
            },
            decoder: Some(self.decoder()),
        }
    }

    fn encoder(&self) -> Vec<Layer> {
        let mut layers = self.conv("encoder.conv_in", self.channels, FILTERS, 7, 1);
        for (stage, ratio) in self.ratios.iter().rev().enumerate() {
            let width = FILTERS << stage;
            layers.push(self.unit(&format!("encoder.stage{stage}.unit0"), width));
            layers.push(elu());
            layers.extend(self.conv(&format!("encoder.stage{stage}.down"), width, 2 * width, 2 * ratio, *ratio));
        }
        layers.push(lstm("encoder.lstm", FILTERS << 4));
        layers.push(elu());
        layers.extend(self.conv("encoder.conv_out", FILTERS << 4, self.dimension, 7, 1));
        layers
    }

    fn decoder(&self) -> Vec<Layer> {
        let mut layers = self.conv("decoder.conv_in", self.dimension, FILTERS << 4, 7, 1);
        layers.push(lstm("decoder.lstm", FILTERS << 4));
        for (stage, ratio) in self.ratios.iter().enumerate() {
            let width = FILTERS << (3 - stage);
            layers.push(elu());
            layers.extend(self.up(&format!("decoder.stage{stage}.up"), 2 * width, width, *ratio));
            layers.push(self.unit(&format!("decoder.stage{stage}.unit0"), width));
        }
        layers.push(elu());
        layers.extend(self.conv("decoder.conv_out", FILTERS, self.channels, 7, 1));
        layers
    }

    fn conv(&self, name: &str, input: u32, output: u32, kernel: u32, stride: u32) -> Vec<Layer> {
        let pad = kernel - stride;
        let right = if self.causal { 0 } else { pad / 2 };
        let conv = Conv {
            name: name.to_owned(),
            input,
            output,
            kernel,
            stride,
            dilation: 1,
            groups: 1,
            bias: true,
            padding: Padding { mode: PadMode::Reflect, left: pad - right, right, complete: true },
            int8: None,
        };
        let mut layers = vec![Layer::Conv(conv)];
        layers.extend(self.norm(name, output));
        layers
    }

    fn up(&self, name: &str, input: u32, output: u32, ratio: u32) -> Vec<Layer> {
        let kernel = 2 * ratio;
        let trim = kernel - ratio;
        let right = if self.causal { trim } else { trim / 2 };
        let left = trim - right;
        let norm = self.norm(name, output);
        // A normalisation sees the rows that are cut off after it.
        let (trim_left, trim_right) = if norm.is_some() { (0, 0) } else { (left, right as i32) };
        let conv = ConvTranspose {
            name: name.to_owned(),
            input,
            output,
            kernel,
            stride: ratio,
            groups: 1,
            bias: true,
            trim_left,
            trim_right,
            blocks: None,
        };
        let mut layers = vec![Layer::ConvTranspose(conv)];
        if let Some(norm) = norm {
            layers.extend([norm, Layer::Trim { left, right }]);
        }
        layers
    }

    fn unit(&self, name: &str, width: u32) -> Layer {
        let mut body = vec![elu()];
        body.extend(self.conv(&format!("{name}.conv1"), width, width / 2, 3, 1));
        body.push(elu());
        body.extend(self.conv(&format!("{name}.conv2"), width / 2, width, 1, 1));
        let shortcut = self.conv(&format!("{name}.shortcut"), width, width, 1, 1);
        Layer::Residual(Residual { body, shortcut, int8: None })
    }

    fn norm(&self, conv: &str, channels: u32) -> Option<Layer> {
        let norm = GroupNorm { name: format!("{conv}.norm"), channels, groups: 1, epsilon: 1e-5 };
        self.norm.then_some(Layer::GroupNorm(norm))
    }

    fn names(&self, layout: Layout, codebooks: u32) -> NameMap {
        let [layers, conv, convtr, books, embed] = layout.parts();
        let mut names = NameMap::new(embed);
        let mut layer = |ours: String, theirs: String| {
            names.add(format!("{ours}.norm"), norm_of(layout, &theirs));
            names.add(ours, theirs);
        };
        for side in ["encoder", "decoder"] {
            layer(format!("{side}.conv_in"), format!("{side}.{layers}.0{conv}"));
            layer(format!("{side}.conv_out"), format!("{side}.{layers}.15{conv}"));
            for stage in 0..4 {
                // The encoder has its unit before the strided convolution, the decoder after it.
                let (at, unit, (step, kind)) = match side {
                    "encoder" => (3 * stage + 3, 3 * stage + 1, ("down", conv)),
                    _ => (3 * stage + 3, 3 * stage + 4, ("up", convtr)),
                };
                layer(format!("{side}.stage{stage}.{step}"), format!("{side}.{layers}.{at}{kind}"));
                for (ours, theirs) in [("conv1", "block.1"), ("conv2", "block.3"), ("shortcut", "shortcut")] {
                    let unit = format!("{side}.{layers}.{unit}.{theirs}{conv}");
                    layer(format!("{side}.stage{stage}.unit0.{ours}"), unit);
                }
            }
        }
        names.add("encoder.lstm", format!("encoder.{layers}.13.lstm"));
        names.add("decoder.lstm", format!("decoder.{layers}.1.lstm"));
        for n in 0..codebooks {
            names.add(format!("quantizer.{n}"), format!("{books}{n}"));
        }
        names
    }
}

/// The normalisation beside a convolution: both end in a name that it replaces.
fn norm_of(layout: Layout, conv: &str) -> String {
    let stem = match layout {
        Layout::Original => conv.strip_suffix(".conv").or_else(|| conv.strip_suffix(".convtr")),
        Layout::Transformers => conv.strip_suffix(".conv"),
    };
    format!("{}.norm", stem.unwrap_or(conv))
}

fn elu() -> Layer {
    Layer::Activation(Activation::Elu { alpha: 1.0 })
}

fn lstm(name: &str, width: u32) -> Layer {
    Layer::Lstm(Lstm {
        name: name.to_owned(),
        input: width,
        hidden: width,
        layers: 2,
        bidirectional: false,
        skip: true,
    })
}

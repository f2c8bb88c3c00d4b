//! The SEANet autoencoder of EnCodec and its relatives (Tagliasacchi et al. 2020; Défossez et al. 2022, section 3.1).

use codec_core::spec::{
    Activation, CodecSpec, Conv, ConvTranspose, Framing, GroupNorm, Layer, Lstm, PadMode, Padding, Quantizer, Residual,
    ResidualRounding, SPEC_VERSION, Vq,
};

use super::{
    ImportError, ModelParts,
    names::{NameMap, Source},
    stated::unsupported,
};
use crate::checkpoint::Checkpoint;

/// The network. Its default is that of the published EnCodec at 24 kHz.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seanet {
    pub channels: u32,
    /// Channels after the first convolution.
    pub filters: u32,
    /// Channels of the latent.
    pub dimension: u32,
    /// Upsampling of the decoder, first stage first; the encoder has them in reverse.
    pub ratios: Vec<u32>,
    pub causal: bool,
    pub pad: PadMode,
    /// A group normalisation over all channels after each convolution.
    pub norm: bool,
    pub kernel: u32,
    pub last_kernel: u32,
    pub residual_kernel: u32,
    /// Residual units a stage; unit `j` is dilated by `dilation_base^j`.
    pub units: u32,
    pub dilation_base: u32,
    /// A unit is narrower inside by this factor.
    pub compress: u32,
    /// A convolution of one tap beside each unit, not the identity.
    pub shortcut: bool,
    /// Layers of the LSTM on each side of the latent.
    pub lstm: u32,
    /// Both directions in the encoder's.
    pub bidirectional: bool,
    /// Snake activations and not ELU.
    pub snake: bool,
}

impl Default for Seanet {
    fn default() -> Self {
        Self {
            channels: 1,
            filters: 32,
            dimension: 128,
            ratios: vec![8, 5, 4, 2],
            causal: true,
            pad: PadMode::Reflect,
            norm: false,
            kernel: 7,
            last_kernel: 7,
            residual_kernel: 3,
            units: 1,
            dilation_base: 2,
            compress: 2,
            shortcut: true,
            lstm: 2,
            bidirectional: false,
            snake: false,
        }
    }
}

/// Who named the tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Original,
    Transformers,
}

impl Layout {
    pub fn of(checkpoint: &Checkpoint) -> Option<(Self, Source<'_>)> {
        let original = Source::find(checkpoint, "encoder.model.0.conv.conv.bias").map(|s| (Self::Original, s));
        original.or_else(|| Source::find(checkpoint, "encoder.layers.0.conv.bias").map(|s| (Self::Transformers, s)))
    }

    /// Places where the names differ: layers, after a convolution, after a transposed one.
    pub fn parts(self) -> [&'static str; 3] {
        match self {
            Self::Original => ["model", ".conv.conv", ".convtr.convtr"],
            Self::Transformers => ["layers", ".conv", ".conv"],
        }
    }

    /// Around a codebook's number.
    fn books(self) -> [&'static str; 2] {
        match self {
            Self::Original => ["quantizer.vq.layers.", "._codebook.embed"],
            Self::Transformers => ["quantizer.layers.", ".codebook.embed"],
        }
    }
}

impl Seanet {
    pub fn hop(&self) -> u32 {
        self.ratios.iter().product()
    }

    /// Channels at the narrow end of the strided stages.
    fn width(&self) -> u32 {
        self.filters << self.ratios.len()
    }

    /// Channels after the encoder's LSTM.
    fn wide(&self) -> u32 {
        self.width() * if self.bidirectional { 2 } else { 1 }
    }

    /// Refuses sizes that no layer can have; `fields` are what the configuration calls ratios, filters, compression,
    /// the dilation's base, and the kernels.
    pub fn check(&self, fields: [&str; 5]) -> Result<(), ImportError> {
        let product = |values: &[u32]| values.iter().try_fold(1u32, |n, v| n.checked_mul(*v)).filter(|n| *n <= 1 << 20);
        product(&self.ratios).ok_or_else(|| unsupported(fields[0], format!("a hop of {:?}", self.ratios)))?;
        let width = u64::from(self.filters) << self.ratios.len();
        if width > 1 << 15 {
            return Err(unsupported(fields[1], format!("{width} channels behind {} stages", self.ratios.len())));
        }
        if self.compress == 0 || !self.filters.is_multiple_of(self.compress) {
            return Err(unsupported(fields[2], format!("{} does not divide {}", self.compress, self.filters)));
        }
        if self.units > 16 || product(&vec![self.dilation_base; self.units as usize]).is_none() {
            return Err(unsupported(fields[3], format!("{} to the power of {}", self.dilation_base, self.units)));
        }
        let kernels = [self.kernel, self.last_kernel, self.residual_kernel];
        if kernels.iter().any(|kernel| !(1..=1 << 10).contains(kernel)) {
            return Err(unsupported(fields[4], format!("one of the kernels is {kernels:?}")));
        }
        Ok(())
    }

    pub fn encoder(&self) -> Vec<Layer> {
        let mut layers = self.conv("encoder.conv_in", self.channels, self.filters, self.kernel, 1, 1);
        for (stage, ratio) in self.ratios.iter().rev().enumerate() {
            let (name, width) = (format!("encoder.stage{stage}"), self.filters << stage);
            layers.extend(self.units(&name, width));
            layers.push(self.activation(&format!("{name}.snake")));
            layers.extend(self.conv(&format!("{name}.down"), width, 2 * width, 2 * ratio, *ratio, 1));
        }
        layers.extend(self.lstm("encoder.lstm", self.bidirectional));
        layers.push(self.activation("encoder.snake"));
        layers.extend(self.conv("encoder.conv_out", self.wide(), self.dimension, self.last_kernel, 1, 1));
        layers
    }

    pub fn decoder(&self) -> Vec<Layer> {
        let mut layers = self.conv("decoder.conv_in", self.dimension, self.width(), self.kernel, 1, 1);
        layers.extend(self.lstm("decoder.lstm", false));
        for (stage, ratio) in self.ratios.iter().enumerate() {
            let (name, width) = (format!("decoder.stage{stage}"), self.width() >> (stage + 1));
            layers.push(self.activation(&format!("{name}.snake")));
            layers.extend(self.up(&format!("{name}.up"), 2 * width, width, *ratio));
            layers.extend(self.units(&name, width));
        }
        layers.push(self.activation("decoder.snake"));
        layers.extend(self.conv("decoder.conv_out", self.filters, self.channels, self.last_kernel, 1, 1));
        layers
    }

    fn conv(&self, name: &str, input: u32, output: u32, kernel: u32, stride: u32, dilation: u32) -> Vec<Layer> {
        let pad = ((kernel - 1) * dilation + 1).saturating_sub(stride);
        let right = if self.causal { 0 } else { pad / 2 };
        let conv = Conv {
            name: name.to_owned(),
            input,
            output,
            kernel,
            stride,
            dilation,
            groups: 1,
            bias: true,
            padding: Padding { mode: self.pad, left: pad - right, right, complete: true },
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

    fn units(&self, stage: &str, width: u32) -> impl Iterator<Item = Layer> {
        (0..self.units).map(move |unit| {
            let name = format!("{stage}.unit{unit}");
            let (inner, dilation) = (width / self.compress, self.dilation_base.pow(unit));
            let mut body = vec![self.activation(&format!("{name}.snake1"))];
            body.extend(self.conv(&format!("{name}.conv1"), width, inner, self.residual_kernel, 1, dilation));
            body.push(self.activation(&format!("{name}.snake2")));
            body.extend(self.conv(&format!("{name}.conv2"), inner, width, 1, 1, 1));
            let shortcut = match self.shortcut {
                true => self.conv(&format!("{name}.shortcut"), width, width, 1, 1, 1),
                false => Vec::new(),
            };
            Layer::Residual(Residual { body, shortcut, int8: None })
        })
    }

    fn norm(&self, conv: &str, channels: u32) -> Option<Layer> {
        let norm = GroupNorm { name: format!("{conv}.norm"), channels, groups: 1, epsilon: 1e-5 };
        self.norm.then_some(Layer::GroupNorm(norm))
    }

    fn activation(&self, name: &str) -> Layer {
        Layer::Activation(match self.snake {
            true => Activation::Snake { name: name.to_owned() },
            false => Activation::Elu { alpha: 1.0 },
        })
    }

    fn lstm(&self, name: &str, bidirectional: bool) -> Option<Layer> {
        let lstm = Lstm {
            name: name.to_owned(),
            input: self.width(),
            hidden: self.width(),
            layers: self.lstm,
            bidirectional,
            skip: true,
        };
        (self.lstm > 0).then_some(Layer::Lstm(lstm))
    }

    /// Adds the names of both networks, which stand below `prefix`.
    pub fn add_names(&self, names: &mut NameMap, layout: Layout, prefix: &str) {
        let [layers, conv, convtr] = layout.parts();
        let mut layer = |ours: String, theirs: String| {
            names.add(format!("{ours}.norm"), norm_of(layout, &theirs));
            names.add(ours, theirs);
        };
        for side in ["encoder", "decoder"] {
            let slot = |index: u32| format!("{prefix}{side}.{layers}.{index}");
            let mut index = 0;
            let mut next = || {
                index += 1;
                slot(index - 1)
            };
            layer(format!("{side}.conv_in"), next() + conv);
            if side == "decoder" && self.lstm > 0 {
                layer(format!("{side}.lstm"), next() + ".lstm");
            }
            for stage in 0..self.ratios.len() {
                let ours = format!("{side}.stage{stage}");
                // The encoder has its units before the strided convolution, the decoder after it.
                if side == "decoder" {
                    layer(format!("{ours}.snake"), next());
                    layer(format!("{ours}.up"), next() + convtr);
                }
                for unit in 0..self.units {
                    let theirs = next();
                    for (part, at) in [
                        ("snake1", ".block.0".to_owned()),
                        ("conv1", format!(".block.1{conv}")),
                        ("snake2", ".block.2".to_owned()),
                        ("conv2", format!(".block.3{conv}")),
                        ("shortcut", format!(".shortcut{conv}")),
                    ] {
                        layer(format!("{ours}.unit{unit}.{part}"), format!("{theirs}{at}"));
                    }
                }
                if side == "encoder" {
                    layer(format!("{ours}.snake"), next());
                    layer(format!("{ours}.down"), next() + conv);
                }
            }
            if side == "encoder" && self.lstm > 0 {
                layer(format!("{side}.lstm"), next() + ".lstm");
            }
            layer(format!("{side}.snake"), next());
            layer(format!("{side}.conv_out"), next() + conv);
        }
    }

    /// Whether the encoder below `prefix` has the shapes of this one.
    pub fn matches(&self, source: &Source<'_>, layout: Layout, prefix: &str) -> bool {
        let mut names = NameMap::new("");
        self.add_names(&mut names, layout, prefix);
        let theirs = |ours: &str| names.get(ours).unwrap_or_default();
        let has = |ours: &str, shape: [u32; 3]| {
            source
                .weight_shape(theirs(ours))
                .is_some_and(|found| found.iter().copied().eq(shape.map(|size| size as usize)))
        };
        let part = |ours: &str, part: &str| source.shape(&format!("{}.{part}", theirs(ours))).is_some();
        let stages = self.ratios.iter().rev().enumerate().all(|(stage, ratio)| {
            let width = self.filters << stage;
            has(&format!("encoder.stage{stage}.down"), [2 * width, width, 2 * ratio])
        });
        stages
            && has("encoder.conv_in", [self.filters, self.channels, self.kernel])
            && has("encoder.conv_out", [self.dimension, self.wide(), self.last_kernel])
            && part("encoder.conv_in.norm", "weight") == self.norm
            && part("encoder.stage0.snake", "alpha") == self.snake
            && (self.units == 0 || part("encoder.stage0.unit0.shortcut", "bias") == self.shortcut)
            && (self.lstm == 0) != part("encoder.lstm", "weight_ih_l0")
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

/// A SEANet with residual codebooks in between.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Config {
    pub sample_rate: u32,
    pub network: Seanet,
    pub codebook_size: u32,
    pub framing: Framing,
    /// Codebook counts that the publisher offers.
    pub choices: Vec<u32>,
}

impl Config {
    /// Whether the checkpoint has the shapes of this codec.
    pub fn matches(&self, checkpoint: &Checkpoint) -> bool {
        let Some((layout, source)) = Layout::of(checkpoint) else { return false };
        let [books, embed] = layout.books();
        self.network.matches(&source, layout, "")
            && source.shape(&format!("{books}0{embed}"))
                == Some(&[self.codebook_size as usize, self.network.dimension as usize])
    }

    /// Builds spec and tensors; `ignored` are the publisher's tensors that play no part.
    pub fn import(&self, name: &str, checkpoint: &Checkpoint, ignored: fn(&str) -> bool) -> ModelParts {
        let (layout, source) = Layout::of(checkpoint).unwrap_or((Layout::Original, Source::whole(checkpoint)));
        let [books, embed] = layout.books();
        let count = source.count(books, embed).max(1) as u32;
        let spec = self.spec(name, count);
        let mut names = NameMap::new(embed).ignoring(ignored);
        self.network.add_names(&mut names, layout, "");
        (0..count).for_each(|n| names.add(format!("quantizer.{n}"), format!("{books}{n}")));
        let tensors = source.tensors(name, &spec, &names)?;
        Ok((spec, tensors))
    }

    /// The codec with this many codebooks.
    pub fn spec(&self, name: &str, codebooks: u32) -> CodecSpec {
        let mut choices: Vec<_> = self.choices.iter().copied().filter(|n| *n < codebooks).collect();
        choices.push(codebooks);
        let book = |n| Vq {
            name: format!("quantizer.{n}"),
            size: self.codebook_size,
            dim: self.network.dimension,
            metric: Default::default(),
            project_in: None,
            project_out: None,
        };
        CodecSpec {
            version: SPEC_VERSION,
            name: name.to_owned(),
            sample_rate: self.sample_rate,
            channels: self.network.channels,
            hop: self.network.hop(),
            latent: self.network.dimension,
            framing: self.framing.clone(),
            codebook_choices: choices,
            encoder: Some(self.network.encoder()),
            quantizer: Quantizer::Residual {
                stages: (0..codebooks).map(|n| Quantizer::Vq(book(n))).collect(),
                project_in: None,
                project_out: None,
                rounding: ResidualRounding::Plain,
            },
            decoder: Some(self.network.decoder()),
        }
    }
}

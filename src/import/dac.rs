//! Descript Audio Codec (Kumar et al. 2023): the four published models.

use codec_core::spec::{
    Activation, CodecSpec, Conv, ConvTranspose, Framing, Layer, Linear, Metric, PadMode, Padding, Quantizer, Residual,
    ResidualRounding, SPEC_VERSION, Vq,
};

use super::{
    ModelParts, System,
    names::{NameMap, Source},
};
use crate::checkpoint::Checkpoint;

const ENCODER_WIDTH: u32 = 64;
const DECODER_WIDTH: u32 = 1536;
const CODEBOOK_SIZE: u32 = 1024;
const CODEBOOK_DIM: u32 = 8;

systems! {
    ("dac-16khz", "16khz"),
    ("dac-24khz", "24khz"),
    ("dac-44khz", "44khz"),
    ("dac-44khz-16kbps", "16kbps"),
}

fn matches(checkpoint: &Checkpoint, name: &str) -> bool {
    config(name).matches(checkpoint)
}

fn import(checkpoint: &Checkpoint, name: &str) -> ModelParts {
    config(name).import(name, checkpoint)
}

struct Config {
    sample_rate: u32,
    /// Strides of the encoder; the decoder has them in reverse.
    rates: [u32; 4],
    latent: u32,
    /// Codebooks of the published file.
    codebooks: u32,
}

pub(super) fn spec(name: &str) -> Option<CodecSpec> {
    let known = SYSTEMS.iter().any(|system| system.name == name);
    known.then(|| {
        let config = config(name);
        config.spec(name, config.codebooks)
    })
}

fn config(name: &str) -> Config {
    let (sample_rate, rates, latent, codebooks) = match name {
        "dac-16khz" => (16_000, [2, 4, 5, 8], 1024, 12),
        "dac-24khz" => (24_000, [2, 4, 5, 8], 1024, 32),
        "dac-44khz" => (44_100, [2, 4, 8, 8], 1024, 9),
        _ => (44_100, [2, 4, 8, 8], 128, 18),
    };
    Config { sample_rate, rates, latent, codebooks }
}

/// Who named the tensors.
#[derive(Clone, Copy)]
enum Layout {
    Original,
    Transformers,
}

impl Layout {
    fn of(checkpoint: &Checkpoint) -> Option<(Self, Source<'_>)> {
        let original = Source::find(checkpoint, "encoder.block.0.bias").map(|source| (Self::Original, source));
        original.or_else(|| Source::find(checkpoint, "encoder.conv1.bias").map(|source| (Self::Transformers, source)))
    }

    /// The names of the encoder's first and strided convolutions and its last.
    fn convs(self, stage: usize) -> [String; 3] {
        match self {
            Self::Original => {
                ["encoder.block.0".into(), format!("encoder.block.{}.block.4", stage + 1), "encoder.block.6".into()]
            }
            Self::Transformers => {
                ["encoder.conv1".into(), format!("encoder.block.{stage}.conv1"), "encoder.conv2".into()]
            }
        }
    }
}

fn codebooks(source: &Source<'_>) -> u32 {
    source.count("quantizer.quantizers.", ".codebook.weight") as u32
}

/// The sample rate that the checkpoint states, in the pickle or in `config.json`.
fn stated_rate(checkpoint: &Checkpoint) -> Option<u64> {
    let beside = checkpoint.config();
    let kwargs = &checkpoint.attributes()["metadata"]["kwargs"];
    [Some(&kwargs["sample_rate"]), beside.map(|c| &c["sampling_rate"]), beside.map(|c| &c["sample_rate"])]
        .into_iter()
        .flatten()
        .find_map(serde_json::Value::as_u64)
}

impl Config {
    fn matches(&self, checkpoint: &Checkpoint) -> bool {
        let Some((layout, source)) = Layout::of(checkpoint) else { return false };
        let has = |name: &str, shape: [u32; 3]| {
            source.weight_shape(name).is_some_and(|found| found.iter().copied().eq(shape.map(|size| size as usize)))
        };
        let stages = self.rates.iter().enumerate().all(|(stage, rate)| {
            let width = ENCODER_WIDTH << stage;
            has(&layout.convs(stage)[1], [2 * width, width, 2 * rate])
        });
        let [first, _, last] = layout.convs(0);
        stages
            && has(&first, [ENCODER_WIDTH, 1, 7])
            && has(&last, [self.latent, ENCODER_WIDTH << 4, 3])
            && match stated_rate(checkpoint) {
                Some(rate) => rate == u64::from(self.sample_rate),
                None => codebooks(&source) == self.codebooks,
            }
    }

    fn import(&self, name: &str, checkpoint: &Checkpoint) -> ModelParts {
        let (layout, source) = Layout::of(checkpoint).unwrap_or((Layout::Original, Source::whole(checkpoint)));
        let count = codebooks(&source).max(1);
        let spec = self.spec(name, count);
        let tensors = source.tensors(name, &spec, &self.names(layout, count))?;
        Ok((spec, tensors))
    }

    fn spec(&self, name: &str, codebooks: u32) -> CodecSpec {
        let hop = self.rates.iter().product();
        let project = |name: String, input, output| Some(Box::new(Linear { name, input, output, bias: true }));
        let book = |n| Vq {
            name: format!("quantizer.{n}"),
            size: CODEBOOK_SIZE,
            dim: CODEBOOK_DIM,
            metric: Metric::Cosine,
            project_in: project(format!("quantizer.{n}.project_in"), self.latent, CODEBOOK_DIM),
            project_out: project(format!("quantizer.{n}.project_out"), CODEBOOK_DIM, self.latent),
        };
        CodecSpec {
            version: SPEC_VERSION,
            name: name.to_owned(),
            sample_rate: self.sample_rate,
            channels: 1,
            hop,
            latent: self.latent,
            framing: Framing::Stream,
            codebook_choices: vec![codebooks],
            encoder: Some(self.encoder(hop)),
            quantizer: Quantizer::Residual {
                stages: (0..codebooks).map(|n| Quantizer::Vq(book(n))).collect(),
                project_in: None,
                project_out: None,
                rounding: ResidualRounding::Plain,
            },
            decoder: Some(self.decoder()),
        }
    }

    fn encoder(&self, hop: u32) -> Vec<Layer> {
        let mut layers = vec![Layer::PadEnd { multiple: hop }, conv("encoder.conv_in", 1, ENCODER_WIDTH, 7, 1)];
        for (stage, rate) in self.rates.iter().enumerate() {
            let (name, width) = (format!("encoder.stage{stage}"), ENCODER_WIDTH << stage);
            layers.extend(units(&name, width));
            layers.push(snake(&format!("{name}.snake")));
            let down = Conv {
                kernel: 2 * rate,
                stride: *rate,
                padding: same(rate.div_ceil(2)),
                ..plain_conv(&format!("{name}.down"), width, 2 * width)
            };
            layers.push(Layer::Conv(down));
        }
        layers.push(snake("encoder.snake"));
        layers.push(conv("encoder.conv_out", ENCODER_WIDTH << 4, self.latent, 3, 1));
        layers
    }

    fn decoder(&self) -> Vec<Layer> {
        let mut layers = vec![conv("decoder.conv_in", self.latent, DECODER_WIDTH, 7, 1)];
        for (stage, rate) in self.rates.iter().rev().enumerate() {
            let (name, width) = (format!("decoder.stage{stage}"), DECODER_WIDTH >> stage);
            layers.push(snake(&format!("{name}.snake")));
            // An odd stride loses a row here; the published models have no output padding.
            layers.push(up(&name, width, *rate, 0));
            layers.extend(units(&name, width / 2));
        }
        layers.push(snake("decoder.snake"));
        layers.push(conv("decoder.conv_out", DECODER_WIDTH >> 4, 1, 7, 1));
        layers.push(Layer::Activation(Activation::Tanh));
        layers
    }

    fn names(&self, layout: Layout, codebooks: u32) -> NameMap {
        let mut names = NameMap::new(".codebook.weight");
        let mut add = |ours: String, original: String, transformers: String| match layout {
            Layout::Original => names.add(ours, original),
            Layout::Transformers => names.add(ours, transformers),
        };
        for (side, list) in [("encoder", "block"), ("decoder", "model")] {
            for (ours, original, transformers) in
                [("conv_in", 0, "conv1"), ("snake", 5, "snake1"), ("conv_out", 6, "conv2")]
            {
                add(format!("{side}.{ours}"), format!("{side}.{list}.{original}"), format!("{side}.{transformers}"));
            }
            // The encoder's stages begin with the units, the decoder's end with them.
            let (first_unit, snake, (step, step_at, step_name)) = match side {
                "encoder" => (0, 3, ("down", 4, "conv1")),
                _ => (2, 0, ("up", 1, "conv_t1")),
            };
            for stage in 0..self.rates.len() {
                let ours = format!("{side}.stage{stage}");
                let original = format!("{side}.{list}.{}.block", stage + 1);
                let transformers = format!("{side}.block.{stage}");
                add(format!("{ours}.snake"), format!("{original}.{snake}"), format!("{transformers}.snake1"));
                add(format!("{ours}.{step}"), format!("{original}.{step_at}"), format!("{transformers}.{step_name}"));
                for unit in 0..3 {
                    for (at, part) in ["snake1", "conv1", "snake2", "conv2"].into_iter().enumerate() {
                        add(
                            format!("{ours}.unit{unit}.{part}"),
                            format!("{original}.{}.block.{at}", first_unit + unit),
                            format!("{transformers}.res_unit{}.{part}", unit + 1),
                        );
                    }
                }
            }
        }
        for n in 0..codebooks {
            let (ours, theirs) = (format!("quantizer.{n}"), format!("quantizer.quantizers.{n}"));
            names.add(format!("{ours}.project_in"), format!("{theirs}.in_proj"));
            names.add(format!("{ours}.project_out"), format!("{theirs}.out_proj"));
            names.add(ours, theirs);
        }
        names
    }
}

fn units(stage: &str, width: u32) -> impl Iterator<Item = Layer> {
    [1, 3, 9].into_iter().enumerate().map(move |(unit, dilation)| {
        let name = format!("{stage}.unit{unit}");
        let body = vec![
            snake(&format!("{name}.snake1")),
            conv(&format!("{name}.conv1"), width, width, 7, dilation),
            snake(&format!("{name}.snake2")),
            conv(&format!("{name}.conv2"), width, width, 1, 1),
        ];
        Layer::Residual(Residual { body, shortcut: Vec::new(), int8: None })
    })
}

pub(super) fn snake(name: &str) -> Layer {
    Layer::Activation(Activation::Snake { name: name.to_owned() })
}

/// A convolution that keeps the number of rows.
fn conv(name: &str, input: u32, output: u32, kernel: u32, dilation: u32) -> Layer {
    let padding = same((kernel - 1) * dilation / 2);
    Layer::Conv(Conv { kernel, dilation, padding, ..plain_conv(name, input, output) })
}

/// A stage's step to half the channels and `rate` times the rows.
pub(super) fn up(stage: &str, width: u32, rate: u32, output_padding: u32) -> Layer {
    Layer::ConvTranspose(ConvTranspose {
        name: format!("{stage}.up"),
        input: width,
        output: width / 2,
        kernel: 2 * rate,
        stride: rate,
        groups: 1,
        bias: true,
        trim_left: rate.div_ceil(2),
        trim_right: rate.div_ceil(2) as i32 - output_padding as i32,
        blocks: None,
    })
}

pub(super) fn plain_conv(name: &str, input: u32, output: u32) -> Conv {
    Conv {
        name: name.to_owned(),
        input,
        output,
        kernel: 1,
        stride: 1,
        dilation: 1,
        groups: 1,
        bias: true,
        padding: same(0),
        int8: None,
    }
}

pub(super) fn same(rows: u32) -> Padding {
    Padding { mode: PadMode::Zero, left: rows, right: rows, complete: false }
}

//! HiFi-Codec (Yang et al. 2023): a HiFi-GAN generator, its mirror as the encoder, and grouped residual codebooks.

use codec_core::spec::{
    Activation, Branch, CodecSpec, Conv, ConvTranspose, Framing, GroupNorm, Layer, Metric, PadMode, Padding, Parallel,
    Quantizer, Residual, ResidualRounding, SPEC_VERSION, Vq,
};

use super::{
    ModelParts, System,
    names::{NameMap, Source},
};
use crate::checkpoint::Checkpoint;

const CHANNELS: u32 = 32;
const LATENT: u32 = 512;
const GROUPS: u32 = 2;
const CODEBOOK_SIZE: u32 = 1024;
/// Kernels of a stage's blocks in the generator; the encoder has them in reverse.
const BLOCKS: [u32; 3] = [3, 7, 11];
const DILATIONS: [u32; 3] = [1, 3, 5];
const SLOPE: f32 = 0.1;
/// The encoder's last activation was left at its framework's default.
const LAST_SLOPE: f32 = 0.01;

systems! {
    ("hificodec-16k-320d", "16k"),
    ("hificodec-24k-240d", "240d"),
    ("hificodec-24k-320d", "24k"),
}

fn matches(checkpoint: &Checkpoint, name: &str) -> bool {
    config(name).matches(checkpoint)
}

fn import(checkpoint: &Checkpoint, name: &str) -> ModelParts {
    config(name).import(name, checkpoint)
}

struct Config {
    sample_rate: u32,
    /// Upsampling of the generator and its kernels, first stage first; the encoder has them in reverse.
    rates: [(u32, u32); 4],
}

pub(super) fn spec(name: &str) -> Option<CodecSpec> {
    SYSTEMS.iter().any(|system| system.name == name).then(|| config(name).spec(name, BOOKS.len() as u32))
}

fn config(name: &str) -> Config {
    let (sample_rate, rates) = match name {
        "hificodec-16k-320d" => (16_000, [(8, 16), (5, 11), (4, 8), (2, 4)]),
        "hificodec-24k-240d" => (24_000, [(8, 16), (5, 11), (3, 7), (2, 4)]),
        _ => (24_000, [(8, 16), (5, 11), (4, 8), (2, 4)]),
    };
    Config { sample_rate, rates }
}

/// The names of the lists of codebooks, one list a residual stage.
const BOOKS: [&str; 2] = ["quantizer.quantizer_modules.", "quantizer.quantizer_modules2."];
const EMBEDDING: &str = ".embedding.weight";

impl Config {
    fn source<'a>(&self, checkpoint: &'a Checkpoint) -> Option<Source<'a>> {
        Source::find(checkpoint, "generator.conv_pre.bias")
    }

    fn matches(&self, checkpoint: &Checkpoint) -> bool {
        let Some(source) = self.source(checkpoint) else { return false };
        let stages = self.rates.iter().enumerate().all(|(stage, (_, kernel))| {
            let width = LATENT >> stage;
            source
                .weight_shape(&format!("generator.ups.{stage}"))
                .is_some_and(|found| found.iter().copied().eq([width, width / 2, *kernel].map(|size| size as usize)))
        });
        let rate = checkpoint.config().and_then(|config| config["sampling_rate"].as_u64());
        stages
            && source.shape(&format!("{}0{EMBEDDING}", BOOKS[0])).is_some()
            && rate.is_none_or(|rate| rate == u64::from(self.sample_rate))
    }

    fn import(&self, name: &str, checkpoint: &Checkpoint) -> ModelParts {
        let source = self.source(checkpoint).unwrap_or_else(|| Source::whole(checkpoint));
        let stages = BOOKS.iter().filter(|list| source.count(list, EMBEDDING) > 0).count().max(1) as u32;
        let spec = self.spec(name, stages);
        let tensors = source.tensors(name, &spec, &self.names(stages))?;
        Ok((spec, tensors))
    }

    fn spec(&self, name: &str, stages: u32) -> CodecSpec {
        let book = |n| {
            Quantizer::Vq(Vq {
                name: format!("quantizer.{n}"),
                size: CODEBOOK_SIZE,
                dim: LATENT / GROUPS,
                metric: Metric::Euclidean,
                project_in: None,
                project_out: None,
            })
        };
        let stage = |s| Quantizer::Grouped { groups: (0..GROUPS).map(|g| book(s * GROUPS + g)).collect() };
        CodecSpec {
            version: SPEC_VERSION,
            name: name.to_owned(),
            sample_rate: self.sample_rate,
            channels: 1,
            hop: self.rates.iter().map(|(rate, _)| rate).product(),
            latent: LATENT,
            framing: Framing::Stream,
            codebook_choices: vec![stages * GROUPS],
            encoder: Some(self.encoder()),
            quantizer: Quantizer::Residual {
                stages: (0..stages).map(stage).collect(),
                project_in: None,
                project_out: None,
                rounding: ResidualRounding::Plain,
            },
            decoder: Some(self.decoder()),
        }
    }

    fn encoder(&self) -> Vec<Layer> {
        let mut layers = vec![conv("encoder.conv_in", 1, CHANNELS, 7, 1)];
        for (stage, (rate, kernel)) in self.rates.iter().rev().enumerate() {
            let (name, width) = (format!("encoder.stage{stage}"), CHANNELS << stage);
            layers.push(leaky(SLOPE));
            let pad = (kernel - rate) / 2;
            layers.push(Layer::Conv(Conv {
                name: format!("{name}.down"),
                input: width,
                output: 2 * width,
                kernel: *kernel,
                stride: *rate,
                dilation: 1,
                groups: 1,
                bias: true,
                padding: zero(pad),
                int8: None,
            }));
            let width = 2 * width;
            let branch = |(block, kernel): (usize, &u32)| Branch {
                body: block_layers(&format!("{name}.block{block}"), width, *kernel),
                then: vec![Layer::GroupNorm(GroupNorm {
                    name: format!("{name}.norm{block}"),
                    channels: width,
                    groups: width / 16,
                    epsilon: 1e-6,
                })],
            };
            let branches = BLOCKS.iter().rev().enumerate().map(branch).collect();
            layers.push(Layer::Parallel(Parallel { branches, divisor: BLOCKS.len() as f32 }));
        }
        layers.push(leaky(LAST_SLOPE));
        layers.push(conv("encoder.conv_out", LATENT, LATENT, 3, 1));
        layers
    }

    fn decoder(&self) -> Vec<Layer> {
        let mut layers = vec![conv("decoder.conv_in", LATENT, LATENT, 7, 1)];
        for (stage, (rate, kernel)) in self.rates.iter().enumerate() {
            let (name, width) = (format!("decoder.stage{stage}"), LATENT >> stage);
            let pad = (kernel - rate) / 2;
            layers.push(leaky(SLOPE));
            layers.push(Layer::ConvTranspose(ConvTranspose {
                name: format!("{name}.up"),
                input: width,
                output: width / 2,
                kernel: *kernel,
                stride: *rate,
                groups: 1,
                bias: true,
                trim_left: pad,
                trim_right: pad as i32,
                blocks: None,
            }));
            let branch = |(block, kernel): (usize, &u32)| Branch {
                body: block_layers(&format!("{name}.block{block}"), width / 2, *kernel),
                then: Vec::new(),
            };
            let branches = BLOCKS.iter().enumerate().map(branch).collect();
            layers.push(Layer::Parallel(Parallel { branches, divisor: BLOCKS.len() as f32 }));
        }
        layers.push(leaky(SLOPE));
        layers.push(conv("decoder.conv_out", CHANNELS, 1, 7, 1));
        layers.push(Layer::Activation(Activation::Tanh));
        layers
    }

    fn names(&self, stages: u32) -> NameMap {
        let mut names = NameMap::new(EMBEDDING);
        for (ours, theirs) in [("encoder", "encoder"), ("decoder", "generator")] {
            names.add(format!("{ours}.conv_in"), format!("{theirs}.conv_pre"));
            names.add(format!("{ours}.conv_out"), format!("{theirs}.conv_post"));
            for stage in 0..self.rates.len() {
                let step = if ours == "encoder" { "down" } else { "up" };
                names.add(format!("{ours}.stage{stage}.{step}"), format!("{theirs}.ups.{stage}"));
                for block in 0..BLOCKS.len() {
                    let index = stage * BLOCKS.len() + block;
                    names.add(format!("{ours}.stage{stage}.norm{block}"), format!("{theirs}.normalize.{index}"));
                    for unit in 0..DILATIONS.len() {
                        for (conv, list) in [("conv1", "convs1"), ("conv2", "convs2")] {
                            names.add(
                                format!("{ours}.stage{stage}.block{block}.unit{unit}.{conv}"),
                                format!("{theirs}.resblocks.{index}.{list}.{unit}"),
                            );
                        }
                    }
                }
            }
        }
        for (stage, list) in (0..stages).zip(BOOKS) {
            for group in 0..GROUPS {
                names.add(format!("quantizer.{}", stage * GROUPS + group), format!("{list}{group}"));
            }
        }
        names
    }
}

/// The first kind of residual block of HiFi-GAN (Kong et al. 2020, appendix A).
fn block_layers(name: &str, width: u32, kernel: u32) -> Vec<Layer> {
    let unit = |(unit, dilation): (usize, &u32)| {
        let body = vec![
            leaky(SLOPE),
            conv(&format!("{name}.unit{unit}.conv1"), width, width, kernel, *dilation),
            leaky(SLOPE),
            conv(&format!("{name}.unit{unit}.conv2"), width, width, kernel, 1),
        ];
        Layer::Residual(Residual { body, shortcut: Vec::new(), int8: None })
    };
    DILATIONS.iter().enumerate().map(unit).collect()
}

fn leaky(slope: f32) -> Layer {
    Layer::Activation(Activation::LeakyRelu { slope })
}

/// A convolution that keeps the number of rows.
fn conv(name: &str, input: u32, output: u32, kernel: u32, dilation: u32) -> Layer {
    Layer::Conv(Conv {
        name: name.to_owned(),
        input,
        output,
        kernel,
        stride: 1,
        dilation,
        groups: 1,
        bias: true,
        padding: zero((kernel - 1) * dilation / 2),
        int8: None,
    })
}

/// Zeros at both ends; rows that do not fill a window are dropped, as in the published model.
fn zero(rows: u32) -> Padding {
    Padding { mode: PadMode::Zero, left: rows, right: rows, complete: false }
}

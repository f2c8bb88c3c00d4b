//! SNAC (Siuzdak et al. 2024): DAC's network with depthwise convolutions, windowed attention and noise, and residual
//! levels of different rates.

use codec_core::spec::{
    Activation, Attention, AttentionBias, CodecSpec, Conv, Framing, Layer, Linear, Metric, Noise, Pairing, Quantizer,
    ResidualRounding, Rotary, SPEC_VERSION, Span, Vq,
};

use super::{
    ImportError, ModelParts, System,
    dac::{plain_conv, same, snake, up},
    names::{NameMap, Recipe, Source},
    stated::{Fields, unsupported},
    transformer::{layer_norm, residual},
};
use crate::checkpoint::Checkpoint;

systems! {
    ("snac-24khz", "24khz"),
    ("snac-32khz", "32khz"),
    ("snac-44khz", "44khz"),
    // Any of the family, by its own configuration.
    ("snac", "snac"),
}

const HEAD_DIM: u32 = 64;
const DILATIONS: [u32; 3] = [1, 3, 9];

#[derive(Clone, Debug, PartialEq)]
struct Config {
    sample_rate: u32,
    encoder_width: u32,
    encoder_rates: Vec<u32>,
    decoder_width: u32,
    decoder_rates: Vec<u32>,
    /// Rows of a block of attention; none for no attention.
    window: Option<u32>,
    codebook_size: u32,
    codebook_dim: u32,
    /// Latent rows a code, level by level.
    strides: Vec<u32>,
    noise: bool,
    depthwise: bool,
}

fn published(name: &str) -> Option<Config> {
    let small = Config {
        sample_rate: 24_000,
        encoder_width: 48,
        encoder_rates: vec![2, 4, 8, 8],
        decoder_width: 1024,
        decoder_rates: vec![8, 8, 4, 2],
        window: None,
        codebook_size: 4096,
        codebook_dim: 8,
        strides: vec![4, 2, 1],
        noise: true,
        depthwise: true,
    };
    let large = |sample_rate| Config {
        sample_rate,
        encoder_width: 64,
        encoder_rates: vec![2, 3, 8, 8],
        decoder_width: 1536,
        decoder_rates: vec![8, 8, 3, 2],
        window: Some(32),
        strides: vec![8, 4, 2, 1],
        ..small.clone()
    };
    match name {
        "snac-24khz" => Some(small),
        "snac-32khz" => Some(large(32_000)),
        "snac-44khz" => Some(large(44_100)),
        _ => None,
    }
}

fn matches(checkpoint: &Checkpoint, name: &str) -> bool {
    match (stated(checkpoint), published(name)) {
        // A configuration that cannot be honoured is better reported than guessed around.
        (Err(_), published) => published.is_none(),
        (Ok(None), published) => published.is_some_and(|config| config.matches(checkpoint)),
        (Ok(Some(config)), Some(published)) => config == published && config.matches(checkpoint),
        (Ok(Some(config)), None) => !SYSTEMS.iter().any(|s| published_is(s.name, &config)),
    }
}

fn published_is(name: &str, config: &Config) -> bool {
    published(name).is_some_and(|published| published == *config)
}

fn import(checkpoint: &Checkpoint, name: &str) -> ModelParts {
    let config = match stated(checkpoint)? {
        Some(config) => config,
        None => published(name).ok_or_else(|| {
            unsupported(
                "vq_strides",
                "the checkpoint has no config.json of SNAC beside it; name one of the published systems",
            )
        })?,
    };
    let source = Source::find(checkpoint, "encoder.block.0.bias").unwrap_or_else(|| Source::whole(checkpoint));
    let spec = config.spec(name);
    let tensors = source.tensors(name, &spec, &config.names())?;
    Ok((spec, tensors))
}

/// The publisher's `config.json`.
fn stated(checkpoint: &Checkpoint) -> Result<Option<Config>, ImportError> {
    let Some(config) = checkpoint.config().filter(|config| config.get("vq_strides").is_some()) else { return Ok(None) };
    let fields = Fields::new(config);
    let config = Config {
        sample_rate: fields.size("sampling_rate", 44_100)?,
        encoder_width: fields.size("encoder_dim", 64)?,
        encoder_rates: fields.sizes("encoder_rates", &[3, 3, 7, 7])?,
        decoder_width: fields.size("decoder_dim", 1536)?,
        decoder_rates: fields.sizes("decoder_rates", &[7, 7, 3, 3])?,
        window: match fields.has("attn_window_size") {
            true => Some(fields.size("attn_window_size", None)?),
            false => None,
        },
        codebook_size: fields.size("codebook_size", 4096)?,
        codebook_dim: fields.size("codebook_dim", 8)?,
        strides: fields.sizes("vq_strides", &[8, 4, 2, 1])?,
        noise: fields.flag("noise", true)?,
        depthwise: fields.flag("depthwise", true)?,
    };
    config.check(&fields)?;
    Ok(Some(config))
}

impl Config {
    fn check(&self, fields: &Fields<'_>) -> Result<(), ImportError> {
        let product = |rates: &[u32]| rates.iter().try_fold(1u32, |n, r| n.checked_mul(*r)).filter(|n| *n <= 1 << 20);
        let (hop, back) = (product(&self.encoder_rates), product(&self.decoder_rates));
        let Some(hop) = hop else {
            return Err(unsupported("encoder_rates", format!("a hop of {:?}", self.encoder_rates)));
        };
        fields.only("decoder_rates", back.unwrap_or(0), hop)?;
        let widest = u64::from(self.encoder_width) << self.encoder_rates.len();
        if widest > 1 << 15 {
            return Err(unsupported("encoder_dim", format!("{widest} channels behind the last stage")));
        }
        let narrowest = self.decoder_width >> self.decoder_rates.len();
        if self.decoder_width > 1 << 15 || narrowest << self.decoder_rates.len() != self.decoder_width || narrowest == 0
        {
            let stages = self.decoder_rates.len();
            return Err(unsupported("decoder_dim", format!("{} cannot be halved {stages} times", self.decoder_width)));
        }
        let first = self.strides.first().copied().unwrap_or(1);
        if let Some(stride) = self.strides.iter().find(|stride| first % **stride != 0) {
            return Err(unsupported("vq_strides", format!("{stride} does not divide the first, {first}")));
        }
        if let Some(window) = self.window {
            for (field, width) in [("encoder_dim", widest as u32), ("decoder_dim", self.decoder_width)] {
                if width % HEAD_DIM != 0 {
                    return Err(unsupported(
                        field,
                        format!("{width} channels of attention are no heads of {HEAD_DIM}"),
                    ));
                }
            }
            if window > 1 << 12 || first > 1 << 12 {
                return Err(unsupported("attn_window_size", format!("{window} rows, {first} a code")));
            }
        }
        Ok(())
    }

    fn latent(&self) -> u32 {
        self.encoder_width << self.encoder_rates.len()
    }

    fn matches(&self, checkpoint: &Checkpoint) -> bool {
        let Some(source) = Source::find(checkpoint, "encoder.block.0.bias") else { return false };
        let names = self.names();
        let has = |ours: String, shape: [u32; 3]| {
            let found = names.get(&ours).and_then(|theirs| source.weight_shape(theirs));
            found.is_some_and(|found| found.iter().copied().eq(shape.map(|size| size as usize)))
        };
        let stages = self.encoder_rates.iter().enumerate().all(|(stage, rate)| {
            let width = self.encoder_width << stage;
            has(format!("encoder.stage{stage}.down"), [2 * width, width, 2 * rate])
        });
        let inner = if self.depthwise { 1 } else { self.latent() };
        stages
            && has("encoder.conv_out".into(), [self.latent(), inner, 7])
            && source.count("quantizer.quantizers.", ".codebook.weight") == self.strides.len()
    }

    fn spec(&self, name: &str) -> CodecSpec {
        let latent = self.latent();
        let project = |name: String, input, output| Some(Box::new(Linear { name, input, output, bias: true }));
        let level = |(n, stride): (usize, &u32)| {
            let book = Quantizer::Vq(Vq {
                name: format!("quantizer.{n}"),
                size: self.codebook_size,
                dim: self.codebook_dim,
                metric: Metric::Cosine,
                project_in: project(format!("quantizer.{n}.project_in"), latent, self.codebook_dim),
                project_out: project(format!("quantizer.{n}.project_out"), self.codebook_dim, latent),
            });
            match stride {
                1 => book,
                _ => Quantizer::Rated { stride: *stride, inner: Box::new(book) },
            }
        };
        let rows: u32 = self.encoder_rates.iter().product();
        CodecSpec {
            version: SPEC_VERSION,
            name: name.to_owned(),
            sample_rate: self.sample_rate,
            channels: 1,
            hop: rows * self.coarsest(),
            latent,
            framing: Framing::Stream,
            // Codes of a frame, all levels together.
            codebook_choices: vec![self.strides.iter().map(|stride| self.coarsest() / stride).sum()],
            encoder: Some(self.encoder(rows)),
            quantizer: Quantizer::Residual {
                stages: self.strides.iter().enumerate().map(level).collect(),
                project_in: None,
                project_out: None,
                rounding: ResidualRounding::Plain,
            },
            decoder: Some(self.decoder()),
        }
    }

    /// Latent rows of the coarsest level's code.
    fn coarsest(&self) -> u32 {
        self.strides.first().copied().unwrap_or(1)
    }

    fn encoder(&self, rows: u32) -> Vec<Layer> {
        let multiple = rows * lcm(self.coarsest(), self.window.unwrap_or(1));
        let mut layers = vec![Layer::PadEnd { multiple }, conv("encoder.conv_in", 1, self.encoder_width, 7, 1, 1)];
        for (stage, rate) in self.encoder_rates.iter().enumerate() {
            let (name, width) = (format!("encoder.stage{stage}"), self.encoder_width << stage);
            layers.extend(self.units(&name, width));
            layers.push(snake(&format!("{name}.snake")));
            layers.push(Layer::Conv(Conv {
                kernel: 2 * rate,
                stride: *rate,
                padding: same(rate.div_ceil(2)),
                ..plain_conv(&format!("{name}.down"), width, 2 * width)
            }));
        }
        layers.extend(self.attention("encoder.attention", self.latent()));
        layers.push(conv("encoder.conv_out", self.latent(), self.latent(), 7, 1, self.groups(self.latent())));
        layers
    }

    fn decoder(&self) -> Vec<Layer> {
        let (latent, width) = (self.latent(), self.decoder_width);
        let mut layers = match self.depthwise {
            true => vec![
                conv("decoder.conv_in", latent, latent, 7, 1, latent),
                conv("decoder.conv_in1", latent, width, 1, 1, 1),
            ],
            false => vec![conv("decoder.conv_in", latent, width, 7, 1, 1)],
        };
        layers.extend(self.attention("decoder.attention", width));
        for (stage, rate) in self.decoder_rates.iter().enumerate() {
            let (name, width) = (format!("decoder.stage{stage}"), width >> stage);
            layers.push(snake(&format!("{name}.snake")));
            // Output padding: an odd stride loses no row here.
            layers.push(up(&name, width, *rate, rate % 2));
            if self.noise {
                let (name, index) = (format!("{name}.noise"), stage as u32);
                layers.push(Layer::Noise(Noise { name, channels: width / 2, index, seed: None }));
            }
            layers.extend(self.units(&name, width / 2));
        }
        layers.push(snake("decoder.snake"));
        layers.push(conv("decoder.conv_out", width >> self.decoder_rates.len(), 1, 7, 1, 1));
        layers.push(Layer::Activation(Activation::Tanh));
        layers
    }

    fn groups(&self, width: u32) -> u32 {
        if self.depthwise { width } else { 1 }
    }

    fn units(&self, stage: &str, width: u32) -> impl Iterator<Item = Layer> {
        DILATIONS.into_iter().enumerate().map(move |(unit, dilation)| {
            let name = format!("{stage}.unit{unit}");
            residual(vec![
                snake(&format!("{name}.snake1")),
                conv(&format!("{name}.conv1"), width, width, 7, dilation, self.groups(width)),
                snake(&format!("{name}.snake2")),
                conv(&format!("{name}.conv2"), width, width, 1, 1, 1),
            ])
        })
    }

    fn attention(&self, name: &str, channels: u32) -> Option<Layer> {
        let length = self.window?;
        Some(residual(vec![
            layer_norm(&format!("{name}.norm"), channels, 1e-5),
            Layer::Attention(Attention {
                name: name.to_owned(),
                channels,
                heads: channels / HEAD_DIM,
                head_dim: HEAD_DIM,
                bias: AttentionBias::default(),
                rotary: Some(Rotary { theta: 10_000.0, pairing: Pairing::Halves }),
                span: Span::Blocks { length },
                memory: None,
            }),
        ]))
    }

    fn names(&self) -> NameMap {
        // The angles of the rotation are stored beside the weights; they follow from the sizes.
        let mut names = NameMap::new(".codebook.weight").ignoring(|name| name.ends_with(".rel_pos.inv_freq"));
        for (side, list, stages) in
            [("encoder", "block", self.encoder_rates.len()), ("decoder", "model", self.decoder_rates.len())]
        {
            let mut index = 0;
            let mut next = || {
                index += 1;
                format!("{side}.{list}.{}", index - 1)
            };
            let attention = |names: &mut NameMap, theirs: String| {
                let ours = format!("{side}.attention");
                names.add(format!("{ours}.norm"), format!("{theirs}.norm"));
                names.add(format!("{ours}.out"), format!("{theirs}.to_out"));
                for (part, projection) in ["q", "k", "v"].into_iter().enumerate() {
                    let stacked = format!("{theirs}.to_qkv.weight");
                    names.tensor(format!("{ours}.{projection}.weight"), Recipe::Rows { stacked, part, parts: 3 });
                }
            };
            names.add(format!("{side}.conv_in"), next());
            if side == "decoder" {
                if self.depthwise {
                    names.add("decoder.conv_in1", next());
                }
                if self.window.is_some() {
                    attention(&mut names, next());
                }
            }
            for stage in 0..stages {
                let (ours, theirs) = (format!("{side}.stage{stage}"), next());
                // The encoder's stages begin with the units, the decoder's end with them.
                let (first_unit, snake, step, step_at) = match (side, self.noise) {
                    ("encoder", _) => (0, 3, "down", 4),
                    (_, true) => (3, 0, "up", 1),
                    (_, false) => (2, 0, "up", 1),
                };
                names.add(format!("{ours}.snake"), format!("{theirs}.block.{snake}"));
                names.add(format!("{ours}.{step}"), format!("{theirs}.block.{step_at}"));
                names.add(format!("{ours}.noise"), format!("{theirs}.block.2.linear"));
                for unit in 0..DILATIONS.len() {
                    for (at, part) in ["snake1", "conv1", "snake2", "conv2"].into_iter().enumerate() {
                        let original = format!("{theirs}.block.{}.block.{at}", first_unit + unit);
                        names.add(format!("{ours}.unit{unit}.{part}"), original);
                    }
                }
            }
            if side == "encoder" && self.window.is_some() {
                attention(&mut names, next());
            }
            if side == "decoder" {
                names.add("decoder.snake", next());
            }
            names.add(format!("{side}.conv_out"), next());
        }
        for n in 0..self.strides.len() {
            let (ours, theirs) = (format!("quantizer.{n}"), format!("quantizer.quantizers.{n}"));
            names.add(format!("{ours}.project_in"), format!("{theirs}.in_proj"));
            names.add(format!("{ours}.project_out"), format!("{theirs}.out_proj"));
            names.add(ours, theirs);
        }
        names
    }
}

/// A convolution that keeps the number of rows.
fn conv(name: &str, input: u32, output: u32, kernel: u32, dilation: u32, groups: u32) -> Layer {
    let padding = same((kernel - 1) * dilation / 2);
    Layer::Conv(Conv { kernel, dilation, groups, padding, ..plain_conv(name, input, output) })
}

/// Least common multiple of two sizes that are not 0.
fn lcm(a: u32, b: u32) -> u32 {
    let (mut x, mut y) = (a, b);
    while y > 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}

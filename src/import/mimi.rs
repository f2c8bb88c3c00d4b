//! Mimi (Défossez et al. 2024, section 3.1): SEANet, a transformer on each side of the latent, and a semantic codebook
//! beside acoustic residual ones. Both the hub's names and Kyutai's own.

use codec_core::spec::{
    AttentionBias, CodecSpec, Conv, ConvTranspose, Framing, Layer, Linear, PadMode, Padding, Pairing, Quantizer,
    ResidualRounding, SPEC_VERSION, Span, Vq,
};

use super::{
    ImportError, ModelParts, System,
    names::{NameMap, Recipe, Source},
    seanet::{Layout, Seanet},
    stated::{Fields, unsupported},
    transformer::Transformer,
};
use crate::checkpoint::Checkpoint;

pub(super) const SYSTEMS: &[System] = &[System { name: "mimi", hint: "", matches, import }];

#[derive(Clone, Debug, PartialEq)]
struct Config {
    sample_rate: u32,
    network: Seanet,
    transformer: Transformer,
    codebook_size: u32,
    codebook_dim: u32,
    /// Codebooks of the first part.
    semantic: u32,
    /// Groups of the convolution that doubles the frame rate.
    upsample_groups: u32,
}

fn published() -> Config {
    Config {
        sample_rate: 24_000,
        network: Seanet {
            filters: 64,
            dimension: 512,
            ratios: vec![8, 6, 5, 4],
            pad: PadMode::Zero,
            last_kernel: 3,
            shortcut: false,
            lstm: 0,
            ..Seanet::default()
        },
        transformer: Transformer {
            channels: 512,
            heads: 8,
            head_dim: 64,
            hidden: 2048,
            layers: 8,
            epsilon: 1e-5,
            theta: 10_000.0,
            pairing: Pairing::Halves,
            span: Span::Causal { window: Some(250) },
            bias: AttentionBias::default(),
            linear_bias: false,
            memory: None,
            scale: true,
        },
        codebook_size: 2048,
        codebook_dim: 256,
        semantic: 1,
        upsample_groups: 512,
    }
}

/// The convolutions between the two frame rates.
const STRIDE: u32 = 2;

/// What the names differ in.
struct Names {
    layout: Layout,
    /// After the name of a side of the transformers.
    transformer: &'static str,
    downsample: &'static str,
    upsample: &'static str,
    /// Before the number of a codebook, semantic and acoustic.
    books: [&'static str; 2],
    /// The quantizers themselves.
    parts: [&'static str; 2],
    sum: &'static str,
    usage: &'static str,
}

const HUB: Names = Names {
    layout: Layout::Transformers,
    transformer: "layers",
    downsample: "downsample.conv",
    upsample: "upsample.conv",
    books: [
        "quantizer.semantic_residual_vector_quantizer.layers.",
        "quantizer.acoustic_residual_vector_quantizer.layers.",
    ],
    parts: ["quantizer.semantic_residual_vector_quantizer", "quantizer.acoustic_residual_vector_quantizer"],
    sum: ".codebook.embed_sum",
    usage: ".codebook.cluster_usage",
};

const NATIVE: Names = Names {
    layout: Layout::Original,
    transformer: "transformer.layers",
    downsample: "downsample.conv.conv.conv",
    upsample: "upsample.convtr.convtr.convtr",
    books: ["quantizer.rvq_first.vq.layers.", "quantizer.rvq_rest.vq.layers."],
    parts: ["quantizer.rvq_first", "quantizer.rvq_rest"],
    sum: "._codebook.embedding_sum",
    usage: "._codebook.cluster_usage",
};

fn source(checkpoint: &Checkpoint) -> Option<(Source<'_>, &'static Names)> {
    [&HUB, &NATIVE].into_iter().find_map(|names| {
        let anchor = format!("{}.weight", names.downsample);
        Some((Source::find(checkpoint, &anchor)?, names))
    })
}

fn matches(checkpoint: &Checkpoint, _: &str) -> bool {
    // A configuration that cannot be honoured is better reported than guessed around.
    source(checkpoint).is_some_and(|(source, names)| match stated(checkpoint) {
        Err(_) => true,
        Ok(config) => config.unwrap_or_else(published).network.matches(&source, names.layout, ""),
    })
}

fn import(checkpoint: &Checkpoint, name: &str) -> ModelParts {
    let (source, names) = source(checkpoint).unwrap_or_else(|| (Source::whole(checkpoint), &HUB));
    let mut config = stated(checkpoint)?.unwrap_or_else(published);
    let native = names.layout == Layout::Original;
    if native {
        config.transformer.pairing = Pairing::Interleaved;
    }
    let count = |part: usize| source.count(names.books[part], names.sum).max(1) as u32;
    let books = [count(0), count(1)];
    let spec = config.spec(name, books, native);
    let tensors = source.tensors(name, &spec, &config.names(names, books))?;
    Ok((spec, tensors))
}

/// The `config.json` of transformers.
fn stated(checkpoint: &Checkpoint) -> Result<Option<Config>, ImportError> {
    let Some(config) =
        checkpoint.config().filter(|config| config["model_type"] == "mimi" || config.get("upsample_groups").is_some())
    else {
        return Ok(None);
    };
    let fields = Fields::new(config);
    let base = published();
    let width = fields.size("hidden_size", 512)?;
    let network = Seanet {
        channels: fields.size("audio_channels", 1)?,
        filters: fields.size("num_filters", 64)?,
        dimension: width,
        ratios: fields.sizes("upsampling_ratios", &[8, 6, 5, 4])?,
        causal: fields.flag("use_causal_conv", true)?,
        pad: fields.padding("pad_mode", "constant")?,
        kernel: fields.size("kernel_size", 7)?,
        last_kernel: fields.size("last_kernel_size", 3)?,
        residual_kernel: fields.size("residual_kernel_size", 3)?,
        units: fields.count("num_residual_layers", 1)?,
        dilation_base: fields.size("dilation_growth_rate", 2)?,
        compress: fields.size("compress", 2)?,
        shortcut: fields.flag("use_conv_shortcut", false)?,
        ..base.network
    };
    network.check(["upsampling_ratios", "num_filters", "compress", "dilation_growth_rate", "kernel_size"])?;
    fields.only("use_causal_conv", network.causal, true)?;
    fields.only("trim_right_ratio", fields.number("trim_right_ratio", 1.0)?, 1.0)?;
    fields.only("attention_bias", fields.flag("attention_bias", false)?, false)?;
    fields.word("hidden_act", "gelu", &["gelu"])?;
    let heads = fields.size("num_attention_heads", 8)?;
    fields.only("num_key_value_heads", fields.size("num_key_value_heads", heads)?, heads)?;
    let sample_rate = fields.size("sampling_rate", 24_000)?;
    let rate = f64::from(sample_rate) / f64::from(network.hop() * STRIDE);
    fields.only("frame_rate", fields.number("frame_rate", rate)?, rate)?;
    if width > 1 << 15 {
        return Err(unsupported("hidden_size", format!("{width} is more than 32768")));
    }
    let window = match fields.has("sliding_window") {
        true => Some(fields.size("sliding_window", None)?),
        // Stated as null: no window at all.
        false => config.get("sliding_window").is_none().then_some(250),
    };
    Ok(Some(Config {
        sample_rate,
        network,
        transformer: Transformer {
            channels: width,
            heads,
            head_dim: fields.size("head_dim", (width / heads).max(1))?,
            hidden: fields.size("intermediate_size", 2048)?,
            layers: fields.size("num_hidden_layers", 8)?.min(1 << 10),
            epsilon: fields.number("norm_eps", 1e-5)? as f32,
            theta: fields.number("rope_theta", 10_000.0)? as f32,
            span: Span::Causal { window },
            ..base.transformer
        },
        codebook_size: fields.size("codebook_size", 2048)?,
        codebook_dim: fields.size("codebook_dim", 256)?,
        semantic: fields.size("num_semantic_quantizers", 1)?,
        upsample_groups: fields.size("upsample_groups", 512)?,
    }))
}

impl Config {
    fn spec(&self, name: &str, books: [u32; 2], whole_frames: bool) -> CodecSpec {
        let width = self.network.dimension;
        let hop = self.network.hop() * STRIDE;
        let codebooks = books[0] + books[1];
        // Moshi has 8.
        let choices = [8].into_iter().filter(|n| *n < codebooks).chain([codebooks]).collect();
        let mut encoder = self.network.encoder();
        if whole_frames {
            // Kyutai's own code completes the last frame before the network, the hub's in each convolution.
            encoder.insert(0, Layer::PadEnd { multiple: hop });
        }
        encoder.extend(self.transformer.layers("encoder.transformer"));
        encoder.push(Layer::Conv(Conv {
            name: "encoder.downsample".into(),
            input: width,
            output: width,
            kernel: 2 * STRIDE,
            stride: STRIDE,
            dilation: 1,
            groups: 1,
            bias: false,
            padding: Padding { mode: PadMode::Replicate, left: STRIDE, right: 0, complete: true },
            int8: None,
        }));
        let mut decoder = vec![Layer::ConvTranspose(ConvTranspose {
            name: "decoder.upsample".into(),
            input: width,
            output: width,
            kernel: 2 * STRIDE,
            stride: STRIDE,
            groups: self.upsample_groups,
            bias: false,
            trim_left: 0,
            trim_right: STRIDE as i32,
            blocks: None,
        })];
        decoder.extend(self.transformer.layers("decoder.transformer"));
        decoder.extend(self.network.decoder());
        CodecSpec {
            version: SPEC_VERSION,
            name: name.to_owned(),
            sample_rate: self.sample_rate,
            channels: self.network.channels,
            hop,
            latent: width,
            framing: Framing::Stream,
            codebook_choices: choices,
            encoder: Some(encoder),
            quantizer: Quantizer::Split {
                parts: vec![
                    self.part("quantizer.semantic", 0..books[0]),
                    self.part("quantizer.acoustic", books[0]..codebooks),
                ],
            },
            decoder: Some(decoder),
        }
    }

    fn part(&self, name: &str, books: std::ops::Range<u32>) -> Quantizer {
        let (width, dim) = (self.network.dimension, self.codebook_dim);
        let project =
            |part: &str, input, output| Some(Linear { name: format!("{name}.{part}"), input, output, bias: false });
        let book = |n| {
            Quantizer::Vq(Vq {
                name: format!("quantizer.{n}"),
                size: self.codebook_size,
                dim,
                metric: Default::default(),
                project_in: None,
                project_out: None,
            })
        };
        Quantizer::Residual {
            stages: books.map(book).collect(),
            project_in: project("project_in", width, dim),
            project_out: project("project_out", dim, width),
            rounding: ResidualRounding::Plain,
        }
    }

    fn names(&self, theirs: &Names, books: [u32; 2]) -> NameMap {
        let mut names = NameMap::new("");
        self.network.add_names(&mut names, theirs.layout, "");
        names.add("encoder.downsample", theirs.downsample);
        names.add("decoder.upsample", theirs.upsample);
        let hub = theirs.layout == Layout::Transformers;
        for side in ["encoder", "decoder"] {
            for layer in 0..self.transformer.layers {
                let ours = format!("{side}.transformer.layer{layer}");
                let original = format!("{side}_transformer.{}.{layer}", theirs.transformer);
                for (part, transformers, native) in [
                    ("norm1", "input_layernorm", "norm1"),
                    ("norm2", "post_attention_layernorm", "norm2"),
                    ("scale1", "self_attn_layer_scale", "layer_scale_1"),
                    ("scale2", "mlp_layer_scale", "layer_scale_2"),
                    ("linear1", "mlp.fc1", "linear1"),
                    ("linear2", "mlp.fc2", "linear2"),
                    ("attention.out", "self_attn.o_proj", "self_attn.out_proj"),
                    ("attention.q", "self_attn.q_proj", ""),
                    ("attention.k", "self_attn.k_proj", ""),
                    ("attention.v", "self_attn.v_proj", ""),
                ] {
                    let part_name = if hub { transformers } else { native };
                    if !part_name.is_empty() {
                        names.add(format!("{ours}.{part}"), format!("{original}.{part_name}"));
                    }
                }
                for (part, projection) in ["q", "k", "v"].into_iter().enumerate().filter(|_| !hub) {
                    let stacked = format!("{original}.self_attn.in_proj_weight");
                    names.tensor(
                        format!("{ours}.attention.{projection}.weight"),
                        Recipe::Rows { stacked, part, parts: 3 },
                    );
                }
            }
        }
        let mut number = 0;
        for (part, ours) in ["quantizer.semantic", "quantizer.acoustic"].into_iter().enumerate() {
            names.add(format!("{ours}.project_in"), format!("{}.input_proj", theirs.parts[part]));
            names.add(format!("{ours}.project_out"), format!("{}.output_proj", theirs.parts[part]));
            for n in 0..books[part] {
                let book = format!("{}{n}", theirs.books[part]);
                let (sum, usage) = (format!("{book}{}", theirs.sum), format!("{book}{}", theirs.usage));
                names.tensor(format!("quantizer.{number}.codebook"), Recipe::Mean { sum, usage });
                number += 1;
            }
        }
        names
    }
}

//! EnCodec (Défossez et al. 2022): the published 24 kHz and 48 kHz models, those under MusicGen and AudioGen
//! (Copet et al. 2023; Kreuk et al. 2022), and any other of the family by its own configuration.

use codec_core::spec::{CodecSpec, Framing, PadMode};
use serde_json::Value;

use super::{
    ImportError, ModelParts, System,
    seanet::{Config, Seanet},
    stated::{Fields, unsupported, yaml},
};
use crate::checkpoint::Checkpoint;

systems! {
    ("encodec-24khz", "24khz"),
    ("encodec-48khz", "48khz"),
    ("encodec-32khz", "32khz"),
    ("audiogen-16khz", "audiogen"),
    // Any of the family, by its own configuration.
    ("encodec", "encodec"),
}

fn published(name: &str) -> Option<Config> {
    Some(match name {
        "encodec-24khz" => Config {
            sample_rate: 24_000,
            network: Seanet::default(),
            codebook_size: 1024,
            framing: Framing::Stream,
            // 1.5, 3, 6, 12 and 24 kbit/s.
            choices: vec![2, 4, 8, 16, 32],
        },
        "encodec-48khz" => Config {
            sample_rate: 48_000,
            network: Seanet { channels: 2, causal: false, norm: true, ..Seanet::default() },
            codebook_size: 1024,
            // One second, overlapping by one hundredth.
            framing: Framing::Segments { length: 48_000, stride: 47_520, normalize: true },
            // 3, 6, 12 and 24 kbit/s.
            choices: vec![2, 4, 8, 16],
        },
        "encodec-32khz" => audiocraft(32_000, vec![8, 5, 4, 4]),
        "audiogen-16khz" => audiocraft(16_000, vec![8, 5, 4, 2]),
        _ => return None,
    })
}

pub(super) fn spec(name: &str) -> Option<CodecSpec> {
    let config = published(name)?;
    let codebooks = config.choices.last().copied().unwrap_or(1);
    Some(config.spec(name, codebooks))
}

/// The models of audiocraft's language models, with its default padding.
fn audiocraft(sample_rate: u32, ratios: Vec<u32>) -> Config {
    Config {
        sample_rate,
        network: Seanet {
            filters: 64,
            ratios,
            causal: false,
            pad: PadMode::Zero,
            shortcut: false,
            ..Seanet::default()
        },
        codebook_size: 2048,
        framing: Framing::Stream,
        choices: vec![4],
    }
}

fn matches(checkpoint: &Checkpoint, name: &str) -> bool {
    let fits = |name: &str| published(name).is_some_and(|config| config.matches(checkpoint));
    match (stated(checkpoint), name) {
        // A configuration that cannot be honoured is better reported than guessed around.
        (Err(_), _) => name == "encodec",
        (Ok(None), _) => fits(name),
        (Ok(Some(config)), "encodec") => config.matches(checkpoint) && !SYSTEMS.iter().any(|s| same(s.name, &config)),
        (Ok(Some(config)), _) => fits(name) && same(name, &config),
    }
}

/// Whether a stated configuration is that of a published system. Padding is a training choice that files of one
/// system differ in: it is taken from the file and does not make another system.
fn same(name: &str, stated: &Config) -> bool {
    published(name).is_some_and(|mut config| {
        config.network.pad = stated.network.pad;
        config.choices.clone_from(&stated.choices);
        config == *stated
    })
}

fn import(checkpoint: &Checkpoint, name: &str) -> ModelParts {
    let config = match stated(checkpoint)? {
        Some(config) => config,
        None => published(name).ok_or_else(|| {
            unsupported(
                "model_type",
                "the checkpoint has no configuration of the EnCodec family (a config.json beside it, or `xp.cfg` in it); \
                 name one of the published systems",
            )
        })?,
    };
    config.import(name, checkpoint, |_| false)
}

/// What the checkpoint says of itself.
fn stated(checkpoint: &Checkpoint) -> Result<Option<Config>, ImportError> {
    if let Some(config) = checkpoint.config()
        && config["model_type"] == "encodec"
    {
        return transformers(config).map(Some);
    }
    // Absent, or an object of a library: then only the shapes speak.
    match checkpoint.attributes()["xp.cfg"].as_str() {
        Some(text) => training_config(&yaml("xp.cfg", text)?).map(Some),
        None => Ok(None),
    }
}

/// The `config.json` of transformers; what it leaves out has that library's defaults.
fn transformers(config: &Value) -> Result<Config, ImportError> {
    let fields = Fields::new(config);
    let norm = fields.word("norm_type", "weight_norm", &["weight_norm", "time_group_norm"])? == "time_group_norm";
    let network = Seanet {
        channels: fields.size("audio_channels", 1)?,
        filters: fields.size("num_filters", 32)?,
        dimension: fields.size("hidden_size", 128)?,
        ratios: fields.sizes("upsampling_ratios", &[8, 5, 4, 2])?,
        causal: fields.flag("use_causal_conv", true)?,
        pad: fields.padding("pad_mode", "reflect")?,
        norm,
        kernel: fields.size("kernel_size", 7)?,
        last_kernel: fields.size("last_kernel_size", 7)?,
        residual_kernel: fields.size("residual_kernel_size", 3)?,
        units: fields.count("num_residual_layers", 1)?,
        dilation_base: fields.size("dilation_growth_rate", 2)?,
        compress: fields.size("compress", 2)?,
        shortcut: fields.flag("use_conv_shortcut", true)?,
        lstm: fields.count("num_lstm_layers", 2)?,
        ..Seanet::default()
    };
    network.check(["upsampling_ratios", "num_filters", "compress", "dilation_growth_rate", "kernel_size"])?;
    if network.causal {
        fields.only("trim_right_ratio", fields.number("trim_right_ratio", 1.0)?, 1.0)?;
    }
    let dim = fields.size("codebook_dim", network.dimension)?;
    fields.only("codebook_dim", dim, network.dimension)?;
    let sample_rate = fields.size("sampling_rate", 24_000)?;
    let normalize = fields.flag("normalize", false)?;
    let framing = match fields.has("chunk_length_s") {
        true => {
            let samples = fields.number("chunk_length_s", 1.0)? * f64::from(sample_rate);
            if !(1.0..=1e9).contains(&samples) {
                return Err(unsupported("chunk_length_s", format!("segments of {samples} samples")));
            }
            let overlap = fields.number("overlap", 0.01)?;
            if !(0.0..1.0).contains(&overlap) {
                return Err(unsupported("overlap", format!("{overlap} is not from 0 to 1")));
            }
            let length = samples as u32;
            Framing::Segments { length, stride: (((1.0 - overlap) * f64::from(length)) as u32).max(1), normalize }
        }
        false => {
            fields.only("normalize", normalize, false)?;
            Framing::Stream
        }
    };
    let codebook_size = fields.size("codebook_size", 1024)?;
    let frames = sample_rate.div_ceil(network.hop());
    let count = |kbps: &f64| (kbps * 1000.0 / (f64::from(codebook_size).log2() * f64::from(frames))).max(1.0) as u32;
    let mut choices: Vec<_> = fields.numbers("target_bandwidths")?.iter().map(count).collect();
    choices.sort_unstable();
    choices.dedup();
    Ok(Config { sample_rate, network, codebook_size, framing, choices })
}

/// audiocraft's training configuration, which its exported checkpoints carry as text.
fn training_config(config: &Value) -> Result<Config, ImportError> {
    let fields = Fields::new(config);
    for (field, supported) in
        [("compression_model", "encodec"), ("encodec.autoencoder", "seanet"), ("encodec.quantizer", "rvq")]
    {
        fields.word(field, supported, &[supported])?;
    }
    fields.only("encodec.renormalize", fields.flag("encodec.renormalize", false)?, false)?;
    fields.word("seanet.activation", "ELU", &["ELU"])?;
    let sample_rate = match fields.has("encodec.sample_rate") {
        true => fields.size("encodec.sample_rate", None)?,
        false => fields.size("sample_rate", None)?,
    };
    let channels = match fields.has("seanet.channels") {
        true => fields.size("seanet.channels", None)?,
        false => fields.size("channels", 1)?,
    };
    let outer = fields.count("seanet.disable_norm_outer_blocks", 0)?;
    fields.only("seanet.disable_norm_outer_blocks", outer, 0)?;
    let norm = fields.word("seanet.norm", "weight_norm", &["weight_norm", "none", "time_group_norm"])?;
    let network = Seanet {
        channels,
        filters: fields.size("seanet.n_filters", 32)?,
        dimension: fields.size("seanet.dimension", 128)?,
        ratios: fields.sizes("seanet.ratios", &[8, 5, 4, 2])?,
        causal: fields.flag("seanet.causal", false)?,
        pad: fields.padding("seanet.pad_mode", "constant")?,
        norm: norm == "time_group_norm",
        kernel: fields.size("seanet.kernel_size", 7)?,
        last_kernel: fields.size("seanet.last_kernel_size", 7)?,
        residual_kernel: fields.size("seanet.residual_kernel_size", 3)?,
        units: fields.count("seanet.n_residual_layers", 1)?,
        dilation_base: fields.size("seanet.dilation_base", 2)?,
        compress: fields.size("seanet.compress", 2)?,
        shortcut: !fields.flag("seanet.true_skip", true)?,
        lstm: fields.count("seanet.lstm", 2)?,
        ..Seanet::default()
    };
    let names = ["ratios", "n_filters", "compress", "dilation_base", "kernel_size"].map(|n| format!("seanet.{n}"));
    network.check(names.each_ref().map(String::as_str))?;
    if network.causal {
        let field = "seanet.decoder.trim_right_ratio";
        fields.only(field, fields.number(field, 1.0)?, 1.0)?;
    }
    if fields.has("seanet.decoder.final_activation") {
        return Err(unsupported("seanet.decoder.final_activation", "a final activation is not supported"));
    }
    let codebook_size = fields.size("rvq.bins", 1024)?;
    Ok(Config { sample_rate, network, codebook_size, framing: Framing::Stream, choices: Vec::new() })
}

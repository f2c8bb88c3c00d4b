//! SpeechTokenizer (Zhang et al. 2023): EnCodec's network with a first codebook that was taught by HuBERT.

use codec_core::spec::Framing;

use super::{
    ImportError, ModelParts, System,
    seanet::{Config, Seanet},
    stated::Fields,
};
use crate::checkpoint::Checkpoint;

pub(super) const SYSTEMS: &[System] = &[System { name: "speechtokenizer", hint: "speechtokenizer", matches, import }];

/// The published models; one has Snake activations.
fn published(snake: bool) -> Config {
    Config {
        sample_rate: 16_000,
        network: Seanet {
            filters: 64,
            dimension: 1024,
            causal: false,
            bidirectional: true,
            snake,
            ..Seanet::default()
        },
        codebook_size: 1024,
        framing: Framing::Stream,
        choices: (1..=8).collect(),
    }
}

fn has_snake(checkpoint: &Checkpoint) -> bool {
    checkpoint.tensors().any(|(name, _)| name.ends_with("encoder.model.2.alpha"))
}

fn matches(checkpoint: &Checkpoint, _: &str) -> bool {
    match stated(checkpoint) {
        Ok(Some(config)) => config.matches(checkpoint),
        // A configuration that cannot be honoured is better reported than guessed around.
        Err(_) => true,
        Ok(None) => published(has_snake(checkpoint)).matches(checkpoint),
    }
}

fn import(checkpoint: &Checkpoint, name: &str) -> ModelParts {
    let config = stated(checkpoint)?.unwrap_or_else(|| published(has_snake(checkpoint)));
    // The projection to HuBERT's space is for training alone.
    config.import(name, checkpoint, |tensor| tensor.starts_with("transform."))
}

fn stated(checkpoint: &Checkpoint) -> Result<Option<Config>, ImportError> {
    let Some(config) = checkpoint.config().filter(|config| config.get("semantic_dimension").is_some()) else {
        return Ok(None);
    };
    let fields = Fields::new(config);
    let base = published(fields.word("activation", "ELU", &["ELU", "Snake"])? == "Snake");
    let network = Seanet {
        filters: fields.size("n_filters", base.network.filters)?,
        dimension: fields.size("dimension", base.network.dimension)?,
        ratios: fields.sizes("strides", &base.network.ratios)?,
        causal: fields.flag("causal", base.network.causal)?,
        pad: fields.padding("pad_mode", "reflect")?,
        kernel: fields.size("kernel_size", 7)?,
        last_kernel: fields.size("last_kernel_size", 7)?,
        residual_kernel: fields.size("residual_kernel_size", 3)?,
        units: fields.count("n_residual_layers", 1)?,
        dilation_base: fields.size("dilation_base", 2)?,
        compress: fields.size("compress", 2)?,
        lstm: fields.count("lstm_layers", 2)?,
        bidirectional: fields.flag("bidirectional", true)?,
        ..base.network
    };
    network.check(["strides", "n_filters", "compress", "dilation_base", "kernel_size"])?;
    Ok(Some(Config {
        sample_rate: fields.size("sample_rate", base.sample_rate)?,
        codebook_size: fields.size("codebook_size", base.codebook_size)?,
        choices: (1..=fields.size("n_q", 8)?.min(64)).collect(),
        network,
        ..base
    }))
}

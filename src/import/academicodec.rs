//! AcademiCodec (Yang et al. 2023): its EnCodec and SoundStream recipes, which share one network.

use codec_core::spec::{CodecSpec, Framing};

use super::{
    ModelParts, System,
    seanet::{Config, Seanet},
};
use crate::checkpoint::Checkpoint;

systems! {
    ("academicodec-encodec-16k-320d", "16k"),
    ("academicodec-encodec-24k-240d", "encodec_24k"),
    ("academicodec-encodec-24k-32d", "32d"),
    ("soundstream-24k-240d", "soundstream"),
}

fn matches(checkpoint: &Checkpoint, name: &str) -> bool {
    config(name).matches(checkpoint)
}

fn import(checkpoint: &Checkpoint, name: &str) -> ModelParts {
    config(name).import(name, checkpoint, |_| false)
}

pub(super) fn spec(name: &str) -> Option<CodecSpec> {
    SYSTEMS.iter().any(|system| system.name == name).then(|| {
        // 12 kbit/s, or 15 at 750 frames a second.
        let codebooks = match name {
            "academicodec-encodec-16k-320d" => 24,
            "academicodec-encodec-24k-32d" => 2,
            _ => 12,
        };
        config(name).spec(name, codebooks)
    })
}

fn config(name: &str) -> Config {
    let (sample_rate, ratios) = match name {
        "academicodec-encodec-16k-320d" => (16_000, vec![8, 5, 4, 2]),
        "academicodec-encodec-24k-32d" => (24_000, vec![2, 2, 2, 4]),
        _ => (24_000, vec![6, 5, 4, 2]),
    };
    Config {
        sample_rate,
        network: Seanet { dimension: 512, ratios, causal: false, ..Seanet::default() },
        codebook_size: 1024,
        framing: Framing::Stream,
        choices: Vec::new(),
    }
}

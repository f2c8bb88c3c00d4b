//! AcademiCodec (Yang et al. 2023): its EnCodec and SoundStream recipes, which share one network.

use codec_core::spec::Framing;

use super::{
    System,
    seanet::{Config, Seanet},
};
use crate::checkpoint::Checkpoint;

macro_rules! system {
    ($name:literal, $hint:literal) => {
        System {
            name: $name,
            hint: $hint,
            matches: |checkpoint: &Checkpoint, name| config(name).matches(checkpoint),
            import: |checkpoint, name| config(name).import(name, checkpoint, |_| false),
        }
    };
}

pub(super) const SYSTEMS: &[System] = &[
    system!("academicodec-encodec-16k-320d", "16k"),
    system!("academicodec-encodec-24k-240d", "encodec_24k"),
    system!("academicodec-encodec-24k-32d", "32d"),
    system!("soundstream-24k-240d", "soundstream"),
];

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

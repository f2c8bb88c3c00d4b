//! EnCodec (Défossez et al. 2022): the published 24 kHz and 48 kHz models.

use codec_core::spec::Framing;

use super::{System, seanet::Config};

pub(super) const SYSTEMS: &[System] = &[
    System {
        name: "encodec-24khz",
        hint: "24khz",
        matches: |checkpoint, _| mono().matches(checkpoint),
        import: |checkpoint, name| mono().import(name, checkpoint),
    },
    System {
        name: "encodec-48khz",
        hint: "48khz",
        matches: |checkpoint, _| stereo().matches(checkpoint),
        import: |checkpoint, name| stereo().import(name, checkpoint),
    },
];

fn mono() -> Config {
    Config {
        sample_rate: 24_000,
        channels: 1,
        dimension: 128,
        ratios: [8, 5, 4, 2],
        causal: true,
        norm: false,
        framing: Framing::Stream,
        // 1.5, 3, 6, 12 and 24 kbit/s.
        choices: &[2, 4, 8, 16, 32],
    }
}

fn stereo() -> Config {
    Config {
        sample_rate: 48_000,
        channels: 2,
        dimension: 128,
        ratios: [8, 5, 4, 2],
        causal: false,
        norm: true,
        // One second, overlapping by one hundredth.
        framing: Framing::Segments { length: 48_000, stride: 47_520, normalize: true },
        // 3, 6, 12 and 24 kbit/s.
        choices: &[2, 4, 8, 16],
    }
}

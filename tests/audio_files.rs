//! Compressed audio is read with its true rate, channels, length and content. The files are synthetic tones.

use codec::audio::AudioReader;
use std::path::Path;

fn read(name: &str) -> (u32, usize, Vec<f32>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    let mut reader = AudioReader::open(&path).unwrap();
    let (rate, channels) = (reader.info().sample_rate, reader.info().channels);
    let mut all = Vec::new();
    while let Some(block) = reader.next_block().unwrap() {
        all.extend_from_slice(block);
    }
    (rate, channels, all)
}

/// Amplitude of `frequency` in one channel, by correlation.
fn amplitude(pcm: &[f32], channels: usize, channel: usize, rate: u32, frequency: f64) -> f64 {
    let step = std::f64::consts::TAU * frequency / f64::from(rate);
    let mut sums = (0.0, 0.0);
    let samples = pcm.iter().skip(channel).step_by(channels);
    let mut count = 0.0;
    for (n, &x) in samples.enumerate() {
        sums.0 += f64::from(x) * (step * n as f64).cos();
        sums.1 += f64::from(x) * (step * n as f64).sin();
        count += 1.0;
    }
    2.0 / count * (sums.0 * sums.0 + sums.1 * sums.1).sqrt()
}

#[test]
fn flac_is_exact() {
    let (rate, channels, pcm) = read("tone.flac");
    assert_eq!((rate, channels, pcm.len()), (24_000, 1, 6_000));
    for (n, &x) in pcm.iter().enumerate() {
        let expected = 0.4 * (std::f64::consts::TAU * 440.0 * n as f64 / 24_000.0).sin();
        assert!((f64::from(x) - expected).abs() < 1.0 / 32_768.0, "{n}: {x} and {expected}");
    }
}

#[test]
fn lossy_formats_hold_their_tones() {
    // m4a has no field for the encoder's delay that is read, so it comes out a few packets long.
    // LAME scales what it encodes by 0.95.
    for (name, gain, slack) in [("tone.mp3", 0.95, 0), ("tone.ogg", 1.0, 0), ("tone.m4a", 1.0, 3 * 1024)] {
        let (rate, channels, pcm) = read(name);
        assert_eq!((rate, channels), (44_100, 2), "{name}");
        let frames = pcm.len() / 2;
        assert!((22_050..=22_050 + slack).contains(&frames), "{name}: {frames}");
        let middle = &pcm[2 * 4_000..2 * 19_000];
        for (channel, frequency, expected, other) in [(0, 440.0, 0.4, 660.0), (1, 660.0, 0.3, 440.0)] {
            let own = amplitude(middle, channels, channel, rate, frequency);
            assert!((own - gain * expected).abs() < 0.01, "{name}, channel {channel}: {own}");
            assert!(amplitude(middle, channels, channel, rate, other) < 0.01, "{name}, channel {channel}");
        }
    }
}

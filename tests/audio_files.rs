//! Compressed audio is read with its true rate, channels, length and content; wav files are exchanged, sample for
//! sample, with an independent implementation. All sounds are synthetic.

use std::path::Path;

use codec::audio::{AudioReader, SampleFormat, WavWriter};
use hound::SampleFormat::{Float, Int};

fn read(name: &str) -> (u32, usize, Vec<f32>) {
    read_file(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name))
}

fn read_file(path: &Path) -> (u32, usize, Vec<f32>) {
    let mut reader = AudioReader::open(path).unwrap();
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

/// Integers of `bits` bits: the ends of the range, what is around zero, and others; two channels.
fn integers(bits: u16) -> Vec<i32> {
    let full = 1_i64 << (bits - 1);
    let mut values = vec![-full, full - 1, 0, -1, 1, full / 2, -full / 3, 1 - full];
    let mut state = 1_u64;
    values.extend((0..1992).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as i64 % full
    }));
    values.into_iter().map(|v| v as i32).collect()
}

fn floats() -> Vec<f32> {
    integers(32).into_iter().map(|v| v as f32 / 1e9).collect()
}

#[test]
fn hound_reads_what_we_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ours.wav");
    for (format, bits) in [(SampleFormat::I16, 16), (SampleFormat::I24, 24), (SampleFormat::F32, 32)] {
        let integers = integers(bits);
        let full = (1_i64 << (bits - 1)) as f32;
        let pcm = if bits == 32 { floats() } else { integers.iter().map(|&v| v as f32 / full).collect() };
        let mut wav = WavWriter::new(std::fs::File::create(&path).unwrap(), format, 44_100, 2, None).unwrap();
        pcm.chunks(300).for_each(|block| wav.write(block).unwrap());
        let (_, report) = wav.finish_file().unwrap();
        assert_eq!((report.frames, report.clipped), (1000, 0));

        let mut theirs = hound::WavReader::open(&path).unwrap();
        let spec = theirs.spec();
        assert_eq!((spec.channels, spec.sample_rate, spec.bits_per_sample), (2, 44_100, bits));
        assert_eq!(theirs.duration(), 1000);
        if bits == 32 {
            assert_eq!(spec.sample_format, Float);
            assert_eq!(theirs.samples::<f32>().collect::<Result<Vec<_>, _>>().unwrap(), pcm);
        } else {
            assert_eq!(spec.sample_format, Int);
            assert_eq!(theirs.samples::<i32>().collect::<Result<Vec<_>, _>>().unwrap(), integers);
        }
    }
}

#[test]
fn we_read_what_hound_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("theirs.wav");
    for (format, bits) in [(Int, 8), (Int, 16), (Int, 24), (Int, 32), (Float, 32)] {
        let spec = hound::WavSpec { channels: 2, sample_rate: 22_050, bits_per_sample: bits, sample_format: format };
        let mut theirs = hound::WavWriter::create(&path, spec).unwrap();
        let expected = if format == Float {
            let values = floats();
            values.iter().for_each(|&v| theirs.write_sample(v).unwrap());
            values
        } else {
            let values = integers(bits);
            values.iter().for_each(|&v| theirs.write_sample(v).unwrap());
            let full = (1_i64 << (bits - 1)) as f64;
            values.into_iter().map(|v| (f64::from(v) / full) as f32).collect()
        };
        theirs.finalize().unwrap();
        assert_eq!(read_file(&path), (22_050, 2, expected), "{format:?} {bits}");
    }
}

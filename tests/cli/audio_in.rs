//! Audio that is not as it should be.

use crate::support::*;

fn put(bench: &Bench, name: &str, bytes: &[u8]) {
    std::fs::write(bench.path(name), bytes).unwrap();
}

/// The start of a wav file up to its samples.
fn header(format: u16, channels: u16, rate: u32, bits: u16, data: u32) -> Vec<u8> {
    let block = channels * bits / 8;
    let mut w = b"RIFF".to_vec();
    w.extend(data.saturating_add(36).to_le_bytes());
    w.extend(b"WAVEfmt \x10\0\0\0");
    w.extend(format.to_le_bytes());
    w.extend(channels.to_le_bytes());
    w.extend(rate.to_le_bytes());
    w.extend((rate * u32::from(block)).to_le_bytes());
    w.extend(block.to_le_bytes());
    w.extend(bits.to_le_bytes());
    w.extend(b"data");
    w.extend(data.to_le_bytes());
    w
}

#[test]
fn files_without_samples_are_errors() {
    let bench = Bench::new();
    put(&bench, "empty.wav", b"");
    bench.codec(&["encode", "empty.wav", "o.nac"]).fails(1, &["empty.wav", "the file is empty"]);
    put(&bench, "none.wav", &header(1, 1, RATE, 16, 0));
    bench.codec(&["encode", "none.wav", "o.nac"]).fails(1, &["no samples"]);
    bench.codec(&["encode", "absent.wav", "o.nac"]).fails(1, &["cannot read absent.wav"]);
    bench.codec(&["encode", ".", "o.nac"]).fails(1, &["folder"]).says(&["--out-dir"]);
    bench.assert_only(&["empty.wav", "none.wav"]);
}

#[test]
fn what_is_no_audio_says_what_can_be_read() {
    let bench = Bench::new();
    put(&bench, "text.wav", &b"this is not audio ".repeat(100));
    bench.codec(&["encode", "text.wav", "o.nac"]).fails(1, &["text.wav", "not audio"]).says(&["flac", "ffmpeg"]);
    let mut adpcm = header(2, 1, RATE, 4, 100);
    adpcm.extend([0; 100]);
    put(&bench, "adpcm.wav", &adpcm);
    bench.codec(&["encode", "adpcm.wav", "o.nac"]).fails(1, &["adpcm.wav"]);
    let mut silent = header(1, 0, RATE, 16, 4);
    silent.extend([0; 4]);
    put(&bench, "zero.wav", &silent);
    bench.codec(&["encode", "zero.wav", "o.nac"]).fails(1, &["zero.wav"]);
    bench.assert_only(&["adpcm.wav", "text.wav", "zero.wav"]);
}

#[test]
fn a_header_is_held_to_its_length() {
    let bench = Bench::new();
    // Eight hours declared, an eighth of a second there.
    let mut lie = header(1, 1, RATE, 16, 8 * 3600 * RATE * 2);
    lie.extend([0; 2000]);
    put(&bench, "lie.wav", &lie);
    bench.codec(&["encode", "lie.wav", "o.nac"]).fails(1, &["declares 230400000 samples", "at most"]);
    // A little too long: found at the end, and nothing is left behind.
    let mut cut = header(1, 1, RATE, 16, 2020);
    cut.extend([0; 2000]);
    put(&bench, "cut.wav", &cut);
    bench.codec(&["encode", "cut.wav", "o.nac"]).fails(1, &["declares 1010 samples", "ends after 1000"]);
    let flac = std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tone.flac")).unwrap();
    put(&bench, "cut.flac", &flac[..flac.len() / 2]);
    bench.codec(&["encode", "cut.flac", "o.nac", "--resample"]).fails(1, &["cut.flac", "6000"]);
    bench.assert_only(&["cut.flac", "cut.wav", "lie.wav"]);
}

#[test]
fn damaged_flac_is_an_error_and_never_a_panic() {
    let bench = Bench::new();
    let flac = std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tone.flac")).unwrap();
    let mut failed = 0;
    for at in (50..flac.len()).step_by(flac.len() / 12) {
        let mut bytes = flac.clone();
        bytes[at] ^= 0x55;
        put(&bench, "bad.flac", &bytes);
        failed += bench.codec(&["encode", "bad.flac", "o.nac", "--resample", "--force"]).code;
    }
    assert!(failed >= 10, "{failed} of 12 were noticed");
}

#[test]
fn samples_that_are_no_numbers_are_named() {
    let bench = Bench::new();
    for (name, value) in [("nan.wav", f32::NAN), ("inf.wav", f32::NEG_INFINITY)] {
        let mut bytes = header(3, 2, RATE, 32, 8 * 2000);
        let mut samples = vec![0.1f32; 4000];
        samples[2469] = value;
        bytes.extend(samples.iter().flat_map(|s| s.to_le_bytes()));
        put(&bench, name, &bytes);
        let shown = value.to_string();
        bench.codec(&["encode", name, "o.nac", "--downmix"]).fails(1, &[name, "sample 1234 of channel 1", &shown]);
    }
    bench.assert_only(&["inf.wav", "nan.wav"]);
}

#[test]
fn rates_and_channels_are_changed_only_when_asked() {
    let bench = Bench::new();
    bench.wav("fast.wav", 16_000, 1, &[0.25; 1_601]);
    bench.codec(&["encode", "fast.wav", "o.nac"]).fails(1, &["16000 Hz", "8000"]).says(&["--resample"]);
    let run = bench.codec(&["encode", "fast.wav", "o.nac", "--resample", "--json"]).ok();
    assert_eq!(run.json()["files"][0]["samples"], 801);
    bench.wav("stereo.wav", RATE, 2, &[0.25; 1_600]);
    bench.codec(&["encode", "stereo.wav", "p.nac"]).fails(1, &["2 channel(s)", "on 1"]).says(&["--downmix"]);
    let run = bench.codec(&["encode", "stereo.wav", "p.nac", "--downmix", "--json"]).ok();
    assert_eq!(run.json()["files"][0]["samples"], 800);
}

#[test]
fn every_usual_wav_form_is_read() {
    let bench = Bench::new();
    let value = 0.25f32;
    let forms: [(&str, u16, u16, Vec<u8>); 5] = [
        ("u8", 1, 8, vec![160]),
        ("i16", 1, 16, 8192i16.to_le_bytes().to_vec()),
        ("i24", 1, 24, vec![0, 0, 0x20]),
        ("i32", 1, 32, (1i32 << 29).to_le_bytes().to_vec()),
        ("f32", 3, 32, value.to_le_bytes().to_vec()),
    ];
    let mut all = Vec::new();
    for (name, format, bits, sample) in forms {
        let file = format!("{name}.wav");
        let data = sample.repeat(800);
        let mut bytes = header(format, 1, RATE, bits, data.len() as u32);
        bytes.extend(&data);
        put(&bench, &file, &bytes);
        let mut extensible = b"RIFF".to_vec();
        extensible.extend((60 + data.len() as u32).to_le_bytes());
        extensible.extend(b"WAVEfmt \x28\0\0\0\xfe\xff\x01\0");
        extensible.extend(RATE.to_le_bytes());
        extensible.extend((RATE * u32::from(bits) / 8).to_le_bytes());
        extensible.extend((bits / 8).to_le_bytes());
        extensible.extend(bits.to_le_bytes());
        extensible.extend(22u16.to_le_bytes());
        extensible.extend(bits.to_le_bytes());
        // Front center.
        extensible.extend(4u32.to_le_bytes());
        extensible.extend(format.to_le_bytes());
        extensible.extend(b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71");
        extensible.extend(b"data");
        extensible.extend((data.len() as u32).to_le_bytes());
        extensible.extend(&data);
        put(&bench, &format!("x{file}"), &extensible);
        for file in [file.clone(), format!("x{file}")] {
            bench.codec(&["encode", &file, "t.npy", "--force"]).ok();
            all.push(std::fs::read(bench.path("t.npy")).unwrap());
        }
    }
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
}

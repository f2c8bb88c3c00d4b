//! Codes and samples of a device are those of the engine: on the golden cases, in batches of any lengths, and from the command
//! line. On burn's own processor backend always, and with the feature `wgpu` on whatever adapter is there.

#[path = "../../tests/support/mod.rs"]
mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use assert_cmd::Command;
use codec::{
    Codes, Model, Options,
    cli::{Coded, Coder, Half},
    model_file::{ModelFile, write_model},
};
use codec_train::{coder::DeviceCoder, device};
use support::golden::{self, Case, max_abs_diff};
use tempfile::TempDir;

struct Fixture {
    case: Case,
    model: Model,
    file: ModelFile,
    _folder: TempDir,
}

impl Fixture {
    fn new(name: &str) -> Self {
        let case = Case::load(&golden::committed(), name);
        let folder = support::import_folder(&case, &case.tensors(), |_| {});
        let path = folder.path().join("model.safetensors");
        let (model, file) = (Model::load(&path).unwrap(), ModelFile::open(&path).unwrap());
        Self { case, model, file, _folder: folder }
    }

    fn coder(&self, device: &str, half: Half) -> DeviceCoder<'_> {
        DeviceCoder::new(&self.model, &self.file, device::find(device).unwrap(), half).unwrap()
    }

    /// The case's signal, its odd length, one with a piece less, and one of a few samples.
    fn signals(&self) -> Vec<Vec<f32>> {
        let channels = self.model.spec().channels as usize;
        let pcm = self.case.array("pcm").channels_last();
        let odd = self.case.manifest["input"]["odd_length"].as_u64().unwrap() as usize * channels;
        let lengths = [pcm.len(), odd, pcm.len() / channels * 2 / 3 * channels, 70 * channels];
        lengths.iter().map(|n| pcm[..*n].to_vec()).collect()
    }
}

/// Codes of a batch of signals, and samples of a batch of codes, by the device and by the engine.
fn same(device: &str, name: &str) {
    let f = Fixture::new(name);
    let options = Options { threads: 0, ..Options::default() };
    let signals = f.signals();
    let expected: Vec<Codes> = signals.iter().map(|s| f.model.encode(s, &options).unwrap()).collect();
    let got = f.coder(device, Half::Encoder).encode(&signals, &options);
    assert_eq!(got.len(), signals.len());
    for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
        golden::assert_codes(&format!("{name} {i}"), got.as_ref().unwrap(), &expected.data, expected.codebooks);
    }
    // Some of the codebooks, not from the first on where that can be had.
    let some = Options { codebooks: Some(1), first_codebook: 1, ..options.clone() };
    if let Ok(few) = f.model.encode(&signals[1], &some) {
        let got = f.coder(device, Half::Encoder).encode(&signals[1..2], &some);
        golden::assert_codes(&format!("{name} book 1"), got[0].as_ref().unwrap(), &few.data, 1);
    }
    if f.model.spec().decoder.is_none() {
        return;
    }
    let coded: Vec<Coded> = expected
        .iter()
        .filter(|c| !c.data.is_empty())
        .map(|c| Coded { first: 0, codebooks: c.codebooks, data: c.data.clone() })
        .collect();
    let decoded = f.coder(device, Half::Decoder).decode(&coded, &options);
    let tolerance = 10.0 * f.case.measured("pcm_f32_f64");
    for (i, (got, coded)) in decoded.iter().zip(&coded).enumerate() {
        let codes = Codes { codebooks: coded.codebooks, data: coded.data.clone(), segments: vec![] };
        let expected = f.model.decode(&codes, None, &options).unwrap();
        golden::assert_close(&format!("{name} {i}"), got.as_ref().unwrap(), &expected, tolerance);
    }
}

macro_rules! cases {
    ($module:ident, $device:literal, [$($name:ident),* $(,)?]) => {
        mod $module {
            $(#[test]
            fn $name() {
                super::same($device, stringify!($name));
            })*

            #[test]
            fn files_of_any_length() {
                super::files_of_any_length($device);
            }
        }
    };
}

cases!(
    flex,
    "flex",
    [
        encodec_24khz,
        dac_16khz,
        hificodec_24k_320d,
        mimi,
        snac_24khz,
        snac_44khz,
        speechtokenizer_hubert_avg,
        wavtokenizer_75,
        encodec_32khz_transformers,
    ]
);

#[cfg(feature = "wgpu")]
cases!(gpu, "gpu", [encodec_24khz, dac_16khz, mimi, snac_24khz]);

/// Noise in bursts.
fn noise(seed: u32, n: usize) -> Vec<f32> {
    let mut z = seed.wrapping_mul(2_654_435_769).wrapping_add(1);
    let mut next = |i: usize| {
        z = z.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((z >> 8) as f32 / (1 << 24) as f32 - 0.5) * (0.2 + 0.8 * (i as f32 * 7e-4).sin().abs())
    };
    (0..n).map(&mut next).collect()
}

fn write_wav(path: &Path, rate: u32, channels: u16, pcm: &[f32]) {
    let spec =
        hound::WavSpec { channels, sample_rate: rate, bits_per_sample: 32, sample_format: hound::SampleFormat::Float };
    let mut wav = hound::WavWriter::create(path, spec).unwrap();
    pcm.iter().for_each(|v| wav.write_sample(*v).unwrap());
    wav.finalize().unwrap();
}

fn read_wav(path: &Path) -> Vec<f32> {
    hound::WavReader::open(path).unwrap().into_samples::<f32>().map(Result::unwrap).collect()
}

fn program() -> Command {
    Command::cargo_bin("codec-train").unwrap()
}

/// Runs `encode` and `decode` of a folder on a device and on the engine, and compares what they write.
fn folders(device: &str, folder: &Path, model: &Path, tolerance: f32) {
    let run = |command: &str, from: &Path, to: &Path, on: &str, more: &[&str]| {
        let done = program()
            .args([command, "--model"])
            .arg(model)
            .arg(from)
            .arg("--out-dir")
            .arg(to)
            .args(["--device", on])
            .args(more)
            .assert()
            .success();
        String::from_utf8(done.get_output().stderr.clone()).unwrap()
    };
    let path = |name: &str| folder.join(name);
    let said = run("encode", &path("wav"), &path("device"), device, &["--format", "jsonl"]);
    assert!(said.contains(&format!("device {device}: ")), "{said}");
    run("encode", &path("wav"), &path("engine"), "cpu", &["--format", "jsonl"]);
    run("decode", &path("engine"), &path("device-wav"), device, &["--sample-format", "f32"]);
    run("decode", &path("engine"), &path("engine-wav"), "cpu", &["--sample-format", "f32"]);
    let names: Vec<PathBuf> = fs::read_dir(path("engine")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(names.len(), fs::read_dir(path("wav")).unwrap().count());
    for file in names {
        let name = file.file_name().unwrap();
        assert_eq!(fs::read(path("device").join(name)).unwrap(), fs::read(&file).unwrap(), "{}", name.display());
        let wav = Path::new(name).with_extension("wav");
        let (got, expected) = (read_wav(&path("device-wav").join(&wav)), read_wav(&path("engine-wav").join(&wav)));
        assert_eq!(got.len(), expected.len(), "{}", wav.display());
        let off = max_abs_diff(&got, &expected);
        assert!(off <= tolerance, "{}: {off}", wav.display());
    }
}

/// A long file, which is computed in pieces, and short ones beside it.
fn files_of_any_length(device: &str) {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("nano.safetensors");
    let spec = codec::nano::spec();
    write_model(&model, &spec, &codec::nano::random_tensors(&spec, 3), &Default::default()).unwrap();
    fs::create_dir(folder.path().join("wav")).unwrap();
    for (i, n) in [16_000 * 40 + 123, 16_000 * 40, 16_000, 15_999, 5_001, 320, 17].into_iter().enumerate() {
        write_wav(&folder.path().join(format!("wav/{i}.wav")), 16_000, 1, &noise(i as u32, n));
    }
    folders(device, folder.path(), &model, 1e-4);
}

/// Stereo segments with scales: each is a signal of its own on the device.
#[test]
fn segments() {
    let case = Case::load(&golden::committed(), "encodec_48khz");
    let folder = support::import_folder(&case, &case.tensors(), |_| {});
    fs::create_dir(folder.path().join("wav")).unwrap();
    let pcm = case.array("pcm").channels_last();
    for (name, values) in [("whole", &pcm[..]), ("odd", &pcm[..50_001 * 2])] {
        write_wav(&folder.path().join(format!("wav/{name}.wav")), 48_000, 2, values);
    }
    folders("flex", folder.path(), &folder.path().join("model.safetensors"), 10.0 * case.measured("pcm_f32_f64"));
}

/// A model that only encodes, in windows, from a log-mel spectrogram.
#[test]
fn windows() {
    let f = Fixture::new("s3tokenizer_v2_25hz");
    let folder = tempfile::tempdir().unwrap();
    let model = f._folder.path().join("model.safetensors");
    let pcm = f.case.array("pcm").f32();
    write_wav(&folder.path().join("a.wav"), 16_000, 1, pcm);
    let codes = |on: &str| {
        let out = folder.path().join(format!("{on}.jsonl"));
        program()
            .args(["encode", "--device", on, "-m"])
            .arg(&model)
            .arg(folder.path().join("a.wav"))
            .arg(&out)
            .assert()
            .success();
        fs::read(out).unwrap()
    };
    assert_eq!(codes("flex"), codes("cpu"));
}

fn fails(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("nano.safetensors");
    let spec = codec::nano::spec();
    write_model(&model, &spec, &codec::nano::random_tensors(&spec, 3), &Default::default()).unwrap();
    let wav = folder.path().join("a.wav");
    write_wav(&wav, 16_000, 1, &noise(1, 16_000));
    let mut program = program();
    program.arg("encode").arg("-m").arg(&model).arg(&wav).arg(folder.path().join("a.nac")).args(arguments);
    program.envs(environment.iter().copied());
    let done = program.assert().failure();
    let said = String::from_utf8(done.get_output().stderr.clone()).unwrap();
    assert!(said.contains("error: ") && said.contains("help: "), "{said}");
    assert!(!folder.path().join("a.nac").exists());
    said
}

#[test]
fn devices_that_are_not_there() {
    for name in ["tpu", "gpu:x", "cpu:3", "gpu:"] {
        let said = fails(&["--device", name], &[]);
        assert!(said.contains(&format!("device `{name}`")), "{said}");
    }
    #[cfg(not(feature = "wgpu"))]
    assert!(fails(&["--device", "gpu"], &[]).contains("--features wgpu"));
    #[cfg(not(feature = "cuda"))]
    assert!(fails(&["--device", "cuda:1"], &[]).contains("--features cuda"));
}

#[test]
fn the_model_in_the_box_is_the_engines() {
    let folder = tempfile::tempdir().unwrap();
    let (wav, out) = (folder.path().join("a.wav"), folder.path().join("a.nac"));
    write_wav(&wav, 16_000, 1, &noise(1, 16_000));
    let mut program = program();
    program.env_remove("CODEC_MODEL").arg("encode").arg(&wav).arg(&out).args(["--device", "flex"]);
    let done = program.assert().failure();
    let said = String::from_utf8(done.get_output().stderr.clone()).unwrap();
    assert!(said.contains("the model in the box: a deploy image") && said.contains("leave --device away"), "{said}");
    assert!(!out.exists());
}

#[cfg(feature = "wgpu")]
#[test]
fn no_adapter_and_no_such_adapter() {
    // What the Vulkan loader is told to look for its drivers in.
    let none = [("VK_DRIVER_FILES", "/nonexistent.json"), ("VK_ICD_FILENAMES", "/nonexistent.json")];
    let said = fails(&["--device", "gpu"], &none);
    assert!(said.contains("no adapter is there"), "{said}");
    let said = fails(&["--device", "gpu:77"], &[]);
    assert!(said.contains("none of this number; gpu:0 is "), "{said}");
}

/// Recorded speech, from the shared audio: `CODEC_CLIPS` files of its list, or one. No more than one code in a thousand may differ
/// from the engine's.
#[cfg(feature = "wgpu")]
#[test]
fn speech() {
    let Some(audio) = golden::shared_part("audio/dev") else { return };
    let clips = std::env::var("CODEC_CLIPS").map_or(1, |n| n.parse().unwrap());
    let list = fs::read_to_string(audio.join("speech.txt")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let wav = folder.path().join("wav");
    fs::create_dir(&wav).unwrap();
    for name in list.lines().take(clips) {
        fs::copy(audio.join(format!("{name}.flac")), wav.join(format!("{name}.flac"))).unwrap();
    }
    let case = Case::load(&golden::committed(), "encodec_24khz");
    let model = support::import_folder(&case, &case.tensors(), |_| {});
    let codes = |device: &str| -> Vec<String> {
        let out = folder.path().join(format!("tokens-{device}"));
        let mut program = program();
        program.args(["encode", "--resample", "--format", "jsonl", "--device", device, "--model"]);
        program.arg(model.path().join("model.safetensors")).arg(&wav).arg("--out-dir").arg(&out);
        program.assert().success();
        let mut files: Vec<PathBuf> = fs::read_dir(&out).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        files
            .iter()
            .flat_map(|f| fs::read_to_string(f).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    };
    let (expected, got) = (codes("cpu"), codes("gpu"));
    assert_eq!(expected.len(), got.len());
    let (mut all, mut frames, mut off, mut frames_off) = (0, 0, 0, 0);
    for (expected, got) in expected.iter().zip(&got) {
        let Ok(expected) = serde_json::from_str::<Vec<u16>>(expected) else {
            assert_eq!(expected, got);
            continue;
        };
        let got: Vec<u16> = serde_json::from_str(got).unwrap();
        assert_eq!(expected.len(), got.len());
        let differ = expected.iter().zip(&got).map(|(a, b)| a != b);
        all += expected.len();
        frames += 1;
        off += differ.clone().filter(|d| *d).count();
        frames_off += usize::from(differ.clone().any(|d| d));
    }
    eprintln!("{off} of {all} codes differ, in {frames_off} of {frames} frames");
    assert!(all > 1000 && off * 1000 <= all, "{off} of {all} codes differ");
}

/// A wider search, codes at half the rate and single precision of a beam are the engine's on the device's latents.
#[test]
fn what_the_device_does_not_search() {
    let f = Fixture::new("encodec_24khz");
    let signals = f.signals();
    for options in [Options { beam: 3, ..Options::default() }, Options { merged_books: 2, ..Options::default() }] {
        let got = f.coder("flex", Half::Encoder).encode(&signals[..2], &options);
        for (signal, got) in signals.iter().zip(got) {
            assert_eq!(got.unwrap(), f.model.encode(signal, &options).unwrap().data);
        }
    }
}

#[test]
fn what_only_the_engine_runs_is_refused() {
    let f = Fixture::new("snac_24khz");
    let codes = f.model.encode(&f.signals()[1], &Options::default()).unwrap();
    let coded = [Coded { first: 0, codebooks: codes.codebooks, data: codes.data }];
    let options = Options { noise_seed: Some(3), ..Options::default() };
    let error = f.coder("flex", Half::Decoder).decode(&coded, &options)[0].as_ref().unwrap_err().to_string();
    assert!(error.contains("noise"), "{error}");
}

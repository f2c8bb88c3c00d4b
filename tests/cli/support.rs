use std::path::{Path, PathBuf};

use assert_cmd::Command;
use codec::{
    audio::{AudioReader, SampleFormat, WavWriter},
    core::spec::{
        CodecSpec, Conv, ConvTranspose, Framing, Layer, Metric, PadMode, Padding, Quantizer, ResidualRounding,
        SPEC_VERSION, Vq,
    },
    model_file::{OwnedTensor, Provenance, TensorMap, write_model},
};

pub const RATE: u32 = 8000;
pub const HOP: u32 = 80;

/// A folder with a model in it.
pub struct Bench {
    pub folder: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        model(&bench.path("model.safetensors"), 1.0);
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `codec` in the folder, with the model given.
    pub fn codec(&self, args: &[&str]) -> Run {
        let mut command = bare(args);
        command.current_dir(self.folder.path()).env("CODEC_MODEL", "model.safetensors");
        Run::of(command)
    }

    /// A wav file of slow steps.
    pub fn steps(&self, name: &str, frames: usize) -> Vec<f32> {
        let pcm: Vec<f32> = (0..frames).map(|n| ((n / 400 * 37 % 101) as f32 / 50.0 - 1.0) * 0.8).collect();
        self.wav(name, RATE, 1, &pcm);
        pcm
    }

    pub fn wav(&self, name: &str, rate: u32, channels: u16, pcm: &[f32]) {
        let file = std::fs::File::create(self.path(name)).unwrap();
        let mut wav = WavWriter::new(file, SampleFormat::F32, rate, channels, None).unwrap();
        wav.write(pcm).unwrap();
        wav.finish_file().unwrap();
    }

    /// Nothing but these files is in the folder.
    pub fn assert_only(&self, names: &[&str]) {
        let mut found: Vec<String> = std::fs::read_dir(self.folder.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| n != "model.safetensors")
            .collect();
        found.sort();
        assert_eq!(found, names);
    }
}

/// `codec` without any setting of the surroundings.
pub fn bare(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("codec").unwrap();
    command.args(args).env_remove("CODEC_MODEL").env_remove("CODEC_ISA").env_remove("CODEC_VISQOL");
    command.timeout(std::time::Duration::from_secs(60));
    command
}

/// Copies a program by another process: one that this process has open for writing is open in what other tests start meanwhile too,
/// and cannot be run until they let go of it.
fn copy_program(from: &Path, to: &Path) {
    assert!(std::process::Command::new("cp").arg(from).arg(to).status().unwrap().success());
}

/// A program that says what a shell script says.
#[cfg(unix)]
pub fn script(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let written = path.with_extension("sh");
    std::fs::write(&written, text).unwrap();
    std::fs::set_permissions(&written, std::fs::Permissions::from_mode(0o755)).unwrap();
    copy_program(&written, path);
}

/// A copy of `codec` in a folder that is all of its search path: no trainer is found but one in there.
pub fn alone(folder: &Path) -> std::process::Command {
    let own = folder.join("codec");
    if !own.exists() {
        copy_program(&assert_cmd::cargo::cargo_bin("codec"), &own);
    }
    let mut command = std::process::Command::new(own);
    command.env("PATH", folder).env_remove("CODEC_MODEL");
    command
}

/// What a run gave.
pub struct Run {
    pub code: i32,
    pub out: Vec<u8>,
    pub err: String,
}

impl Run {
    pub fn of(mut command: Command) -> Self {
        let output = command.output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(!err.contains("panicked"), "{err}");
        Self { code: output.status.code().expect("an exit code"), out: output.stdout, err }
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.err);
        self
    }

    /// Failed with this exit code, an `error:` line that holds all of `parts`, and a `help:` line.
    #[track_caller]
    pub fn fails(self, code: i32, parts: &[&str]) -> Self {
        assert_eq!(self.code, code, "{}", self.err);
        let error = self.err.lines().find(|l| l.starts_with("error: ")).unwrap_or_else(|| panic!("{}", self.err));
        for part in parts {
            assert!(error.contains(part), "`{part}` is not in: {}", self.err);
        }
        assert!(self.err.lines().any(|l| l.starts_with("help: ") && l.len() > 10), "{}", self.err);
        self
    }

    /// All of `parts` are on standard error.
    #[track_caller]
    pub fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.err.contains(part), "`{part}` is not in: {}", self.err);
        }
        self
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.out).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.out)))
    }
}

/// A codec that keeps the mean of each hop in two codebooks of 16 entries: the second refines the first. `gain`
/// makes another model of it.
pub fn model(path: &Path, gain: f32) {
    model_with(path, gain, Framing::Stream, &[1, 1]);
}

/// The same with a third codebook; the first has a code for four hops and the second for two, so that a frame is four hops
/// and 1 + 2 + 4 codes.
pub fn levels_model(path: &Path) {
    model_with(path, 1.0, Framing::Stream, &[4, 2, 1]);
}

/// The same codec in overlapping segments of ten hops, each brought to unit loudness.
pub fn segmented_model(path: &Path) {
    model_with(path, 1.0, Framing::Segments { length: 10 * HOP, stride: 9 * HOP, normalize: true }, &[1, 1]);
}

fn model_with(path: &Path, gain: f32, framing: Framing, strides: &[u32]) {
    let hop = HOP as usize;
    let rows = strides.iter().copied().max().unwrap();
    let stage = |(i, &stride): (usize, &u32)| {
        let vq = Quantizer::Vq(Vq {
            name: ["first", "second", "third"][i].into(),
            size: 16,
            dim: 1,
            metric: Metric::Euclidean,
            project_in: None,
            project_out: None,
        });
        if rows == 1 { vq } else { Quantizer::Rated { stride, inner: Box::new(vq) } }
    };
    let pad = (rows > 1).then_some(Layer::PadEnd { multiple: rows * HOP });
    let conv = Layer::Conv(Conv {
        name: "encoder".into(),
        input: 1,
        output: 1,
        kernel: HOP,
        stride: HOP,
        dilation: 1,
        groups: 1,
        bias: false,
        padding: Padding { mode: PadMode::Zero, left: 0, right: 0, complete: rows == 1 },
        int8: None,
    });
    let spec = CodecSpec {
        version: SPEC_VERSION,
        name: "mean of a hop".into(),
        sample_rate: RATE,
        channels: 1,
        hop: rows * HOP,
        latent: 1,
        framing,
        codebook_choices: if rows == 1 { vec![1, 2] } else { vec![] },
        encoder: Some(pad.into_iter().chain([conv]).collect()),
        quantizer: Quantizer::Residual {
            stages: strides.iter().enumerate().map(stage).collect(),
            project_in: None,
            project_out: None,
            rounding: ResidualRounding::Plain,
        },
        decoder: Some(vec![Layer::ConvTranspose(ConvTranspose {
            name: "decoder".into(),
            input: 1,
            output: 1,
            kernel: HOP,
            stride: HOP,
            groups: 1,
            bias: false,
            trim_left: 0,
            trim_right: 0,
            blocks: None,
        })]),
    };
    let book = |step: f32| (0..16).map(|i| (i as f32 - 7.5) * step).collect::<Vec<_>>();
    let mut tensors = TensorMap::default();
    let mut put = |name: &str, shape: &[usize], values: &[f32]| {
        tensors.0.insert(name.into(), OwnedTensor::f32(shape, values));
    };
    put("encoder.weight", &[1, 1, hop], &vec![1.0 / hop as f32; hop]);
    put("decoder.weight", &[1, 1, hop], &vec![gain; hop]);
    put("first.codebook", &[16, 1], &book(2.0 / 16.0));
    put("second.codebook", &[16, 1], &book(2.0 / 256.0));
    if strides.len() > 2 {
        put("third.codebook", &[16, 1], &book(2.0 / 4096.0));
    }
    write_model(path, &spec, &tensors, &Provenance::default()).unwrap();
}

/// Samples and rate of an audio file.
pub fn read(path: &Path) -> (Vec<f32>, u32) {
    let mut reader = AudioReader::open(path).unwrap();
    let mut all = Vec::new();
    while let Some(block) = reader.next_block().unwrap() {
        all.extend_from_slice(block);
    }
    (all, reader.info().sample_rate)
}

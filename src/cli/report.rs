use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde::Serialize;

use super::{Failure, Global};

/// What became of one file.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FileReport {
    pub input: PathBuf,
    pub output: PathBuf,
    /// Samples a channel on the model's side.
    pub samples: u64,
    pub seconds: f64,
    pub frames: u64,
    pub codebooks: usize,
    /// Size of the token file.
    pub bytes: u64,
    /// Bits of the token file a second of audio, in thousands.
    pub kbps: f64,
    /// Seconds that it took.
    pub elapsed: f64,
    /// Seconds of audio a second.
    pub speed: f64,
    /// Samples set to full scale because they lay beyond it.
    #[serde(skip_serializing_if = "is_zero")]
    pub clipped: u64,
    /// Samples a channel at the end that no frame stands for.
    #[serde(skip_serializing_if = "is_zero")]
    pub uncoded: u64,
    /// Stretches of the file that were damaged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<Lost>,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// A damaged stretch that silence stands for.
#[derive(Clone, Debug, Serialize)]
pub struct Lost {
    pub first_frame: u64,
    /// `None`: to the end.
    pub frames: Option<u64>,
    /// Samples a channel of silence in its place.
    pub silence: u64,
}

impl FileReport {
    /// Fills in what follows from the rest.
    pub fn complete(mut self, sample_rate: u32, elapsed: f64) -> Self {
        self.seconds = self.samples as f64 / f64::from(sample_rate);
        self.elapsed = elapsed;
        self.speed = self.seconds / elapsed.max(1e-9);
        self.kbps = if self.samples == 0 { 0.0 } else { self.bytes as f64 * 8e-3 / self.seconds };
        self
    }

    /// One line for people.
    pub fn line(&self) -> String {
        format!(
            "{} -> {}: {:.2} s, {} frames of {} codebook(s), {} bytes, {:.2} kbps, {:.1} × real time",
            self.input.display(),
            self.output.display(),
            self.seconds,
            self.frames,
            self.codebooks,
            self.bytes,
            self.kbps,
            self.speed
        )
    }

    /// What the user must hear of although the file succeeded.
    pub fn warnings(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let output = self.output.display();
        if self.uncoded > 0 {
            lines.push(format!(
                "warning: {}: the last {} sample(s) are in no frame: this model drops a partial hop; they decode as silence",
                self.input.display(),
                self.uncoded
            ));
        }
        if self.clipped > 0 {
            let n = self.clipped;
            lines.push(format!(
                "warning: {output}: {n} sample(s) clipped at full scale\nhelp: --sample-format f32 keeps them as they are"
            ));
        }
        for lost in &self.lost {
            let what = match lost.frames {
                Some(n) => format!("{n} frame(s) from frame {} on are damaged", lost.first_frame),
                None => format!("everything from frame {} on is damaged or missing", lost.first_frame),
            };
            let input = self.input.display();
            lines.push(format!("warning: {input}: {what}; {} sample(s) of silence stand for them", lost.silence));
        }
        lines
    }
}

/// What became of all files; printed as JSON.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    pub command: &'static str,
    /// The model's file, and the codec's name.
    pub model: &'a Path,
    pub codec: &'a str,
    /// What computed, if not the engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    pub files: Vec<FileReport>,
    pub skipped: Vec<PathBuf>,
    pub failures: Vec<FileFailure>,
    pub samples: u64,
    pub seconds: f64,
    pub bytes: u64,
    pub elapsed: f64,
    pub speed: f64,
}

/// A file that failed.
#[derive(Debug, Serialize)]
pub struct FileFailure {
    pub input: PathBuf,
    pub error: String,
    pub help: String,
}

impl<'a> Report<'a> {
    pub fn new(command: &'static str, model: &'a Path, codec: &'a str) -> Self {
        Self {
            command,
            model,
            codec,
            device: None,
            files: vec![],
            skipped: vec![],
            failures: vec![],
            samples: 0,
            seconds: 0.0,
            bytes: 0,
            elapsed: 0.0,
            speed: 0.0,
        }
    }

    /// Sums up and prints on standard output as asked; the exit code tells whether a file failed.
    pub fn print(mut self, elapsed: f64, global: &Global, to_stdout: bool) -> Result<ExitCode, Failure> {
        for file in &self.files {
            self.samples += file.samples;
            self.seconds += file.seconds;
            self.bytes += file.bytes;
        }
        self.elapsed = elapsed;
        self.speed = self.seconds / elapsed.max(1e-9);
        if global.json {
            print_json(&self)?;
        } else if !global.quiet && !to_stdout {
            say(&format!("model: {}, {}", self.codec, self.model.display()));
            for file in &self.files {
                say(&file.line());
            }
        }
        for failure in &self.failures {
            eprintln!("error: {}\nhelp: {}", failure.error, failure.help);
        }
        if !self.failures.is_empty() && !global.quiet {
            let (failed, done) = (self.failures.len(), self.files.len() + self.skipped.len());
            eprintln!("{failed} file(s) failed, {done} are done");
        }
        Ok(if self.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// One JSON document on standard output.
pub fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::new(e, "report this"))?;
    say(&text);
    Ok(())
}

/// A line on standard output; that nobody reads it any more is no error.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

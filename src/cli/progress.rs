use std::{
    io::IsTerminal,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use indicatif::{ProgressBar, ProgressStyle};

/// A bar on a terminal's standard error; nothing elsewhere.
pub struct Progress {
    bar: ProgressBar,
    start: Instant,
    /// Milliseconds of audio done.
    audio: AtomicU64,
    /// Whether the bar counts files (else milliseconds of audio).
    files: bool,
}

impl Progress {
    /// For one file of `seconds`, if that is known.
    pub fn of_audio(quiet: bool, seconds: Option<f64>) -> Self {
        let length = seconds.map(|s| (s * 1e3) as u64).filter(|&ms| ms > 0);
        Self::new(quiet, length, false, "{spinner} {wide_bar} {percent}%, {msg}, {eta} left")
    }

    /// For many files.
    pub fn of_files(quiet: bool, files: usize) -> Self {
        Self::new(quiet, Some(files as u64), true, "{spinner} {wide_bar} {pos}/{len} files, {msg}, {eta} left")
    }

    fn new(quiet: bool, length: Option<u64>, files: bool, template: &str) -> Self {
        let bar = if quiet || !std::io::stderr().is_terminal() {
            ProgressBar::hidden()
        } else {
            length.map_or_else(ProgressBar::new_spinner, ProgressBar::new)
        };
        let template = if length.is_some() { template } else { "{spinner} {msg}" };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, start: Instant::now(), audio: AtomicU64::new(0), files }
    }

    /// `seconds` more of audio are done.
    pub fn advance(&self, seconds: f64) {
        let ms = (seconds * 1e3).round() as u64;
        let audio = (self.audio.fetch_add(ms, Ordering::Relaxed) + ms) as f64 / 1e3;
        let speed = audio / self.start.elapsed().as_secs_f64().max(1e-3);
        self.bar.set_message(format!("{audio:.1} s at {speed:.1} × real time"));
        if !self.files {
            self.bar.inc(ms);
        }
    }

    /// One more file is done.
    pub fn file_done(&self) {
        if self.files {
            self.bar.inc(1);
        }
    }

    /// Seconds since the start.
    pub fn elapsed(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Prints a line above the bar.
    pub fn warn(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

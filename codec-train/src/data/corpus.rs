//! The files of a corpus.

use std::{
    collections::{HashMap, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use codec::audio::{Allow, AudioError, AudioReader, Conform};
use walkdir::WalkDir;

use crate::TrainError;

/// What the signal of every file is made to fit.
#[derive(Clone, Copy, Debug)]
pub struct Fit {
    /// Samples a second.
    pub sample_rate: u32,
    /// Channels.
    pub channels: usize,
    /// What may be changed for that.
    pub allow: Allow,
}

/// A file.
#[derive(Clone, Debug, PartialEq)]
pub struct Clip {
    /// The file.
    pub path: PathBuf,
    /// Samples a channel, at the rate that is trained at.
    pub samples: usize,
    /// How often it is taken, relative to its length.
    pub weight: f64,
}

/// Files that are not used, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Files that cannot be read, with the reason.
    pub unreadable: Vec<(PathBuf, String)>,
    /// Files shorter than what is cut out of them.
    pub short: usize,
}

/// Files to cut from, and a memory of what was decoded last.
#[derive(Debug)]
pub struct Corpus {
    clips: Vec<Clip>,
    /// Sums of weight times length, for the choice of a clip.
    sums: Vec<f64>,
    fit: Fit,
    skipped: Skipped,
    noise: Option<Box<Corpus>>,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    signals: HashMap<usize, Arc<Vec<f32>>>,
    order: VecDeque<usize>,
    values: usize,
    limit: usize,
}

impl Corpus {
    /// Lists a folder (all wav and flac files in it, at any depth) or a manifest: lines of a path (relative to the
    /// manifest), a tab, seconds (or nothing), a tab, a weight (or nothing, for 1); lines that start with `#` and a first line
    /// whose first field is `path` are passed over. Only headers are read.
    ///
    /// Files shorter than `segment` samples and files that cannot be read are left out and counted. `cache` is how many
    /// bytes of decoded audio are kept.
    ///
    /// # Errors
    /// A file of another rate or channel count than `fit` has and allows to change; a line of a manifest that cannot be
    /// understood; nothing that can be used.
    pub fn open(path: &Path, fit: Fit, segment: usize, cache: usize) -> Result<Self, TrainError> {
        let listed = if path.is_dir() { folder(path)? } else { manifest(path)? };
        let found = listed.len();
        let (mut clips, mut skipped) = (Vec::new(), Skipped::default());
        for (path, seconds, weight) in listed {
            match length(&path, fit, seconds) {
                Ok(samples) if samples < segment.max(1) => skipped.short += 1,
                Ok(samples) => clips.push(Clip { path, samples, weight }),
                Err(e @ (AudioError::RateMismatch { .. } | AudioError::ChannelMismatch { .. })) => {
                    let how = "convert it, or let the recipe do so (`resample`, `downmix` in [data])";
                    return Err(TrainError::Data { path, reason: format!("{e}: {how}") });
                }
                Err(e) => skipped.unreadable.push((path, e.to_string())),
            }
        }
        if clips.is_empty() {
            let mut reason = format!("none of its {found} files can be trained on");
            if found == 0 {
                reason = "there are no wav or flac files".to_owned();
            }
            if skipped.short > 0 {
                let seconds = segment as f64 / f64::from(fit.sample_rate);
                reason.push_str(&format!("; {} are shorter than {seconds} s", skipped.short));
            }
            if let Some((file, why)) = skipped.unreadable.first() {
                let count = skipped.unreadable.len();
                reason.push_str(&format!("; {count} cannot be read, the first being {}: {why}", file.display()));
            }
            return Err(TrainError::Data { path: path.to_path_buf(), reason });
        }
        let mut sum = 0.0;
        let sums = clips
            .iter()
            .map(|c| {
                sum += c.weight * c.samples as f64;
                sum
            })
            .collect();
        let cache = Mutex::new(Cache { limit: cache / 4, ..Cache::default() });
        Ok(Self { clips, sums, fit, skipped, noise: None, cache })
    }

    /// With files whose sound can be added to the others'.
    #[must_use]
    pub fn with_noise(self, noise: Corpus) -> Self {
        Self { noise: Some(Box::new(noise)), ..self }
    }

    /// The files of noise.
    pub fn noise(&self) -> Option<&Corpus> {
        self.noise.as_deref()
    }

    /// The files, sorted by path.
    pub fn clips(&self) -> &[Clip] {
        &self.clips
    }

    /// What signals are made to fit.
    pub fn fit(&self) -> Fit {
        self.fit
    }

    /// What was left out.
    pub fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// Hours of audio.
    pub fn hours(&self) -> f64 {
        self.clips.iter().map(|c| c.samples as f64).sum::<f64>() / f64::from(self.fit.sample_rate) / 3600.0
    }

    /// The clip at a part (`0.0..1.0`) of all weighted time.
    pub(super) fn at(&self, part: f64) -> usize {
        let total = self.sums.last().copied().unwrap_or(0.0);
        self.sums.partition_point(|sum| *sum <= part * total).min(self.clips.len() - 1)
    }

    /// A clip's signal, interleaved and made to fit.
    ///
    /// # Errors
    /// The file cannot be decoded.
    pub fn signal(&self, clip: usize) -> Result<Arc<Vec<f32>>, AudioError> {
        if let Some(signal) = self.cache.lock().unwrap_or_else(PoisonError::into_inner).signals.get(&clip) {
            return Ok(signal.clone());
        }
        let signal = Arc::new(decode(&self.clips[clip].path, self.fit)?);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.signals.insert(clip, signal.clone()).is_none() {
            cache.order.push_back(clip);
            cache.values += signal.len();
        }
        while cache.values > cache.limit {
            let Some(oldest) = cache.order.pop_front() else { break };
            if let Some(dropped) = cache.signals.remove(&oldest) {
                cache.values -= dropped.len();
            }
        }
        Ok(signal)
    }
}

type Listed = Vec<(PathBuf, Option<f64>, f64)>;

fn folder(path: &Path) -> Result<Listed, TrainError> {
    let mut files = Vec::new();
    for entry in WalkDir::new(path).follow_links(true).sort_by_file_name() {
        let entry = entry.map_err(|e| TrainError::Data { path: path.to_path_buf(), reason: e.to_string() })?;
        let wanted = |e: &std::ffi::OsStr| e.eq_ignore_ascii_case("wav") || e.eq_ignore_ascii_case("flac");
        if entry.file_type().is_file() && entry.path().extension().is_some_and(wanted) {
            files.push((entry.into_path(), None, 1.0));
        }
    }
    Ok(files)
}

fn manifest(path: &Path) -> Result<Listed, TrainError> {
    let text = std::fs::read_to_string(path).map_err(TrainError::io(path))?;
    let base = path.parent().unwrap_or(Path::new("."));
    let mut files = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut fields = line.split('\t').map(str::trim);
        let name = fields.next().unwrap_or_default();
        if name.is_empty() || name.starts_with('#') || (index == 0 && name == "path") {
            continue;
        }
        let mut number = |what: &str| match fields.next() {
            None | Some("") => Ok(None),
            Some(text) => match text.parse::<f64>() {
                Ok(value) if value.is_finite() && value >= 0.0 => Ok(Some(value)),
                _ => {
                    let reason = format!("line {}: `{text}` is not a {what}", index + 1);
                    Err(TrainError::Data { path: path.to_path_buf(), reason })
                }
            },
        };
        let (seconds, weight) = (number("number of seconds")?, number("weight")?);
        if weight == Some(0.0) {
            continue;
        }
        files.push((base.join(name), seconds, weight.unwrap_or(1.0)));
    }
    files.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(files)
}

/// Samples a channel that a file gives, by its header where that promises it.
fn length(path: &Path, fit: Fit, seconds: Option<f64>) -> Result<usize, AudioError> {
    let reader = AudioReader::open(path)?;
    let info = reader.info().clone();
    drop(reader);
    Conform::new((info.sample_rate, info.channels), (fit.sample_rate, fit.channels), fit.allow)?;
    let all = match info.frames {
        Some(frames) if info.exact => {
            (frames as f64 * f64::from(fit.sample_rate) / f64::from(info.sample_rate)).round() as usize
        }
        _ => decode(path, fit)?.len() / fit.channels,
    };
    Ok(seconds.map_or(all, |s| all.min((s * f64::from(fit.sample_rate)) as usize)))
}

fn decode(path: &Path, fit: Fit) -> Result<Vec<f32>, AudioError> {
    let mut reader = AudioReader::open(path)?;
    let from = (reader.info().sample_rate, reader.info().channels);
    let mut conform = Conform::new(from, (fit.sample_rate, fit.channels), fit.allow)?;
    let mut out = Vec::new();
    while let Some(block) = reader.next_block()? {
        conform.push(block, &mut out);
    }
    conform.finish(&mut out);
    Ok(out)
}

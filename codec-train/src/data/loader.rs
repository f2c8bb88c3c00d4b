//! Batches, made in the background.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, sync_channel},
    },
    thread::JoinHandle,
};

use rubato::{Async, FixedAsync, PolynomialDegree, Resampler as _, audioadapter_buffers::direct::InterleavedSlice};

use super::Corpus;
use crate::{TrainError, net::Random};

/// How items are cut out of a corpus.
#[derive(Clone, Debug, PartialEq)]
pub struct Cut {
    /// Items in this process's part of a batch.
    pub items: usize,
    /// Which part that is, and of how many: part `r` of `n` has the items from `r * items` on, of `n * items` in all.
    pub part: (usize, usize),
    /// Samples (a channel) of an item.
    pub samples: usize,
    /// Gain in decibels, uniform between these; less where a sample would pass full scale.
    pub gain_db: [f64; 2],
    /// A cut whose level is below this many decibels of full scale is drawn again, a few times.
    pub silence_db: f64,
    /// Speed, uniform between these: pitch and tempo alike.
    pub speed: [f64; 2],
    /// Noise from the corpus' other files ([`Corpus::with_noise`]).
    pub noise: Option<Noise>,
    /// Seed of all choices.
    pub seed: u64,
}

/// Noise that is added to items.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// Part of the items that get it.
    pub share: f64,
    /// Level of the item over that of its noise in decibels, uniform between these.
    pub snr_db: [f64; 2],
}

/// Samples beyond the end of an item that a resampler may need.
const MORE: usize = 64;

/// Some items, and where they come from.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Its number, from 0.
    pub index: u64,
    /// `[items, channels, samples]`.
    pub data: Vec<f32>,
    /// The file of each item.
    pub files: Vec<PathBuf>,
}

/// How often a silent or unreadable cut is drawn again.
const TRIES: usize = 16;

impl Cut {
    /// Batch `index` of a corpus, or this process's part of it. An item depends on its number among all items alone.
    ///
    /// # Errors
    /// No file could be decoded in many tries.
    pub fn batch(&self, corpus: &Corpus, index: u64) -> Result<Batch, TrainError> {
        let channels = corpus.fit().channels;
        let mut batch = Batch { index, data: Vec::new(), files: Vec::new() };
        for item in 0..self.items {
            let (rank, parts) = self.part;
            let batches = index.wrapping_mul(parts as u64).wrapping_add(rank as u64);
            let number = batches.wrapping_mul(self.items as u64).wrapping_add(item as u64);
            let mut random = Random::new(self.seed, "cut", number);
            let (clip, mut cut) = self.cut(corpus, self.speed_of(number), &mut random)?;
            if let (Some(noise), Some(from)) = (self.noise, corpus.noise()) {
                self.add(noise, from, number, &mut cut)?;
            }
            let [low, high] = self.gain_db;
            let gain = 10_f64.powf((low + (high - low) * random.unit()) / 20.0) as f32;
            let peak = cut.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
            let gain = if peak * gain > 1.0 { (1.0 / peak).max(f32::MIN_POSITIVE) } else { gain };
            if gain != 1.0 {
                cut.iter_mut().for_each(|v| *v *= gain);
            }
            batch.data.extend((0..channels).flat_map(|c| cut.iter().skip(c).step_by(channels)));
            batch.files.push(corpus.clips()[clip].path.clone());
        }
        Ok(batch)
    }

    /// Samples that an item may need of a file.
    pub fn longest(&self) -> usize {
        if self.speed == [1.0; 2] { self.samples } else { self.resampled(self.speed[1]) }
    }

    fn needed(&self, speed: f64) -> usize {
        if speed == 1.0 { self.samples } else { self.resampled(speed) }
    }

    fn resampled(&self, speed: f64) -> usize {
        (self.samples as f64 * speed).ceil() as usize + MORE
    }

    // From random numbers of their own, so that what a cut is does not depend on whether it is changed.
    fn speed_of(&self, number: u64) -> f64 {
        let [low, high] = self.speed;
        low + (high - low) * Random::new(self.seed, "speed", number).unit()
    }

    fn add(&self, noise: Noise, from: &Corpus, number: u64, cut: &mut [f32]) -> Result<(), TrainError> {
        let mut random = Random::new(self.seed, "noise", number);
        if random.unit() >= noise.share {
            return Ok(());
        }
        let [low, high] = noise.snr_db;
        let snr = low + (high - low) * random.unit();
        let (_, sound) = self.cut(from, 1.0, &mut random)?;
        let factor = ((energy(cut) / energy(&sound)).sqrt() * 10_f64.powf(-snr / 20.0)) as f32;
        // Noise that is silent has no level.
        if factor.is_finite() {
            cut.iter_mut().zip(sound).for_each(|(x, n)| *x += factor * n);
        }
        Ok(())
    }

    fn cut(&self, corpus: &Corpus, speed: f64, random: &mut Random) -> Result<(usize, Vec<f32>), TrainError> {
        let channels = corpus.fit().channels;
        let needed = self.needed(speed);
        let mut loudest: Option<(f64, usize, Vec<f32>)> = None;
        let mut last = None;
        for _ in 0..TRIES {
            let clip = corpus.at(random.unit());
            let place = random.unit();
            let signal = match corpus.signal(clip) {
                Ok(signal) => signal,
                Err(e) => {
                    last = Some((clip, e.to_string()));
                    continue;
                }
            };
            let samples = corpus.clips()[clip].samples.min(signal.len() / channels);
            let Some(room) = samples.checked_sub(needed) else {
                last = Some((clip, format!("it has {samples} samples, fewer than its header says")));
                continue;
            };
            let start = (place * (room + 1) as f64) as usize * channels;
            let cut = &signal[start..start + needed * channels];
            let power = energy(cut) / cut.len() as f64;
            if loudest.as_ref().is_none_or(|(most, ..)| power > *most) {
                loudest = Some((power, clip, cut.to_vec()));
            }
            if 10.0 * power.log10() >= self.silence_db {
                break;
            }
        }
        match (loudest, last) {
            (Some((_, clip, cut)), _) => Ok((clip, self.at_speed(cut, corpus, clip, speed)?)),
            (None, last) => {
                let (clip, reason) = last.unwrap_or_default();
                let reason = format!("{reason}; {TRIES} files one after the other could not be used");
                Err(TrainError::Data { path: corpus.clips()[clip].path.clone(), reason })
            }
        }
    }

    fn at_speed(&self, cut: Vec<f32>, corpus: &Corpus, clip: usize, speed: f64) -> Result<Vec<f32>, TrainError> {
        if speed == 1.0 {
            return Ok(cut);
        }
        // A polynomial through eight neighbours: what would be heard of it does not matter here, and its time does.
        let channels = corpus.fit().channels;
        let frames = cut.len() / channels;
        let failed = |reason: String| TrainError::Data {
            path: corpus.clips()[clip].path.clone(),
            reason: format!("speed: {reason}"),
        };
        let degree = PolynomialDegree::Septic;
        let resampler = Async::<f32>::new_poly(1.0 / speed, 1.0, degree, frames, channels, FixedAsync::Input);
        let mut resampler = resampler.map_err(|e| failed(e.to_string()))?;
        let room = resampler.output_frames_max();
        let mut out = vec![0.0; room * channels];
        let input = InterleavedSlice::new(&cut, channels, frames).map_err(|e| failed(e.to_string()))?;
        let mut output = InterleavedSlice::new_mut(&mut out, channels, room).map_err(|e| failed(e.to_string()))?;
        resampler.process_into_buffer(&input, &mut output, None).map_err(|e| failed(e.to_string()))?;
        // Before the first sample it knows only silence.
        out.drain(..resampler.output_delay() * channels);
        out.resize(self.samples * channels, 0.0);
        Ok(out)
    }
}

fn energy(x: &[f32]) -> f64 {
    x.iter().map(|v| f64::from(*v) * f64::from(*v)).sum()
}

/// Makes batches in background threads and hands them out in order.
pub struct Loader {
    batches: Receiver<Result<Batch, TrainError>>,
    waiting: BTreeMap<u64, Batch>,
    next: u64,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Loader {
    /// Starts `threads` threads at batch `first`.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn start(corpus: Arc<Corpus>, cut: Cut, first: u64, threads: usize) -> Result<Self, TrainError> {
        let threads = threads.clamp(1, 64);
        // A few batches ahead are enough for the trainer never to wait, and few enough for memory.
        let (send, batches) = sync_channel(threads + 1);
        let stop = Arc::new(AtomicBool::new(false));
        let next = Arc::new(AtomicU64::new(first));
        let run = |number: usize| {
            let (corpus, cut, send, stop, next) =
                (corpus.clone(), cut.clone(), send.clone(), stop.clone(), next.clone());
            let work = move || {
                while !stop.load(Ordering::Relaxed) {
                    let batch = cut.batch(&corpus, next.fetch_add(1, Ordering::Relaxed));
                    let failed = batch.is_err();
                    if send.send(batch).is_err() || failed {
                        break;
                    }
                }
            };
            std::thread::Builder::new().name(format!("data-{number}")).spawn(work)
        };
        let threads = (0..threads).map(run).collect::<Result<_, _>>();
        let threads = threads.map_err(TrainError::io(std::path::Path::new("a thread")))?;
        Ok(Self { batches, waiting: BTreeMap::new(), next: first, stop, threads })
    }

    /// The next batch, in order.
    ///
    /// # Errors
    /// That of [`Cut::batch`].
    pub fn take(&mut self) -> Result<Batch, TrainError> {
        loop {
            if let Some(batch) = self.waiting.remove(&self.next) {
                self.next += 1;
                return Ok(batch);
            }
            match self.batches.recv() {
                Ok(batch) => {
                    let batch = batch?;
                    self.waiting.insert(batch.index, batch);
                }
                Err(_) => {
                    let reason = "the threads that read audio have ended".to_owned();
                    return Err(TrainError::Data { path: PathBuf::new(), reason });
                }
            }
        }
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Threads that wait to send get room, see the sign and end.
        while self.threads.iter().any(|t| !t.is_finished()) {
            let _ = self.batches.recv_timeout(std::time::Duration::from_millis(10));
        }
        self.threads.drain(..).for_each(|t| drop(t.join()));
    }
}

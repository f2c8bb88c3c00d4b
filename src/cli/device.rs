//! Coding on a device: files that are worked on at the same time are computed as one batch.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::ExitCode,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use codec::{
    Codes, Error, Model, Options, Segment,
    core::{
        RunError,
        pipeline::{Crossfade, Segmented, Window, Windowed, normalize},
        spec::Framing,
    },
};

use super::{Failure, train};

/// Segments or windows of one signal that are gathered before they are computed.
const GATHERED: usize = 32;

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Device")]
pub struct DeviceArgs {
    /// Where to compute: cpu (the engine), gpu or gpu:N (Vulkan, Metal, DirectX), cuda or cuda:N. All but cpu start
    /// `codec-train`, as it was built
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    pub device: String,
    /// Files that a device works on at the same time
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1024))]
    pub batch: usize,
}

/// Which half of a model a device is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Samples to codes.
    Encoder,
    /// Codes to samples.
    Decoder,
}

/// Opens a device by its name for one half of a model that was loaded from a path.
pub type Open<'a> = dyn for<'m> Fn(&str, Half, &'m Path, &'m Model) -> Result<Box<dyn Coder + 'm>, Failure> + Sync + 'a;

/// Computes in place of the engine. Signals are whole: segments and windows ([`Framing`]) are signals of their own here.
pub trait Coder: Send + Sync {
    /// What computes, for people: an adapter's name and how it is reached.
    fn device(&self) -> &str;

    /// Codes, frame-major, of `options.codebooks` codes a frame from `options.first_codebook` on, of each of some
    /// signals, interleaved. A signal has the codes that it has alone.
    fn encode(&self, signals: &[Vec<f32>], options: &Options) -> Vec<Result<Vec<u16>, Error>>;

    /// Samples, interleaved, of each of some signals' codes.
    fn decode(&self, signals: &[Coded], options: &Options) -> Vec<Result<Vec<f32>, Error>>;
}

/// Codes of a signal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coded {
    /// Which of the model's codes of a frame is the first.
    pub first: usize,
    /// Codes a frame.
    pub codebooks: usize,
    /// Frame-major.
    pub data: Vec<u16>,
}

impl DeviceArgs {
    /// Starts the program that has devices, if this one has none and one is asked for.
    pub fn elsewhere(&self, command: &str, open: Option<&Open<'_>>) -> Option<Result<ExitCode, Failure>> {
        (self.device != "cpu" && open.is_none()).then(|| train::hand_over(command, &self.device))
    }

    /// Opens the device, if one is asked for, and says which it is.
    pub fn open<'m>(
        &self,
        open: Option<&Open<'_>>,
        half: Half,
        path: &'m Path,
        model: &'m Model,
        quiet: bool,
    ) -> Result<Option<Device<'m>>, Failure> {
        let Some(open) = open.filter(|_| self.device != "cpu") else { return Ok(None) };
        let coder = open(&self.device, half, path, model)?;
        if !quiet {
            eprintln!("device {}: {}", self.device, coder.device());
        }
        Ok(Some(Device { model, half, encode: Batcher::new(self.batch), decode: Batcher::new(self.batch), coder }))
    }
}

/// An opened device, shared by the files that are worked on.
pub struct Device<'m> {
    model: &'m Model,
    half: Half,
    coder: Box<dyn Coder + 'm>,
    encode: Batcher<Vec<f32>, Vec<u16>>,
    decode: Batcher<Coded, Vec<f32>>,
}

impl<'m> Device<'m> {
    pub fn name(&self) -> &str {
        self.coder.device()
    }

    /// Runs `work`, whose encoders or decoders wait for what this computes meanwhile: all on one thread, for devices keep
    /// memory for each.
    pub fn serving<R>(device: Option<&Self>, options: &Options, work: impl FnOnce() -> R) -> R {
        let Some(device) = device else { return work() };
        std::thread::scope(|scope| {
            scope.spawn(|| match device.half {
                Half::Encoder => device.encode.serve(|signals| device.coder.encode(signals, options)),
                Half::Decoder => device.decode.serve(|signals| device.coder.decode(signals, options)),
            });
            let _close = Close(device);
            work()
        })
    }

    /// An encoder for one signal on the device, or on the engine where there is none.
    pub fn encoder<'a>(
        device: Option<&'a Self>,
        model: &'a Model,
        options: &'a Options,
    ) -> Result<Encoder<'a, 'm>, Error> {
        Ok(match device {
            None => Encoder::Engine(Box::new(model.encoder(options)?)),
            Some(device) => Encoder::Device(Gathered::new(device, options, &device.encode)?),
        })
    }

    /// As [`Device::encoder`], a decoder.
    pub fn decoder<'a>(
        device: Option<&'a Self>,
        model: &'a Model,
        options: &'a Options,
    ) -> Result<Decoder<'a, 'm>, Error> {
        Ok(match device {
            None => Decoder::Engine(model.decoder(options)?),
            Some(device) => Decoder::Device(Restored::new(device, options)?),
        })
    }
}

/// Ends the serving, however the work ends.
struct Close<'a, 'm>(&'a Device<'m>);

impl Drop for Close<'_, '_> {
    fn drop(&mut self) {
        self.0.encode.close();
        self.0.decode.close();
    }
}

/// An encoder, wherever it computes; used as [`codec::Encoder`] is.
pub enum Encoder<'a, 'm> {
    Engine(Box<codec::Encoder<'a>>),
    Device(Gathered<'a, 'm>),
}

impl Encoder<'_, '_> {
    pub fn codebooks(&self) -> usize {
        match self {
            Self::Engine(e) => e.codebooks(),
            Self::Device(d) => d.codebooks,
        }
    }

    pub fn push(&mut self, pcm: &[f32], out: &mut Codes) -> Result<(), Error> {
        match self {
            Self::Engine(e) => e.push(pcm, out),
            Self::Device(d) => d.feed(pcm, false, out),
        }
    }

    pub fn finish(&mut self, out: &mut Codes) -> Result<(), Error> {
        match self {
            Self::Engine(e) => e.finish(out),
            Self::Device(d) => d.feed(&[], true, out),
        }
    }

    pub fn uncoded_samples(&self) -> u64 {
        match self {
            Self::Engine(e) => e.uncoded_samples(),
            Self::Device(d) => d.samples.saturating_sub(d.frames * u64::from(d.device.model.spec().hop)),
        }
    }
}

/// How a signal is cut before it is computed.
enum Cut {
    Whole(Vec<f32>),
    Segments(Segmented, bool),
    Windows(Windowed),
}

/// Gathers a signal for a device.
pub struct Gathered<'a, 'm> {
    device: &'a Device<'m>,
    options: &'a Options,
    codebooks: usize,
    seat: Seat<'a, Vec<f32>, Vec<u16>>,
    cut: Cut,
    /// Parts to compute, with the scale of a segment and the place of a window.
    parts: Vec<(Vec<f32>, f32, Option<Window>)>,
    samples: u64,
    frames: u64,
}

impl<'a, 'm> Gathered<'a, 'm> {
    fn new(
        device: &'a Device<'m>,
        options: &'a Options,
        batcher: &'a Batcher<Vec<f32>, Vec<u16>>,
    ) -> Result<Self, Error> {
        let spec = device.model.spec();
        let channels = spec.channels as usize;
        let cut = match spec.framing {
            Framing::Stream => Cut::Whole(Vec::new()),
            Framing::Segments { length, stride, normalize } => {
                Cut::Segments(Segmented::new(channels, length as usize, stride as usize), normalize)
            }
            Framing::Windows { length, stride } => {
                Cut::Windows(Windowed::new(channels, spec.hop as usize, length as usize, stride as usize))
            }
        };
        let all = device.model.quantizer()?.codebooks().saturating_sub(options.first_codebook);
        Ok(Self {
            device,
            options,
            codebooks: options.codebooks.unwrap_or(all),
            seat: batcher.seat(),
            cut,
            parts: Vec::new(),
            samples: 0,
            frames: 0,
        })
    }

    fn feed(&mut self, pcm: &[f32], finish: bool, out: &mut Codes) -> Result<(), Error> {
        let channels = self.device.model.spec().channels as usize;
        if let Some(index) = pcm.iter().position(|v| !v.is_finite()) {
            return Err(RunError::NotFinite { index: index + self.samples as usize * channels }.into());
        }
        self.samples += (pcm.len() / channels.max(1)) as u64;
        let parts = &mut self.parts;
        match &mut self.cut {
            Cut::Whole(whole) => {
                let values = whole.len() + pcm.len();
                within(self.device.model, self.options, values * 4, values / channels.max(1))?;
                whole.extend_from_slice(pcm);
                if finish {
                    parts.push((std::mem::take(whole), 1.0, None));
                }
            }
            Cut::Segments(splitter, loud) => {
                let loud = *loud;
                let mut each = |segment: &[f32]| -> Result<(), Error> {
                    let mut segment = segment.to_vec();
                    let scale = if loud { normalize(&mut segment, channels) } else { 1.0 };
                    parts.push((segment, scale, None));
                    Ok(())
                };
                splitter.push(pcm, &mut each)?;
                if finish {
                    splitter.finish(&mut each)?;
                }
            }
            Cut::Windows(windows) => {
                let mut each = |pcm: &[f32], window| -> Result<(), Error> {
                    parts.push((pcm.to_vec(), 1.0, Some(window)));
                    Ok(())
                };
                windows.push(pcm, &mut each)?;
                if finish {
                    windows.finish(&mut each)?;
                }
            }
        }
        if !(finish || self.parts.len() >= GATHERED) {
            return Ok(());
        }
        out.codebooks = self.codebooks;
        let (signals, places): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.parts).into_iter().map(|(pcm, scale, window)| (pcm, (scale, window))).unzip();
        let segmented = matches!(self.cut, Cut::Segments(..));
        let before = out.frames();
        for (codes, (scale, window)) in self.seat.submit(signals).into_iter().zip(places) {
            let codes = codes?;
            let frames = codes.len() / self.codebooks.max(1);
            if segmented {
                out.segments.push(Segment { frames, scale });
            }
            let Window { skip, frames: most } = window.unwrap_or(Window { skip: 0, frames: None });
            let given = codes.chunks_exact(self.codebooks).skip(skip).take(most.unwrap_or(usize::MAX));
            given.for_each(|frame| out.data.extend_from_slice(frame));
        }
        self.frames += (out.frames() - before) as u64;
        Ok(())
    }
}

/// A decoder, wherever it computes; used as [`codec::Decoder`] is.
pub enum Decoder<'a, 'm> {
    Engine(codec::Decoder<'a>),
    Device(Restored<'a, 'm>),
}

impl Decoder<'_, '_> {
    pub fn push(&mut self, codes: &Codes, out: &mut Vec<f32>) -> Result<(), Error> {
        match self {
            Self::Engine(d) => d.push(codes, out),
            Self::Device(d) => d.feed(codes, false, out),
        }
    }

    pub fn finish(&mut self, out: &mut Vec<f32>) -> Result<(), Error> {
        match self {
            Self::Engine(d) => d.finish(out),
            Self::Device(d) => d.feed(&Codes::new(d.codebooks), true, out),
        }
    }

    pub fn reset(&mut self) {
        match self {
            Self::Engine(d) => d.reset(),
            Self::Device(d) => d.reset(),
        }
    }
}

/// Gathers codes for a device and joins what it decodes.
pub struct Restored<'a, 'm> {
    device: &'a Device<'m>,
    options: &'a Options,
    codebooks: usize,
    seat: Seat<'a, Coded, Vec<f32>>,
    crossfade: Option<Crossfade>,
    /// Frames of a segment at most.
    most: usize,
    whole: Vec<u16>,
    segments: Vec<(Coded, f32)>,
}

impl<'a, 'm> Restored<'a, 'm> {
    fn new(device: &'a Device<'m>, options: &'a Options) -> Result<Self, Error> {
        // Whatever is wrong with the options is the same as on the engine.
        let codebooks = device.model.decoder(options)?.codebooks();
        let spec = device.model.spec();
        let (crossfade, most) = match spec.framing {
            Framing::Segments { length, stride, .. } => {
                let crossfade = Crossfade::new(spec.channels as usize, stride as usize);
                (Some(crossfade), length.div_ceil(spec.hop.max(1)) as usize)
            }
            Framing::Stream | Framing::Windows { .. } => (None, 0),
        };
        let seat = device.decode.seat();
        Ok(Self { device, options, codebooks, seat, crossfade, most, whole: Vec::new(), segments: Vec::new() })
    }

    fn reset(&mut self) {
        self.whole.clear();
        self.segments.clear();
        if let Some(crossfade) = &mut self.crossfade {
            crossfade.finish(&mut Vec::new());
        }
    }

    fn feed(&mut self, codes: &Codes, finish: bool, out: &mut Vec<f32>) -> Result<(), Error> {
        let (first, codebooks) = (self.options.first_codebook, self.codebooks);
        let coded = |data| Coded { first, codebooks, data };
        let Some(crossfade) = &mut self.crossfade else {
            if !codes.segments.is_empty() {
                return Err(Error::Segments { segments: codes.segments.len() });
            }
            self.whole.extend_from_slice(&codes.data);
            let spec = self.device.model.spec();
            let samples = (self.whole.len() / self.codebooks.max(1)).saturating_mul(spec.hop as usize);
            within(self.device.model, self.options, samples.saturating_mul(4 * spec.channels as usize), samples)?;
            if finish {
                for pcm in self.seat.submit(vec![coded(std::mem::take(&mut self.whole))]) {
                    out.extend(pcm?);
                }
            }
            return Ok(());
        };
        let mut rest = &codes.data[..];
        for segment in &codes.segments {
            let len = segment.frames.saturating_mul(self.codebooks);
            if segment.frames > self.most || len > rest.len() || !segment.scale.is_finite() {
                return Err(Error::Segment {
                    frames: segment.frames,
                    scale: segment.scale,
                    most: self.most,
                    given: rest.len() / self.codebooks.max(1),
                });
            }
            let (now, later) = rest.split_at(len);
            rest = later;
            self.segments.push((coded(now.to_vec()), segment.scale));
        }
        if !rest.is_empty() {
            return Err(Error::NoSegment { frames: rest.len() / self.codebooks.max(1) });
        }
        if finish || self.segments.len() >= GATHERED {
            let (parts, scales): (Vec<_>, Vec<_>) = std::mem::take(&mut self.segments).into_iter().unzip();
            for (pcm, scale) in self.seat.submit(parts).into_iter().zip(scales) {
                crossfade.push(&pcm?, scale, out);
            }
        }
        if finish {
            crossfade.finish(out);
        }
        Ok(())
    }
}

/// Fails where a signal that is gathered takes more memory than allowed.
fn within(model: &Model, options: &Options, bytes: usize, samples: usize) -> Result<(), Error> {
    // Beside the signal itself there is what is computed of it.
    let needed = (bytes as u64).saturating_mul(3);
    if needed <= options.max_memory {
        return Ok(());
    }
    Err(Error::Memory {
        model: model.spec().name.clone(),
        reason: "on a device signals are gathered".into(),
        seconds: samples as f64 / f64::from(model.spec().sample_rate),
        needed: needed >> 20,
        allowed: options.max_memory >> 20,
    })
}

/// Puts together what several threads wait for: a batch is computed when all signals that are open wait, or enough of them.
struct Batcher<I, O> {
    state: Mutex<State<I, O>>,
    changed: Condvar,
    most: usize,
}

struct State<I, O> {
    /// Signals that will want something.
    open: usize,
    /// What is wanted, by the numbers of seat and item.
    queue: BTreeMap<(u64, usize), I>,
    done: BTreeMap<(u64, usize), Result<O, Error>>,
    next: u64,
    closed: bool,
}

/// A signal's place at a [`Batcher`], given up when dropped.
struct Seat<'a, I, O> {
    batcher: &'a Batcher<I, O>,
    number: u64,
}

impl<I, O> Batcher<I, O> {
    fn new(most: usize) -> Self {
        let state = State { open: 0, queue: BTreeMap::new(), done: BTreeMap::new(), next: 0, closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), most: most.max(1) }
    }

    fn lock(&self) -> MutexGuard<'_, State<I, O>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<I, O>>) -> MutexGuard<'a, State<I, O>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn seat(&self) -> Seat<'_, I, O> {
        let mut state = self.lock();
        state.open += 1;
        state.next += 1;
        Seat { batcher: self, number: state.next }
    }

    /// Computes batches by `work` until it is closed. Each that waits gets an answer, even if `work` panics.
    fn serve(&self, work: impl Fn(&[I]) -> Vec<Result<O, Error>>) {
        loop {
            let mut state = self.lock();
            loop {
                let mut waiting: Vec<u64> = state.queue.keys().map(|(seat, _)| *seat).collect();
                waiting.dedup();
                if !waiting.is_empty() && waiting.len() >= state.open.min(self.most) {
                    break;
                }
                if state.closed {
                    return;
                }
                state = self.wait(state);
            }
            let (places, batch): (Vec<_>, Vec<_>) = std::mem::take(&mut state.queue).into_iter().unzip();
            drop(state);
            let results = catch_unwind(AssertUnwindSafe(|| work(&batch))).unwrap_or_default();
            let none = || Error::Device { device: "the device".into(), reason: "it gave no result".into() };
            let results = results.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
            let results = places.into_iter().zip(results.map(|r| r.unwrap_or_else(|| Err(none()))));
            self.lock().done.extend(results);
            self.changed.notify_all();
        }
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }
}

impl<I, O> Drop for Seat<'_, I, O> {
    fn drop(&mut self) {
        self.batcher.lock().open -= 1;
        self.batcher.changed.notify_all();
    }
}

impl<I, O> Seat<'_, I, O> {
    /// What is made of `items`.
    fn submit(&self, items: Vec<I>) -> Vec<Result<O, Error>> {
        let count = items.len();
        let mut state = self.batcher.lock();
        state.queue.extend(items.into_iter().enumerate().map(|(i, item)| ((self.number, i), item)));
        self.batcher.changed.notify_all();
        loop {
            let own = (self.number, 0)..=(self.number, usize::MAX);
            if state.done.range(own).count() == count {
                return (0..count).filter_map(|i| state.done.remove(&(self.number, i))).collect();
            }
            state = self.batcher.wait(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(n: &Result<usize, Error>) -> usize {
        *n.as_ref().unwrap()
    }

    /// Runs a function for each of some seats that are taken before, while `work` serves.
    fn served(
        seats: usize,
        work: impl Fn(&[usize]) -> Vec<Result<usize, Error>> + Sync,
        each: impl Fn(usize, Seat<'_, usize, usize>) + Sync,
    ) {
        let batcher = Batcher::new(8);
        let seats: Vec<_> = (0..seats).map(|_| batcher.seat()).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| batcher.serve(&work));
            std::thread::scope(|scope| {
                for (i, seat) in seats.into_iter().enumerate() {
                    let each = &each;
                    scope.spawn(move || each(i, seat));
                }
            });
            batcher.close();
        });
    }

    #[test]
    fn signals_that_wait_are_one_batch() {
        let sizes = Mutex::new(Vec::new());
        let work = |items: &[usize]| {
            sizes.lock().unwrap().push(items.len());
            items.iter().map(|n| Ok(n * 10)).collect()
        };
        served(4, work, |i, seat| {
            let got = seat.submit(vec![i, i + 100]);
            assert_eq!((number(&got[0]), number(&got[1])), (i * 10, i * 10 + 1000));
        });
        assert_eq!(*sizes.lock().unwrap(), [8]);
    }

    #[test]
    fn a_signal_that_gives_up_does_not_hold_the_others() {
        let work = |items: &[usize]| items.iter().map(|n| Ok(n + 1)).collect();
        served(3, work, |i, seat| {
            if i > 0 {
                assert_eq!(number(&seat.submit(vec![i])[0]), i + 1);
                assert_eq!(number(&seat.submit(vec![7])[0]), 8);
            }
        });
    }

    #[test]
    fn a_batch_that_panics_or_is_too_short_leaves_errors() {
        let work = |items: &[usize]| match items {
            [5, ..] => panic!("a device"),
            _ => vec![Ok(1)],
        };
        served(1, work, |_, seat| {
            assert!(seat.submit(vec![5])[0].is_err());
            let got = seat.submit(vec![1, 2]);
            assert!(got[0].is_ok() && got[1].is_err());
        });
    }
}

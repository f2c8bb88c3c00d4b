//! Overlapping segments ([`crate::spec::Framing::Segments`]): cutting, loudness, cross-fade; and overlapping windows of an
//! encoder ([`crate::spec::Framing::Windows`]).

use alloc::vec::Vec;

/// Cuts a signal into segments of `length` samples that start every `stride` samples.
#[derive(Clone, Debug)]
pub struct Segmented {
    channels: usize,
    length: usize,
    stride: usize,
    /// Interleaved samples from the start of the next segment on.
    pending: Vec<f32>,
    /// Samples (a channel) of the next segment's start that are still to come, where segments leave gaps.
    gap: usize,
}

impl Segmented {
    /// For interleaved signals of `channels` channels; `stride` is at least 1.
    pub fn new(channels: usize, length: usize, stride: usize) -> Self {
        Self { channels, length, stride: stride.max(1), pending: Vec::new(), gap: 0 }
    }

    /// Samples (a channel) of a segment, at most.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Segments that the next `samples` samples (a channel), or the end of the signal, can make whole, at most.
    pub fn max_segments(&self, samples: usize) -> usize {
        (self.pending.len() / self.channels.max(1)).saturating_add(samples).div_ceil(self.stride)
    }

    /// Adds samples and calls `each` with every segment that is whole now.
    ///
    /// # Errors
    /// Those of `each`.
    pub fn push<E>(&mut self, mut pcm: &[f32], mut each: impl FnMut(&[f32]) -> Result<(), E>) -> Result<(), E> {
        let full = self.length.saturating_mul(self.channels);
        loop {
            let skip = (self.gap * self.channels).min(pcm.len());
            self.gap -= skip / self.channels;
            let (_, rest) = pcm.split_at(skip);
            let (now, rest) = rest.split_at(rest.len().min(full.saturating_sub(self.pending.len())));
            self.pending.extend_from_slice(now);
            pcm = rest;
            // A whole segment may still be followed by nothing: the next one exists only if samples lie past its start.
            if self.pending.len() < full {
                return Ok(());
            }
            each(&self.pending)?;
            self.advance();
            if pcm.is_empty() {
                return Ok(());
            }
        }
    }

    fn advance(&mut self) {
        let step = self.stride.saturating_mul(self.channels);
        self.gap = step.saturating_sub(self.pending.len()) / self.channels;
        self.pending.drain(..step.min(self.pending.len()));
    }

    /// Ends the signal: the segments that start before its end, however short.
    ///
    /// # Errors
    /// Those of `each`.
    pub fn finish<E>(&mut self, mut each: impl FnMut(&[f32]) -> Result<(), E>) -> Result<(), E> {
        while !self.pending.is_empty() {
            each(&self.pending)?;
            self.advance();
        }
        self.gap = 0;
        Ok(())
    }

    /// Forgets the signal.
    pub fn reset(&mut self) {
        self.pending.clear();
        self.gap = 0;
    }
}

/// Cuts a signal into windows ([`crate::spec::Framing::Windows`]).
#[derive(Clone, Debug)]
pub struct Windowed {
    /// Values of a window, of a step between two, and of a frame.
    length: usize,
    stride: usize,
    hop: usize,
    channels: usize,
    /// Interleaved samples from the start of the next window on.
    pending: Vec<f32>,
    /// Whether a window was given out.
    begun: bool,
}

/// A window's place in its signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Frames at the start that belong to the window before.
    pub skip: usize,
    /// Frames that belong to this window, at most; `None` for all to the end of the signal.
    pub frames: Option<usize>,
}

impl Windowed {
    /// For interleaved signals of `channels` channels; lengths in samples, as in a spec that was checked.
    pub fn new(channels: usize, hop: usize, length: usize, stride: usize) -> Self {
        let values = |samples: usize| samples.saturating_mul(channels).max(1);
        let stride = values(stride);
        let length = values(length).max(stride);
        Self { length, stride, hop: values(hop), channels: channels.max(1), pending: Vec::new(), begun: false }
    }

    /// Adds samples and calls `each` with every window that is whole and not the last.
    ///
    /// # Errors
    /// Those of `each`.
    pub fn push<E>(&mut self, mut pcm: &[f32], mut each: impl FnMut(&[f32], Window) -> Result<(), E>) -> Result<(), E> {
        loop {
            let (now, rest) = pcm.split_at(pcm.len().min(self.length.saturating_sub(self.pending.len())));
            self.pending.extend_from_slice(now);
            pcm = rest;
            // A window that is full may still be the last, which keeps its end.
            if pcm.is_empty() {
                return Ok(());
            }
            each(&self.pending, self.window(false))?;
            self.pending.drain(..self.stride);
            self.begun = true;
        }
    }

    /// Ends the signal with its last window.
    ///
    /// # Errors
    /// Those of `each`.
    pub fn finish<E>(&mut self, mut each: impl FnMut(&[f32], Window) -> Result<(), E>) -> Result<(), E> {
        let done = each(&self.pending, self.window(true));
        self.reset();
        done
    }

    /// Samples (a channel) of a window.
    pub fn length(&self) -> usize {
        self.length / self.channels
    }

    /// Windows that the next `samples` samples (a channel) and the end of the signal can complete, at most.
    pub fn max_windows(&self, samples: usize) -> usize {
        let values = self.pending.len().saturating_add(samples.saturating_mul(self.channels));
        values / self.stride + 1
    }

    fn window(&self, last: bool) -> Window {
        let half = (self.length - self.stride) / 2 / self.hop;
        let skip = if self.begun { half } else { 0 };
        Window { skip, frames: (!last).then_some((self.length / self.hop).saturating_sub(skip + half)) }
    }

    /// Forgets the signal.
    pub fn reset(&mut self) {
        self.pending.clear();
        self.begun = false;
    }
}

/// Divides a segment by its loudness, `1e-8 +` root mean square of the channels' mean, and returns that.
pub fn normalize(segment: &mut [f32], channels: usize) -> f32 {
    let rows = segment.len() / channels.max(1);
    let power: f64 = segment
        .chunks_exact(channels.max(1))
        .map(|row| {
            let mono = row.iter().map(|&v| f64::from(v)).sum::<f64>() / channels as f64;
            mono * mono
        })
        .sum();
    let scale = (1e-8 + libm::sqrt(power / rows.max(1) as f64)) as f32;
    for v in segment {
        *v /= scale;
    }
    scale
}

/// Joins decoded segments by a triangular cross-fade whose shape follows the first segment's length
/// (EnCodec's `_linear_overlap_add`).
#[derive(Clone, Debug)]
pub struct Crossfade {
    channels: usize,
    stride: usize,
    /// Length of the first segment.
    first: Option<usize>,
    /// Weighted samples that later segments may still add to, and the sums of the weights.
    sum: Vec<f32>,
    weight: Vec<f32>,
}

impl Crossfade {
    /// For interleaved segments of `channels` channels that start every `stride` samples.
    pub fn new(channels: usize, stride: usize) -> Self {
        Self { channels, stride: stride.max(1), first: None, sum: Vec::new(), weight: Vec::new() }
    }

    /// Adds the next segment, multiplied by `scale`, and appends to `out` what no later one reaches.
    pub fn push(&mut self, segment: &[f32], scale: f32, out: &mut Vec<f32>) {
        if self.first.is_some() {
            self.emit(self.stride, out);
        }
        let rows = segment.len() / self.channels;
        let first = *self.first.get_or_insert(rows);
        if self.weight.len() < rows {
            self.weight.resize(rows, 0.0);
            self.sum.resize(rows * self.channels, 0.0);
        }
        let sums = self.sum.chunks_exact_mut(self.channels).zip(&mut self.weight);
        for (i, (row, (sum, weight))) in segment.chunks_exact(self.channels).zip(sums).enumerate() {
            let w = 0.5 - libm::fabsf((i + 1) as f32 / (first + 1) as f32 - 0.5);
            *weight += w;
            for (s, v) in sum.iter_mut().zip(row) {
                *s += w * (v * scale);
            }
        }
    }

    /// Ends the signal.
    pub fn finish(&mut self, out: &mut Vec<f32>) {
        self.emit(usize::MAX, out);
        self.first = None;
    }

    fn emit(&mut self, rows: usize, out: &mut Vec<f32>) {
        let rows = rows.min(self.weight.len());
        for (row, w) in self.sum.chunks_exact(self.channels).zip(&self.weight).take(rows) {
            out.extend(row.iter().map(|v| if *w > 0.0 { v / w } else { 0.0 }));
        }
        self.sum.drain(..rows * self.channels);
        self.weight.drain(..rows);
    }
}

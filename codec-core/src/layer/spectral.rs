//! Between samples and spectra: the short-time Fourier transform, its inverse, and the log-mel spectrogram.

use serde::{Deserialize, Serialize};

use super::{Memory, Slot, Step, View, Weight, Window};
use crate::{
    RunError,
    kernel::{self, Epilogue, Out, Panels, Pointwise, RealFft, Rows, Start},
};

/// Frames that are multiplied by the mel filters at once.
const BLOCK: usize = 16;

/// The power of a spectrum below which a mel band counts as silent, and how far below the loudest one is cut off, in
/// tens of decibels.
const SILENCE: f32 = 1e-10;
const RANGE: f32 = 8.0;

/// The greatest magnitude that a head may ask for (Vocos, section 3.3).
const LOUDEST: f32 = 100.0;

const SHORT: RunError = RunError::Internal("a Fourier transform's slices are too short");

/// A planned inverse transform. State: the sums of windowed frames, and of squared windows, that reach past the last
/// frame, `n_fft - hop` each.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct IstftLayer {
    pub src: usize,
    pub dst: usize,
    /// Room for a spectrum, a frame, and a transform.
    pub tmp: usize,
    pub n_fft: usize,
    pub hop: usize,
    pub table: Slot,
    pub window: Slot,
}

impl IstftLayer {
    pub(crate) fn tmp_len(&self) -> usize {
        2 * self.n_fft + 2 + RealFft::scratch_len(self.n_fft)
    }

    /// Rows by which frames overlap.
    pub(crate) fn overlap(&self) -> usize {
        self.n_fft - self.hop
    }

    /// Rows cut off at either end.
    pub(crate) fn cut(&self) -> usize {
        self.overlap() / 2
    }

    pub(crate) fn step(&self, s: Step<'_>, mem: &mut Memory<'_>) -> Result<(), RunError> {
        let at = mem.view(self.src);
        let (src, dst, tmp) = (mem.room(self.src)?, mem.room(self.dst)?, mem.room(self.tmp)?);
        let [x, y, t] = mem
            .scratch
            .get_disjoint_mut([src.base..src.end(), dst.data()..dst.end(), tmp.data()..tmp.end()])
            .map_err(|_| RunError::Internal("buffers overlap"))?;
        let (n, hop) = (self.n_fft, self.hop);
        let fft = RealFft::new(n, self.table.of(s.arena)?).ok_or(SHORT)?;
        let window = self.window.of(s.arena)?;
        let (spectrum, rest) = t.split_at_mut_checked(n + 2).ok_or(SHORT)?;
        let (frame, scratch) = rest.split_at_mut_checked(n).ok_or(SHORT)?;
        let (sum, weight) = s.state.split_at_mut_checked(self.overlap()).ok_or(SHORT)?;
        let from = src.offset(at.start)?;
        let frames = x.get(from..from + at.rows * (n + 2)).ok_or(SHORT)?;
        let out = y.get_mut(..at.rows * hop + if s.finish { self.cut() } else { 0 }).ok_or(SHORT)?;
        let (whole, end) = out.split_at_mut(at.rows * hop);
        for (row, out) in frames.chunks_exact(n + 2).zip(whole.chunks_exact_mut(hop)) {
            let (magnitude, phase) = row.split_at(n / 2 + 1);
            let (re, im) = spectrum.split_at_mut(n / 2 + 1);
            if !kernel::polar(s.cx, magnitude, phase, LOUDEST, re, im) || !fft.inverse(spectrum, frame, scratch) {
                return Err(SHORT);
            }
            frame.iter_mut().zip(window).for_each(|(v, w)| *v *= w);
            for (j, o) in out.iter_mut().enumerate() {
                let (mut v, mut w) = (0.0, 0.0);
                if j < sum.len() {
                    (v, w) = (sum[j], weight[j]);
                }
                *o = (v + frame[j]) / (w + window[j] * window[j]);
            }
            let kept = sum.len().saturating_sub(hop);
            sum.copy_within(sum.len() - kept.., 0);
            weight.copy_within(weight.len() - kept.., 0);
            sum[kept..].fill(0.0);
            weight[kept..].fill(0.0);
            for (((v, w), f), window) in sum.iter_mut().zip(&mut *weight).zip(&frame[hop..]).zip(&window[hop..]) {
                *v += f;
                *w += window * window;
            }
        }
        let before = s.cursor.seen;
        s.cursor.seen = s.cursor.seen.saturating_add(at.rows);
        let mut rows = at.rows * hop;
        if s.finish && s.cursor.seen > 0 {
            rows += end.len();
            end.iter_mut().zip(&*sum).zip(&*weight).for_each(|((o, v), w)| *o = v / w);
        }
        let left = self.cut().saturating_sub(before.saturating_mul(hop)).min(rows);
        mem.set(self.dst, View { start: dst.data() + left, rows: rows - left });
        Ok(())
    }
}

/// A planned log-mel spectrogram.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct LogMelLayer {
    pub src: usize,
    pub dst: usize,
    /// Room for a frame, its spectrum and a transform, and for the powers of a block of frames.
    pub tmp: usize,
    pub frames: Window,
    pub mels: usize,
    pub table: Slot,
    pub window: Slot,
    /// Panels over the bins.
    pub filters: Weight,
}

impl LogMelLayer {
    fn n_fft(&self) -> usize {
        self.frames.span
    }

    fn bins(&self) -> usize {
        self.n_fft() / 2 + 1
    }

    pub(crate) fn tmp_len(&self) -> usize {
        2 * self.n_fft() + 2 + RealFft::scratch_len(self.n_fft()) + BLOCK * self.bins()
    }

    pub(crate) fn step(&self, mut s: Step<'_>, mem: &mut Memory<'_>) -> Result<(), RunError> {
        let opened = self.frames.open(&mut s, mem, mem.view(self.src), 1)?;
        let (src, dst, tmp) = (mem.room(self.src)?, mem.room(self.dst)?, mem.room(self.tmp)?);
        let [x, y, t] = mem
            .scratch
            .get_disjoint_mut([src.base..src.end(), dst.data()..dst.end(), tmp.data()..tmp.end()])
            .map_err(|_| RunError::Internal("buffers overlap"))?;
        let (n, bins) = (self.n_fft(), self.bins());
        let fft = RealFft::new(n, self.table.of(s.arena)?).ok_or(SHORT)?;
        let window = self.window.of(s.arena)?;
        let (frame, rest) = t.split_at_mut_checked(n).ok_or(SHORT)?;
        let (spectrum, rest) = rest.split_at_mut_checked(n + 2).ok_or(SHORT)?;
        let (power, scratch) = rest.split_at_mut_checked(BLOCK * bins).ok_or(SHORT)?;
        let len = opened.windows.checked_mul(self.mels).ok_or(SHORT)?;
        let y = y.get_mut(..len).ok_or(SHORT)?;
        let first = src.offset(opened.start)? + opened.next;
        for (i, out) in y.chunks_mut(BLOCK * self.mels).enumerate() {
            let rows = out.len() / self.mels;
            for (j, power) in power.chunks_exact_mut(bins).take(rows).enumerate() {
                let from = first + (i * BLOCK + j) * self.frames.stride;
                let samples = x.get(from..from + n).ok_or(SHORT)?;
                frame.iter_mut().zip(samples).zip(window).for_each(|((f, x), w)| *f = x * w);
                if !fft.forward(frame, spectrum, scratch) {
                    return Err(SHORT);
                }
                let (re, im) = spectrum.split_at(bins);
                power.iter_mut().zip(re).zip(im).for_each(|((p, re), im)| *p = re * re + im * im);
            }
            let a = Rows { data: &*power, origin: 0, rows, row_stride: bins, taps: 1, tap_stride: 0, depth: bins };
            let filters = Panels { columns: self.mels, depth: bins, data: self.filters.of(s.arena)? };
            let plain = Epilogue { residual: None, then: Pointwise::Identity };
            let out = Out { data: out, origin: 0, row_stride: self.mels };
            if !kernel::matmul(s.cx, a, filters, Start::Zero, plain, out) {
                return Err(SHORT);
            }
        }
        y.iter_mut().for_each(|v| *v = libm::log10f(v.max(SILENCE)));
        let floor = y.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v)) - RANGE;
        y.iter_mut().for_each(|v| *v = (v.max(floor) + 4.0) / 4.0);
        self.frames.close(&mut s, mem, &opened, 1)?;
        mem.set(self.dst, View { start: dst.data(), rows: opened.windows });
        Ok(())
    }
}

/// A planned short-time Fourier transform.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct StftLayer {
    pub src: usize,
    pub dst: usize,
    /// Room for a frame, its spectrum and a transform.
    pub tmp: usize,
    pub frames: Window,
    pub floor: f32,
    pub power: f32,
    pub table: Slot,
    pub window: Slot,
}

impl StftLayer {
    pub(crate) fn tmp_len(&self) -> usize {
        2 * self.frames.span + 2 + RealFft::scratch_len(self.frames.span)
    }

    pub(crate) fn step(&self, mut s: Step<'_>, mem: &mut Memory<'_>) -> Result<(), RunError> {
        let opened = self.frames.open(&mut s, mem, mem.view(self.src), 1)?;
        let (src, dst, tmp) = (mem.room(self.src)?, mem.room(self.dst)?, mem.room(self.tmp)?);
        let [x, y, t] = mem
            .scratch
            .get_disjoint_mut([src.base..src.end(), dst.data()..dst.end(), tmp.data()..tmp.end()])
            .map_err(|_| RunError::Internal("buffers overlap"))?;
        let n = self.frames.span;
        let bins = n / 2 + 1;
        let fft = RealFft::new(n, self.table.of(s.arena)?).ok_or(SHORT)?;
        let window = self.window.of(s.arena)?;
        let (frame, rest) = t.split_at_mut_checked(n).ok_or(SHORT)?;
        let (spectrum, scratch) = rest.split_at_mut_checked(n + 2).ok_or(SHORT)?;
        let len = opened.windows.checked_mul(3 * bins).ok_or(SHORT)?;
        let y = y.get_mut(..len).ok_or(SHORT)?;
        let first = src.offset(opened.start)? + opened.next;
        for (i, out) in y.chunks_exact_mut(3 * bins).enumerate() {
            let samples = x.get(first + i * self.frames.stride..).and_then(|x| x.get(..n)).ok_or(SHORT)?;
            frame.iter_mut().zip(samples).zip(window).for_each(|((f, x), w)| *f = x * w);
            if !fft.forward(frame, spectrum, scratch) {
                return Err(SHORT);
            }
            let (levels, parts) = out.split_at_mut(bins);
            let (reals, imaginaries) = parts.split_at_mut(bins);
            let outs = levels.iter_mut().zip(reals).zip(imaginaries);
            let (re, im) = spectrum.split_at(bins);
            for ((re, im), ((level, real), imaginary)) in re.iter().zip(im).zip(outs) {
                let nepers = 0.5 * libm::logf(re * re + im * im + self.floor * self.floor);
                let factor = libm::expf((self.power - 1.0) * nepers);
                (*level, *real, *imaginary) = (nepers * core::f32::consts::LOG10_E, re * factor, im * factor);
            }
        }
        self.frames.close(&mut s, mem, &opened, 1)?;
        mem.set(self.dst, View { start: dst.data(), rows: opened.windows });
        Ok(())
    }
}

use rubato::{
    Async, FixedAsync, Indexing, Resampler as _, SincInterpolationParameters, WindowFunction,
    audioadapter_buffers::direct::InterleavedSlice,
};

use super::AudioError;

/// Rates that can be resampled: beyond them the filters grow without need.
const RATES: (u32, u32) = (1_000, 768_000);
/// Taps of the filter when the rate rises, and the most when it falls.
const FILTER: usize = 256;
const MAX_FILTER: usize = 16 * FILTER;
/// Steps between two input frames at which the filter is tabulated.
const OVERSAMPLING: usize = 512;

/// Changes of a signal that the user asked for. None is made unasked, because each changes the tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allow {
    /// Change the sample rate.
    pub resample: bool,
    /// Replace all channels by their mean.
    pub downmix: bool,
    /// Copy a single channel to all that are needed.
    pub upmix: bool,
}

/// Makes a signal fit: mixes channels, then resamples. Works in blocks; the result has no delay and exactly
/// `round(frames * to / from)` frames.
pub struct Conform {
    channels_in: usize,
    channels_out: usize,
    mixed: Vec<f32>,
    resampler: Option<Resampler>,
}

impl Conform {
    /// Plans the way from `(sample rate, channels)` to `(sample rate, channels)`.
    ///
    /// # Errors
    /// [`AudioError::RateMismatch`] and [`AudioError::ChannelMismatch`] where `allow` does not cover what is
    /// needed, or several channels would have to become several others; [`AudioError::RateOutOfRange`].
    pub fn new(from: (u32, usize), to: (u32, usize), allow: Allow) -> Result<Self, AudioError> {
        let (channels_in, channels_out) = (from.1, to.1);
        let covered = match (channels_in, channels_out) {
            (0, _) | (_, 0) => false,
            (a, b) if a == b => true,
            (_, 1) => allow.downmix,
            (1, _) => allow.upmix,
            _ => false,
        };
        if !covered {
            return Err(AudioError::ChannelMismatch { found: channels_in, wanted: channels_out });
        }
        let resampler = if from.0 == to.0 {
            None
        } else if allow.resample {
            Some(Resampler::new(from.0, to.0, channels_out)?)
        } else {
            return Err(AudioError::RateMismatch { found: from.0, wanted: to.0 });
        };
        Ok(Self { channels_in, channels_out, mixed: Vec::new(), resampler })
    }

    /// Whether the signal passes as it is.
    pub fn is_identity(&self) -> bool {
        self.channels_in == self.channels_out && self.resampler.is_none()
    }

    /// Takes interleaved samples (whole frames) and appends what they give to `out`.
    pub fn push(&mut self, pcm: &[f32], out: &mut Vec<f32>) {
        let (from, to) = (self.channels_in, self.channels_out);
        let mixed = if from == to {
            pcm
        } else {
            self.mixed.clear();
            for frame in pcm.chunks_exact(from) {
                let mean = frame.iter().sum::<f32>() / from as f32;
                self.mixed.extend(std::iter::repeat_n(mean, to));
            }
            &self.mixed
        };
        match &mut self.resampler {
            None => out.extend_from_slice(mixed),
            Some(resampler) => resampler.push(mixed, out),
        }
    }

    /// Ends the signal and appends the rest to `out`.
    pub fn finish(&mut self, out: &mut Vec<f32>) {
        if let Some(resampler) = &mut self.resampler {
            resampler.finish(out);
        }
    }
}

/// A windowed sinc with its delay taken off.
///
/// The filter starts a fixed number of input frames before the first, which is no whole number of output frames in
/// general; silence put before the signal makes it one.
struct Resampler {
    inner: Async<f32>,
    channels: usize,
    rates: (u32, u32),
    /// Input that does not fill a block yet.
    pending: Vec<f32>,
    block: Vec<f32>,
    /// Output frames still to drop.
    delay: usize,
    frames_in: u64,
    frames_out: u64,
}

impl Resampler {
    fn new(from: u32, to: u32, channels: usize) -> Result<Self, AudioError> {
        let (min, max) = RATES;
        if let Some(rate) = [from, to].into_iter().find(|r| !(min..=max).contains(r)) {
            return Err(AudioError::RateOutOfRange { rate, min, max });
        }
        // As sharp on the lower rate as on the higher one.
        let taps = (FILTER * from.div_ceil(to) as usize).min(MAX_FILTER);
        let parameters =
            SincInterpolationParameters::new(taps, WindowFunction::BlackmanHarris2).oversampling_factor(OVERSAMPLING);
        let ratio = f64::from(to) / f64::from(from);
        let inner = Async::new_sinc(ratio, 1.0, &parameters, 4 * taps, channels, FixedAsync::Input)
            .map_err(|e| AudioError::Unsupported(e.to_string()))?;
        // The first output frame stands one output period after the input frame `-taps / 2` (and a step of the
        // oversampling besides, which is not worth correcting).
        let unit = (from / gcd(from, to)) as usize;
        let start = taps / 2;
        let silence = start.next_multiple_of(unit) - start;
        let delay = (start + silence) / unit * (to / gcd(from, to)) as usize - 1;
        Ok(Self {
            block: vec![0.0; inner.output_frames_max() * channels],
            inner,
            channels,
            rates: (from, to),
            pending: vec![0.0; silence * channels],
            delay,
            frames_in: 0,
            frames_out: 0,
        })
    }

    fn push(&mut self, pcm: &[f32], out: &mut Vec<f32>) {
        self.frames_in += (pcm.len() / self.channels) as u64;
        self.pending.extend_from_slice(pcm);
        let step = self.inner.input_frames_next() * self.channels;
        let mut taken = 0;
        while self.pending.len() - taken >= step {
            self.step(taken, None, out);
            taken += step;
        }
        self.pending.drain(..taken);
    }

    fn finish(&mut self, out: &mut Vec<f32>) {
        let (from, to) = (u128::from(self.rates.0), u128::from(self.rates.1));
        let total = ((u128::from(self.frames_in) * to + from / 2) / from) as u64;
        let mut rest = self.pending.len() / self.channels;
        while self.frames_out < total {
            self.step(0, Some(rest), out);
            rest = 0;
        }
        let excess = (self.frames_out - total) as usize * self.channels;
        out.truncate(out.len().saturating_sub(excess));
        self.pending.clear();
    }

    /// One block from `pending[at..]`; with `partial`, that many frames and then silence.
    fn step(&mut self, at: usize, partial: Option<usize>, out: &mut Vec<f32>) {
        let input = &self.pending[at..];
        let frames = input.len() / self.channels;
        let room = self.block.len() / self.channels;
        let indexing = partial.map(|n| Indexing::new().partial_len(n));
        let done = match (
            InterleavedSlice::new(input, self.channels, frames),
            InterleavedSlice::new_mut(&mut self.block, self.channels, room),
        ) {
            (Ok(input), Ok(mut output)) => self.inner.process_into_buffer(&input, &mut output, indexing.as_ref()),
            _ => unreachable!("both slices are whole frames"),
        };
        let (_, made) = done.expect("block sizes are the resampler's own");
        let dropped = self.delay.min(made);
        self.delay -= dropped;
        self.frames_out += (made - dropped) as u64;
        out.extend_from_slice(&self.block[dropped * self.channels..made * self.channels]);
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Allow = Allow { resample: true, downmix: true, upmix: true };

    fn run(from: (u32, usize), to: (u32, usize), pcm: &[f32], chunk: usize) -> Vec<f32> {
        let mut conform = Conform::new(from, to, ALL).unwrap();
        let mut out = Vec::new();
        for block in pcm.chunks(chunk * from.1) {
            conform.push(block, &mut out);
        }
        conform.finish(&mut out);
        out
    }

    #[test]
    fn resampled_sines_are_sines_in_place_and_of_exact_length() {
        for (from, to) in
            [(44100, 24000), (48000, 24000), (16000, 24000), (22050, 16000), (44100, 48000), (11025, 44100)]
        {
            let frequency = 440.0f64;
            let sine = |n: usize| (std::f64::consts::TAU * frequency * n as f64 / f64::from(from)).sin();
            let frames = 30_011;
            let pcm: Vec<f32> = (0..frames).map(|n| sine(n) as f32).collect();
            let out = run((from, 1), (to, 1), &pcm, 777);
            let expected = (frames as f64 * f64::from(to) / f64::from(from)).round() as usize;
            assert_eq!(out.len(), expected, "{from} to {to}");
            // Away from the ends, where the filter sees silence; one step of the filter's table early.
            let early = 1.0 / (OVERSAMPLING as f64 * f64::from(from));
            let exact = |n: usize| (std::f64::consts::TAU * frequency * (n as f64 / f64::from(to) + early)).sin();
            let margin = 2000;
            let worst = (margin..out.len() - margin).map(|n| (f64::from(out[n]) - exact(n)).abs()).fold(0.0, f64::max);
            assert!(worst < 2e-5, "{from} to {to}: {worst}");
        }
    }

    #[test]
    fn what_the_lower_rate_cannot_hold_is_gone() {
        let tone = |n: usize| (std::f64::consts::TAU * 15_000.0 * n as f64 / 48_000.0).sin() as f32;
        let pcm: Vec<f32> = (0..48_000).map(tone).collect();
        let out = run((48_000, 1), (16_000, 1), &pcm, 4096);
        let loudest = out[2000..14_000].iter().fold(0f32, |m, s| m.max(s.abs()));
        assert!(loudest < 1e-4, "{loudest}");
    }

    #[test]
    fn chunks_do_not_change_the_result() {
        let pcm: Vec<f32> = (0..20_000u32).map(|n| ((n * 7919 % 2003) as f32 / 1001.5 - 1.0) * 0.5).collect();
        let whole = run((44_100, 2), (24_000, 1), &pcm, pcm.len());
        for chunk in [1, 13, 1024, 4999] {
            assert_eq!(run((44_100, 2), (24_000, 1), &pcm, chunk), whole, "{chunk}");
        }
    }

    #[test]
    fn signals_shorter_than_a_block_keep_their_length() {
        for frames in [0usize, 1, 2, 3, 100] {
            let pcm = vec![0.25; frames];
            let expected = (frames * 24_000 + 22_050) / 44_100;
            assert_eq!(run((44_100, 1), (24_000, 1), &pcm, 64).len(), expected);
        }
    }

    #[test]
    fn nothing_is_changed_unasked() {
        let none = Allow::default();
        assert!(matches!(
            Conform::new((44_100, 1), (24_000, 1), none),
            Err(AudioError::RateMismatch { found: 44_100, wanted: 24_000 })
        ));
        assert!(matches!(
            Conform::new((24_000, 2), (24_000, 1), none),
            Err(AudioError::ChannelMismatch { found: 2, wanted: 1 })
        ));
        assert!(Conform::new((24_000, 1), (24_000, 2), none).is_err());
        assert!(Conform::new((24_000, 6), (24_000, 2), ALL).is_err());
        assert!(Conform::new((24_000, 0), (24_000, 1), ALL).is_err());
        assert!(matches!(Conform::new((u32::MAX, 1), (24_000, 1), ALL), Err(AudioError::RateOutOfRange { .. })));
        assert!(Conform::new((24_000, 2), (24_000, 2), none).unwrap().is_identity());
    }

    #[test]
    fn mixing_is_the_mean_and_copies() {
        assert_eq!(run((8_000, 2), (8_000, 1), &[1.0, 0.0, -0.5, -0.25], 1), [0.5, -0.375]);
        assert_eq!(run((8_000, 1), (8_000, 2), &[1.0, -0.5], 1), [1.0, 1.0, -0.5, -0.5]);
    }
}

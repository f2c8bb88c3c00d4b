use std::io::{self, Seek, SeekFrom, Write};

use super::AudioError;

/// How samples are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleFormat {
    /// 16-bit integer.
    I16,
    /// 24-bit integer.
    I24,
    /// 32-bit float; never clips.
    F32,
}

impl SampleFormat {
    const fn bytes(self) -> u16 {
        match self {
            Self::I16 => 2,
            Self::I24 => 3,
            Self::F32 => 4,
        }
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WavReport {
    /// Samples a channel.
    pub frames: u64,
    /// Samples (all channels counted) that lay beyond full scale and were set to it.
    pub clipped: u64,
}

/// Bytes before the samples: `RIFF`, a reserved chunk, a format chunk and the head of the data chunk.
const HEADER: u64 = 12 + 8 + 28 + 8 + 16 + 8;

/// Writes a wav file or stream.
///
/// The header is complete from the first byte: with the length if it is known, else with the largest, which
/// readers take for a stream. [`WavWriter::finish_file`] sets the length afterwards. Past 4 GiB the file becomes
/// RF64 (EBU Tech 3306), for which the header keeps a reserved chunk.
pub struct WavWriter<W> {
    out: W,
    format: SampleFormat,
    sample_rate: u32,
    channels: u16,
    samples: u64,
    clipped: u64,
    bytes: Vec<u8>,
}

impl<W: Write> WavWriter<W> {
    /// Writes the header. `frames` is the length to declare, if it is known.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn new(out: W, format: SampleFormat, sample_rate: u32, channels: u16, frames: Option<u64>) -> io::Result<Self> {
        let mut writer = Self { out, format, sample_rate, channels, samples: 0, clipped: 0, bytes: Vec::new() };
        let header = writer.header(frames);
        writer.out.write_all(&header)?;
        Ok(writer)
    }

    /// Writes interleaved samples.
    ///
    /// # Errors
    /// [`AudioError::NotFinite`]; [`AudioError::Io`].
    pub fn write(&mut self, pcm: &[f32]) -> Result<(), AudioError> {
        self.bytes.clear();
        for (i, &value) in pcm.iter().enumerate() {
            if !value.is_finite() {
                let at = self.samples + i as u64;
                let channels = u64::from(self.channels.max(1));
                return Err(AudioError::NotFinite { frame: at / channels, channel: (at % channels) as usize, value });
            }
            let mut integer = |full: f64| {
                let scaled = (f64::from(value) * full).round();
                let held = scaled.clamp(-full, full - 1.0);
                self.clipped += u64::from(held != scaled);
                held as i32
            };
            match self.format {
                SampleFormat::I16 => {
                    let v = integer(32_768.0) as i16;
                    self.bytes.extend(v.to_le_bytes());
                }
                SampleFormat::I24 => {
                    let v = integer(8_388_608.0).to_le_bytes();
                    self.bytes.extend(&v[..3]);
                }
                SampleFormat::F32 => self.bytes.extend(value.to_le_bytes()),
            }
        }
        self.samples += pcm.len() as u64;
        self.out.write_all(&self.bytes)?;
        Ok(())
    }

    /// Ends a stream, whose header stays as it is.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn finish_stream(mut self) -> io::Result<(W, WavReport)> {
        if self.data_len() % 2 == 1 {
            self.out.write_all(&[0])?;
        }
        self.out.flush()?;
        let report = self.report();
        Ok((self.out, report))
    }

    fn report(&self) -> WavReport {
        WavReport { frames: self.samples / u64::from(self.channels.max(1)), clipped: self.clipped }
    }

    fn data_len(&self) -> u64 {
        self.samples * u64::from(self.format.bytes())
    }

    fn header(&self, frames: Option<u64>) -> Vec<u8> {
        let block = self.channels * self.format.bytes();
        let data = frames.map(|f| f.saturating_mul(u64::from(block)));
        let riff = data.map(|d| d.saturating_add(d % 2).saturating_add(HEADER - 8));
        let long = riff.is_some_and(|r| r >= u64::from(u32::MAX));
        let short = |v: Option<u64>| v.and_then(|v| u32::try_from(v).ok()).filter(|_| !long).unwrap_or(u32::MAX);
        let mut h = Vec::with_capacity(HEADER as usize);
        h.extend(if long { b"RF64" } else { b"RIFF" });
        h.extend(short(riff).to_le_bytes());
        h.extend(b"WAVE");
        // ds64: lengths of RIFF and data, samples a channel, no table. JUNK of the same size otherwise.
        h.extend(if long { b"ds64" } else { b"JUNK" });
        h.extend(28u32.to_le_bytes());
        for value in [riff, data, frames] {
            h.extend(value.filter(|_| long).unwrap_or(0).to_le_bytes());
        }
        h.extend(0u32.to_le_bytes());
        h.extend(b"fmt ");
        h.extend(16u32.to_le_bytes());
        h.extend(if self.format == SampleFormat::F32 { 3u16 } else { 1 }.to_le_bytes());
        h.extend(self.channels.to_le_bytes());
        h.extend(self.sample_rate.to_le_bytes());
        h.extend(self.sample_rate.saturating_mul(u32::from(block)).to_le_bytes());
        h.extend(block.to_le_bytes());
        h.extend((self.format.bytes() * 8).to_le_bytes());
        h.extend(b"data");
        h.extend(short(data).to_le_bytes());
        h
    }
}

impl<W: Write + Seek> WavWriter<W> {
    /// Ends a file: sets the lengths in the header to what was written.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn finish_file(self) -> io::Result<(W, WavReport)> {
        let frames = self.report().frames;
        let header = self.header(Some(frames));
        let (mut out, report) = self.finish_stream()?;
        out.seek(SeekFrom::Start(0))?;
        out.write_all(&header)?;
        out.flush()?;
        Ok((out, report))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::AudioReader;
    use std::io::Cursor;

    fn read(bytes: Vec<u8>) -> (Vec<f32>, Option<u64>) {
        let mut reader = AudioReader::from_pipe(Cursor::new(bytes)).unwrap();
        let declared = reader.info().frames;
        let mut all = Vec::new();
        while let Some(block) = reader.next_block().unwrap() {
            all.extend_from_slice(block);
        }
        (all, declared)
    }

    #[test]
    fn what_is_written_is_read_back() {
        let pcm: Vec<f32> = (0..999).map(|i| (i as f32 - 500.0) / 512.0).collect();
        for format in [SampleFormat::I16, SampleFormat::I24, SampleFormat::F32] {
            for channels in [1u16, 3] {
                let mut w = WavWriter::new(Cursor::new(Vec::new()), format, 24_000, channels, None).unwrap();
                for block in pcm.chunks(100) {
                    w.write(block).unwrap();
                }
                let (file, report) = w.finish_file().unwrap();
                let frames = 999 / u64::from(channels);
                assert_eq!(report, WavReport { frames, clipped: 0 });
                assert_eq!(read(file.into_inner()), (pcm.clone(), Some(frames)));
            }
        }
    }

    #[test]
    fn a_stream_of_unknown_length_is_read_to_its_end() {
        let mut w = WavWriter::new(Vec::new(), SampleFormat::I16, 24_000, 1, None).unwrap();
        w.write(&[0.5, -0.5]).unwrap();
        let (bytes, _) = w.finish_stream().unwrap();
        assert_eq!(read(bytes), (vec![0.5, -0.5], None));
        let mut w = WavWriter::new(Vec::new(), SampleFormat::I16, 24_000, 1, Some(2)).unwrap();
        w.write(&[0.5, -0.5]).unwrap();
        let (bytes, _) = w.finish_stream().unwrap();
        assert_eq!(read(bytes), (vec![0.5, -0.5], Some(2)));
    }

    #[test]
    fn clipping_is_counted_and_saturates() {
        let pcm = [1.5f32, -1.5, 0.5, -1.0, 1.0];
        let mut w = WavWriter::new(Cursor::new(Vec::new()), SampleFormat::I16, 24_000, 1, None).unwrap();
        w.write(&pcm).unwrap();
        let (file, report) = w.finish_file().unwrap();
        assert_eq!(report.clipped, 3);
        let top = 32767.0 / 32768.0;
        assert_eq!(read(file.into_inner()).0, [top, -1.0, 0.5, -1.0, top]);
        let mut w = WavWriter::new(Vec::new(), SampleFormat::F32, 24_000, 1, None).unwrap();
        w.write(&pcm).unwrap();
        let (bytes, report) = w.finish_stream().unwrap();
        assert_eq!((read(bytes).0, report.clipped), (pcm.to_vec(), 0));
    }

    #[test]
    fn a_length_past_four_gib_is_declared_as_rf64() {
        let w = WavWriter::new(Vec::new(), SampleFormat::I16, 24_000, 1, Some(3_000_000_000)).unwrap();
        let (bytes, _) = w.finish_stream().unwrap();
        assert_eq!(&bytes[..4], b"RF64");
        assert_eq!(&bytes[12..16], b"ds64");
        assert_eq!(bytes[28..36], 6_000_000_000u64.to_le_bytes());
        assert_eq!(bytes[HEADER as usize - 4..HEADER as usize], [0xff; 4]);
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        let mut w = WavWriter::new(Vec::new(), SampleFormat::I16, 24_000, 2, None).unwrap();
        w.write(&[0.0, 0.0]).unwrap();
        match w.write(&[0.0, f32::NAN]) {
            Err(AudioError::NotFinite { frame: 1, channel: 1, .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

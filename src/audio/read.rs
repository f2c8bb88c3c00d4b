use std::{
    cell::Cell,
    fs::File,
    io::{self, BufRead, Read},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use symphonia::core::{
    codecs::{
        CodecParameters,
        audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions},
    },
    errors::Error,
    formats::{FormatOptions, FormatReader, TrackType, probe::Hint},
    io::{MediaSource, MediaSourceStream, ReadOnlySource},
    meta::MetadataOptions,
};

use super::AudioError;

/// Data lengths that programs write into a wav header when they stream and cannot know the length:
/// sox and others write a little under 2 GiB. (Lengths of `u32::MAX` are known to the demuxer.)
const WAV_STREAM_LENGTHS: std::ops::Range<u64> = 0x7fff_f000..0x8000_0000;

/// What an audio file says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct AudioInfo {
    /// The container, `wave` or `flac` say.
    pub container: String,
    /// The coding of the samples, `pcm_s16le` or `mp3` say.
    pub codec: String,
    /// Samples a second and channel.
    pub sample_rate: u32,
    /// Channels, at least 1.
    pub channels: usize,
    /// Samples a channel, where the file declares them.
    pub frames: Option<u64>,
    /// Whether that is a promise: it is in wav and flac; elsewhere it may be rounded to packets.
    pub exact: bool,
}

/// Reads an audio file or pipe block by block. What it is is found from its content.
pub struct AudioReader {
    format: Box<dyn FormatReader>,
    decoder: Box<dyn AudioDecoder>,
    track: u32,
    info: AudioInfo,
    frames: u64,
    block: Vec<f32>,
    ended: bool,
}

impl AudioReader {
    /// Opens a file.
    ///
    /// # Errors
    /// [`AudioError::Io`], [`AudioError::Empty`], [`AudioError::Unsupported`], [`AudioError::LyingHeader`].
    pub fn open(path: &Path) -> Result<Self, AudioError> {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        if meta.is_dir() {
            return Err(AudioError::Unsupported("it is a folder".into()));
        }
        if meta.is_file() && meta.len() == 0 {
            return Err(AudioError::Empty);
        }
        let mut hint = Hint::new();
        if let Some(extension) = path.extension().and_then(|e| e.to_str()) {
            hint.with_extension(extension);
        }
        Self::probe(Box::new(file), hint, meta.is_file().then_some(meta.len()))
    }

    /// Reads from a pipe that cannot seek, such as standard input.
    ///
    /// # Errors
    /// As [`AudioReader::open`].
    pub fn from_pipe(pipe: impl Read + Send + Sync + 'static) -> Result<Self, AudioError> {
        let mut pipe = io::BufReader::new(pipe);
        if pipe.fill_buf()?.is_empty() {
            return Err(AudioError::Empty);
        }
        let source = ReadOnlySource::new(pipe);
        Self::probe(Box::new(source), Hint::new(), None)
    }

    fn probe(source: Box<dyn MediaSource>, hint: Hint, size: Option<u64>) -> Result<Self, AudioError> {
        let stream = MediaSourceStream::new(source, Default::default());
        let format = guard(|| {
            symphonia::default::get_probe().probe(&hint, stream, FormatOptions::default(), MetadataOptions::default())
        })
        .unwrap_or(Err(Error::DecodeError(PANICKED)))
        .map_err(|e| match e {
            Error::IoError(e) if e.kind() != io::ErrorKind::UnexpectedEof => AudioError::Io(e),
            Error::IoError(_) => AudioError::Unsupported("it ends before any audio begins".into()),
            e => AudioError::Unsupported(e.to_string()),
        })?;
        let track = format
            .default_track(TrackType::Audio)
            .ok_or_else(|| AudioError::Unsupported("there is no audio track in it".into()))?;
        let Some(CodecParameters::Audio(params)) = &track.codec_params else {
            return Err(AudioError::Unsupported("its audio track does not say how it is coded".into()));
        };
        let missing = |what: &str| AudioError::Unsupported(format!("its header gives no {what}"));
        let sample_rate = params.sample_rate.filter(|&r| r > 0).ok_or_else(|| missing("sample rate"))?;
        let channels = params.channels.as_ref().map_or(0, |c| c.count());
        if channels == 0 {
            return Err(AudioError::Unsupported("it has 0 channels".into()));
        }
        let decoder =
            guard(|| symphonia::default::get_codecs().make_audio_decoder(params, &AudioDecoderOptions::default()))
                .unwrap_or(Err(Error::DecodeError(PANICKED)))
                .map_err(|e| AudioError::Unsupported(e.to_string()))?;

        let container = format.format_info().short_name.to_owned();
        let mut frames = track.num_frames;
        if container == "wave"
            && let (Some(declared), Some(bytes)) = (frames, bytes_per_frame(params, channels))
        {
            let length = declared.saturating_mul(bytes);
            if length + bytes > WAV_STREAM_LENGTHS.start && length < WAV_STREAM_LENGTHS.end {
                frames = None;
            } else if let Some(room) = size.map(|s| s / bytes).filter(|&room| declared > room) {
                return Err(AudioError::LyingHeader { declared, room });
            }
        }
        let info = AudioInfo {
            exact: matches!(container.as_str(), "wave" | "flac"),
            codec: decoder.codec_info().short_name.to_owned(),
            container,
            sample_rate,
            channels,
            frames,
        };
        Ok(Self { track: track.id, format, decoder, info, frames: 0, block: Vec::new(), ended: false })
    }

    /// What the header says.
    pub fn info(&self) -> &AudioInfo {
        &self.info
    }

    /// Frames read so far.
    pub fn frames_read(&self) -> u64 {
        self.frames
    }

    /// Reads the next block (about a tenth of a second) and returns it interleaved, or `None` at the end.
    ///
    /// # Errors
    /// [`AudioError::Damaged`], [`AudioError::NotFinite`], [`AudioError::FormatChanges`] where they occur;
    /// [`AudioError::Truncated`] and [`AudioError::NoSamples`] at the end.
    pub fn next_block(&mut self) -> Result<Option<&[f32]>, AudioError> {
        let result = self.advance();
        if !matches!(result, Ok(true)) {
            self.ended = true;
        }
        Ok(result?.then_some(&self.block))
    }

    fn advance(&mut self) -> Result<bool, AudioError> {
        self.block.clear();
        while !self.ended {
            let packet = match guard(|| self.format.next_packet()).unwrap_or(Err(Error::DecodeError(PANICKED))) {
                Ok(Some(packet)) => packet,
                Ok(None) => {
                    self.end()?;
                    break;
                }
                Err(Error::IoError(e)) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    // How a demuxer that knows no length finds the end; one that does must not.
                    if self.info.container == "isomp4" {
                        return Err(self.damaged("the file ends in the middle of a packet"));
                    }
                    self.end()?;
                    break;
                }
                Err(Error::IoError(e)) => return Err(e.into()),
                Err(Error::ResetRequired) => return Err(self.damaged("a second stream begins (a chained file)")),
                Err(e) => return Err(self.damaged(&e.to_string())),
            };
            if packet.track_id != self.track {
                continue;
            }
            let decoded = match guard(|| self.decoder.decode(&packet)).unwrap_or(Err(Error::DecodeError(PANICKED))) {
                Ok(decoded) => decoded,
                Err(Error::IoError(e)) if e.kind() != io::ErrorKind::UnexpectedEof => return Err(e.into()),
                Err(e) => return Err(self.damaged(&e.to_string())),
            };
            let (rate, channels) = (decoded.spec().rate(), decoded.spec().channels().count());
            if (rate, channels) != (self.info.sample_rate, self.info.channels) {
                let name = |rate, channels| format!("{rate} Hz, {channels} channel(s)");
                return Err(AudioError::FormatChanges {
                    frame: self.frames,
                    before: name(self.info.sample_rate, self.info.channels),
                    after: name(rate, channels),
                });
            }
            if decoded.frames() == 0 {
                continue;
            }
            decoded.copy_to_vec_interleaved(&mut self.block);
            if let Some(i) = self.block.iter().position(|s| !s.is_finite()) {
                return Err(AudioError::NotFinite {
                    frame: self.frames + (i / channels) as u64,
                    channel: i % channels,
                    value: self.block[i],
                });
            }
            self.frames += (self.block.len() / channels) as u64;
            return Ok(true);
        }
        Ok(false)
    }

    fn end(&self) -> Result<(), AudioError> {
        match self.info.frames {
            Some(declared) if self.info.exact && self.frames < declared => {
                Err(AudioError::Truncated { declared, found: self.frames })
            }
            _ if self.frames == 0 => Err(AudioError::NoSamples),
            _ => Ok(()),
        }
    }

    fn damaged(&self, detail: &str) -> AudioError {
        AudioError::Damaged { frame: self.frames, detail: detail.to_owned() }
    }
}

const PANICKED: &str = "its contents make the reader of this format fail";

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside a third-party demuxer or decoder, whose panics on hostile input (arithmetic
/// overflow, where that is checked) become errors. A panic hook may keep quiet about those.
pub fn in_guarded_reader() -> bool {
    GUARDED.get()
}

/// Runs `f`; `None` if it panicked. What it borrowed must not be used again then, except to be dropped.
fn guard<T>(f: impl FnOnce() -> T) -> Option<T> {
    GUARDED.set(true);
    let result = catch_unwind(AssertUnwindSafe(f));
    GUARDED.set(false);
    result.ok()
}

/// Bytes of one sample of every channel, for uncompressed samples.
fn bytes_per_frame(params: &AudioCodecParameters, channels: usize) -> Option<u64> {
    use symphonia::core::codecs::audio::well_known::{CODEC_ID_PCM_F32LE, CODEC_ID_PCM_F64LE};
    let bits = match params.codec {
        CODEC_ID_PCM_F32LE => 32,
        CODEC_ID_PCM_F64LE => 64,
        _ => params.bits_per_coded_sample?,
    };
    Some(u64::from(bits.div_ceil(8)) * channels as u64).filter(|&b| b > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wav(format: u16, channels: u16, bits: u16, data_len: u32, data: &[u8]) -> Vec<u8> {
        let block = channels * bits / 8;
        let mut w = Vec::new();
        w.extend(b"RIFF");
        w.extend(data_len.saturating_add(36).to_le_bytes());
        w.extend(b"WAVEfmt ");
        w.extend(16u32.to_le_bytes());
        w.extend(format.to_le_bytes());
        w.extend(channels.to_le_bytes());
        w.extend(8000u32.to_le_bytes());
        w.extend((8000 * u32::from(block)).to_le_bytes());
        w.extend(block.to_le_bytes());
        w.extend(bits.to_le_bytes());
        w.extend(b"data");
        w.extend(data_len.to_le_bytes());
        w.extend(data);
        w
    }

    fn read(bytes: Vec<u8>) -> Result<Vec<f32>, AudioError> {
        let mut reader = AudioReader::from_pipe(io::Cursor::new(bytes))?;
        let mut all = Vec::new();
        while let Some(block) = reader.next_block()? {
            all.extend_from_slice(block);
        }
        Ok(all)
    }

    #[test]
    fn every_wav_sample_format_has_full_scale_at_one() {
        let eight = read(wav(1, 1, 8, 3, &[0, 128, 192])).unwrap();
        assert_eq!(eight, [-1.0, 0.0, 0.5]);
        let sixteen: Vec<u8> = [i16::MIN, 0, 16384].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(read(wav(1, 1, 16, 6, &sixteen)).unwrap(), [-1.0, 0.0, 0.5]);
        assert_eq!(read(wav(1, 1, 24, 9, &[0, 0, 0x80, 0, 0, 0, 0, 0, 0x40])).unwrap(), [-1.0, 0.0, 0.5]);
        let whole: Vec<u8> = [i32::MIN, 0, 1 << 30].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(read(wav(1, 1, 32, 12, &whole)).unwrap(), [-1.0, 0.0, 0.5]);
        let float: Vec<u8> = [-1.5f32, 0.0, 0.25].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(read(wav(3, 1, 32, 12, &float)).unwrap(), [-1.5, 0.0, 0.25]);
        let double: Vec<u8> = [-1.5f64, 0.0, 0.25].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(read(wav(3, 1, 64, 24, &double)).unwrap(), [-1.5, 0.0, 0.25]);
    }

    #[test]
    fn a_pipe_with_a_placeholder_length_is_read_to_its_end() {
        for length in [u32::MAX, 0x7fff_ffff, 0x7fff_f024] {
            assert_eq!(read(wav(1, 1, 16, length, &[0, 64, 0, 0xc0])).unwrap(), [0.5, -0.5], "{length:x}");
        }
    }

    #[test]
    fn a_declared_length_is_held_to() {
        match read(wav(1, 1, 16, 1000, &[0; 600])) {
            Err(AudioError::Truncated { declared: 500, found: 300 }) => {}
            other => panic!("{other:?}"),
        }
        assert!(matches!(read(wav(1, 1, 16, 0, &[])), Err(AudioError::NoSamples)));
        assert!(matches!(read(Vec::new()), Err(AudioError::Empty)));
        assert!(matches!(read(wav(1, 0, 16, 4, &[0; 4])), Err(AudioError::Unsupported(_))));
        assert!(matches!(read(b"not audio at all".repeat(40)), Err(AudioError::Unsupported(_))));
    }

    #[test]
    fn the_first_sample_that_is_not_finite_is_named() {
        let mut samples = vec![0f32; 3000];
        samples[2501] = f32::NAN;
        samples[2800] = f32::INFINITY;
        let bytes: Vec<u8> = samples.iter().flat_map(|v| v.to_le_bytes()).collect();
        match read(wav(3, 2, 32, 12000, &bytes)) {
            Err(AudioError::NotFinite { frame: 1250, channel: 1, value }) => assert!(value.is_nan()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_prefix_and_every_flipped_byte_of_a_header_is_an_error_or_audio() {
        let whole = wav(1, 1, 16, 64, &[1; 64]);
        for cut in 0..44 {
            assert!(read(whole[..cut].to_vec()).is_err(), "{cut}");
        }
        for at in 0..44 {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                let _ = read(bytes);
            }
        }
    }
}

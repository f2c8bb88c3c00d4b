use super::{Error, GROUP_LEN, Layout, MAX_CODES_PER_FRAME, MAX_PAYLOAD, SEGMENT_HEAD, UNKNOWN};
use super::{array, crc32c, get_u16, get_u32, get_u64, put};

/// The major version that is read and written; any other is refused.
pub const MAJOR: u8 = 1;
/// The minor version that is written; any is read.
pub const MINOR: u8 = 0;
/// The most bytes of a header.
pub const MAX_HEADER_LEN: usize = u16::MAX as usize;

const MAGIC: [u8; 8] = *b"\x89NAC\r\n\x1a\n";
const FIXED: usize = 52;
const FLAG_SEGMENTS: u8 = 1;

/// How codes become bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Method {
    /// `ceil(log2(size))` bits a code.
    #[default]
    Raw,
}

/// The header of a `.nac` file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The model's fingerprint.
    pub fingerprint: [u8; 16],
    /// Hz, at least 1.
    pub sample_rate: u32,
    /// Audio channels, at least 1.
    pub channels: u16,
    /// Samples a channel and frame, at least 1.
    pub hop: u32,
    /// Exact samples a channel; `None` if that was not known when the header was written. A hostile file says
    /// anything here: memory is not to be sized by it.
    pub samples: Option<u64>,
    /// How codes become bits.
    pub method: Method,
    /// Whether frames come in segments, each with a scale.
    pub segments: bool,
    /// The most frames of a chunk, at least 1; at most 65535 bytes of them in the raw method. [`Header::default_chunk_frames`] is a good choice.
    pub chunk_frames: u16,
    /// The codes of a frame.
    pub layout: Layout<'a>,
}

impl<'a> Header<'a> {
    /// Frames of about two seconds, and no more than a chunk can hold.
    pub fn default_chunk_frames(sample_rate: u32, hop: u32, segments: bool, layout: &Layout<'_>) -> u16 {
        let two_seconds = (2 * u64::from(sample_rate) + u64::from(hop) / 2) / u64::from(hop.max(1));
        let around = if segments { 2 * SEGMENT_HEAD } else { 0 };
        let most = (MAX_PAYLOAD - around) * 8 / layout.bits_per_frame();
        two_seconds.clamp(1, most.min(usize::from(u16::MAX)) as u64) as u16
    }

    /// Bytes of the header.
    pub fn len(&self) -> usize {
        FIXED + self.layout.bytes().len() + 4
    }

    /// Never: a header has 66 bytes or more.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Bits a second of the codes alone, in the raw method.
    pub fn bitrate(&self) -> f64 {
        f64::from(self.sample_rate) / f64::from(self.hop) * self.layout.bits_per_frame() as f64
    }

    /// # Errors
    /// [`Error::WrongModel`] if the file was made with a model of another fingerprint.
    pub fn check_model(&self, fingerprint: &[u8; 16]) -> Result<(), Error> {
        if self.fingerprint == *fingerprint {
            return Ok(());
        }
        Err(Error::WrongModel { file: self.fingerprint, model: *fingerprint })
    }

    /// Writes the header to the front of `bytes` and returns its length.
    ///
    /// # Errors
    /// [`Error::Field`] if a field is out of range, [`Error::Buffer`] if `bytes` is shorter than [`Header::len`].
    pub fn write(&self, bytes: &mut [u8]) -> Result<usize, Error> {
        self.check()?;
        let len = self.len();
        let got = bytes.len();
        let bytes = bytes.get_mut(..len).ok_or(Error::Buffer { needed: len, got })?;
        let groups = (self.layout.bytes().len() / GROUP_LEN) as u16;
        put(bytes, 0, &MAGIC)?;
        put(bytes, 8, &[MAJOR, MINOR])?;
        put(bytes, 10, &(len as u16).to_le_bytes())?;
        put(bytes, 12, &self.fingerprint)?;
        put(bytes, 28, &self.sample_rate.to_le_bytes())?;
        put(bytes, 32, &self.hop.to_le_bytes())?;
        put(bytes, 36, &self.samples.unwrap_or(UNKNOWN).to_le_bytes())?;
        put(bytes, 44, &self.channels.to_le_bytes())?;
        put(
            bytes,
            46,
            &[
                match self.method {
                    Method::Raw => 0,
                },
                if self.segments { FLAG_SEGMENTS } else { 0 },
            ],
        )?;
        put(bytes, 48, &self.chunk_frames.to_le_bytes())?;
        put(bytes, 50, &groups.to_le_bytes())?;
        put(bytes, FIXED, self.layout.bytes())?;
        let crc = crc32c(bytes.get(..len - 4).unwrap_or(&[]));
        put(bytes, len - 4, &crc.to_le_bytes())?;
        Ok(len)
    }

    /// The length that the first 12 bytes of a file state; `None` if there are fewer.
    ///
    /// # Errors
    /// [`Error::NotNac`] as soon as a byte of the magic differs, [`Error::Version`] for another major version,
    /// [`Error::Field`] for a length that no header has.
    pub fn stated_len(bytes: &[u8]) -> Result<Option<usize>, Error> {
        if bytes.iter().zip(&MAGIC).any(|(a, b)| a != b) {
            return Err(Error::NotNac);
        }
        let Some(&major) = bytes.get(8) else { return Ok(None) };
        if major != MAJOR {
            return Err(Error::Version { major, supported: MAJOR });
        }
        let Some(len) = get_u16(bytes, 10).map(usize::from) else { return Ok(None) };
        if len < FIXED + GROUP_LEN + 4 {
            return Err(Error::Field { name: "header length", value: len as u64 });
        }
        Ok(Some(len))
    }

    /// Reads the header at the front of `bytes`; also returns its length, which later minor versions make
    /// longer than [`Header::len`].
    ///
    /// # Errors
    /// Those of [`Header::stated_len`]; [`Error::Truncated`] if `bytes` ends before it does; [`Error::HeaderCrc`];
    /// [`Error::Field`] and [`Error::Method`] for fields that this version cannot take.
    pub fn parse(bytes: &'a [u8]) -> Result<(Self, usize), Error> {
        let truncated = |needed| Error::Truncated { offset: 0, needed, got: bytes.len() };
        let len = Self::stated_len(bytes)?.ok_or(truncated(12))?;
        let whole = bytes.get(..len).ok_or(truncated(len))?;
        let stored = get_u32(whole, len - 4).ok_or(truncated(len))?;
        let computed = crc32c(whole.get(..len - 4).unwrap_or(&[]));
        if stored != computed {
            return Err(Error::HeaderCrc { stored, computed });
        }
        Ok((Self::parse_fields(whole)?, len))
    }

    /// The fields of a whole header, whatever its CRC.
    pub(super) fn parse_fields(whole: &'a [u8]) -> Result<Self, Error> {
        let truncated = Error::Truncated { offset: 0, needed: FIXED, got: whole.len() };
        let fixed: [u8; FIXED] = array(whole, 0).ok_or(truncated)?;
        let method = match fixed[46] {
            0 => Method::Raw,
            other => return Err(Error::Method(other)),
        };
        let flags = fixed[47];
        if flags & !FLAG_SEGMENTS != 0 {
            return Err(Error::Field { name: "header flags", value: u64::from(flags) });
        }
        let groups = usize::from(get_u16(&fixed, 50).ok_or(truncated)?);
        let groups_end = FIXED + groups * GROUP_LEN;
        let fits = if fixed[9] == MINOR { groups_end + 4 == whole.len() } else { groups_end + 4 <= whole.len() };
        if groups > MAX_CODES_PER_FRAME || !fits {
            return Err(Error::Field { name: "code groups", value: groups as u64 });
        }
        let samples = get_u64(&fixed, 36).ok_or(truncated)?;
        let header = Self {
            fingerprint: array(&fixed, 12).ok_or(truncated)?,
            sample_rate: get_u32(&fixed, 28).ok_or(truncated)?,
            hop: get_u32(&fixed, 32).ok_or(truncated)?,
            samples: (samples != UNKNOWN).then_some(samples),
            channels: get_u16(&fixed, 44).ok_or(truncated)?,
            method,
            segments: flags & FLAG_SEGMENTS != 0,
            chunk_frames: get_u16(&fixed, 48).ok_or(truncated)?,
            layout: Layout::parse(whole.get(FIXED..groups_end).ok_or(truncated)?)?,
        };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), Error> {
        let least = [
            ("sample rate", self.sample_rate),
            ("hop", self.hop),
            ("channels", u32::from(self.channels)),
            ("chunk frames", u32::from(self.chunk_frames)),
        ];
        match least.iter().find(|(_, value)| *value == 0) {
            Some(&(name, _)) => Err(Error::Field { name, value: 0 }),
            // Bounds what a reader unpacks from a chunk, whatever the method.
            None if self.layout.packed_len(self.chunk_frames.into()) > MAX_PAYLOAD => {
                Err(Error::Field { name: "chunk frames", value: self.chunk_frames.into() })
            }
            None if self.samples == Some(UNKNOWN) => Err(Error::Field { name: "samples", value: UNKNOWN }),
            None => Ok(()),
        }
    }

    /// The longest payload of a codes chunk in the raw method.
    pub(super) fn max_codes_payload(&self) -> usize {
        let frames = usize::from(self.chunk_frames);
        let most = if self.segments {
            frames.saturating_mul(SEGMENT_HEAD + self.layout.packed_len(1))
        } else {
            self.layout.packed_len(frames)
        };
        most.min(MAX_PAYLOAD)
    }
}

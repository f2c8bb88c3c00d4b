use core::fmt;

/// Why a `.nac` stream cannot be read or written further. Offsets are bytes from the first byte of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The magic is not there.
    NotNac,
    /// A major version that this library does not know.
    Version {
        /// The file's.
        major: u8,
        /// The library's.
        supported: u8,
    },
    /// The header is damaged.
    HeaderCrc {
        /// As in the file.
        stored: u32,
        /// Of the file's bytes.
        computed: u32,
    },
    /// A field has a value that it cannot have.
    Field {
        /// Which.
        name: &'static str,
        /// Its value.
        value: u64,
    },
    /// Codes are coded by a method that this library does not know.
    Method(u8),
    /// The file was made with another model.
    WrongModel {
        /// Fingerprint that the file names.
        file: [u8; 16],
        /// Fingerprint of the model at hand.
        model: [u8; 16],
    },
    /// The bytes end in the middle of something.
    Truncated {
        /// Where that begins.
        offset: u64,
        /// Bytes that it has.
        needed: usize,
        /// Bytes that are there.
        got: usize,
    },
    /// No chunk begins where one should.
    Sync {
        /// Chunks before it.
        index: u64,
        /// Where it should begin.
        offset: u64,
    },
    /// A chunk's field has a value that it cannot have.
    ChunkField {
        /// The chunk, from 0.
        index: u64,
        /// Where it begins.
        offset: u64,
        /// Which field.
        name: &'static str,
        /// Its value.
        value: u64,
    },
    /// A chunk is damaged.
    ChunkCrc {
        /// The chunk, from 0.
        index: u64,
        /// Where it begins.
        offset: u64,
        /// The frame that it should begin with.
        first_frame: u64,
        /// Its frames, by its own word.
        frames: u16,
    },
    /// Chunks are missing, or not in order.
    Order {
        /// The chunk, from 0.
        index: u64,
        /// Where it begins.
        offset: u64,
        /// The frame that comes next, modulo 2^32.
        expected: u32,
        /// The chunk's first frame, modulo 2^32.
        found: u32,
    },
    /// A code is not below its codebook's size.
    Code {
        /// Frame, from the start of the stream.
        frame: u64,
        /// Which of the frame's codes.
        position: usize,
        /// The code.
        code: u16,
        /// Entries of the codebook.
        size: u32,
    },
    /// Codes do not make whole frames.
    Codes {
        /// Codes given.
        codes: usize,
        /// Codes of a frame.
        per_frame: usize,
    },
    /// A segment's scale is not finite.
    Scale,
    /// An entry of the seek table contradicts the file.
    Seek {
        /// Frame of the entry.
        frame: u64,
        /// Offset of the entry.
        offset: u64,
    },
    /// There is something after the end.
    Trailing {
        /// Where the file should end.
        offset: u64,
    },
    /// A buffer of the caller's is too short.
    Buffer {
        /// Elements that it must hold.
        needed: usize,
        /// Elements that it holds.
        got: usize,
    },
    /// A call out of its order; the text says what must come first.
    State(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotNac => f.write_str("not a .nac file: it does not begin with the .nac magic"),
            Self::Version { major, supported } => write!(
                f,
                "the file is of .nac version {major}, this library reads version {supported}: use a newer library"
            ),
            Self::HeaderCrc { stored, computed } => write!(
                f,
                "the header is damaged (its CRC is {stored:08x}, that of its bytes {computed:08x}): take another copy of the file"
            ),
            Self::Field { name, value } => write!(f, "{name} is {value}, which is out of range"),
            Self::Method(method) => {
                write!(f, "the codes are coded by method {method}, which this library does not know: use a newer one")
            }
            Self::WrongModel { file, model } => {
                f.write_str("the file was made with model ")?;
                hex(f, file)?;
                f.write_str(" and cannot be decoded with model ")?;
                hex(f, model)
            }
            Self::Truncated { offset, needed, got } => write!(
                f,
                "the file is cut off: at byte {offset} begins something of {needed} bytes, of which {got} are there"
            ),
            Self::Sync { index, offset } => {
                write!(f, "damaged at byte {offset}: chunk {index} should begin there; salvage can go on behind it")
            }
            Self::ChunkField { index, offset, name, value } => {
                write!(f, "chunk {index} at byte {offset} is damaged or of a newer version: its {name} is {value}")
            }
            Self::ChunkCrc { index, offset, first_frame, frames } => write!(
                f,
                "chunk {index} at byte {offset} is damaged (CRC): {frames} frames from frame {first_frame} on; salvage can go on behind it"
            ),
            Self::Order { index, offset, expected, found } => write!(
                f,
                "chunk {index} at byte {offset} begins with frame {found} where frame {expected} is due: chunks are missing or out of order"
            ),
            Self::Code { frame, position, code, size } => {
                write!(f, "code {position} of frame {frame} is {code}, but its codebook has {size} entries")
            }
            Self::Codes { codes, per_frame } => write!(f, "{codes} codes are not whole frames of {per_frame} codes"),
            Self::Scale => f.write_str("a segment's scale is not a finite number"),
            Self::Seek { frame, offset } => {
                write!(
                    f,
                    "the seek table is wrong about frame {frame} at byte {offset}: read the file in order instead"
                )
            }
            Self::Trailing { offset } => write!(f, "the file should end at byte {offset}, but goes on"),
            Self::Buffer { needed, got } => write!(f, "a buffer holds {got} elements and needs {needed}"),
            Self::State(text) => f.write_str(text),
        }
    }
}

impl core::error::Error for Error {}

fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}

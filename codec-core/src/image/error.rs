//! Why an image cannot be used.

use core::fmt;

/// Why an image cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageError {
    /// The bytes do not start as an image does.
    NotAnImage,
    /// An image of another version.
    Version {
        /// Its version.
        found: u32,
    },
    /// Fewer bytes than the image has.
    Truncated {
        /// Bytes of the image.
        needed: u64,
        /// Bytes there are.
        got: u64,
    },
    /// The checksum is not that of the bytes.
    Damaged,
    /// The bytes do not start at a multiple of this address.
    Misaligned {
        /// Bytes.
        align: usize,
    },
    /// Its checksum is right but its contents contradict each other: it was not written by this program.
    Inconsistent(&'static str),
    /// The image does not have this part.
    Missing(&'static str),
    /// Images are little-endian, and read in place.
    BigEndian,
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnImage => f.write_str("not a model image; `codec pack` makes one"),
            Self::Version { found } => write!(
                f,
                "a model image of version {found}; this build reads version {}: pack the model again",
                super::IMAGE_VERSION
            ),
            Self::Truncated { needed, got } => {
                write!(f, "the model image has {needed} bytes, of which {got} are there")
            }
            Self::Damaged => f.write_str("the model image is damaged: its checksum does not match"),
            Self::Misaligned { align } => write!(f, "the model image must lie at a multiple of {align} bytes"),
            Self::Inconsistent(what) => write!(f, "the model image contradicts itself: {what}"),
            Self::Missing(what) => write!(f, "the model image has no {what}: it was packed without"),
            Self::BigEndian => f.write_str("model images can be used on little-endian machines only"),
        }
    }
}

impl core::error::Error for ImageError {}

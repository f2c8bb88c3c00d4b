//! What there is to run: in flash, and with what the host made of it.

/// Bytes that start at a cache line, as a model's image wants.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

macro_rules! file {
    ($name:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $name))
    };
}

#[unsafe(link_section = ".model.image")]
static MODEL_FILE: Aligned<[u8; file!("model.bin").len()]> = Aligned(*file!("model.bin"));
#[unsafe(link_section = ".model.stream")]
static STREAM_FILE: [u8; file!("stream.nac").len()] = *file!("stream.nac");
#[cfg(feature = "encoder")]
#[unsafe(link_section = ".model.pcm")]
static PCM_FILE: [u8; file!("pcm.s16").len()] = *file!("pcm.s16");

/// A deploy image.
pub static MODEL: &[u8] = &MODEL_FILE.0;
/// A stream for the decoder.
pub static STREAM: &[u8] = &STREAM_FILE;
/// CRC-32C of the samples that the host decodes from it, as little-endian f32.
pub const STREAM_CRC: u32 = u32::from_le_bytes(*file!("crc.u32"));

/// Bytes of state and scratch memory that suffice for both coders, one at a time.
pub const MEMORY: usize = u32::from_le_bytes(*file!("state.u32")) as usize;

/// A signal for the encoder.
#[cfg(feature = "encoder")]
pub fn pcm() -> impl ExactSizeIterator<Item = f32> {
    PCM_FILE.chunks_exact(2).map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32768.0)
}

/// The codes that the host makes of it.
#[cfg(feature = "encoder")]
pub fn codes() -> impl ExactSizeIterator<Item = u16> {
    file!("codes.u16").chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]))
}

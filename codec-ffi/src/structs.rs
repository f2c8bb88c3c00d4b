//! Structs that begin with their size.

use std::{
    ffi::c_void,
    mem::{MaybeUninit, offset_of},
};

use crate::{args, codec_status::*, status::Failure};

/// The number of samples or frames is not known.
pub const CODEC_UNKNOWN: u64 = u64::MAX;
/// For `threads`: as many as the machine has.
pub const CODEC_ALL_THREADS: u32 = u32::MAX;
/// More threads than this are an error.
pub const CODEC_MAX_THREADS: u32 = 1024;

/// How to encode.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct codec_encoder_options {
    /// sizeof(codec_encoder_options).
    pub struct_size: usize,
    /// Codes a frame; 0: all that the model has, from `first_codebook` on.
    pub codebooks: u32,
    /// The model's codebook of the first code that is given out; 0: the model's first. A codebook whose codes come several times
    /// in a frame counts once.
    pub first_codebook: u32,
    /// Width of the codebook search over residual stages, at most 64; 0 or 1: the greedy search of the published systems.
    pub beam: u32,
    /// Codebooks, from the first on, that are encoded at half the rate; 0: none.
    pub merged_codebooks: u32,
    /// Threads to compute with; 0: the calling one. Results do not depend on it.
    pub threads: u32,
    /// For codec_encoder_init: frames that are worked on at once; 0: one. More are faster and take more memory.
    pub step_frames: u32,
    /// Bytes that the signal may take beside the model; 0: 4 GiB, and for codec_encoder_init, whose memory is the caller's, no
    /// limit.
    pub max_memory: u64,
}

/// How to decode.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct codec_decoder_options {
    /// sizeof(codec_decoder_options).
    pub struct_size: usize,
    /// Codes a frame; 0: all that the model has, from `first_codebook` on.
    pub codebooks: u32,
    /// The model's codebook of the first code, as codec_nac_info has it; 0: the model's first. A codebook whose codes come several
    /// times in a frame counts once.
    pub first_codebook: u32,
    /// Threads to compute with; 0: the calling one. Results do not depend on it.
    pub threads: u32,
    /// For codec_decoder_init: frames that are worked on at once; 0: one. More are faster and take more memory.
    pub step_frames: u32,
    /// 1: `noise_seed` is the seed of the noise that the decoder adds, for models that add some (SNAC), else
    /// CODEC_ERROR_UNSUPPORTED; 0: the model's own, which in imported models is no noise.
    pub has_noise_seed: u32,
    /// 0.
    pub reserved: u32,
    /// The same seed and codes give the same samples.
    pub noise_seed: u64,
    /// Bytes that the signal may take beside the model; 0: 4 GiB, and for codec_decoder_init, whose memory is the caller's, no
    /// limit.
    pub max_memory: u64,
}

/// What a model is.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct codec_model_info {
    /// sizeof(codec_model_info), set by the caller.
    pub struct_size: usize,
    /// Hz.
    pub sample_rate: u32,
    /// Audio channels.
    pub channels: u32,
    /// Samples that a frame stands for.
    pub hop: u32,
    /// Codes of a frame, at most.
    pub codebooks: u32,
    /// 1 if the model has an encoder.
    pub can_encode: u32,
    /// 1 if the model has a decoder and its quantizer an inverse.
    pub can_decode: u32,
    /// Samples of a segment, for a model that cuts signals into segments; else 0.
    pub segment_samples: u32,
    /// Samples from the start of a segment to that of the next; 0 without segments.
    pub segment_stride: u32,
    /// What names the model in .nac files.
    pub fingerprint: [u8; 16],
    /// A codec_unit: how the encoder takes a signal. Of CODEC_UNIT_STEP, codec_encoder_init takes the model.
    pub encoder_unit: u32,
    /// A codec_unit: how the decoder takes a signal. Of CODEC_UNIT_STEP, codec_decoder_init takes the model.
    pub decoder_unit: u32,
    /// A codec_precision.
    pub precision: u32,
    /// 0.
    pub reserved: u32,
}

/// What an encoder or a decoder works on at once, and so when it gives something, and what it keeps of a signal.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum codec_unit {
    /// There is none.
    CODEC_UNIT_NONE = 0,
    /// Pieces of any size: it streams, in constant memory.
    CODEC_UNIT_STEP = 1,
    /// Segments of a fixed length that overlap, each with a scale.
    CODEC_UNIT_SEGMENT = 2,
    /// Windows of a fixed length that overlap, whose codes join into one stream.
    CODEC_UNIT_WINDOW = 3,
    /// The whole signal: everything comes at the end, and memory grows with the signal.
    CODEC_UNIT_SIGNAL = 4,
}

/// How the weights of a model's networks are held.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum codec_precision {
    /// One that this library has no name for.
    CODEC_PRECISION_OTHER = 0,
    /// As they are stored: in 32 bits, and tensors of 16-bit floats as such.
    CODEC_PRECISION_F32 = 1,
    /// In 16-bit floats.
    CODEC_PRECISION_F16 = 2,
}

/// A segment of the frames that an encoder gave.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct codec_segment {
    /// Frames of the segment.
    pub frames: usize,
    /// What its decoded samples are multiplied by.
    pub scale: f32,
}

/// How to write a .nac file.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct codec_nac_writer_options {
    /// sizeof(codec_nac_writer_options).
    pub struct_size: usize,
    /// Codes a frame; 0: all that the model has, from `first_codebook` on.
    pub codebooks: u32,
    /// The model's codebook of the first code, as in the options of the encoder; 0: the model's first.
    pub first_codebook: u32,
    /// Frames of a chunk, at most 65535; 0: about two seconds. A chunk is what is lost by one damaged byte.
    pub chunk_frames: u32,
    /// 0.
    pub reserved: u32,
    /// Exact samples a channel, if they are known before the first frame; else 0. They go into the header.
    pub samples: u64,
}

/// How to read a .nac file.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct codec_nac_reader_options {
    /// sizeof(codec_nac_reader_options).
    pub struct_size: usize,
    /// 1: pass over damage and report it as CODEC_NAC_LOST; 0: damage is an error.
    pub salvage: u32,
    /// 0.
    pub reserved: u32,
}

/// The header of a .nac file.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct codec_nac_info {
    /// sizeof(codec_nac_info), set by the caller.
    pub struct_size: usize,
    /// Hz.
    pub sample_rate: u32,
    /// Audio channels.
    pub channels: u32,
    /// Samples that a frame stands for.
    pub hop: u32,
    /// Codes of a frame.
    pub codebooks: u32,
    /// Exact samples a channel, or CODEC_UNKNOWN; then the end may tell. A hostile file says anything here: do not size
    /// memory by it.
    pub samples: u64,
    /// 1 if frames come in segments, each with a scale.
    pub segmented: u32,
    /// The model's codebook of the first code of a frame: what `first_codebook` of a decoder's options must be.
    pub first_codebook: u32,
    /// The model that made the codes.
    pub fingerprint: [u8; 16],
}

/// What an item of a .nac file is.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum codec_nac_kind {
    /// Frames; in a file with segments, one whole segment.
    CODEC_NAC_FRAMES = 1,
    /// Frames that are not there. Do not fill a gap without a limit: a short hostile file can claim billions.
    CODEC_NAC_LOST = 2,
    /// The end; every later call gives it again.
    CODEC_NAC_END = 3,
}

/// What comes out of a .nac file.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct codec_nac_item {
    /// sizeof(codec_nac_item), set by the caller.
    pub struct_size: usize,
    /// A codec_nac_kind.
    pub kind: u32,
    /// The segment's scale; 1 in a file without segments.
    pub scale: f32,
    /// The first frame, from the start of the file; at the end, the number of frames.
    pub first_frame: u64,
    /// Frames; of a loss, CODEC_UNKNOWN if all to the end are lost; 0 at the end.
    pub frames: u64,
    /// frames * codebooks codes, each below its codebook's size in the file's header. They belong to the reader and stay until the next
    /// call with it. Null if this is no CODEC_NAC_FRAMES.
    pub codes: *const u16,
    /// At the end, the exact samples a channel, or CODEC_UNKNOWN; CODEC_UNKNOWN before.
    pub samples: u64,
}

/// Reads up to `len` bytes to `data`. Returns how many, 0 at the end, or a negative number, which ends the call with
/// CODEC_ERROR_IO.
pub type codec_read = Option<unsafe extern "C" fn(user: *mut c_void, data: *mut c_void, len: usize) -> i64>;
/// Writes up to `len` bytes. Returns how many, at least 1, or a negative number, which ends the call with
/// CODEC_ERROR_IO.
pub type codec_write = Option<unsafe extern "C" fn(user: *mut c_void, data: *const c_void, len: usize) -> i64>;
/// Goes to `offset` from where `whence` (a codec_whence) says. Returns the position from the start, or a negative number,
/// which ends the call with CODEC_ERROR_IO.
pub type codec_seek = Option<unsafe extern "C" fn(user: *mut c_void, offset: i64, whence: i32) -> i64>;

/// Where a codec_seek counts from; the numbers are those of SEEK_SET, SEEK_CUR and SEEK_END on all usual systems.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum codec_whence {
    /// The start.
    CODEC_SEEK_START = 0,
    /// Where it stands.
    CODEC_SEEK_CURRENT = 1,
    /// The end.
    CODEC_SEEK_END = 2,
}

/// A file, socket or memory of the caller's. The functions are called by the thread that calls the library, in that call. They must
/// return (no longjmp, no C++ exception) and must not use the reader or writer they serve.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct codec_io {
    /// sizeof(codec_io).
    pub struct_size: usize,
    /// Handed to the functions as it is.
    pub user: *mut c_void,
    /// Needed to read.
    pub read: codec_read,
    /// Needed to write.
    pub write: codec_write,
    /// Needed to go to a frame of a file that is read. For a file that is written it lets the header state the number of
    /// samples too; without it only the end does.
    pub seek: codec_seek,
}

/// A struct that begins with its size in bytes, a `usize`.
///
/// # Safety
/// `repr(C)`; `struct_size` comes first; any bytes are a value, and zeros are one.
pub(crate) unsafe trait Grows: Copy {
    /// Name in C.
    const NAME: &'static str;
    /// The size of its first version: up to the end of the field that was the last one then.
    const FIRST: usize;
}

macro_rules! grows {
    ($($name:ident up to $last:ident: $type:ty),* $(,)?) => {$(
        // SAFETY: `repr(C)`, `struct_size` first, and fields that are numbers, pointers or optional functions.
        unsafe impl Grows for $name {
            const NAME: &'static str = stringify!($name);
            const FIRST: usize = offset_of!($name, $last) + size_of::<$type>();
        }
    )*};
}

grows! {
    codec_encoder_options up to max_memory: u64,
    codec_decoder_options up to max_memory: u64,
    codec_model_info up to reserved: u32,
    codec_nac_writer_options up to samples: u64,
    codec_nac_reader_options up to reserved: u32,
    codec_nac_info up to fingerprint: [u8; 16],
    codec_nac_item up to samples: u64,
    codec_io up to seek: codec_seek,
}

/// Fails if a field without a meaning is set.
pub(crate) fn unused(reserved: u32) -> Result<(), Failure> {
    match reserved {
        0 => Ok(()),
        n => Err(Failure::new(CODEC_ERROR_ARGUMENT, format!("`reserved` is {n}; it must be 0"))),
    }
}

/// The most that a struct can grow to.
const LARGEST: usize = 4096;

/// The size that a struct states.
///
/// # Safety
/// A pointer that is neither null nor misaligned is valid for the size that stands there.
unsafe fn size<T: Grows>(ptr: *const T) -> Result<usize, Failure> {
    args::check(ptr, 0, T::NAME)?;
    // SAFETY: not null, aligned, and valid by this function's condition.
    let size = unsafe { ptr.cast::<usize>().read() };
    if !(T::FIRST..=LARGEST).contains(&size) {
        let text = format!(
            "struct_size of a {} is {size}; this library knows {} to {}: set it to the struct's sizeof",
            T::NAME,
            T::FIRST,
            size_of::<T>()
        );
        return Err(Failure::new(CODEC_ERROR_STRUCT_SIZE, text));
    }
    Ok(size)
}

/// A struct of any version: fields that it does not have are zero.
///
/// # Safety
/// As [`size`].
pub(crate) unsafe fn read<T: Grows>(ptr: *const T) -> Result<T, Failure> {
    // SAFETY: this function's condition.
    let size = unsafe { size(ptr)? };
    let known = size.min(size_of::<T>());
    // SAFETY: `size` bytes are valid by this function's condition.
    if (known..size).any(|i| unsafe { ptr.cast::<u8>().add(i).read() } != 0) {
        let text =
            format!("a {} of {size} bytes has fields set that this library does not know: use a newer one", T::NAME);
        return Err(Failure::new(CODEC_ERROR_STRUCT_SIZE, text));
    }
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: `known` bytes are valid there and fit here, where zeros and any bytes are a value of `T`.
    unsafe {
        ptr.cast::<u8>().copy_to_nonoverlapping(value.as_mut_ptr().cast(), known);
        Ok(value.assume_init())
    }
}

/// As [`read`]; null is all zeros, which stands for the defaults.
///
/// # Safety
/// As [`size`].
pub(crate) unsafe fn options<T: Grows>(ptr: *const T) -> Result<T, Failure> {
    if ptr.is_null() {
        // SAFETY: zeros are a value of `T`.
        return Ok(unsafe { MaybeUninit::zeroed().assume_init() });
    }
    // SAFETY: this function's condition.
    unsafe { read(ptr) }
}

/// Writes a struct of any version: what the caller's does not have is left out, what only the caller's has is zero.
///
/// # Safety
/// As [`size`], and the bytes may be written.
pub(crate) unsafe fn write<T: Grows>(ptr: *mut T, value: &T) -> Result<(), Failure> {
    // SAFETY: this function's condition.
    let size = unsafe { size(ptr)? };
    let known = size.min(size_of::<T>());
    let skip = size_of::<usize>();
    // SAFETY: `size` bytes may be written there, and `known` are here. The size itself stays.
    unsafe {
        let (to, from) = (ptr.cast::<u8>(), std::ptr::from_ref(value).cast::<u8>());
        from.add(skip).copy_to_nonoverlapping(to.add(skip), known - skip);
        to.add(known).write_bytes(0, size - known);
    }
    Ok(())
}

use std::ffi::c_char;

use codec::{
    Error,
    core::{BuildError, RunError, bitstream},
    model_file::ModelFileError,
    tokens::TokenError,
};

/// What a call returns: CODEC_OK, or a negative error.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum codec_status {
    /// Done.
    CODEC_OK = 0,
    /// A pointer is null that must not be.
    CODEC_ERROR_NULL = -1,
    /// A pointer does not have the alignment of its type.
    CODEC_ERROR_MISALIGNED = -2,
    /// Something that is written overlaps another argument.
    CODEC_ERROR_OVERLAP = -3,
    /// A value is out of its range.
    CODEC_ERROR_ARGUMENT = -4,
    /// A struct_size that this library does not know, or a newer struct with fields set that it does not know.
    CODEC_ERROR_STRUCT_SIZE = -5,
    /// Not a handle of this kind, or destroyed.
    CODEC_ERROR_HANDLE = -6,
    /// Another call with this handle is under way.
    CODEC_ERROR_BUSY = -7,
    /// A buffer of the caller's is too short; nothing was taken or written.
    CODEC_ERROR_BUFFER_TOO_SHORT = -8,
    /// The signal would take more memory than max_memory allows.
    CODEC_ERROR_MEMORY = -9,
    /// A file or a callback failed.
    CODEC_ERROR_IO = -10,
    /// Not a model, damaged, or of another version.
    CODEC_ERROR_MODEL = -11,
    /// This build has no built-in model.
    CODEC_ERROR_NO_DEFAULT_MODEL = -12,
    /// The codes were made with another model.
    CODEC_ERROR_WRONG_MODEL = -13,
    /// The model or the stream cannot do this.
    CODEC_ERROR_UNSUPPORTED = -14,
    /// A sample is NaN or infinite.
    CODEC_ERROR_SAMPLES = -15,
    /// A code is not below its codebook's size, or codes do not fit the model otherwise.
    CODEC_ERROR_CODES = -16,
    /// The signal or file was finished.
    CODEC_ERROR_FINISHED = -17,
    /// A call out of its order.
    CODEC_ERROR_STATE = -18,
    /// Not a .nac file, damaged, cut off, or of a newer version.
    CODEC_ERROR_FORMAT = -19,
    /// The system gives no threads.
    CODEC_ERROR_THREADS = -20,
    /// A bug in the library. The handle takes no other call than its destruction.
    CODEC_ERROR_INTERNAL = -21,
}

use codec_status::*;

const TEXTS: [(codec_status, &str); 22] = [
    (CODEC_OK, "no error\0"),
    (CODEC_ERROR_NULL, "a pointer is null that must not be\0"),
    (CODEC_ERROR_MISALIGNED, "a pointer does not have the alignment of its type\0"),
    (CODEC_ERROR_OVERLAP, "something that is written overlaps another argument\0"),
    (CODEC_ERROR_ARGUMENT, "a value is out of its range\0"),
    (CODEC_ERROR_STRUCT_SIZE, "struct_size is not one that this library knows; set it to the struct's sizeof\0"),
    (CODEC_ERROR_HANDLE, "not a handle of this kind, or destroyed\0"),
    (CODEC_ERROR_BUSY, "another call with this handle is under way\0"),
    (CODEC_ERROR_BUFFER_TOO_SHORT, "a buffer is too short\0"),
    (CODEC_ERROR_MEMORY, "the signal would take more memory than max_memory allows\0"),
    (CODEC_ERROR_IO, "a file or a callback failed\0"),
    (CODEC_ERROR_MODEL, "not a model file, damaged, or of another version\0"),
    (CODEC_ERROR_NO_DEFAULT_MODEL, "this build has no built-in model; open a model file\0"),
    (CODEC_ERROR_WRONG_MODEL, "the codes were made with another model\0"),
    (CODEC_ERROR_UNSUPPORTED, "the model or the stream cannot do this\0"),
    (CODEC_ERROR_SAMPLES, "a sample is NaN or infinite\0"),
    (CODEC_ERROR_CODES, "codes that do not fit the model\0"),
    (CODEC_ERROR_FINISHED, "the signal or file was finished\0"),
    (CODEC_ERROR_STATE, "a call out of its order\0"),
    (CODEC_ERROR_FORMAT, "not a .nac file, damaged, cut off, or of a newer version\0"),
    (CODEC_ERROR_THREADS, "the system gives no threads\0"),
    (CODEC_ERROR_INTERNAL, "internal error, please report it\0"),
];

/// What a status means, in a few words; never null. The last error of a handle says more.
#[unsafe(no_mangle)]
pub extern "C" fn codec_strerror(status: i32) -> *const c_char {
    let text = TEXTS.iter().find(|(known, _)| *known as i32 == status).map_or("unknown error\0", |(_, text)| text);
    text.as_ptr().cast()
}

/// An error on its way out.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: codec_status,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(status: codec_status, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::ModelFile(ModelFileError::Io { .. }) | Error::Io { .. } => CODEC_ERROR_IO,
            Error::ModelFile(_) | Error::Image(_) => CODEC_ERROR_MODEL,
            Error::Build(e) => return e.clone().into(),
            Error::Run(e) => return (*e).into(),
            Error::Memory { .. } | Error::SignalMemory { .. } => CODEC_ERROR_MEMORY,
            Error::CodesPerFrame { .. }
            | Error::Segment { .. }
            | Error::NoSegment { .. }
            | Error::Segments { .. }
            | Error::Length { .. } => CODEC_ERROR_CODES,
            Error::Isa(_) => CODEC_ERROR_UNSUPPORTED,
            Error::Threads(_) => CODEC_ERROR_THREADS,
            _ => CODEC_ERROR_INTERNAL,
        };
        Self::new(status, error.to_string())
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        let status = match error {
            BuildError::NoEncoder(_) | BuildError::NoDecoder(_) => CODEC_ERROR_UNSUPPORTED,
            _ => CODEC_ERROR_MODEL,
        };
        Self::new(status, error.to_string())
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let status = match error {
            RunError::BufferTooShort { .. } => CODEC_ERROR_BUFFER_TOO_SHORT,
            RunError::CodeOutOfRange { .. } => CODEC_ERROR_CODES,
            RunError::PartialRow { .. } | RunError::Codebooks { .. } | RunError::Level { .. } => CODEC_ERROR_ARGUMENT,
            RunError::NotFinite { .. } => CODEC_ERROR_SAMPLES,
            RunError::Unsupported(_) => CODEC_ERROR_UNSUPPORTED,
            RunError::Misaligned { .. } => CODEC_ERROR_MISALIGNED,
            RunError::Uninitialized => CODEC_ERROR_HANDLE,
            RunError::Finished => CODEC_ERROR_FINISHED,
            RunError::TooLong { .. } => CODEC_ERROR_ARGUMENT,
            _ => CODEC_ERROR_INTERNAL,
        };
        Self::new(status, error.to_string())
    }
}

impl From<bitstream::Error> for Failure {
    fn from(error: bitstream::Error) -> Self {
        let status = match error {
            bitstream::Error::WrongModel { .. } => CODEC_ERROR_WRONG_MODEL,
            bitstream::Error::Code { .. } | bitstream::Error::Codes { .. } => CODEC_ERROR_CODES,
            bitstream::Error::Scale => CODEC_ERROR_ARGUMENT,
            bitstream::Error::State(_) => CODEC_ERROR_STATE,
            _ => CODEC_ERROR_FORMAT,
        };
        Self::new(status, error.to_string())
    }
}

impl From<codec::nac::Error> for Failure {
    fn from(error: codec::nac::Error) -> Self {
        match error {
            codec::nac::Error::Format(e) => e.into(),
            other => Self::new(CODEC_ERROR_IO, other.to_string()),
        }
    }
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Io(e) => Self::new(CODEC_ERROR_IO, e.to_string()),
            TokenError::Nac(e) => e.into(),
            other => Self::new(CODEC_ERROR_FORMAT, other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    #[test]
    fn every_status_has_its_text_in_order() {
        for (i, (status, text)) in TEXTS.iter().enumerate() {
            assert_eq!(*status as i32, -(i as i32));
            assert!(CStr::from_bytes_with_nul(text.as_bytes()).is_ok(), "{text:?}");
        }
        // SAFETY: codec_strerror returns static texts that end in a zero.
        let text = |status| unsafe { CStr::from_ptr(codec_strerror(status)) }.to_str().unwrap();
        assert_eq!(text(-7), "another call with this handle is under way");
        assert_eq!(text(1), "unknown error");
        assert_eq!(text(i32::MIN), "unknown error");
    }
}

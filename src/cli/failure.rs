use std::{fmt, path::Path, process::ExitCode};

use codec::{
    Error,
    audio::AudioError,
    tokens::{ShapeError, TokenError},
};

/// What went wrong, and what to do next: an `error:` line and a `help:` line.
#[derive(Clone, Debug)]
pub struct Failure {
    message: String,
    help: String,
    code: u8,
}

impl Failure {
    /// An input or the processing failed.
    pub fn new(message: impl fmt::Display, help: impl fmt::Display) -> Self {
        // A message that came from a file name or a library stays one line.
        let one_line = |text: String| text.replace(['\n', '\r'], " ");
        Self { message: one_line(message.to_string()), help: one_line(help.to_string()), code: 1 }
    }

    /// As [`Failure::new`], with a message that is a list.
    pub fn lines(message: impl fmt::Display, help: impl fmt::Display) -> Self {
        Self { message: message.to_string(), ..Self::new("", help) }
    }

    /// The command was given wrongly.
    pub fn usage(message: impl fmt::Display, help: impl fmt::Display) -> Self {
        Self { code: 2, ..Self::new(message, help) }
    }

    /// 1, or 2 for wrong usage.
    pub fn exit_code(&self) -> ExitCode {
        self.code.into()
    }

    /// What went wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do next.
    pub fn help(&self) -> &str {
        &self.help
    }

    /// Reading `path` failed.
    pub fn read(path: &Path, error: &std::io::Error) -> Self {
        let help = match error.kind() {
            std::io::ErrorKind::NotFound => "check the path",
            std::io::ErrorKind::PermissionDenied => "check that you may read it",
            _ => "check the file and the disk it is on",
        };
        Self::new(format_args!("cannot read {}: {error}", path.display()), help)
    }

    /// Writing `path` failed.
    pub fn write(path: &Path, error: &std::io::Error) -> Self {
        let help = match error.kind() {
            std::io::ErrorKind::NotFound => "make its folder first",
            std::io::ErrorKind::PermissionDenied => "choose a folder that you may write to",
            std::io::ErrorKind::AlreadyExists => "give --force to replace it",
            _ => "check that the disk is not full",
        };
        Self::new(format_args!("cannot write {}: {error}", path.display()), help)
    }

    /// Reading audio from `path` failed.
    pub fn audio(path: &Path, error: AudioError) -> Self {
        let help = match &error {
            AudioError::Io(e) => return Self::read(path, e),
            AudioError::Empty | AudioError::NoSamples => "give a file with at least one sample",
            AudioError::Unsupported(_) => {
                "wav, flac, mp3, ogg vorbis and m4a/aac can be read; convert others first, `ffmpeg -i IN OUT.wav` say"
            }
            AudioError::LyingHeader { .. } | AudioError::Truncated { .. } => {
                "fetch the whole file again, or rewrite it to the length it has, `ffmpeg -i IN OUT.wav` say"
            }
            AudioError::Damaged { .. } => "fetch the file again, or repair it, `ffmpeg -i IN OUT.wav` say",
            AudioError::FormatChanges { .. } => "split the file where its format changes",
            AudioError::NotFinite { .. } => "find what wrote it; every sample must be a finite number",
            AudioError::RateOutOfRange { .. } => "check the file's header",
            AudioError::RateMismatch { .. } => "give --resample to resample it, or use a model for its rate",
            AudioError::ChannelMismatch { wanted: 1, .. } => "give --downmix to mix its channels into one",
            AudioError::ChannelMismatch { found: 1, .. } => "give --upmix to copy its one channel to all",
            _ => "mix it yourself first, `ffmpeg -i IN -ac N OUT.wav` say",
        };
        Self::new(format_args!("{}: {error}", path.display()), help)
    }

    /// Reading tokens from `path` failed.
    pub fn tokens(path: &Path, error: TokenError) -> Self {
        let help = match &error {
            TokenError::Io(e) => return Self::read(path, e),
            TokenError::Empty => "give a file that `codec encode` wrote",
            TokenError::Malformed { .. } => {
                "give a .nac, .npy, .safetensors or .jsonl file of codes [codebooks, frames]; fetch it again if it was cut off"
            }
            TokenError::Nac(_) => "fetch the file again, or save what is left of it with `codec decode --salvage`",
            TokenError::Shape(error) => return Self::shape(Some(path), error),
            TokenError::NoPlaceForScales => "use .nac, .safetensors or .jsonl with this model",
            _ => "check what made the file",
        };
        Self::new(format_args!("{}: {error}", path.display()), help)
    }

    /// Codes have no such shape, or ids are not in it.
    pub fn shape(path: Option<&Path>, error: &ShapeError) -> Self {
        let help = match error {
            ShapeError::CodeOutOfRange { .. } => {
                "check what made the codes, and that --shape, --offsets and --delays are those it used"
            }
            ShapeError::NotPad { .. } | ShapeError::DelayCutShort { .. } => {
                "give the --delays and the --pad that the file was made with, or fetch the whole file again"
            }
            ShapeError::DelayTooShort { .. } => "fetch the whole file again",
            ShapeError::PartOfFrame { .. } => {
                "give the whole sequence; --codebooks says how many codes a frame of an .npy file has"
            }
            ShapeError::Delays { .. } => "give --delays one number for each code of a frame",
            ShapeError::Pad { .. } | ShapeError::PadWithoutDelay(_) => "give another --pad, or none",
            ShapeError::NoTree { .. } => "use --shape flat with this model",
            ShapeError::Other { .. } => "leave --shape away: the file says what shape it has",
            ShapeError::Segments => "use --shape grid or flat with this model",
            ShapeError::Native => "use .npy, .safetensors or .jsonl, or leave --shape, --offsets and --pad away",
            _ => "see `codec info MODEL` for the codebooks that it has",
        };
        match path {
            Some(path) => Self::new(format_args!("{}: {error}", path.display()), help),
            None => Self::usage(error, help),
        }
    }

    /// The engine failed on `path`.
    pub fn engine(path: &Path, error: Error) -> Self {
        use codec::core::{BuildError, RunError};
        let help = match &error {
            Error::Run(RunError::CodeOutOfRange { .. }) => "decode with the model that made the codes",
            Error::Run(RunError::Codebooks { .. }) => "see `codec info MODEL` for the counts it offers",
            Error::Run(RunError::NotFinite { .. }) => "every sample must be a finite number",
            Error::SignalMemory { .. } => "give a larger --max-memory",
            Error::Build(BuildError::NoEncoder(_) | BuildError::NoDecoder(_)) => "use a model that has both halves",
            Error::Memory { .. } => "give a larger --max-memory, or cut the file",
            Error::Device { .. } => "leave --device away to compute on the processor",
            Error::Isa(_) => "leave --isa and CODEC_ISA away, or name another one",
            Error::Threads(_) => "give fewer --threads",
            Error::ModelFile(_) | Error::Build(_) => "fetch or import the model again",
            _ => "see `codec info MODEL` for what the model can do",
        };
        Self::new(format_args!("{}: {error}", path.display()), help)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}\nhelp: {}", self.message, self.help)
    }
}

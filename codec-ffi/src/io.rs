//! Files of the caller's, as those of Rust.

use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};

use crate::{codec_io, codec_status::CODEC_ERROR_NULL, codec_whence, status::Failure};

/// Where a `.nac` file comes from.
pub(crate) enum Input {
    Memory(Cursor<&'static [u8]>),
    Calls(Calls),
}

/// Where a `.nac` file goes.
pub(crate) enum Output {
    Memory(Cursor<Vec<u8>>),
    Calls(Calls),
}

/// Callbacks.
pub(crate) struct Calls {
    io: codec_io,
}

impl Calls {
    /// Callbacks to read.
    pub(crate) fn to_read(io: codec_io) -> Result<Self, Failure> {
        if io.read.is_none() {
            return Err(Failure::new(CODEC_ERROR_NULL, "`read` of the codec_io is null"));
        }
        Ok(Self { io })
    }

    /// Callbacks to write.
    pub(crate) fn to_write(io: codec_io) -> Result<Self, Failure> {
        if io.write.is_none() {
            return Err(Failure::new(CODEC_ERROR_NULL, "`write` of the codec_io is null"));
        }
        Ok(Self { io })
    }

    pub(crate) fn can_seek(&self) -> bool {
        self.io.seek.is_some()
    }
}

/// How many of `len` bytes a callback did.
fn count(name: &str, done: i64, len: usize) -> io::Result<usize> {
    match usize::try_from(done) {
        Ok(done) if done <= len => Ok(done),
        Ok(done) => Err(io::Error::other(format!("the {name} callback returned {done} for {len} bytes"))),
        Err(_) => Err(io::Error::other(format!("the {name} callback returned {done}"))),
    }
}

fn missing(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("there is no {name} callback"))
}

impl Read for Calls {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.io.read.ok_or_else(|| missing("read"))?;
        // SAFETY: the caller's function keeps to its documentation: it writes at most `len` bytes there.
        let done = unsafe { read(self.io.user, buf.as_mut_ptr().cast(), buf.len()) };
        count("read", done, buf.len())
    }
}

impl Write for Calls {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let write = self.io.write.ok_or_else(|| missing("write"))?;
        // SAFETY: the caller's function keeps to its documentation: it reads at most `len` bytes there.
        let done = unsafe { write(self.io.user, buf.as_ptr().cast(), buf.len()) };
        count("write", done, buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Calls {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        let seek = self.io.seek.ok_or_else(|| missing("seek"))?;
        let far = |_| io::Error::other("a position past 2^63");
        let (offset, whence) = match pos {
            SeekFrom::Start(at) => (i64::try_from(at).map_err(far)?, codec_whence::CODEC_SEEK_START),
            SeekFrom::Current(by) => (by, codec_whence::CODEC_SEEK_CURRENT),
            SeekFrom::End(by) => (by, codec_whence::CODEC_SEEK_END),
        };
        // SAFETY: the caller's function keeps to its documentation.
        let position = unsafe { seek(self.io.user, offset, whence as i32) };
        u64::try_from(position).map_err(|_| io::Error::other(format!("the seek callback returned {position}")))
    }
}

impl Read for Input {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Memory(memory) => memory.read(buf),
            Self::Calls(calls) => calls.read(buf),
        }
    }
}

impl Seek for Input {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        match self {
            Self::Memory(memory) => memory.seek(pos),
            Self::Calls(calls) => calls.seek(pos),
        }
    }
}

impl Write for Output {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Memory(memory) => memory.write(buf),
            Self::Calls(calls) => calls.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Output {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        match self {
            Self::Memory(memory) => memory.seek(pos),
            Self::Calls(calls) => calls.seek(pos),
        }
    }
}

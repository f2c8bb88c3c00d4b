//! Files as bytes, without reading them first.

use std::{fs::File, io, path::Path};

use memmap2::Mmap;

/// Maps a file read-only.
///
/// As with every reader of mapped files, the file must not be cut short by somebody else while it is open.
#[allow(unsafe_code)]
pub(crate) fn map(path: &Path) -> io::Result<Mmap> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    // SAFETY: the mapping is private and read-only, so nothing here writes to it. What another process does to the
    // file is outside of this program's control; every value read from the map is checked as untrusted input.
    unsafe { Mmap::map(&file) }
}

//! Files for targets that read files.
#![allow(dead_code)]

use std::{fs, path::Path, sync::OnceLock};

/// Calls `f` with a file of these bytes and the folder in which it lies; in memory where the system has such a place.
pub fn with_file<R>(bytes: &[u8], f: impl FnOnce(&Path, &Path) -> R) -> R {
    let folder = folder();
    let path = folder.join("input");
    fs::write(&path, bytes).unwrap();
    f(&path, folder)
}

/// A folder of this process.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let make = || {
        let memory = Path::new("/dev/shm");
        let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        made.unwrap()
    };
    FOLDER.get_or_init(make).path()
}

//! Output that appears whole or not at all.

use std::{
    collections::BTreeSet,
    fs::File,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use tempfile::NamedTempFile;

use super::Failure;

static TEMPORARIES: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// On Ctrl-C, a hang-up or a request to end: removes what is half written and exits with 130.
pub fn remove_temporaries_on_interrupt() {
    // Without a handler the program still works; only temporary files stay behind when it is killed.
    let _ = ctrlc::set_handler(|| {
        let paths = TEMPORARIES.lock().unwrap_or_else(PoisonError::into_inner);
        for path in paths.iter() {
            let _ = std::fs::remove_file(path);
        }
        std::process::exit(130);
    });
}

/// A file that is written beside its final place and renamed when complete; dropped before that, it is removed.
pub struct Output {
    // Dropped, and so removed, before it is taken off the list.
    temporary: Option<NamedTempFile>,
    listed: PathBuf,
    path: PathBuf,
    force: bool,
}

impl Output {
    /// Opens a temporary file in the folder of `path`.
    ///
    /// # Errors
    /// If `path` exists and `force` is not given, or the folder cannot be written to.
    pub fn create(path: &Path, force: bool) -> Result<Self, Failure> {
        check_free(path, force)?;
        let folder = folder_of(path);
        let mut builder = tempfile::Builder::new();
        builder.prefix(".codec-").suffix(".part");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // What any new file gets; the umask applies.
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let mut temporaries = TEMPORARIES.lock().unwrap_or_else(PoisonError::into_inner);
        let temporary = builder.tempfile_in(folder).map_err(|e| Failure::write(path, &e))?;
        let listed = temporary.path().to_owned();
        temporaries.insert(listed.clone());
        Ok(Self { temporary: Some(temporary), listed, path: path.to_owned(), force })
    }

    /// The temporary file.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn file(&self) -> Result<File, Failure> {
        match &self.temporary {
            Some(temporary) => temporary.as_file().try_clone().map_err(|e| Failure::write(&self.path, &e)),
            None => unreachable!("taken only when the output is consumed or dropped"),
        }
    }

    /// An unnamed scratch file on the same disk.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn scratch(&self) -> Result<File, Failure> {
        tempfile::tempfile_in(folder_of(&self.path)).map_err(|e| Failure::write(&self.path, &e))
    }

    /// Moves the complete file to its place, and returns its size.
    ///
    /// # Errors
    /// Those of the file system, and if a file of this name has appeared meanwhile.
    pub fn commit(mut self) -> Result<u64, Failure> {
        let Some(temporary) = self.temporary.take() else { unreachable!("consumed once") };
        let size = temporary.as_file().metadata().map_err(|e| Failure::write(&self.path, &e))?.len();
        let moved = if self.force {
            temporary.persist(&self.path).map_err(|e| e.error)
        } else {
            temporary.persist_noclobber(&self.path).map_err(|e| e.error)
        };
        moved.map_err(|e| Failure::write(&self.path, &e))?;
        Ok(size)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.temporary.take();
        TEMPORARIES.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.listed);
    }
}

/// An error if `path` exists and may not be replaced.
pub fn check_free(path: &Path, force: bool) -> Result<(), Failure> {
    if path.is_dir() {
        return Err(Failure::new(format_args!("{} is a folder", path.display()), "give the name of a file"));
    }
    if !force && path.symlink_metadata().is_ok() {
        return Err(Failure::new(format_args!("{} exists already", path.display()), "give --force to replace it"));
    }
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

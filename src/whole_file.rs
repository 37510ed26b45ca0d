//! Files that appear whole or not at all: written beside their place, then renamed.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

use crate::interrupt::Unfinished;

/// Why a file was not written. What stood at its path is as it was before.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WholeFileError {
    #[error("could not create a file beside `{path}`; check that the folder exists and may be written to")]
    Create {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("could not write `{path}`; check the free space there")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` is complete but could not be put in its place; check that no folder has that name")]
    Rename {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A file that has not taken its name yet; dropping it leaves nothing behind.
pub(crate) struct WholeFile {
    path: PathBuf,
    file: NamedTempFile,
    _unfinished: Unfinished,
}

impl WholeFile {
    /// Begins a file that will stand at `path`.
    pub(crate) fn create(path: &Path) -> Result<Self, WholeFileError> {
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let fail = |source| WholeFileError::Create { path: path.to_owned(), source };
        let mut builder = Builder::new();
        builder.prefix(".headroom-").suffix(".part");
        if let Some(permissions) = readable_by_all() {
            builder.permissions(permissions);
        }
        let (file, unfinished) =
            Unfinished::make(|| builder.tempfile_in(folder), NamedTempFile::path).map_err(fail)?;
        Ok(Self { path: path.to_owned(), file, _unfinished: unfinished })
    }

    /// Fills the file.
    pub(crate) fn write(
        &mut self,
        fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), WholeFileError> {
        let mut out: BufWriter<&mut File> = BufWriter::new(self.file.as_file_mut());
        let filled = fill(&mut out).and_then(|()| out.flush());
        filled.map_err(|source| WholeFileError::Write { path: self.path.clone(), source })
    }

    /// Where its bytes are meanwhile.
    pub(crate) fn part(&self) -> &Path {
        self.file.path()
    }

    /// Puts it in its place.
    pub(crate) fn finish(self) -> Result<(), WholeFileError> {
        let Self { path, file, _unfinished } = self;
        let synced = file.as_file().sync_all();
        synced.map_err(|source| WholeFileError::Write { path: path.clone(), source })?;
        file.persist(&path).map(drop).map_err(|error| WholeFileError::Rename { path, source: error.error })
    }
}

/// What a plain new file has, less the user's umask; a temporary file would be its owner's alone.
#[cfg(unix)]
fn readable_by_all() -> Option<Permissions> {
    use std::os::unix::fs::PermissionsExt;
    Some(Permissions::from_mode(0o666))
}

#[cfg(not(unix))]
fn readable_by_all() -> Option<Permissions> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let names = || std::fs::read_dir(folder.path()).unwrap().count();
        let mut file = WholeFile::create(&path).unwrap();
        file.write(|out| out.write_all(b"whole")).unwrap();
        assert!(!path.exists());
        file.finish().unwrap();
        assert_eq!((std::fs::read_to_string(&path).unwrap().as_str(), names()), ("whole", 1));

        let mut file = WholeFile::create(&path).unwrap();
        assert!(file.write(|_| Err(io::Error::other("full"))).is_err());
        drop(file);
        assert_eq!((std::fs::read_to_string(&path).unwrap().as_str(), names()), ("whole", 1));
        assert!(WholeFile::create(&folder.path().join("absent/a.csv")).is_err());
    }
}

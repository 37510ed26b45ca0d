//! The folder of a run's results: filled beside its place, so that an interrupted run leaves nothing half written.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::failure::{Failure, Status};
use crate::interrupt::Unfinished;

/// Results that have not taken their place yet; dropping it leaves nothing behind.
pub(crate) struct ResultFolder {
    path: PathBuf,
    staged: TempDir,
    _unfinished: Unfinished,
}

/// Why results were not written.
#[derive(Debug, thiserror::Error)]
enum ResultError {
    #[error("`{path}` is no folder; give --out a folder, or a name that is free")]
    NoFolder { path: PathBuf },
    #[error("could not create a folder beside `{path}`: {source}; check that one may be written there")]
    Create { path: PathBuf, source: io::Error },
    #[error("could not write `{path}`: {source}; check the free space there")]
    Write { path: PathBuf, source: io::Error },
    #[error("`{path}` is complete but could not be put in its place: {source}")]
    Place { path: PathBuf, source: io::Error },
}

impl From<ResultError> for Failure {
    fn from(error: ResultError) -> Self {
        Self::new(Status::Failed, "output::folder", error.to_string())
    }
}

impl ResultFolder {
    /// Begins results that will stand in `path`; called before a long run, so that a bad place is told at once.
    ///
    /// # Errors
    /// `path` is a file, or nothing can be made beside it.
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        if path.exists() && !path.is_dir() {
            return Err(ResultError::NoFolder { path: path.to_owned() }.into());
        }
        let fail = |source| ResultError::Create { path: path.to_owned(), source };
        let whole = std::path::absolute(path).map_err(fail)?;
        let beside = if whole.is_dir() { &whole } else { whole.parent().unwrap_or(&whole) };
        fs::create_dir_all(beside).map_err(fail)?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(".headroom-").suffix(".part");
        if let Some(permissions) = open_to_all() {
            builder.permissions(permissions);
        }
        let (staged, unfinished) =
            Unfinished::make(|| builder.tempdir_in(beside), TempDir::path).map_err(fail)?;
        Ok(Self { path: whole, staged, _unfinished: unfinished })
    }

    /// Where the files are meanwhile.
    pub(crate) fn staged(&self) -> &Path {
        self.staged.path()
    }

    /// Adds a text file.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn add_text(&self, name: &str, text: &str) -> Result<(), Failure> {
        let path = self.staged().join(name);
        fs::write(&path, text).map_err(|source| ResultError::Write { path: self.path.join(name), source })?;
        Ok(())
    }

    /// Puts the files in their place; those of an earlier run with other names stay.
    ///
    /// # Errors
    /// A file cannot take its name.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        let Self { path, staged, _unfinished } = self;
        let fail = |path: &Path| {
            let path = path.to_owned();
            move |source| ResultError::Place { path, source }
        };
        Unfinished::uninterrupted(|| {
            fs::create_dir_all(&path).map_err(fail(&path))?;
            for entry in fs::read_dir(staged.path()).map_err(fail(&path))? {
                let entry = entry.map_err(fail(&path))?;
                let place = path.join(entry.file_name());
                fs::rename(entry.path(), &place).map_err(fail(&place))?;
            }
            Ok(())
        })
    }
}

/// What a plain new folder has, less the user's umask; a temporary one would be its owner's alone.
#[cfg(unix)]
fn open_to_all() -> Option<fs::Permissions> {
    use std::os::unix::fs::PermissionsExt;
    Some(fs::Permissions::from_mode(0o777))
}

#[cfg(not(unix))]
fn open_to_all() -> Option<fs::Permissions> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn results_appear_at_the_end_and_replace_older_ones() {
        let desk = tempfile::tempdir().unwrap();
        let place = desk.path().join("new/results");
        for text in ["first", "second"] {
            let folder = ResultFolder::create(&place).unwrap();
            folder.add_text("a.txt", text).unwrap();
            assert_eq!(place.join("a.txt").exists(), text == "second");
            folder.finish().unwrap();
            assert_eq!(fs::read_to_string(place.join("a.txt")).unwrap(), text);
            assert_eq!(
                (names(&place), names(&desk.path().join("new"))),
                (vec!["a.txt".into()], vec!["results".into()])
            );
        }
    }

    #[test]
    fn unfinished_results_leave_nothing() {
        let desk = tempfile::tempdir().unwrap();
        let place = desk.path().join("results");
        let folder = ResultFolder::create(&place).unwrap();
        folder.add_text("a.txt", "half").unwrap();
        drop(folder);
        assert_eq!(names(desk.path()), Vec::<String>::new());
    }

    #[test]
    fn file_in_the_way_is_told_before_anything_runs() {
        let desk = tempfile::tempdir().unwrap();
        let place = desk.path().join("results");
        fs::write(&place, "kept").unwrap();
        assert!(ResultFolder::create(&place).is_err());
        assert!(ResultFolder::create(&place.join("below")).is_err());
        assert_eq!(fs::read_to_string(&place).unwrap(), "kept");
    }
}

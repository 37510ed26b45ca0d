//! Writing objects into a folder: a draft is written and synced beside its place, then renamed. Whatever happens, an object
//! is there whole or not at all, and once its writer was told so, it is on disk.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

/// Where drafts are; no key begins so.
const STAGING: &str = ".staging";

/// Bytes handed to the disk at once.
const WRITE_BYTES: usize = 1 << 20;

/// Tries to put a draft in its place while others remove empty folders.
const KEEP_TRIES: usize = 8;

/// A folder of objects.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    /// Bytes that must stay free on the disk.
    reserve: u64,
    drafts: AtomicU64,
}

impl Folder {
    /// Opens the folder, and throws away what an earlier process left unfinished.
    pub(super) fn open(root: &Path, reserve: u64) -> io::Result<Self> {
        let staging = root.join(STAGING);
        match fs::remove_dir_all(&staging) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::create_dir_all(&staging)?;
        Ok(Self { root: root.canonicalize()?, reserve, drafts: AtomicU64::new(0) })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Begins an object of `length` bytes, where that is known.
    pub(super) async fn draft(&self, length: u64) -> io::Result<Draft> {
        self.check_room(length)?;
        let number = self.drafts.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join(STAGING).join(number.to_string());
        let mut file = File::create_new(&path).await?;
        file.set_max_buf_size(WRITE_BYTES);
        Ok(Draft { file: Some(file), path, unchecked: 0 })
    }

    /// Asks for room for `length` more bytes: the disk must not run full, the journal may be on it.
    fn check_room(&self, length: u64) -> io::Result<()> {
        let free = free_bytes(&self.root)?;
        if free.saturating_sub(length) >= self.reserve {
            return Ok(());
        }
        Err(io::Error::new(ErrorKind::StorageFull, "less is free than is to stay free"))
    }

    /// Writes more of a draft.
    pub(super) async fn write(&self, draft: &mut Draft, bytes: &Bytes) -> io::Result<()> {
        draft.unchecked += bytes.len();
        if draft.unchecked > 16 * WRITE_BYTES {
            draft.unchecked = 0;
            self.check_room(0)?;
        }
        draft.file.as_mut().ok_or(ErrorKind::NotFound)?.write_all(bytes).await
    }

    /// Puts a draft, which is whole, in its place.
    pub(super) async fn keep(&self, mut draft: Draft, key: &str) -> io::Result<()> {
        let mut file = draft.file.take().ok_or(ErrorKind::NotFound)?;
        file.flush().await?;
        let (file, root, place) = (file.into_std().await, self.root.clone(), self.root.join(key));
        let kept = tokio::task::spawn_blocking(move || {
            file.sync_all()?;
            drop(file);
            put_in_place(&root, &draft.path, &place)
        });
        kept.await.map_err(io::Error::other)?
    }
}

/// An object that is not there yet. Dropped, it is gone.
#[derive(Debug)]
pub(super) struct Draft {
    file: Option<File>,
    path: PathBuf,
    unchecked: usize,
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Where it was kept there is nothing left to remove.
        let _ = fs::remove_file(&self.path);
    }
}

fn put_in_place(root: &Path, draft: &Path, place: &Path) -> io::Result<()> {
    let parent = place.parent().ok_or(ErrorKind::InvalidInput)?;
    let mut tries = 0;
    loop {
        let known = parent.ancestors().find(|folder| folder.exists()).unwrap_or(root);
        fs::create_dir_all(parent)?;
        match fs::rename(draft, place) {
            Err(error) if error.kind() == ErrorKind::NotFound && tries < KEEP_TRIES => tries += 1,
            Err(error) => return Err(error),
            Ok(()) => {
                for folder in parent.ancestors() {
                    fs::File::open(folder)?.sync_all()?;
                    if folder == known || folder == root {
                        break;
                    }
                }
                return Ok(());
            }
        }
    }
}

#[cfg(unix)]
fn free_bytes(folder: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(folder)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(not(unix))]
fn free_bytes(_folder: &Path) -> io::Result<u64> {
    Ok(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn staged(folder: &Folder) -> usize {
        fs::read_dir(folder.root.join(STAGING)).expect("the folder").count()
    }

    #[tokio::test]
    async fn objects_are_there_whole_or_not_at_all() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(place.path(), 0).expect("a folder");
        let file = place.path().join("inputs/1/deep/cat.png");
        for text in ["one", "another"] {
            let mut draft = folder.draft(0).await.expect("a draft");
            folder.write(&mut draft, &Bytes::from(text)).await.expect("written");
            folder.keep(draft, "inputs/1/deep/cat.png").await.expect("kept");
            assert_eq!(fs::read_to_string(&file).expect("there"), text);
        }
        let mut dropped = folder.draft(0).await.expect("a draft");
        folder.write(&mut dropped, &Bytes::from("half")).await.expect("written");
        assert_eq!(staged(&folder), 1);
        drop(dropped);
        assert_eq!(staged(&folder), 0);
        assert_eq!(fs::read_to_string(&file).expect("there"), "another");
        // A process that was killed leaves its drafts; the next one clears them.
        fs::write(place.path().join(STAGING).join("9"), "half").expect("written");
        assert_eq!(staged(&Folder::open(place.path(), 0).expect("a folder")), 0);
    }

    #[tokio::test]
    async fn names_in_the_way_are_an_error_and_leave_nothing() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(place.path(), 0).expect("a folder");
        for (key, is_kept) in [("inputs/1/a", true), ("inputs/1/a/b", false), ("inputs/1", false)] {
            let draft = folder.draft(0).await.expect("a draft");
            assert_eq!(folder.keep(draft, key).await.is_ok(), is_kept, "{key}");
        }
        assert_eq!(staged(&folder), 0);
    }

    #[tokio::test]
    async fn room_is_left_for_others() {
        let place = tempfile::tempdir().expect("a folder");
        let free = free_bytes(place.path()).expect("known");
        let tight = Folder::open(place.path(), free / 2).expect("a folder");
        assert!(tight.draft(0).await.is_ok());
        let refused = tight.draft(free).await.expect_err("no room");
        assert_eq!(refused.kind(), ErrorKind::StorageFull);
        assert_eq!(staged(&tight), 0);
    }
}

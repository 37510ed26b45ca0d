//! Takes a model's files out of the system's page cache, so that the next load reads the disk.

use std::fs;
use std::io;
use std::path::Path;

/// Folders within folders that are looked into: a model has one level.
const DEPTH_MAX: usize = 3;

/// Drops the pages of every file in a folder, or of a file. `false` where the system cannot. Pages that some process has
/// mapped stay, and on a file system in memory (tmpfs) all do.
///
/// # Errors
/// A folder or file cannot be read.
pub(super) fn forget(path: &Path) -> io::Result<bool> {
    forget_within(path, DEPTH_MAX)
}

fn forget_within(path: &Path, depth: usize) -> io::Result<bool> {
    if !path.is_dir() {
        return forget_file(path);
    }
    let mut all = true;
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if depth > 0 || path.is_file() {
            all &= forget_within(&path, depth.saturating_sub(1))?;
        }
    }
    Ok(all)
}

#[cfg(target_os = "linux")]
fn forget_file(path: &Path) -> io::Result<bool> {
    let file = fs::File::open(path)?;
    // Only clean pages can be dropped.
    file.sync_all()?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    Ok(true)
}

#[cfg(not(target_os = "linux"))]
fn forget_file(_path: &Path) -> io::Result<bool> {
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_keep_their_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("unet").join("a.safetensors");
        fs::create_dir(file.parent().unwrap()).unwrap();
        fs::write(&file, [7; 9000]).unwrap();
        assert_eq!(forget(folder.path()).unwrap(), cfg!(target_os = "linux"));
        assert_eq!(fs::read(&file).unwrap(), [7; 9000]);
        assert!(forget(&folder.path().join("absent")).is_err());
    }
}

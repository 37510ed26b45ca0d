//! Text files of a model folder that must be small: read whole, with a limit that a damaged or hostile file cannot move.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::RuntimeError;

/// Reads a UTF-8 file of at most `bytes_max` bytes. Allocates no more than that, whatever the file's length says.
///
/// # Errors
/// `BadModel` when it cannot be read, is longer, or is no UTF-8.
pub(crate) fn read(path: &Path, bytes_max: usize) -> Result<String, RuntimeError> {
    let bad = |why: String| RuntimeError::BadModel { path: path.to_owned(), why };
    let file = File::open(path).map_err(|error| bad(format!("cannot be opened: {error}")))?;
    let mut bytes = Vec::new();
    let read = file.take(bytes_max as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| bad(format!("cannot be read: {error}")))?;
    if bytes.len() > bytes_max {
        return Err(bad(format!("is longer than {bytes_max} bytes, which no such file is")));
    }
    String::from_utf8(bytes).map_err(|error| bad(format!("is not UTF-8: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_absent_and_binary_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let check = |bytes: Option<&[u8]>, expected: Result<&str, &str>| {
            let path = folder.path().join("a.json");
            let _ = std::fs::remove_file(&path);
            if let Some(bytes) = bytes {
                std::fs::write(&path, bytes).unwrap();
            }
            match (read(&path, 4), expected) {
                (Ok(text), Ok(expected)) => assert_eq!(text, expected),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (result, expected) => panic!("{result:?} instead of {expected:?}"),
            }
        };
        check(Some(b"abcd"), Ok("abcd"));
        check(Some(b"abcde"), Err("longer than 4 bytes"));
        check(Some(b"\xff"), Err("not UTF-8"));
        check(None, Err("cannot be opened"));
    }
}

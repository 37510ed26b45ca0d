//! An opened trace file: unpacked when gzipped, hashed while it is read, its first bytes known ahead.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};

use super::TraceError;

/// Bytes read ahead to tell the format.
const HEAD_BYTES: u64 = 8192;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// A trace file on its way in.
pub(super) struct Input {
    /// The file's name as the user gave it, for messages.
    pub(super) path: String,
    /// The first unpacked bytes, at most [`HEAD_BYTES`].
    pub(super) head: Vec<u8>,
    /// All unpacked bytes, the head included.
    pub(super) body: Box<dyn BufRead>,
    digest: Rc<RefCell<Tally>>,
}

/// SHA-256 and length of a file as it lies on disk (packed, when it is packed).
#[derive(Default)]
struct Tally {
    sha256: Sha256,
    bytes: u64,
}

struct Tallied {
    file: File,
    tally: Rc<RefCell<Tally>>,
}

impl Read for Tallied {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(into)?;
        let mut tally = self.tally.borrow_mut();
        tally.sha256.update(&into[..read]);
        tally.bytes += read as u64;
        Ok(read)
    }
}

impl Input {
    /// Opens `path` and reads its first bytes.
    ///
    /// # Errors
    /// [`TraceError::Read`] and [`TraceError::Truncated`].
    pub(super) fn open(path: &Path) -> Result<Self, TraceError> {
        let name = path.display().to_string();
        let fail = |e| TraceError::from_io(&name, e);
        let digest = Rc::new(RefCell::new(Tally::default()));
        let file = File::open(path).map_err(|source| TraceError::Read { path: name.clone(), source })?;
        let mut raw = BufReader::with_capacity(1 << 16, Tallied { file, tally: Rc::clone(&digest) });
        let packed = raw.fill_buf().map_err(fail)?.starts_with(&GZIP_MAGIC);
        let mut body: Box<dyn Read> = if packed { Box::new(MultiGzDecoder::new(raw)) } else { Box::new(raw) };
        let mut head = Vec::new();
        body.by_ref().take(HEAD_BYTES).read_to_end(&mut head).map_err(fail)?;
        let body = Box::new(BufReader::with_capacity(1 << 16, Cursor::new(head.clone()).chain(body)));
        Ok(Self { path: name, head, body, digest })
    }

    /// Reads what is left of the file and returns its SHA-256 in hexadecimal and its length in bytes.
    ///
    /// # Errors
    /// [`TraceError::Read`] and [`TraceError::Truncated`].
    pub(super) fn finish(mut self) -> Result<(String, u64), TraceError> {
        io::copy(&mut self.body, &mut io::sink()).map_err(|e| TraceError::from_io(&self.path, e))?;
        let Tally { sha256, bytes } = self.digest.take();
        let hex = sha256.finalize().iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("writing to a string cannot fail");
            hex
        });
        Ok((hex, bytes))
    }
}

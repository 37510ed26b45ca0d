//! One mapped safetensors file: its header checked, its tensors as byte ranges.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use sha2::{Digest, Sha256};

use crate::RuntimeError;

/// Longest header that is read. Headers of real models have up to 200 KiB.
const HEADER_BYTES_MAX: u64 = 32 << 20;

/// Bytes before the header: its length.
const PREFIX_BYTES: usize = 8;

/// How elements are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Brain floating point.
    Bf16,
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
}

/// One tensor of a file.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    /// How elements are stored, where that is a type of weights.
    pub(super) kind: Option<Kind>,
    /// Name of the stored type, for messages.
    pub(super) dtype: String,
    /// Extents.
    pub(super) shape: Vec<usize>,
    /// First byte and the byte after the last, from the start of the file.
    range: (usize, usize),
}

/// A file that is mapped into memory, so that weights are read from the page cache once, when they are used.
///
/// A file that another process cuts short while it is mapped ends this one; model folders are to be replaced whole.
#[derive(Debug)]
pub(super) struct MappedFile {
    path: PathBuf,
    map: Mmap,
}

impl MappedFile {
    /// Maps a file.
    pub(super) fn open(path: &Path) -> Result<Self, RuntimeError> {
        let unreadable = |error: std::io::Error| RuntimeError::BadModel {
            path: path.to_owned(),
            why: format!("cannot be read: {error}"),
        };
        let file = File::open(path).map_err(unreadable)?;
        if !file.metadata().map_err(unreadable)?.is_file() {
            return Err(unreadable(std::io::Error::other("not a file")));
        }
        // SAFETY: the map is only read; the type's documentation says what happens when the file shrinks meanwhile.
        let map = unsafe { Mmap::map(&file) }.map_err(unreadable)?;
        Ok(Self { path: path.to_owned(), map })
    }

    /// What tells this file from others: its length, and pages all over it. A change between those pages is not seen.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        const PAGES: usize = 256;
        const PAGE_BYTES: usize = 4096;
        let mut hash = Sha256::new();
        hash.update((self.map.len() as u64).to_le_bytes());
        for page in 0..PAGES {
            let from = (self.map.len() / PAGES) * page;
            hash.update(&self.map[from..self.map.len().min(from + PAGE_BYTES)]);
        }
        hash.finalize().into()
    }

    /// An error about this file.
    pub(super) fn bad(&self, why: String) -> RuntimeError {
        RuntimeError::BadModel { path: self.path.clone(), why }
    }

    /// The bytes of a tensor of this file.
    pub(super) fn bytes(&self, stored: &Stored) -> &[u8] {
        &self.map[stored.range.0..stored.range.1]
    }

    /// Reads and checks the header: every tensor lies inside the file, none overlap, and nothing is left over.
    pub(super) fn tensors(&self) -> Result<Vec<(String, Stored)>, RuntimeError> {
        let Some(prefix) = self.map.first_chunk::<PREFIX_BYTES>() else {
            return Err(self.bad(format!("has {} bytes and no header; fetch it again", self.map.len())));
        };
        let header_bytes = u64::from_le_bytes(*prefix);
        if header_bytes > HEADER_BYTES_MAX {
            return Err(self.bad(format!(
                "says that its header has {header_bytes} bytes (at most {HEADER_BYTES_MAX} are read); it is damaged or no safetensors file"
            )));
        }
        let data_from = PREFIX_BYTES + header_bytes as usize;
        let Some(header) = self.map.get(PREFIX_BYTES..data_from) else {
            return Err(self.bad(format!(
                "ends within its header ({} of {data_from} bytes); fetch it again",
                self.map.len()
            )));
        };
        let metadata: Metadata = serde_json::from_slice(header)
            .map_err(|error| self.bad(format!("its header is damaged: {error}; fetch it again")))?;
        let data_bytes = self.map.len() - data_from;
        if metadata.data_len() != data_bytes {
            return Err(self.bad(format!(
                "its header describes {} bytes of tensors, but {data_bytes} follow; fetch it again",
                metadata.data_len()
            )));
        }
        let tensors = metadata.tensors().into_iter().map(|(name, info)| {
            let (from, to) = info.data_offsets;
            let kind = match info.dtype {
                Dtype::BF16 => Some(Kind::Bf16),
                Dtype::F16 => Some(Kind::F16),
                Dtype::F32 => Some(Kind::F32),
                _ => None,
            };
            let range = (data_from + from, data_from + to);
            (name, Stored { kind, dtype: info.dtype.to_string(), shape: info.shape.clone(), range })
        });
        Ok(tensors.collect())
    }
}

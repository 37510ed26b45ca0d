//! A copy of the fixtures' model folder whose files can be edited.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test binary uses its part, and a test fails by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

pub(crate) struct Folder {
    temporary: tempfile::TempDir,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        // The fuzz targets are built from a folder beside this crate's.
        let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../gpu-runtime/tests/fixtures/model");
        copy(&beside, temporary.path());
        Self { temporary }
    }

    pub(crate) fn path(&self) -> &Path {
        self.temporary.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    /// Edits a JSON file.
    pub(crate) fn edit_json(&self, name: &str, edit: impl FnOnce(&mut Map<String, Value>)) {
        let mut keys = serde_json::from_slice(&fs::read(self.file(name)).unwrap()).unwrap();
        edit(&mut keys);
        fs::write(self.file(name), serde_json::to_vec(&keys).unwrap()).unwrap();
    }

    /// Edits the header of a safetensors file; the data stays.
    pub(crate) fn edit_header(&self, name: &str, edit: impl FnOnce(&mut Map<String, Value>)) {
        let (mut header, data) = self.split(name);
        edit(&mut header);
        fs::write(self.file(name), join(&header, &data)).unwrap();
    }

    /// Header and data of a safetensors file.
    pub(crate) fn split(&self, name: &str) -> (Map<String, Value>, Vec<u8>) {
        let bytes = fs::read(self.file(name)).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        (serde_json::from_slice(&bytes[8..8 + length]).unwrap(), bytes[8 + length..].to_vec())
    }
}

/// Bytes of a safetensors file.
pub(crate) fn join(header: &Map<String, Value>, data: &[u8]) -> Vec<u8> {
    let header = serde_json::to_vec(header).unwrap();
    [&(header.len() as u64).to_le_bytes()[..], &header, data].concat()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::write(target, fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

//! Any damage to a model folder is refused with a message or changes nothing that matters: no panic, and no allocation
//! by a number that a file states.
//!
//! [`drive`] turns bytes into edits of one file and judges what opening the folder says. The fuzz target
//! `model_folder` feeds it arbitrary bytes; the tests here a fixed corpus of random ones.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod folder;

use std::cell::RefCell;
use std::fs;

use folder::Folder;
use gpu_runtime::RuntimeError;
use gpu_runtime::model::{Model, ModelSource, program};

/// Files that are edited.
const FILES: [&str; 8] = [
    "unet/config.json",
    "motion_adapter/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "motion_adapter/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
];

thread_local! {
    /// One copy of the model per thread: each case edits a file and puts it back.
    static FOLDER: RefCell<Folder> = RefCell::new(Folder::new());
}

/// Edits one file as the bytes say and judges the answer.
pub fn drive(bytes: &[u8]) {
    let [file, kind, rest @ ..] = bytes else { return };
    FOLDER.with_borrow(|folder| {
        let path = folder.file(FILES[usize::from(*file) % FILES.len()]);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, edited(&whole, *kind, rest)).unwrap();
        let answer = judge(folder);
        fs::write(&path, whole).unwrap();
        if let Err(complaint) = answer {
            panic!("{complaint}");
        }
    });
}

/// A file's bytes after an edit: replaced, cut, spliced, or with another header.
fn edited(whole: &[u8], kind: u8, rest: &[u8]) -> Vec<u8> {
    let place = |bytes: &[u8]| {
        let mut word = [0; 4];
        word[..bytes.len().min(4)].copy_from_slice(&bytes[..bytes.len().min(4)]);
        // Most of a file is numbers; its header is where edits matter.
        let reach = if word[3] & 1 == 0 { whole.len() } else { whole.len().min(4096) };
        u32::from_le_bytes(word) as usize / 2 % (reach + 1)
    };
    let (at, patch) = (place(rest), rest.get(4..).unwrap_or(&[]));
    let mut bytes = whole.to_vec();
    match kind % 4 {
        0 => bytes = rest.to_vec(),
        1 => bytes.truncate(at),
        2 => {
            let end = whole.len().min(at + patch.len());
            bytes[at..end].copy_from_slice(&patch[..end - at]);
        }
        _ => {
            bytes = (rest.len() as u64).to_le_bytes().to_vec();
            bytes.extend(rest);
            bytes.extend(&whole[at..]);
        }
    }
    bytes
}

/// Opens the folder and, where that works, reads every weight.
fn judge(folder: &Folder) -> Result<(), String> {
    let model = match Model::open(&ModelSource::folder(folder.path())) {
        Ok(model) => model,
        Err(RuntimeError::BadModel { path, why }) if path.starts_with(folder.path()) && why.len() > 10 => {
            return Ok(());
        }
        Err(other) => return Err(format!("refused as {other:?}")),
    };
    let side = model.side_step();
    let size = model.latent_size(1, side, side).map_err(|error| error.to_string())?;
    let step = program::step(&model.unet, model.motion.as_ref(), size, model.text.tokens);
    for weight in &step.weights {
        let values = model.weights.f32(weight).map_err(|error| error.to_string())?;
        if values.len() as u64 != weight.elements() {
            return Err(format!("{} values of {weight:?}", values.len()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// The largest allocation so far.
    static LARGEST: AtomicUsize = AtomicUsize::new(0);

    struct Watched;

    // SAFETY: every call goes to the system's allocator unchanged.
    unsafe impl GlobalAlloc for Watched {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
            // SAFETY: the caller's promises are passed on.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            // SAFETY: the caller's promises are passed on.
            unsafe { System.dealloc(pointer, layout) }
        }
    }

    #[global_allocator]
    static ALLOCATOR: Watched = Watched;

    /// Numbers that files might state instead of theirs.
    const NUMBERS: [&str; 10] = [
        "0",
        "-1",
        "1e9",
        "255",
        "65536",
        "4294967295",
        "4294967296",
        "9223372036854775807",
        "18446744073709551615",
        "null",
    ];

    /// Bytes that mean something to JSON and to headers, and some that do not.
    fn corpus(case: u64) -> Vec<u8> {
        let mut state = case.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut draw = |n: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % n
        };
        let mut bytes = vec![draw(8) as u8, draw(8) as u8];
        // Three of four cases splice into the place of a number or name.
        if draw(4) > 0 {
            bytes[1] = 2;
        }
        bytes.extend((0..3).map(|_| draw(256) as u8));
        bytes.push(draw(256) as u8 | 1);
        for _ in 0..1 + draw(3) {
            match draw(4) {
                0 => bytes.extend(NUMBERS[draw(10) as usize].bytes()),
                1 => bytes.extend(b"\"shape\":[99999999999,9999999999],"),
                2 => bytes.extend((0..draw(12)).map(|_| b"0123456789[]{},:\"e-. "[draw(21) as usize])),
                _ => bytes.extend((0..draw(9)).map(|_| draw(256) as u8)),
            }
        }
        bytes
    }

    #[test]
    fn damage_is_refused_or_harmless() {
        LARGEST.store(0, Ordering::Relaxed);
        (0..600).for_each(|case| drive(&corpus(case)));
        // The whole model has 1.2 MiB; a header's or configuration's text has at most 40 KiB.
        let largest = LARGEST.load(Ordering::Relaxed);
        assert!(largest < 16 << 20, "an allocation of {largest} bytes");
    }

    #[test]
    fn an_undamaged_folder_is_accepted() {
        FOLDER.with_borrow(|folder| judge(folder).unwrap());
    }
}

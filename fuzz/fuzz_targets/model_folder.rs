//! Arbitrary bytes as edits of a model folder; the judge is the one of its tests.

#![no_main]

#[path = "../../gpu-runtime/tests/damaged_folders.rs"]
mod judge;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| judge::drive(bytes));

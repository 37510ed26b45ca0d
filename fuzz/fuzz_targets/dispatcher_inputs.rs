//! Arbitrary bytes as inputs of the dispatcher; the judge is the one of its tests.

#![no_main]

#[path = "../../policy/tests/dispatcher_inputs.rs"]
mod judge;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| judge::drive(bytes));

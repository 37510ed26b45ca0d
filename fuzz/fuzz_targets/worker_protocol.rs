//! Arbitrary bytes as what workers say to a plane; the judge is the one of its tests.

#![no_main]

#[path = "../../control/tests/worker_protocol.rs"]
mod judge;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| judge::drive(bytes));

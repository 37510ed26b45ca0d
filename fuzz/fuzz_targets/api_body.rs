//! Arbitrary bytes as the body of a submission; the judge is the one of its tests.

#![no_main]

#[path = "../../control/tests/api_bodies.rs"]
mod judge;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    judge::judge(bytes);
});

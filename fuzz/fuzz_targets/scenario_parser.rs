//! Arbitrary text as a scenario: it resolves or is refused with diagnostics, and never panics.

#![no_main]

use std::path::Path;

/// Paths in a text are relative to a folder that does not exist, so that no file of the machine is read.
const NOWHERE: &str = "/nonexistent/headroom-fuzz";

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(errors) = scenarios::load_str("fuzz", text, Path::new(NOWHERE), &[]) {
        assert!(!errors.is_empty(), "a refusal says why");
        for error in &errors {
            assert!(!error.to_string().is_empty());
        }
    }
});

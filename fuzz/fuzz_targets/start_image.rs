//! Arbitrary bytes as a start image: refused, or a picture within the limits that can be cut and scaled.

#![no_main]

use gpu_runtime::picture::{Picture, ReadLimits};

const LIMITS: ReadLimits = ReadLimits { bytes_max: 1 << 20, pixels_max: 1 << 20 };

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(picture) = Picture::read(bytes, LIMITS) {
        assert!(u64::from(picture.width()) * u64::from(picture.height()) <= LIMITS.pixels_max);
        assert_eq!(picture.fitted(16, 24).rgb().len(), 16 * 24 * 3);
    }
});

//! Pictures in and out: PNG, APNG, GIF, animated WebP, JPEG, with provenance in the metadata.

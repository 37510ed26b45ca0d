//! A request becomes frames: text encoding, denoising steps, decoding, with progress and cancellation.

//! Fine-tuning: low-rank adapters of the attention layers, trained on a handful of frames.

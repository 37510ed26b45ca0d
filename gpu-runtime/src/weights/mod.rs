//! Weights of a model folder: safetensors files, mapped and checked, never trusted.

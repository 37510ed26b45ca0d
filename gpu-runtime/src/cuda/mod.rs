//! Executes a graph on an NVIDIA GPU in bf16, through cudarc.

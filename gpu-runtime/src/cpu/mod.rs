//! Executes a graph on the CPU in f32: the reference that every other backend is compared with.

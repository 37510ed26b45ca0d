//! Executes a graph on the CPU in f32: the reference that every other backend is compared with.
//!
//! Results depend neither on the number of threads nor on where memory lies: work is cut into blocks of fixed size,
//! and each block is computed by one thread in one order.

mod attention;
mod backend;
mod conv;
mod elementwise;
mod gradient;
mod matrix;
mod norm;
mod operation;
mod parallel;

pub use backend::{CpuBackend, memory_of};

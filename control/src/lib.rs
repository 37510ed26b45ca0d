//! The live control plane.

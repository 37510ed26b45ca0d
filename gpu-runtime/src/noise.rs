//! Seeded Gaussian noise, the same on every backend.

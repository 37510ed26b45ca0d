//! Sizes in bytes.

use std::fmt;

use super::text::{QuantityError, parse_scaled};

/// A size or an amount of data, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub struct Bytes(u64);

/// Bytes of each accepted unit; decimal and binary multiples differ.
const UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

impl Bytes {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// A size of `bytes` bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Bytes.
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Binary gigabytes (2³⁰ bytes), the "GB" in which cloud providers price storage and transfer.
    pub fn as_gib(self) -> f64 {
        self.0 as f64 / (1_u64 << 30) as f64
    }

    /// Reads `"1MB"`, `"80GiB"`, `"512 KiB"`.
    ///
    /// # Errors
    /// A missing or unknown unit, a negative or non-finite number, or more than 16 EiB.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        parse_scaled(text, "size", "80GiB", UNITS).map(Self)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, scale) in UNITS.iter().rev().filter(|(unit, _)| unit.len() != 2 || unit.starts_with('B')) {
            if self.0 >= *scale {
                return write!(out, "{:.4}{unit}", self.0 as f64 / *scale as f64);
            }
        }
        write!(out, "{}B", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_and_binary_units_differ() {
        assert_eq!(Bytes::parse("1MB"), Ok(Bytes::new(1_000_000)));
        assert_eq!(Bytes::parse("1 MiB"), Ok(Bytes::new(1_048_576)));
        assert!(Bytes::parse("1 mib").is_err());
        assert!(Bytes::parse("17000000TiB").is_err());
    }
}

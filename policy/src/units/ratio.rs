//! Numbers between zero and one.

/// A probability, share or utilization: finite and in `0..=1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize), serde(try_from = "f64"))]
pub struct Ratio(f64);

/// A number outside `0..=1`.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{0} is outside 0..=1; a probability or share is written as a fraction, e.g. 0.7 for 70 %")]
pub struct RatioError(pub f64);

impl Ratio {
    /// None of it.
    pub const ZERO: Self = Self(0.0);
    /// All of it.
    pub const ONE: Self = Self(1.0);

    /// Checks that `value` is in `0..=1`.
    ///
    /// # Errors
    /// [`RatioError`] when it is not, or is NaN.
    pub fn new(value: f64) -> Result<Self, RatioError> {
        if (0.0..=1.0).contains(&value) { Ok(Self(value)) } else { Err(RatioError(value)) }
    }

    /// The number.
    #[inline]
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Ratio {
    type Error = RatioError;

    fn try_from(value: f64) -> Result<Self, RatioError> {
        Self::new(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_zero_to_one_is_a_ratio() {
        assert!(Ratio::new(0.0).is_ok() && Ratio::new(1.0).is_ok());
        for bad in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert!(Ratio::new(bad).is_err(), "{bad}");
        }
    }
}

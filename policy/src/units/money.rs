//! Money in whole billionths of a dollar. A price times a quantity rounds once; a sum never rounds.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub};

use super::text::{QuantityError, number, split_number};
use super::time::Duration;

const NANOS_PER_USD: f64 = 1e9;
const NANOS_PER_HOUR: i128 = 3_600_000_000_000;

/// An amount in billionths of a dollar, at most about 9.2 billion dollars either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub struct Usd {
    nanos: i64,
}

/// A price of holding one instance, in billionths of a dollar per hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub struct UsdPerHour {
    nanos: i64,
}

impl Usd {
    /// No money.
    pub const ZERO: Self = Self { nanos: 0 };

    /// An amount of `nanos` billionths of a dollar.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self { nanos }
    }

    /// Billionths of a dollar.
    pub const fn as_nanos(self) -> i64 {
        self.nanos
    }

    /// Dollars, for display and statistics only.
    pub fn as_f64(self) -> f64 {
        self.nanos as f64 / NANOS_PER_USD
    }

    /// Reads `"0.04 USD"` or `"$0.04"`.
    ///
    /// # Errors
    /// A missing currency, a negative or non-finite number, or more than 9.2 billion dollars.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        Ok(Self { nanos: parse_price(text, "amount", "0.04 USD", "USD")? })
    }

    /// `quantity` (≥ 0) times this price, rounded up to a billionth of a dollar; `None` on overflow.
    pub fn times(self, quantity: f64) -> Option<Self> {
        let nanos = (self.nanos as f64 * quantity).ceil();
        (nanos.abs() < i64::MAX as f64).then_some(Self { nanos: nanos as i64 })
    }

    /// The sum, or `None` on overflow.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        Some(Self { nanos: self.nanos.checked_add(other.nanos)? })
    }
}

impl UsdPerHour {
    /// A price of `nanos` billionths of a dollar per hour.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self { nanos }
    }

    /// Billionths of a dollar per hour.
    pub const fn as_nanos(self) -> i64 {
        self.nanos
    }

    /// Dollars per hour, for display and comparison only.
    pub fn as_f64(self) -> f64 {
        self.nanos as f64 / NANOS_PER_USD
    }

    /// The price nearest to `usd` dollars per hour; `None` unless `usd` is finite, non-negative and below 9.2e9.
    pub fn from_f64(usd: f64) -> Option<Self> {
        let nanos = (usd * NANOS_PER_USD).round();
        (nanos >= 0.0 && nanos < i64::MAX as f64).then_some(Self { nanos: nanos as i64 })
    }

    /// Cost of holding one instance for `held`, rounded up to a billionth of a dollar; saturates at [`i64::MAX`] nanos.
    ///
    /// Rounds once, here; a sum of charges never rounds again.
    pub fn cost_of(self, held: Duration) -> Usd {
        let exact = i128::from(self.nanos) * i128::from(held.as_nanos());
        let nanos = (exact + NANOS_PER_HOUR - 1).div_euclid(NANOS_PER_HOUR);
        Usd { nanos: i64::try_from(nanos).unwrap_or(i64::MAX) }
    }

    /// Reads `"3.06 USD/h"`.
    ///
    /// # Errors
    /// A missing or other unit, a negative or non-finite number, or more than 9.2 billion dollars an hour.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        Ok(Self { nanos: parse_price(text, "price", "3.06 USD/h", "USD/h")? })
    }
}

fn parse_price(
    text: &str,
    what: &'static str,
    example: &'static str,
    expected: &'static str,
) -> Result<i64, QuantityError> {
    let trimmed = text.trim();
    let (digits, unit) = split_number(trimmed.strip_prefix('$').unwrap_or(trimmed));
    let bad = |why| QuantityError::BadNumber { text: text.to_owned(), what, why, example };
    let value = number(digits).map_err(bad)?;
    let dollar_sign = trimmed.starts_with('$') && expected == "USD";
    match unit.trim() {
        unit if unit == expected || (unit.is_empty() && dollar_sign) => {}
        "" => {
            let (text, units) = (text.to_owned(), expected.to_owned());
            return Err(QuantityError::NoUnit { text, what, example, units });
        }
        unit => {
            let (text, unit, units) = (text.to_owned(), unit.to_owned(), expected.to_owned());
            return Err(QuantityError::UnknownUnit { text, unit, what, units });
        }
    }
    let nanos = (value * NANOS_PER_USD).round();
    if nanos >= i64::MAX as f64 {
        return Err(QuantityError::Overflow { text: text.to_owned(), what });
    }
    Ok(nanos as i64)
}

impl Add for Usd {
    type Output = Self;
    /// # Panics
    /// When the sum passes 9.2 billion dollars: no run spends that, so it is our bug.
    fn add(self, other: Self) -> Self {
        self.checked_add(other).expect("a run spends less than 9.2 billion dollars")
    }
}

impl AddAssign for Usd {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Usd {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl Neg for Usd {
    type Output = Self;
    fn neg(self) -> Self {
        Self { nanos: -self.nanos }
    }
}

impl Sum for Usd {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for Usd {
    /// Dollars with thousands separators; cents from one dollar up, four significant digits below.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.nanos < 0 { "-" } else { "" };
        let value = self.as_f64().abs();
        if value > 0.0 && value < 0.995 {
            let decimals =
                (3.0 - (super::math::ln(value) / std::f64::consts::LN_10).floor()).clamp(2.0, 9.0) as usize;
            return write!(out, "{sign}${value:.decimals$}");
        }
        let cents = format!("{value:.2}");
        let (whole, fraction) = cents.split_at(cents.len() - 3);
        let mut grouped = String::new();
        for (place, digit) in whole.chars().enumerate() {
            if place > 0 && (whole.len() - place) % 3 == 0 {
                grouped.push(',');
            }
            grouped.push(digit);
        }
        write!(out, "{sign}${grouped}{fraction}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charge_rounds_up_once() {
        let price = UsdPerHour::parse("1 USD/h").expect("a valid price");
        assert_eq!(price.cost_of(Duration::from_secs(3600)).as_nanos(), 1_000_000_000);
        assert_eq!(price.cost_of(Duration::from_nanos(1)).as_nanos(), 1);
        assert_eq!(price.cost_of(Duration::ZERO), Usd::ZERO);
    }

    #[test]
    fn prices_are_read_with_their_unit() {
        assert_eq!(UsdPerHour::parse("0.526 USD/h"), Ok(UsdPerHour::from_nanos(526_000_000)));
        assert_eq!(Usd::parse("$0.04"), Ok(Usd::from_nanos(40_000_000)));
        for bad in ["3.06", "3.06 EUR/h", "-1 USD/h", "inf USD/h", "1e12 USD/h", "USD/h"] {
            assert!(UsdPerHour::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn display_groups_thousands() {
        let shown = |nanos| Usd::from_nanos(nanos).to_string();
        assert_eq!(shown(1_234_567_890_000_000), "$1,234,567.89");
        assert_eq!(shown(-12_300_000_000), "-$12.30");
        assert_eq!(shown(2_235_600), "$0.002236");
        assert_eq!(shown(0), "$0.00");
    }
}

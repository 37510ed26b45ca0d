//! Text forms of quantities: a number followed by a unit, or several such pairs in a row (`1h30min`).

/// Why a text is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// The number is followed by no unit.
    #[error("`{text}` has no unit; write a {what} like \"{example}\" (units: {units})")]
    NoUnit { text: String, what: &'static str, example: &'static str, units: String },
    /// The unit is unknown.
    #[error("`{unit}` in `{text}` is not a unit of {what}; use one of {units}")]
    UnknownUnit { text: String, unit: String, what: &'static str, units: String },
    /// The number is malformed, negative or not finite.
    #[error("`{text}` is not a {what}: {why}; write it like \"{example}\"")]
    BadNumber { text: String, what: &'static str, why: &'static str, example: &'static str },
    /// The quantity does not fit its integer.
    #[error("`{text}` is too large for a {what}")]
    Overflow { text: String, what: &'static str },
}

/// Splits `text` into its leading number and the rest, which starts with the unit.
pub(super) fn split_number(text: &str) -> (&str, &str) {
    let mut end = 0;
    let bytes = text.as_bytes();
    while end < bytes.len() {
        let exponent_sign = end > 0 && matches!(bytes[end - 1], b'e' | b'E');
        let exponent = matches!(bytes[end], b'e' | b'E')
            && end > 0
            && bytes.get(end + 1).is_some_and(|next| next.is_ascii_digit() || matches!(next, b'-' | b'+'));
        let sign = matches!(bytes[end], b'-' | b'+') && (end == 0 || exponent_sign);
        if !(bytes[end].is_ascii_digit() || matches!(bytes[end], b'.' | b'_') || exponent || sign) {
            break;
        }
        end += 1;
    }
    text.split_at(end)
}

/// Reads a non-negative decimal number; underscores may group digits.
pub(super) fn number(digits: &str) -> Result<f64, &'static str> {
    let value: f64 = digits.replace('_', "").parse().map_err(|_| "the number cannot be read")?;
    if !value.is_finite() {
        return Err("the number is not finite");
    }
    if value < 0.0 {
        return Err("it must not be negative");
    }
    Ok(value)
}

/// Reads the sum of number-unit pairs in `text`, in the smallest unit of `units`, rounded to a whole number.
pub(super) fn parse_scaled(
    text: &str,
    what: &'static str,
    example: &'static str,
    units: &[(&str, u64)],
) -> Result<u64, QuantityError> {
    let listed = || units.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let mut rest = text.trim();
    let mut total = 0_u64;
    loop {
        let (digits, after) = split_number(rest);
        let bad = |why| QuantityError::BadNumber { text: text.to_owned(), what, why, example };
        let value = number(digits).map_err(bad)?;
        let after = after.trim_start();
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        if unit.is_empty() {
            return Err(QuantityError::NoUnit { text: text.to_owned(), what, example, units: listed() });
        }
        let Some((_, scale)) = units.iter().find(|(name, _)| *name == unit) else {
            let (text, unit) = (text.to_owned(), unit.to_owned());
            return Err(QuantityError::UnknownUnit { text, unit, what, units: listed() });
        };
        let scaled = (value * *scale as f64).round();
        let overflow = || QuantityError::Overflow { text: text.to_owned(), what };
        if scaled >= u64::MAX as f64 {
            return Err(overflow());
        }
        total = total.checked_add(scaled as u64).ok_or_else(overflow)?;
        rest = next.trim_start();
        if rest.is_empty() {
            return Ok(total);
        }
    }
}

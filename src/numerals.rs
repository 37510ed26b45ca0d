//! Numbers as people read them: grouped, rounded to what matters, times in natural units. For programs there is JSON.

/// Digits that a measured figure is shown with.
const DIGITS: i32 = 4;

/// A figure to four significant digits, whole parts in full and grouped: `0.01081`, `5.53`, `14,279`.
pub(crate) fn figure(value: f64) -> String {
    if !value.is_finite() {
        return "unknown".to_owned();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    let magnitude = value.abs().log10().floor() as i32;
    let decimals = (DIGITS - 1 - magnitude).clamp(0, 12) as usize;
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    grouped(text)
}

/// A share as a percentage: `17 %`, `0.4 %`.
pub(crate) fn percent(share: f64) -> String {
    let decimals = if (share * 100.0).abs() < 10.0 { 1 } else { 0 };
    format!("{:.decimals$} %", share * 100.0)
}

/// Puts commas between thousands.
fn grouped(text: &str) -> String {
    let (sign, text) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, rest)| (whole, Some(rest)));
    let mut shown = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    let fraction = fraction.map_or_else(String::new, |digits| format!(".{digits}"));
    format!("{sign}{shown}{fraction}")
}

/// Units of time from the longest; seconds are the last and may have decimals.
const UNITS: [(&str, u64); 3] = [("d", 86_400), ("h", 3_600), ("min", 60)];

/// The clock's resolution, seconds.
const NANOSECOND: f64 = 1e-9;

/// A time in its two largest units: `15d 7h`, `58min 22s`, `1.5s`, `250ms`, `100ns`.
pub(crate) fn time(seconds: f64) -> String {
    if !seconds.is_finite() {
        return "unknown".to_owned();
    }
    if seconds.abs() < NANOSECOND / 2.0 {
        return "0s".to_owned();
    }
    if seconds > 0.0 && seconds < 1.0 {
        let (scale, unit) = match seconds {
            s if s >= 1e-3 => (1e3, "ms"),
            s if s >= 1e-6 => (1e6, "us"),
            _ => (1e9, "ns"),
        };
        return format!("{}{unit}", figure(seconds * scale));
    }
    if seconds < 60.0 {
        return format!("{}s", figure(seconds));
    }
    let large = UNITS.iter().position(|(_, length)| seconds >= *length as f64).unwrap_or(UNITS.len() - 1);
    let (small_name, small) = UNITS.get(large + 1).copied().unwrap_or(("s", 1));
    let (large_name, large) = UNITS[large];
    let smalls = (seconds / small as f64).round() as u64;
    let (whole, rest) = (smalls * small / large, smalls * small % large / small);
    if rest == 0 { format!("{whole}{large_name}") } else { format!("{whole}{large_name} {rest}{small_name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_keep_four_digits() {
        let check = |value, text: &str| assert_eq!(figure(value), text);
        check(0.010_814, "0.01081");
        check(5.530_4, "5.53");
        check(14_279.0, "14,279");
        check(1_352_804_107.0, "1,352,804,107");
        check(-1234.56, "-1,235");
        check(100.0, "100");
        check(0.0, "0");
        check(999.96, "1,000");
        check(f64::INFINITY, "unknown");
    }

    #[test]
    fn times_have_two_units() {
        let check = |seconds, text: &str| assert_eq!(time(seconds), text);
        check(0.0, "0s");
        check(1e-7, "100ns");
        check(1e-17, "0s");
        check(0.25, "250ms");
        check(1.5, "1.5s");
        check(60.0, "1min");
        check(3501.7, "58min 22s");
        check(3599.9, "60min");
        check(86_400.0, "1d");
        check(1_320_314.0, "15d 7h");
    }

    #[test]
    fn shares_are_percentages() {
        assert_eq!(
            (percent(0.174), percent(0.004), percent(1.0)),
            ("17 %".into(), "0.4 %".into(), "100 %".into())
        );
    }
}

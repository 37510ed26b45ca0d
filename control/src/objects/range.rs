//! The part of an object that a `Range` header asks for, by RFC 9110, section 14.

use std::ops::Range;

/// What a header asks for, of an object of known size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The whole: there is no range, or none that is served alone.
    Whole,
    /// These bytes.
    Part(Range<u64>),
    /// Bytes that are not there.
    Outside,
}

/// Reads the header. Several ranges at once are answered by the whole, as the RFC allows.
pub(super) fn asked(header: &str, size: u64) -> Asked {
    let Some(range) = header.trim().strip_prefix("bytes=") else { return Asked::Whole };
    let Some((first, last)) = range.split_once('-') else { return Asked::Whole };
    let number = |text: &str| -> Option<Option<u64>> {
        match text.trim() {
            "" => Some(None),
            text if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(Some(text.parse().unwrap_or(u64::MAX)))
            }
            _ => None,
        }
    };
    let (Some(first), Some(last)) = (number(first), number(last)) else { return Asked::Whole };
    let part = match (first, last) {
        (None, None) => return Asked::Whole,
        (Some(first), Some(last)) if last < first => return Asked::Whole,
        (Some(first), Some(last)) => first..last.saturating_add(1).min(size),
        (Some(first), None) => first..size,
        (None, Some(count)) => size.saturating_sub(count)..size,
    };
    if part.start < part.end { Asked::Part(part) } else { Asked::Outside }
}

/// Whether an `If-None-Match` header names `tag`; weak tags count, as the RFC wants.
pub(super) fn names(header: &str, tag: &str) -> bool {
    header.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_says() {
        for (header, size, expected) in [
            ("bytes=0-4", 10, Asked::Part(0..5)),
            ("bytes=5-", 10, Asked::Part(5..10)),
            ("bytes=-3", 10, Asked::Part(7..10)),
            ("bytes=-30", 10, Asked::Part(0..10)),
            ("bytes=9-99", 10, Asked::Part(9..10)),
            ("bytes=0-99999999999999999999999", 10, Asked::Part(0..10)),
            ("bytes=10-", 10, Asked::Outside),
            ("bytes=99999999999999999999-", 10, Asked::Outside),
            ("bytes=-0", 10, Asked::Outside),
            ("bytes=0-0", 0, Asked::Outside),
            ("bytes=5-4", 10, Asked::Whole),
            ("bytes=0-1,3-4", 10, Asked::Whole),
            ("bytes=-", 10, Asked::Whole),
            ("bytes=a-b", 10, Asked::Whole),
            ("items=0-1", 10, Asked::Whole),
            ("", 10, Asked::Whole),
        ] {
            assert_eq!(asked(header, size), expected, "{header} of {size}");
        }
    }

    #[test]
    fn tags_are_found_in_lists() {
        assert!(names("\"a\", W/\"b\"", "\"b\"") && names("*", "\"b\""));
        assert!(!names("\"a\"", "\"b\"") && !names("b", "\"b\""));
    }
}

//! How long a client wants to wait for a job's end: `?wait=N`, or `Prefer: wait=N` (RFC 7240).

use std::time::Duration;

use axum::http::HeaderMap;

use super::problem::Problem;

/// Longest wait of one request, seconds; longer wishes are cut to it.
pub(crate) const WAIT_MAX_S: u64 = 300;

/// The wait asked for, if any; zero is none.
///
/// # Errors
/// 400 for a `wait` in the query that is no number.
pub(crate) fn asked(query: Option<&str>, headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let seconds = match parameter(query, "wait") {
        Some(text) => {
            let wrong = |_| {
                let shown: String = text.chars().take(32).collect();
                Problem::invalid(format!("`wait` is `{shown}`"), "use whole seconds, at most 300")
            };
            Some(text.parse::<u64>().map_err(wrong)?)
        }
        None => headers.get("prefer").and_then(|value| preferred(value.to_str().ok()?)),
    };
    Ok(seconds.filter(|seconds| *seconds > 0).map(|seconds| Duration::from_secs(seconds.min(WAIT_MAX_S))))
}

/// A parameter of a query, as it is written; our values need no escapes.
pub(crate) fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    let pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
}

/// Preferences that are not understood are ignored, as RFC 7240 asks.
fn preferred(header: &str) -> Option<u64> {
    let wishes = header.split(',').filter_map(|wish| wish.split(';').next()?.split_once('='));
    let mut waits = wishes.filter(|(name, _)| name.trim().eq_ignore_ascii_case("wait"));
    waits.next()?.1.trim().trim_matches('"').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_read_and_cut() {
        for (query, prefer, seconds) in [
            (None, "", None),
            (Some("wait=5"), "", Some(5)),
            (Some("a=b&wait=0"), "wait=9", None),
            (Some("wait=100000"), "", Some(WAIT_MAX_S)),
            (None, "wait=7", Some(7)),
            (None, "respond-async, Wait=\"8\";x", Some(8)),
            (None, "wait=soon", None),
            (Some("await=3"), "", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("prefer", prefer.parse().expect("a header"));
            let wait = asked(query, &headers).expect("valid");
            assert_eq!(wait.map(|wait| wait.as_secs()), seconds, "{query:?} {prefer}");
        }
        for wrong in ["wait=", "wait=-1", "wait=1.5", "wait=x"] {
            assert!(asked(Some(wrong), &HeaderMap::new()).is_err(), "{wrong}");
        }
    }
}

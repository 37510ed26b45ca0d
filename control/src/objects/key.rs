//! Names of objects. Every key is `inputs/<tenant>/...` or `outputs/<job>/...`; what is no such name is no key, so that no
//! path leads out of the store.

use std::fmt;

use object_store::path::Path;

use crate::number::JobNumber;
use crate::submission::TenantId;

/// Longest key, bytes.
pub const KEY_BYTES_MAX: usize = 512;

/// Longest part between slashes, bytes: what file systems take.
const PART_BYTES_MAX: usize = 255;

/// Whose an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Uploaded by a tenant.
    Tenant(TenantId),
    /// Made by the workers on a job.
    Job(JobNumber),
}

/// A name that is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    text: String,
    owner: Owner,
}

/// A name that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Too long.
    #[error("a key of {0} bytes; use at most {KEY_BYTES_MAX}, and 255 between slashes")]
    Long(usize),
    /// It has a character that keys have not.
    #[error(
        "the key `{shown}` has the character {wrong:?}; use letters and digits of ASCII and . _ - + = @ , ( ) !"
    )]
    Character { shown: String, wrong: char },
    /// An empty part, `.` or `..`.
    #[error("the key `{0}` has an empty part, `.` or `..`; put a name between slashes")]
    Part(String),
    /// Neither an input nor an output.
    #[error("the key `{0}` is neither `inputs/<tenant>/<name>` nor `outputs/<job>/<name>`")]
    Place(String),
}

impl Key {
    /// Reads a key as it is, without percent-encoding.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        if text.len() > KEY_BYTES_MAX || text.split('/').any(|part| part.len() > PART_BYTES_MAX) {
            return Err(KeyError::Long(text.len()));
        }
        let is_usable = |c: char| c.is_ascii_alphanumeric() || "/._-+=@,()!".contains(c);
        if let Some(wrong) = text.chars().find(|c| !is_usable(*c)) {
            return Err(KeyError::Character { shown: shown(text), wrong });
        }
        if text.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(KeyError::Part(shown(text)));
        }
        let owner = owner(text).ok_or_else(|| KeyError::Place(shown(text)))?;
        Ok(Self { text: text.to_owned(), owner })
    }

    /// Reads a key from the path of a URL: percent-encoding is undone once.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_url_path(path: &str) -> Result<Self, KeyError> {
        let decoded = percent_encoding::percent_decode_str(path).decode_utf8();
        let wrong = |_| KeyError::Character { shown: shown(path), wrong: char::REPLACEMENT_CHARACTER };
        Self::parse(&decoded.map_err(wrong)?)
    }

    /// Whose it is.
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// As the store's name; the characters of keys are the same there.
    pub(super) fn path(&self) -> Path {
        Path::from(self.text.as_str())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn owner(text: &str) -> Option<Owner> {
    let (place, rest) = text.split_once('/')?;
    let (whose, _name) = rest.split_once('/')?;
    match place {
        "inputs" => {
            let tenant: TenantId = whose.parse().ok()?;
            // One spelling only, else two keys would name one owner.
            (tenant.to_string() == whose).then_some(Owner::Tenant(tenant))
        }
        "outputs" => whose.parse().ok().map(Owner::Job),
        _ => None,
    }
}

fn shown(text: &str) -> String {
    text.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_an_owner() {
        for (text, owner) in [
            ("inputs/0/cat.png", Owner::Tenant(0)),
            ("inputs/42/a/b/c_(1)!+=@,.png", Owner::Tenant(42)),
            ("inputs/7/...", Owner::Tenant(7)),
            ("inputs/7/.hidden", Owner::Tenant(7)),
            ("outputs/job-0-1/dance.webp", Owner::Job(JobNumber::new(0, 1))),
        ] {
            let key = Key::parse(text).expect(text);
            assert_eq!((key.owner(), key.as_str()), (owner, text));
            assert_eq!(key.path().as_ref(), text, "the store's name is the same");
        }
    }

    #[test]
    fn nothing_else_is_a_key() {
        for text in [
            "",
            "/",
            "inputs",
            "inputs/",
            "inputs/1",
            "inputs/1/",
            "inputs//a",
            "/inputs/1/a",
            "inputs/1/a/",
            "inputs/1//a",
            "inputs/1/.",
            "inputs/1/..",
            "inputs/1/../2/a",
            "inputs/../inputs/1/a",
            "inputs/01/a",
            "inputs/+1/a",
            "inputs/-1/a",
            "inputs/4294967296/a",
            "inputs/x/a",
            "Inputs/1/a",
            "outputs/1/a",
            "outputs/job-0-01/a",
            "outputs/job-0-1",
            ".staging/1/a",
            "inputs/1/a b",
            "inputs/1/a\\b",
            "inputs/1/a\0",
            "inputs/1/a\n",
            "inputs/1/a%2e",
            "inputs/1/a#1",
            "inputs/1/a?b",
            "inputs/1/a:b",
            "inputs/1/~a",
            "inputs/1/é",
            "inputs/1/\u{202e}a",
        ] {
            assert!(Key::parse(text).is_err(), "{text:?}");
        }
        let long = |length: usize| format!("inputs/1/{}{}", "a/".repeat(150), "a".repeat(length - 309));
        assert!(Key::parse(&long(512)).is_ok());
        assert_eq!(Key::parse(&long(513)), Err(KeyError::Long(513)));
        assert!(Key::parse(&format!("inputs/1/{}", "a".repeat(255))).is_ok());
        assert!(Key::parse(&format!("inputs/1/{}", "a".repeat(256))).is_err());
    }

    #[test]
    fn percent_encoding_is_undone_once() {
        for (path, key) in [
            ("inputs/1/a%2Bb.png", Some("inputs/1/a+b.png")),
            ("inputs%2f1%2fa", Some("inputs/1/a")),
            ("inputs/1/%2e%2e/2/a", None),
            ("inputs/1/%2e%2e%2f2%2fa", None),
            ("inputs/1/%252e%252e/a", None),
            ("inputs/1/%00", None),
            ("inputs/1/%ff", None),
            ("inputs/1/%c0%ae%c0%ae/a", None),
            ("inputs/1/a%", None),
            ("inputs/1/%5c..%5ca", None),
            ("inputs/1/", None),
        ] {
            assert_eq!(Key::from_url_path(path).ok().as_ref().map(Key::as_str), key, "{path}");
        }
    }
}

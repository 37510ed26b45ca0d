//! Strict reading of a `config.json`: every key is taken, demanded to have one value, or known to be harmless.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::RuntimeError;

/// Largest configuration file that is read, in bytes.
const BYTES_MAX: u64 = 1 << 20;

/// The keys of a configuration file that have not been taken yet.
#[derive(Debug)]
pub(crate) struct Keys {
    path: PathBuf,
    keys: Map<String, Value>,
}

impl Keys {
    /// Reads a JSON object.
    pub(crate) fn read(path: &Path) -> Result<Self, RuntimeError> {
        let bad = |why: String| RuntimeError::BadModel { path: path.to_owned(), why };
        let unreadable =
            |error: std::io::Error| bad(format!("cannot be read: {error}; fetch the whole folder"));
        let bytes = fs::metadata(path).map_err(unreadable)?.len();
        if bytes > BYTES_MAX {
            return Err(bad(format!("has {bytes} bytes; at most {BYTES_MAX} are read")));
        }
        let text = fs::read(path).map_err(unreadable)?;
        let keys =
            serde_json::from_slice(&text).map_err(|error| bad(format!("is no JSON object: {error}")))?;
        Ok(Self { path: path.to_owned(), keys })
    }

    /// An error about this file.
    pub(crate) fn bad(&self, why: String) -> RuntimeError {
        RuntimeError::BadModel { path: self.path.clone(), why }
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        self.keys.remove(key).filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, value: &Value, wanted: &str) -> RuntimeError {
        self.bad(format!("`{key}` is {value}, not {wanted}"))
    }

    /// A whole number within a range; `default` where the key is absent or null.
    pub(crate) fn number(
        &mut self,
        key: &str,
        range: RangeInclusive<u32>,
        default: Option<u32>,
    ) -> Result<u32, RuntimeError> {
        match self.take(key) {
            None => default.ok_or_else(|| self.bad(format!("`{key}` is missing"))),
            Some(value) => self.whole(key, &value, &range),
        }
    }

    /// A whole number within a range, where the key is there.
    pub(crate) fn optional_number(
        &mut self,
        key: &str,
        range: RangeInclusive<u32>,
    ) -> Result<Option<u32>, RuntimeError> {
        self.take(key).map(|value| self.whole(key, &value, &range)).transpose()
    }

    fn whole(&self, key: &str, value: &Value, range: &RangeInclusive<u32>) -> Result<u32, RuntimeError> {
        value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| range.contains(n)).ok_or_else(|| {
            self.wrong(key, value, &format!("a whole number from {} to {}", range.start(), range.end()))
        })
    }

    /// A list of whole numbers, each within a range; `length` of them.
    pub(crate) fn numbers(
        &mut self,
        key: &str,
        range: RangeInclusive<u32>,
        length: RangeInclusive<usize>,
    ) -> Result<Vec<u32>, RuntimeError> {
        let value = self.take(key).ok_or_else(|| self.bad(format!("`{key}` is missing")))?;
        let list = value.as_array().filter(|list| length.contains(&list.len())).ok_or_else(|| {
            self.wrong(key, &value, &format!("a list of {} to {} numbers", length.start(), length.end()))
        })?;
        list.iter().map(|item| self.whole(key, item, &range)).collect()
    }

    /// One number for all blocks or a list with one for each; `default` where the key is absent or null.
    pub(crate) fn per_block(
        &mut self,
        key: &str,
        range: RangeInclusive<u32>,
        blocks: usize,
        default: u32,
    ) -> Result<Vec<u32>, RuntimeError> {
        match self.keys.get(key) {
            Some(Value::Array(_)) => self.numbers(key, range, blocks..=blocks),
            _ => Ok(vec![self.number(key, range, Some(default))?; blocks]),
        }
    }

    /// A positive, finite number; `default` where the key is absent or null.
    pub(crate) fn positive(&mut self, key: &str, default: f64) -> Result<f64, RuntimeError> {
        match self.take(key) {
            None => Ok(default),
            Some(value) => value
                .as_f64()
                .filter(|n| n.is_finite() && *n > 0.0)
                .ok_or_else(|| self.wrong(key, &value, "a positive number")),
        }
    }

    /// Three finite numbers.
    pub(crate) fn triple(&mut self, key: &str) -> Result<[f64; 3], RuntimeError> {
        let value = self.take(key).ok_or_else(|| self.bad(format!("`{key}` is missing")))?;
        let numbers: Option<Vec<f64>> =
            value.as_array().and_then(|list| list.iter().map(Value::as_f64).collect());
        numbers
            .and_then(|list| <[f64; 3]>::try_from(list).ok())
            .filter(|list| list.iter().all(|number| number.is_finite()))
            .ok_or_else(|| self.wrong(key, &value, "a list of three numbers"))
    }

    /// A truth value; `default` where the key is absent or null.
    pub(crate) fn flag(&mut self, key: &str, default: bool) -> Result<bool, RuntimeError> {
        match self.take(key) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.wrong(key, &value, "true or false")),
        }
    }

    /// A word, where the key is there.
    pub(crate) fn word(&mut self, key: &str) -> Result<Option<String>, RuntimeError> {
        self.take(key)
            .map(|value| value.as_str().map(str::to_owned).ok_or_else(|| self.wrong(key, &value, "a word")))
            .transpose()
    }

    /// A list of words; `default` where the key is absent or null.
    pub(crate) fn words(&mut self, key: &str, default: &[&str]) -> Result<Vec<String>, RuntimeError> {
        match self.take(key) {
            None => Ok(default.iter().map(|&word| word.to_owned()).collect()),
            Some(value) => value
                .as_array()
                .and_then(|list| list.iter().map(|word| word.as_str().map(str::to_owned)).collect())
                .ok_or_else(|| self.wrong(key, &value, "a list of words")),
        }
    }

    /// Demands that keys are absent, null, or have the one value that is implemented.
    pub(crate) fn only(&mut self, implemented: &[(&str, Value)]) -> Result<(), RuntimeError> {
        for (key, wanted) in implemented {
            if let Some(value) = self.take(key) {
                let same = match (value.as_f64(), wanted.as_f64()) {
                    (Some(value), Some(wanted)) => value == wanted,
                    _ => value == *wanted,
                };
                if !same {
                    return Err(self.wrong(
                        key,
                        &value,
                        &format!("{wanted}, the only value that is implemented"),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Drops keys that change no result.
    pub(crate) fn harmless(&mut self, keys: &[&str]) {
        keys.iter().for_each(|key| {
            self.keys.remove(*key);
        });
    }

    /// Demands that nothing is left. Keys whose value is null, and private ones (`_name_or_path`), do not count.
    pub(crate) fn finish(self) -> Result<(), RuntimeError> {
        match self.keys.iter().find(|(key, value)| !key.starts_with('_') && !value.is_null()) {
            None => Ok(()),
            Some((key, value)) => Err(self.bad(format!(
                "`{key}` = {value} is not known and may change results; this kind of model is not implemented"
            ))),
        }
    }
}

//! The name of a job: a number that a plane gives once and never again.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bits of a number that count jobs; the rest name the shard.
const SEQUENCE_BITS: u32 = 48;

/// A job's number: shard in the upper 16 bits, a sequence within it below. The dispatcher knows it as the job's tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobNumber(pub u64);

impl JobNumber {
    /// Number `sequence` of shard `shard`.
    pub const fn new(shard: u16, sequence: u64) -> Self {
        Self(((shard as u64) << SEQUENCE_BITS) | (sequence & ((1 << SEQUENCE_BITS) - 1)))
    }

    /// The shard that owns the job.
    pub const fn shard(self) -> u16 {
        (self.0 >> SEQUENCE_BITS) as u16
    }

    /// Its place in the shard's sequence.
    pub const fn sequence(self) -> u64 {
        self.0 & ((1 << SEQUENCE_BITS) - 1)
    }
}

impl fmt::Display for JobNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job-{}-{}", self.shard(), self.sequence())
    }
}

/// A text that names no job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no job id; ids look like job-0-42")]
pub struct JobNumberError(String);

impl FromStr for JobNumber {
    type Err = JobNumberError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (shard, sequence) = text.strip_prefix("job-")?.split_once('-')?;
            let digits = |part: &str| {
                let canonical = part == "0" || !part.starts_with('0');
                (canonical && part.bytes().all(|byte| byte.is_ascii_digit())).then_some(())
            };
            digits(shard)?;
            digits(sequence)?;
            let sequence: u64 = sequence.parse().ok()?;
            (sequence >> SEQUENCE_BITS == 0).then_some(Self::new(shard.parse().ok()?, sequence))
        };
        parse().ok_or_else(|| JobNumberError(text.chars().take(64).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_names_one_number_only() {
        for number in [JobNumber::new(0, 0), JobNumber::new(7, 42), JobNumber::new(u16::MAX, (1 << 48) - 1)] {
            assert_eq!(number.to_string().parse(), Ok(number));
        }
        for bad in
            ["", "job-", "job-0-", "job-00-1", "job-0-01", "job-0-+1", "job-65536-1", "job-0-281474976710656"]
        {
            assert!(bad.parse::<JobNumber>().is_err(), "{bad}");
        }
    }
}

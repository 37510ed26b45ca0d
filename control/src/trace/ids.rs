//! Ids of traces and spans, made from a job's number and the plane's secret: a plane that takes over makes the same, and
//! nobody else guesses them. And the choice of jobs that are traced.

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use super::context::TraceContext;
use crate::number::JobNumber;

/// Makes the ids of one plane's spans.
#[derive(Clone, Debug)]
pub(crate) struct Ids {
    keyed: Hmac<Sha256>,
}

/// What a span is, among those of its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The whole job.
    Job,
    /// The wait that began with the job's change of this number.
    Queue { version: u32 },
    /// The lease that was the job's so many-th.
    Attempt { delivery: u16 },
    /// This call of its webhook, from 1.
    Webhook { attempt: u64 },
}

impl Ids {
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        let mut keyed = Hmac::new_from_slice(secret).expect("any length is a key");
        keyed.update(b"trace");
        Self { keyed }
    }

    /// The trace of a job whose client began none.
    pub(crate) fn trace(&self, job: JobNumber) -> u128 {
        let mut mac = self.keyed.clone();
        mac.update(b"T");
        mac.update(&job.0.to_be_bytes());
        first_16(&mac.finalize().into_bytes()).max(1)
    }

    /// The span of a part of a job.
    pub(crate) fn span(&self, job: JobNumber, part: Part) -> u64 {
        let (kind, which) = match part {
            Part::Job => (b"J", 0),
            Part::Queue { version } => (b"Q", u64::from(version)),
            Part::Attempt { delivery } => (b"A", u64::from(delivery)),
            Part::Webhook { attempt } => (b"W", attempt),
        };
        let mut mac = self.keyed.clone();
        mac.update(kind);
        mac.update(&job.0.to_be_bytes());
        mac.update(&which.to_be_bytes());
        first_8(&mac.finalize().into_bytes()).max(1)
    }
}

/// The span of the `nth` part of the work under `parent`, for workers, which know no secret: from what only they and the
/// plane know.
pub(crate) fn span_below(parent: TraceContext, nth: u32) -> u64 {
    let mut hash = Sha256::new_with_prefix(parent.trace.to_be_bytes());
    hash.update(parent.span.to_be_bytes());
    hash.update(nth.to_be_bytes());
    first_8(&hash.finalize()).max(1)
}

fn first_16(digest: &[u8]) -> u128 {
    digest.iter().take(16).fold(0, |sum, byte| (sum << 8) | u128::from(*byte))
}

fn first_8(digest: &[u8]) -> u64 {
    digest.iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

/// Chooses the jobs that are traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sampler {
    /// A job's hash below it is chosen; 2⁶⁴ chooses all.
    below: u128,
}

impl Sampler {
    /// Chooses this share of the jobs whose clients do not say; `ratio` is cut to 0 to 1.
    pub(crate) fn new(ratio: f64) -> Self {
        let ratio = if ratio.is_nan() { 0.0 } else { ratio.clamp(0.0, 1.0) };
        Self { below: (ratio * 2_f64.powi(64)) as u128 }
    }

    /// Whether a job is traced: as its client wishes, and by its number where the client says nothing.
    pub(crate) fn chooses(self, job: JobNumber, client: Option<TraceContext>) -> bool {
        match client {
            Some(client) => client.is_sampled,
            None => u128::from(spread(job.0)) < self.below,
        }
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): neighbours get unlike hashes.
fn spread(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_the_same_for_the_same_secret_and_no_other() {
        let (ours, again, other) = (Ids::new(&[1; 32]), Ids::new(&[1; 32]), Ids::new(&[2; 32]));
        let job = JobNumber::new(0, 7);
        assert_eq!(ours.trace(job), again.trace(job));
        assert_ne!(ours.trace(job), other.trace(job));
        assert_ne!(ours.trace(job), ours.trace(JobNumber::new(1, 7)));
        let part = Part::Attempt { delivery: 2 };
        assert_eq!(ours.span(job, part), again.span(job, part));
        assert_ne!(ours.span(job, part), other.span(job, part));
    }

    #[test]
    fn every_part_of_a_job_has_its_own_span() {
        let ids = Ids::new(&[1; 32]);
        let mut spans = BTreeSet::new();
        for sequence in 0..20 {
            let job = JobNumber::new(0, sequence);
            let mut parts = vec![Part::Job];
            for count in 0..20_u16 {
                parts.push(Part::Queue { version: count.into() });
                parts.push(Part::Attempt { delivery: count });
                parts.push(Part::Webhook { attempt: count.into() });
            }
            for part in parts {
                let span = ids.span(job, part);
                assert!(span != 0 && spans.insert(span), "{job} {part:?}");
            }
            let context =
                TraceContext { trace: ids.trace(job), span: ids.span(job, Part::Job), is_sampled: true };
            for nth in 0..20 {
                assert!(spans.insert(span_below(context, nth)), "{job} {nth}");
            }
        }
    }

    #[test]
    fn share_of_the_jobs_is_the_ratio() {
        let check = |ratio: f64, range: std::ops::RangeInclusive<usize>| {
            let sampler = Sampler::new(ratio);
            let chosen = (0..100_000).filter(|n| sampler.chooses(JobNumber::new(3, *n), None)).count();
            assert!(range.contains(&chosen), "{chosen} of 100000 at {ratio}");
        };
        check(0.0, 0..=0);
        check(-1.0, 0..=0);
        check(f64::NAN, 0..=0);
        check(1.0, 100_000..=100_000);
        check(9.0, 100_000..=100_000);
        // Five standard deviations.
        check(0.01, 843..=1157);
        check(0.5, 49_210..=50_790);
    }

    #[test]
    fn client_has_the_last_word() {
        let client = |is_sampled| Some(TraceContext { trace: 1, span: 1, is_sampled });
        let job = JobNumber(1);
        assert!(Sampler::new(0.0).chooses(job, client(true)));
        assert!(!Sampler::new(1.0).chooses(job, client(false)));
    }
}

//! The place of a plane among the others: which shard it leads, and where requests for the others belong.

use std::sync::Arc;

use axum::http::StatusCode;
use sha2::{Digest, Sha256};

use super::{Directory, LeaseGate};
use crate::api::Problem;
use crate::submission::TenantId;

/// The shard of a tenant's jobs among `shards`: the first eight bytes of SHA-256 over the tenant's number (four bytes,
/// big endian), as a big-endian number, modulo `shards`. Part of the format: it never changes.
pub fn shard_of(tenant: TenantId, shards: u16) -> u16 {
    let digest = Sha256::digest(tenant.to_be_bytes());
    let first = digest.iter().take(8).fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    (first % u64::from(shards.max(1))) as u16
}

/// A leader's place.
#[derive(Clone)]
pub struct Seat {
    /// The shard that it leads.
    pub shard: u16,
    /// Shards in all.
    pub shards: u16,
    /// Until when it may answer.
    pub gate: Arc<LeaseGate>,
    /// Where the others are.
    pub directory: Directory,
}

impl Seat {
    /// Whether this plane still leads.
    ///
    /// # Errors
    /// 503 once its lease is over.
    pub(crate) fn leads(&self) -> Result<(), Problem> {
        if self.gate.is_open() {
            return Ok(());
        }
        let detail = "this plane leads no more: another takes over";
        Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-leading", detail, AGAIN).later(1))
    }

    /// Whether requests for `shard` are answered here.
    ///
    /// # Errors
    /// 307 to its leader, 503 while it has none.
    pub(crate) fn answers_for(&self, shard: u16, path: &str) -> Result<(), Problem> {
        if shard == self.shard || shard >= self.shards {
            return Ok(());
        }
        Err(elsewhere(&self.directory, shard, path, ""))
    }
}

const AGAIN: &str = "send the request again, here or to another of the planes";

/// Where requests for `shard` belong: 307, or 503 while nobody but the plane at `own` leads it.
pub(super) fn elsewhere(directory: &Directory, shard: u16, path: &str, own: &str) -> Problem {
    match directory.leader(shard).filter(|leader| leader.url != own) {
        Some(leader) => {
            let detail = format!("shard {shard} is led by `{}` at {}", leader.holder, leader.url);
            let problem =
                Problem::new(StatusCode::TEMPORARY_REDIRECT, "led-elsewhere", detail, "send it there");
            problem.at(format!("{}{path}", leader.url.trim_end_matches('/')))
        }
        None => {
            let detail = format!("nobody leads shard {shard} at the moment");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no-leader", detail, AGAIN).later(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::store::Leader;

    #[test]
    fn tenants_keep_their_shards_for_ever() {
        // python3 -c 'import hashlib; [print(t, int.from_bytes(hashlib.sha256(t.to_bytes(4, "big")).digest()[:8], "big") % 16)
        //     for t in (0, 1, 2, 77, 4294967295)]'
        for (tenant, shard) in [(0, 11), (1, 5), (2, 3), (77, 10), (u32::MAX, 0)] {
            assert_eq!(shard_of(tenant, 16), shard, "{tenant}");
            assert_eq!(shard_of(tenant, 1), 0);
        }
        let mut counts = [0; 4];
        (0..4000).for_each(|tenant| counts[usize::from(shard_of(tenant, 4))] += 1);
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    }

    #[test]
    fn requests_for_others_are_sent_there() {
        let leader = |shard, epoch, silent| Leader {
            shard,
            epoch,
            holder: format!("plane-{shard}"),
            url: format!("http://127.0.0.1:{shard}/"),
            silent: Duration::from_secs(silent),
        };
        let directory = Directory::fixed(vec![leader(1, 7, 0), leader(2, 3, 7200), leader(3, 0, 0)]);
        let gate = Arc::new(LeaseGate::open(Instant::now(), Duration::from_secs(60)));
        let seat = Seat { shard: 0, shards: 4, gate, directory };
        let check = |shard, expected: Option<(u16, Option<&str>)>| {
            let problem = seat.answers_for(shard, "/v1/jobs?wait=3").err();
            let got = problem.as_ref().map(|p| (p.status.as_u16(), p.location.as_deref()));
            assert_eq!(got, expected, "shard {shard}");
        };
        check(0, None);
        check(1, Some((307, Some("http://127.0.0.1:1/v1/jobs?wait=3"))));
        check(2, Some((503, None)));
        check(3, Some((503, None)));
        check(9, None);
        assert!(seat.leads().is_ok());
        seat.gate.close();
        assert_eq!(seat.leads().err().map(|problem| problem.status.as_u16()), Some(503));
    }
}

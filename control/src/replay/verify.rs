//! Does a journal give the same decisions again? Every effect by digest, every decision, minute and ended instance by its
//! text, every ended job by its bytes.

use policy::units::Instant;

use super::{Batch, Origin, ReplayError, Step, Watch, walk};
use crate::command::Command;
use crate::effect::Effect;
use crate::engine::{decode_record, encode_record};
use crate::journal::{Row, Seal};
use crate::number::JobNumber;
use crate::plane::Plane;
use crate::store::{Archive, Store, StoreError};

/// Ended jobs read at once.
const PAGE: usize = 1000;

/// Replays of a journal of which more and more is forgotten, before a difference is believed.
const AGAIN_MAX: u32 = 3;

/// What a replay found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Commands before the first that is kept; they are not looked at.
    pub forgotten: u64,
    /// Commands that were applied again.
    pub commands: u64,
    /// In so many batches.
    pub batches: u64,
    /// Batches whose effects were noted when they were committed, and could be compared.
    pub batches_compared: u64,
    /// Effects that were compared.
    pub effects_compared: u64,
    /// Decisions, minutes and ended instances that were compared.
    pub rows_compared: u64,
    /// Ended jobs that were compared.
    pub jobs_compared: u64,
    /// Planes that wrote the journal.
    pub epochs: u64,
    /// Time of the first command.
    pub first: Option<Instant>,
    /// Time of the last.
    pub last: Instant,
    /// The first difference, if there is one.
    pub difference: Option<Difference>,
}

/// Where a replay did not do what was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// First command of the batch.
    pub command: u64,
    /// Time of its last.
    pub at: Instant,
    /// What is different.
    pub what: String,
}

/// Folds a journal again and compares what follows with what followed.
///
/// # Errors
/// [`ReplayError`] when it cannot be read or folded; a difference is no error.
pub fn verify(store: &mut dyn Store, origins: &[Origin]) -> Result<Verdict, ReplayError> {
    // A plane that forgets meanwhile takes ended jobs away of which the journal, as it was read, still tells.
    for _ in 0..AGAIN_MAX {
        let marks = store.marks().ok();
        let verdict = verify_once(store, origins)?;
        if verdict.difference.is_none() || marks == store.marks().ok() {
            return Ok(verdict);
        }
    }
    verify_once(store, origins)
}

fn verify_once(store: &mut dyn Store, origins: &[Origin]) -> Result<Verdict, ReplayError> {
    let mut watch =
        Comparison { archive: store.archive(), base: None, ended: Vec::new(), verdict: Verdict::default() };
    walk(store, origins, &mut watch)?;
    let mut verdict = watch.verdict;
    if verdict.difference.is_none() {
        verdict.difference = unknown_job(&mut *watch.archive, watch.base, &verdict)?;
    }
    Ok(verdict)
}

struct Comparison {
    archive: Box<dyn Archive>,
    /// Time until which nothing is looked at, where the journal's beginning is forgotten.
    base: Option<Instant>,
    /// Jobs that ended in this batch: number, command, record.
    ended: Vec<(JobNumber, u64, Vec<u8>)>,
    verdict: Verdict,
}

impl Watch for Comparison {
    fn begin(&mut self, plane: &Plane, first: u64) {
        self.base = Some(plane.last());
        self.verdict.forgotten = first - 1;
        self.verdict.epochs = 1;
    }

    fn step(&mut self, step: &Step<'_>) -> Result<(), StoreError> {
        self.verdict.commands += 1;
        self.verdict.first = self.verdict.first.or(Some(step.now));
        self.verdict.last = step.now;
        // Where the first command begins a plane, the one of the image does nothing any more.
        let is_first = self.base.is_some() && step.number == self.verdict.forgotten + 1;
        let begins = matches!(step.command, Command::TookOver { .. });
        self.verdict.epochs += u64::from(begins && !is_first);
        for effect in step.effects {
            if let Effect::Ended(record) = effect {
                self.ended.push((record.job, step.number, encode_record(record)));
            }
        }
        Ok(())
    }

    fn batch(&mut self, batch: &Batch<'_>) -> Result<(), StoreError> {
        self.verdict.batches += 1;
        let found = |what: String| Some(Difference { command: batch.first, at: batch.at, what });
        let mut difference = None;
        if let Some(recorded) = &batch.recorded {
            self.verdict.batches_compared += 1;
            self.verdict.effects_compared += recorded.effects;
            self.verdict.rows_compared += recorded.rows.len() as u64;
            difference = compare(recorded, batch.replayed).and_then(found);
        }
        for (job, number, ours) in self.ended.drain(..) {
            self.verdict.jobs_compared += 1;
            if difference.is_none() {
                let kept = self.archive.ended(job)?;
                difference = compare_job(job, kept.as_deref(), &ours).map(|what| Difference {
                    command: number,
                    at: batch.at,
                    what,
                });
            }
        }
        if self.verdict.difference.is_none() {
            self.verdict.difference = difference;
        }
        Ok(())
    }
}

/// What is different between what followed then and now.
fn compare(recorded: &Seal, replayed: &Seal) -> Option<String> {
    let text = |row: Option<&Row>| row.map_or("nothing", |row| row.json.as_str()).to_owned();
    let longest = recorded.rows.len().max(replayed.rows.len());
    let rows = (0..longest).map(|at| (recorded.rows.get(at), replayed.rows.get(at)));
    if let Some((then, now)) = rows.into_iter().find(|(then, now)| then != now) {
        return Some(format!("recorded {}, replayed {}", text(then), text(now)));
    }
    if recorded.effects != replayed.effects {
        return Some(format!("{} effects were recorded, {} replayed", recorded.effects, replayed.effects));
    }
    (recorded.digest != replayed.digest)
        .then(|| "other effects than those recorded: a start, an answer or a message differs".to_owned())
}

fn compare_job(job: JobNumber, kept: Option<&[u8]>, ours: &[u8]) -> Option<String> {
    match kept {
        Some(kept) if kept == ours => None,
        None => Some(format!("{job} ended in the replay and is not among the ended jobs")),
        Some(kept) => {
            let text = |bytes| match decode_record(job, bytes) {
                Ok(record) => format!(
                    "{} at {:.6} s after waiting {:.6} s, {} deliveries",
                    record.outcome.name(),
                    record.ended.as_secs_f64(),
                    record.waited.as_secs_f64(),
                    record.deliveries
                ),
                Err(error) => error.to_string(),
            };
            Some(format!("{job}: recorded {}, replayed {}", text(kept), text(ours)))
        }
    }
}

/// A job among the ended ones that did not end in the replay. A plane that still writes may have ended more since.
fn unknown_job(
    archive: &mut dyn Archive,
    base: Option<Instant>,
    verdict: &Verdict,
) -> Result<Option<Difference>, StoreError> {
    let (mut before, mut kept) = (None, 0);
    loop {
        let page = archive.latest(before, PAGE)?;
        for bytes in &page {
            let record = decode_record(JobNumber(0), bytes)?;
            before = Some(record.job);
            let is_seen = base.is_none_or(|base| record.ended > base) && record.ended <= verdict.last;
            kept += u64::from(is_seen);
        }
        if page.len() < PAGE {
            break;
        }
    }
    Ok((kept > verdict.jobs_compared).then(|| Difference {
        command: 0,
        at: verdict.last,
        what: format!("{kept} jobs are kept as ended, {} ended in the replay", verdict.jobs_compared),
    }))
}

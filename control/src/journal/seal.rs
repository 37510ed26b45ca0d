//! What followed from a batch, in so few bytes that it costs nothing to keep: a digest of all effects, and the rows that
//! are rare anyway. A replay that decides otherwise has another seal.

use serde::{Deserialize, Serialize};

use policy::records::{DecisionRow, InstanceRow, JobOutcome, MinuteRow};

use crate::effect::{Answer, Effect, JobState, Refusal};
use crate::protocol::ToWorker;

/// Where a seal begins in the body of a batch, in place of a command's length: no command is so long.
const MARK: [u8; 4] = [0xFF; 4];

/// Odd, with well spread bits: the golden ratio times 2⁶⁴ (Knuth, TAOCP 3, 6.4).
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// What followed from a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// Of all effects in order: who was told what about which job, and when. It finds differences, not forgers.
    pub digest: u64,
    /// How many effects.
    pub effects: u64,
    /// Decisions, minutes and ended instances.
    pub rows: Vec<Row>,
}

/// A record row, as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Which command of the batch it followed from, from 0.
    pub command: u64,
    /// `{"decided": {..}}`, `{"minute": {..}}` or `{"instance": {..}}`.
    pub json: String,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum RowRef<'a> {
    Decided(&'a DecisionRow),
    Minute(&'a MinuteRow),
    Instance(&'a InstanceRow),
}

impl Seal {
    /// Appends it to the body of a batch, behind the commands.
    pub fn append_to(&self, body: &mut Vec<u8>) {
        body.extend_from_slice(&MARK);
        let taken = postcard::to_extend(self, std::mem::take(body)).expect("seals encode");
        *body = taken;
    }

    /// Whether a seal, and no command, stands at the start of `rest`; then the seal, if it can be read.
    pub(crate) fn at_start(rest: &[u8]) -> Option<Option<Self>> {
        let bytes = rest.strip_prefix(&MARK)?;
        Some(postcard::take_from_bytes(bytes).ok().and_then(|(seal, left)| left.is_empty().then_some(seal)))
    }
}

/// Seals what follows from commands.
#[derive(Debug, Default)]
pub struct Sealer(Seal);

impl Sealer {
    /// What was noted since the last [`Sealer::reset`].
    pub fn seal(&self) -> &Seal {
        &self.0
    }

    /// Begins the next batch.
    pub fn reset(&mut self) {
        self.0.digest = 0;
        self.0.effects = 0;
        self.0.rows.clear();
    }

    /// Notes an effect of command `command` of the batch.
    pub fn note(&mut self, command: u64, effect: &Effect) {
        self.0.effects += 1;
        match effect {
            Effect::Answer(answer) => self.answer(answer),
            Effect::Tell { session, message } => {
                self.mix(2);
                self.mix(session.0);
                self.told(message);
            }
            Effect::Close { session } => {
                self.mix(3);
                self.mix(session.0);
            }
            Effect::Changed(event) => {
                self.mix(4);
                self.mix(event.job.0);
                self.mix(event.at.as_nanos());
                self.mix(
                    u64::from(event.version) << 32
                        | u64::from(event.stage) << 16
                        | u64::from(event.deliveries),
                );
                self.mix(match event.state {
                    JobState::Queued => 0,
                    JobState::Running => 1,
                    JobState::Ended(outcome) => 2 + number(outcome),
                });
            }
            Effect::Ended(record) => {
                self.mix(5);
                self.mix(record.job.0);
                self.mix(record.ended.as_nanos());
                self.mix(record.waited.as_nanos());
                self.mix(record.served.as_nanos());
                self.mix(
                    u64::from(record.deliveries) << 32
                        | u64::from(record.quality) << 8
                        | number(record.outcome),
                );
            }
            Effect::Webhook(task) => {
                self.mix(6);
                self.mix(task.job.0);
            }
            Effect::Launch { token, pool } => {
                self.mix(7);
                self.token(token.0);
                self.mix(u64::from(pool.0));
            }
            Effect::Terminate { token, pool, handle } => {
                self.mix(8);
                self.token(token.0);
                self.mix(u64::from(pool.0));
                self.bytes(handle.as_deref().unwrap_or("").as_bytes());
            }
            Effect::Decided(row) => self.row(command, &RowRef::Decided(row)),
            Effect::Minute(row) => self.row(command, &RowRef::Minute(row)),
            Effect::InstanceEnded(row) => self.row(command, &RowRef::Instance(row)),
            Effect::Held { is_held, why } => {
                self.mix(12 + u64::from(*is_held));
                self.bytes(why.as_bytes());
            }
        }
    }

    fn answer(&mut self, answer: &Answer) {
        let (tag, value) = match answer {
            Answer::Accepted(job) => (0, job.0),
            Answer::Known(job) => (1, job.0),
            Answer::OtherBody(job) => (2, job.0),
            Answer::Rejected { why, retry_after } => {
                let why = match why {
                    Refusal::WouldBeLate => 0,
                    Refusal::QueueFull => 1,
                    Refusal::TenantFull => 2,
                };
                (3 + why, retry_after.as_nanos())
            }
            Answer::Cancelled => (6, 0),
            Answer::NotRunning => (7, 0),
            Answer::Reloaded => (8, 0),
            Answer::NotReloaded(_) => (9, 0),
        };
        self.mix(1 << 8 | tag);
        self.mix(value);
    }

    fn told(&mut self, message: &ToWorker) {
        match message {
            ToWorker::Welcome { instance, keep, .. } => {
                self.mix(1);
                self.mix(u64::from(instance.0) << 32 | keep.len() as u64);
            }
            ToWorker::Standby => self.mix(2),
            ToWorker::Refused { why } => self.bytes(why.as_bytes()),
            ToWorker::Start(start) => {
                self.mix(4 << 32 | u64::from(start.delivery));
                self.mix(start.job.0);
                self.mix(u64::from(start.lease.slot) << 32 | u64::from(start.lease.token));
                self.mix(start.deadline_ms.unwrap_or(u64::MAX));
                self.mix((start.payload.len() << 20 ^ start.carry.len()) as u64);
                self.bytes(start.stage.as_bytes());
                self.bytes(start.quality.as_bytes());
            }
            ToWorker::Revoke { lease } => {
                self.mix(5);
                self.mix(u64::from(lease.slot) << 32 | u64::from(lease.token));
            }
            ToWorker::Ack { lease, accepted } => {
                self.mix(6 + u64::from(*accepted));
                self.mix(u64::from(lease.slot) << 32 | u64::from(lease.token));
            }
            ToWorker::Drain => self.mix(8),
        }
    }

    fn row(&mut self, command: u64, row: &RowRef<'_>) {
        let json = serde_json::to_string(row).expect("rows are plain data");
        self.bytes(json.as_bytes());
        self.0.rows.push(Row { command, json });
    }

    fn token(&mut self, token: u128) {
        self.mix((token >> 64) as u64);
        self.mix(token as u64);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.mix(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    #[inline]
    fn mix(&mut self, value: u64) {
        self.0.digest = (self.0.digest.rotate_left(23) ^ value).wrapping_mul(MULTIPLIER);
    }
}

fn number(outcome: JobOutcome) -> u64 {
    JobOutcome::ALL.iter().position(|known| *known == outcome).map_or(u64::MAX, |at| at as u64)
}

#[cfg(test)]
mod tests {
    use policy::units::Instant;

    use super::*;
    use crate::command::SessionId;
    use crate::effect::JobEvent;
    use crate::number::JobNumber;

    fn changed(version: u32) -> Effect {
        let at = Instant::from_nanos(5);
        let (job, state) = (JobNumber(7), JobState::Running);
        Effect::Changed(JobEvent { job, version, at, state, stage: 0, deliveries: 1 })
    }

    fn digest(effects: &[Effect]) -> u64 {
        let mut sealer = Sealer::default();
        effects.iter().for_each(|effect| sealer.note(0, effect));
        sealer.seal().digest
    }

    #[test]
    fn every_difference_of_effects_is_seen() {
        let close = Effect::Close { session: SessionId(1) };
        let all = [
            digest(&[]),
            digest(&[changed(1)]),
            digest(&[changed(2)]),
            digest(&[changed(1), changed(2)]),
            digest(&[changed(2), changed(1)]),
            digest(std::slice::from_ref(&close)),
            digest(&[close.clone(), close]),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].contains(one), "{index}");
        }
    }

    #[test]
    fn a_seal_is_read_as_it_was_written() {
        let seal = Seal { digest: 9, effects: 2, rows: vec![Row { command: 1, json: "{}".to_owned() }] };
        let mut body = b"commands".to_vec();
        seal.append_to(&mut body);
        assert_eq!(Seal::at_start(&body[8..]), Some(Some(seal)));
        assert_eq!(Seal::at_start(&body), None, "commands come first");
        assert_eq!(Seal::at_start(&body[8..body.len() - 1]), Some(None), "cut short");
    }
}

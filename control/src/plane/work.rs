//! What workers say of their work: beats, and the ends of stages.

use policy::dispatch::{Input, StageResult};
use policy::model::{InstanceId, Lease};
use policy::units::Instant;

use super::Plane;
use crate::command::SessionId;
use crate::effect::Effect;
use crate::number::JobNumber;
use crate::protocol::{Report, ToWorker};

impl Plane {
    /// Whether `instance` holds `lease`, on `job` where one is named.
    pub(super) fn holds(&self, instance: InstanceId, lease: Lease, number: Option<JobNumber>) -> bool {
        self.jobs.at(lease.slot).is_some_and(|job| {
            job.held == Some((lease, instance))
                && number.is_none_or(|number| job.number == number)
                && self.dispatcher.lease_of(job.id) == Some(lease)
        })
    }

    /// Whether the worker of `session` holds `lease` on `job`: progress is passed on for such work only.
    pub fn session_holds(&self, session: SessionId, lease: Lease, job: JobNumber) -> bool {
        self.machines.by_session(session).is_some_and(|instance| self.holds(instance, lease, Some(job)))
    }

    pub(super) fn beat(&mut self, now: Instant, session: SessionId, alive: &[Lease], out: &mut Vec<Effect>) {
        let Some(instance) = self.machines.by_session(session) else { return };
        if let Some(machine) = self.machines.get_mut(instance) {
            machine.heard = now;
        }
        for lease in alive {
            if self.holds(instance, *lease, None) {
                self.give(now, Input::LeaseRenewed { lease: *lease }, out);
            }
        }
    }

    pub(super) fn finished(
        &mut self,
        now: Instant,
        session: SessionId,
        lease: Lease,
        number: JobNumber,
        report: Report,
        out: &mut Vec<Effect>,
    ) {
        let instance = self.machines.by_session(session);
        if let Some(machine) = instance.and_then(|instance| self.machines.get_mut(instance)) {
            machine.heard = now;
        }
        let accepted = instance.is_some_and(|instance| self.holds(instance, lease, Some(number)));
        out.push(Effect::Tell { session, message: ToWorker::Ack { lease, accepted } });
        if !accepted {
            return;
        }
        self.release(lease.slot);
        let Some(job) = self.jobs.at_mut(lease.slot) else { return };
        let result = match report {
            Report::Done { result, objects } => {
                job.result = result;
                job.objects = objects;
                StageResult::Done
            }
            Report::Failed { message, again } => {
                job.result = message.into_bytes().into_boxed_slice();
                if again { StageResult::Failed } else { StageResult::Hopeless }
            }
        };
        self.give(now, Input::StageFinished { lease, result }, out);
        if self.jobs.at(lease.slot).is_some_and(|job| job.number == number) {
            self.note_queued(now, lease.slot, out);
        }
    }
}

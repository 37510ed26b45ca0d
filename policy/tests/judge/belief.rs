//! What inputs and outputs tell a driver, and whether the dispatcher agrees.

use policy::dispatch::{Ended, Input, InstanceState, Output, Started};
use policy::model::{InstanceId, Lease, Place, PoolId, SLOT_KINDS_MAX, StageId};
use policy::records::JobOutcome;
use policy::units::{Duration, Instant};

use super::{Inside, Judge, Machine, Seen, Work};

impl Judge {
    /// What the input itself tells a driver.
    pub(super) fn believe(&mut self, input: &Input, news: bool) {
        if !news {
            return;
        }
        match *input {
            Input::JobArrived { .. } | Input::JobSubmitted { .. } => self.arrived += 1,
            Input::InstanceSilent { instance } => {
                let seen = &mut self.machines[instance.index()].seen;
                *seen = if *seen == Seen::Booted { Seen::BootedSilent } else { Seen::ReadySilent };
            }
            Input::InstanceHeard { instance } => {
                let seen = &mut self.machines[instance.index()].seen;
                *seen = if *seen == Seen::BootedSilent { Seen::Booted } else { Seen::Ready };
            }
            Input::StageFinished { lease, .. } => self.release(lease),
            Input::LeaseRenewed { lease } => {
                let work = self.work.get_mut(&lease.slot).expect("a lease that is news is in force");
                if let Some(length) = self.system.stages[work.stage.index()].lease {
                    work.until = work.until.max(self.now + length);
                }
            }
            Input::InstanceBooted { instance } => self.machines[instance.index()].seen = Seen::Booted,
            Input::InstanceReady { instance } => self.machines[instance.index()].seen = Seen::Ready,
            Input::LaunchFailed { instance }
            | Input::InstanceLost { instance }
            | Input::InstanceGone { instance }
                if self.seen(instance) == Seen::Terminating =>
            {
                self.machines[instance.index()].seen = Seen::Free;
            }
            _ => {}
        }
    }

    fn release(&mut self, lease: Lease) {
        let at = self.at();
        let work =
            self.work.remove(&lease.slot).unwrap_or_else(|| panic!("{at}: {lease:?} was not in force"));
        assert_eq!(work.lease, lease, "{at}");
        if let (Some(id), Place::Slot { kind, .. }) = (work.instance, self.place(work.stage)) {
            self.machines[id.index()].busy[kind.index()] -= 1;
        } else if let Some(pool) = work.pool {
            self.external[pool.index()] -= 1;
        }
        self.old_leases.push(lease);
    }

    fn place(&self, stage: StageId) -> Place {
        self.system.stages[stage.index()].place
    }

    /// What the outputs tell a driver; each must fit what it knows.
    pub(super) fn learn(&mut self, input: Input) {
        for output in std::mem::take(&mut self.outputs) {
            let at = format!("{}: {input:?} gave {output:?}", self.at());
            match output {
                Output::Accepted { job, .. } => {
                    let (class, own) = match input {
                        Input::JobArrived { class, .. } => (class, None),
                        Input::JobSubmitted { class, deadline, .. } => (class, deadline),
                        _ => panic!("{at}: nobody arrived"),
                    };
                    let limit = own.or(self.system.classes[class.index()].deadline);
                    let deadline = limit.map_or(Instant::NEVER, |limit| self.now + limit);
                    let before = self.jobs.insert(job.slot, Inside { job, class, deadline });
                    assert!(before.is_none(), "{at}: the slot is taken");
                }
                Output::Rejected { .. } => self.rejected += 1,
                Output::Started(started) => self.start(&started, &at),
                Output::Revoked { lease, instance } => {
                    let work = self.work.get(&lease.slot).unwrap_or_else(|| panic!("{at}: not in force"));
                    assert_eq!(work.instance, instance, "{at}");
                    assert!(
                        input != Input::TimeReached || work.until <= self.now,
                        "{at}: the lease runs until {}",
                        work.until
                    );
                    self.release(lease);
                }
                Output::Ended(ended) => self.end(&ended, &at),
                Output::Launch { instance, pool } => self.launch(instance, pool, &at),
                Output::InstanceEnded(life) => {
                    let machine = &mut self.machines[life.instance.index()];
                    assert!(machine.seen != Seen::Free, "{at}: not held");
                    assert!(!std::mem::replace(&mut machine.billed, true), "{at}: billed twice");
                    assert!(life.ended >= life.requested && life.pool == machine.pool, "{at}");
                    let ready = life.ready.map_or(Duration::ZERO, |ready| life.ended.since(ready));
                    let slot_time = ready.scaled(f64::from(life.slots)) + Duration::from_nanos(2);
                    assert!(life.busy <= slot_time, "{at}: more work than slots");
                    let lost = matches!(
                        input,
                        Input::LaunchFailed { instance }
                            | Input::InstanceLost { instance }
                            | Input::InstanceGone { instance }
                            if instance == life.instance
                    );
                    if lost {
                        machine.seen = Seen::Free;
                    }
                }
                Output::Terminate { instance, pool } => {
                    let machine = &mut self.machines[instance.index()];
                    assert!(!matches!(machine.seen, Seen::Free | Seen::Terminating), "{at}: not held");
                    assert!(machine.billed, "{at}: terminated without a bill");
                    assert_eq!(machine.pool, pool, "{at}");
                    assert_eq!(machine.busy, [0; SLOT_KINDS_MAX], "{at}: terminated at work");
                    machine.seen = Seen::Terminating;
                }
                Output::ProbeRefused { .. } | Output::Decided(_) | Output::Minute(_) => {}
            }
        }
    }

    fn start(&mut self, started: &Started, at: &str) {
        let length = self.system.stages[started.stage.index()].lease;
        let work = Work {
            lease: started.lease,
            stage: started.stage,
            instance: started.instance,
            pool: started.pool,
            until: length.map_or(Instant::NEVER, |length| self.now + length),
        };
        assert!(self.jobs.contains_key(&started.lease.slot), "{at}: no such job");
        assert!(self.work.insert(started.lease.slot, work).is_none(), "{at}: it runs already");
        assert!(!self.old_leases.contains(&started.lease), "{at}: the lease was given before");
        let deliveries_max = self.system.stages[started.stage.index()].deliveries_max;
        assert!(u32::from(started.delivery) <= deliveries_max, "{at}: delivered too often");
        match (started.instance, self.place(started.stage)) {
            (Some(id), Place::Slot { kind, .. }) => {
                let machine = &mut self.machines[id.index()];
                assert_eq!(machine.seen, Seen::Ready, "{at}: the instance takes no jobs");
                assert_eq!(Some(machine.pool), started.pool, "{at}");
                machine.busy[kind.index()] += 1;
                assert_eq!(machine.busy[kind.index()], started.busy, "{at}: it says how busy it is wrongly");
                let slots = self.system.pools[machine.pool.index()].slots[kind.index()];
                assert!(machine.busy[kind.index()] <= slots, "{at}: more jobs than slots");
            }
            (Some(_), Place::Outside) => panic!("{at}: a stage outside holds an instance"),
            (None, _) => {
                if let Some(pool) = started.pool {
                    self.external[pool.index()] += 1;
                    let calls_max = self.system.pools[pool.index()].count_max;
                    assert!(self.external[pool.index()] <= calls_max, "{at}: too many calls at once");
                }
            }
        }
    }

    fn end(&mut self, ended: &Ended, at: &str) {
        let inside = self.jobs.remove(&ended.job.slot).map(|inside| inside.job);
        assert_eq!(inside, Some(ended.job), "{at}: it was not inside");
        assert!(!self.work.contains_key(&ended.job.slot), "{at}: its lease was not revoked");
        let index = JobOutcome::ALL.iter().position(|outcome| *outcome == ended.outcome);
        self.ended[index.expect("every outcome is listed")] += 1;
        assert!(ended.arrived <= self.now, "{at}");
        let inside = self.now.since(ended.arrived);
        assert_eq!(ended.waited + ended.served, inside, "{at}: waiting and service are not all of its time");
        self.old_jobs.push(ended.job);
    }

    fn launch(&mut self, id: InstanceId, pool: PoolId, at: &str) {
        let machine = Machine { seen: Seen::Requested, pool, billed: false, busy: [0; SLOT_KINDS_MAX] };
        if id.index() == self.machines.len() {
            self.machines.push(machine);
        } else {
            assert_eq!(self.machines[id.index()].seen, Seen::Free, "{at}: the id is in use");
            self.machines[id.index()] = machine;
        }
    }

    /// The dispatcher and the model agree.
    pub(super) fn agree(&self) {
        let at = self.at();
        self.dispatcher.check().unwrap_or_else(|violation| panic!("{at}: {violation}"));
        let totals = self.dispatcher.totals();
        assert_eq!(totals.arrived, self.arrived, "{at}");
        let said = [totals.done, totals.failed, totals.expired, totals.cancelled];
        assert_eq!(said, self.ended[..4], "{at}: outputs and totals differ");
        assert_eq!(totals.rejected, self.rejected, "{at}");
        let mut live = self.dispatcher.live_jobs();
        live.sort();
        assert!(
            live.iter().eq(self.jobs.values().map(|inside| &inside.job)),
            "{at}: jobs inside {live:?}, known {:?}",
            self.jobs
        );
        for Inside { job, .. } in self.jobs.values() {
            let known = self.work.get(&job.slot).map(|work| work.lease);
            assert_eq!(self.dispatcher.lease_of(*job), known, "{at}: {job:?}");
        }
        for (id, machine) in self.machines.iter().enumerate() {
            let state = self.dispatcher.instance_state(InstanceId(id as u32));
            let fits = match machine.seen {
                Seen::Free => state == InstanceState::Free,
                Seen::Requested => state == InstanceState::Requested,
                Seen::Booted => state == InstanceState::Loading,
                Seen::Ready => matches!(state, InstanceState::Ready | InstanceState::Draining),
                Seen::BootedSilent | Seen::ReadySilent => state == InstanceState::Silent,
                Seen::Terminating => state == InstanceState::Terminating,
            };
            assert!(fits, "{at}: instance {id} is {state:?}, a driver knows {:?}", machine.seen);
        }
    }
}

//! Any sequence of inputs, sensible or not, keeps every promise of the dispatcher.
//!
//! [`drive`] turns bytes into inputs and judges after each: the dispatcher's own `check()`, a model of what a driver
//! may believe from the outputs alone, and in the end that every job leaves once the world behaves. With the feature
//! `image` a twin, restored from an image at some point, must answer everything alike from there on. The fuzz target
//! `dispatcher_inputs` feeds it arbitrary bytes; the tests here a fixed corpus of random ones.

mod judge;
mod systems;

use policy::dispatch::{CancelScope, Input, StageResult};
use policy::model::{ClassId, InstanceId, JobId, Lease, PoolId, RegionId};
use policy::units::{Duration, UsdPerHour};

use judge::{Judge, Seen};

/// Bytes that become inputs; zeros once they are used up.
struct Bytes<'a> {
    left: &'a [u8],
}

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.left.split_first() else { return 0 };
        self.left = rest;
        *first
    }

    fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { usize::from(self.byte()) % bound }
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let index = self.below(from.len());
        from.get(index).copied()
    }
}

/// Drives a dispatcher with the inputs that `bytes` spell: the first names the system, then one input after another.
///
/// # Panics
/// When the dispatcher breaks a promise.
pub fn drive(bytes: &[u8]) {
    let mut bytes = Bytes { left: bytes };
    let mut systems = systems::all();
    let (name, system) = systems.swap_remove(bytes.below(systems.len()));
    let mut judge = Judge::new(name, system);
    if !bytes.byte().is_multiple_of(4) {
        for id in judge.ids(Seen::Requested) {
            judge.give(Input::InstanceReady { instance: id });
        }
    }
    while !bytes.left.is_empty() {
        judge.step(&mut bytes);
    }
    judge.heal();
}

impl Judge {
    /// Mostly an instance in one of the states `likely`, now and then any number.
    fn some_instance(&self, bytes: &mut Bytes<'_>, likely: &[Seen]) -> InstanceId {
        if bytes.byte().is_multiple_of(8) {
            return InstanceId(bytes.below(self.machines.len() + 2) as u32);
        }
        let ids: Vec<InstanceId> = likely.iter().flat_map(|seen| self.ids(*seen)).collect();
        bytes.pick(&ids).unwrap_or(InstanceId(u32::MAX))
    }

    fn some_lease(&self, bytes: &mut Bytes<'_>) -> Lease {
        if bytes.byte().is_multiple_of(8) {
            let made_up = Lease { slot: u32::from(bytes.byte() % 4), token: u32::from(bytes.byte() % 8) };
            return bytes.pick(&self.old_leases).unwrap_or(made_up);
        }
        let held: Vec<Lease> = self.work.values().map(|work| work.lease).collect();
        bytes.pick(&held).unwrap_or(Lease { slot: u32::MAX, token: 0 })
    }

    fn some_job(&self, bytes: &mut Bytes<'_>) -> JobId {
        if bytes.byte().is_multiple_of(8) {
            let made_up =
                JobId { slot: u32::from(bytes.byte() % 4), generation: u32::from(bytes.byte() % 4) };
            return bytes.pick(&self.old_jobs).unwrap_or(made_up);
        }
        let inside: Vec<JobId> = self.jobs.values().map(|inside| inside.job).collect();
        bytes.pick(&inside).unwrap_or(JobId { slot: u32::MAX, generation: 0 })
    }

    /// One input, or some time.
    fn step(&mut self, bytes: &mut Bytes<'_>) {
        let starting = [Seen::Requested, Seen::Booted];
        let held = [Seen::Ready, Seen::Requested, Seen::ReadySilent, Seen::Terminating];
        match bytes.byte() % 46 {
            0..=9 => {
                let class = ClassId(bytes.below(self.system.classes.len()) as u16);
                let region = RegionId(bytes.below(self.system.regions.len()) as u16);
                self.give(Input::JobArrived { tag: self.arrived, class, region });
            }
            10..=14 => {
                let lease = self.some_lease(bytes);
                self.give(Input::StageFinished { lease, result: StageResult::Done });
            }
            15 => {
                let lease = self.some_lease(bytes);
                let hopeless = bytes.byte().is_multiple_of(4);
                let result = if hopeless { StageResult::Hopeless } else { StageResult::Failed };
                self.give(Input::StageFinished { lease, result });
            }
            16 => {
                let lease = self.some_lease(bytes);
                self.give(Input::LeaseRenewed { lease });
            }
            17..=18 => {
                let job = self.some_job(bytes);
                self.give(Input::JobCancelled { job, scope: CancelScope::BeforeService });
            }
            19 => {
                let job = self.some_job(bytes);
                self.give(Input::JobCancelled { job, scope: CancelScope::Always });
            }
            20..=21 => {
                let instance = self.some_instance(bytes, &[Seen::Requested]);
                self.give(Input::InstanceBooted { instance });
            }
            22..=25 => {
                let instance = self.some_instance(bytes, &starting);
                self.give(Input::InstanceReady { instance });
            }
            26 => {
                let likely = [starting[0], starting[1], Seen::BootedSilent, Seen::Terminating];
                let instance = self.some_instance(bytes, &likely);
                self.give(Input::LaunchFailed { instance });
            }
            27..=28 => {
                let instance = self.some_instance(bytes, &held);
                let gone_at = self.now + Duration::from_secs(u64::from(bytes.byte() % 128));
                self.give(Input::InterruptionNotice { instance, gone_at });
            }
            29 => {
                let instance = self.some_instance(bytes, &held);
                self.give(Input::InstanceLost { instance });
            }
            30..=31 => {
                let instance = self.some_instance(bytes, &[Seen::Terminating, Seen::ReadySilent]);
                self.give(Input::InstanceGone { instance });
            }
            32 if !self.system.pools.is_empty() => {
                let pool = PoolId(bytes.below(self.system.pools.len()) as u16);
                let price = UsdPerHour::from_nanos(i64::from(bytes.byte()) * 20_000_000);
                self.give(Input::PriceChanged { pool, price });
            }
            38..=40 => {
                let class = ClassId(bytes.below(self.system.classes.len()) as u16);
                let region = RegionId(bytes.below(self.system.regions.len()) as u16);
                let wishes = bytes.byte();
                let priority = (wishes & 1 == 1).then_some((wishes >> 4) % 9);
                let deadline =
                    (wishes & 2 == 2).then_some(Duration::from_millis(u64::from(bytes.byte()) * 400));
                self.give(Input::JobSubmitted { tag: self.arrived, class, region, priority, deadline });
            }
            41..=42 => {
                let instance = self.some_instance(bytes, &[Seen::Ready, Seen::Booted]);
                self.give(Input::InstanceSilent { instance });
            }
            43 => {
                let instance = self.some_instance(bytes, &[Seen::ReadySilent, Seen::BootedSilent]);
                self.give(Input::InstanceHeard { instance });
            }
            44 => self.take_image(),
            45 => self.reload(bytes.byte()),
            33 => self.now += Duration::from_millis(u64::from(bytes.byte()) * 40), // a driver that is late
            34 => self.give(Input::TimeReached),
            35..=36 => self.wait_until(self.dispatcher.poll_timeout()),
            37 => self.wait_until(self.now + Duration::from_secs(u64::from(bytes.byte()))),
            _ => self.wait_until(self.now + Duration::from_millis(u64::from(bytes.byte()) * 20)),
        }
    }
}

/// `count` random sequences of up to `length` bytes, each begun with the system's number.
#[cfg(test)]
fn random_sequences(name: &str, count: u64, length: u64) {
    let chance = policy::units::random::Stream::new(2024, 0, name);
    for sequence in 0..count {
        let draws = chance.child(sequence);
        let length = draws.below(0, length) + 2;
        let mut bytes: Vec<u8> = (1..=length).map(|index| draws.below(index, 256) as u8).collect();
        bytes[0] = (sequence % systems::all().len() as u64) as u8;
        drive(&bytes);
    }
}

#[test]
fn short_random_sequences_keep_every_promise() {
    random_sequences("short", 6000, 200);
}

#[test]
fn long_random_sequences_keep_every_promise() {
    random_sequences("long", 480, 4000);
}

#[test]
fn no_bytes_at_all_keep_every_promise() {
    for system in 0..systems::all().len() {
        drive(&[system as u8, 1]);
    }
}

//! Machines: launches succeed or are refused, instances boot, are taken and vanish.

use policy::dispatch::Input;
use policy::model::{InstanceId, PoolId};
use policy::units::Instant;

use super::world::World;
use super::{Event, Replication};
use crate::kernel::EventClass;
use crate::world::LaunchPlan;

impl Replication<'_> {
    pub(super) fn if_current(&mut self, instance: u32, epoch: u32, input: impl Fn(InstanceId) -> Input) {
        let id = InstanceId(instance);
        if self.world.fleet.epoch(id) == epoch {
            self.feed_fleet(input(id));
        }
    }
    /// The provider takes an instance, after `notice` nanoseconds of warning.
    pub(super) fn take_instance(&mut self, instance: InstanceId, notice: u64) {
        if !self.world.fleet.doom(instance) {
            return;
        }
        if notice == 0 {
            return self.lose_instance(instance);
        }
        let gone_at = self.world.now.saturating_add(notice);
        let event = Event::Gone { instance: instance.0, epoch: self.world.fleet.epoch(instance) };
        self.world.calendar.push(gone_at, EventClass::Fleet, event);
        self.feed_fleet(Input::InterruptionNotice { instance, gone_at: Instant::from_nanos(gone_at) });
    }

    pub(super) fn lose_instance(&mut self, instance: InstanceId) {
        if let Some(pool) = self.dispatcher.pool_of(instance) {
            self.world.fleet.gone(instance, pool);
            self.feed_fleet(Input::InstanceLost { instance });
        }
    }

    pub(super) fn apply_availability(&mut self, pool: PoolId) {
        let (taken, notice) = self.world.fleet.change(self.world.now, pool);
        for instance in taken {
            self.take_instance(instance, notice);
        }
        if let Some(at) = self.world.fleet.next_change(self.world.now, pool) {
            self.world.calendar.push(at, EventClass::Market, Event::Availability { pool: u32::from(pool.0) });
        }
    }
}

impl World<'_> {
    pub(super) fn launch(&mut self, instance: InstanceId, pool: PoolId) {
        let plan = self.fleet.launch(Instant::from_nanos(self.now), instance, pool, self.initial);
        let epoch = self.fleet.epoch(instance);
        let id = instance.0;
        let mut at = |after: u64, event| {
            self.calendar.push(self.now.saturating_add(after), EventClass::Fleet, event);
        };
        match plan {
            LaunchPlan::Refused { after } => at(after, Event::Refused { instance: id, epoch }),
            LaunchPlan::Starts { booted, ready, lost } => {
                if let Some(loss) = lost {
                    let notice_ms = (loss.notice / 1_000_000).min(u64::from(u32::MAX)) as u32;
                    at(loss.after, Event::Taken { instance: id, epoch, notice_ms });
                }
                if self.initial {
                    self.answers.push(Input::InstanceReady { instance });
                } else {
                    at(booted, Event::Booted { instance: id, epoch });
                    at(ready, Event::Ready { instance: id, epoch });
                }
            }
        }
    }

    pub(super) fn schedule_shock(&mut self, group: usize) {
        if let Some(after) = self.fleet.next_shock(group) {
            let event = Event::Shock { group: group as u32 };
            self.calendar.push(self.now.saturating_add(after), EventClass::Market, event);
        }
    }
}

//! The machines of a plane: what the dispatcher does not know of its instances. Who is connected, since when one is
//! silent, and what the provider calls it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use policy::model::{InstanceId, PoolId};
use policy::units::{Instant, UsdPerHour};
use serde::{Deserialize, Serialize};

use crate::command::{LaunchToken, SessionId};

/// Where a machine stands with the plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Contact {
    /// Launched, or to be launched; its worker has not joined.
    Awaited,
    /// Its worker is connected.
    Connected(SessionId),
    /// The connection is gone; the worker may come back.
    Disconnected,
    /// It does not answer: its jobs went elsewhere.
    Silent,
    /// Its termination was asked for.
    Ending,
}

/// One machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) pool: PoolId,
    pub(crate) token: LaunchToken,
    /// Launches of this plane before it.
    pub(crate) order: u64,
    /// The provider's name of it, once launched.
    pub(crate) handle: Option<String>,
    /// Name of the worker that runs on it, once joined.
    pub(crate) worker: Option<String>,
    pub(crate) slots: u16,
    pub(crate) is_ready: bool,
    pub(crate) contact: Contact,
    /// When its worker last said something, or its contact last changed.
    pub(crate) heard: Instant,
    /// Since when it costs, and how much.
    pub(crate) costs: Option<(Instant, UsdPerHour)>,
    /// Slots of the jobs that it holds leases on.
    pub(crate) work: Vec<u32>,
    alarm: Instant,
}

impl Machine {
    pub(crate) fn new(pool: PoolId, token: LaunchToken, order: u64, now: Instant) -> Self {
        Self {
            pool,
            token,
            order,
            handle: None,
            worker: None,
            slots: 0,
            is_ready: false,
            contact: Contact::Awaited,
            heard: now,
            costs: None,
            work: Vec::new(),
            alarm: Instant::NEVER,
        }
    }

    pub(crate) fn session(&self) -> Option<SessionId> {
        match self.contact {
            Contact::Connected(session) => Some(session),
            _ => None,
        }
    }
}

/// A worker that would join a pool which wants nobody now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Standby {
    pub(crate) session: SessionId,
    pub(crate) worker: String,
    pub(crate) slots: u16,
    pub(crate) is_ready: bool,
}

/// A termination that the provider has not confirmed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ending {
    pub(crate) pool: PoolId,
    pub(crate) handle: Option<String>,
}

/// All machines.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Machines {
    by_instance: BTreeMap<InstanceId, Machine>,
    by_token: BTreeMap<LaunchToken, InstanceId>,
    by_session: BTreeMap<SessionId, InstanceId>,
    by_worker: BTreeMap<String, InstanceId>,
    awaited: BTreeSet<(PoolId, u64, InstanceId)>,
    alarms: BTreeSet<(Instant, InstanceId)>,
    pub(crate) standby: BTreeMap<PoolId, VecDeque<Standby>>,
    pub(crate) endings: BTreeMap<LaunchToken, Ending>,
}

impl Machines {
    pub(crate) fn insert(&mut self, instance: InstanceId, machine: Machine) {
        self.by_token.insert(machine.token, instance);
        self.awaited.insert((machine.pool, machine.order, instance));
        self.by_instance.insert(instance, machine);
    }

    pub(crate) fn remove(&mut self, instance: InstanceId) -> Option<Machine> {
        self.set_contact(instance, Instant::START, Contact::Ending);
        self.set_alarm(instance, Instant::NEVER);
        let machine = self.by_instance.remove(&instance)?;
        self.by_token.remove(&machine.token);
        if let Some(worker) = &machine.worker {
            self.by_worker.remove(worker);
        }
        Some(machine)
    }

    pub(crate) fn get(&self, instance: InstanceId) -> Option<&Machine> {
        self.by_instance.get(&instance)
    }

    pub(crate) fn get_mut(&mut self, instance: InstanceId) -> Option<&mut Machine> {
        self.by_instance.get_mut(&instance)
    }

    pub(crate) fn by_token(&self, token: LaunchToken) -> Option<InstanceId> {
        self.by_token.get(&token).copied()
    }

    pub(crate) fn by_session(&self, session: SessionId) -> Option<InstanceId> {
        self.by_session.get(&session).copied()
    }

    pub(crate) fn by_worker(&self, name: &str) -> Option<InstanceId> {
        self.by_worker.get(name).copied()
    }

    /// The machine of `pool` that has waited longest for its worker.
    pub(crate) fn first_awaited(&self, pool: PoolId) -> Option<InstanceId> {
        let from = (pool, 0, InstanceId(0));
        self.awaited.range(from..).next().filter(|first| first.0 == pool).map(|first| first.2)
    }

    /// Names the worker of a machine.
    pub(crate) fn set_worker(&mut self, instance: InstanceId, name: String, slots: u16) {
        let Some(machine) = self.by_instance.get_mut(&instance) else { return };
        if let Some(before) = machine.worker.replace(name.clone()) {
            self.by_worker.remove(&before);
        }
        machine.slots = slots;
        self.by_worker.insert(name, instance);
    }

    /// Notes where a machine stands from now on; returns the session that it had.
    pub(crate) fn set_contact(
        &mut self,
        instance: InstanceId,
        now: Instant,
        contact: Contact,
    ) -> Option<SessionId> {
        let machine = self.by_instance.get_mut(&instance)?;
        let before = machine.session();
        if let Some(session) = before {
            self.by_session.remove(&session);
        }
        if machine.contact == Contact::Awaited {
            self.awaited.remove(&(machine.pool, machine.order, instance));
        }
        machine.contact = contact;
        machine.heard = now;
        if let Contact::Connected(session) = contact {
            self.by_session.insert(session, instance);
        }
        before
    }

    /// Sets the one alarm of a machine.
    pub(crate) fn set_alarm(&mut self, instance: InstanceId, at: Instant) {
        let Some(machine) = self.by_instance.get_mut(&instance) else { return };
        self.alarms.remove(&(machine.alarm, instance));
        machine.alarm = at;
        if at != Instant::NEVER {
            self.alarms.insert((at, instance));
        }
    }

    pub(crate) fn next_alarm(&self) -> Instant {
        self.alarms.first().map_or(Instant::NEVER, |alarm| alarm.0)
    }

    /// Takes a machine whose alarm has come.
    pub(crate) fn pop_alarm(&mut self, now: Instant) -> Option<InstanceId> {
        let &(at, instance) = self.alarms.first()?;
        if at > now {
            return None;
        }
        self.set_alarm(instance, Instant::NEVER);
        Some(instance)
    }

    /// Those above a number, by number.
    pub(crate) fn after(&self, after: Option<InstanceId>) -> impl Iterator<Item = (InstanceId, &Machine)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let machines = self.by_instance.range((from, Bound::Unbounded));
        machines.map(|(instance, machine)| (*instance, machine))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (InstanceId, &Machine)> {
        self.after(None)
    }
}

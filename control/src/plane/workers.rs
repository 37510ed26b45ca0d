//! Machines and their workers: who joins, who falls silent, who is given up, and what a new plane makes of it all.

use policy::dispatch::Input;
use policy::model::{InstanceId, Lease, PoolId};
use policy::units::{Duration, Instant};

use super::Plane;
use super::machines::{Contact, Ending, Standby};
use crate::command::{LaunchToken, SessionId};
use crate::effect::Effect;
use crate::protocol::{Hello, PROTOCOL_VERSION, ToWorker};

impl Plane {
    pub(super) fn hello(&mut self, now: Instant, session: SessionId, hello: Hello, out: &mut Vec<Effect>) {
        match self.place(&hello) {
            Ok(Some(instance)) => self.join(now, instance, session, &hello, out),
            Ok(None) => {
                let pool = self.rules.pool(&hello.pool).expect("place knows the pool");
                let standby = Standby { session, worker: hello.name, slots: hello.slots, is_ready: false };
                self.machines.standby.entry(pool).or_default().push_back(standby);
                out.push(Effect::Tell { session, message: ToWorker::Standby });
                self.replace_silent(now, pool, out);
            }
            Err(why) => {
                out.push(Effect::Tell { session, message: ToWorker::Refused { why } });
                out.push(Effect::Close { session });
            }
        }
    }

    /// The instance that a worker is, or will be; `None` while its pool wants nobody.
    fn place(&self, hello: &Hello) -> Result<Option<InstanceId>, String> {
        if hello.version != PROTOCOL_VERSION {
            return Err(format!(
                "the worker speaks protocol {}, this plane {PROTOCOL_VERSION}: use the same release of headroom for both",
                hello.version
            ));
        }
        let Some(pool) = self.rules.pool(&hello.pool) else {
            return Err(format!("scenario {} has no pool `{}`", self.rules.name, hello.pool));
        };
        let wanted = self.pool_slots(pool);
        if hello.slots < wanted {
            let (offered, pool) = (hello.slots, &hello.pool);
            return Err(format!(
                "pool `{pool}` wants {wanted} slots and the worker offers {offered}: start it with --slots {wanted}"
            ));
        }
        if let Some(instance) = self.machines.by_worker(&hello.name) {
            let machine = self.machines.get(instance).filter(|machine| machine.contact != Contact::Ending);
            return match machine {
                Some(machine) if machine.pool == pool => Ok(Some(instance)),
                Some(_) => Err("a worker of that name serves another pool".to_owned()),
                None => Err("the worker's instance was given back".to_owned()),
            };
        }
        if let Some(text) = &hello.launch {
            let token = text.parse::<LaunchToken>().ok();
            let instance = token.and_then(|token| self.machines.by_token(token));
            return match instance.and_then(|instance| self.machines.get(instance).map(|it| (instance, it))) {
                Some((instance, machine)) if machine.pool == pool && machine.contact == Contact::Awaited => {
                    Ok(Some(instance))
                }
                _ => {
                    Err("its launch is not awaited: it was given up, or another worker joined by it"
                        .to_owned())
                }
            };
        }
        if self.rules.joined.contains(&pool) {
            return Ok(self.machines.first_awaited(pool));
        }
        Err(format!("pool `{}` takes workers only from its provider, with a launch token", hello.pool))
    }

    fn join(
        &mut self,
        now: Instant,
        instance: InstanceId,
        session: SessionId,
        hello: &Hello,
        out: &mut Vec<Effect>,
    ) {
        let Some(machine) = self.machines.get(instance) else { return };
        let (before, was_ready, pool) = (machine.contact, machine.is_ready, machine.pool);
        self.machines.set_worker(instance, hello.name.clone(), hello.slots);
        if let Some(old) = self.machines.set_contact(instance, now, Contact::Connected(session)) {
            out.push(Effect::Close { session: old });
        }
        self.machines.set_alarm(instance, now + self.rules.patience.silence);
        self.start_costs(now, instance, pool);
        let keep: Vec<Lease> =
            hello.leases.iter().copied().filter(|lease| self.holds(instance, *lease, None)).collect();
        let beat_ms = (self.rules.patience.beat.as_nanos() / 1_000_000) as u32;
        out.push(Effect::Tell { session, message: ToWorker::Welcome { instance, beat_ms, keep } });
        // What it was told and never heard.
        let is_lost = |slot: &u32| {
            let held = self.jobs.at(*slot).and_then(|job| job.held);
            held.is_some_and(|(lease, at)| at == instance && !hello.leases.contains(&lease))
        };
        let work = self.machines.get(instance).map(|machine| machine.work.clone()).unwrap_or_default();
        let lost: Vec<u32> = work.into_iter().filter(is_lost).collect();
        for slot in lost {
            self.tell_start(now, slot, out);
        }
        match before {
            Contact::Awaited => self.give(now, Input::InstanceBooted { instance }, out),
            Contact::Silent if was_ready => self.give(now, Input::InstanceHeard { instance }, out),
            _ => {}
        }
    }

    pub(super) fn ready(&mut self, now: Instant, session: SessionId, out: &mut Vec<Effect>) {
        let Some(instance) = self.machines.by_session(session) else {
            let waiting = self.machines.standby.values_mut().flatten();
            for standby in waiting.filter(|standby| standby.session == session) {
                standby.is_ready = true;
            }
            return;
        };
        let Some(machine) = self.machines.get_mut(instance) else { return };
        machine.heard = now;
        if !machine.is_ready {
            machine.is_ready = true;
            self.give(now, Input::InstanceReady { instance }, out);
        }
    }

    /// Gives an instance that was just asked for to a worker that stands by.
    pub(super) fn admit_standby(
        &mut self,
        now: Instant,
        instance: InstanceId,
        pool: PoolId,
        out: &mut Vec<Effect>,
    ) {
        let Some(standby) = self.machines.standby.get_mut(&pool).and_then(|waiting| waiting.pop_front())
        else {
            return;
        };
        let session = standby.session;
        self.machines.set_worker(instance, standby.worker, standby.slots);
        self.machines.set_contact(instance, now, Contact::Connected(session));
        self.machines.set_alarm(instance, now + self.rules.patience.silence);
        self.start_costs(now, instance, pool);
        let beat_ms = (self.rules.patience.beat.as_nanos() / 1_000_000) as u32;
        out.push(Effect::Tell {
            session,
            message: ToWorker::Welcome { instance, beat_ms, keep: Vec::new() },
        });
        self.inputs.push_back(Input::InstanceBooted { instance });
        if standby.is_ready {
            if let Some(machine) = self.machines.get_mut(instance) {
                machine.is_ready = true;
            }
            self.inputs.push_back(Input::InstanceReady { instance });
        }
    }

    fn start_costs(&mut self, now: Instant, instance: InstanceId, pool: PoolId) {
        let price = self.money.price(pool);
        if let Some(machine) = self.machines.get_mut(instance) {
            machine.costs = machine.costs.or(Some((now, price)));
        }
    }

    pub(super) fn disconnected(&mut self, now: Instant, session: SessionId) {
        for waiting in self.machines.standby.values_mut() {
            waiting.retain(|standby| standby.session != session);
        }
        let Some(instance) = self.machines.by_session(session) else { return };
        self.machines.set_contact(instance, now, Contact::Disconnected);
        self.machines.set_alarm(instance, now + self.rules.patience.reconnect);
    }

    pub(super) fn leaving(&mut self, now: Instant, session: SessionId, out: &mut Vec<Effect>) {
        let Some(instance) = self.machines.by_session(session) else {
            return self.disconnected(now, session);
        };
        out.push(Effect::Close { session });
        self.give_up(now, instance, out);
    }

    pub(super) fn notice(&mut self, now: Instant, instance: InstanceId, seconds: u32, out: &mut Vec<Effect>) {
        let gone_at = now + Duration::from_secs(u64::from(seconds));
        if let Some(session) = self.session_of(instance) {
            out.push(Effect::Tell { session, message: ToWorker::Drain });
        }
        self.give(now, Input::InterruptionNotice { instance, gone_at }, out);
    }

    pub(super) fn launched(
        &mut self,
        now: Instant,
        token: LaunchToken,
        handle: String,
        out: &mut Vec<Effect>,
    ) {
        if let Some(instance) = self.machines.by_token(token)
            && let Some(machine) = self.machines.get_mut(instance)
        {
            let pool = machine.pool;
            machine.handle = Some(handle.clone());
            self.start_costs(now, instance, pool);
        }
        // Given up before the provider answered: now there is something to terminate.
        if let Some(ending) = self.machines.endings.get_mut(&token) {
            ending.handle = Some(handle.clone());
            out.push(Effect::Terminate { token, pool: ending.pool, handle: Some(handle) });
        }
    }

    pub(super) fn launch_failed(&mut self, now: Instant, token: LaunchToken, out: &mut Vec<Effect>) {
        self.machines.endings.remove(&token);
        let Some(instance) = self.machines.by_token(token) else { return };
        let Some(machine) = self.machines.get(instance) else { return };
        let input = match machine.contact {
            Contact::Ending => Input::InstanceGone { instance },
            Contact::Awaited => Input::LaunchFailed { instance },
            _ => return, // its worker is here: whatever failed, it was not this launch
        };
        self.machines.remove(instance);
        self.give(now, input, out);
    }

    pub(super) fn machine_gone(&mut self, now: Instant, token: LaunchToken, out: &mut Vec<Effect>) {
        self.machines.endings.remove(&token);
        let Some(instance) = self.machines.by_token(token) else { return };
        let Some(machine) = self.machines.get(instance) else { return };
        let ending = machine.contact == Contact::Ending;
        if let Some(session) = machine.session() {
            out.push(Effect::Close { session });
        }
        if ending {
            self.machines.remove(instance);
            self.give(now, Input::InstanceGone { instance }, out);
        } else {
            self.lose(now, instance, out);
        }
    }

    /// Gives up a machine that may still run: its jobs go elsewhere, and the provider is asked to terminate it.
    fn give_up(&mut self, now: Instant, instance: InstanceId, out: &mut Vec<Effect>) {
        let Some(machine) = self.machines.get(instance) else { return };
        let (token, pool, handle) = (machine.token, machine.pool, machine.handle.clone());
        self.machines.endings.insert(token, Ending { pool, handle: handle.clone() });
        out.push(Effect::Terminate { token, pool, handle });
        self.lose(now, instance, out);
    }

    /// The leases of a machine are over; its jobs wait until the dispatcher starts them elsewhere.
    fn release_all(&mut self, now: Instant, instance: InstanceId, out: &mut Vec<Effect>) {
        let work = self.machines.get(instance).map(|machine| machine.work.clone()).unwrap_or_default();
        for slot in work {
            self.release(slot);
            self.note_queued(now, slot, out);
        }
    }

    /// The dispatcher loses the instance and may use its id again.
    fn lose(&mut self, now: Instant, instance: InstanceId, out: &mut Vec<Effect>) {
        self.release_all(now, instance, out);
        self.machines.remove(instance);
        let awaited = self.dispatcher.instance_state(instance) == policy::dispatch::InstanceState::Requested;
        let input = if awaited { Input::LaunchFailed { instance } } else { Input::InstanceLost { instance } };
        self.give(now, input, out);
    }

    /// Acts on every machine whose time is up.
    pub(super) fn alarms(&mut self, now: Instant, out: &mut Vec<Effect>) {
        while let Some(instance) = self.machines.pop_alarm(now) {
            let Some(machine) = self.machines.get(instance) else { continue };
            let patience = &self.rules.patience;
            let quiet_until = machine.heard + patience.silence;
            match machine.contact {
                Contact::Connected(_) if quiet_until > now => self.machines.set_alarm(instance, quiet_until),
                Contact::Connected(session) => {
                    out.push(Effect::Close { session });
                    self.fall_silent(now, instance, out);
                }
                Contact::Disconnected => self.fall_silent(now, instance, out),
                Contact::Awaited | Contact::Silent => self.give_up(now, instance, out),
                Contact::Ending => {}
            }
        }
    }

    fn fall_silent(&mut self, now: Instant, instance: InstanceId, out: &mut Vec<Effect>) {
        let was_ready = self.machines.get(instance).is_some_and(|machine| machine.is_ready);
        self.machines.set_contact(instance, now, Contact::Silent);
        self.machines.set_alarm(instance, now + self.rules.patience.lost);
        if was_ready {
            self.release_all(now, instance, out);
            self.give(now, Input::InstanceSilent { instance }, out);
        }
        if let Some(pool) = self.machines.get(instance).map(|machine| machine.pool) {
            self.replace_silent(now, pool, out);
        }
    }

    /// Where a worker stands by there is no reason to wait for a silent one.
    fn replace_silent(&mut self, now: Instant, pool: PoolId, out: &mut Vec<Effect>) {
        if self.machines.standby.get(&pool).is_none_or(std::collections::VecDeque::is_empty) {
            return;
        }
        let silent =
            |machine: &super::machines::Machine| machine.pool == pool && machine.contact == Contact::Silent;
        let found = self.machines.iter().find(|(_, machine)| silent(machine)).map(|(instance, _)| instance);
        if let Some(instance) = found {
            self.give_up(now, instance, out);
        }
    }

    /// No lease ran while there was no plane to renew it: all begin anew. Whose worker is really gone is found by its
    /// silence.
    fn renew_all(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let work = self.machines.iter().flat_map(|(_, machine)| machine.work.iter().copied());
        let held = work.filter_map(|slot| self.jobs.at(slot)?.held.map(|(lease, _)| lease));
        let leases: Vec<Lease> = held.collect();
        for lease in leases {
            self.give(now, Input::LeaseRenewed { lease }, out);
        }
    }

    /// A new plane: no worker is connected to it, and what the last one may not have done is asked for again.
    pub(super) fn take_over(&mut self, now: Instant, epoch: u64, out: &mut Vec<Effect>) {
        self.epoch = epoch;
        self.machines.standby.clear();
        self.renew_all(now, out);
        let all: Vec<InstanceId> = self.machines.iter().map(|(instance, _)| instance).collect();
        for instance in all {
            let Some(machine) = self.machines.get(instance) else { continue };
            match machine.contact {
                Contact::Connected(_) | Contact::Disconnected => {
                    self.machines.set_contact(instance, now, Contact::Disconnected);
                    self.machines.set_alarm(instance, now + self.rules.patience.rejoin);
                }
                Contact::Awaited => {
                    let (token, pool) = (machine.token, machine.pool);
                    if machine.handle.is_none() {
                        out.push(Effect::Launch { token, pool });
                    }
                }
                Contact::Silent | Contact::Ending => {}
            }
        }
        for (token, ending) in &self.machines.endings {
            let (pool, handle) = (ending.pool, ending.handle.clone());
            out.push(Effect::Terminate { token: *token, pool, handle });
        }
        out.extend(self.webhooks.values().map(|task| Effect::Webhook(Box::new(task.clone()))));
        if self.dispatcher.poll_timeout() <= now {
            self.give(now, Input::TimeReached, out);
        }
    }
}

//! Machines and their market: how long launches take, when they fail, when instances are taken away.

use std::sync::Arc;

use policy::model::{InstanceId, PoolId};
use policy::units::math::ln;
use policy::units::random::Stream;
use policy::units::{Duration, Instant};
use scenarios::scenario::{Scenario, Shock};
use scenarios::trace::SpotAvailability;

use crate::inputs::Inputs;
use crate::kernel::Sampler;

/// How a launch will go, in nanoseconds from the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaunchPlan {
    Refused { after: u64 },
    Starts { booted: u64, ready: u64, lost: Option<Loss> },
}

/// How an instance will be taken, in nanoseconds from the launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    pub after: u64,
    /// Zero when no warning comes.
    pub notice: u64,
}

struct PoolMarket {
    boot: Sampler,
    image: Sampler,
    weights: Sampler,
    resume: Sampler,
    warm_left: u32,
    warm_count: u32,
    insufficient: f64,
    refusal_after: u64,
    hazard_per_ns: f64,
    notice: u64,
    notice_missed: f64,
    shock: Option<Shock>,
    outage_until: u64,
    trace: Option<(Arc<SpotAvailability>, f64, u64)>,
    ceiling: u32,
    count_max: u32,
    chance: Stream,
    launches: u64,
    live: Vec<InstanceId>,
    peak: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Machine {
    epoch: u32,
    place: u32,
    doomed: bool,
    from_warm: bool,
}

/// The fleet's world.
pub struct FleetWorld {
    pools: Vec<PoolMarket>,
    machines: Vec<Machine>,
    /// Shock groups: name, events per nanosecond, stream, shocks drawn.
    groups: Vec<(String, f64, Stream, u64)>,
}

impl FleetWorld {
    pub fn new(scenario: &Scenario, inputs: &Inputs, replication: u64) -> Self {
        let mut groups: Vec<(String, f64, Stream, u64)> = Vec::new();
        let mut pools = Vec::new();
        for (index, world) in scenario.pools.iter().enumerate() {
            let pool = &scenario.system.pools[index];
            let stream = |what: &str| {
                Stream::new(scenario.run.seed, replication, &format!("pool/{}/{what}", pool.name))
            };
            let sampler = |law, what| Sampler::new(law, stream(what));
            if let Some(shock) = &world.interruption.shock
                && !groups.iter().any(|group| group.0 == shock.group)
            {
                let name = format!("shock/{}", shock.group);
                let chance = Stream::new(scenario.run.seed, replication, &name);
                groups.push((shock.group.clone(), shock.per_day / 86_400e9, chance, 0));
            }
            let trace = world.interruption.trace.as_ref().map(|settings| {
                let availability =
                    inputs.availability[index].clone().expect("inputs were loaded for this scenario");
                let scale = f64::from(pool.count_max) / f64::from(settings.nodes_full.max(1));
                (availability, scale, settings.start.as_nanos())
            });
            let startup = &world.startup;
            let mut market = PoolMarket {
                boot: sampler(&startup.boot, "boot"),
                image: sampler(&startup.image, "image"),
                weights: sampler(&startup.weights, "weights"),
                resume: sampler(&startup.warm_resume, "resume"),
                warm_left: startup.warm_count,
                warm_count: startup.warm_count,
                insufficient: world.launch.insufficient.get(),
                refusal_after: world.launch.refusal_after.as_nanos(),
                hazard_per_ns: world.interruption.hazard_per_hour / 3600e9,
                notice: world.interruption.notice.as_nanos(),
                notice_missed: world.interruption.notice_missed.get(),
                shock: world.interruption.shock.clone(),
                outage_until: 0,
                trace,
                ceiling: u32::MAX,
                count_max: pool.count_max,
                chance: stream("market"),
                launches: 0,
                live: Vec::new(),
                peak: 0,
            };
            market.set_ceiling(0);
            pools.push(market);
        }
        Self { pools, machines: Vec::new(), groups }
    }

    /// Decides how a launch goes. `initial` ones are there at time zero.
    pub fn launch(&mut self, now: Instant, id: InstanceId, pool: PoolId, initial: bool) -> LaunchPlan {
        let market = &mut self.pools[pool.index()];
        market.launches += 1;
        let draw = market.launches;
        let chance = market.chance.child(draw);
        let refused = !initial
            && (market.live.len() as u32 >= market.ceiling
                || now.as_nanos() < market.outage_until
                || chance.unit(0) < market.insufficient);
        if id.index() >= self.machines.len() {
            self.machines.resize(id.index() + 1, Machine::default());
        }
        let machine = &mut self.machines[id.index()];
        machine.epoch = machine.epoch.wrapping_add(1);
        if refused {
            return LaunchPlan::Refused { after: market.refusal_after };
        }
        machine.doomed = false;
        machine.place = market.live.len() as u32;
        machine.from_warm = !initial && market.warm_left > 0;
        market.live.push(id);
        market.peak = market.peak.max(market.live.len() as u32);
        let (booted, image) = if initial {
            (0, 0)
        } else if machine.from_warm {
            market.warm_left -= 1;
            (market.resume.at(draw), 0)
        } else {
            (market.boot.at(draw), market.image.at(draw))
        };
        let weights = if initial { 0 } else { market.weights.at(draw) };
        let lost = (market.hazard_per_ns > 0.0).then(|| Loss {
            after: (booted as f64 - ln(chance.unit(1)) / market.hazard_per_ns).min(1e18) as u64,
            notice: if chance.unit(2) < market.notice_missed { 0 } else { market.notice },
        });
        LaunchPlan::Starts { booted, ready: booted + image + weights, lost }
    }

    /// The instance is gone; events of its epoch are void from now on.
    pub fn gone(&mut self, id: InstanceId, pool: PoolId) {
        let machine = &mut self.machines[id.index()];
        machine.epoch = machine.epoch.wrapping_add(1);
        let place = machine.place as usize;
        let market = &mut self.pools[pool.index()];
        if market.live.get(place) != Some(&id) {
            return; // a refused launch never lived
        }
        market.live.swap_remove(place);
        if let Some(moved) = market.live.get(place) {
            self.machines[moved.index()].place = place as u32;
        }
        let market = &mut self.pools[pool.index()];
        market.warm_left = (market.warm_left + 1).min(market.warm_count);
    }

    pub fn epoch(&self, id: InstanceId) -> u32 {
        self.machines[id.index()].epoch
    }

    /// Marks an instance as being taken; false when it already was.
    pub fn doom(&mut self, id: InstanceId) -> bool {
        !std::mem::replace(&mut self.machines[id.index()].doomed, true)
    }

    pub fn peak(&self, pool: PoolId) -> u32 {
        self.pools[pool.index()].peak
    }

    pub fn shock_groups(&self) -> usize {
        self.groups.len()
    }

    /// Time from one shock of a group to the next; `None` when there are none.
    pub fn next_shock(&mut self, group: usize) -> Option<u64> {
        let (_, rate, chance, drawn) = &mut self.groups[group];
        if *rate <= 0.0 {
            return None;
        }
        *drawn += 1;
        Some((-ln(chance.unit(*drawn)) / *rate).min(1e18) as u64)
    }

    /// The instances that a shock takes now: instance, pool and notice.
    pub fn shock(&mut self, now: Instant, group: usize) -> Vec<(InstanceId, PoolId, u64)> {
        let (name, _, chance, number) = &self.groups[group];
        let mut taken = Vec::new();
        for (index, market) in self.pools.iter_mut().enumerate() {
            let Some(shock) = market.shock.as_ref().filter(|shock| shock.group == *name) else { continue };
            market.outage_until = market.outage_until.max((now + shock.outage).as_nanos());
            let draw = chance.child(*number).child(index as u64);
            for (place, id) in market.live.iter().enumerate() {
                if draw.unit(place as u64) < shock.share.get() {
                    taken.push((*id, PoolId(index as u16), market.notice));
                }
            }
        }
        taken
    }

    /// Times at which a pool's availability changes, from now on: the first one after `now`.
    pub fn next_change(&self, now: u64, pool: PoolId) -> Option<u64> {
        let (availability, _, start) = self.pools[pool.index()].trace.as_ref()?;
        let gap = availability.gap_ns.max(1);
        let mut tick = (now + start) / gap + 1;
        let current = availability.nodes_at(now + start)?;
        while let Some(nodes) = availability.nodes.get(tick as usize) {
            if *nodes != current {
                return Some(tick * gap - start);
            }
            tick += 1;
        }
        None
    }

    /// Sets the ceiling of a pool to the trace's value; returns the instances above it, newest first, and the notice.
    pub fn change(&mut self, now: u64, pool: PoolId) -> (Vec<InstanceId>, u64) {
        let market = &mut self.pools[pool.index()];
        market.set_ceiling(now);
        let machines = &self.machines;
        let staying = market.live.iter().filter(|id| !machines[id.index()].doomed);
        let surplus = (staying.clone().count()).saturating_sub(market.ceiling as usize);
        let mut taken: Vec<InstanceId> = staying.copied().collect();
        taken.reverse();
        taken.truncate(surplus);
        (taken, market.notice)
    }

    /// Price-seconds of stopped, prepared instances are charged for the whole run.
    pub fn warm_count(&self, pool: PoolId) -> u32 {
        self.pools[pool.index()].warm_count
    }
}

impl PoolMarket {
    fn set_ceiling(&mut self, now: u64) {
        if let Some((availability, scale, start)) = &self.trace {
            // Past its end a trace says nothing: its last value stays.
            let nodes =
                availability.nodes_at(now + start).or(availability.nodes.last().copied()).unwrap_or(0);
            self.ceiling = ((f64::from(nodes) * scale).round() as u32).min(self.count_max);
        }
    }
}

/// Time held by stopped instances over a run.
pub(crate) fn warm_time(count: u32, run: Duration) -> Duration {
    Duration::from_nanos(run.as_nanos().saturating_mul(u64::from(count)))
}

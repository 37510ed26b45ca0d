//! The world of one replication: it performs what the dispatcher says at once, by sampling how long things take, and
//! counts what comes of it. What it has to answer is fed to the dispatcher afterwards, in order.

use policy::dispatch::{Input, Output, Sink};
use policy::model::RegionId;
use policy::records::JobRow;
use policy::units::Duration;
use policy::units::random::Stream;
use scenarios::scenario::{Operation, Scenario};

use super::tapes::Tapes;
use super::{Event, JOB_ROWS_MAX, Keep};
use crate::bill::Moved;
use crate::inputs::Inputs;
use crate::kernel::{Calendar, Sampler};
use crate::outcome::Outcome;
use crate::stats::{Histogram, Reservoir};
use crate::world::{FleetWorld, Pipeline, ReaskTable, StorageWorld};

/// Decision rows kept; later ones are dropped and the drop is counted in none of the statistics.
const DECISION_ROWS_MAX: usize = 100_000;

/// Everything of a replication but the dispatcher, the clients' arrivals and the loop.
pub(super) struct World<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) replication: u64,
    /// Inputs that follow from outputs, to be fed in this order.
    pub(super) answers: Vec<Input>,
    pub(super) calendar: Calendar<Event>,
    pub(super) pipeline: Pipeline,
    pub(super) storage: StorageWorld,
    pub(super) fleet: FleetWorld,
    pub(super) reasks: ReaskTable,
    pub(super) patience: Option<Sampler>,
    pub(super) reask_delay: Option<Sampler>,
    pub(super) reask_chance: Stream,
    pub(super) failure_chance: Stream,
    pub(super) external: Vec<Option<Sampler>>,
    pub(super) probes: Vec<ProbeRate>,
    /// Slots of ready instances by region, as of the last change of the fleet; kept only where probes cost time.
    pub(super) ready_slots: Vec<u32>,
    pub(super) outcome: Outcome,
    pub(super) tapes: Tapes,
    pub(super) moved: Moved,
    /// Nanoseconds.
    pub(super) now: u64,
    /// Whether the instances launched now are there from the start.
    pub(super) initial: bool,
    pub(super) is_regional: bool,
    pub(super) warmup: u64,
    pub(super) deadline: u64,
    pub(super) keep: Keep,
    pub(super) sample: Reservoir<JobRow>,
    pub(super) sample_words: u64,
    /// Time on the network by `client region * regions + serving region`, nanoseconds.
    pub(super) network_ns: Vec<u64>,
}

/// A region's rate of refused probes, decaying.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ProbeRate {
    pub(super) weight: f64,
    pub(super) at: u64,
}

impl<'a> World<'a> {
    pub(super) fn new(scenario: &'a Scenario, inputs: &Inputs, replication: u64, keep: Keep) -> Self {
        let stream = |name: &str| Stream::new(scenario.run.seed, replication, name);
        let reask = scenario.clients.reask.as_ref();
        let external = scenario.pools.iter().zip(&scenario.system.pools);
        let pipeline = Pipeline::new(scenario, replication);
        let mut outcome = Outcome::new(scenario);
        outcome.transfers = pipeline
            .transfers
            .iter()
            .map(|(tier, operation)| (*tier, *operation, Histogram::default()))
            .collect();
        let regions = &scenario.system.regions;
        let trips = scenario.network.round_trips_per_job;
        let pairs = regions.iter().flat_map(|from| from.round_trip.iter());
        Self {
            network_ns: pairs.map(|trip| trip.scaled(trips).as_nanos()).collect(),
            storage: StorageWorld::new(scenario, replication),
            fleet: FleetWorld::new(scenario, inputs, replication),
            patience: scenario.clients.patience.as_ref().map(|law| Sampler::new(law, stream("patience"))),
            reask_delay: reask.map(|reask| Sampler::new(&reask.delay, stream("reask/delay"))),
            reask_chance: stream("reask/chance"),
            failure_chance: stream("failure"),
            external: external
                .map(|(world, pool)| {
                    let law = world.external_time.as_ref()?;
                    Some(Sampler::new(law, stream(&format!("external/{}", pool.name))))
                })
                .collect(),
            probes: vec![ProbeRate::default(); regions.len()],
            ready_slots: vec![0; regions.len()],
            tapes: Tapes::new(&outcome),
            outcome,
            moved: Moved::default(),
            now: 0,
            initial: true,
            is_regional: false,
            warmup: scenario.run.warmup.as_nanos(),
            deadline: scenario.objective.deadline.as_nanos(),
            keep,
            sample: Reservoir::new(JOB_ROWS_MAX),
            sample_words: 0,
            answers: Vec::new(),
            calendar: Calendar::new(),
            reasks: ReaskTable::default(),
            pipeline,
            scenario,
            replication,
        }
    }

    /// Whether refused probes slow the work down.
    pub(super) fn feels_probes(&self) -> bool {
        self.scenario.network.probe_cost > Duration::ZERO
    }

    /// Use of each tier so far: GET, PUT.
    pub(super) fn tier_use(&self, tier: usize) -> [crate::world::TierUse; 2] {
        [self.storage.used(tier, Operation::Get), self.storage.used(tier, Operation::Put)]
    }

    pub(super) fn probe_refused(&mut self, cell: RegionId) {
        let now = self.now;
        let rate = &mut self.probes[cell.index()];
        rate.weight = rate.weight * decay(now - rate.at) + 1.0;
        rate.at = now;
    }

    /// Share of a region's slot-time that refused probes cost.
    pub(super) fn probe_load(&self, cell: RegionId, cost: Duration) -> f64 {
        let rate = &self.probes[cell.index()];
        let per_ns = rate.weight * decay(self.now - rate.at) / PROBE_WINDOW_NS;
        let slots = self.ready_slots[cell.index()].max(1);
        per_ns * cost.as_nanos() as f64 / f64::from(slots)
    }
}

impl Sink for World<'_> {
    #[inline(always)]
    fn emit(&mut self, output: Output) {
        match output {
            Output::Started(started) => self.started(&started),
            Output::Ended(ended) => self.ended(&ended),
            Output::Accepted { job, tag } => self.accepted(job, tag),
            Output::Rejected { tag, class, region, .. } => self.rejected(tag, class, region),
            Output::Revoked { lease, .. } => self.revoked(lease),
            Output::ProbeRefused { cell, .. } => self.probe_refused(cell),
            Output::Launch { instance, pool } => self.launch(instance, pool),
            Output::Terminate { instance, pool } => {
                self.fleet.gone(instance, pool);
                self.answers.push(Input::InstanceGone { instance });
            }
            Output::InstanceEnded(life) => {
                let row = self.outcome.end_instance(self.scenario, &life);
                if self.keep == Keep::Records {
                    self.outcome.records.instances.push(row);
                }
            }
            Output::Decided(row) => {
                if self.keep == Keep::Records && self.outcome.records.decisions.len() < DECISION_ROWS_MAX {
                    self.outcome.records.decisions.push(*row);
                }
            }
            Output::Minute(row) => {
                if self.keep != Keep::Statistics {
                    self.outcome.records.minutes.push(*row);
                }
            }
        }
    }
}

/// Time constant with which a region's rate of refused probes is measured.
const PROBE_WINDOW_NS: f64 = 5e9;

/// What is left of a measured rate after `elapsed` nanoseconds.
fn decay(elapsed: u64) -> f64 {
    policy::units::math::fast_exp(-(elapsed as f64) / PROBE_WINDOW_NS)
}

//! Traffic between regions while a routing table is built: who sends how much where, and what may still move.

use super::rings::{RingLoad, Rings};
use crate::model::RegionId;
use crate::units::Duration;

/// Moves made for one table at most. A move empties a flow by a chunk, fills a receiver or relieves a sender, so 64
/// regions with chunks of 2 % need fewer than 64 · 50 + 3 · 64.
const MOVES_MAX: usize = 10_000;

/// Smallest chunk, as a share of a region's jobs: below it the number of moves would grow without use.
const CHUNK_MIN: f64 = 0.005;

/// Most that busy slots may raise the cost of a job over its service time. More than that are the remains of a spike
/// whose arrivals are over.
const COST_FACTOR_MAX: f64 = 2.0;

/// Moves smaller than this share of a region's jobs are not worth an entry in the table.
const SHARE_MIN: f64 = 1e-9;

/// Who sends how much where.
pub(super) struct Flows {
    regions: Vec<Site>,
    /// Share of the source's jobs, row per source.
    shares: Vec<f64>,
}

struct Site {
    demand_rps: f64,
    capacity: f64,
    /// Slots that one job per second keeps busy here.
    cost: f64,
    /// Jobs per second served here.
    served_rps: f64,
}

/// A chunk of the jobs of `source`, now served by `from`, that `to` can take.
struct Move {
    source: usize,
    from: usize,
    to: usize,
    rps: f64,
}

impl Flows {
    /// All traffic at home; that of regions without capacity in the nearest region that has some.
    pub(super) fn at_home(loads: &[RingLoad], round_trip: &impl Fn(RegionId, RegionId) -> Duration) -> Self {
        let factor = cost_factor(loads);
        let site = |load: &RingLoad| Site {
            demand_rps: sane(load.demand_rps),
            capacity: sane(load.capacity),
            cost: load.service_mean.as_secs_f64() * factor,
            served_rps: 0.0,
        };
        let mut regions: Vec<Site> = loads.iter().map(site).collect();
        let mut shares = vec![0.0; loads.len() * loads.len()];
        for from in 0..loads.len() {
            let open = (0..loads.len()).filter(|to| regions[*to].capacity > 0.0).map(id);
            let home = if regions[from].capacity > 0.0 {
                from
            } else {
                super::nearest(id(from), open, round_trip).map_or(from, RegionId::index)
            };
            shares[from * loads.len() + home] = 1.0;
            regions[home].served_rps += regions[from].demand_rps;
        }
        Self { regions, shares }
    }

    /// Share of `from`'s jobs that `to` serves.
    pub(super) fn share(&self, from: usize, to: usize) -> f64 {
        self.shares[from * self.regions.len() + to]
    }

    /// The load of `region` if it served `rps`: offered work over ready slots.
    pub(super) fn load_of(&self, region: usize, rps: f64) -> f64 {
        let site = &self.regions[region];
        let work = rps * site.cost;
        if work <= 0.0 { 0.0 } else { work / site.capacity } // infinite without capacity
    }

    /// Moves chunks out of overloaded regions until nothing can move.
    ///
    /// Receivers are below the threshold and stay there, senders are above it and stay there: no region is ever both,
    /// so no job moves twice.
    pub(super) fn relieve(&mut self, rings: &Rings, round_trip: &impl Fn(RegionId, RegionId) -> Duration) {
        for _ in 0..MOVES_MAX {
            let Some(next) = self.next_move(rings, round_trip) else { return };
            self.apply(&next);
        }
    }

    /// The next chunk, out of the most loaded region that can hand one on.
    fn next_move(&self, rings: &Rings, round_trip: &impl Fn(RegionId, RegionId) -> Duration) -> Option<Move> {
        let load = |region: usize| self.load_of(region, self.regions[region].served_rps);
        let mut hot: Vec<usize> = (0..self.regions.len()).filter(|at| load(*at) > rings.overload).collect();
        hot.sort_by(|a, b| load(*b).total_cmp(&load(*a)).then(a.cmp(b)));
        hot.into_iter().find_map(|from| self.move_out_of(from, load(from), rings, round_trip))
    }

    /// The move out of `from` that adds least to the round trip of the users whose jobs move; among equals the one to
    /// the least loaded region.
    fn move_out_of(
        &self,
        from: usize,
        load: f64,
        rings: &Rings,
        round_trip: &impl Fn(RegionId, RegionId) -> Duration,
    ) -> Option<Move> {
        let radius = rings.radius(load)?;
        let count = self.regions.len();
        let pairs = (0..count).flat_map(|source| (0..count).map(move |to| (source, to)));
        let possible = pairs.filter_map(|(source, to)| {
            let is_near = to != from && round_trip(id(from), id(to)) <= radius;
            let next = if is_near { self.chunk(source, from, to, rings) } else { None }?;
            let to_load = self.load_of(to, self.regions[to].served_rps);
            let trip = |served_by: usize| i128::from(round_trip(id(source), id(served_by)).as_nanos());
            Some((trip(to) - trip(from), to_load, next))
        });
        possible.min_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))).map(|(_, _, next)| next)
    }

    /// As much of a chunk as the flow holds, as `from` must shed and as `to` has room for below the threshold.
    fn chunk(&self, source: usize, from: usize, to: usize, rings: &Rings) -> Option<Move> {
        let demand = self.regions[source].demand_rps;
        let flow = self.share(source, from) * demand;
        let chunk = demand * rings.chunk.get().max(CHUNK_MIN);
        let excess = -self.room(from, rings.overload);
        let rps = chunk.min(flow).min(excess).min(self.room(to, rings.overload));
        (rps > demand * SHARE_MIN).then_some(Move { source, from, to, rps })
    }

    /// Jobs per second that a region can take until its load is at the threshold; negative above it.
    fn room(&self, region: usize, overload: f64) -> f64 {
        let site = &self.regions[region];
        if site.capacity <= 0.0 {
            return 0.0;
        }
        if site.cost <= 0.0 {
            return f64::INFINITY;
        }
        overload * site.capacity / site.cost - site.served_rps
    }

    fn apply(&mut self, next: &Move) {
        let (count, demand) = (self.regions.len(), self.regions[next.source].demand_rps);
        let share = (next.rps / demand).min(self.share(next.source, next.from));
        let left = self.share(next.source, next.from) - share;
        // What is too small to move again goes along, so that no flow ends as dust.
        let share = if left <= SHARE_MIN { share + left } else { share };
        self.shares[next.source * count + next.from] -= share;
        self.shares[next.source * count + next.to] += share;
        self.regions[next.from].served_rps -= share * demand;
        self.regions[next.to].served_rps += share * demand;
    }
}

/// How many more slots jobs keep busy than their service time says (retries, slower hardware), over all regions.
///
/// Taken over the whole world because busy slots tell where work is done, not where it came from; between 1 and
/// [`COST_FACTOR_MAX`].
fn cost_factor(loads: &[RingLoad]) -> f64 {
    let busy: f64 = loads.iter().map(|load| sane(load.in_use)).sum();
    let expected: f64 =
        loads.iter().map(|load| sane(load.demand_rps) * load.service_mean.as_secs_f64()).sum();
    if expected > 0.0 { (busy / expected).clamp(1.0, COST_FACTOR_MAX) } else { 1.0 }
}

/// The number, or zero where it is negative or not finite.
fn sane(number: f64) -> f64 {
    if number.is_finite() { number.max(0.0) } else { 0.0 }
}

fn id(region: usize) -> RegionId {
    RegionId(region as u16)
}

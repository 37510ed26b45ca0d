//! Rings: a region keeps its own jobs until it nears capacity, then hands chunks of them to ever farther regions.
//!
//! After the routing table of Meta's animate, "How Meta animates AI-generated images at scale", 2024: thresholds and
//! rings are its words, the numbers are ours, as Meta published none. Holds the table; building it is in `moves`.

use super::moves::Flows;
use crate::model::RegionId;
use crate::units::{Duration, Ratio};

/// Parameters of ring routing.
#[derive(Clone, Debug, PartialEq)]
pub struct Rings {
    /// Load (offered work over ready slots) above which a region hands jobs away, and up to which others take them.
    pub overload: f64,
    /// Round-trip time within which each ring lies, nearest first.
    pub ring_radii: Vec<Duration>,
    /// Load from which a region may use each ring, in the same order.
    pub unlock_at: Vec<f64>,
    /// Share of a region's jobs moved at once (> 0).
    pub chunk: Ratio,
    /// Time between two rebuilds of the table.
    pub refresh: Duration,
}

impl Rings {
    /// Our choice: rings of 25, 75 and 150 ms and the world, unlocked at 80, 88, 94 and 98 % load; 2 % chunks; 5 s.
    pub fn default_params() -> Self {
        let millis = Duration::from_millis;
        Self {
            overload: 0.80,
            ring_radii: vec![millis(25), millis(75), millis(150), Duration::MAX],
            unlock_at: vec![0.80, 0.88, 0.94, 0.98],
            chunk: Ratio::new(0.02).expect("0.02 lies between 0 and 1"),
            refresh: Duration::from_secs(5),
        }
    }

    /// How far a region with this load may hand jobs; `None` is nowhere.
    pub(super) fn radius(&self, load: f64) -> Option<Duration> {
        let rings = self.ring_radii.iter().zip(&self.unlock_at);
        rings.filter(|(_, unlock)| load >= **unlock).map(|(radius, _)| *radius).max()
    }
}

/// What one region brings to the table. Negative and non-finite numbers count as zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RingLoad {
    /// Jobs per second from the users of this region.
    pub demand_rps: f64,
    /// Busy slots.
    pub in_use: f64,
    /// Ready slots.
    pub capacity: f64,
    /// Mean service time here.
    pub service_mean: Duration,
}

/// Which share of each region's jobs each region serves.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub struct RoutingTable {
    regions: usize,
    /// Row per source; each entry is the share of the destinations up to and including its own.
    cumulative: Vec<f64>,
}

impl RoutingTable {
    /// Every region serves its own jobs.
    pub fn identity(regions: usize) -> Self {
        let row = |from: usize| (0..regions).map(move |to| f64::from(u8::from(to >= from)));
        Self { regions, cumulative: (0..regions).flat_map(row).collect() }
    }

    /// The table for these loads, one per region in order of [`RegionId`].
    ///
    /// All traffic starts in its own region. The most loaded region above the threshold then hands chunks to the
    /// nearest region that has room below it, as far as the rings that its load unlocks, until nothing can move.
    /// Jobs of a region without capacity go to the nearest region that has some, whatever its load.
    pub fn build(
        rings: &Rings,
        loads: &[RingLoad],
        round_trip: impl Fn(RegionId, RegionId) -> Duration,
    ) -> Self {
        let mut flows = Flows::at_home(loads, &round_trip);
        flows.relieve(rings, &round_trip);
        Self::from_shares(loads.len(), |from, to| flows.share(from, to))
    }

    /// Whether every region that serves sends all its jobs to regions that serve; what others would do is never asked.
    #[cfg(feature = "image")]
    pub(crate) fn is_sound(&self, regions: usize, serving: &[RegionId]) -> bool {
        let row_is_sound = |from: &RegionId| {
            let row = &self.cumulative[from.index() * regions..][..regions];
            let mut highest = 0.0;
            for (to, up_to) in row.iter().enumerate() {
                if *up_to > highest {
                    highest = *up_to;
                    if !serving.contains(&RegionId(to as u16)) {
                        return false;
                    }
                }
            }
            highest >= 1.0
        };
        self.regions == regions
            && self.cumulative.len() == regions * regions
            && serving.iter().all(row_is_sound)
    }

    /// Sums up the shares, so that the last region with any share ends at exactly 1.
    fn from_shares(regions: usize, share: impl Fn(usize, usize) -> f64) -> Self {
        let mut cumulative = Vec::with_capacity(regions * regions);
        for from in 0..regions {
            let total: f64 = (0..regions).map(|to| share(from, to)).sum();
            let last = (0..regions).rfind(|to| share(from, *to) > 0.0).unwrap_or(from);
            let mut up_to = 0.0;
            for to in 0..regions {
                up_to += share(from, to) / total;
                cumulative.push(if to >= last { 1.0 } else { up_to.min(1.0) });
            }
        }
        Self { regions, cumulative }
    }

    /// The region that serves a job from `from`; `chance` is uniform over 0..1.
    #[inline]
    pub fn route(&self, from: RegionId, chance: f64) -> RegionId {
        let row = &self.cumulative[from.index() * self.regions..][..self.regions];
        let to = row.iter().position(|up_to| chance < *up_to);
        // Only a chance of 1 or NaN finds none; such a job stays at home.
        to.map_or(from, |to| RegionId(to as u16))
    }

    /// Share of `from`'s jobs that `to` serves, 0..=1.
    pub fn share(&self, from: RegionId, to: RegionId) -> f64 {
        let row = &self.cumulative[from.index() * self.regions..][..self.regions];
        let before = if to.index() == 0 { 0.0 } else { row[to.index() - 1] };
        row[to.index()] - before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::random::Stream;

    /// Regions on a line: 20 ms between neighbours.
    fn line(from: RegionId, to: RegionId) -> Duration {
        Duration::from_millis(20 * u64::from(from.0.abs_diff(to.0)))
    }

    /// `capacity` slots, 8 s per job, offered work of `load` times that.
    fn region(load: f64, capacity: f64) -> RingLoad {
        let in_use = (load * capacity).min(capacity);
        let demand_rps = if capacity > 0.0 { load * capacity / 8.0 } else { load };
        RingLoad { demand_rps, in_use, capacity, service_mean: Duration::from_secs(8) }
    }

    fn shares(loads: &[RingLoad]) -> Vec<Vec<f64>> {
        let table = RoutingTable::build(&Rings::default_params(), loads, line);
        let all = || (0..loads.len() as u16).map(RegionId);
        all().map(|from| all().map(|to| table.share(from, to)).collect()).collect()
    }

    #[track_caller]
    fn check(loads: &[RingLoad], expected: &[&[f64]]) {
        for (row, expected) in shares(loads).iter().zip(expected) {
            for (share, expected) in row.iter().zip(*expected) {
                assert!((share - expected).abs() < 1e-9, "{row:?}, not {expected}");
            }
        }
    }

    #[test]
    fn below_the_threshold_everybody_stays_at_home() {
        check(&[region(0.79, 100.0), region(0.1, 100.0)], &[&[1.0, 0.0], &[0.0, 1.0]]);
    }

    #[test]
    fn the_excess_goes_to_the_nearest_with_room() {
        // 10 of 90 slots' worth must go; the neighbour has room for 30, so the farther region gets nothing.
        let loads = [region(0.9, 100.0), region(0.5, 100.0), region(0.0, 100.0)];
        check(&loads, &[&[8.0 / 9.0, 1.0 / 9.0, 0.0], &[0.0, 1.0, 0.0], &[0.0, 0.0, 1.0]]);
    }

    #[test]
    fn farther_rings_unlock_with_load_and_lock_again() {
        // At 85 % only the ring of 25 ms is open, and nobody is in it.
        let far = |load| [region(load, 100.0), region(0.8, 0.0), region(0.1, 100.0)];
        let loads = |load| [far(load)[0], RingLoad { demand_rps: 0.0, ..far(load)[1] }, far(load)[2]];
        assert_eq!(shares(&loads(0.85))[0], [1.0, 0.0, 0.0]);
        // At 95 % the ring of 75 ms is open until the load is back below 88 %.
        let row = &shares(&loads(0.95))[0];
        let left = row[0] * 0.95;
        assert!((0.86..0.88).contains(&left), "{row:?}");
    }

    #[test]
    fn nobody_is_pushed_above_the_threshold() {
        let loads = [region(3.0, 100.0), region(0.7, 100.0), region(0.75, 100.0)];
        let rows = shares(&loads);
        let served =
            |to: usize| (0..3).map(|from| rows[from][to] * loads[from].demand_rps * 8.0).sum::<f64>();
        assert!((served(1) - 80.0).abs() < 1e-6 && (served(2) - 80.0).abs() < 1e-6, "{rows:?}");
        assert!((served(0) - 285.0).abs() < 1e-6, "what nobody has room for stays");
    }

    #[test]
    fn without_capacity_jobs_go_to_the_nearest_that_has_some() {
        let hot = region(5.0, 10.0);
        check(&[region(2.0, 0.0), hot], &[&[0.0, 1.0], &[0.0, 1.0]]);
        // The rings pass a hot region's guests on as they do its own jobs, guests first where the detour is the same.
        let rows = shares(&[region(2.0, 0.0), hot, region(0.0, 1000.0)]);
        assert!(rows[0][0] == 0.0 && rows[0][2] > 0.9, "{rows:?}");
        // With no capacity anywhere everybody stays.
        check(&[region(2.0, 0.0), region(1.0, 0.0)], &[&[1.0, 0.0], &[0.0, 1.0]]);
    }

    #[test]
    fn busy_slots_raise_the_cost_of_a_job() {
        // By service time alone the load is 60 %; the slots say that jobs cost 1.5 times as much.
        let loads =
            [RingLoad { in_use: 90.0, ..region(0.6, 100.0) }, RingLoad { in_use: 0.0, ..region(0.0, 100.0) }];
        let row = &shares(&loads)[0];
        assert!((row[1] - 1.0 / 9.0).abs() < 1e-9, "{row:?}");
    }

    #[test]
    fn chances_fall_by_the_shares() {
        let table = RoutingTable::build(
            &Rings::default_params(),
            &[region(0.9, 100.0), region(0.5, 100.0), region(0.0, 100.0)],
            line,
        );
        let home = RegionId(0);
        for (chance, to) in [(0.0, 0), (0.88, 0), (0.89, 1), (0.999_999, 1), (1.0, 0)] {
            assert_eq!(table.route(home, chance), RegionId(to), "{chance}");
        }
        let identity = RoutingTable::identity(3);
        for from in (0..3).map(RegionId) {
            assert_eq!((identity.route(from, 0.0), identity.route(from, 0.999)), (from, from));
            assert_eq!(identity.share(from, from), 1.0);
        }
        assert_eq!(RoutingTable::identity(0), RoutingTable::build(&Rings::default_params(), &[], line));
    }

    /// Over random worlds: shares sum to 1, nobody is pushed above the threshold, and whoever stays above it has no
    /// neighbour with room within the rings that its load unlocks.
    #[test]
    fn random_worlds_are_relieved_as_far_as_the_rings_allow() {
        const SLACK: f64 = 1e-6;
        let rings = Rings::default_params();
        for world in 0..2000_u64 {
            let chance = Stream::new(5, world, "rings");
            let regions = 1 + chance.below(0, 8) as usize;
            let load = |id: usize| {
                let child = chance.child(id as u64);
                let capacity = if child.unit(0) < 0.15 { 0.0 } else { 200.0 * child.unit(1) };
                RingLoad {
                    service_mean: Duration::from_secs(child.below(3, 20)),
                    ..region(1.5 * child.unit(2), capacity)
                }
            };
            let loads: Vec<RingLoad> = (0..regions).map(load).collect();
            let apart = |a: RegionId, b: RegionId| {
                let pair = u64::from(a.0.min(b.0)) * 64 + u64::from(a.0.max(b.0));
                Duration::from_millis(if a == b { 1 } else { 5 + chance.child(99).below(pair, 250) })
            };
            let table = RoutingTable::build(&rings, &loads, apart);
            let flows = Flows::at_home(&loads, &apart);
            let share = |from: usize, to: usize| table.share(RegionId(from as u16), RegionId(to as u16));
            let served = |to: usize| {
                let rps: f64 = (0..regions).map(|from| share(from, to) * loads[from].demand_rps).sum();
                flows.load_of(to, rps)
            };
            let has_capacity = loads.iter().any(|load| load.capacity > 0.0);
            for from in 0..regions {
                let sum: f64 = (0..regions).map(|to| share(from, to)).sum();
                assert!((sum - 1.0).abs() < 1e-12, "world {world}: {sum}");
                for to in 0..regions {
                    assert!(share(from, to) >= 0.0);
                    let dry = loads[to].capacity <= 0.0;
                    assert!(
                        !(has_capacity && dry && share(from, to) > 0.0),
                        "world {world}: no capacity in {to}"
                    );
                    let is_guest = from != to && share(from, to) > 0.0 && loads[from].capacity > 0.0;
                    assert!(
                        !is_guest || served(to) <= rings.overload + SLACK,
                        "world {world}: {to} is overloaded"
                    );
                }
            }
            for from in (0..regions).filter(|from| loads[*from].capacity > 0.0) {
                let Some(radius) = rings.radius(served(from) - SLACK) else { continue };
                if served(from) <= rings.overload + SLACK
                    || share(from, from) * loads[from].demand_rps < SLACK
                {
                    continue;
                }
                for to in (0..regions).filter(|to| *to != from && loads[*to].capacity > 0.0) {
                    let reachable = apart(RegionId(from as u16), RegionId(to as u16)) <= radius;
                    assert!(
                        !reachable || served(to) >= rings.overload - SLACK,
                        "world {world}: {from} at {} keeps jobs while {to} is at {}",
                        served(from),
                        served(to)
                    );
                }
            }
        }
    }

    #[test]
    fn senseless_numbers_do_not_break_the_table() {
        for bad in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
            let odd = RingLoad { demand_rps: bad, in_use: bad, capacity: bad, service_mean: Duration::MAX };
            let rings = Rings { chunk: Ratio::ZERO, ..Rings::default_params() };
            let table = RoutingTable::build(&rings, &[odd, region(0.5, 10.0), odd], line);
            for from in (0..3).map(RegionId) {
                let sum: f64 = (0..3).map(|to| table.share(from, RegionId(to))).sum();
                assert!((sum - 1.0).abs() < 1e-12, "{bad}: {sum}");
            }
        }
    }
}

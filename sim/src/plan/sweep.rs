//! Which candidates are tried: fixed fleets, fleets that react, schedules, and how they are bought.

use super::candidate::{self, Candidate, Fleet, Typed};
use super::search::{PlanError, Search};

/// Shares of the peak fleet tried as a fixed fleet.
const FIXED_SHARES: [f64; 6] = [0.4, 0.55, 0.7, 0.85, 1.0, 1.25];

/// Shares of the peak fleet always held by a fleet that reacts.
const FLOORS: [f64; 3] = [0.1, 0.35, 0.65];

/// Multiples of what the forecast needs, tried as a schedule.
const SCHEDULE_MULTIPLES: [f64; 3] = [0.85, 1.0, 1.2];

/// Scaling rules whose best candidate is crossed with purchase, admission and storage.
const CROSSED: usize = 5;

/// The rule that follows the forecast.
pub(super) const SCHEDULE: &str = "schedule";

impl Search<'_> {
    /// The scenario as written, and fixed fleets around the one that square-root staffing gives.
    pub(super) fn size(&mut self) -> Result<(), PlanError> {
        let as_written = Candidate {
            name: "as written".to_owned(),
            sets: Vec::new(),
            floor: None,
            scaling: "as written".to_owned(),
            typed: Typed::default(),
        };
        let mut batch = vec![as_written];
        batch.extend(FIXED_SHARES.map(|share| self.fixed(share)));
        let first = self.found.len() + 1;
        self.try_all("sizing", batch)?;
        // Between the last share that misses and the first that meets, the least that meets.
        let meets: Vec<bool> =
            self.found[first..].iter().map(|tried| tried.evaluation.meets(self.base)).collect();
        if let Some(pass) = meets.iter().position(|meets| *meets)
            && pass > 0
        {
            let (low, high) = (FIXED_SHARES[pass - 1], FIXED_SHARES[pass]);
            let between = [0.25, 0.5, 0.75].map(|part| self.fixed(low + (high - low) * part));
            self.try_all("sizing", between.to_vec())?;
        }
        Ok(())
    }
    fn fixed(&self, share: f64) -> Candidate {
        let counts = candidate::counts(self.base, &self.demand, self.peak_per_s, share, Fleet::OnDemand);
        let total: u32 = counts.iter().map(|(_, count)| count).sum();
        let mut sets = candidate::count_sets(self.base, &counts, false);
        sets.push("policy.scaling={kind=\"static\"}".to_owned());
        sets.push("policy.purchase={kind=\"on-demand-only\"}".to_owned());
        Candidate {
            name: format!("fixed {total}"),
            sets,
            floor: None,
            scaling: "fixed".to_owned(),
            typed: Typed::default(),
        }
    }

    /// Fleets that react, and schedules made from the forecast, bought on demand.
    pub(super) fn sweep(&mut self) -> Result<(), PlanError> {
        let mut batch = Vec::new();
        for (name, set) in self.scalings() {
            for floor in FLOORS {
                batch.push(self.reacting(&name, &set, floor, Fleet::OnDemand, &Typed::default()));
            }
        }
        for (index, scaling) in self.base.plan.scaling.iter().enumerate() {
            let typed = Typed { scaling: Some(scaling.clone()), ..Typed::default() };
            let name = format!("[plan] scaling {}", index + 1);
            for floor in FLOORS {
                batch.push(self.reacting(&name, "", floor, Fleet::OnDemand, &typed));
            }
        }
        let one_queue =
            self.base.system.pool_classes.len() == 1 && !self.base.system.policies.routing.is_regional();
        if one_queue && self.base.plan.scaling.is_empty() {
            for multiple in SCHEDULE_MULTIPLES {
                let set = candidate::schedule(&self.demand, 0, multiple);
                let name = format!("{SCHEDULE} ×{multiple}");
                batch.push(self.reacting(&name, &set, 0.0, Fleet::OnDemand, &Typed::default()));
            }
        }
        self.try_all("scaling", batch)
    }

    fn scalings(&self) -> Vec<(String, String)> {
        if self.base.plan.scaling.is_empty() { candidate::reactive(self.base) } else { Vec::new() }
    }

    fn reacting(&self, name: &str, set: &str, floor: f64, fleet: Fleet, typed: &Typed) -> Candidate {
        let counts = candidate::counts(self.base, &self.demand, self.peak_per_s, floor, fleet);
        let held: u32 = counts.iter().map(|(_, count)| count).sum();
        let mut sets = candidate::count_sets(self.base, &counts, true);
        if !set.is_empty() {
            sets.push(set.to_owned());
        }
        sets.push("policy.purchase={kind=\"on-demand-only\"}".to_owned());
        let name = if floor > 0.0 { format!("{name}, at least {held}") } else { name.to_owned() };
        // Schedules differ in size only: one rule.
        let rule =
            if name.starts_with(SCHEDULE) { SCHEDULE } else { name.split(',').next().unwrap_or_default() };
        let scaling = rule.to_owned();
        Candidate { name, sets, floor: Some(floor), scaling, typed: typed.clone() }
    }

    /// The best of each scaling rule, bought in other ways, with other admission and other storage.
    pub(super) fn cross(&mut self) -> Result<(), PlanError> {
        let mut leaders: Vec<Candidate> = Vec::new();
        for index in self.ranking() {
            let leader = &self.found[index].evaluation.candidate;
            if leaders.len() < CROSSED && !leaders.iter().any(|known| known.scaling == leader.scaling) {
                leaders.push(leader.clone());
            }
        }
        let peak: u32 = (0..self.base.system.pool_classes.len())
            .map(|class| self.demand.instances(class, self.peak_per_s))
            .max()
            .unwrap_or(1);
        let mut batch = Vec::new();
        for leader in &leaders {
            batch.extend(self.crossings(leader, peak));
        }
        self.try_all("purchase and admission", batch)
    }

    fn crossings(&self, leader: &Candidate, peak: u32) -> Vec<Candidate> {
        let mut found = Vec::new();
        let plan = &self.base.plan;
        let mut purchases: Vec<(String, Option<String>, Fleet, Typed)> = Vec::new();
        if plan.purchase.is_empty() {
            let ways = candidate::purchases(self.base, peak);
            purchases
                .extend(ways.into_iter().map(|(name, set, fleet)| (name, set, fleet, leader.typed.clone())));
        } else {
            for (index, purchase) in plan.purchase.iter().enumerate() {
                let typed = Typed { purchase: Some(*purchase), ..leader.typed.clone() };
                purchases.push((format!("[plan] purchase {}", index + 1), None, Fleet::Spot, typed));
            }
        }
        let mut admissions = candidate::admissions(self.base);
        if !plan.admission.is_empty() {
            admissions = vec![(String::new(), Vec::new())];
        }
        let swaps = std::iter::once(None).chain(plan.tier_swaps.iter().copied().map(Some));
        for swap in swaps {
            for (buying, set, fleet, typed) in &purchases {
                for (admitting, sets) in &admissions {
                    let typed = Typed { tier_swap: swap, ..typed.clone() };
                    let mut candidate = self.rebought(leader, set.as_deref(), *fleet, typed);
                    candidate.sets.extend(sets.iter().cloned());
                    for part in [buying, admitting].into_iter().filter(|part| !part.is_empty()) {
                        candidate.name = format!("{}, {part}", candidate.name);
                    }
                    if let Some((_, to)) = swap {
                        candidate.name = format!("{}, storage {}", candidate.name, self.base.tiers[to].name);
                    }
                    found.push(candidate);
                }
            }
        }
        for (index, admission) in plan.admission.iter().enumerate() {
            let typed = Typed { admission: Some(*admission), ..leader.typed.clone() };
            let mut candidate = leader.clone();
            candidate.typed = typed;
            candidate.name = format!("{}, [plan] admission {}", candidate.name, index + 1);
            found.push(candidate);
        }
        found
    }

    /// A candidate with its standing fleet bought in another way.
    fn rebought(&self, leader: &Candidate, set: Option<&str>, fleet: Fleet, typed: Typed) -> Candidate {
        let mut candidate = leader.clone();
        candidate.typed = typed;
        if let Some(floor) = leader.floor {
            let counts = candidate::counts(self.base, &self.demand, self.peak_per_s, floor, fleet);
            candidate.sets.retain(|known| !known.starts_with("fleet.pool."));
            let mut sets = candidate::count_sets(self.base, &counts, true);
            sets.append(&mut candidate.sets);
            candidate.sets = sets;
        }
        if let Some(set) = set {
            candidate.sets.retain(|known| !known.starts_with("policy.purchase="));
            candidate.sets.push(set.to_owned());
        }
        candidate
    }

    /// Smaller standing fleets for the winner, while the objective still holds.
    pub(super) fn refine(&mut self) -> Result<(), PlanError> {
        let Some(best) = self.ranking().first().copied() else { return Ok(()) };
        let winner = self.found[best].evaluation.candidate.clone();
        let Some(floor) = winner.floor.filter(|floor| *floor > 0.0) else { return Ok(()) };
        let on_spot = !winner.sets.iter().any(|set| set.contains("on-demand-only"));
        let fleet = if on_spot { Fleet::Spot } else { Fleet::OnDemand };
        let batch: Vec<Candidate> = [0.6, 0.8, 1.2]
            .map(|factor| {
                let counts =
                    candidate::counts(self.base, &self.demand, self.peak_per_s, floor * factor, fleet);
                let held: u32 = counts.iter().map(|(_, count)| count).sum();
                let mut candidate = winner.clone();
                candidate.floor = Some(floor * factor);
                candidate.sets.retain(|known| !known.starts_with("fleet.pool."));
                let mut sets = candidate::count_sets(self.base, &counts, true);
                sets.append(&mut candidate.sets);
                candidate.sets = sets;
                let parts = winner.name.split(", ").map(|part| {
                    if part.starts_with("at least ") { format!("at least {held}") } else { part.to_owned() }
                });
                candidate.name = parts.collect::<Vec<_>>().join(", ");
                candidate
            })
            .to_vec();
        let first = self.found.len();
        self.try_all("refining", batch)?;
        let added: Vec<usize> = (first..self.found.len()).collect();
        self.replicate("refining", &added, self.replications_max())
    }
}

//! The objective, the run, and what the planner may vary.

use policy::model::Objective;
use policy::units::Duration;

use super::law::TIME_MAX;
use super::names::unique;
use super::policies::purchase;
use super::{Resolver, share};
use crate::defaults;
use crate::diagnostics::{ErrorKind, Key};
use crate::file::quantity::{Money, Share, Time};
use crate::scenario::{PlanSearch, Precision, Run, Window};

/// Replications that one run may have.
const REPLICATIONS_MAX: u32 = 1_000_000;

/// Windows that one run may report by themselves.
const WINDOWS_MAX: usize = 16;

impl Resolver<'_> {
    pub(super) fn objective(&mut self) -> Objective {
        let file = &self.file.objective;
        let share_or =
            |stated: Option<Share>, otherwise| stated.map_or_else(|| share(otherwise), |Share(s)| s);
        let money = |stated: Option<Money>| stated.map(|Money(amount)| amount);
        let deadline = file.deadline.map_or(defaults::DEADLINE, |Time(deadline)| deadline);
        let confidence = share_or(file.confidence, defaults::CONFIDENCE);
        self.confidence(&Key::of("objective.confidence"), confidence.get());
        Objective {
            deadline: self.lasting(&Key::of("objective.deadline"), deadline),
            on_time_min: share_or(file.on_time_min, defaults::ON_TIME_MIN),
            success_min: share_or(file.success_min, defaults::SUCCESS_MIN),
            budget: money(file.budget),
            value_per_job: money(file.value_per_job),
            confidence,
        }
    }

    /// `value` if it lies strictly between 0 and 1, else notes that it does not.
    fn confidence(&mut self, key: &Key, value: f64) -> f64 {
        if !(value > 0.0 && value < 1.0) {
            let message =
                format!("a confidence of {value} is not strictly between 0 and 1; write 0.95 for 95 %");
            self.problems.add(ErrorKind::Value, key, message);
        }
        value
    }

    pub(super) fn run(&mut self) -> Run {
        let file = &self.file.run;
        let key = Key::of("run");
        let horizon = file.horizon.map_or(defaults::HORIZON, |Time(horizon)| horizon);
        let warmup = file.warmup.map_or(defaults::WARMUP, |Time(warmup)| warmup);
        let horizon = self.lasting(&key.at("horizon"), horizon);
        if horizon > TIME_MAX {
            let message =
                format!("a horizon of {horizon} is longer than {TIME_MAX}, the longest time there is");
            self.problems.add(ErrorKind::Overflow, &key.at("horizon"), message);
        }
        if warmup > Duration::ZERO && warmup >= horizon {
            let message =
                format!("the warm-up of {warmup} leaves nothing of the horizon of {horizon} to measure");
            self.problems.add(ErrorKind::Conflict, &key.at("warmup"), message);
        }
        let precision = file.precision.as_ref().map(|precision| {
            let key = key.at("precision");
            let most = precision.replications_max.unwrap_or(defaults::PRECISION_REPLICATIONS_MAX);
            Precision {
                relative: self.positive(&key.at("relative"), precision.relative),
                replications_max: self.replications(&key.at("replications_max"), most),
            }
        });
        let replications = file.replications.unwrap_or(defaults::REPLICATIONS);
        Run {
            seed: file.seed.unwrap_or(defaults::SEED),
            replications: self.replications(&key.at("replications"), replications),
            warmup,
            horizon,
            precision,
            confidence: self
                .confidence(&key.at("confidence"), file.confidence.unwrap_or(defaults::CONFIDENCE)),
        }
    }

    pub(super) fn windows(&mut self, horizon: Duration) -> Vec<Window> {
        let files = &self.file.run.window;
        let key = Key::of("run.window");
        let names: Vec<&str> = files.iter().map(|window| window.name.as_str()).collect();
        unique(&mut self.problems, &key, "window", &names, Some("name"));
        if files.len() > WINDOWS_MAX {
            let message = format!("{} windows are too many; at most {WINDOWS_MAX}", files.len());
            self.problems.add(ErrorKind::Overflow, &key, message);
        }
        let mut windows = Vec::new();
        for (index, file) in files.iter().enumerate() {
            let (Time(from), Time(to)) = (file.from, file.to);
            if from >= to || to > horizon {
                let message =
                    format!("0 s <= from < to <= horizon must hold, not from {from} to {to} of {horizon}");
                self.problems.add(ErrorKind::Conflict, &key.at(index).at("to"), message);
            }
            windows.push(Window { name: file.name.clone(), from, to });
        }
        windows
    }

    fn replications(&mut self, key: &Key, count: u32) -> u32 {
        if count > REPLICATIONS_MAX {
            let message = format!("{count} replications are too many; at most {REPLICATIONS_MAX}");
            self.problems.add(ErrorKind::Overflow, key, message);
        }
        self.at_least_one(key, count)
    }

    pub(super) fn plan(&mut self) -> PlanSearch {
        let file = &self.file.plan;
        let key = Key::of("plan");
        let mut plan = PlanSearch {
            purchase: file.purchase.iter().map(purchase).collect(),
            replications_max: self.replications(
                &key.at("replications_max"),
                file.replications_max.unwrap_or(defaults::PLAN_REPLICATIONS_MAX),
            ),
            ..PlanSearch::default()
        };
        for (index, scaling) in file.scaling.iter().enumerate() {
            plan.scaling.push(self.scaling(&key.at("scaling").at(index), scaling));
        }
        for (index, admission) in file.admission.iter().enumerate() {
            plan.admission.push(self.admission(&key.at("admission").at(index), admission));
        }
        plan.tier_swaps = self.tier_swaps(&key.at("tier_swaps"));
        plan
    }

    fn tier_swaps(&mut self, key: &Key) -> Vec<(usize, usize)> {
        let mut swaps: Vec<(usize, usize)> = Vec::new();
        for (index, file) in self.file.plan.tier_swaps.iter().enumerate() {
            let key = key.at(index);
            let from = self.problems.find(&key.at("from"), "storage tier", &file.from, &self.names.tiers);
            let to = self.problems.find(&key.at("to"), "storage tier", &file.to, &self.names.tiers);
            let (Some(from), Some(to)) = (from, to) else { continue };
            if leads(&swaps, to, from) {
                let message =
                    format!("swapping `{}` for `{}` leads back to where it began", file.from, file.to);
                let help = "a swap names the tier of the pipeline first; list each pair once";
                self.problems.add_with_help(ErrorKind::Cycle, &key, message, help);
            }
            swaps.push((from, to));
        }
        swaps
    }
}

/// Whether swaps lead from tier `from` to tier `to`, in any number of steps.
fn leads(swaps: &[(usize, usize)], from: usize, to: usize) -> bool {
    let mut reached = vec![from];
    let mut next = 0;
    while let Some(&tier) = reached.get(next) {
        next += 1;
        if tier == to {
            return true;
        }
        for (start, end) in swaps {
            if *start == tier && !reached.contains(end) {
                reached.push(*end);
            }
        }
    }
    false
}

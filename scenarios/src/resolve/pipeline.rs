//! Stages, their steps, and the spans measured over them.

use policy::model::{KindId, Place, Pool, Stage};
use policy::units::{Duration, Ratio};

use super::Resolver;
use super::names::unique;
use crate::defaults;
use crate::diagnostics::{ErrorKind, Key};
use crate::file::named::Named;
use crate::file::pipeline::{StageFile, StepFile};
use crate::file::quantity::{Share, Size};
use crate::scenario::{Edge, Law, Operation, Span, SpanPoint, StageWork, Step, StepKind, StorageTier};

impl Resolver<'_> {
    pub(super) fn stages(&mut self, tiers: &[StorageTier], pools: &[Pool]) -> (Vec<Stage>, Vec<StageWork>) {
        let files = &self.file.pipeline.stage;
        if files.is_empty() {
            let message = "there is no stage; add [[pipeline.stage]]";
            self.problems.add(ErrorKind::Missing, &Key::of("pipeline"), message);
        }
        let names: Vec<&str> = files.iter().map(|stage| stage.name.as_str()).collect();
        unique(&mut self.problems, &Key::of("pipeline.stage"), "stage", &names, Some("name"));
        let mut stages = Vec::new();
        let mut works = Vec::new();
        for (index, file) in files.iter().enumerate() {
            let key = Key::of("pipeline.stage").at(index);
            let place = self.place(&key, file);
            let work = self.work(&key, file, pools);
            let deliveries_max = file.deliveries_max.unwrap_or(defaults::DELIVERIES_MAX);
            stages.push(Stage {
                name: file.name.clone(),
                place,
                service_expected: service_expected(&work, tiers),
                lease: self.lasting_if_stated(&key.at("lease"), file.lease),
                deliveries_max: self.at_least_one(&key.at("deliveries_max"), deliveries_max),
                has_quality: file.quality.unwrap_or(defaults::HAS_QUALITY),
            });
            works.push(work);
        }
        (stages, works)
    }

    fn place(&mut self, key: &Key, file: &StageFile) -> Place {
        let name = &file.name;
        let outside = file.outside.unwrap_or(defaults::OUTSIDE);
        match (&file.pool, outside) {
            (None, true) => Place::Outside,
            (Some(_), true) => {
                let message = format!("stage `{name}` is outside and has a pool; keep one");
                self.problems.add(ErrorKind::Conflict, &key.at("pool"), message);
                Place::Outside
            }
            (None, false) => {
                let message = format!("stage `{name}` has no pool");
                let help = "state `pool = \"CLASS\"`, or `outside = true` if it holds none of your capacity";
                self.problems.add_with_help(ErrorKind::Missing, key, message, help);
                Place::Outside
            }
            (Some(pool), false) => {
                let found = self.problems.find(&key.at("pool"), "pool class", pool, &self.names.pool_classes);
                let kind = file.slot.as_ref().map_or(Some(0), |slot| {
                    self.problems.find(&key.at("slot"), "slot kind", slot, &self.names.slot_kinds)
                });
                let (pool_class, kind) = (found.unwrap_or_default(), kind.unwrap_or_default());
                Place::Slot { pool_class: pool_class as u16, kind: KindId(kind as u16) }
            }
        }
    }

    fn work(&mut self, key: &Key, file: &StageFile, pools: &[Pool]) -> StageWork {
        let mut steps = Vec::new();
        match (&file.steps, &file.time) {
            (Some(files), None) => {
                for (index, step) in files.iter().enumerate() {
                    steps.extend(self.step(&key.at("steps").at(index), step, pools));
                }
                let names: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
                if names.len() == files.len() {
                    unique(&mut self.problems, &key.at("steps"), "step", &names, None);
                }
                if files.is_empty() {
                    self.problems.add(
                        ErrorKind::Missing,
                        &key.at("steps"),
                        "a stage needs at least one step",
                    );
                }
            }
            (None, Some(law)) => {
                let time = self.law(&key.at("time"), law);
                let factor = self.factors(key, None, pools);
                steps.push(Step { name: file.name.clone(), kind: StepKind::Compute { time, factor } });
            }
            (Some(_), Some(_)) => {
                let message = "state either `steps` or `time`, not both";
                self.problems.add(ErrorKind::Conflict, &key.at("time"), message);
            }
            (None, None) => {
                let message = format!("stage `{}` does nothing; state `steps` or `time`", file.name);
                self.problems.add(ErrorKind::Missing, key, message);
            }
        }
        let slowdown = file.slowdown.clone().unwrap_or_default();
        for (index, factor) in slowdown.iter().enumerate() {
            self.positive(&key.at("slowdown").at(index), *factor);
        }
        StageWork {
            steps,
            slowdown,
            failure: file.failure.map_or(defaults::FAILURE, |Share(chance)| Ratio::get(chance)),
            checkpoint: self.lasting_if_stated(&key.at("checkpoint"), file.checkpoint),
        }
    }

    fn step(&mut self, key: &Key, file: &StepFile, pools: &[Pool]) -> Option<Step> {
        let named = |otherwise: &str| file.name.clone().unwrap_or_else(|| otherwise.to_owned());
        let (name, kind) = match (&file.compute, &file.get, &file.put, &file.wait) {
            (Some(name), None, None, None) => {
                let factor = self.factors(key, file.factor.as_ref(), pools);
                (name.clone(), StepKind::Compute { time: self.step_time(key, file)?, factor })
            }
            (None, Some(tier), None, None) => {
                (named(defaults::GET_NAME), self.transfer(key, "get", tier, Operation::Get, file)?)
            }
            (None, None, Some(tier), None) => {
                (named(defaults::PUT_NAME), self.transfer(key, "put", tier, Operation::Put, file)?)
            }
            (None, None, None, Some(name)) => {
                (name.clone(), StepKind::Wait { time: self.step_time(key, file)? })
            }
            _ => {
                let message = "a step is exactly one of `compute`, `get`, `put` and `wait`";
                self.problems.add(ErrorKind::Conflict, key, message);
                return None;
            }
        };
        let is_transfer = matches!(kind, StepKind::Transfer { .. });
        let is_compute = matches!(kind, StepKind::Compute { .. });
        for (field, stated, fits) in [
            ("name", file.name.is_some(), is_transfer),
            ("size", file.size.is_some(), is_transfer),
            ("time", file.time.is_some(), !is_transfer),
            ("factor", file.factor.is_some(), is_compute),
        ] {
            if stated && !fits {
                let message = format!("`{field}` does not belong to step `{name}` of this kind; remove it");
                self.problems.add(ErrorKind::Conflict, &key.at(field), message);
            }
        }
        Some(Step { name, kind })
    }

    fn step_time(&mut self, key: &Key, file: &StepFile) -> Option<Law> {
        if file.time.is_none() {
            self.problems.add(ErrorKind::Missing, key, "the step has no `time`");
        }
        file.time.as_ref().map(|law| self.law(&key.at("time"), law))
    }

    fn transfer(
        &mut self,
        key: &Key,
        field: &str,
        tier: &str,
        operation: Operation,
        file: &StepFile,
    ) -> Option<StepKind> {
        let tier = self.problems.find(&key.at(field), "storage tier", tier, &self.names.tiers);
        if file.size.is_none() {
            self.problems.add(ErrorKind::Missing, key, "the step has no `size`");
        }
        let Size(size) = file.size?;
        Some(StepKind::Transfer { tier: tier?, operation, size })
    }

    /// Factor of a compute step by pool: stated by pool name, else by instance type, else the pool's own.
    fn factors(&mut self, key: &Key, stated: Option<&Named<f64>>, pools: &[Pool]) -> Vec<f64> {
        if let Some(stated) = stated {
            let types = pools.iter().map(|pool| pool.offering.instance_type.as_str());
            let known: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).chain(types).collect();
            for (name, factor) in stated.iter() {
                let key = key.at("factor").at(name);
                self.problems.find(&key, "pool or instance type", name, &known);
                self.positive(&key, *factor);
            }
        }
        let factor = |pool: &Pool| {
            let by_name = |name: &str| stated.and_then(|stated| stated.get(name)).copied();
            by_name(&pool.name).or_else(|| by_name(&pool.offering.instance_type)).unwrap_or(pool.speed_factor)
        };
        pools.iter().map(factor).collect()
    }

    pub(super) fn spans(&mut self, works: &[StageWork]) -> Vec<Span> {
        let files = &self.file.pipeline.span;
        let names: Vec<&str> = files.iter().map(|span| span.name.as_str()).collect();
        unique(&mut self.problems, &Key::of("pipeline.span"), "span", &names, Some("name"));
        let (texts, points) = self.points(works);
        let mut spans = Vec::new();
        for (index, file) in files.iter().enumerate() {
            let key = Key::of("pipeline.span").at(index);
            let from = self.problems.find(&key.at("from"), "point", &file.from, &texts);
            let to = self.problems.find(&key.at("to"), "point", &file.to, &texts);
            let (Some(from), Some(to)) = (from, to) else { continue };
            if to < from {
                let message =
                    format!("span `{}` leads back: `{}` lies before `{}`", file.name, file.to, file.from);
                self.problems.add_with_help(ErrorKind::Cycle, &key.at("to"), message, "swap `from` and `to`");
            }
            spans.push(Span {
                name: file.name.clone(),
                from: points[from],
                to: points[to],
                excludes_compute: file.excludes_compute.unwrap_or(defaults::EXCLUDES_COMPUTE),
            });
        }
        spans
    }

    /// Every point of the pipeline in order, in words and as ids.
    fn points(&self, works: &[StageWork]) -> (Vec<String>, Vec<SpanPoint>) {
        let mut texts = Vec::new();
        let mut points = Vec::new();
        for (stage, (work, file)) in works.iter().zip(&self.file.pipeline.stage).enumerate() {
            for (step, Step { name, .. }) in work.steps.iter().enumerate() {
                for (edge, word) in [(Edge::Start, "start"), (Edge::End, "end")] {
                    texts.push(format!("{}.{name}.{word}", file.name));
                    points.push(SpanPoint { stage, step, edge });
                }
            }
        }
        (texts, points)
    }
}

/// Expected time of one attempt on the reference instance at the best quality: the sum of its steps' means.
fn service_expected(work: &StageWork, tiers: &[StorageTier]) -> Duration {
    let mean = |step: &Step| match &step.kind {
        StepKind::Compute { time, .. } | StepKind::Wait { time } => time.mean(),
        StepKind::Transfer { tier, operation, size } => {
            let tier = &tiers[*tier];
            let latency = match operation {
                Operation::Get => &tier.get,
                Operation::Put => &tier.put,
            };
            let payload = latency.bytes_per_s.map_or(0.0, |rate| size.get() as f64 / rate as f64);
            latency.latency.mean() + Duration::from_secs_f64(payload)
        }
    };
    work.steps.iter().fold(Duration::ZERO, |sum, step| sum + mean(step))
}

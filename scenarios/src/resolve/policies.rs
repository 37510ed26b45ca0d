//! Policies and the quality ladder.

use policy::model::{QUALITY_LEVELS_MAX, QualityId, QualityLevel};
use policy::policies::routing::Rings;
use policy::policies::scaling::{
    BacklogTarget, Hpa, HpaBehavior, HpaChange, HpaMetric, HpaPolicy, HpaRules, HpaSelect, Keda, ReplicaRate,
    Schedule, ScheduleStep, SkyServe, TargetTracking,
};
use policy::policies::{
    Admission, Backoff, ExecutionDelay, Packing, Policies, Purchase, Quality, Retry, Routing, Scaling,
    Shedding,
};
use policy::units::{Duration, Ratio};

use super::{Resolver, share};
use crate::defaults;
use crate::diagnostics::{ErrorKind, Key};
use crate::file::policy::{
    AdmissionFile, BehaviorFile, HpaFile, KedaFile, PackingFile, PurchaseFile, QualityFile, RetryFile,
    RingsFile, RoutingFile, RulesFile, ScalingFile, ScheduleFile, SelectFile, SkyServeFile,
    TargetTrackingFile,
};
use crate::file::quantity::{Rate, Share, Time};

impl Resolver<'_> {
    pub(super) fn policies(&mut self) -> Policies {
        let file = &self.file.policy;
        let key = Key::of("policy");
        Policies {
            scaling: file
                .scaling
                .as_ref()
                .map_or(Scaling::Static, |scaling| self.scaling(&key.at("scaling"), scaling)),
            purchase: file.purchase.as_ref().map_or(Purchase::PoolOrder, purchase),
            routing: self.routing(&key.at("routing"), file.routing.as_ref()),
            admission: file
                .admission
                .as_ref()
                .map_or(Admission::ALL, |admission| self.admission(&key.at("admission"), admission)),
            retry: self.retry(&key.at("retry"), file.retry.as_ref()),
            quality: self.quality(&key.at("quality"), file.quality.as_ref()),
            packing: match file.packing {
                None | Some(PackingFile::Pack) => Packing::Pack,
                Some(PackingFile::Spread) => Packing::Spread,
            },
        }
    }

    pub(super) fn scaling(&mut self, key: &Key, file: &ScalingFile) -> Scaling {
        match file {
            ScalingFile::Static => Scaling::Static,
            ScalingFile::Schedule(file) => Scaling::Schedule(self.schedule(key, file)),
            ScalingFile::TargetTracking(file) => Scaling::TargetTracking(self.target_tracking(key, file)),
            ScalingFile::Hpa(file) => Scaling::Hpa(self.hpa(key, file)),
            ScalingFile::Keda(file) => Scaling::Keda(self.keda(key, file)),
            ScalingFile::SkyServe(file) => Scaling::SkyServe(self.sky_serve(key, file)),
        }
    }

    fn schedule(&mut self, key: &Key, file: &ScheduleFile) -> Schedule {
        if file.steps.is_empty() {
            self.problems.add(ErrorKind::Missing, &key.at("steps"), "a schedule needs at least one step");
        }
        let step = |step: &crate::file::policy::ScheduleStepFile| ScheduleStep {
            at: step.at.0,
            instances: step.instances,
        };
        Schedule {
            steps: file.steps.iter().map(step).collect(),
            lead: file.lead.map(|Time(lead)| lead),
            repeat: self.lasting_if_stated(&key.at("repeat"), file.repeat),
        }
    }

    fn target_tracking(&mut self, key: &Key, file: &TargetTrackingFile) -> TargetTracking {
        let mut rule = TargetTracking::default_params();
        rule.target = match (file.backlog_per_instance, file.acceptable_latency) {
            (Some(backlog), None) => {
                BacklogTarget::PerInstance(self.positive(&key.at("backlog_per_instance"), backlog))
            }
            (None, Some(Time(time))) => {
                BacklogTarget::AcceptableLatency(self.lasting(&key.at("acceptable_latency"), time))
            }
            (None, None) => rule.target,
            (Some(_), Some(_)) => {
                let message = "state either `backlog_per_instance` or `acceptable_latency`, not both";
                self.problems.add(ErrorKind::Conflict, key, message);
                rule.target
            }
        };
        self.set_lasting(&mut rule.period, key, "period", file.period);
        for (field, stated, count) in [
            ("periods_out", file.periods_out, &mut rule.periods_out),
            ("periods_in", file.periods_in, &mut rule.periods_in),
        ] {
            if let Some(stated) = stated {
                *count = self.at_least_one(&key.at(field), stated);
            }
        }
        if let Some(Share(below)) = file.scale_in_below {
            rule.scale_in_below = below;
        }
        rule
    }

    fn hpa(&mut self, key: &Key, file: &HpaFile) -> Hpa {
        let mut rule = Hpa::default_params();
        rule.metric = match (file.utilization, file.jobs_per_instance) {
            (Some(Share(target)), None) => {
                self.positive(&key.at("utilization"), target.get());
                HpaMetric::Utilization { target }
            }
            (None, Some(target)) => HpaMetric::AverageValue {
                target: self.positive(&key.at("jobs_per_instance"), target),
                running_counts: file.running_counts.unwrap_or(Keda::default_params().running_counts),
            },
            (None, None) => rule.metric,
            (Some(_), Some(_)) => {
                let message = "state either `utilization` or `jobs_per_instance`, not both";
                self.problems.add(ErrorKind::Conflict, key, message);
                rule.metric
            }
        };
        if file.running_counts.is_some() && file.jobs_per_instance.is_none() {
            let message = "`running_counts` belongs to `jobs_per_instance`; remove it";
            self.problems.add(ErrorKind::Conflict, &key.at("running_counts"), message);
        }
        self.set_lasting(&mut rule.period, key, "period", file.period);
        self.behavior(&mut rule.behavior, &key.at("behavior"), &file.behavior);
        rule
    }

    fn behavior(&mut self, behavior: &mut HpaBehavior, key: &Key, file: &BehaviorFile) {
        if let Some(Share(tolerance)) = file.tolerance {
            behavior.tolerance = tolerance;
        }
        for (field, stated, rules) in
            [("up", &file.up, &mut behavior.up), ("down", &file.down, &mut behavior.down)]
        {
            if let Some(stated) = stated {
                self.rules(rules, &key.at(field), stated);
            }
        }
    }

    fn rules(&mut self, rules: &mut HpaRules, key: &Key, file: &RulesFile) {
        if let Some(Time(window)) = file.stabilization_window {
            rules.stabilization_window = window;
        }
        if let Some(select) = file.select {
            rules.select = match select {
                SelectFile::Max => HpaSelect::Max,
                SelectFile::Min => HpaSelect::Min,
                SelectFile::Disabled => HpaSelect::Disabled,
            };
        }
        let Some(stated) = &file.policies else { return };
        rules.policies.clear();
        for (index, limit) in stated.iter().enumerate() {
            let key = key.at("policies").at(index);
            let period = self.lasting(&key.at("period"), limit.period.0);
            match (limit.pods, limit.percent) {
                (Some(pods), None) => {
                    rules.policies.push(HpaPolicy { change: HpaChange::Pods(pods), period })
                }
                (None, Some(percent)) => {
                    rules.policies.push(HpaPolicy { change: HpaChange::Percent(percent), period });
                }
                _ => self.problems.add(ErrorKind::Conflict, &key, "state either `pods` or `percent`"),
            }
        }
    }

    fn keda(&mut self, key: &Key, file: &KedaFile) -> Keda {
        let mut rule = Keda::default_params();
        if let Some(length) = file.queue_length {
            rule.queue_length = self.positive(&key.at("queue_length"), length);
        }
        if let Some(activation) = file.activation {
            rule.activation = self.not_negative(&key.at("activation"), activation);
        }
        rule.running_counts = file.running_counts.unwrap_or(rule.running_counts);
        self.set_lasting(&mut rule.polling, key, "polling", file.polling);
        self.set_lasting(&mut rule.period, key, "period", file.period);
        rule.cooldown = file.cooldown.map_or(rule.cooldown, |Time(cooldown)| cooldown);
        rule.initial_cooldown =
            file.initial_cooldown.map_or(rule.initial_cooldown, |Time(cooldown)| cooldown);
        rule.replicas_min = file.replicas_min.unwrap_or(rule.replicas_min);
        rule.replicas_max = file.replicas_max.unwrap_or(rule.replicas_max);
        if rule.replicas_min > rule.replicas_max {
            let message =
                format!("replicas_min {} lies above replicas_max {}", rule.replicas_min, rule.replicas_max);
            self.problems.add(ErrorKind::Conflict, &key.at("replicas_min"), message);
        }
        self.behavior(&mut rule.behavior, &key.at("behavior"), &file.behavior);
        rule
    }

    fn sky_serve(&mut self, key: &Key, file: &SkyServeFile) -> SkyServe {
        let mut rule = SkyServe::default_params();
        if let Some(Rate(rate)) = file.replica_rate {
            rule.replica_rate = ReplicaRate::PerSecond(self.positive(&key.at("replica_rate"), rate));
        }
        self.set_lasting(&mut rule.window, key, "window", file.window);
        self.set_lasting(&mut rule.interval, key, "interval", file.interval);
        self.set_lasting(&mut rule.interval_at_zero, key, "interval_at_zero", file.interval_at_zero);
        rule.upscale_delay = file.upscale_delay.map_or(rule.upscale_delay, |Time(delay)| delay);
        rule.downscale_delay = file.downscale_delay.map_or(rule.downscale_delay, |Time(delay)| delay);
        rule
    }

    /// Replaces `value` by the stated one, which must be above zero.
    fn set_lasting(&mut self, value: &mut Duration, key: &Key, field: &str, stated: Option<Time>) {
        if let Some(stated) = self.lasting_if_stated(&key.at(field), stated) {
            *value = stated;
        }
    }

    fn routing(&mut self, key: &Key, file: Option<&RoutingFile>) -> Routing {
        match file {
            None | Some(RoutingFile::Global) => Routing::Global,
            Some(RoutingFile::Anywhere) => Routing::Anywhere,
            Some(RoutingFile::Nearest) => Routing::Nearest,
            Some(RoutingFile::Rings(rings)) => Routing::Rings(self.rings(key, rings)),
        }
    }

    fn rings(&mut self, key: &Key, file: &RingsFile) -> Rings {
        let (ring_radii, unlock_at): (Vec<Duration>, Vec<f64>) = match &file.ring {
            None => defaults::RINGS.into_iter().unzip(),
            Some(rings) => {
                let radius = |ring: &crate::file::policy::RingFile| {
                    ring.round_trip_max.map_or(Duration::MAX, |Time(radius)| radius)
                };
                rings.iter().map(|ring| (radius(ring), ring.unlock_at)).unzip()
            }
        };
        let descends = ring_radii.windows(2).any(|pair| pair[0] >= pair[1])
            || unlock_at.windows(2).any(|pair| pair[0] > pair[1]);
        if ring_radii.is_empty() || descends {
            let message = "rings are needed, with radii that rise and `unlock_at` that never falls";
            self.problems.add(ErrorKind::Conflict, &key.at("ring"), message);
        }
        for (index, load) in unlock_at.iter().enumerate() {
            self.not_negative(&key.at("ring").at(index).at("unlock_at"), *load);
        }
        let refresh = file.refresh.map_or(defaults::RING_REFRESH, |Time(refresh)| refresh);
        let chunk = file.chunk.map_or_else(|| share(defaults::RING_CHUNK), |Share(chunk)| chunk);
        self.positive(&key.at("chunk"), chunk.get());
        Rings {
            overload: self.positive(&key.at("overload"), file.overload.unwrap_or(defaults::RING_OVERLOAD)),
            ring_radii,
            unlock_at,
            chunk,
            refresh: self.lasting(&key.at("refresh"), refresh),
        }
    }

    pub(super) fn admission(&mut self, key: &Key, file: &AdmissionFile) -> Admission {
        let shedding =
            file.shed_slack.map(|slack| Shedding { slack: self.positive(&key.at("shed_slack"), slack) });
        Admission { shedding, overflow_above: file.overflow_above.map(|Time(above)| above) }
    }

    fn retry(&mut self, key: &Key, file: Option<&RetryFile>) -> Retry {
        let attempts = |stated: &Option<u32>| stated.unwrap_or(defaults::ATTEMPTS_MAX);
        let time = |stated: &Option<Time>, otherwise| stated.map_or(otherwise, |Time(value)| value);
        match file {
            None => Retry::Backoff {
                attempts_max: defaults::ATTEMPTS_MAX,
                backoff: Backoff { base: defaults::BACKOFF_BASE, cap: defaults::BACKOFF_CAP },
                execution_delay: None,
            },
            Some(RetryFile::Never) => Retry::Never,
            Some(RetryFile::Immediate { attempts_max, pause }) => Retry::Immediate {
                attempts_max: self.at_least_one(&key.at("attempts_max"), attempts(attempts_max)),
                pause: time(pause, defaults::RETRY_PAUSE),
            },
            Some(RetryFile::Backoff { attempts_max, base, cap, execution_delay }) => Retry::Backoff {
                attempts_max: self.at_least_one(&key.at("attempts_max"), attempts(attempts_max)),
                backoff: Backoff {
                    base: self.lasting(&key.at("base"), time(base, defaults::BACKOFF_BASE)),
                    cap: self.lasting(&key.at("cap"), time(cap, defaults::BACKOFF_CAP)),
                },
                execution_delay: execution_delay
                    .as_ref()
                    .map(|delay| ExecutionDelay { share: delay.share.0, delay_max: delay.delay_max.0 }),
            },
        }
    }

    fn quality(&mut self, key: &Key, file: Option<&QualityFile>) -> Quality {
        match file {
            None | Some(QualityFile::Fixed { level: None }) => Quality::Fixed(QualityId(0)),
            Some(QualityFile::Fixed { level: Some(level) }) => {
                let found =
                    self.problems.find(&key.at("level"), "quality level", level, &self.names.qualities);
                Quality::Fixed(QualityId(found.unwrap_or_default() as u16))
            }
            Some(QualityFile::Ladder { thresholds, recover }) => {
                let levels = self.names.qualities.len();
                if thresholds.len() >= levels {
                    let message = format!(
                        "{} thresholds need {} quality levels, and there are {levels}",
                        thresholds.len(),
                        thresholds.len() + 1
                    );
                    self.problems.add(ErrorKind::Conflict, &key.at("thresholds"), message);
                }
                for (index, threshold) in thresholds.iter().enumerate() {
                    self.positive(&key.at("thresholds").at(index), *threshold);
                }
                if thresholds.windows(2).any(|pair| pair[0] >= pair[1]) {
                    self.problems.add(ErrorKind::Value, &key.at("thresholds"), "thresholds must ascend");
                }
                let recover = recover.unwrap_or(defaults::LADDER_RECOVER);
                let checked = Ratio::new(recover);
                self.problems.check(ErrorKind::Value, &key.at("recover"), checked);
                Quality::Ladder { thresholds: thresholds.clone(), recover }
            }
        }
    }

    pub(super) fn qualities(&mut self) -> Vec<QualityLevel> {
        let files = &self.file.policy.quality_level;
        if files.is_empty() {
            let value = share(defaults::QUALITY_VALUE);
            return vec![QualityLevel {
                name: defaults::QUALITY_NAME.to_owned(),
                service_factor: 1.0,
                value,
            }];
        }
        let key = Key::of("policy.quality_level");
        if files.len() > QUALITY_LEVELS_MAX {
            let message =
                format!("{} quality levels are too many; at most {QUALITY_LEVELS_MAX}", files.len());
            self.problems.add(ErrorKind::Overflow, &key, message);
        }
        let mut levels = Vec::new();
        for (index, level) in files.iter().enumerate() {
            levels.push(QualityLevel {
                name: level.name.clone(),
                service_factor: self.positive(&key.at(index).at("service_factor"), level.service_factor),
                value: level.value.map_or_else(|| share(defaults::QUALITY_VALUE), |Share(value)| value),
            });
        }
        levels
    }
}

pub(super) fn purchase(file: &PurchaseFile) -> Purchase {
    let base = |stated: &Option<u32>| stated.unwrap_or(defaults::ON_DEMAND_BASE);
    match file {
        PurchaseFile::OnDemandOnly => Purchase::OnDemandOnly,
        PurchaseFile::SpotShare { share, on_demand_base } => {
            Purchase::SpotShare { share: share.0, on_demand_base: base(on_demand_base) }
        }
        PurchaseFile::SpotHedge { overprovision, dynamic_fallback, on_demand_base } => Purchase::SpotHedge {
            overprovision: overprovision.unwrap_or(defaults::HEDGE_OVERPROVISION),
            dynamic_fallback: dynamic_fallback.unwrap_or(defaults::HEDGE_DYNAMIC_FALLBACK),
            on_demand_base: base(on_demand_base),
        },
        PurchaseFile::PoolOrder => Purchase::PoolOrder,
    }
}

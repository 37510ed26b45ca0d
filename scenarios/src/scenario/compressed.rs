//! A scenario in fast motion: every time that it states divided, every rate and hourly price multiplied, so that the same
//! number of jobs meets the same load and the same bill in less time. Pure.

use super::{Arrivals, Generator, Law, OperationLatency, PoolWorld, Scenario, Shape, StepKind};
use policy::model::System;
use policy::policies::scaling::{BacklogTarget, HpaBehavior, ReplicaRate};
use policy::policies::{Admission, Retry, Routing, Scaling};
use policy::units::{Duration, UsdPerHour};

/// `scenario`, `factor` (> 0) times as fast. The digest stays that of the text.
pub fn compressed(mut scenario: Scenario, factor: f64) -> Scenario {
    if factor == 1.0 {
        return scenario;
    }
    let fast = Fast(factor);
    fast.system(&mut scenario.system);
    for stage in &mut scenario.stages {
        stage.checkpoint = stage.checkpoint.map(|time| fast.time(time));
        for step in &mut stage.steps {
            match &mut step.kind {
                StepKind::Compute { time, .. } | StepKind::Wait { time } => fast.law(time),
                StepKind::Transfer { .. } => {}
            }
        }
    }
    scenario.pools.iter_mut().for_each(|pool| fast.pool(pool));
    for tier in &mut scenario.tiers {
        fast.operation(&mut tier.get);
        fast.operation(&mut tier.put);
        tier.retention = fast.time(tier.retention);
    }
    for source in &mut scenario.workload {
        match &mut source.arrivals {
            Arrivals::Generator(generator) => fast.generator(generator),
            Arrivals::Trace(trace) => trace.time_factor /= factor,
        }
    }
    if let Some(law) = &mut scenario.clients.patience {
        fast.law(law);
    }
    if let Some(reask) = &mut scenario.clients.reask {
        fast.law(&mut reask.delay);
    }
    scenario.network.probe_cost = fast.time(scenario.network.probe_cost);
    scenario.queue.idle_poll = scenario.queue.idle_poll.map(|time| fast.time(time));
    scenario.objective.deadline = fast.time(scenario.objective.deadline);
    scenario.run.warmup = fast.time(scenario.run.warmup);
    scenario.run.horizon = fast.time(scenario.run.horizon);
    for window in &mut scenario.windows {
        (window.from, window.to) = (fast.time(window.from), fast.time(window.to));
    }
    scenario
}

struct Fast(f64);

impl Fast {
    fn time(&self, time: Duration) -> Duration {
        if time == Duration::MAX { time } else { time.scaled(1.0 / self.0) }
    }

    fn each(&self, times: &mut [&mut Duration]) {
        times.iter_mut().for_each(|time| **time = self.time(**time));
    }

    fn price(&self, price: UsdPerHour) -> UsdPerHour {
        UsdPerHour::from_nanos((price.as_nanos() as f64 * self.0).round() as i64)
    }

    fn law(&self, law: &mut Law) {
        match law {
            Law::Constant(time) => *time = self.time(*time),
            Law::Uniform { low, high } => self.each(&mut [low, high]),
            Law::Exponential { mean }
            | Law::Lognormal { mean, .. }
            | Law::Weibull { mean, .. }
            | Law::Pareto { mean, .. } => *mean = self.time(*mean),
            Law::Quantiles(values) => values.iter_mut().for_each(|time| *time = self.time(*time)),
        }
    }

    fn system(&self, system: &mut System) {
        for region in &mut system.regions {
            region.round_trip.iter_mut().for_each(|time| *time = self.time(*time));
        }
        for class in &mut system.classes {
            class.deadline = class.deadline.map(|time| self.time(time));
        }
        for stage in &mut system.stages {
            stage.service_expected = self.time(stage.service_expected);
            stage.lease = stage.lease.map(|time| self.time(time));
        }
        for pool in &mut system.pools {
            pool.startup_expected = self.time(pool.startup_expected);
            pool.offering.price = self.price(pool.offering.price);
            pool.offering.price_list = self.price(pool.offering.price_list);
        }
        let policies = &mut system.policies;
        self.scaling(&mut policies.scaling);
        if let Routing::Rings(rings) = &mut policies.routing {
            rings.ring_radii.iter_mut().for_each(|time| *time = self.time(*time));
            rings.refresh = self.time(rings.refresh);
        }
        let Admission { overflow_above, .. } = &mut policies.admission;
        *overflow_above = overflow_above.map(|time| self.time(time));
        match &mut policies.retry {
            Retry::Never => {}
            Retry::Immediate { pause, .. } => *pause = self.time(*pause),
            Retry::Backoff { backoff, execution_delay, .. } => {
                self.each(&mut [&mut backoff.base, &mut backoff.cap]);
                if let Some(delay) = execution_delay {
                    delay.delay_max = self.time(delay.delay_max);
                }
            }
        }
    }

    fn scaling(&self, scaling: &mut Scaling) {
        match scaling {
            Scaling::Static => {}
            Scaling::Schedule(schedule) => {
                schedule.steps.iter_mut().for_each(|step| step.at = self.time(step.at));
                schedule.lead = schedule.lead.map(|time| self.time(time));
                schedule.repeat = schedule.repeat.map(|time| self.time(time));
            }
            Scaling::TargetTracking(tracking) => {
                tracking.period = self.time(tracking.period);
                if let BacklogTarget::AcceptableLatency(latency) = &mut tracking.target {
                    *latency = self.time(*latency);
                }
            }
            Scaling::Hpa(hpa) => {
                hpa.period = self.time(hpa.period);
                self.behavior(&mut hpa.behavior);
            }
            Scaling::Keda(keda) => {
                self.each(&mut [
                    &mut keda.polling,
                    &mut keda.cooldown,
                    &mut keda.initial_cooldown,
                    &mut keda.period,
                ]);
                self.behavior(&mut keda.behavior);
            }
            Scaling::SkyServe(serve) => {
                self.each(&mut [
                    &mut serve.window,
                    &mut serve.interval,
                    &mut serve.interval_at_zero,
                    &mut serve.upscale_delay,
                    &mut serve.downscale_delay,
                ]);
                if let ReplicaRate::PerSecond(rate) = &mut serve.replica_rate {
                    *rate *= self.0;
                }
            }
        }
    }

    fn behavior(&self, behavior: &mut HpaBehavior) {
        for rules in [&mut behavior.up, &mut behavior.down] {
            rules.stabilization_window = self.time(rules.stabilization_window);
            rules.policies.iter_mut().for_each(|policy| policy.period = self.time(policy.period));
        }
    }

    fn pool(&self, pool: &mut PoolWorld) {
        let startup = &mut pool.startup;
        for law in [&mut startup.boot, &mut startup.image, &mut startup.weights, &mut startup.warm_resume] {
            self.law(law);
        }
        startup.warm_price = self.price(startup.warm_price);
        pool.launch.refusal_after = self.time(pool.launch.refusal_after);
        let interruption = &mut pool.interruption;
        interruption.hazard_per_hour *= self.0;
        interruption.notice = self.time(interruption.notice);
        if let Some(shock) = &mut interruption.shock {
            shock.per_day *= self.0;
            shock.outage = self.time(shock.outage);
        }
        self.each(&mut [&mut pool.billing.granularity, &mut pool.billing.minimum]);
        if let Some(law) = &mut pool.external_time {
            self.law(law);
        }
    }

    fn operation(&self, operation: &mut OperationLatency) {
        self.law(&mut operation.latency);
        operation.bytes_per_s = operation.bytes_per_s.map(|rate| (rate as f64 * self.0) as u64);
        operation.rate_max = operation.rate_max.map(|rate| rate * self.0);
        operation.throttle_backoff = self.time(operation.throttle_backoff);
    }

    fn generator(&self, generator: &mut Generator) {
        generator.burst_window = self.time(generator.burst_window);
        match &mut generator.shape {
            Shape::Constant { rate_per_s } => *rate_per_s *= self.0,
            Shape::Diurnal { rate_per_s, period, peak_at, .. } => {
                *rate_per_s *= self.0;
                self.each(&mut [period, peak_at]);
            }
            Shape::Viral { base_per_s, peak_per_s, start, rise, half_life, .. } => {
                *base_per_s *= self.0;
                *peak_per_s *= self.0;
                self.each(&mut [start, rise, half_life]);
            }
            Shape::Launch { base_per_s, peak_per_s, start, ramp, hold, half_life } => {
                *base_per_s *= self.0;
                *peak_per_s *= self.0;
                self.each(&mut [start, ramp, hold, half_life]);
            }
        }
    }
}

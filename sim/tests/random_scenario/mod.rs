//! Scenarios drawn at random, each from its number alone: every feature of the world in some mixture. Builds only.

use policy::model::{
    CapacityType, ClassId, JobClass, Place, Pool, QualityLevel, QueueOrder, Region, RegionId,
};
use policy::policies::routing::Rings;
use policy::policies::scaling::{Hpa, Keda, Schedule, ScheduleStep, SkyServe, TargetTracking};
use policy::policies::{
    Admission, Backoff, ExecutionDelay, Packing, Purchase, Quality, Retry, Routing, Scaling, Shedding,
};
use policy::units::random::Stream;
use policy::units::{Bytes, Duration, Ratio, Usd};
use scenarios::scenario::{
    Arrivals, Decay, Edge, Generator, Law, Operation, OperationLatency, Reask, Scenario, Shape, Shock, Span,
    SpanPoint, Step, StepKind, StorageTier, TransferPrices, Window,
};
use sim::models::{self, Station};

/// Draws one after another.
struct Dice {
    stream: Stream,
    drawn: u64,
}

impl Dice {
    fn unit(&mut self) -> f64 {
        self.drawn += 1;
        self.stream.unit(self.drawn)
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    fn chance(&mut self, of: f64) -> bool {
        self.unit() < of
    }

    fn count(&mut self, low: u32, high: u32) -> u32 {
        self.drawn += 1;
        low + self.stream.below(self.drawn, u64::from(high - low) + 1) as u32
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.count(0, from.len() as u32 - 1) as usize].clone()
    }

    fn seconds(&mut self, low: f64, high: f64) -> Duration {
        Duration::from_secs_f64(self.between(low, high))
    }

    fn share(&mut self, low: f64, high: f64) -> Ratio {
        Ratio::new(self.between(low, high)).expect("shares here lie between 0 and 1")
    }

    fn law(&mut self, low: f64, high: f64) -> Law {
        let mean = self.seconds(low, high);
        match self.count(0, 6) {
            0 => Law::Constant(mean),
            1 => Law::Uniform { low: Duration::ZERO, high: mean.scaled(2.0) },
            2 => Law::Exponential { mean },
            3 => Law::Lognormal { mean, cv: self.between(0.1, 2.0) },
            4 => Law::Weibull { mean, shape: self.between(0.7, 3.0) },
            5 => Law::Pareto { mean, tail: self.between(1.5, 4.0) },
            _ => Law::Quantiles(vec![Duration::ZERO, mean, mean.scaled(3.0)]),
        }
    }
}

/// Scenario `number`: a few minutes of a small service, always the same one.
pub(crate) fn scenario(number: u64) -> Scenario {
    let dice = &mut Dice { stream: Stream::new(number, 0, "random scenario"), drawn: 0 };
    let mut scenario = pipeline(number, dice);
    work(&mut scenario, dice);
    if dice.chance(0.5) {
        transfers(&mut scenario, dice);
    }
    spans(&mut scenario);
    places(&mut scenario, dice);
    markets(&mut scenario, dice);
    classes(&mut scenario, dice);
    traffic(&mut scenario, dice);
    clients(&mut scenario, dice);
    policies(&mut scenario, dice);
    let whole = Window { name: "whole".into(), from: Duration::ZERO, to: Duration::MAX };
    scenario.windows = vec![whole];
    if dice.chance(0.3) {
        scenario.run.warmup = scenario.run.horizon.scaled(0.2);
    }
    scenario.objective.deadline = dice.seconds(5.0, 60.0);
    scenario.queue.per_million_requests = Usd::from_nanos(400_000_000);
    scenario.queue.requests_per_delivery = 3.0;
    scenario.queue.idle_poll = dice.chance(0.5).then(|| dice.seconds(1.0, 20.0));
    scenario
}

/// One to four stations with a Poisson stream that loads the weakest by 0.4 to 1.6.
fn pipeline(number: u64, dice: &mut Dice) -> Scenario {
    let delays = if dice.chance(0.4) { 0.0 } else { 0.3 };
    let mut stations: Vec<Station> = (0..dice.count(1, 4))
        .map(|_| Station {
            servers: if dice.chance(delays) { 0 } else { dice.count(1, 6) },
            steps: (0..dice.count(1, 3)).map(|_| dice.law(0.2, 3.0)).collect(),
        })
        .collect();
    if stations.iter().all(|station| station.servers == 0) {
        stations[0].servers = 3;
    }
    let capacity = |station: &Station| {
        let mean: f64 = station.steps.iter().map(|law| law.mean().as_secs_f64()).sum();
        if station.servers == 0 { f64::INFINITY } else { f64::from(station.servers) / mean }
    };
    let rate = stations.iter().map(capacity).fold(f64::INFINITY, f64::min) * dice.between(0.4, 1.6);
    let horizon = Duration::from_secs_f64((700.0 / rate).clamp(120.0, 1800.0));
    models::tandem(&format!("random {number}"), rate, &stations, horizon, number)
}

/// Failures, interference, checkpoints, leases, quality, shared pools.
fn work(scenario: &mut Scenario, dice: &mut Dice) {
    if dice.chance(0.4) {
        let level = |name: &str, service_factor| QualityLevel {
            name: name.into(),
            service_factor,
            value: Ratio::ONE,
        };
        scenario.system.qualities = vec![level("8-steps", 1.0), level("4-steps", 0.6), level("2-steps", 0.3)];
        scenario.system.policies.quality = Quality::Ladder { thresholds: vec![1.2, 2.5], recover: 0.8 };
    }
    let shared = dice.chance(0.3);
    let mut first = None;
    for (stage, work) in scenario.system.stages.iter_mut().zip(&mut scenario.stages) {
        stage.deliveries_max = dice.count(1, 5);
        stage.has_quality = dice.chance(0.5);
        stage.lease = dice.chance(0.3).then(|| dice.seconds(5.0, 40.0));
        work.failure = if dice.chance(0.3) { dice.between(0.0, 0.3) } else { 0.0 };
        work.checkpoint = dice.chance(0.4).then(|| dice.seconds(0.1, 1.0));
        if dice.chance(0.3) {
            work.slowdown = vec![1.0, 1.2, 1.5];
        }
        if let Place::Slot { .. } = stage.place {
            match first {
                Some(place) if shared => stage.place = place,
                _ => first = first.or(Some(stage.place)),
            }
        }
    }
}

/// A storage tier that throttles, read before and written after each stage.
fn transfers(scenario: &mut Scenario, dice: &mut Dice) {
    let mut row = || OperationLatency {
        latency: Law::Lognormal { mean: Duration::from_millis(60), cv: 0.6 },
        bytes_per_s: dice.chance(0.5).then_some(50_000_000),
        rate_max: dice.chance(0.5).then(|| dice.between(0.5, 5.0)),
        throttle_backoff: Duration::from_millis(100),
    };
    scenario.tiers.push(StorageTier {
        name: "tier".into(),
        get: row(),
        put: row(),
        prices: TransferPrices {
            per_million_get: Usd::from_nanos(400_000_000),
            per_million_put: Usd::from_nanos(5_000_000_000),
            per_thousand_gib_month: Usd::from_nanos(23_000_000_000),
            ..TransferPrices::default()
        },
        retention: Duration::from_secs(86_400),
        source: "test".into(),
    });
    for work in &mut scenario.stages {
        let size = Bytes::new(u64::from(dice.count(1, 20)) * 1_000_000);
        let step = |name: &str, operation| Step {
            name: name.into(),
            kind: StepKind::Transfer { tier: 0, operation, size },
        };
        work.steps.insert(0, step("get", Operation::Get));
        work.steps.push(step("put", Operation::Put));
        if dice.chance(0.3) {
            let time = dice.law(0.01, 0.2);
            work.steps.push(Step { name: "notify".into(), kind: StepKind::Wait { time } });
        }
    }
}

/// From the first step to the last, with and without compute.
fn spans(scenario: &mut Scenario) {
    let last = scenario.stages.len() - 1;
    let from = SpanPoint { stage: 0, step: 0, edge: Edge::Start };
    let to = SpanPoint { stage: last, step: scenario.stages[last].steps.len() - 1, edge: Edge::End };
    for (name, excludes_compute) in [("all", false), ("without compute", true)] {
        scenario.spans.push(Span { name: name.into(), from, to, excludes_compute });
    }
}

/// One region or three; spot, on-demand and external pools beside those that are there.
fn places(scenario: &mut Scenario, dice: &mut Dice) {
    let millis = Duration::from_millis;
    if dice.chance(0.5) {
        scenario.system.regions = (0..3_u64)
            .map(|from| Region {
                name: format!("region-{from}"),
                round_trip: (0..3_u64).map(|to| millis(60 * from.abs_diff(to))).collect(),
            })
            .collect();
        scenario.network.round_trips_per_job = dice.between(0.0, 10.0);
        scenario.network.bytes_per_job = Bytes::new(3_000_000);
        scenario.network.per_thousand_gib_between_regions = Usd::from_nanos(20_000_000_000);
        scenario.network.egress_bytes_per_job = Bytes::new(6_000_000);
        scenario.network.per_thousand_gib_egress = Usd::from_nanos(90_000_000_000);
    }
    let home = scenario.system.pools.len();
    for index in 0..home {
        for region in 1..scenario.system.regions.len() {
            add_pool(scenario, index, &format!("-{region}"), |pool| pool.region = RegionId(region as u16));
        }
    }
    for index in 0..scenario.system.pools.len() {
        if dice.chance(0.4) {
            add_pool(scenario, index, "-spot", |pool| pool.offering.capacity_type = CapacityType::Spot);
        }
        if dice.chance(0.25) {
            let calls = dice.count(1, 8);
            add_pool(scenario, index, "-external", |pool| {
                pool.offering.capacity_type = CapacityType::External;
                pool.offering.price_per_call = Usd::from_nanos(40_000_000);
                pool.slots = [0; 4];
                (pool.count_min, pool.count_initial, pool.count_max) = (0, 0, calls);
            });
            scenario.pools.last_mut().expect("one was added").external_time = Some(dice.law(1.0, 6.0));
        }
    }
}

fn add_pool(scenario: &mut Scenario, like: usize, suffix: &str, change: impl FnOnce(&mut Pool)) {
    let mut pool = scenario.system.pools[like].clone();
    pool.name.push_str(suffix);
    change(&mut pool);
    scenario.system.pools.push(pool);
    scenario.pools.push(scenario.pools[like].clone());
}

/// Limits, start-up, refusals, losses.
fn markets(scenario: &mut Scenario, dice: &mut Dice) {
    for (pool, world) in scenario.system.pools.iter_mut().zip(&mut scenario.pools) {
        if pool.offering.capacity_type == CapacityType::External {
            continue;
        }
        if dice.chance(0.3) {
            pool.slots[0] = dice.pick(&[2, 3]) as u16;
        }
        pool.count_min = dice.count(0, pool.count_initial);
        pool.count_max = pool.count_initial + dice.count(0, 6);
        pool.speed_factor = dice.between(0.7, 1.3);
        pool.startup_expected = dice.seconds(0.0, 60.0);
        let startup = &mut world.startup;
        startup.boot = dice.law(1.0, 30.0);
        startup.image = dice.law(1.0, 10.0);
        startup.weights = dice.law(1.0, 10.0);
        startup.warm_count = dice.count(0, 2);
        startup.warm_resume = dice.law(1.0, 5.0);
        world.launch.refusal_after = dice.seconds(1.0, 10.0);
        if dice.chance(0.5) {
            world.launch.insufficient = dice.share(0.0, 0.6);
        }
        let loss = &mut world.interruption;
        if pool.offering.capacity_type == CapacityType::Spot || dice.chance(0.2) {
            loss.hazard_per_hour = dice.between(1.0, 60.0);
            loss.notice = dice.pick(&[Duration::ZERO, Duration::from_secs(5), Duration::from_secs(120)]);
            loss.notice_missed = dice.share(0.0, 0.5);
            if dice.chance(0.5) {
                let (per_day, share) = (dice.between(100.0, 800.0), dice.share(0.2, 1.0));
                let outage = dice.seconds(0.0, 60.0);
                loss.shock = Some(Shock { group: "zone".into(), per_day, share, outage });
            }
            world.billing.interrupted_first_hour_free = dice.chance(0.3);
        }
    }
    let speeds: Vec<f64> = scenario.system.pools.iter().map(|pool| pool.speed_factor).collect();
    for step in scenario.stages.iter_mut().flat_map(|work| &mut work.steps) {
        if let StepKind::Compute { factor, .. } = &mut step.kind {
            factor.clone_from(&speeds);
        }
    }
}

/// Priorities, deadlines, the order of the queue and its length.
fn classes(scenario: &mut Scenario, dice: &mut Dice) {
    let system = &mut scenario.system;
    system.classes = (0..dice.count(1, 3))
        .map(|index| JobClass {
            name: format!("class-{index}"),
            priority: dice.count(0, 7) as u8,
            deadline: dice.chance(0.6).then(|| dice.seconds(5.0, 60.0)),
            expires: dice.chance(0.5),
        })
        .collect();
    system.queue_order = dice.pick(&[QueueOrder::Fifo, QueueOrder::Lifo, QueueOrder::Deadline]);
    system.queue_per_slot_max = dice.pick(&[None, None, None, Some(0.0), Some(1.5)]);
}

/// A source for each class, of every shape.
fn traffic(scenario: &mut Scenario, dice: &mut Dice) {
    let Arrivals::Generator(Generator { shape: Shape::Constant { rate_per_s: rate }, .. }) =
        scenario.workload[0].arrivals
    else {
        panic!("models start from a constant rate")
    };
    let (regions, classes) = (scenario.system.regions.len(), scenario.system.classes.len());
    let capacity_factor = regions as f64 / classes as f64;
    let horizon = scenario.run.horizon;
    let model = scenario.workload[0].clone();
    scenario.workload = (0..classes)
        .map(|class| {
            let mut source = model.clone();
            source.name = format!("source-{class}");
            source.class = ClassId(class as u16);
            source.rate_factor = capacity_factor;
            source.region_share = match (regions, dice.chance(0.5)) {
                (1, _) => vec![1.0],
                (_, true) => vec![0.5, 0.3, 0.2],
                (_, false) => (0..regions).map(|region| f64::from(u8::from(region == class))).collect(),
            };
            let (start, rise) = (horizon.scaled(0.3), horizon.scaled(0.1));
            let (low, peak) = (0.3 * rate, 2.0 * rate);
            source.arrivals = Arrivals::Generator(Generator {
                shape: match dice.count(0, 3) {
                    0 => Shape::Constant { rate_per_s: rate },
                    1 => Shape::Diurnal {
                        rate_per_s: rate,
                        amplitude: dice.share(0.0, 1.0),
                        period: horizon.scaled(0.5),
                        peak_at: horizon.scaled(0.2),
                    },
                    2 => Shape::Viral {
                        base_per_s: low,
                        peak_per_s: peak,
                        start,
                        rise,
                        half_life: rise,
                        decay: dice.pick(&[Decay::Exponential, Decay::Power]),
                    },
                    _ => Shape::Launch {
                        base_per_s: low,
                        peak_per_s: peak,
                        start,
                        ramp: rise,
                        hold: rise,
                        half_life: rise,
                    },
                },
                burstiness: dice.pick(&[1.0, 1.0, 1.5, 3.0]),
                burst_window: dice.seconds(2.0, 60.0),
            });
            source
        })
        .collect();
}

/// Patience, and asking again.
fn clients(scenario: &mut Scenario, dice: &mut Dice) {
    scenario.clients.patience = dice.chance(0.5).then(|| dice.law(2.0, 40.0));
    scenario.clients.reask = dice.chance(0.5).then(|| Reask {
        probability: dice.share(0.2, 1.0),
        delay: dice.law(0.5, 10.0),
        times_max: dice.count(1, 5),
    });
    if dice.chance(0.3) {
        scenario.network.probe_cost = Duration::from_millis(u64::from(dice.count(1, 40)));
    }
}

/// Every kind of every policy.
fn policies(scenario: &mut Scenario, dice: &mut Dice) {
    let horizon = scenario.run.horizon;
    let regional = scenario.system.regions.len() > 1;
    let policies = &mut scenario.system.policies;
    let step = |at, instances| ScheduleStep { at: horizon.scaled(at), instances };
    let schedule = Schedule { steps: vec![step(0.2, 6), step(0.7, 1)], lead: None, repeat: None };
    let prompt = TargetTracking { periods_out: 1, periods_in: 2, ..TargetTracking::default_params() };
    policies.scaling = dice.pick(&[
        Scaling::Static,
        Scaling::Schedule(schedule),
        Scaling::TargetTracking(prompt),
        Scaling::Hpa(Hpa::default_params()),
        Scaling::Keda(Keda::default_params()),
        Scaling::SkyServe(SkyServe::default_params()),
    ]);
    policies.purchase = dice.pick(&[
        Purchase::OnDemandOnly,
        Purchase::SpotShare { share: Ratio::new(0.6).expect("0.6 is a share"), on_demand_base: 1 },
        Purchase::SpotHedge { overprovision: 1, dynamic_fallback: true, on_demand_base: 0 },
        Purchase::PoolOrder,
    ]);
    if regional {
        policies.routing = dice.pick(&[
            Routing::Global,
            Routing::Anywhere,
            Routing::Nearest,
            Routing::Rings(Rings::default_params()),
        ]);
    }
    policies.admission = Admission {
        shedding: dice.chance(0.3).then(|| Shedding { slack: dice.between(0.5, 2.0) }),
        overflow_above: dice.chance(0.6).then(|| dice.seconds(0.5, 10.0)),
    };
    let backoff = Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(4) };
    let held = ExecutionDelay { share: dice.share(0.0, 0.5), delay_max: Duration::from_secs(3) };
    policies.retry = dice.pick(&[
        Retry::Never,
        Retry::Immediate { attempts_max: 30, pause: Duration::from_millis(50) },
        Retry::Backoff { attempts_max: 6, backoff, execution_delay: None },
        Retry::Backoff { attempts_max: 6, backoff, execution_delay: Some(held) },
    ]);
    policies.packing = dice.pick(&[Packing::Pack, Packing::Spread]);
}

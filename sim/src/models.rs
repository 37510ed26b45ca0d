//! Reference models: small scenarios with a known answer, for closed-form tests and benchmarks.

use policy::model::{
    Billing, CapacityType, ClassId, JobClass, KindId, Objective, Offering, Place, Pool, QualityId,
    QualityLevel, QueueOrder, Region, RegionId, Stage, System,
};
use policy::policies::{Admission, Packing, Policies, Purchase, Quality, Retry, Routing, Scaling};
use policy::units::{Bytes, Duration, Ratio, Usd, UsdPerHour};
use scenarios::scenario::{
    Arrivals, Clients, Generator, Interruption, Launch, Law, Network, Operation, OperationLatency,
    PlanSearch, PoolWorld, QueuePrices, Run, Scenario, Shape, Source, StageWork, Startup, Step, StepKind,
    StorageTier, TransferPrices,
};

/// One station of a tandem line: its servers and the law of its service time.
#[derive(Clone, Debug)]
pub struct Station {
    /// Instances with one slot each; 0 is a delay without a queue.
    pub servers: u32,
    /// Steps, each a compute step of this law.
    pub steps: Vec<Law>,
}

/// A tandem line of stations fed by a Poisson stream: first come, first served, nothing ever lost.
///
/// With one exponential station it is M/M/c, with one general one M/G/c, with several exponential ones a Jackson line.
pub fn tandem(name: &str, rate_per_s: f64, stations: &[Station], horizon: Duration, seed: u64) -> Scenario {
    let mut system = System {
        regions: vec![Region { name: "here".into(), round_trip: vec![Duration::ZERO] }],
        classes: vec![JobClass { name: "jobs".into(), priority: 0, deadline: None, expires: false }],
        slot_kinds: vec!["slot".into()],
        pool_classes: Vec::new(),
        stages: Vec::new(),
        pools: Vec::new(),
        qualities: vec![QualityLevel { name: "full".into(), service_factor: 1.0, value: Ratio::ONE }],
        queue_order: QueueOrder::Fifo,
        queue_per_slot_max: None,
        policies: Policies {
            scaling: Scaling::Static,
            purchase: Purchase::OnDemandOnly,
            routing: Routing::Global,
            admission: Admission::ALL,
            retry: Retry::Never,
            quality: Quality::Fixed(QualityId(0)),
            packing: Packing::Pack,
        },
    };
    let (mut stages, mut pools) = (Vec::new(), Vec::new());
    for (index, station) in stations.iter().enumerate() {
        let name = format!("s{index}");
        let mean: u64 = station.steps.iter().map(|law| law.mean().as_nanos()).sum();
        let place = if station.servers == 0 {
            Place::Outside
        } else {
            system.pool_classes.push(name.clone());
            system.pools.push(pool(&name, (system.pool_classes.len() - 1) as u16, station.servers));
            pools.push(pool_world());
            Place::Slot { pool_class: (system.pool_classes.len() - 1) as u16, kind: KindId(0) }
        };
        system.stages.push(Stage {
            name,
            place,
            service_expected: Duration::from_nanos(mean),
            lease: None,
            deliveries_max: 3,
            has_quality: false,
        });
        let step = |(index, law): (usize, &Law)| Step {
            name: format!("step{index}"),
            kind: StepKind::Compute { time: law.clone(), factor: Vec::new() },
        };
        stages.push(StageWork {
            steps: station.steps.iter().enumerate().map(step).collect(),
            slowdown: Vec::new(),
            failure: 0.0,
            checkpoint: None,
        });
    }
    Scenario {
        name: name.into(),
        description: String::new(),
        system,
        stages,
        pools,
        tiers: Vec::new(),
        spans: Vec::new(),
        workload: vec![Source {
            name: "clients".into(),
            arrivals: Arrivals::Generator(Generator {
                shape: Shape::Constant { rate_per_s },
                burstiness: 1.0,
                burst_window: Duration::from_secs(60),
            }),
            class: ClassId(0),
            region_share: vec![1.0],
            rate_factor: 1.0,
        }],
        clients: Clients { patience: None, reask: None },
        network: Network {
            round_trips_per_job: 0.0,
            bytes_per_job: Bytes::ZERO,
            per_thousand_gib_between_regions: Usd::ZERO,
            egress_bytes_per_job: Bytes::ZERO,
            per_thousand_gib_egress: Usd::ZERO,
            probe_cost: Duration::ZERO,
        },
        queue: QueuePrices::default(),
        objective: Objective {
            deadline: Duration::MAX,
            on_time_min: Ratio::ZERO,
            success_min: Ratio::ZERO,
            budget: None,
            value_per_job: None,
            confidence: Ratio::ONE,
        },
        run: Run {
            seed,
            replications: 1,
            warmup: Duration::ZERO,
            horizon,
            precision: None,
            confidence: 0.95,
        },
        windows: Vec::new(),
        plan: PlanSearch::default(),
        digest: String::new(),
    }
}

/// M/M/`servers` with mean service 1 s: W1 of the benchmarks with 100 servers and 90 arrivals per second.
pub fn mmc(rate_per_s: f64, servers: u32, jobs: u64, seed: u64) -> Scenario {
    let service = Law::Exponential { mean: Duration::from_secs(1) };
    let horizon = Duration::from_secs_f64(jobs as f64 / rate_per_s);
    tandem("mmc", rate_per_s, &[Station { servers, steps: vec![service] }], horizon, seed)
}

/// W2 of the benchmarks: a delay and two pools of 180 in tandem, 300 requests per second for `horizon`; downloads and
/// uploads are transfers through a storage tier: an arrival and seven steps per request.
pub fn lyrebird_benchmark(horizon: Duration, seed: u64) -> Scenario {
    let law = |mean_ms, cv| Law::Lognormal { mean: Duration::from_millis(mean_ms), cv };
    let stations = [
        Station { servers: 0, steps: vec![law(250, 0.5)] },
        Station { servers: 180, steps: vec![law(50, 0.5), law(400, 0.3), law(80, 0.5)] },
        Station { servers: 180, steps: vec![law(50, 0.5), law(420, 0.3), law(60, 0.5)] },
    ];
    let mut scenario = tandem("w2", 300.0, &stations, horizon, seed);
    for (index, (get, put)) in [(250, 250), (50, 80), (50, 60)].into_iter().enumerate() {
        let row = |mean_ms| OperationLatency {
            latency: law(mean_ms, 0.5),
            bytes_per_s: None,
            rate_max: None,
            throttle_backoff: Duration::ZERO,
        };
        scenario.tiers.push(StorageTier {
            name: format!("tier{index}"),
            get: row(get),
            put: row(put),
            prices: TransferPrices::default(),
            retention: Duration::ZERO,
            source: "benchmark".into(),
        });
        let steps = &mut scenario.stages[index].steps;
        let last = steps.len() - 1;
        let transfer = |operation| StepKind::Transfer { tier: index, operation, size: Bytes::new(1_000_000) };
        steps[last].kind = transfer(Operation::Put);
        if last > 0 {
            steps[0].kind = transfer(Operation::Get);
        }
    }
    scenario
}

fn pool(name: &str, pool_class: u16, servers: u32) -> Pool {
    let price = UsdPerHour::from_nanos(1_000_000_000);
    Pool {
        name: name.into(),
        pool_class,
        region: RegionId(0),
        offering: Offering {
            provider: "model".into(),
            region: "here".into(),
            zone: String::new(),
            instance_type: "server".into(),
            accelerator: String::new(),
            capacity_type: CapacityType::OnDemand,
            price,
            price_list: price,
            price_per_call: Usd::ZERO,
            source: "model: 1 USD/h".into(),
        },
        slots: [1, 0, 0, 0],
        count_initial: servers,
        count_min: servers,
        count_max: servers,
        startup_expected: Duration::ZERO,
        speed_factor: 1.0,
    }
}

fn pool_world() -> PoolWorld {
    let none = || Law::Constant(Duration::ZERO);
    PoolWorld {
        startup: Startup {
            boot: none(),
            image: none(),
            weights: none(),
            warm_count: 0,
            warm_resume: none(),
            warm_price: UsdPerHour::default(),
        },
        launch: Launch { insufficient: Ratio::ZERO, refusal_after: Duration::ZERO },
        interruption: Interruption {
            hazard_per_hour: 0.0,
            notice: Duration::from_secs(120),
            notice_missed: Ratio::ZERO,
            shock: None,
            trace: None,
        },
        billing: Billing {
            granularity: Duration::from_secs(1),
            minimum: Duration::from_secs(60),
            interrupted_first_hour_free: false,
        },
        external_time: None,
        external_concurrency_max: None,
    }
}

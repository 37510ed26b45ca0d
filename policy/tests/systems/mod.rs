//! Small systems for the dispatcher's tests: each has few instances and short limits, so that corners are near.
//! Builders only; nothing here drives or checks.

#![allow(dead_code, reason = "each test binary uses its own part of this module")]

use policy::model::{
    CapacityType, JobClass, KindId, Offering, Place, Pool, QualityLevel, QueueOrder, Region, RegionId,
    SLOT_KINDS_MAX, Stage, System,
};
use policy::policies::routing::Rings;
use policy::policies::scaling::{Hpa, Keda, SkyServe, TargetTracking};
use policy::policies::{
    Admission, Backoff, ExecutionDelay, Packing, Policies, Purchase, Quality, Retry, Routing, Scaling,
    Shedding,
};
use policy::units::{Duration, Ratio, Usd, UsdPerHour};

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ratio(value: f64) -> Ratio {
    Ratio::new(value).expect("tests name shares between 0 and 1")
}

/// A pool of class 0 in region 0: `initial` instances of one slot of kind 0, at most 8.
pub(crate) fn pool(name: &str, capacity_type: CapacityType, initial: u32) -> Pool {
    let mut slots = [0; SLOT_KINDS_MAX];
    slots[0] = 1;
    let dollars = if capacity_type == CapacityType::Spot { 1 } else { 3 };
    let price = UsdPerHour::from_nanos(dollars * 1_000_000_000);
    Pool {
        name: name.to_owned(),
        pool_class: 0,
        region: RegionId(0),
        offering: Offering {
            provider: "aws".to_owned(),
            region: "us-east-1".to_owned(),
            zone: String::new(),
            instance_type: "g5.xlarge".to_owned(),
            accelerator: "A10G".to_owned(),
            capacity_type,
            price,
            price_list: price,
            price_per_call: Usd::ZERO,
            source: "test".to_owned(),
        },
        slots,
        count_initial: initial,
        count_min: 0,
        count_max: 8,
        startup_expected: secs(60),
        speed_factor: 1.0,
    }
}

/// A stage on a slot of `kind` that takes about ten seconds, with no lease and three deliveries.
pub(crate) fn stage(name: &str, kind: u16) -> Stage {
    Stage {
        name: name.to_owned(),
        place: Place::Slot { pool_class: 0, kind: KindId(kind) },
        service_expected: secs(10),
        lease: None,
        deliveries_max: 3,
        has_quality: false,
    }
}

/// A stage that holds no capacity of ours.
pub(crate) fn outside(name: &str) -> Stage {
    Stage { place: Place::Outside, service_expected: secs(2), ..stage(name, 0) }
}

pub(crate) fn class(name: &str, priority: u8, deadline: Option<Duration>, expires: bool) -> JobClass {
    JobClass { name: name.to_owned(), priority, deadline, expires }
}

/// One region, one class, one stage, one on-demand pool of `instances`; nothing scales, sheds or retries.
pub(crate) fn plain(instances: u32) -> System {
    System {
        regions: vec![Region { name: "home".to_owned(), round_trip: vec![Duration::ZERO] }],
        classes: vec![class("default", 0, None, false)],
        slot_kinds: vec!["gpu".to_owned(), "cpu".to_owned()],
        pool_classes: vec!["main".to_owned()],
        stages: vec![stage("infer", 0)],
        pools: vec![pool("on-demand", CapacityType::OnDemand, instances)],
        qualities: vec![QualityLevel { name: "best".to_owned(), service_factor: 1.0, value: Ratio::ONE }],
        queue_order: QueueOrder::Fifo,
        queue_per_slot_max: None,
        policies: Policies {
            scaling: Scaling::Static,
            purchase: Purchase::PoolOrder,
            routing: Routing::Global,
            admission: Admission::ALL,
            retry: Retry::Never,
            quality: Quality::Fixed(policy::model::QualityId(0)),
            packing: Packing::Pack,
        },
    }
}

/// Waits of at most two seconds, four attempts; `held` of the jobs are held back for up to four seconds.
pub(crate) fn backoff(held: f64) -> Retry {
    let delay = ExecutionDelay { share: ratio(held), delay_max: secs(4) };
    Retry::Backoff {
        attempts_max: 4,
        backoff: Backoff { base: Duration::from_millis(100), cap: secs(2) },
        execution_delay: (held > 0.0).then_some(delay),
    }
}

/// Three regions, 40 ms apart each, with a pool of `initial` instances in each.
pub(crate) fn three_regions(initial: u32) -> System {
    let mut system = plain(initial);
    let millis = Duration::from_millis;
    system.regions = (0..3_u64)
        .map(|from| Region {
            name: format!("region-{from}"),
            round_trip: (0..3_u64).map(|to| millis(40 * from.abs_diff(to))).collect(),
        })
        .collect();
    system.pools = (0..3_u16)
        .map(|region| Pool {
            region: RegionId(region),
            name: format!("pool-{region}"),
            ..system.pools[0].clone()
        })
        .collect();
    system
}

/// Spot and on-demand under SpotHedge, scaled on backlog, with leases and backoff.
fn hedged() -> System {
    let mut system = plain(1);
    system.pools = vec![pool("spot", CapacityType::Spot, 2), pool("on-demand", CapacityType::OnDemand, 0)];
    system.stages[0].lease = Some(secs(30));
    system.policies.scaling = Scaling::TargetTracking(TargetTracking::default_params());
    system.policies.purchase =
        Purchase::SpotHedge { overprovision: 1, dynamic_fallback: true, on_demand_base: 0 };
    system.policies.retry = backoff(0.0);
    system
}

/// No queue at all: jobs probe regions on rings, back off and give up.
fn probing() -> System {
    let mut system = three_regions(2);
    system.queue_per_slot_max = Some(0.0);
    system.policies.routing = Routing::Rings(Rings::default_params());
    system.policies.retry = backoff(0.3);
    system.stages[0].lease = Some(secs(20));
    system
}

/// Upload, two kinds of slots on one instance, download; priorities, expiry, shedding, earliest deadline first.
fn staged() -> System {
    let mut system = plain(2);
    system.pools[0].slots = [2, 1, 0, 0];
    system.stages = vec![outside("upload"), stage("prepare", 1), stage("infer", 0), outside("download")];
    system.stages[1].lease = Some(secs(15));
    system.stages[3].lease = Some(secs(15));
    system.classes = vec![
        class("paid", 0, Some(secs(40)), true),
        class("free", 3, Some(secs(60)), false),
        class("batch", 7, None, true),
    ];
    system.queue_order = QueueOrder::Deadline;
    system.policies.admission.shedding = Some(Shedding { slack: 1.5 });
    system.policies.retry = Retry::Immediate { attempts_max: 3, pause: secs(1) };
    system
}

/// The same without shedding, first come first served, so that deadlines pass in queues and on slots.
fn expiring() -> System {
    let mut system = staged();
    system.queue_order = QueueOrder::Fifo;
    system.policies.admission = Admission::ALL;
    system.policies.scaling = Scaling::Hpa(Hpa::default_params());
    system
}

/// An own pool, and an external service of three concurrent calls once the wait passes ten seconds.
pub(crate) fn overflowing() -> System {
    let mut system = plain(1);
    let outer = Pool { count_max: 3, ..pool("api", CapacityType::External, 0) };
    system.pools.push(outer);
    system.policies.admission.overflow_above = Some(secs(10));
    system.stages[0].lease = Some(secs(25));
    system.policies.retry = backoff(0.0);
    system
}

/// Nothing but an external service of two concurrent calls.
pub(crate) fn external_only() -> System {
    let mut system = plain(0);
    system.pools = vec![Pool { count_max: 2, ..pool("api", CapacityType::External, 0) }];
    system.stages[0].lease = Some(secs(25));
    system.classes = vec![class("default", 0, None, false), class("urgent", 1, Some(secs(90)), true)];
    system
}

/// A ladder of three levels, last come first served, spread out, a bounded queue, and a fleet that starts from none.
fn laddered() -> System {
    let mut system = plain(0);
    system.pools[0].slots[0] = 3;
    system.stages[0].has_quality = true;
    let level = |name: &str, service_factor| QualityLevel {
        name: name.to_owned(),
        service_factor,
        value: Ratio::ONE,
    };
    system.qualities = vec![level("8-steps", 1.0), level("4-steps", 0.5), level("2-steps", 0.3)];
    system.policies.quality = Quality::Ladder { thresholds: vec![1.5, 3.0], recover: 0.8 };
    system.policies.packing = Packing::Spread;
    system.policies.scaling = Scaling::Keda(Keda::default_params());
    system.queue_order = QueueOrder::Lifo;
    system
}

/// A ready fleet behind queues of at most two jobs per slot.
fn bounded() -> System {
    let mut system = laddered();
    system.pools[0].count_initial = 2;
    system.queue_order = QueueOrder::Fifo;
    system.queue_per_slot_max = Some(2.0);
    system.policies.scaling = Scaling::Static;
    system
}

/// Regional queues with jobs sent anywhere, retries without a pause, leases, and scaling on the request rate.
fn scattered() -> System {
    let mut system = three_regions(1);
    system.stages.push(stage("encode", 0));
    system.stages[0].lease = Some(secs(12));
    system.stages[1].lease = Some(secs(12));
    system.policies.routing = Routing::Anywhere;
    system.policies.retry = Retry::Immediate { attempts_max: 5, pause: Duration::ZERO };
    system.policies.scaling = Scaling::SkyServe(SkyServe::default_params());
    system.policies.purchase = Purchase::SpotShare { share: ratio(0.5), on_demand_base: 1 };
    system.classes = vec![class("default", 1, Some(secs(45)), true)];
    system
}

/// Reserved before spot before on-demand; two slots each.
fn reserved_first() -> System {
    let mut system = plain(0);
    system.pools = vec![
        pool("spot", CapacityType::Spot, 2),
        pool("reserved", CapacityType::Reserved, 1),
        pool("on-demand", CapacityType::OnDemand, 0),
    ];
    for pool in &mut system.pools {
        pool.slots[0] = 2;
    }
    system.policies.retry = backoff(0.0);
    system
}

/// Stages outside and no pool at all.
fn poolless() -> System {
    let mut system = plain(0);
    system.pools.clear();
    system.pool_classes.clear();
    system.stages = vec![outside("upload"), outside("download")];
    system.stages[0].lease = Some(secs(10));
    system.policies.retry = backoff(0.5);
    system.classes = vec![class("default", 0, Some(secs(30)), true)];
    system
}

/// Every small system with its name.
pub(crate) fn all() -> Vec<(&'static str, System)> {
    vec![
        ("plain", plain(2)),
        ("hedged", hedged()),
        ("probing", probing()),
        ("staged", staged()),
        ("expiring", expiring()),
        ("overflowing", overflowing()),
        ("external only", external_only()),
        ("laddered", laddered()),
        ("bounded", bounded()),
        ("scattered", scattered()),
        ("reserved first", reserved_first()),
        ("poolless", poolless()),
    ]
}

/// Purchase rules by number.
pub(crate) fn purchase(choice: u8) -> Purchase {
    match choice % 4 {
        0 => Purchase::OnDemandOnly,
        1 => Purchase::SpotShare { share: ratio(0.5), on_demand_base: 1 },
        2 => Purchase::SpotHedge { overprovision: 1, dynamic_fallback: true, on_demand_base: 0 },
        _ => Purchase::PoolOrder,
    }
}

/// Scaling rules by number, those that wake a group of zero for jobs that wait.
pub(crate) fn scaling(choice: u8) -> Scaling {
    match choice % 3 {
        0 => Scaling::TargetTracking(TargetTracking::default_params()),
        1 => Scaling::Hpa(Hpa::default_params()),
        _ => Scaling::Keda(Keda::default_params()),
    }
}

/// Routing rules by number, of the same shape as `before`.
pub(crate) fn routing(before: &Routing, choice: u8) -> Routing {
    match choice % 3 {
        _ if *before == Routing::Global => Routing::Global,
        0 => Routing::Nearest,
        1 => Routing::Anywhere,
        _ => Routing::Rings(Rings::default_params()),
    }
}

/// Orders of a queue by number.
pub(crate) fn queue_order(choice: u8) -> QueueOrder {
    [QueueOrder::Fifo, QueueOrder::Lifo, QueueOrder::Deadline][usize::from(choice % 3)]
}

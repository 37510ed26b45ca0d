//! Every default of a scenario, one line each, with the reason for its value. Defaults of peer policies stand beside
//! those policies, with their sources.

use policy::units::Duration;

// Workload
/// Name of the only class: a scenario that tells no classes apart needs no name for it.
pub(crate) const CLASS_NAME: &str = "default";
/// Served first: one class needs no order.
pub(crate) const PRIORITY: u8 = 0;
/// Late jobs are still worth serving to the client who waits; expiry is a choice.
pub(crate) const EXPIRES: bool = false;
/// As written.
pub(crate) const RATE_FACTOR: f64 = 1.0;
/// Poisson: many independent people.
pub(crate) const BURSTINESS: f64 = 1.0;
/// A push notification or a post is felt for about a minute.
pub(crate) const BURST_WINDOW: Duration = Duration::from_secs(60);
/// A day.
pub(crate) const DIURNAL_PERIOD: Duration = Duration::from_secs(86_400);
/// The peak is the moment that a plan is made for, so a run starts there.
pub(crate) const DIURNAL_PEAK_AT: Duration = Duration::ZERO;
/// Attention fades by a power law (Crane and Sornette, PNAS 2008).
pub(crate) const DECAY: crate::scenario::Decay = crate::scenario::Decay::Power;
/// A trace runs from its start.
pub(crate) const TRACE_START: Duration = Duration::ZERO;
/// A trace runs at its own pace.
pub(crate) const TRACE_TIME_FACTOR: f64 = 1.0;
/// Repeating a trace invents data; it is a choice.
pub(crate) const TRACE_REPEAT: bool = false;
/// People press the button again a few times, then leave.
pub(crate) const REASK_TIMES_MAX: u32 = 3;

// Pipeline
/// Most stages hold capacity of ours.
pub(crate) const OUTSIDE: bool = false;
/// Dead letter after three deliveries, the usual redrive rule of SQS.
pub(crate) const DELIVERIES_MAX: u32 = 3;
/// Attempts fail only where the scenario says so.
pub(crate) const FAILURE: f64 = 0.0;
/// Only model stages have levels of quality.
pub(crate) const HAS_QUALITY: bool = false;
/// A span that hides compute would surprise.
pub(crate) const EXCLUDES_COMPUTE: bool = false;
/// What a `get` is called when it has no name.
pub(crate) const GET_NAME: &str = "download";
/// What a `put` is called when it has no name.
pub(crate) const PUT_NAME: &str = "upload";

// Storage
/// A month, the period by which storage is priced.
pub(crate) const RETENTION: Duration = Duration::from_secs(30 * 86_400);
/// First wait of the AWS SDKs' standard retry mode.
pub(crate) const THROTTLE_BACKOFF: Duration = Duration::from_millis(100);

// Fleet
/// Kind of slot where a scenario tells none apart.
pub(crate) const SLOT_KIND: &str = "slot";
/// A site of one's own: no catalog has its prices.
pub(crate) const PROVIDER: &str = "own";
/// The only region of a scenario without geography.
pub(crate) const REGION: &str = "local";
/// A machine whose type does not matter.
pub(crate) const INSTANCE_TYPE: &str = "generic";
/// One job at a time.
pub(crate) const SLOTS: u16 = 1;
/// Nothing is kept that policy does not ask for.
pub(crate) const COUNT_MIN: u32 = 0;
/// The reference instance.
pub(crate) const SPEED_FACTOR: f64 = 1.0;
/// Provisioning plus loading a 7B model takes 183 s on a cloud GPU (SkyServe, EuroSys 2025).
pub(crate) const STARTUP_TOTAL: Duration = Duration::from_secs(183);
/// A start-up table lists the steps there are.
pub(crate) const STARTUP_STEP: Duration = Duration::ZERO;
/// Warm pools are a choice.
pub(crate) const WARM_COUNT: u32 = 0;
/// A stopped cloud instance runs again after about half a minute.
pub(crate) const WARM_RESUME: Duration = Duration::from_secs(30);
/// Instances are lost only where the scenario says so.
pub(crate) const HAZARD_PER_HOUR: f64 = 0.0;
/// EC2 gives two minutes.
pub(crate) const NOTICE: Duration = Duration::from_secs(120);
/// The notice comes; EC2 calls it best effort, so a scenario may lower this.
pub(crate) const NOTICE_MISSED: f64 = 0.0;
/// The shock itself is the loss; an outage after it is a choice.
pub(crate) const SHOCK_OUTAGE: Duration = Duration::ZERO;
/// Most availability files hold 0 and 1.
pub(crate) const NODES_FULL: u32 = 1;
/// Launches succeed unless the scenario says otherwise.
pub(crate) const INSUFFICIENT: f64 = 0.0;
/// EC2 answers `InsufficientInstanceCapacity` within seconds.
pub(crate) const REFUSAL_AFTER: Duration = Duration::from_secs(10);
/// AWS bills Linux by the second since 2017-10-02.
pub(crate) const BILLING_GRANULARITY: Duration = Duration::from_secs(1);
/// AWS bills at least a minute.
pub(crate) const BILLING_MINIMUM: Duration = Duration::from_secs(60);
/// The dearer reading of the rule for interrupted spot instances.
pub(crate) const INTERRUPTED_FIRST_HOUR_FREE: bool = false;

// Network and queue
/// One request, one answer.
pub(crate) const ROUND_TRIPS_PER_JOB: f64 = 1.0;
/// Send, receive, delete.
pub(crate) const REQUESTS_PER_DELIVERY: f64 = 3.0;
/// Longest long poll of SQS.
pub(crate) const IDLE_POLL: Duration = Duration::from_secs(20);

// Policy
/// The order that clients think fair.
pub(crate) const QUEUE_ORDER: policy::model::QueueOrder = policy::model::QueueOrder::Fifo;
/// The extra replica of SkyServe's documented example.
pub(crate) const HEDGE_OVERPROVISION: u32 = 1;
/// On-demand stands in while spot is missing, as in the SpotHedge paper.
pub(crate) const HEDGE_DYNAMIC_FALLBACK: bool = true;
/// No instance is on-demand by principle.
pub(crate) const ON_DEMAND_BASE: u32 = 0;
/// A fifth of the fleet is kept for the region's own peaks.
pub(crate) const RING_OVERLOAD: f64 = 0.8;
/// Same metro, same continent, next continent, anywhere; unlocked as load rises.
pub(crate) const RINGS: [(Duration, f64); 4] = [
    (Duration::from_millis(25), 0.80),
    (Duration::from_millis(75), 0.88),
    (Duration::from_millis(150), 0.94),
    (Duration::MAX, 0.98),
];
/// Small enough not to overload the region that takes the jobs.
pub(crate) const RING_CHUNK: f64 = 0.02;
/// Shorter than a job, longer than it takes to collect loads from all regions.
pub(crate) const RING_REFRESH: Duration = Duration::from_secs(5);
/// At most three attempts per request (Google SRE book, "Handling Overload").
pub(crate) const ATTEMPTS_MAX: u32 = 3;
/// One trip through a router within a region.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// First wait of the AWS SDKs' standard retry mode.
pub(crate) const BACKOFF_BASE: Duration = Duration::from_millis(100);
/// Longest wait of the AWS SDKs' standard retry mode.
pub(crate) const BACKOFF_CAP: Duration = Duration::from_secs(20);
/// The only level where a scenario has no ladder.
pub(crate) const QUALITY_NAME: &str = "full";
/// A level that says nothing about its worth is worth the full price.
pub(crate) const QUALITY_VALUE: f64 = 1.0;
/// A fifth below the threshold, so that the level does not flicker.
pub(crate) const LADDER_RECOVER: f64 = 0.8;

// Objective, run and plan
/// People give up on a result after about a minute.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// The usual latency objective: 95 of 100.
pub(crate) const ON_TIME_MIN: f64 = 0.95;
/// Two nines, the usual objective of a consumer app.
pub(crate) const SUCCESS_MIN: f64 = 0.99;
/// The usual confidence of an interval.
pub(crate) const CONFIDENCE: f64 = 0.95;
/// Any number would do; the same one gives the same run.
pub(crate) const SEED: u64 = 1;
/// Enough for an interval, few enough for a first answer.
pub(crate) const REPLICATIONS: u32 = 10;
/// A launch is measured from its first second; steady states need a warm-up and say so.
pub(crate) const WARMUP: Duration = Duration::ZERO;
/// Long enough to see a spike and the fleet's answer to it.
pub(crate) const HORIZON: Duration = Duration::from_secs(3600);
/// Twenty times the default number, after which a wide interval tells about the scenario.
pub(crate) const PRECISION_REPLICATIONS_MAX: u32 = 200;
/// Halves the interval twice against the default number.
pub(crate) const PLAN_REPLICATIONS_MAX: u32 = 64;

//! Images of the dispatcher: what is damaged is refused or harmless, and what was put away under other parameters or by
//! another system is told apart. That a restored dispatcher answers like the original is `dispatcher_inputs`' matter.

#![cfg(feature = "image")]

mod systems;

use policy::dispatch::{CancelScope, Dispatcher, Image, Input, Output, RestoreError, StageResult};
use policy::model::{ClassId, InstanceId, Lease, PoolId, RegionId, System};
use policy::policies::{Purchase, Scaling};
use policy::units::random::Stream;
use policy::units::{Duration, Instant, UsdPerHour};
use serde_json::{Value, json};
use systems::{class, plain, pool, secs};

/// Timers that may follow one another at one instant.
const TIMERS_AT_ONCE_MAX: u32 = 1000;

fn chance() -> Stream {
    Stream::new(5, 0, "dispatcher")
}

/// A dispatcher under random inputs, most of them sensible.
struct Play {
    dispatcher: Dispatcher,
    now: Instant,
    tag: u64,
    draws: Stream,
    drawn: u64,
}

impl Play {
    fn new(system: &System, draws: Stream) -> Self {
        let mut outputs = Vec::new();
        let mut dispatcher =
            Dispatcher::new(system.clone(), chance(), &mut outputs).expect("test systems can run");
        for output in outputs {
            if let Output::Launch { instance, .. } = output {
                let ready = Input::InstanceReady { instance };
                dispatcher.handle_input(Instant::START, ready, &mut Vec::new());
            }
        }
        Self { dispatcher, now: Instant::START, tag: 0, draws, drawn: 0 }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.drawn += 1;
        self.draws.below(self.drawn, bound.max(1) as u64) as usize
    }

    fn some_lease(&mut self) -> Lease {
        let live = self.dispatcher.live_jobs();
        let leases: Vec<Lease> = live.iter().filter_map(|job| self.dispatcher.lease_of(*job)).collect();
        let index = self.below(leases.len());
        leases.get(index).copied().unwrap_or_default()
    }

    fn input(&mut self) -> Input {
        let regions = self.dispatcher.system().regions.len();
        let (classes, pools) = (self.dispatcher.system().classes.len(), self.dispatcher.system().pools.len());
        let (class, region) = (ClassId(self.below(classes) as u16), RegionId(self.below(regions) as u16));
        let instance = InstanceId(self.below(10) as u32);
        self.tag += 1;
        let tag = self.tag;
        match self.below(24) {
            0..=5 => Input::JobArrived { tag, class, region },
            6 => {
                let (priority, deadline) = (Some(self.below(8) as u8), Some(secs(self.below(90) as u64)));
                Input::JobSubmitted { tag, class, region, priority, deadline }
            }
            7..=10 => Input::StageFinished { lease: self.some_lease(), result: StageResult::Done },
            11 => Input::StageFinished { lease: self.some_lease(), result: StageResult::Failed },
            12 => Input::LeaseRenewed { lease: self.some_lease() },
            13 => {
                let live = self.dispatcher.live_jobs();
                let index = self.below(live.len());
                let job = live.get(index).copied().unwrap_or_default();
                Input::JobCancelled { job, scope: CancelScope::Always }
            }
            14 => Input::InstanceBooted { instance },
            15..=16 => Input::InstanceReady { instance },
            17 => Input::InterruptionNotice { instance, gone_at: self.now + secs(30) },
            18 => Input::InstanceLost { instance },
            19 => Input::InstanceSilent { instance },
            20 => Input::InstanceHeard { instance },
            21 => Input::InstanceGone { instance },
            22 if pools > 0 => {
                let price = UsdPerHour::from_nanos(self.below(1 << 40) as i64);
                Input::PriceChanged { pool: PoolId(self.below(pools) as u16), price }
            }
            _ => Input::TimeReached,
        }
    }

    /// `count` inputs with some time between them, and every timer on the way.
    fn go_on(&mut self, count: usize) {
        for _ in 0..count {
            let input = self.input();
            self.dispatcher.handle_input(self.now, input, &mut Vec::new());
            let until = self.now + Duration::from_millis(self.below(8000) as u64);
            let mut at_once = 0;
            while self.dispatcher.poll_timeout() <= until {
                let wake = self.dispatcher.poll_timeout();
                at_once = if wake <= self.now { at_once + 1 } else { 0 };
                assert!(at_once < TIMERS_AT_ONCE_MAX, "timers go round at {}", self.now);
                self.now = self.now.max(wake);
                self.dispatcher.handle_input(self.now, Input::TimeReached, &mut Vec::new());
            }
            self.now = until;
        }
    }

    fn bytes(&self) -> Vec<u8> {
        postcard::to_stdvec(&self.dispatcher.image()).expect("an image can be written")
    }
}

/// One to three random edits: a byte replaced, a bit turned over, a byte more, a byte less, the end cut off.
fn damaged(bytes: &[u8], draws: Stream) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for edit in 0..=draws.below(0, 3) {
        let draw = |purpose, bound: usize| draws.child(edit).below(purpose, bound.max(1) as u64) as usize;
        let at = draw(0, bytes.len());
        match draw(1, 12) {
            0..=4 => bytes[at] = draw(2, 256) as u8,
            5..=7 => bytes[at] ^= 1 << draw(2, 8),
            8 => bytes[at] = 0xFF,
            9 => bytes.insert(at, draw(2, 256) as u8),
            10 => drop(bytes.remove(at)),
            _ => bytes.truncate(bytes.len().saturating_sub(draw(2, 4)).max(1)),
        }
    }
    bytes
}

#[test]
fn damaged_images_are_refused_or_harmless() {
    let (mut unread, mut refused, mut restored) = (0, 0, 0);
    for (which, (name, system)) in (0_u64..).zip(systems::all()) {
        for scene in 0..6 {
            let draws = Stream::new(31, which, "damage").child(scene);
            let mut play = Play::new(&system, draws);
            play.go_on(20 + 40 * scene as usize);
            let bytes = play.bytes();
            for damage in 0..500 {
                let draws = draws.child(damage + 1);
                let Ok(image) = postcard::from_bytes::<Image>(&damaged(&bytes, draws)) else {
                    unread += 1;
                    continue;
                };
                let Ok(dispatcher) = Dispatcher::restore(system.clone(), chance(), image) else {
                    refused += 1;
                    continue;
                };
                restored += 1;
                let mut after = Play { dispatcher, now: play.now, tag: play.tag, draws, drawn: 1000 };
                after.go_on(100);
                after.dispatcher.check().unwrap_or_else(|violation| panic!("{name}, {damage}: {violation}"));
            }
        }
    }
    assert!(
        unread > 1000 && refused > 1000 && restored > 1000,
        "{unread} unread, {refused} refused, {restored}"
    );
}

/// A waiting, a held back and a running job, a draining instance, and one that starts.
fn scene() -> (System, Dispatcher) {
    let mut system = plain(2);
    system.classes = vec![class("default", 2, Some(secs(600)), true)];
    system.stages[0].lease = Some(secs(100));
    system.policies.retry = systems::backoff(0.0);
    system.pools.push(pool("spare", policy::model::CapacityType::OnDemand, 0));
    let mut outputs = Vec::new();
    let mut dispatcher = Dispatcher::new(system.clone(), chance(), &mut outputs).expect("it can run");
    let mut give = |input| dispatcher.handle_input(Instant::START, input, &mut outputs);
    for id in 0..2 {
        give(Input::InstanceReady { instance: InstanceId(id) });
    }
    for tag in 0..6 {
        give(Input::JobArrived { tag, class: ClassId(0), region: RegionId(0) });
    }
    let lease = Lease { slot: 0, token: 1 };
    give(Input::StageFinished { lease, result: StageResult::Failed });
    give(Input::InterruptionNotice { instance: InstanceId(1), gone_at: Instant::START + secs(120) });
    (system, dispatcher)
}

fn refusal(edit: impl FnOnce(&mut Value)) -> String {
    let (system, dispatcher) = scene();
    let mut image = serde_json::to_value(dispatcher.image()).expect("an image can be written as JSON");
    edit(&mut image);
    let image: Image = serde_json::from_value(image).expect("the edit keeps the types");
    let restored = Dispatcher::restore(system, chance(), image);
    restored.map_or_else(|error| error.to_string(), |_| "it was restored".to_owned())
}

#[test]
fn whole_images_are_restored_from_formats_with_names() {
    assert_eq!(refusal(|_| {}), "it was restored");
}

#[test]
fn every_part_of_an_image_is_checked() {
    let check = |pointer: &str, value: Value, expected: &str| {
        let said = refusal(|image| {
            let part = image.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer} is in the image"));
            assert_ne!(*part, value, "{pointer} is edited");
            *part = value;
        });
        assert!(said.contains(expected), "{pointer}: {said}");
    };
    check("/format", json!(0), "format 0");
    check(
        "/shape/1",
        json!("region `moon`"),
        "the state was made with region `moon`, the system has region `home`",
    );
    for (field, value, part) in [
        ("class", json!(9), "class"),
        ("region", json!(9), "region"),
        ("cell", json!(9), "serving region"),
        ("stage", json!(9), "stage"),
        ("quality", json!(9), "level of quality"),
        ("kind", json!(9), "kind of slot"),
        ("group", json!(9), "group"),
        ("priority", json!(8), "priority"),
        ("waited", json!(u64::MAX), "time in the system"),
        ("state", json!("Free"), "state"),
        ("pool", json!(9), "pool"),
    ] {
        check(&format!("/jobs/1/Held/{field}"), value, &format!("job 1 has an impossible {part}"));
    }
    check("/jobs/1/Held/state", json!("Waiting"), "cannot run job 1");
    check("/jobs/1/Held/state", json!("Held"), "cannot run job 1");
    check("/jobs/1/Held/pool", json!(1), "cannot run job 1");
    check("/jobs/3/Held/state", json!("Held"), "job 3 does not wait");
    check("/jobs_free", json!([0]), "job 0 is not free");
    check("/instances/0/0/pool", json!(9), "instance 0 has an impossible pool");
    check("/instances/0/0/seat", json!(1), "instance 1 sits where another does");
    check("/instances/0/0/seat", json!(1 << 30), "instance 0 has an impossible seat");
    check("/instances/0/0/state", json!("Loading"), "instance 0 has an impossible history");
    check("/instances/0/0/state", json!("Silent"), "instance 0 has an impossible job");
    check("/instances/0/1", json!([]), "job 2 is not where it says");
    check("/instances/0/1", json!([1]), "instance 1 runs job 1, which is elsewhere");
    check("/instances/0/1", json!([2, 2]), "instance 0 runs job 2, which is elsewhere");
    check("/instances/0/1", json!([77]), "instance 0 runs job 77");
    check("/instances/1/1", json!([]), "it drains without a job");
    check("/instances_free", json!([4]), "instance 4 is not free");
    check("/groups/0/queues/0", json!([3, 4]), "job 5 is not where it says");
    check("/groups/0/queues/0", json!([3, 4, 5, 3]), "job 3 does not wait");
    check("/groups/0/queues/1", json!([3]), "job 3 does not wait");
    check("/groups/0/service_ns/0", json!(-1.0), "impossible counts");
    check("/groups/0/tick/arrived", json!(u64::MAX), "impossible counts");
    check("/groups/0/next_tick", json!(u64::MAX), "impossible counts");
    check("/demand/0/rate", json!(-2.0), "impossible demand");
    check("/leases/0", json!([]), "misses a timer");
    check("/leases/0/0/1", json!(3), "a lease on job 3 is nobody's");
    check("/deadlines/0", json!([]), "misses a timer");
    check("/deadlines/0/0/0", json!(5), "a deadline of job 0 is not its own");
    check("/backoffs", json!([]), "job 0 misses a timer");
    check("/backoffs/0/1", json!(99), "a timer names job 99");
    check("/totals/done", json!(1), "jobs arrived");
    check("/totals/stale", json!(u64::MAX), "totals");
    check("/next_minute", json!(u64::MAX), "no minute ever ends");
    check("/pools", json!([]), "it has 0 pools, not 2");
}

#[test]
fn routing_tables_that_lead_nowhere_are_refused() {
    let mut system = systems::three_regions(1);
    system.policies.routing =
        policy::policies::Routing::Rings(policy::policies::routing::Rings::default_params());
    system.pools.pop(); // no pool in the third region
    let dispatcher = Dispatcher::new(system.clone(), chance(), &mut Vec::new()).expect("it can run");
    let check = |row: [f64; 3], fits: bool| {
        let mut image = serde_json::to_value(dispatcher.image()).expect("an image can be written as JSON");
        for (to, up_to) in row.iter().enumerate() {
            image["table"]["cumulative"][to] = json!(up_to);
        }
        let image: Image = serde_json::from_value(image).expect("the edit keeps the types");
        assert_eq!(Dispatcher::restore(system.clone(), chance(), image).is_ok(), fits, "{row:?}");
    };
    check([0.5, 1.0, 1.0], true);
    check([0.5, 0.5, 1.0], false);
    check([0.5, 0.9, 0.9], false);
}

#[test]
fn other_shapes_are_told_apart_by_name() {
    let check = |edit: fn(&mut System), expected: &str| {
        let (mut system, dispatcher) = scene();
        edit(&mut system);
        let bytes = postcard::to_stdvec(&dispatcher.image()).expect("an image can be written");
        let image = postcard::from_bytes(&bytes).expect("an image can be read");
        let Err(error) = Dispatcher::restore(system, chance(), image) else { panic!("{expected}: restored") };
        assert!(matches!(error, RestoreError::Shape(_)), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(|system| system.pools[0].name = "other".to_owned(), "the system has pool `other`");
    check(|system| system.pools[0].slots[0] = 2, "slots [2, 0, 0, 0]");
    check(
        |system| drop(system.pools.pop()),
        "pool `spare` (on-demand, pool class 0, region 0, slots [1, 0, 0, 0]), the system has nothing more",
    );
    check(|system| system.stages[0].name = "other".to_owned(), "stage `other`");
    check(|system| system.classes.push(class("more", 0, None, false)), "the system has class `more`");
}

/// Parameters may differ: a policy of another kind starts afresh, timers follow, the market price stays.
#[test]
fn image_goes_on_under_other_parameters() {
    let (mut system, mut dispatcher) = scene();
    let price = UsdPerHour::from_nanos(7);
    let changed = Input::PriceChanged { pool: PoolId(0), price };
    dispatcher.handle_input(Instant::START, changed, &mut Vec::new());
    let bytes = postcard::to_stdvec(&dispatcher.image()).expect("an image can be written");
    for choice in 0..16 {
        system.policies.scaling = if choice == 9 { Scaling::Static } else { systems::scaling(choice) };
        system.policies.purchase =
            if choice == 9 { Purchase::OnDemandOnly } else { systems::purchase(choice) };
        system.queue_order = systems::queue_order(choice);
        system.stages[0].lease = (choice % 2 == 0).then_some(secs(u64::from(choice) + 1));
        system.classes[0].deadline = (choice % 3 > 0).then_some(secs(u64::from(choice)));
        let image = postcard::from_bytes(&bytes).expect("an image can be read");
        let dispatcher = Dispatcher::restore(system.clone(), chance(), image).expect("the shape is the same");
        let image = serde_json::to_value(dispatcher.image()).expect("an image can be written as JSON");
        assert_eq!(image["pools"][0]["price"]["nanos"], json!(7));
        let draws = Stream::new(8, 0, "parameters").child(u64::from(choice));
        let mut play = Play { dispatcher, now: Instant::START, tag: 100, draws, drawn: 0 };
        for _ in 0..40 {
            play.go_on(5);
            play.dispatcher.check().expect("every invariant holds");
        }
    }
}

#[test]
fn external_limit_must_be_the_same() {
    let mut system = systems::external_only();
    let dispatcher = Dispatcher::new(system.clone(), chance(), &mut Vec::new()).expect("it can run");
    let bytes = postcard::to_stdvec(&dispatcher.image()).expect("an image can be written");
    system.pools[0].count_max = 5;
    let image = postcard::from_bytes(&bytes).expect("an image can be read");
    let Err(error) = Dispatcher::restore(system, chance(), image) else { panic!("restored") };
    assert_eq!(
        error.to_string(),
        "pool `api` took 2 calls at once and takes 5 now; restore with 2 and reload"
    );
}

#[test]
fn inputs_survive_a_journal() {
    let mut play = Play::new(&systems::all()[3].1, Stream::new(3, 0, "journal"));
    for _ in 0..2000 {
        let input = play.input();
        let bytes = postcard::to_stdvec(&input).expect("an input can be written");
        assert_eq!(postcard::from_bytes::<Input>(&bytes), Ok(input));
    }
}

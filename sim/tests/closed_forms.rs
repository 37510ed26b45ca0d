//! The engine against closed forms: fixed seeds, and theory must lie in the 99.9 % interval over replications.
//!
//! Each check also asks that the interval is narrow: a wide one would hold any theory. A run starts empty, so each
//! model names a warm-up many relaxation times long; arrivals end at the horizon and every job is served to its end,
//! so that nothing is cut off there. The event engine is asked here, whatever faster way a scenario might have.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use policy::model::{ClassId, JobClass, QueueOrder};
use policy::policies::Purchase;
use policy::records::{JobOutcome, JobRow};
use policy::units::{Duration, Ratio};
use scenarios::scenario::{Arrivals, Law, Reask, Scenario, Shape, Source};
use sim::inputs::Inputs;
use sim::models::{self, Station as Line};
use sim::outcome::Outcome;
use sim::replication::{Keep, Replication};
use sim::stats::{Confidence, Interval};
use sim::theory::{
    ErlangA, FiniteQueue, JacksonNetwork, JacksonNode, Mmc, Station, Variability, erlang_b, ggc_wait_mean_s,
    mg1_wait_mean_s, mgc_wait_mean_s,
};

/// Confidence of every interval here.
const CONFIDENCE: f64 = 0.999;

/// Independent replications of each model.
const REPLICATIONS: u64 = 16;

const SECOND: Duration = Duration::from_secs(1);

fn runs(scenario: &Scenario, keep: Keep) -> Vec<Outcome> {
    let one = |number| Replication::new(scenario, &Inputs::default(), number, keep).unwrap().run().unwrap();
    (0..REPLICATIONS).map(one).collect()
}

/// One figure of each run.
fn samples(outcomes: &[Outcome], of: impl Fn(&Outcome) -> f64) -> Vec<f64> {
    outcomes.iter().map(of).collect()
}

/// Theory lies in the interval, which is no wider than `width` times theory to each side.
#[track_caller]
fn holds(what: &str, samples: &[f64], theory: f64, width: f64) {
    let interval = Interval::of_mean(samples, Confidence::new(CONFIDENCE).unwrap()).unwrap();
    assert!(interval.contains(theory), "{what}: theory {theory} is outside {interval:?}");
    let half = interval.half_width();
    assert!(half <= width * theory, "{what}: {interval:?} is too wide to say anything of {theory}");
}

/// `mmc` with a mean service of one second, `jobs` jobs after a warm-up of `warmup_s` seconds.
fn mmc(rate: f64, servers: u32, jobs: u64, warmup_s: u64) -> Scenario {
    let mut scenario = models::mmc(rate, servers, jobs + (rate * warmup_s as f64) as u64, 11);
    scenario.run.warmup = Duration::from_secs(warmup_s);
    scenario
}

/// A single station of one-slot servers with service `law` of mean one second.
fn station(rate: f64, servers: u32, law: Law, jobs: u64, warmup_s: u64) -> Scenario {
    let mut scenario = mmc(rate, servers, jobs, warmup_s);
    let lines = [Line { servers, steps: vec![law] }];
    let stages = models::tandem("station", rate, &lines, scenario.run.horizon, 11).stages;
    scenario.stages = stages;
    scenario
}

fn theory(rate: f64, servers: u64) -> Station {
    Station { arrival_rate_per_s: rate, service_mean_s: 1.0, servers }
}

fn wait_mean_s(outcome: &Outcome) -> f64 {
    outcome.stages[0].wait.mean_ns().unwrap() * 1e-9
}

/// Share of the started jobs that waited.
fn waited(outcome: &Outcome) -> f64 {
    1.0 - outcome.stages[0].wait.share_within(0).unwrap()
}

/// Share of the arrivals that were not served.
fn lost(outcome: &Outcome) -> f64 {
    1.0 - outcome.jobs.share(outcome.jobs.done)
}

/// The rows of jobs that arrived after the warm-up.
fn measured<'a>(scenario: &Scenario, outcome: &'a Outcome) -> impl Iterator<Item = &'a JobRow> + Clone {
    let from = scenario.run.warmup.as_secs_f64();
    assert!(outcome.records.jobs.iter().all(|row| row.weight == 1.0), "every job has its row");
    outcome.records.jobs.iter().filter(move |row| row.arrived_s >= from)
}

fn mean(values: impl Iterator<Item = f64> + Clone) -> f64 {
    values.clone().sum::<f64>() / values.count() as f64
}

#[test]
fn mm1_waits_as_theory_says() {
    let outcomes = runs(&mmc(0.7, 1, 60_000, 1000), Keep::Statistics);
    let exact = Mmc::new(theory(0.7, 1)).unwrap();
    holds("mean wait", &samples(&outcomes, wait_mean_s), exact.wait_mean_s(), 0.05);
    holds("share that waits", &samples(&outcomes, waited), 0.7, 0.01);
}

#[test]
fn hundred_servers_at_ninety_percent_wait_as_erlang_c_says() {
    let outcomes = runs(&mmc(90.0, 100, 400_000, 200), Keep::Statistics);
    let exact = Mmc::new(theory(90.0, 100)).unwrap();
    holds("mean wait", &samples(&outcomes, wait_mean_s), exact.wait_mean_s(), 0.12);
    holds("share that waits", &samples(&outcomes, waited), exact.wait_probability(), 0.08);
    let p99 = |outcome: &Outcome| outcome.stages[0].wait.quantile(0.99).unwrap() as f64 * 1e-9;
    holds("99th percentile", &samples(&outcomes, p99), exact.wait_quantile_s(0.99).unwrap(), 0.12);
}

#[test]
fn slots_of_one_machine_serve_as_that_many_servers() {
    // Five machines of four slots are M/M/20.
    let mut scenario = mmc(16.0, 5, 100_000, 300);
    scenario.system.pools[0].slots[0] = 4;
    let outcomes = runs(&scenario, Keep::Statistics);
    let exact = Mmc::new(theory(16.0, 20)).unwrap();
    holds("mean wait", &samples(&outcomes, wait_mean_s), exact.wait_mean_s(), 0.12);
    holds("share that waits", &samples(&outcomes, waited), exact.wait_probability(), 0.05);
    let busy = |outcome: &Outcome| outcome.utilization(policy::model::PoolId(0));
    holds("utilization", &samples(&outcomes, busy), 0.8, 0.01);
}

#[test]
fn the_queue_is_as_long_as_little_says() {
    // The queue is looked at once a minute, apart from any job: its mean is λ E[W].
    let scenario = mmc(8.0, 10, 150_000, 300);
    let outcomes = runs(&scenario, Keep::Minutes);
    let exact = Mmc::new(theory(8.0, 10)).unwrap();
    let within = scenario.run.warmup.as_secs_f64()..=scenario.run.horizon.as_secs_f64();
    let rows = |outcome: &Outcome| -> Vec<(u32, u32)> {
        let rows = outcome.records.minutes.iter().filter(|row| within.contains(&row.at_s));
        rows.map(|row| (row.waiting, row.running)).collect()
    };
    let waiting = |outcome: &Outcome| mean(rows(outcome).iter().map(|row| f64::from(row.0)));
    let running = |outcome: &Outcome| mean(rows(outcome).iter().map(|row| f64::from(row.1)));
    assert!(rows(&outcomes[0]).len() > 200);
    holds("mean queue", &samples(&outcomes, waiting), exact.queue_mean(), 0.2);
    holds("busy servers", &samples(&outcomes, running), 8.0, 0.02);
}

#[test]
fn no_queue_at_all_blocks_as_erlang_b_says_whatever_the_service_law() {
    let blocking = erlang_b(10.0, 12).unwrap();
    for law in
        [Law::Exponential { mean: SECOND }, Law::Lognormal { mean: SECOND, cv: 2.0 }, Law::Constant(SECOND)]
    {
        let mut scenario = station(10.0, 12, law.clone(), 60_000, 100);
        scenario.system.queue_per_slot_max = Some(0.0);
        let outcomes = runs(&scenario, Keep::Statistics);
        holds(&format!("blocking under {law:?}"), &samples(&outcomes, lost), blocking, 0.06);
        assert!(outcomes.iter().all(|outcome| outcome.jobs.failed > 0 && wait_mean_s(outcome) == 0.0));
    }
}

#[test]
fn a_bounded_queue_turns_away_as_mmck_says() {
    // Two waiting places for each of four servers: K = 12; once below and once above capacity.
    for rate in [3.6, 6.0] {
        let mut scenario = mmc(rate, 4, 60_000, 300);
        scenario.system.queue_per_slot_max = Some(2.0);
        let outcomes = runs(&scenario, Keep::Statistics);
        let exact = FiniteQueue::new(theory(rate, 4), 12).unwrap();
        holds("blocking", &samples(&outcomes, lost), exact.blocking(), 0.08);
        holds("mean wait", &samples(&outcomes, wait_mean_s), exact.wait_mean_s(), 0.03);
        assert!(
            outcomes.iter().all(|outcome| outcome.jobs.done + outcome.jobs.rejected == outcome.jobs.arrived)
        );
    }
}

#[test]
fn impatient_clients_leave_as_erlang_a_says() {
    for (rate, servers, patience_s) in [(9.0, 10, 2), (14.0, 10, 1)] {
        let mut scenario = mmc(rate, servers, 80_000, 100);
        scenario.clients.patience = Some(Law::Exponential { mean: Duration::from_secs(patience_s) });
        let outcomes = runs(&scenario, Keep::Records);
        let exact = ErlangA::new(theory(rate, u64::from(servers)), patience_s as f64).unwrap();
        holds("share that leaves", &samples(&outcomes, lost), exact.abandon_probability(), 0.05);
        // Over all clients, those who left included.
        let wait = |outcome: &Outcome| mean(measured(&scenario, outcome).map(|row| row.wait_s));
        holds("mean wait", &samples(&outcomes, wait), exact.wait_mean_s(), 0.05);
        let kept_waiting = |row: &JobRow| f64::from(row.wait_s > 0.0);
        let waits = |outcome: &Outcome| mean(measured(&scenario, outcome).map(kept_waiting));
        holds("share that waits", &samples(&outcomes, waits), exact.wait_probability(), 0.02);
    }
}

#[test]
fn one_server_with_general_service_waits_as_pollaczek_and_khinchine_say() {
    let laws = [
        (Law::Constant(SECOND), 0.0),
        (Law::Uniform { low: Duration::ZERO, high: Duration::from_secs(2) }, 1.0 / 3.0),
        (Law::Lognormal { mean: SECOND, cv: 0.5 }, 0.25),
        (Law::Lognormal { mean: SECOND, cv: 1.5 }, 2.25),
    ];
    for (law, scv) in laws {
        let outcomes = runs(&station(0.6, 1, law.clone(), 60_000, 1000), Keep::Statistics);
        let exact = mg1_wait_mean_s(0.6, 1.0, scv).unwrap();
        holds(&format!("mean wait under {law:?}"), &samples(&outcomes, wait_mean_s), exact, 0.08);
    }
}

#[test]
fn steps_of_one_stage_hold_one_slot_through_all_of_them() {
    // Three exponential steps are Erlang-3 service: squared variation 1/3.
    let step = || Law::Exponential { mean: Duration::from_nanos(1_000_000_000 / 3) };
    let line = Line { servers: 1, steps: vec![step(), step(), step()] };
    let mut scenario = models::tandem("erlang-3", 0.6, &[line], Duration::from_secs(100_000), 12);
    scenario.run.warmup = Duration::from_secs(1000);
    let outcomes = runs(&scenario, Keep::Statistics);
    holds("mean wait", &samples(&outcomes, wait_mean_s), mg1_wait_mean_s(0.6, 1.0, 1.0 / 3.0).unwrap(), 0.05);
}

#[test]
fn two_stations_in_line_take_as_long_as_jackson_says() {
    let exponential = |millis| vec![Law::Exponential { mean: Duration::from_millis(millis) }];
    let lines = [Line { servers: 3, steps: exponential(1000) }, Line { servers: 1, steps: exponential(300) }];
    let mut scenario = models::tandem("jackson", 2.2, &lines, Duration::from_secs(30_000), 13);
    scenario.run.warmup = Duration::from_secs(500);
    let outcomes = runs(&scenario, Keep::Statistics);
    let node = |external_rate_per_s, service_mean_s, servers| JacksonNode {
        external_rate_per_s,
        service_mean_s,
        servers,
    };
    let network =
        JacksonNetwork::new(vec![node(2.2, 1.0, 3), node(0.0, 0.3, 1)], vec![vec![0.0, 1.0], vec![0.0, 0.0]]);
    let exact = network.unwrap().solve().unwrap();
    let sojourn = |outcome: &Outcome| outcome.latency.mean_ns().unwrap() * 1e-9;
    holds("mean sojourn", &samples(&outcomes, sojourn), exact.sojourn_mean_s(), 0.03);
    for (index, node) in exact.nodes().iter().enumerate() {
        let wait = |outcome: &Outcome| outcome.stages[index].wait.mean_ns().unwrap() * 1e-9;
        holds(&format!("mean wait at {index}"), &samples(&outcomes, wait), node.wait_mean_s(), 0.06);
    }
}

#[test]
fn a_delay_before_a_station_leaves_the_stream_poisson() {
    // Mirasol 1963: the output of M/G/∞ is Poisson, so the station behind it is M/M/c.
    let delay = Line { servers: 0, steps: vec![Law::Lognormal { mean: Duration::from_secs(3), cv: 1.0 }] };
    let server = Line { servers: 2, steps: vec![Law::Exponential { mean: SECOND }] };
    let mut scenario = models::tandem("delay", 1.5, &[delay, server], Duration::from_secs(40_000), 14);
    scenario.run.warmup = Duration::from_secs(500);
    let outcomes = runs(&scenario, Keep::Statistics);
    let wait = |outcome: &Outcome| outcome.stages[1].wait.mean_ns().unwrap() * 1e-9;
    holds("mean wait", &samples(&outcomes, wait), Mmc::new(theory(1.5, 2)).unwrap().wait_mean_s(), 0.06);
    assert!(
        outcomes.iter().all(|outcome| outcome.stages[0].wait.max_ns() == Some(0)),
        "a delay has no queue"
    );
}

#[test]
fn several_servers_with_general_service_wait_near_allen_and_cunneen() {
    // The approximation is within a tenth here (Tijms, "A First Course in Stochastic Models", 2003, §9.6).
    for (servers, rate, cv, known_error) in [(2, 1.6, 0.5, 0.05), (10, 9.0, 0.5, 0.10), (10, 9.0, 1.5, 0.10)]
    {
        let law = Law::Lognormal { mean: SECOND, cv };
        let outcomes = runs(&station(rate, servers, law, 80_000, 500), Keep::Statistics);
        let at = theory(rate, u64::from(servers));
        let approximate = mgc_wait_mean_s(at, cv * cv).unwrap();
        let variability = Variability { arrival_scv: 1.0, service_scv: cv * cv };
        assert_eq!(approximate, ggc_wait_mean_s(at, variability).unwrap());
        let found = mean(samples(&outcomes, wait_mean_s).into_iter());
        let error = (found / approximate - 1.0).abs();
        assert!(error <= known_error, "{servers} servers, cv {cv}: {found} is {error} off {approximate}");
    }
}

#[test]
fn last_come_first_served_waits_as_long_in_the_mean_and_varies_more() {
    let scenario = mmc(0.7, 1, 60_000, 1000);
    let mut reversed = scenario.clone();
    reversed.system.queue_order = QueueOrder::Lifo;
    let [first, last] = [&scenario, &reversed].map(|scenario| runs(scenario, Keep::Statistics));
    let exact = Mmc::new(theory(0.7, 1)).unwrap().wait_mean_s();
    holds("mean wait", &samples(&last, wait_mean_s), exact, 0.05);
    let variance = |outcome: &Outcome| outcome.stages[0].wait.variance_ns2().unwrap() * 1e-18;
    // E[W² of LIFO] = E[W² of FIFO]/(1 − ρ) (Takács 1963).
    let second = |outcome: &Outcome| variance(outcome) + wait_mean_s(outcome) * wait_mean_s(outcome);
    let ratio = mean(samples(&last, second).into_iter()) / mean(samples(&first, second).into_iter());
    assert!((ratio * 0.3 - 1.0).abs() < 0.15, "second moments stand at {ratio}, theory 3.33");
}

#[test]
fn priorities_wait_as_cobham_says() {
    // Non-preemptive priorities on one server (A. Cobham 1954): W1 = W0/(1 − ρ1), W2 = W1/(1 − ρ), W0 = ρ S.
    let (urgent, patient) = (0.3, 0.4);
    let mut scenario = mmc(urgent, 1, 1, 1000);
    scenario.run.horizon = Duration::from_secs(80_000);
    let class =
        |name: &str, priority| JobClass { name: name.into(), priority, deadline: None, expires: false };
    scenario.system.classes = vec![class("urgent", 0), class("patient", 1)];
    let mut other = scenario.workload[0].clone();
    other.name = "patient".into();
    other.class = ClassId(1);
    set_rate(&mut other, patient);
    scenario.workload.push(other);
    let outcomes = runs(&scenario, Keep::Records);
    let residual = urgent + patient;
    let exact = [("urgent", residual / (1.0 - urgent)), ("patient", residual / (1.0 - urgent) / (1.0 - 0.7))];
    for (class, exact) in exact {
        let of_class = |outcome: &Outcome| {
            mean(measured(&scenario, outcome).filter(|row| row.class == class).map(|row| row.wait_s))
        };
        holds(class, &samples(&outcomes, of_class), exact, 0.06);
    }
}

fn set_rate(source: &mut Source, rate: f64) {
    let Arrivals::Generator(generator) = &mut source.arrivals else { panic!("models generate arrivals") };
    generator.shape = Shape::Constant { rate_per_s: rate };
}

#[test]
fn blocked_clients_who_ask_again_do_so_as_often_as_the_retrial_queue_says() {
    // M/M/1 with an orbit (G. Falin, J. Templeton, "Retrial Queues", 1997, §1.2): mean orbit ρ²(μ + ν)/((1 − ρ)ν),
    // and each client in it asks at rate ν; the server is busy for a share ρ of the time.
    let (rho, asks_per_s) = (0.5, 0.5);
    let mut scenario = mmc(rho, 1, 1, 0);
    scenario.run.horizon = Duration::from_secs(60_000);
    scenario.system.queue_per_slot_max = Some(0.0);
    let delay = Law::Exponential { mean: Duration::from_secs_f64(1.0 / asks_per_s) };
    scenario.clients.reask = Some(Reask { probability: Ratio::ONE, delay, times_max: 127 });
    let outcomes = runs(&scenario, Keep::Statistics);
    let orbit = rho * rho * (1.0 + asks_per_s) / ((1.0 - rho) * asks_per_s);
    let asked = |outcome: &Outcome| outcome.asked_again as f64 / 60_000.0;
    holds("rate of asking again", &samples(&outcomes, asked), asks_per_s * orbit, 0.05);
    let done = |outcome: &Outcome| outcome.jobs.done as f64 / 60_000.0;
    holds("rate of jobs done", &samples(&outcomes, done), rho, 0.02);
}

#[test]
fn machines_are_taken_at_their_hazard() {
    let mut scenario = mmc(1.0, 20, 1, 0);
    scenario.run.horizon = Duration::from_secs(20 * 3600);
    set_rate(&mut scenario.workload[0], 0.01);
    scenario.system.policies.purchase = Purchase::PoolOrder;
    scenario.pools[0].interruption.hazard_per_hour = 2.0;
    scenario.pools[0].interruption.notice = Duration::ZERO;
    let outcomes = runs(&scenario, Keep::Statistics);
    let per_hour = |outcome: &Outcome| {
        outcome.pools[0].interruptions as f64 / (outcome.pools[0].held.as_secs_f64() / 3600.0)
    };
    holds("losses per machine-hour", &samples(&outcomes, per_hour), 2.0, 0.05);
    assert!(outcomes.iter().all(|outcome| outcome.pools[0].launches > 500), "lost machines are replaced");
}

#[test]
fn attempts_that_fail_by_chance_are_repeated_as_a_geometric_law_says() {
    // Each attempt fails with 0.2; three are allowed: 0.2³ of the jobs fail, and a job takes (1 − 0.2³)/0.8 attempts.
    let mut scenario = mmc(2.0, 10, 30_000, 0);
    scenario.stages[0].failure = 0.2;
    scenario.system.policies.retry =
        policy::policies::Retry::Immediate { attempts_max: 3, pause: Duration::ZERO };
    let outcomes = runs(&scenario, Keep::Records);
    let failed = |outcome: &Outcome| outcome.jobs.share(outcome.jobs.failed);
    holds("share that fails", &samples(&outcomes, failed), 0.008, 0.1);
    let attempts =
        |outcome: &Outcome| mean(measured(&scenario, outcome).map(|row| f64::from(row.deliveries)));
    holds("attempts per job", &samples(&outcomes, attempts), (1.0 - 0.008) / 0.8, 0.01);
    let ends = |row: &JobRow| matches!(row.outcome, JobOutcome::Done | JobOutcome::Failed);
    assert!(outcomes.iter().all(|outcome| outcome.records.jobs.iter().all(ends)));
}

//! Three times as much as a plane can do: `overload URL CAPACITY DEADLINE_S`, with `bench_plane` on
//! `scenarios/bench/overload.toml` behind it. Poisson arrivals at 0.8 times the capacity, three times it, and 0.8 times
//! again; each answer waits for the job's end. Prints for each phase what was offered, turned away, and done in time.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::StatusCode;
use line::{Target, once, pace};
use policy::units::math;
use policy::units::random::Stream;

mod line;

/// Load as a share of the capacity, and for how long, seconds.
const PHASES: [(f64, f64); 3] = [(0.8, 20.0), (3.0, 60.0), (0.8, 30.0)];

/// Service time that each job asks for, seconds.
const SERVICE_S: f64 = 0.2;

/// What became of a job, seconds from the start.
#[derive(Clone, Copy)]
struct Seen {
    due: f64,
    over: f64,
    fate: Fate,
}

#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Done,
    /// Turned away with 429.
    Refused,
    /// Accepted, and not done.
    Broken,
    /// No answer, or one that nobody expects.
    Failed,
}

/// Poisson arrivals through all phases, seconds from the start.
fn arrivals(capacity: f64) -> Vec<f64> {
    let chance = Stream::new(1, 0, "overload");
    let (mut times, mut begin, mut index) = (Vec::new(), 0.0, 0);
    for (load, length) in PHASES {
        let mut at = begin;
        loop {
            at -= math::ln(1.0 - chance.unit(index)) / (capacity * load);
            index += 1;
            if at >= begin + length {
                break;
            }
            times.push(at);
        }
        begin += length;
    }
    times
}

fn fate(answer: Option<(StatusCode, Bytes)>) -> Fate {
    let Some((status, body)) = answer else { return Fate::Failed };
    if status == StatusCode::TOO_MANY_REQUESTS {
        return Fate::Refused;
    }
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    match body["state"].as_str() {
        Some("done") if status.is_success() => Fate::Done,
        Some(_) if status.is_success() => Fate::Broken,
        _ => Fate::Failed,
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, url, capacity, deadline] = &arguments[..] else {
        eprintln!("usage: overload URL CAPACITY DEADLINE_S");
        std::process::exit(2);
    };
    let (capacity, deadline): (f64, f64) =
        (capacity.parse().expect("a number"), deadline.parse().expect("a number"));
    let target = Arc::new(Target::new(url));
    let body = Bytes::from(format!("{{\"payload\":{{\"service_s\":{SERVICE_S}}}}}"));
    let started = Instant::now() + Duration::from_millis(200);
    let mut due = pace(started, arrivals(capacity).into_iter().map(Duration::from_secs_f64));
    let (idle, seen) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let mut tasks = Vec::new();
    while let Some(due) = due.recv().await {
        let (target, idle, seen, body) = (target.clone(), idle.clone(), seen.clone(), body.clone());
        tasks.push(tokio::spawn(async move {
            let kept = idle.lock().expect("no panic").pop();
            let mut sender = match kept {
                Some(sender) => sender,
                None => target.connect().await,
            };
            let fate = fate(once(&mut sender, target.request("/v1/jobs?wait=30", body)).await);
            if fate != Fate::Failed {
                idle.lock().expect("no panic").push(sender);
            }
            let (due, over) = ((due - started).as_secs_f64(), started.elapsed().as_secs_f64());
            seen.lock().expect("no panic").push(Seen { due, over, fate });
        }));
    }
    for task in tasks {
        let _ = task.await;
    }
    let seen = std::mem::take(&mut *seen.lock().expect("no panic"));
    report(&seen, capacity, deadline);
}

fn report(seen: &[Seen], capacity: f64, deadline: f64) {
    let is_good = |one: &Seen| one.fate == Fate::Done && one.over - one.due <= deadline;
    let mut begin = 0.0;
    for (load, length) in PHASES {
        let end = begin + length;
        let of: Vec<&Seen> = seen.iter().filter(|one| one.due >= begin && one.due < end).collect();
        let count = |fate| of.iter().filter(|one| one.fate == fate).count();
        let accepted = count(Fate::Done) + count(Fate::Broken);
        let in_time = of.iter().filter(|one| is_good(one)).count();
        // By time of end: what came out while the phase lasted.
        let good = seen.iter().filter(|one| is_good(one) && one.over >= begin && one.over < end).count();
        println!(
            "{load} times {capacity}/s for {length} s: offered {:.1}/s, refused {:.1}/s, failed {}, accepted {accepted}, of which in \
             time {in_time} ({:.2} %); goodput {:.1}/s",
            of.len() as f64 / length,
            count(Fate::Refused) as f64 / length,
            count(Fate::Failed),
            in_time as f64 / accepted.max(1) as f64 * 100.0,
            good as f64 / length,
        );
        begin = end;
    }
    // Full rate again: the first second after the overload from which on nobody is turned away or late.
    let over = PHASES[0].1 + PHASES[1].1;
    let late = seen.iter().filter(|one| one.due >= over && !is_good(one)).map(|one| one.due - over);
    println!(
        "the last job turned away or late came {:.2} s after the overload's end",
        late.fold(0.0, f64::max)
    );
}

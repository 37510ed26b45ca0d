//! A rehearsal against a plane that runs elsewhere: its machines and its prices are real, and what it says is believed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use control::remote::{RemoteEnd, RemoteError, RemoteJob, RemotePlane};
use control::replay::{Arrival, Traffic};
use policy::records::JobOutcome;
use policy::units::Usd;
use scenarios::scenario::Scenario;
use serde_json::value::RawValue;
use sim::world::arrivals::ArrivalFeed;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::fidelity::{Fidelity, compare};
use super::inputs::load_inputs;
use crate::failure::{Failure, Status};
use crate::screen::Screen;

/// Time between two looks at the fleet.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Sends the jobs of `scenario` to the plane at `url` and compares.
///
/// # Errors
/// The plane cannot be reached or refuses.
pub(super) async fn run(
    url: &str,
    key: &str,
    scenario: Scenario,
    payload: &str,
    screen: &Screen,
) -> Result<Fidelity, Failure> {
    let payload: Box<RawValue> = serde_json::from_str(payload).map_err(|error| {
        Failure::new(Status::Usage, "rehearse::payload", format!("the payload is no JSON: {error}"))
    })?;
    let plane = RemotePlane::new(url, key).map_err(remote)?;
    let before = plane.fleet().await.map_err(remote)?;
    let peaks = Arc::new(Mutex::new(vec![0; scenario.system.pools.len()]));
    let watching = tokio::spawn(watch(plane.clone(), scenario.clone(), peaks.clone()));
    screen.note(&format!("jobs are sent for {:.1} s", scenario.run.horizon.as_secs_f64()));
    let mut traffic = send(&plane, &scenario, payload.into()).await?;
    watching.abort();
    let after = plane.fleet().await.map_err(remote)?;
    traffic.spent = Usd::from_nanos(((after.spent_usd - before.spent_usd) * 1e9).round() as i64);
    traffic.peaks = peaks.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let system = scenario.system.clone();
    compare(&traffic, &system, scenario, false, None)
}

fn remote(error: RemoteError) -> Failure {
    Failure::new(Status::Failed, "rehearse::plane", error.to_string()).with_help(
        "the key needs the scopes submit, read and observe; the plane must serve the same scenario",
    )
}

/// Looks at the fleet again and again for the most machines of each pool.
async fn watch(plane: RemotePlane, scenario: Scenario, peaks: Arc<Mutex<Vec<u32>>>) {
    loop {
        if let Ok(fleet) = plane.fleet().await {
            let mut peaks = peaks.lock().unwrap_or_else(PoisonError::into_inner);
            for (pool, peak) in scenario.system.pools.iter().zip(peaks.iter_mut()) {
                let now = fleet.pools.iter().find(|known| known.name == pool.name);
                let count = now.map_or(0, |now| now.ready + now.starting + now.draining);
                *peak = (*peak).max(count);
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Sends every job at its time and waits for all ends.
async fn send(plane: &RemotePlane, scenario: &Scenario, payload: Arc<RawValue>) -> Result<Traffic, Failure> {
    let inputs = load_inputs(scenario)?;
    let mut feed = ArrivalFeed::new(scenario, &inputs, 0)
        .map_err(|error| Failure::new(Status::InvalidInput, "rehearse::trace", error.to_string()))?;
    let mut traffic = Traffic::default();
    let mut jobs: JoinSet<Result<RemoteEnd, RemoteError>> = JoinSet::new();
    let began = Instant::now();
    while let Some(arrival) = feed.take() {
        let due = began + Duration::from_nanos(arrival.at);
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(due) => break,
                Some(end) = jobs.join_next() => note(&mut traffic, end)?,
            }
        }
        let at = policy::units::Instant::from_nanos(began.elapsed().as_nanos() as u64);
        let (class, region) = (arrival.class, arrival.region);
        traffic.counts.arrived += 1;
        traffic.arrivals.push(Arrival { at, class, region, priority: None, deadline: None });
        let class = scenario.system.classes[class.index()].name.clone();
        let region = scenario.system.regions[region.index()].name.clone();
        let (plane, payload) = (plane.clone(), payload.clone());
        jobs.spawn(async move { plane.work(&class, &region, &payload).await });
    }
    tokio::time::sleep_until(began + Duration::from_nanos(scenario.run.horizon.as_nanos())).await;
    while let Some(end) = jobs.join_next().await {
        note(&mut traffic, end)?;
    }
    traffic.last = policy::units::Instant::from_nanos(began.elapsed().as_nanos() as u64);
    Ok(traffic)
}

type Joined = Result<Result<RemoteEnd, RemoteError>, tokio::task::JoinError>;

fn note(traffic: &mut Traffic, end: Joined) -> Result<(), Failure> {
    let end = end.map_err(|error| Failure::new(Status::Failed, "rehearse::bug", error.to_string()))?;
    let outcome = match end.map_err(remote)? {
        RemoteEnd::TurnedAway => JobOutcome::Rejected,
        RemoteEnd::Ended(job) => ended(traffic, &job),
    };
    let place = JobOutcome::ALL.iter().position(|known| *known == outcome);
    traffic.counts.ended[place.expect("all outcomes are listed")] += 1;
    Ok(())
}

fn ended(traffic: &mut Traffic, job: &RemoteJob) -> JobOutcome {
    let outcome = JobOutcome::ALL.into_iter().find(|known| known.name() == job.state);
    let outcome = outcome.unwrap_or(JobOutcome::Failed);
    if outcome == JobOutcome::Done
        && let (Some(created), Some(ended)) = (job.created_at, job.ended_at)
    {
        let nanos = (ended.as_nanosecond() - created.as_nanosecond()).max(0);
        traffic.latencies.push(u64::try_from(nanos).unwrap_or(u64::MAX));
        traffic.waits.push((job.wait_s.unwrap_or(0.0) * 1e9) as u64);
    }
    outcome
}

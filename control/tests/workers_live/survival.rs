//! Work survives what happens to workers, connections and planes.

use std::time::{Duration, Instant};

use control::store::Disk;
use control::worker::{Exit, Stop};
use policy::records::JobOutcome;

use super::house::{House, Plan, WorkerProcess, end, wait};
use super::{employ, settings};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_worker_gives_its_jobs_back_at_once() {
    let house = House::open(&Plan::joined(1, 4), &Disk::default(), None).await;
    let first = WorkerProcess::start(&house.url(), &[]);
    house.until(1, 1).await;
    let (job, done) = house.submit(r#"{"hang": "cancellable"}"#).await;
    house.until_running(job).await;
    let standby = WorkerProcess::start(&house.url(), &[]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    first.signal("KILL");
    let killed = Instant::now();
    first.end().await;
    // 0.5 s to come back, then the job is queued; the machine itself is given up much later.
    loop {
        let view = house.handle.job(job).await.expect("the plane lives").expect("the job is in the system");
        // Where the standby has been let in by then, the job runs there: it waited and was leased again.
        if view.state == control::effect::JobState::Queued || view.deliveries > 1 {
            break;
        }
        assert!(killed.elapsed() < Duration::from_secs(10), "still {:?}", view.state);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("queued again {:?} after the worker was killed", killed.elapsed());
    drop((standby, done));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_worker_gives_its_jobs_back_and_its_late_report_is_void() {
    let house = House::open(&Plan::joined(2, 4), &Disk::default(), None).await;
    let frozen = WorkerProcess::start(&house.url(), &[]);
    house.until(1, 1).await;
    let (job, done) = house.submit(r#"{"service_s": 0.4, "result": {"by": "whom"}}"#).await;
    house.until_running(job).await;
    frozen.signal("STOP");
    let (other, stop) = employ(settings(&house.url(), 4));
    let record = end(done).await;
    assert_eq!(record.outcome, JobOutcome::Done);
    assert!(record.deliveries == 2, "it was started {} times", record.deliveries);
    frozen.signal("CONT");
    // It comes back with a report under a lease that is over, is told so, and goes on working.
    house.until(2, 2).await;
    let (_, done) = house.submit(r#"{"service_s": 0.05}"#).await;
    assert_eq!(end(done).await.outcome, JobOutcome::Done);
    stop.send_replace(Stop::Now);
    assert_eq!(other.await.expect("no panic"), Exit::Left);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_goes_on_over_a_restart_of_the_plane() {
    let (plan, disk) = (Plan::joined(1, 4), Disk::default());
    let house = House::open(&plan, &disk, None).await;
    let (worker, stop) = employ(settings(&house.url(), 4));
    house.until(1, 1).await;
    let (running, _) = house.submit(r#"{"service_s": 2.5, "result": 1}"#).await;
    let (finished, _) = house.submit(r#"{"service_s": 0.4, "result": 2}"#).await;
    house.until_running(running).await;
    house.until_running(finished).await;
    let address = house.close().await;
    tokio::time::sleep(Duration::from_millis(600)).await; // the second ends while nobody listens
    let house = House::open(&plan, &disk, Some(address)).await;
    for (job, result) in [(finished, "2"), (running, "1")] {
        let until = Instant::now() + super::house::SOON;
        let record = loop {
            if let Some(record) = house.handle.ended(job).await.expect("the store reads") {
                break record;
            }
            assert!(Instant::now() < until, "{job} does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert_eq!((record.outcome, &*record.result), (JobOutcome::Done, result.as_bytes()));
        assert_eq!(record.deliveries, 1, "{job} was not begun again");
    }
    stop.send_replace(Stop::Now);
    assert_eq!(worker.await.expect("no panic"), Exit::Left);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hung_job_goes_elsewhere_and_its_process_ends() {
    let mut plan = Plan::joined(1, 1);
    plan.patience.lost = policy::units::Duration::from_secs(60);
    let house = House::open(&plan, &Disk::default(), None).await;
    let hung = WorkerProcess::start(&house.url(), &[("HEADROOM_TEST_HANG_MS", "1000")]);
    house.until(1, 1).await;
    let (job, _done) = house.submit(r#"{"hang": "forever"}"#).await;
    house.until_running(job).await;
    // Not named after 1 s, so its lease of 4 s runs out; cancelled and still there 1 s later.
    assert_eq!(hung.end().await, Some(5), "a process whose work hangs says so");
    let view = house.handle.job(job).await.expect("the plane lives").expect("the job waits");
    assert!(view.deliveries >= 1);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminated_worker_finishes_what_it_has_and_leaves() {
    let house = House::open(&Plan::joined(1, 4), &Disk::default(), None).await;
    let worker = WorkerProcess::start(&house.url(), &[]);
    house.until(1, 1).await;
    let (job, done) = house.submit(r#"{"service_s": 1.0}"#).await;
    house.until_running(job).await;
    worker.signal("TERM");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (late, _) = house.submit(r#"{"service_s": 0.01}"#).await;
    let record = end(done).await;
    assert_eq!((record.outcome, record.deliveries), (JobOutcome::Done, 1));
    assert_eq!(worker.end().await, Some(0));
    let view = house.handle.job(late).await.expect("the plane lives").expect("it waits for another worker");
    assert_eq!(view.state, control::effect::JobState::Queued);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_signal_ends_a_worker_at_once() {
    let house = House::open(&Plan::joined(1, 4), &Disk::default(), None).await;
    let worker = WorkerProcess::start(&house.url(), &[]);
    house.until(1, 1).await;
    let (job, _done) = house.submit(r#"{"hang": "forever"}"#).await;
    house.until_running(job).await;
    worker.signal("TERM");
    tokio::time::sleep(Duration::from_millis(300)).await;
    worker.signal("TERM");
    assert_eq!(worker.end().await, Some(0));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_waits_where_nobody_is_wanted_and_is_called() {
    let house = House::open(&Plan::joined(1, 4), &Disk::default(), None).await;
    let (first, stop_first) = employ(settings(&house.url(), 4));
    house.until(1, 1).await;
    let (second, stop_second) = employ(settings(&house.url(), 4));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(house.handle.figures().workers, 1, "the second stands by");
    stop_first.send_replace(Stop::Now);
    assert_eq!(first.await.expect("no panic"), Exit::Left);
    // The machine of the first is ended by its provider, and the pool is filled again.
    let mut house = house;
    let order = tokio::time::timeout(super::house::SOON, async {
        loop {
            if let Some(control::shell::FleetOrder::Terminate { token, .. }) = house.orders.recv().await {
                return token;
            }
        }
    });
    let token = order.await.expect("a termination is ordered");
    house.tell(control::command::Command::MachineGone { token }).await;
    house.until(1, 1).await;
    let (_, done) = house.submit("{}").await;
    assert_eq!(end(done).await.outcome, JobOutcome::Done);
    stop_second.send_replace(Stop::Now);
    assert_eq!(second.await.expect("no panic"), Exit::Left);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_of_a_job_is_seen_by_those_who_watch() {
    let house = House::open(&Plan::joined(1, 4), &Disk::default(), None).await;
    let (worker, stop) = employ(settings(&house.url(), 4));
    house.until(1, 1).await;
    let (job, _done) = house.submit(r#"{"service_s": 1.2, "progress": 4}"#).await;
    let mut news = house.handle.watch(job).await.expect("the plane lives");
    let mut last = 0;
    let watched = async {
        while let Some(item) = news.recv().await {
            if let control::shell::News::Progress { done, of } = item {
                assert!(of == 4 && done > last, "{done} of {of} after {last}");
                last = done;
            }
        }
    };
    tokio::time::timeout(super::house::SOON, watched).await.expect("the job ends");
    assert!(last >= 2, "{last} steps were told");
    wait("the end", || house.handle.figures().jobs == 0).await;
    stop.send_replace(Stop::Now);
    worker.await.expect("no panic");
    house.close().await;
}

//! The desk under what planes and networks do.

use std::time::{Duration, Instant};

use policy::model::{InstanceId, Lease};
use tokio::sync::mpsc;

use super::desk::{Act, Desk, Standing};
use super::runner::JobControl;
use crate::number::JobNumber;
use crate::protocol::{FromWorker, Report, Start, ToWorker};

const HANG: Duration = Duration::from_secs(120);

fn lease(slot: u32) -> Lease {
    Lease { slot, token: 7 }
}

fn start(slot: u32) -> ToWorker {
    ToWorker::Start(Box::new(Start {
        lease: lease(slot),
        job: JobNumber(u64::from(slot)),
        stage: "generate".to_owned(),
        delivery: 1,
        quality: "full".to_owned(),
        deadline_ms: None,
        payload: Box::default(),
        inputs: Vec::new(),
        carry: Box::default(),
        traceparent: None,
    }))
}

fn done() -> Report {
    Report::Done { result: Box::default(), objects: Vec::new() }
}

fn finished(slot: u32) -> FromWorker {
    FromWorker::Finished { lease: lease(slot), job: JobNumber(u64::from(slot)), report: done() }
}

fn welcome(keep: &[u32]) -> ToWorker {
    let keep = keep.iter().map(|slot| lease(*slot)).collect();
    ToWorker::Welcome { instance: InstanceId(1), beat_ms: 100, keep }
}

/// A desk with work under `slots`, on threads.
fn desk(slots: &[u32]) -> (Desk, Vec<JobControl>, Instant) {
    let (mut desk, now) = (Desk::new(HANG), Instant::now());
    take(&mut desk, welcome(&[]), now);
    let controls = slots.iter().map(|slot| {
        assert_eq!(take(&mut desk, start(*slot), now).len(), 1);
        let events = mpsc::unbounded_channel().0;
        let control = JobControl::new(lease(*slot), JobNumber(u64::from(*slot)), events, None);
        desk.set_control(lease(*slot), control.clone());
        control
    });
    let controls = controls.collect();
    (desk, controls, now)
}

fn take(desk: &mut Desk, message: ToWorker, now: Instant) -> Vec<Act> {
    let mut acts = Vec::new();
    desk.take(message, now, &mut acts);
    acts
}

fn end(desk: &mut Desk, slot: u32) -> Option<FromWorker> {
    desk.finished(lease(slot), JobNumber(u64::from(slot)), done())
}

fn alive(desk: &Desk, now: Instant) -> Vec<u32> {
    let mut slots: Vec<u32> = desk
        .beats(now)
        .into_iter()
        .flat_map(|beat| match beat {
            FromWorker::Beat { alive } => alive,
            other => panic!("{other:?}"),
        })
        .map(|lease| lease.slot)
        .collect();
    slots.sort_unstable();
    slots
}

#[test]
fn reports_are_kept_until_acknowledged_and_said_again() {
    let (mut desk, _, now) = desk(&[1, 2]);
    assert_eq!(end(&mut desk, 1), Some(finished(1)));
    desk.disconnected();
    assert_eq!(end(&mut desk, 2), None, "nobody hears it");
    assert_eq!(desk.leases().len(), 2);
    let mut said = take(&mut desk, welcome(&[1, 2]), now);
    said.sort_by_key(|act| format!("{act:?}"));
    assert_eq!(said, [Act::Say(finished(1)), Act::Say(finished(2))]);
    for slot in [1, 2] {
        assert!(!desk.is_clear());
        take(&mut desk, ToWorker::Ack { lease: lease(slot), accepted: slot == 1 }, now);
    }
    assert!(desk.is_clear());
}

#[test]
fn what_the_plane_does_not_keep_is_dropped() {
    let (mut desk, controls, now) = desk(&[1, 2, 3]);
    end(&mut desk, 3);
    desk.disconnected();
    assert_eq!(take(&mut desk, welcome(&[2]), now), []);
    assert_eq!(controls.iter().map(JobControl::is_cancelled).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!(alive(&desk, now), [2]);
    assert_eq!(end(&mut desk, 1), None, "a zombie's report is not even said");
    take(&mut desk, ToWorker::Standby, now);
    assert!(controls[1].is_cancelled() && desk.is_clear() && desk.standing == Standing::Standby);
}

#[test]
fn revoked_work_is_cancelled_and_hung_work_is_noticed() {
    let (mut desk, controls, now) = desk(&[1, 2]);
    take(&mut desk, ToWorker::Revoke { lease: lease(1) }, now);
    assert!(controls[0].is_cancelled() && !controls[1].is_cancelled());
    assert!(!desk.is_hung(now + HANG / 2));
    assert!(desk.is_hung(now + HANG), "its thread did not come back");
    assert_eq!(end(&mut desk, 1), None);
    assert!(!desk.is_hung(now + HANG * 2), "it came back late");
}

#[test]
fn work_without_a_sign_of_life_is_not_named() {
    let (mut desk, controls, now) = desk(&[1, 2]);
    take(&mut desk, start(3), now); // timed work: no thread, cannot hang
    assert_eq!(alive(&desk, now), [1, 2, 3]);
    std::thread::sleep(Duration::from_millis(3));
    controls[0].progress(1, 2);
    let later = now + HANG + Duration::from_millis(1);
    assert_eq!(alive(&desk, later), [1, 3]);
    end(&mut desk, 2);
    assert_eq!(alive(&desk, later), [1, 2, 3], "a report holds its lease until it is acknowledged");
}

#[test]
fn starts_are_taken_once_and_none_while_draining() {
    let (mut desk, _, now) = desk(&[1]);
    assert_eq!(take(&mut desk, start(1), now), [], "told twice");
    end(&mut desk, 1);
    assert_eq!(take(&mut desk, start(1), now), [Act::Say(finished(1))], "it is done already");
    take(&mut desk, ToWorker::Drain, now);
    assert_eq!(take(&mut desk, start(2), now), []);
}

//! Workers that lie, stutter or come back from the dead do no harm.

use control::command::Command;
use control::protocol::{FromWorker, Report, Start, ToWorker, encode};
use control::shell::FleetOrder;
use control::store::Disk;
use policy::records::JobOutcome;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::house::{House, JOIN, Plan, SOON, end};
use super::raw::{Raw, hello};

fn started(message: &ToWorker) -> Option<Box<Start>> {
    match message {
        ToWorker::Start(start) => Some(start.clone()),
        _ => None,
    }
}

fn refused(message: &ToWorker) -> Option<String> {
    match message {
        ToWorker::Refused { why } => Some(why.clone()),
        _ => None,
    }
}

fn acknowledged(message: &ToWorker) -> Option<bool> {
    match message {
        ToWorker::Ack { accepted, .. } => Some(*accepted),
        _ => None,
    }
}

fn finished(start: &Start, result: &str) -> FromWorker {
    let report = Report::Done { result: result.as_bytes().into(), objects: Vec::new() };
    FromWorker::Finished { lease: start.lease, job: start.job, report }
}

#[tokio::test]
async fn door_opens_to_join_tokens_only() {
    let house = House::open(&Plan::joined(1, 4), &Disk::default(), None).await;
    for token in [None, Some("wrong"), Some("")] {
        match Raw::open(&house, token).await {
            Err(Error::Http(response)) => {
                assert_eq!(response.status().as_u16(), 401);
                let body = response.body().clone().unwrap_or_default();
                assert!(String::from_utf8_lossy(&body).contains("join token"), "it says what to do");
            }
            other => panic!("{token:?}: {:?}", other.map(|_| ())),
        }
    }
    assert!(Raw::open(&house, Some(JOIN)).await.is_ok());
    house.close().await;
}

#[tokio::test]
async fn broken_frames_end_the_connection_with_a_reason() {
    let house = House::open(&Plan::joined(1, 4), &Disk::default(), None).await;
    let hi = || FromWorker::Hello(Box::new(hello("a")));
    let cases: Vec<(Vec<Message>, &str)> = vec![
        (vec![Message::Binary(vec![0xFF; 40].into())], "no list"),
        (vec![Message::Binary(encode(&[FromWorker::Ready]).into())], "hello"),
        (vec![Message::Binary(Vec::new().into())], "no list"),
        (vec![Message::Text("hello".into())], "binary"),
        (vec![Message::Binary(encode(&[hi(), hi()]).into())], "second hello"),
        (
            vec![
                Message::Binary(encode(&[hi()]).into()),
                Message::Binary(encode(&[FromWorker::Beat { alive: Vec::new() }])[..1].to_vec().into()),
            ],
            "no list",
        ),
    ];
    for (messages, expected) in cases {
        let mut raw = Raw::open(&house, Some(JOIN)).await.expect("the door opens");
        for message in messages {
            raw.send(message).await;
        }
        let reason = raw.reason().await;
        assert!(reason.contains(expected), "`{reason}` does not say `{expected}`");
    }
    let mut raw = Raw::open(&house, Some(JOIN)).await.expect("the door opens");
    raw.send(Message::Binary(vec![0; 2 << 20].into())).await;
    raw.reason().await; // too large to be looked at
    house.close().await;
}

#[tokio::test]
async fn doubled_and_foreign_reports_change_nothing() {
    let house = House::open(&Plan::joined(2, 4), &Disk::default(), None).await;
    let mut worker = Raw::join(&house, hello("a")).await;
    let (_, done) = house.submit("{}").await;
    let start = worker.hear(started).await.expect("work");
    let mut other = Raw::join(&house, hello("b")).await;
    other.say(&[finished(&start, "\"stolen\"")]).await;
    assert_eq!(other.hear(acknowledged).await, Some(false), "another's lease");
    let mut wrong = start.clone();
    wrong.job = control::number::JobNumber(99);
    worker.say(&[finished(&wrong, "\"wrong job\""), finished(&start, "1"), finished(&start, "2")]).await;
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(worker.hear(acknowledged).await.expect("an answer"));
    }
    assert_eq!(answers, [false, true, false]);
    let record = end(done).await;
    assert_eq!((record.outcome, &*record.result, record.deliveries), (JobOutcome::Done, b"1".as_slice(), 1));
    house.close().await;
}

#[tokio::test]
async fn second_worker_of_a_name_takes_over_and_the_first_is_closed() {
    let house = House::open(&Plan::joined(1, 4), &Disk::default(), None).await;
    let mut first = Raw::join(&house, hello("same")).await;
    let (_, done) = house.submit("{}").await;
    let start = first.hear(started).await.expect("work");
    let mut again = hello("same");
    again.leases = vec![start.lease];
    let mut second = Raw::join(&house, again).await;
    let keep = second.hear(|message| match message {
        ToWorker::Welcome { keep, .. } => Some(keep.clone()),
        _ => None,
    });
    assert_eq!(keep.await, Some(vec![start.lease]));
    first.say(&[finished(&start, "\"first\"")]).await;
    first.reason().await;
    second.say(&[finished(&start, "\"second\"")]).await;
    assert_eq!(second.hear(acknowledged).await, Some(true));
    assert_eq!(&*end(done).await.result, b"\"second\"");
    house.close().await;
}

#[tokio::test]
async fn launch_token_admits_one_worker() {
    let mut plan = Plan::joined(1, 4);
    plan.joined = false;
    let mut house = House::open(&plan, &Disk::default(), None).await;
    let order = tokio::time::timeout(SOON, house.orders.recv()).await.expect("an order");
    let Some(FleetOrder::Launch { token, .. }) = order else { panic!("{order:?}") };
    house.tell(Command::Launched { token, handle: "m-1".to_owned() }).await;
    let with = |name: &str, launch: Option<String>| {
        let mut hello = hello(name);
        hello.launch = launch;
        hello
    };
    for (name, launch) in [("x", None), ("y", Some("0".repeat(32))), ("z", Some("not a token".to_owned()))] {
        let mut raw = Raw::join(&house, with(name, launch)).await;
        assert!(raw.hear(refused).await.is_some(), "{name}");
    }
    let mut good = Raw::join(&house, with("good", Some(token.to_string()))).await;
    house.until(1, 1).await;
    let mut thief = Raw::join(&house, with("thief", Some(token.to_string()))).await;
    let why = thief.hear(refused).await.expect("a refusal");
    assert!(why.contains("not awaited"), "{why}");
    let (_, done) = house.submit("{}").await;
    let start = good.hear(started).await.expect("the good one still works");
    good.say(&[finished(&start, "1")]).await;
    assert_eq!(end(done).await.outcome, JobOutcome::Done);
    house.close().await;
}

#[tokio::test]
async fn zombie_is_heard_and_not_believed() {
    let house = House::open(&Plan::joined(1, 4), &Disk::default(), None).await;
    let mut worker = Raw::join(&house, hello("a")).await;
    house.until(1, 1).await;
    let (_, done) = house.submit("{}").await;
    let first = worker.hear(started).await.expect("work");
    // It beats without naming its lease, as a worker does whose job hangs: the lease of 4 s runs out.
    let again = loop {
        worker.say(&[FromWorker::Beat { alive: Vec::new() }]).await;
        let begun = tokio::time::timeout(std::time::Duration::from_millis(200), worker.hear(started)).await;
        if let Ok(start) = begun {
            break start.expect("the worker is not cut off while it beats");
        }
    };
    assert!(again.job == first.job && again.lease != first.lease);
    worker.say(&[finished(&first, "\"late\"")]).await;
    assert_eq!(worker.hear(acknowledged).await, Some(false));
    worker.say(&[finished(&again, "\"in time\"")]).await;
    assert_eq!(worker.hear(acknowledged).await, Some(true));
    let record = end(done).await;
    assert_eq!((&*record.result, record.deliveries), (b"\"in time\"".as_slice(), 2));
    house.close().await;
}

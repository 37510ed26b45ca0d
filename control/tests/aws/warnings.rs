//! Amazon's warnings, from a queue to the plane.

use std::time::Duration;

use control::command::Command;
use control::fleet::News;
use control::fleet::ec2::roster::Known;
use control::fleet::ec2::warnings;
use tokio::sync::watch;

use super::fake::Fake;
use super::setup::{SOON, SPOT, ec2, launch, patience, plans, provider, sqs, token};

fn event(kind: &str, handle: &str, more: &str) -> String {
    format!(
        r#"{{"version":"0","detail-type":"{kind}","source":"aws.ec2","time":"{}","detail":{{"instance-id":"{handle}"{more}}}}}"#,
        jiff::Timestamp::now()
    )
}

/// Events that somebody sends to a queue reach the plane as commands.
pub(crate) async fn everything(client: &aws_sdk_sqs::Client, url: &str, queue: &str) {
    let known: Vec<Known> = ["i-aaaa", "i-bbbb"]
        .into_iter()
        .map(|handle| Known { token: token(0), pool: SPOT, handle: handle.to_owned() })
        .collect();
    let own = provider(ec2(url, SOON).await, "warned", plans("lt-1", &[]), patience(10_000, false), &known);
    let (news, mut told) = News::channel();
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(warnings::run(client.clone(), queue.to_owned(), own, news, stopped));
    for body in [
        event("EC2 Spot Instance Interruption Warning", "i-somebodys", ",\"instance-action\":\"terminate\""),
        "no event".to_owned(),
        event("EC2 Instance Rebalance Recommendation", "i-aaaa", ""),
        event("EC2 Spot Instance Interruption Warning", "i-aaaa", ",\"instance-action\":\"terminate\""),
        event("EC2 Instance State-change Notification", "i-aaaa", ",\"state\":\"running\""),
        event("EC2 Instance State-change Notification", "i-bbbb", ",\"state\":\"terminated\""),
    ] {
        client.send_message().queue_url(queue).message_body(body).send().await.expect("sent");
    }
    // A queue gives its messages in any order.
    for _ in 0..2 {
        let command = tokio::time::timeout(SOON, told.recv()).await.expect("a command").expect("news");
        match command {
            Command::MachineNotice { token, seconds } => {
                assert_eq!(token, known[0].token);
                assert!((60..=120).contains(&seconds), "{seconds}");
            }
            other => assert_eq!(other, Command::MachineGone { token: known[1].token }),
        }
    }
    assert!(tokio::time::timeout(Duration::from_millis(500), told.recv()).await.is_err(), "nothing else");
    stop.send_replace(true);
    task.await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_queue_and_the_warnings_agree() {
    let fake = Fake::start().await;
    let queue = format!("{}/1/warnings", fake.url());
    everything(&sqs(&fake.url()).await, &fake.url(), &queue).await;
    assert!(fake.account().queues.queue(&queue).messages.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reclaimed_instance_is_announced_then_gone() {
    let fake = Fake::start().await;
    let queue = format!("{}/1/warnings", fake.url());
    fake.account().event_queue = Some(queue.clone());
    let own = provider(ec2(&fake.url(), SOON).await, "warned", plans("lt-1", &[]), patience(300, true), &[]);
    let token = token(0);
    let handle = launch(&own, token, SPOT).await.expect("an instance");
    let (news, mut told) = News::channel();
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(warnings::run(sqs(&fake.url()).await, queue, own.clone(), news, stopped));
    fake.interrupt(&handle, Duration::from_millis(1500));
    let command = tokio::time::timeout(SOON, told.recv()).await.expect("a command").expect("news");
    assert!(matches!(command, Command::MachineNotice { token: noticed, .. } if noticed == token));
    // The machine itself can read it too.
    let get = |path: &str| format!("{}{path}", fake.url());
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::new();
    let session =
        http.put(get("/latest/api/token")).send().await.expect("IMDS").text().await.expect("a token");
    let ask = http.get(get("/latest/meta-data/spot/instance-action"));
    let action = ask.header("x-aws-ec2-metadata-token", &session).send().await.expect("IMDS");
    assert!(action.text().await.expect("JSON").contains("\"action\":\"terminate\""));
    let ask = http.get(get("/latest/meta-data/tags/instance/headroom:launch"));
    let tag = ask.header("x-aws-ec2-metadata-token", &session).send().await.expect("IMDS");
    assert_eq!(tag.text().await.expect("a tag"), token.to_string());
    let until = tokio::time::Instant::now() + SOON;
    use control::fleet::Provider;
    while !own.list().await.expect("a list").is_empty() {
        assert!(tokio::time::Instant::now() < until, "it is gone, and listed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

//! Amazon's warnings from a queue, told to the plane. EventBridge rules send them there; the queue is the plane's own.

use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::Message;
use tokio::sync::watch;

use super::Ec2Provider;
use super::notice::{Notice, seconds_left};
use crate::aws::failure;
use crate::fleet::News;

/// Pause after a failed call; it doubles up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Takes warnings from `queue` until `stop` becomes true.
///
/// A message is deleted whatever it says: one that concerns somebody else's instance is no use to anybody here, and one
/// that is lost is made up for by the comparison with EC2's list.
pub async fn run(
    client: Client,
    queue: String,
    provider: Ec2Provider,
    news: News,
    mut stop: watch::Receiver<bool>,
) {
    let mut pause = PAUSE.0;
    loop {
        let request =
            client.receive_message().queue_url(&queue).max_number_of_messages(10).wait_time_seconds(20);
        let received = tokio::select! {
            received = request.send() => received,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match received {
            Ok(output) => {
                pause = PAUSE.0;
                for message in output.messages() {
                    tell(message, &provider, &news).await;
                    let Some(receipt) = message.receipt_handle() else { continue };
                    let deletion = client.delete_message().queue_url(&queue).receipt_handle(receipt);
                    if let Err(error) = deletion.send().await {
                        tracing::warn!("deleting a warning from {queue}: {}", failure(&error));
                    }
                }
            }
            Err(error) => {
                tracing::warn!("receiving warnings from {queue}: {}; again in {pause:?}", failure(&error));
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = stop.wait_for(|stop| *stop) => return,
                }
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }
}

async fn tell(message: &Message, provider: &Ec2Provider, news: &News) {
    match Notice::parse(message.body().unwrap_or_default()) {
        Notice::Interruption { handle, at } => {
            let Some(token) = provider.owner(&handle).await else { return };
            let seconds = seconds_left(at, jiff::Timestamp::now());
            tracing::warn!(handle, seconds, "EC2 will take an instance away");
            news.notice(token, seconds);
        }
        Notice::Over { handle } => {
            let Some(token) = provider.owner(&handle).await else { return };
            tracing::warn!(handle, "an instance is over");
            news.gone(token);
        }
        Notice::Rebalance { handle } => {
            tracing::info!(handle, "EC2 expects to take an instance away rather than others");
        }
        Notice::Other => tracing::debug!("a message that is no warning about an instance"),
    }
}

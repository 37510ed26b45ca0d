//! The metadata service of an EC2 instance: it says two minutes ahead that a spot instance will be taken away. IMDSv2 only.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::{Client, StatusCode};
use serde::Deserialize;

/// Where instances find it.
pub const IMDS_URL: &str = "http://169.254.169.254";

/// Time between two looks; AWS advises 5 s.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// It is on the same machine.
const ANSWER_FOR: Duration = Duration::from_secs(2);

/// Seconds for which a session token is asked for, and after which a new one is.
const TOKEN_S: u64 = 6 * 3600;

/// Tries before the machine counts as none of EC2's.
const TRIES: u32 = 3;

#[derive(Debug, Deserialize)]
struct InstanceAction {
    action: String,
    time: Timestamp,
}

/// Watches the metadata service at `url`, and tells an interruption once. Ends then; or at once, where there is no such
/// service.
pub async fn watch_interruption(url: &str, notice: impl Fn(u32)) {
    let Ok(client) = super::link::plain_client() else { return };
    let mut token: Option<(String, tokio::time::Instant)> = None;
    let (mut failures, mut is_rebalance_told) = (0, false);
    loop {
        if token.as_ref().is_none_or(|(_, since)| since.elapsed().as_secs() > TOKEN_S / 2) {
            token = session(&client, url).await.map(|token| (token, tokio::time::Instant::now())).or(token);
        }
        match &token {
            None => {
                failures += 1;
                if failures == TRIES {
                    tracing::info!("no metadata service at {url}: interruptions are not announced here");
                    return;
                }
            }
            Some((secret, _)) => match look(&client, url, secret, "spot/instance-action").await {
                Some((StatusCode::UNAUTHORIZED, _)) => token = None,
                Some((StatusCode::OK, body)) => match serde_json::from_str::<InstanceAction>(&body) {
                    Ok(told) => {
                        tracing::warn!(action = told.action, "EC2 takes this instance away at {}", told.time);
                        return notice(seconds_until(told.time));
                    }
                    Err(error) => tracing::warn!("an interruption notice that cannot be read: {error}"),
                },
                _ if !is_rebalance_told => {
                    let place = "events/recommendations/rebalance";
                    if let Some((StatusCode::OK, body)) = look(&client, url, secret, place).await {
                        tracing::warn!("EC2 recommends to rebalance, which is not acted on: {body}");
                        is_rebalance_told = true;
                    }
                }
                _ => {}
            },
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn seconds_until(time: Timestamp) -> u32 {
    let left = time.duration_since(Timestamp::now()).as_secs();
    u32::try_from(left.max(0)).unwrap_or(u32::MAX)
}

async fn session(client: &Client, url: &str) -> Option<String> {
    let request = client.put(format!("{url}/latest/api/token"));
    let request = request.header("X-aws-ec2-metadata-token-ttl-seconds", TOKEN_S).timeout(ANSWER_FOR);
    let response = request.send().await.ok()?.error_for_status().ok()?;
    response.text().await.ok()
}

async fn look(client: &Client, url: &str, token: &str, place: &str) -> Option<(StatusCode, String)> {
    let request = client.get(format!("{url}/latest/meta-data/{place}"));
    let request = request.header("X-aws-ec2-metadata-token", token).timeout(ANSWER_FOR);
    let response = request.send().await.ok()?;
    Some((response.status(), response.text().await.ok()?))
}

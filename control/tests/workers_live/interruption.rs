//! What an EC2 instance's metadata say reaches the plane.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, put};
use control::worker::watch_interruption;
use tokio::net::TcpListener;

use super::house::wait;

/// A metadata service that interrupts once `is_doomed` is set, and forgets the first session token.
async fn metadata(is_doomed: Arc<AtomicBool>, looks: Arc<AtomicU32>) -> String {
    let sessions = Arc::new(AtomicU32::new(0));
    let issued = sessions.clone();
    let token = put(move |headers: HeaderMap| async move {
        assert!(headers.contains_key("x-aws-ec2-metadata-token-ttl-seconds"));
        format!("session-{}", issued.fetch_add(1, Ordering::Relaxed))
    });
    let action = get(move |headers: HeaderMap| async move {
        looks.fetch_add(1, Ordering::Relaxed);
        match headers.get("x-aws-ec2-metadata-token").and_then(|value| value.to_str().ok()) {
            Some("session-0")
                if sessions.load(Ordering::Relaxed) == 1 && is_doomed.load(Ordering::Relaxed) =>
            {
                (StatusCode::UNAUTHORIZED, String::new())
            }
            Some(token) if token.starts_with("session-") => {
                if is_doomed.load(Ordering::Relaxed) {
                    let time = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(120);
                    let time = time.strftime("%Y-%m-%dT%H:%M:%SZ");
                    (StatusCode::OK, format!(r#"{{"action": "terminate", "time": "{time}"}}"#))
                } else {
                    (StatusCode::NOT_FOUND, String::new())
                }
            }
            _ => (StatusCode::UNAUTHORIZED, String::new()),
        }
    });
    let app = Router::new()
        .route("/latest/api/token", token)
        .route("/latest/meta-data/spot/instance-action", action);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

#[tokio::test]
async fn interruption_is_told_once_with_the_time_left() {
    let (is_doomed, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let url = metadata(is_doomed.clone(), looks.clone()).await;
    let told = Arc::new(AtomicU32::new(0));
    let heard = told.clone();
    let watching = tokio::spawn(async move {
        watch_interruption(&url, move |seconds| {
            assert_eq!(heard.swap(seconds, Ordering::Relaxed), 0, "told twice");
        })
        .await;
    });
    wait("a look", || looks.load(Ordering::Relaxed) > 0).await;
    assert_eq!(told.load(Ordering::Relaxed), 0);
    is_doomed.store(true, Ordering::Relaxed);
    wait("the notice", || told.load(Ordering::Relaxed) > 0).await;
    assert!((110..=120).contains(&told.load(Ordering::Relaxed)), "{told:?}");
    watching.await.expect("it ends by itself");
}

#[tokio::test]
async fn machine_without_metadata_is_watched_no_more() {
    let unused = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", unused.local_addr().expect("an address"));
    drop(unused);
    let watching = watch_interruption(&url, |_| panic!("nobody says so"));
    tokio::time::timeout(Duration::from_secs(60), watching).await.expect("it gives up");
}

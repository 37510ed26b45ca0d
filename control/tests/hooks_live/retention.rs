//! What is over is forgotten after its time, while the plane works.

use control::replay::verify;
use control::store::SqliteStore;
use policy::units::Duration;

use super::house::{House, Plan, SOON};

/// Far shorter than anybody would keep.
const KEEP: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_ended_long_ago_is_unknown_and_the_journal_begins_behind_it() {
    let house = House::open(&Plan { keep: Some(KEEP), ..Plan::default() }).await;
    let old = house.submit(None).await;
    house.cancel(old).await;
    let path = format!("/v1/jobs/{old}");
    assert_eq!(house.get(&path, &house.keys.one).await.status(), 200);
    let waiting = house.submit(None).await;
    let until = tokio::time::Instant::now() + SOON;
    // What was over before the last mark goes when that is old enough; each cancelled job is a command that moves time.
    while house.get(&path, &house.keys.one).await.status() != 404 {
        assert!(tokio::time::Instant::now() < until, "it is still there");
        let passing = house.submit(None).await;
        house.cancel(passing).await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let path = format!("/v1/jobs/{waiting}");
    assert_eq!(house.get(&path, &house.keys.one).await.status(), 200, "what is not over stays");
    let late = house.submit(None).await;
    house.cancel(late).await;
    let (folder, keys) = house.close().await;
    let mut store = SqliteStore::read(folder.path()).expect("a journal");
    let verdict = verify(&mut store, &[]).expect("it can be replayed");
    assert_eq!(verdict.difference, None);
    assert!(verdict.forgotten > 0 && verdict.commands > 0, "{verdict:?}");
    drop(store);
    // The next plane goes on from it, and keeps for ever.
    let house = House::open_in(folder, keys, &Plan::default()).await;
    assert_eq!(house.get(&path, &house.keys.one).await.status(), 200);
    let path = format!("/v1/jobs/{late}");
    assert_eq!(house.get(&path, &house.keys.one).await.status(), 200);
    house.close().await;
}

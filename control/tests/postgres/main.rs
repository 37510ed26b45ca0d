//! The journal in PostgreSQL, against a real server: the same as SQLite's, and fenced.

mod cluster;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cluster::Cluster;
use control::number::JobNumber;
use control::store::{
    Batch, Election, Forgotten, Mark, PostgresPlace, PostgresStore, Recovered, SqliteStore, Store, StoreError,
};

fn place(cluster: &Cluster, database: &str) -> PostgresPlace {
    PostgresPlace { connection: cluster.connection("127.0.0.1", database), shard: 0, shards: 1 }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Takes the leadership as `name` whoever has it; the epoch.
fn take(place: &PostgresPlace, name: &str) -> u64 {
    runtime().block_on(async {
        let election = Election::connect(place.clone()).await.expect("the database answers");
        let leader = election.leader().await.expect("a row");
        let lease = Duration::ZERO;
        let taken = election.take(place.shard, leader.epoch, lease, name, "http://127.0.0.1:1").await;
        taken.expect("the database answers").expect("nobody else wants it")
    })
}

fn batch(first: u64, count: u64, bytes: usize) -> Batch {
    let body = (0..bytes).map(|at| (first as usize * 31 + at) as u8).collect();
    Batch { first, count, body, ended: Vec::new() }
}

/// The place after command `upto`, as the tests make them: a command a second, and a job each.
fn mark(upto: u64) -> Mark {
    let at = policy::units::Instant::from_nanos(upto * 1_000_000_000);
    Mark { upto, at, ended_below: JobNumber::new(0, upto) }
}

/// All that a visit gives.
fn gathered(
    visit: impl FnOnce(&mut dyn FnMut(Recovered) -> Result<(), StoreError>) -> Result<(), StoreError>,
) -> Result<Vec<(u64, u64, Vec<u8>)>, StoreError> {
    let mut all = Vec::new();
    visit(&mut |recovered| {
        all.push(match recovered {
            Recovered::Image { upto, image } => (upto, u64::MAX, image),
            Recovered::Batch { first, count, body } => (first, count, body),
        });
        Ok(())
    })?;
    Ok(all)
}

fn recovered(store: &mut (impl Store + ?Sized)) -> Result<Vec<(u64, u64, Vec<u8>)>, StoreError> {
    gathered(|visit| store.recover(visit))
}

#[test]
fn the_same_run_reads_the_same_as_from_sqlite() {
    let Some(cluster) = Cluster::shared() else { return };
    let place = place(&cluster, &cluster.database());
    let epoch = take(&place, "a");
    let mut postgres = PostgresStore::open(place.clone(), epoch).expect("a store");
    let folder = tempfile::tempdir().expect("a folder");
    let mut sqlite = SqliteStore::open(folder.path()).expect("a store");
    let (mut next, mut random) = (1, 7_u64);
    let mut draw = |below: u64| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) % below
    };
    for round in 0..300 {
        let mut batch = batch(next, 1 + draw(40), draw(9000) as usize);
        for job in 0..draw(4) {
            batch.ended.push((JobNumber::new(0, next * 10 + job), vec![job as u8; draw(2000) as usize]));
        }
        next += batch.count;
        for store in [&mut postgres as &mut dyn Store, &mut sqlite] {
            store.append(&batch).expect("it takes the batch");
        }
        if round == 90 || round == 200 {
            // The second has more than one part.
            let image = vec![round as u8; if round == 90 { 100 } else { (16 << 20) + 5 }];
            for store in [&mut postgres as &mut dyn Store, &mut sqlite] {
                store.keep_image(mark(next - 1), &image, false).expect("it takes the image");
            }
        }
    }
    drop(postgres);
    let mut postgres = PostgresStore::open(place, 0).expect("a store");
    let (left, right) = (recovered(&mut postgres).expect("read"), recovered(&mut sqlite).expect("read"));
    assert_eq!(left.len(), 100, "an image and 99 batches");
    assert!(left == right, "recovery differs");
    let history = gathered(|visit| postgres.history(visit)).expect("read");
    assert_eq!(history.len(), 300);
    assert!(history == gathered(|visit| sqlite.history(visit)).expect("read"), "the history differs");
    let (mut left, mut right) = (postgres.archive(), sqlite.archive());
    for before in [None, Some(JobNumber::new(0, next * 5)), Some(JobNumber::new(0, 1))] {
        let (left, right) = (left.latest(before, 50).expect("read"), right.latest(before, 50).expect("read"));
        assert!(left == right, "{before:?}");
    }
    for sequence in 0..next * 10 + 5 {
        if sequence % 97 < 4 {
            let job = JobNumber::new(0, sequence);
            assert_eq!(left.ended(job).expect("read"), right.ended(job).expect("read"), "{job}");
        }
    }
}

/// Both stores through the same life of batches, ended jobs, marks, and forgetting.
#[test]
fn what_is_forgotten_is_gone_from_both_and_the_rest_is_read_from_the_mark_on() {
    let Some(cluster) = Cluster::shared() else { return };
    let (database, folder) = (cluster.database(), tempfile::tempdir().expect("a folder"));
    let (place, other) =
        (place(&cluster, &database), PostgresPlace { shard: 1, ..place(&cluster, &database) });
    let place = PostgresPlace { shards: 2, ..place };
    let other = PostgresPlace { shards: 2, ..other };
    let mut postgres = PostgresStore::open(place.clone(), take(&place, "a")).expect("a store");
    let mut beside = PostgresStore::open(other.clone(), take(&other, "b")).expect("a store");
    let mut neighbour = batch(1, 5, 10);
    neighbour.ended.push((JobNumber::new(1, 3), b"of another shard".to_vec()));
    beside.append(&neighbour).expect("it leads");
    let mut sqlite = SqliteStore::open(folder.path()).expect("a store");
    for store in [&mut postgres as &mut dyn Store, &mut sqlite] {
        for first in (1..=40).step_by(2) {
            let mut batch = batch(first, 2, 100);
            batch.ended = [first, first + 1].map(|job| (JobNumber::new(0, job), vec![job as u8])).into();
            store.append(&batch).expect("it takes the batch");
            let upto = first + 1;
            if upto % 10 == 0 {
                store
                    .keep_image(mark(upto), format!("image {upto}").as_bytes(), upto < 40)
                    .expect("an image");
            }
        }
        assert_eq!(store.marks().expect("read"), [10, 20, 30].map(mark));
        let whole = gathered(|visit| store.history(visit)).expect("read");
        assert_eq!((whole.len(), whole[0].0), (20, 1), "nothing is forgotten yet");

        let part = store.forget(mark(20), 4).expect("it forgets");
        assert_eq!(part, Forgotten { batches: 4, jobs: 4, is_all: false });
        assert_eq!(store.marks().expect("read"), [20, 30].map(mark), "earlier images go first");
        let rest = gathered(|visit| store.history(visit)).expect("read");
        assert_eq!(rest[0], (20, u64::MAX, b"image 20".to_vec()), "read from the mark on while it forgets");
        assert_eq!((rest[1].0, rest.len()), (21, 11));
        let part = store.forget(mark(20), 100).expect("it forgets");
        assert_eq!(part, Forgotten { batches: 6, jobs: 15, is_all: true });
        let nothing = Forgotten { is_all: true, ..Forgotten::default() };
        assert_eq!(store.forget(mark(20), 100).expect("nothing is left"), nothing);
        assert!(rest == gathered(|visit| store.history(visit)).expect("read"), "the same rest");
        let mut archive = store.archive();
        assert_eq!(archive.ended(JobNumber::new(0, 19)).expect("read"), None);
        assert_eq!(archive.ended(JobNumber::new(0, 20)).expect("read"), Some(vec![20]));
        assert_eq!(archive.latest(None, 100).expect("read").len(), 21);
        let latest = recovered(&mut *store).expect("read");
        assert_eq!(latest, [(40, u64::MAX, b"image 40".to_vec())], "a start uses the latest image");

        store.forget(mark(30), 100).expect("it forgets");
        let rest = gathered(|visit| store.history(visit)).expect("read");
        assert_eq!((rest[0].0, rest.len()), (30, 6));
    }
    assert_eq!(gathered(|visit| beside.history(visit)).expect("read").len(), 1, "another shard's stays");
    assert!(beside.archive().ended(JobNumber::new(1, 3)).expect("read").is_some());

    // The last batch stays, so that a plane which read no further than 30 sees that it missed something.
    postgres.keep_image(mark(40), b"image 40", true).expect("it leads");
    assert_eq!(postgres.forget(mark(40), 100).expect("it forgets").batches, 4);
    let missed = gathered(|visit| postgres.tail(31, visit)).expect_err("commands are missing").to_string();
    assert!(missed.contains("commands 31 to 38 are missing"), "{missed}");
    let rest = gathered(|visit| postgres.history(visit)).expect("read");
    assert_eq!(rest, [(40, u64::MAX, b"image 40".to_vec())]);

    let late = take(&place, "c");
    for refused in [postgres.forget(mark(30), 1).map(drop), postgres.keep_image(mark(40), b"late", true)] {
        assert!(matches!(refused, Err(StoreError::Fenced { current, .. }) if current == late), "{refused:?}");
    }
}

#[test]
fn an_append_after_another_took_over_is_refused_and_leaves_nothing() {
    let Some(cluster) = Cluster::shared() else { return };
    let place = place(&cluster, &cluster.database());
    let first = take(&place, "a");
    let mut old = PostgresStore::open(place.clone(), first).expect("a store");
    old.append(&batch(1, 2, 10)).expect("it leads");
    old.keep_image(mark(2), b"image", false).expect("it leads");
    let second = take(&place, "b");
    assert_eq!(second, first + 1);
    let mut late = batch(3, 1, 10);
    let is_fenced = |result: Result<(), StoreError>| match result {
        Err(StoreError::Fenced { mine, current }) => assert_eq!((mine, current), (first, second)),
        other => panic!("{other:?}"),
    };
    is_fenced(old.append(&late));
    late.ended.push((JobNumber::new(0, 9), b"record".to_vec()));
    is_fenced(old.append(&late));
    is_fenced(old.keep_image(mark(2), b"other", false));
    let mut new = PostgresStore::open(place, second).expect("a store");
    assert_eq!(recovered(&mut new).expect("read"), [(2, u64::MAX, b"image".to_vec())]);
    assert_eq!(new.archive().ended(JobNumber::new(0, 9)).expect("read"), None);
    new.append(&batch(3, 1, 10)).expect("it leads");
}

#[test]
fn a_takeover_waits_for_the_append_under_way_and_an_append_for_the_takeover() {
    let Some(cluster) = Cluster::shared() else { return };
    let database = cluster.database();
    let place = place(&cluster, &database);
    let first = take(&place, "a");
    let mut old = PostgresStore::open(place.clone(), first).expect("a store");
    // A trigger makes the append last a second.
    assert!(cluster.sql(
        &database,
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); RETURN NEW; END';
         CREATE TRIGGER slow BEFORE INSERT ON headroom_journal FOR EACH ROW EXECUTE FUNCTION slow();"
    ));
    let appending = std::thread::spawn(move || {
        let result = old.append(&batch(1, 1, 10));
        (old, result, Instant::now())
    });
    std::thread::sleep(Duration::from_millis(400));
    let second = take(&place, "b");
    let taken = Instant::now();
    let (mut old, result, appended) = appending.join().expect("no panic");
    result.expect("it led when it began");
    assert!(appended < taken + Duration::from_millis(300), "the takeover came behind the append");
    let mut new = PostgresStore::open(place.clone(), second).expect("a store");
    assert_eq!(recovered(&mut new).expect("read").len(), 1, "what was acknowledged is there");
    assert!(cluster.sql(&database, "DROP TRIGGER slow ON headroom_journal"));
    // The other way round: the takeover is under way when the append comes.
    let raw = std::thread::spawn({
        let (cluster, database) = (cluster.clone(), database.clone());
        move || {
            cluster.sql(
                &database,
                "BEGIN; UPDATE headroom_leader SET epoch = epoch + 1; SELECT pg_sleep(1); COMMIT",
            )
        }
    });
    std::thread::sleep(Duration::from_millis(400));
    let mut middle = new;
    assert!(matches!(middle.append(&batch(2, 1, 10)), Err(StoreError::Fenced { .. })));
    assert!(matches!(old.append(&batch(2, 1, 10)), Err(StoreError::Fenced { .. })));
    assert!(raw.join().expect("no panic"));
    assert_eq!(recovered(&mut middle).expect("read").len(), 1);
}

#[test]
fn what_was_acknowledged_before_a_takeover_is_there_after_it_and_nothing_comes_later() {
    let Some(cluster) = Cluster::shared() else { return };
    let place = place(&cluster, &cluster.database());
    let mut epoch = take(&place, "0");
    let mut next = 1;
    for round in 0..10 {
        let mut old = PostgresStore::open(place.clone(), epoch).expect("a store");
        let acknowledged = Arc::new(AtomicU64::new(next - 1));
        let counted = acknowledged.clone();
        let appending = std::thread::spawn(move || {
            let mut at = next;
            loop {
                match old.append(&batch(at, 1, 2000)) {
                    Ok(()) => counted.store(at, Ordering::SeqCst),
                    Err(StoreError::Fenced { .. }) => return at,
                    Err(error) => panic!("{error}"),
                }
                at += 1;
            }
        });
        while acknowledged.load(Ordering::SeqCst) < next + 5 + round {
            std::thread::sleep(Duration::from_millis(2));
        }
        epoch = take(&place, "next");
        let mut new = PostgresStore::open(place.clone(), epoch).expect("a store");
        let there = recovered(&mut new).expect("no gap").len() as u64;
        let refused = appending.join().expect("no panic");
        assert_eq!(there, refused - 1, "round {round}: the first refused one is not there, all before are");
        assert_eq!(there, acknowledged.load(Ordering::SeqCst));
        next = there + 1;
    }
}

#[test]
fn gaps_are_found() {
    let Some(cluster) = Cluster::shared() else { return };
    let database = cluster.database();
    let place = place(&cluster, &database);
    let mut store = PostgresStore::open(place.clone(), take(&place, "a")).expect("a store");
    for first in (1..20).step_by(2) {
        store.append(&batch(first, 2, 10)).expect("it leads");
    }
    store.keep_image(mark(8), b"image", false).expect("it leads");
    let check = |store: &mut PostgresStore, gone: &str, expected: &str| {
        assert!(cluster.sql(&database, &format!("DELETE FROM headroom_journal WHERE first = {gone}")));
        let error = recovered(store).expect_err("there is a gap").to_string();
        assert!(error.contains(expected), "{error}");
    };
    assert_eq!(recovered(&mut store).expect("read").len(), 7, "an image and 6 batches");
    check(&mut store, "13", "commands 13 to 14 are missing");
    check(&mut store, "9", "commands 9 to 10 are missing");
    assert!(cluster.sql(&database, "DELETE FROM headroom_image"));
    check(&mut store, "1", "commands 1 to 2 are missing");
}

#[test]
fn half_an_image_does_not_count() {
    let Some(cluster) = Cluster::shared() else { return };
    let database = cluster.database();
    let place = place(&cluster, &database);
    let mut store = PostgresStore::open(place.clone(), take(&place, "a")).expect("a store");
    for first in 1..=6 {
        store.append(&batch(first, 1, 10)).expect("it leads");
    }
    store.keep_image(mark(2), b"good", false).expect("it leads");
    let half = "INSERT INTO headroom_image SELECT 0, 5, 1, 3, 'half'";
    assert!(cluster.sql(&database, half));
    let all = recovered(&mut store).expect("read");
    assert_eq!((all[0].0, all.len()), (2, 5), "the whole one, and what is behind it");
    store.keep_image(mark(5), b"whole", false).expect("it leads");
    let all = recovered(&mut store).expect("read");
    assert_eq!((all[0].0, &all[0].2[..], all.len()), (5, &b"whole"[..], 2));
}

#[test]
fn a_restart_of_the_database_loses_nothing_that_was_acknowledged() {
    let Some(cluster) = Cluster::start() else { return };
    let place = place(&cluster, &cluster.database());
    let epoch = take(&place, "a");
    let mut acknowledged = 0;
    for _ in 0..3 {
        let mut store = PostgresStore::open(place.clone(), epoch).expect("a store");
        let there = recovered(&mut store).expect("no gap").len() as u64;
        // The one that was under way may be there or not.
        assert!(there == acknowledged || there == acknowledged + 1, "{there} of {acknowledged}");
        acknowledged = there;
        let appending = std::thread::spawn(move || {
            loop {
                match store.append(&batch(acknowledged + 1, 1, 500)) {
                    Ok(()) => acknowledged += 1,
                    Err(StoreError::Failed { .. }) => return acknowledged,
                    Err(error) => panic!("{error}"),
                }
            }
        });
        std::thread::sleep(Duration::from_millis(300));
        cluster.stop();
        acknowledged = appending.join().expect("no panic");
        assert!(acknowledged > 0);
        cluster.start_again();
    }
}

#[test]
fn a_full_disk_is_told_apart_and_the_batch_may_be_tried_again() {
    let Some(cluster) = Cluster::shared() else { return };
    let database = cluster.database();
    let place = place(&cluster, &database);
    let mut store = PostgresStore::open(place.clone(), take(&place, "a")).expect("a store");
    assert!(
        cluster.sql(
            &database,
            "CREATE FUNCTION full() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN RAISE EXCEPTION USING ERRCODE = ''53100'', MESSAGE = ''no space left''; END';
         CREATE TRIGGER full BEFORE INSERT ON headroom_journal FOR EACH ROW EXECUTE FUNCTION full();"
                .replace("full()", "no_room()")
                .replace("TRIGGER full", "TRIGGER no_room")
                .as_str()
        )
    );
    for _ in 0..2 {
        assert!(matches!(store.append(&batch(1, 1, 10)), Err(StoreError::Full { .. })));
    }
    assert!(cluster.sql(&database, "DROP TRIGGER no_room ON headroom_journal"));
    store.append(&batch(1, 1, 10)).expect("there is room again");
    assert_eq!(recovered(&mut store).expect("read").len(), 1);
}

#[test]
fn a_disk_that_is_really_full_says_so() {
    if !cluster::is_root() {
        eprintln!("skipped: a small disk can only be made by root");
        return;
    }
    let Some(cluster) = Cluster::start() else { return };
    let small = cluster.folder().join("small");
    std::fs::create_dir(&small).expect("a folder");
    let run = |program: &str, arguments: &[&str]| {
        std::process::Command::new(program).args(arguments).arg(&small).status().is_ok_and(|s| s.success())
    };
    if !run("mount", &["-t", "tmpfs", "-o", "size=6m", "tmpfs"]) {
        eprintln!("skipped: no disk can be mounted here");
        return;
    }
    assert!(run("chown", &["postgres"]));
    let database = cluster.database();
    let place = place(&cluster, &database);
    let mut store = PostgresStore::open(place.clone(), take(&place, "a")).expect("a store");
    let sql = format!("CREATE TABLESPACE small LOCATION '{}'", small.display());
    assert!(cluster.sql(&database, &sql));
    assert!(cluster.sql(&database, "ALTER TABLE headroom_journal SET TABLESPACE small"));
    let mut random = 1_u64;
    let mut first = 1;
    let end = loop {
        let body = (0..200_000).map(|_| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
            (random >> 56) as u8
        });
        let batch = Batch { first, count: 1, body: body.collect(), ended: Vec::new() };
        match store.append(&batch) {
            Ok(()) => first += 1,
            Err(error) => break error,
        }
        assert!(first < 100, "6 MiB hold no 20 MB");
    };
    assert!(matches!(end, StoreError::Full { .. }), "{end}");
    assert!(cluster.sql(&database, "ALTER TABLE headroom_journal SET TABLESPACE pg_default"));
    store.append(&batch(first, 1, 1000)).expect("there is room again");
    assert_eq!(recovered(&mut store).expect("read").len() as u64, first);
    drop(store);
    cluster.stop();
    assert!(run("umount", &[]));
}

#[test]
fn planes_that_start_at_once_make_one_set_of_tables_and_agree_on_shards() {
    let Some(cluster) = Cluster::shared() else { return };
    let place = place(&cluster, &cluster.database());
    runtime().block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for plane in 0..12 {
            let place = place.clone();
            tasks.spawn(async move {
                let election = Election::connect(place).await.expect("tables");
                let name = format!("plane-{plane}");
                election.take(0, 0, Duration::from_secs(4), &name, "http://x").await.expect("an answer")
            });
        }
        let taken = tasks.join_all().await;
        assert_eq!(taken.iter().flatten().count(), 1, "one leads: {taken:?}");
        let other = PostgresPlace { shards: 2, ..place.clone() };
        let error = Election::connect(other).await.err().expect("another number of shards").to_string();
        assert!(error.contains("made for 1 shards"), "{error}");
        let beyond = PostgresPlace { shard: 1, ..place.clone() };
        assert!(Election::connect(beyond).await.is_err());
    });
    let secret = PostgresStore::open(place.clone(), 0).expect("a store").secret();
    assert_eq!(PostgresStore::open(place, 0).expect("a store").secret(), secret, "drawn once");
}

#[test]
fn a_leader_is_replaced_once_it_was_silent_for_its_lease_or_resigned() {
    let Some(cluster) = Cluster::shared() else { return };
    let place = place(&cluster, &cluster.database());
    runtime().block_on(async {
        let election = Election::connect(place.clone()).await.expect("tables");
        let lease = Duration::from_millis(700);
        let take = async |seen| election.take(0, seen, lease, "b", "http://b").await.expect("an answer");
        assert_eq!(take(0).await, Some(1), "nobody led");
        assert_eq!(take(1).await, None, "it lives");
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(election.renew(1).await.expect("an answer"));
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(take(1).await, None, "it was renewed");
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(take(0).await, None, "another epoch was meant");
        assert_eq!(take(1).await, Some(2), "it was silent");
        assert!(!election.renew(1).await.expect("an answer"), "epoch 1 is over");
        election.resign(1).await.expect("an answer");
        assert_eq!(take(2).await, None, "epoch 1 cannot resign for epoch 2");
        election.resign(2).await.expect("an answer");
        assert_eq!(take(2).await, Some(3), "it resigned");
    });
}

#[test]
#[ignore = "a process of the test below"]
fn process_that_connects() {
    let connection = std::env::var("HEADROOM_TEST_DATABASE").expect("a connection");
    let place = PostgresPlace { connection, shard: 0, shards: 1 };
    match runtime().block_on(Election::connect(place)) {
        Ok(_) => println!("connected"),
        Err(error) => println!("{error}"),
    }
}

#[test]
fn a_connection_that_requires_tls_trusts_nobody_it_was_not_told_to() {
    let Some(cluster) = Cluster::start() else { return };
    let Some(trust) = cluster.secure() else { return };
    cluster.stop();
    cluster.start_again();
    let database = cluster.database();
    let check = |mode: &str, trust: Option<&std::path::Path>, expected: &str| {
        let connection = format!("{} {mode}", cluster.connection("127.0.0.1", &database));
        let mut command = std::process::Command::new(std::env::current_exe().expect("this program"));
        command.args(["process_that_connects", "--exact", "--ignored", "--nocapture"]);
        command.env("HEADROOM_TEST_DATABASE", connection).env_remove("PGSSLROOTCERT");
        command.envs(trust.map(|trust| ("PGSSLROOTCERT", trust)));
        let said = String::from_utf8_lossy(&command.output().expect("a process").stdout).into_owned();
        assert!(said.contains(expected), "{mode} {trust:?}: {said}");
    };
    check("sslmode=require", Some(&trust), "connected");
    check("sslmode=require", None, "certificate");
    check(
        "sslmode=require",
        Some(std::path::Path::new("/nonexistent")),
        "the certificates of `/nonexistent`",
    );
    check("", Some(&trust), "no pg_hba.conf entry");
}

/// Runtimes may not be dropped among asynchronous tasks, and stores and archives may be.
#[test]
fn stores_may_be_dropped_anywhere() {
    let Some(cluster) = Cluster::shared() else { return };
    let place = place(&cluster, &cluster.database());
    take(&place, "a");
    let store = PostgresStore::open(place, 0).expect("a store");
    let mut archive = store.archive();
    assert_eq!(archive.ended(JobNumber::new(0, 1)).expect("read"), None);
    runtime().block_on(async move {
        drop(archive);
        drop(store);
    });
}

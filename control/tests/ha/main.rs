//! Several planes as real processes on a real PostgreSQL: killed, frozen, cut off; and what was promised is kept.
//! `HEADROOM_HA_KILLS` sets how often the leader is killed.

#[allow(dead_code, reason = "the tests of faults use more of it")]
mod client;
#[path = "../postgres/cluster.rs"]
#[allow(dead_code, reason = "the tests of the store use more of it")]
mod cluster;
#[allow(dead_code, reason = "the tests of faults use more of it")]
mod fleet;
#[allow(dead_code, reason = "the tests of faults use more of it")]
mod judge;
mod partition;
#[path = "../scene/mod.rs"]
mod scene;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Crowd, Promises, ask, target};
use cluster::Cluster;
use control::store::{Election, PostgresPlace, PostgresStore};
use fleet::{DEPOSED, Plane, SCENE, TAKEOVER, Wish, WorkerProcess, addresses, leader};
use judge::Verdict;
use scene::Scene;

#[test]
#[ignore = "a process of the other tests"]
fn process_that_leads() {
    fleet::lead()
}

#[test]
#[ignore = "a process of the other tests"]
fn process_that_works() {
    fleet::work()
}

/// Planes on a database of their own, and two workers.
struct House {
    cluster: Arc<Cluster>,
    database: String,
    planes: Vec<Plane>,
    addresses: Vec<SocketAddr>,
    place: PostgresPlace,
    _workers: Vec<WorkerProcess>,
    _folder: tempfile::TempDir,
}

impl House {
    fn open<const N: usize>(cluster: Arc<Cluster>) -> Self {
        let (folder, addresses) = (tempfile::tempdir().expect("a folder"), addresses::<N>());
        let database = cluster.database();
        let connection = cluster.connection("127.0.0.1", &database);
        let wish = |(at, address): (usize, &SocketAddr)| Wish {
            connection: connection.clone(),
            name: format!("plane-{at}"),
            address: *address,
            folder: folder.path().join(at.to_string()),
            shards: 1,
            shard: 0,
            prefix: Vec::new(),
        };
        let planes = addresses.iter().enumerate().map(wish).map(Plane::start).collect();
        let workers = (0..2).map(|_| WorkerProcess::start(&[], &addresses, "")).collect();
        let place = PostgresPlace { connection, shard: 0, shards: 1 };
        let addresses = addresses.to_vec();
        Self { cluster, database, planes, addresses, place, _workers: workers, _folder: folder }
    }

    /// Ends the clients, waits for all jobs, and reads the journal.
    async fn close(self, crowd: Crowd) -> (Verdict, usize) {
        let promises = crowd.stop().await;
        all_ended(&self.cluster, &self.database, &promises).await;
        let place = self.place.clone();
        let count = promises.jobs.lock().expect("no panic").len();
        let verdict = tokio::task::spawn_blocking(move || judge(place, &promises)).await.expect("kept");
        (verdict, count)
    }
}

/// Waits until as many jobs have ended as were promised.
async fn all_ended(cluster: &Cluster, database: &str, promises: &Promises) {
    let promised = promises.jobs.lock().expect("no panic").len();
    let until = Instant::now() + Duration::from_secs(90);
    loop {
        let ended = cluster.query(database, "SELECT COUNT(*) FROM headroom_ended").unwrap_or_default();
        if ended.parse::<usize>().is_ok_and(|ended| ended >= promised) {
            return;
        }
        assert!(Instant::now() < until, "{ended} of {promised} jobs have ended, and no more do");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Reads the whole journal of a place. Must not be called from an asynchronous task.
fn judge(place: PostgresPlace, promises: &Promises) -> Verdict {
    judge::judge(PostgresStore::open(place, 0).expect("a store"), promises)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

const PAUSE: Duration = Duration::from_millis(20);

#[test]
fn kills_of_the_leader_lose_nothing() {
    let Some(cluster) = Cluster::shared() else { return };
    let kills = std::env::var("HEADROOM_HA_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    runtime().block_on(async {
        let mut house = House::open::<3>(cluster);
        let crowd = Crowd::start(&house.addresses, 4, PAUSE, None);
        crowd.until_accepted(Duration::from_secs(60)).await;
        let mut times = Vec::new();
        for round in 0..kills {
            tokio::time::sleep(Duration::from_millis(1000 + 137 * (round % 5))).await;
            let leader = leader(&house.planes).await;
            house.planes[leader].kill();
            times.push(crowd.until_accepted(Duration::from_secs(60)).await);
        }
        let (verdict, accepted) = house.close(crowd).await;
        times.sort();
        let median = times[times.len() / 2].as_secs_f64();
        let longest = times[times.len() - 1];
        eprintln!(
            "{kills} kills of the leader: {accepted} jobs accepted, {} ended once, 0 lost; {} takeovers, {} commands; \
             until the next job was accepted: median {median:.2} s, longest {:.2} s",
            verdict.ended,
            verdict.takeovers,
            verdict.commands,
            longest.as_secs_f64()
        );
        assert!(longest < TAKEOVER, "{times:?}");
        assert!(verdict.takeovers > kills, "each kill is a takeover");
    });
}

#[test]
fn a_frozen_leader_acknowledges_nothing_once_another_leads() {
    let Some(cluster) = Cluster::shared() else { return };
    runtime().block_on(async {
        let mut house = House::open::<2>(cluster);
        let crowd = Crowd::start(&house.addresses, 2, PAUSE, None);
        crowd.until_accepted(Duration::from_secs(60)).await;
        let old = leader(&house.planes).await;
        let first = crowd.promises.jobs.lock().expect("no panic").values().next().cloned().expect("one");
        house.planes[old].freeze().await;
        // Requests that lie in its sockets when it awakes.
        let frozen = house.addresses[old];
        let mut asked = tokio::task::JoinSet::new();
        for at in 0..20 {
            let path = if at % 2 == 0 { "/v1/jobs".to_owned() } else { format!("/v1/jobs/{first}") };
            asked.spawn(async move {
                let key = format!("zombie-{at}");
                let body = if at % 2 == 0 { r#"{"payload":{}}"# } else { "" };
                let method = if at % 2 == 0 { "POST" } else { "GET" };
                raw(frozen, method, &path, body, &key).await
            });
        }
        let new = 1 - old;
        let until = Instant::now() + Duration::from_secs(30);
        while !house.planes[new].is_ready().await {
            assert!(Instant::now() < until, "the other takes over");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        crowd.until_accepted(TAKEOVER).await;
        house.planes[old].signal("CONT");
        let answers = asked.join_all().await;
        let good: Vec<_> = answers.iter().filter(|answer| answer.contains(" 2")).collect();
        assert!(good.is_empty(), "a zombie said {good:?}");
        assert_eq!(house.planes[old].end().await, Some(DEPOSED), "it notices, and ends");
        house.planes[old].tend();
        eprintln!("a frozen leader: {} requests, none acknowledged", answers.len());
        let (verdict, _) = house.close(crowd).await;
        assert!(verdict.takeovers >= 2);
    });
}

/// Sends a request and waits half a minute for the first line of its answer; empty if the connection ends without.
async fn raw(plane: SocketAddr, method: &str, path: &str, body: &str, key: &str) -> String {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let Ok(mut stream) = tokio::net::TcpStream::connect(plane).await else { return String::new() };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nidempotency-key: {key}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    if stream.write_all(request.as_bytes()).await.is_err() {
        return String::new();
    }
    let mut line = String::new();
    let _ = tokio::time::timeout(Duration::from_secs(30), BufReader::new(stream).read_line(&mut line)).await;
    line.trim().to_owned()
}

#[test]
fn a_leader_that_is_asked_to_end_hands_over_at_once() {
    let Some(cluster) = Cluster::shared() else { return };
    runtime().block_on(async {
        let mut house = House::open::<2>(cluster);
        let crowd = Crowd::start(&house.addresses, 2, PAUSE, None);
        crowd.until_accepted(Duration::from_secs(60)).await;
        let old = leader(&house.planes).await;
        // While one stands by, it says where the leader is.
        let standby = house.addresses[1 - old];
        let expected = format!("plane-{old} leads shard 0");
        let until = Instant::now() + TAKEOVER;
        loop {
            let answer = ask(standby, "GET", "/readyz", "", &[]).await.expect("it answers");
            assert_eq!(answer.status, 503);
            if answer.body.contains(&expected) {
                break;
            }
            assert!(Instant::now() < until, "{}", answer.body);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(ask(standby, "GET", "/healthz", "", &[]).await.expect("it answers").status, 200);
        let answer = ask(standby, "POST", "/v1/jobs?wait=2", "{}", &[]).await.expect("it answers");
        let expected = format!("http://{}/v1/jobs?wait=2", house.addresses[old]);
        assert_eq!((answer.status, answer.location), (307, Some(expected)));
        house.planes[old].signal("TERM");
        assert_eq!(house.planes[old].end().await, Some(0));
        let ended = Instant::now();
        crowd.until_accepted(TAKEOVER).await;
        let took = ended.elapsed();
        eprintln!("after a leader ended in order, jobs were accepted again within {took:.2?}");
        assert!(took < Duration::from_secs(3), "no lease had to end: {took:?}");
        house.close(crowd).await;
    });
}

#[test]
fn a_restart_of_the_database_under_load_loses_nothing() {
    let Some(cluster) = Cluster::start().map(Arc::new) else { return };
    runtime().block_on(async {
        let mut house = House::open::<2>(cluster.clone());
        let crowd = Crowd::start(&house.addresses, 4, PAUSE, None);
        crowd.until_accepted(Duration::from_secs(60)).await;
        for away in [0, 6] {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            cluster.stop();
            tokio::time::sleep(Duration::from_secs(away)).await;
            cluster.start_again();
            let started = Instant::now();
            let before = crowd.accepted();
            while crowd.accepted() == before {
                assert!(started.elapsed() < Duration::from_secs(30), "jobs are accepted again");
                for plane in &mut house.planes {
                    plane.tend();
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            eprintln!("the database was away {away} s; jobs were accepted {:.2?} after", started.elapsed());
        }
        house.close(crowd).await;
    });
}

#[test]
fn requests_for_another_shard_are_sent_to_its_leader() {
    let Some(cluster) = Cluster::shared() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let addresses = addresses::<3>();
    let connection = cluster.connection("127.0.0.1", &cluster.database());
    // A tenant of each shard; the planes have the same keys.
    let mut keys: [Option<(u32, String)>; 2] = [None, None];
    let first = folder.path().join("0");
    std::fs::create_dir_all(&first).expect("a folder");
    while keys.iter().any(Option::is_none) {
        let (key, tenant) = partition::key(&first);
        let shard = control::ha::shard_of(tenant, 2);
        keys[usize::from(shard)].get_or_insert((tenant, key));
    }
    let keys = keys.map(|key| key.expect("one each").1);
    let planes: Vec<Plane> = (0..3)
        .map(|at| {
            let mine = folder.path().join(at.to_string());
            partition::copy_keys(&first, &mine);
            Plane::start(Wish {
                connection: connection.clone(),
                name: format!("plane-{at}"),
                address: addresses[at],
                folder: mine,
                shards: 2,
                // Two planes for shard 0, one for shard 1.
                shard: u16::from(at == 2),
                prefix: Vec::new(),
            })
        })
        .collect();
    runtime().block_on(async {
        let zero = leader(&planes[..2]).await;
        let one = 2 + leader(&planes[2..]).await;
        let leaders = [addresses[zero], addresses[one]];
        tokio::time::sleep(Duration::from_millis(1200)).await;
        for shard in [0, 1] {
            let bearer = format!("Bearer {}", keys[shard]);
            let headers = [("authorization", bearer.as_str())];
            let body = r#"{"payload":{}}"#;
            let own = ask(leaders[shard], "POST", "/v1/jobs", body, &headers).await.expect("an answer");
            assert_eq!(own.status, 202, "{}", own.body);
            let id: serde_json::Value = serde_json::from_str(&own.body).expect("JSON");
            let id = id["id"].as_str().expect("an id");
            assert!(id.starts_with(&format!("job-{shard}-")), "{id}");
            for (method, path, body) in [
                ("POST", "/v1/jobs".to_owned(), body),
                ("GET", format!("/v1/jobs/{id}"), ""),
                ("GET", "/v1/jobs".to_owned(), ""),
            ] {
                let other = ask(leaders[1 - shard], method, &path, body, &headers).await.expect("an answer");
                assert_eq!(other.status, 307, "{method} {path}: {}", other.body);
                let (leader, there) =
                    target(other.location.as_deref().expect("a place")).expect("an address");
                assert_eq!((leader, there), (leaders[shard], path.as_str()));
                let answer = ask(leader, method, there, body, &headers).await.expect("an answer");
                assert!(matches!(answer.status, 200 | 202), "{}", answer.body);
            }
            // A plane that stands by for shard 0 knows where a job of shard 1 is.
            let standby = addresses[1 - zero];
            let sent = ask(standby, "GET", &format!("/v1/jobs/{id}"), "", &[]).await.expect("an answer");
            assert_eq!(sent.location, Some(format!("http://{}/v1/jobs/{id}", leaders[shard])));
        }
        let nobody = ask(leaders[0], "POST", "/v1/jobs", "{}", &[]).await.expect("an answer");
        assert_eq!(nobody.status, 401, "directions are for those who are let in");
    });
}

#[test]
fn a_plane_with_other_shards_does_not_start() {
    let Some(cluster) = Cluster::shared() else { return };
    let connection = cluster.connection("127.0.0.1", &cluster.database());
    runtime().block_on(async {
        let place = PostgresPlace { connection: connection.clone(), shard: 0, shards: 2 };
        drop(Election::connect(place).await.expect("tables"));
        let folder = tempfile::tempdir().expect("a folder");
        let [address] = addresses::<1>();
        let mut plane = Plane::start(Wish {
            connection,
            name: "plane".to_owned(),
            address,
            folder: folder.path().to_owned(),
            shards: 1,
            shard: 0,
            prefix: Vec::new(),
        });
        assert_eq!(plane.end().await, Some(6));
        assert!(plane.log().contains("made for 2 shards; give --shards 2"), "{}", plane.log());
    });
}

/// Waits until a plane that stands by says `what` at `/readyz`.
async fn until_said(plane: &Plane, what: &str) {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = ask(plane.wish.address, "GET", "/readyz", "", &[]).await;
        if answer.as_ref().is_ok_and(|answer| answer.status == 503 && answer.body.contains(what)) {
            return;
        }
        assert!(Instant::now() < until, "{answer:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn a_standby_with_another_scenario_says_so_and_one_that_could_not_go_on_ends() {
    let Some(cluster) = Cluster::shared() else { return };
    let connection = cluster.connection("127.0.0.1", &cluster.database());
    runtime().block_on(async {
        let (folder, addresses) = (tempfile::tempdir().expect("a folder"), addresses::<3>());
        let start = |at: usize, scene: Scene| {
            Plane::start(Wish {
                connection: connection.clone(),
                name: format!("plane-{at}"),
                address: addresses[at],
                folder: folder.path().join(at.to_string()),
                shards: 1,
                shard: 0,
                prefix: vec!["env".to_owned(), format!("HEADROOM_TEST_SCENARIO={}", scene.toml())],
            })
        };
        let mut planes = vec![start(0, SCENE)];
        assert_eq!(leader(&planes).await, 0);
        let differs = "the leader was started with scenario test (";
        planes.push(start(1, Scene { lease: "20s", ..SCENE }));
        until_said(&planes[1], differs).await;
        let until = Instant::now() + TAKEOVER;
        while !planes[1].log().contains(differs) {
            assert!(Instant::now() < until, "it is logged too: {}", planes[1].log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }

        let mut other = start(2, Scene { slots: 8, ..SCENE });
        assert_eq!(other.end().await, Some(6));
        assert!(other.log().contains("Err(OtherScenario {"), "{}", other.log());

        // The new scenario comes with the next leader; now it is the old one that is another.
        planes[0].signal("TERM");
        assert_eq!(planes[0].end().await, Some(0));
        assert_eq!(leader(&planes[1..]).await, 0);
        planes[0].tend();
        until_said(&planes[0], differs).await;
        let same = start(2, Scene { lease: "20s", ..SCENE });
        until_said(&same, "plane-1 leads shard 0").await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!same.log().contains(differs), "{}", same.log());
    });
}

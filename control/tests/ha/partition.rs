//! Planes, database and workers in network namespaces of their own, and cables that are pulled. Needs root.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::api::{KeyWish, Scope, create};
use control::store::PostgresPlace;

use crate::client::{Crowd, ask};
use crate::cluster::{Cluster, is_root};
use crate::fleet::{DEPOSED, Plane, TAKEOVER, Wish, WorkerProcess, leader};
use crate::{PAUSE, all_ended, judge, runtime};

/// A key of a new tenant in the data folder; the key and the tenant.
pub(crate) fn key(folder: &Path) -> (String, u32) {
    std::fs::create_dir_all(folder).expect("a folder");
    let wish = KeyWish {
        name: "test".to_owned(),
        scopes: Scope::ALL.into_iter().filter(|scope| *scope != Scope::Operate).collect(),
        tenant: None,
        jobs_max: None,
        rate: None,
        burst: None,
        expires: None,
    };
    let (key, entry) = create(folder, wish).expect("a key");
    (key, entry.tenant)
}

pub(crate) fn copy_keys(from: &Path, to: &Path) {
    if from != to {
        std::fs::create_dir_all(to).expect("a folder");
        std::fs::copy(from.join("keys.json"), to.join("keys.json")).expect("keys");
    }
}

fn ip(arguments: &str) -> bool {
    let done = Command::new("ip").args(arguments.split_whitespace()).output();
    done.is_ok_and(|done| done.status.success())
}

/// Namespaces on one bridge: this process is host 1.
struct Lab {
    tag: String,
    /// Second and third byte of all addresses.
    net: String,
    hosts: Vec<u8>,
}

impl Lab {
    /// `None` where there may be none, which is said.
    fn open(hosts: &[u8]) -> Option<Self> {
        let id = std::process::id();
        let net = format!("{}.{}", 128 + id / 256 % 100, id % 256);
        let tag = format!("hr{}", id % 100_000);
        let lab = Self { tag, net, hosts: hosts.to_vec() };
        if is_root() && lab.build() {
            return Some(lab);
        }
        let what =
            "no network namespaces can be made here (they need root and `ip netns`), so this is not tested";
        assert!(std::env::var_os("HEADROOM_REQUIRE_NETNS").is_none(), "{what}");
        eprintln!("skipped: {what}");
        None
    }

    fn build(&self) -> bool {
        let Self { tag, net, .. } = self;
        ip(&format!("link add {tag}b type bridge"))
            && ip(&format!("addr add 10.{net}.1/24 dev {tag}b"))
            && ip(&format!("link set {tag}b up"))
            && self.hosts.iter().all(|host| {
                let space = self.space(*host);
                ip(&format!("netns add {space}"))
                    && ip(&format!("link add {tag}v{host} type veth peer name eth0 netns {space}"))
                    && ip(&format!("link set {tag}v{host} master {tag}b"))
                    && ip(&format!("link set {tag}v{host} up"))
                    && ip(&format!("-n {space} addr add 10.{net}.{host}/24 dev eth0"))
                    && ip(&format!("-n {space} link set eth0 up"))
                    && ip(&format!("-n {space} link set lo up"))
            })
    }

    fn space(&self, host: u8) -> String {
        format!("{}n{host}", self.tag)
    }

    fn address(&self, host: u8, port: u16) -> SocketAddr {
        format!("10.{}.{host}:{port}", self.net).parse().expect("an address")
    }

    fn prefix(&self, host: u8) -> Vec<String> {
        ["ip", "netns", "exec", &self.space(host)].map(str::to_owned).to_vec()
    }

    /// From now on nothing that `from` sends reaches `to`.
    fn cut(&self, from: u8, to: u8) {
        assert!(ip(&format!("-n {} route add blackhole 10.{}.{to}/32", self.space(from), self.net)));
    }

    fn heal(&self, from: u8, to: u8) {
        assert!(ip(&format!("-n {} route del blackhole 10.{}.{to}/32", self.space(from), self.net)));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for host in &self.hosts {
            ip(&format!("netns del {}", self.space(*host)));
        }
        ip(&format!("link del {}b", self.tag));
    }
}

const CLIENT: u8 = 1;
const DATABASE: u8 = 2;
const WORKERS: u8 = 20;
const PLANES: [u8; 3] = [11, 12, 13];

#[test]
fn cables_that_are_pulled_cost_no_promise() {
    let hosts: Vec<u8> = [DATABASE, WORKERS].into_iter().chain(PLANES).collect();
    let Some(lab) = Lab::open(&hosts) else { return };
    let prefix = lab.prefix(DATABASE);
    let prefix: Vec<&str> = prefix.iter().map(String::as_str).collect();
    let Some(cluster) = Cluster::start_in(&prefix, "*") else { return };
    let cluster = Arc::new(cluster);
    let database = cluster.database();
    let host = lab.address(DATABASE, 0).ip().to_string();
    let connection = cluster.connection(&host, &database);
    let folder = tempfile::tempdir().expect("a folder");
    let addresses: Vec<SocketAddr> = PLANES.iter().map(|host| lab.address(*host, 8080)).collect();
    let key = key(&folder.path().join("0")).0;
    let mut planes: Vec<Plane> = (0..PLANES.len())
        .map(|at| {
            let mine = folder.path().join(at.to_string());
            copy_keys(&folder.path().join("0"), &mine);
            Plane::start(Wish {
                connection: connection.clone(),
                name: format!("plane-{at}"),
                address: addresses[at],
                folder: mine,
                shards: 1,
                shard: 0,
                prefix: lab.prefix(PLANES[at]),
            })
        })
        .collect();
    let workers: Vec<_> =
        (0..2).map(|_| WorkerProcess::start(&lab.prefix(WORKERS), &addresses, &key)).collect();
    runtime().block_on(async {
        let crowd = Crowd::start(&addresses, 4, PAUSE, Some(&key));
        crowd.until_accepted(Duration::from_secs(60)).await;

        // The leader and the database.
        let old = leader(&planes).await;
        let cut = Instant::now();
        lab.cut(PLANES[old], DATABASE);
        assert_eq!(
            planes[old].end().await,
            Some(DEPOSED),
            "it stops by its own clock: {}",
            planes[old].log()
        );
        let stopped = cut.elapsed();
        let new = leader(&planes).await;
        assert_ne!(old, new);
        let led = cut.elapsed();
        crowd.until_accepted(TAKEOVER).await;
        eprintln!("leader cut from the database: it ended after {stopped:.2?}, another led after {led:.2?}");
        assert!(led < TAKEOVER, "{led:?}");
        lab.heal(PLANES[old], DATABASE);
        planes[old].tend();

        // The leader and the workers: jobs wait, and are done afterwards.
        let old = leader(&planes).await;
        lab.cut(PLANES[old], WORKERS);
        let before = crowd.accepted();
        tokio::time::sleep(Duration::from_secs(8)).await;
        let during = crowd.accepted() - before;
        assert!(during > 0, "jobs are accepted all the while");
        assert!(planes[old].is_ready().await, "it leads on: the database hears it");
        lab.heal(PLANES[old], WORKERS);
        eprintln!("leader cut from the workers for 8 s: {during} jobs were accepted meanwhile");

        // The leader and the clients: nobody takes over, and clients go on where they were.
        lab.cut(PLANES[old], CLIENT);
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert!(ask(addresses[old], "GET", "/readyz", "", &[]).await.is_err(), "it is not reached");
        lab.heal(PLANES[old], CLIENT);
        crowd.until_accepted(Duration::from_secs(30)).await;
        assert!(planes[old].is_ready().await, "it leads on");
        eprintln!("leader cut from the clients for 6 s: it led on");

        let promises = crowd.stop().await;
        all_ended(&cluster, &database, &promises).await;
        let place = PostgresPlace {
            connection: format!(
                "host={} port={} user=postgres dbname={database}",
                cluster.folder().display(),
                cluster.port
            ),
            shard: 0,
            shards: 1,
        };
        let count = promises.jobs.lock().expect("no panic").len();
        let verdict = tokio::task::spawn_blocking(move || judge(place, &promises)).await.expect("kept");
        eprintln!(
            "partitions: {count} jobs accepted, {} ended once; {} takeovers",
            verdict.ended, verdict.takeovers
        );
    });
    drop(workers);
}

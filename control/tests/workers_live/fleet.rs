//! Orders of the plane become machines: of a provider that fails in every way, and as processes of this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use control::command::{LaunchRefusal, LaunchToken};
use control::fleet::{
    Answered, Fleet, FleetSettings, LaunchError, ManualProvider, News, Own, ProcessProvider, ProcessSettings,
    Provider, ProviderError, SpendLimits,
};
use control::protocol::Hello;
use control::store::Disk;
use control::worker::{Exit, Stop};
use policy::model::PoolId;
use policy::records::JobOutcome;
use policy::units::Usd;
use tokio::sync::mpsc;

use super::house::{House, JOIN, Plan, end, wait};
use super::raw::{Raw, hello};
use super::{employ, settings};

/// A provider whose every first answer is lost, and that keeps a book.
#[derive(Default)]
struct Cloud {
    machines: Mutex<BTreeMap<LaunchToken, bool>>,
    asked: Mutex<BTreeMap<LaunchToken, u32>>,
    ended: Mutex<Vec<LaunchToken>>,
    refuses: bool,
}

impl Cloud {
    fn running(&self) -> usize {
        self.machines.lock().expect("the book").values().filter(|runs| **runs).count()
    }

    fn lost(&self) -> ProviderError {
        ProviderError { provider: "cloud", what: "the answer was lost".to_owned() }
    }
}

impl Provider for Cloud {
    fn name(&self) -> &'static str {
        "cloud"
    }

    fn launch(&self, token: LaunchToken, _: PoolId) -> Answered<'_, Result<Option<String>, LaunchError>> {
        Box::pin(async move {
            if self.refuses {
                self.asked.lock().expect("the book").insert(token, 1);
                return Err(LaunchError::Refused(LaunchRefusal::InsufficientCapacity));
            }
            self.machines.lock().expect("the book").entry(token).or_insert(true);
            let mut asked = self.asked.lock().expect("the book");
            let count = asked.entry(token).or_insert(0);
            *count += 1;
            if *count == 1 { Err(LaunchError::Again(self.lost())) } else { Ok(Some(format!("m-{token}"))) }
        })
    }

    fn terminate(&self, token: LaunchToken, _: Option<String>) -> Answered<'_, Result<(), ProviderError>> {
        Box::pin(async move {
            self.machines.lock().expect("the book").insert(token, false);
            let mut ended = self.ended.lock().expect("the book");
            ended.push(token);
            if ended.iter().filter(|known| **known == token).count() == 1 { Err(self.lost()) } else { Ok(()) }
        })
    }

    fn list(&self) -> Answered<'_, Result<Vec<Own>, ProviderError>> {
        Box::pin(async move {
            let machines = self.machines.lock().expect("the book");
            let alive = machines.iter().filter(|(_, runs)| **runs);
            Ok(alive.map(|(token, _)| Own { token: *token, handle: format!("m-{token}") }).collect())
        })
    }
}

fn launched(count: u32, slots: u16) -> Plan {
    Plan { joined: false, ..Plan::joined(count, slots) }
}

fn quick() -> FleetSettings {
    FleetSettings { reconcile_every: Duration::from_millis(300), ..FleetSettings::default() }
}

/// Drives the house's orders.
fn drive(
    house: &mut House,
    provider: Arc<dyn Provider>,
    settings: FleetSettings,
) -> (tokio::task::JoinHandle<()>, News) {
    let (news, told) = News::channel();
    let orders = std::mem::replace(&mut house.orders, mpsc::unbounded_channel().1);
    let fleet = Fleet::new(house.handle.clone(), vec![provider], settings);
    (tokio::spawn(fleet.run(orders, told)), news)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_make_no_second_machine_and_orphans_are_ended() {
    let (plan, disk) = (launched(5, 1), Disk::default());
    let mut house = House::open(&plan, &disk, None).await;
    let cloud = Arc::new(Cloud::default());
    let orphan = LaunchToken(42);
    cloud.machines.lock().expect("the book").insert(orphan, true);
    let (_fleet, _news) = drive(&mut house, cloud.clone(), quick());
    wait("all launches", || {
        cloud.asked.lock().expect("the book").values().filter(|count| **count == 2).count() == 5
    })
    .await;
    wait("the orphan's end", || cloud.running() == 5).await;
    let ended: BTreeSet<LaunchToken> = cloud.ended.lock().expect("the book").iter().copied().collect();
    assert_eq!(ended, BTreeSet::from([orphan]), "nobody else was ended");
    // The next plane's fleet finds all five and launches none.
    house.close().await;
    let mut house = House::open(&plan, &disk, None).await;
    let (_fleet, _news) = drive(&mut house, cloud.clone(), quick());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((cloud.running(), cloud.machines.lock().expect("the book").len()), (5, 6));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machine_that_died_unseen_is_replaced() {
    let mut house = House::open(&launched(1, 1), &Disk::default(), None).await;
    let cloud = Arc::new(Cloud::default());
    let (_fleet, _news) = drive(&mut house, cloud.clone(), quick());
    wait("the launch", || cloud.running() == 1).await;
    let token = *cloud.machines.lock().expect("the book").keys().next().expect("a token");
    let worker = Raw::join(&house, Hello { launch: Some(token.to_string()), ..hello("worker") }).await;
    house.until(1, 1).await;
    let named = async {
        while house.handle.look(|plane| plane.launches()[0].handle.is_none()).await.expect("the plane lives")
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(super::house::SOON, named).await.expect("the provider answers");
    cloud.machines.lock().expect("the book").insert(token, false);
    wait("another machine", || cloud.running() == 1).await;
    drop(worker);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dry_run_and_spend_guard_launch_nothing() {
    let limits = SpendLimits { per_hour_max: Some(Usd::from_nanos(1)), total_max: None };
    for settings in [FleetSettings { is_dry_run: true, ..quick() }, FleetSettings { limits, ..quick() }] {
        let mut house = House::open(&launched(3, 1), &Disk::default(), None).await;
        let cloud = Arc::new(Cloud::default());
        let (_fleet, _news) = drive(&mut house, cloud.clone(), settings);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(cloud.asked.lock().expect("the book").is_empty());
        house.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hourly_limit_admits_what_fits() {
    let mut house = House::open(&launched(5, 1), &Disk::default(), None).await;
    let price = house.handle.look(|plane| plane.price(PoolId(0)).as_nanos()).await.expect("the plane lives");
    let limits = SpendLimits { per_hour_max: Some(Usd::from_nanos(price * 5 / 2)), total_max: None };
    let cloud = Arc::new(Cloud::default());
    let (_fleet, _news) = drive(&mut house, cloud.clone(), FleetSettings { limits, ..quick() });
    wait("two launches", || cloud.running() == 2).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cloud.running(), 2);
    assert_eq!(house.handle.figures().hold, None, "what fits goes on");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passed_total_holds_all_launches() {
    let mut house = House::open(&launched(1, 1), &Disk::default(), None).await;
    let limits = SpendLimits { per_hour_max: None, total_max: Some(Usd::from_nanos(1)) };
    let cloud = Arc::new(Cloud::default());
    let (_fleet, _news) = drive(&mut house, cloud.clone(), FleetSettings { limits, ..quick() });
    wait("the hold", || house.handle.figures().hold.is_some()).await;
    let why = house.handle.figures().hold.clone().unwrap_or_default();
    assert!(why.contains("spend guard"), "{why}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_launch_is_told_and_not_tried_again_with_its_token() {
    let mut house = House::open(&launched(1, 1), &Disk::default(), None).await;
    let cloud = Arc::new(Cloud { refuses: true, ..Cloud::default() });
    let (_fleet, _news) = drive(&mut house, cloud.clone(), quick());
    wait("a launch", || !cloud.asked.lock().expect("the book").is_empty()).await;
    let token = *cloud.asked.lock().expect("the book").keys().next().expect("a token");
    let forgotten = async {
        loop {
            let known =
                house.handle.look(move |plane| plane.launches().iter().any(|it| it.token == token)).await;
            if !known.expect("the plane lives") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(super::house::SOON, forgotten).await.expect("the plane gives the launch up");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manual_workers_stand_by_again_when_they_are_not_wanted() {
    let mut house = House::open(&Plan::joined(1, 2), &Disk::default(), None).await;
    let (_fleet, _news) = drive(&mut house, Arc::new(ManualProvider), quick());
    let (worker, stop) = employ(settings(&house.url(), 2));
    house.until(1, 1).await;
    // Its machine is "interrupted": it is drained, leaves, and comes back under another name.
    let token = house.handle.look(|plane| plane.launches()[0].token).await.expect("the plane lives");
    house.tell(control::command::Command::MachineNotice { token, seconds: 1 }).await;
    let changed = async {
        loop {
            let now = house.handle.look(|plane| plane.launches().first().map(|launch| launch.token)).await;
            if now.expect("the plane lives").is_some_and(|now| now != token) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(super::house::SOON, changed).await.expect("another machine is asked for");
    house.until(1, 1).await;
    let (_, done) = house.submit("{}").await;
    assert_eq!(end(done).await.outcome, JobOutcome::Done);
    stop.send_replace(Stop::Now);
    assert_eq!(worker.await.expect("no panic"), Exit::Left);
    house.close().await;
}

fn processes(folder: &Path, program: &str, arguments: &[&str], url: &str) -> ProcessSettings {
    ProcessSettings {
        folder: folder.to_owned(),
        program: program.into(),
        arguments: BTreeMap::from([(0, arguments.iter().map(|text| (*text).to_owned()).collect())]),
        variables: vec![
            ("HEADROOM_TEST_PLANE".to_owned(), url.to_owned()),
            ("HEADROOM_JOIN".to_owned(), JOIN.to_owned()),
        ],
        grace: Duration::from_secs(5),
    }
}

/// The test program as a worker.
fn workers(folder: &Path, url: &str) -> ProcessSettings {
    let program = std::env::current_exe().expect("this program").display().to_string();
    processes(folder, &program, &["process_that_works", "--exact", "--ignored", "--nocapture"], url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_processes_outlive_the_plane_and_are_adopted() {
    let folder = tempfile::tempdir().expect("a folder");
    let (plan, disk) = (launched(2, 4), Disk::default());
    let mut house = House::open(&plan, &disk, None).await;
    let (news, told) = News::channel();
    let provider =
        Arc::new(ProcessProvider::open(workers(folder.path(), &house.url()), news).expect("a provider"));
    let orders = std::mem::replace(&mut house.orders, mpsc::unbounded_channel().1);
    let fleet =
        tokio::spawn(Fleet::new(house.handle.clone(), vec![provider.clone()], quick()).run(orders, told));
    house.until(2, 2).await;
    let before = provider.list().await.expect("a list");
    let (job, _) = house.submit(r#"{"service_s": 2.0}"#).await;
    house.until_running(job).await;
    let address = house.close().await;
    fleet.await.expect("the fleet ends with its plane");
    drop(provider);
    // The next plane adopts both; the job goes on where it was.
    let mut house = House::open(&plan, &disk, Some(address)).await;
    let (news, told) = News::channel();
    let provider =
        Arc::new(ProcessProvider::open(workers(folder.path(), &house.url()), news).expect("a provider"));
    assert_eq!(provider.list().await.expect("a list"), before);
    let orders = std::mem::replace(&mut house.orders, mpsc::unbounded_channel().1);
    tokio::spawn(Fleet::new(house.handle.clone(), vec![provider.clone()], quick()).run(orders, told));
    house.until(2, 2).await;
    let until = std::time::Instant::now() + super::house::SOON;
    let record = loop {
        if let Some(record) = house.handle.ended(job).await.expect("the store reads") {
            break record;
        }
        assert!(std::time::Instant::now() < until, "{job} does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((record.outcome, record.deliveries), (JobOutcome::Done, 1));
    // One is killed: it is gone at once, and replaced.
    let number: i32 = before[0].handle.trim_start_matches("process-").parse().expect("a number");
    let killed = std::process::Command::new("kill").args(["-KILL", &number.to_string()]).status();
    assert!(killed.expect("kill").success());
    let replaced = async {
        loop {
            let now = provider.list().await.expect("a list");
            if now.len() == 2 && now.iter().all(|own| own.handle != before[0].handle) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(super::house::SOON, replaced).await.expect("a replacement");
    house.until(2, 2).await;
    house.close().await;
    provider.end_all().await;
    assert_eq!(alive(folder.path()), 0, "nothing is left behind");
}

/// Records of processes that are left.
fn alive(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).expect("the folder").flatten();
    let records = entries.filter(|entry| entry.path().extension().is_some_and(|kind| kind == "json"));
    records
        .filter(|entry| {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let number =
                text.split("\"number\":").nth(1).and_then(|rest| rest.split(',').next()?.parse::<i32>().ok());
            number.is_some_and(|number| {
                let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
                !stat.is_empty() && !stat.contains(") Z ")
            })
        })
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn process_is_begun_once_for_a_token_and_ended_with_all_it_began() {
    let folder = tempfile::tempdir().expect("a folder");
    let (news, _told) = News::channel();
    let marker = folder.path().join("child");
    let script = format!("trap '' TERM; sleep 600 & echo $! > {}; wait", marker.display());
    let stubborn = processes(folder.path(), "sh", &["-c", &script], "");
    let settings = ProcessSettings { grace: Duration::from_millis(300), ..stubborn };
    let provider = ProcessProvider::open(settings, news).expect("a provider");
    let (token, pool) = (LaunchToken(7), PoolId(0));
    let first = provider.launch(token, pool).await.expect("a process");
    assert_eq!(provider.launch(token, pool).await.expect("the same"), first);
    assert_eq!(provider.list().await.expect("a list").len(), 1);
    wait("the child", || std::fs::read_to_string(&marker).is_ok_and(|text| text.ends_with('\n'))).await;
    let child = std::fs::read_to_string(&marker).expect("a number").trim().to_owned();
    provider.terminate(token, None).await.expect("it ends");
    assert!(provider.list().await.expect("a list").is_empty());
    let stat = || std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
    wait("the child's end", || stat().is_empty() || stat().contains(") Z ")).await;
    let foreign = provider.launch(LaunchToken(8), PoolId(3)).await;
    assert!(matches!(foreign, Err(LaunchError::Refused(_))), "{foreign:?}");
}

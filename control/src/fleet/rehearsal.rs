//! Machines that are only played: each is a worker inside this process that joins over loopback once it has "booted" and
//! is ready once it has "loaded", and that may be taken away. How long and whether, somebody else draws. What a rehearsal
//! runs on; nothing here costs anything.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use policy::model::PoolId;
use scenarios::scenario::Scenario;
use tokio::sync::watch;

use super::{Answered, LaunchError, News, Own, Provider, ProviderError};
use crate::command::{LaunchRefusal, LaunchToken};
use crate::protocol::{Report, Start};
use crate::worker::{Address, JobControl, Runner, Skills, SleepRunner, Stop, Timed, Worker, WorkerSettings};

/// How long a termination waits for the worker's goodbye before it is answered.
const GOODBYE: Duration = Duration::from_secs(5);

/// How a launch goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// There is no machine; known after this time.
    Refused { after: Duration },
    /// It boots, loads, and is perhaps taken away; all from the launch.
    Starts { booted: Duration, ready: Duration, lost: Option<Loss> },
}

/// A machine that will be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// When the provider says so, from the launch.
    pub after: Duration,
    /// How long before it happens; zero without a warning.
    pub notice: Duration,
}

/// Draws the fates of machines.
pub trait Fates: Send + 'static {
    /// The fate of machine `machine`, which is launched for `pool` now.
    fn launch(&mut self, machine: u32, pool: PoolId) -> Fate;

    /// The machine is no more; called once for each launch that was not refused.
    fn gone(&mut self, machine: u32, pool: PoolId);

    /// Groups of pools that are shocked together.
    fn groups(&self) -> usize {
        0
    }

    /// Time until the next shock of a group; `None` when there is none.
    fn next_shock(&mut self, _group: usize) -> Option<Duration> {
        None
    }

    /// The machines that a shock of a group takes now, and how long before each is warned.
    fn shock(&mut self, _group: usize) -> Vec<(u32, Duration)> {
        Vec::new()
    }
}

/// Plays the machines of all pools of a scenario. Cheap to clone.
#[derive(Clone)]
pub struct Rehearsal(Arc<Stage>);

struct Stage {
    address: Address,
    scenario: Scenario,
    news: News,
    played: Mutex<Played>,
}

struct Played {
    fates: Box<dyn Fates>,
    launched: u32,
    machines: BTreeMap<LaunchToken, Machine>,
}

struct Machine {
    number: u32,
    /// What it is asked to do; it is gone when nobody listens.
    orders: watch::Sender<Order>,
}

/// What a machine is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Live,
    /// The provider takes it away after so long.
    Vanish(Duration),
    /// It is given back.
    End,
}

impl Rehearsal {
    /// Machines whose workers join at `address` and take the service times of `scenario`.
    pub fn new(address: Address, scenario: Scenario, news: News, fates: Box<dyn Fates>) -> Self {
        let played = Played { fates, launched: 0, machines: BTreeMap::new() };
        Self(Arc::new(Stage { address, scenario, news, played: Mutex::new(played) }))
    }

    /// Takes a machine away, with a warning `notice` before it is gone; without one where that is zero.
    pub fn take(&self, machine: u32, notice: Duration) {
        let played = self.0.played();
        if let Some(found) = played.machines.values().find(|known| known.number == machine) {
            found.orders.send_replace(Order::Vanish(notice));
        }
    }

    /// Works with the one who draws fates, as for changes of the market that concern no single launch.
    pub fn with_fates<T>(&self, work: impl FnOnce(&mut dyn Fates) -> T) -> T {
        work(&mut *self.0.played().fates)
    }

    fn open(&self, token: LaunchToken, pool: PoolId) -> Opened {
        let mut played = self.0.played();
        if let Some(machine) = played.machines.get(&token) {
            return Opened::Known(handle(machine.number));
        }
        let number = played.launched;
        played.launched += 1;
        match played.fates.launch(number, pool) {
            Fate::Refused { after } => Opened::Refused(after),
            Fate::Starts { booted, ready, lost } => {
                let (orders, told) = watch::channel(Order::Live);
                played.machines.insert(token, Machine { number, orders });
                let life = Life { stage: self.0.clone(), token, pool, number, told };
                Opened::Made(
                    handle(number),
                    life,
                    Course { booted, loads: ready.saturating_sub(booted), lost },
                )
            }
        }
    }
}

enum Opened {
    Known(String),
    Refused(Duration),
    Made(String, Life, Course),
}

fn handle(number: u32) -> String {
    format!("played-{number}")
}

impl Stage {
    fn played(&self) -> MutexGuard<'_, Played> {
        self.played.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Provider for Rehearsal {
    fn name(&self) -> &'static str {
        "rehearsal"
    }

    fn launch(&self, token: LaunchToken, pool: PoolId) -> Answered<'_, Result<Option<String>, LaunchError>> {
        Box::pin(async move {
            match self.open(token, pool) {
                Opened::Known(handle) => Ok(Some(handle)),
                Opened::Refused(after) => {
                    tokio::time::sleep(after).await;
                    Err(LaunchError::Refused(LaunchRefusal::InsufficientCapacity))
                }
                Opened::Made(handle, life, course) => {
                    tokio::spawn(life.live(course));
                    Ok(Some(handle))
                }
            }
        })
    }

    fn terminate(
        &self,
        token: LaunchToken,
        _handle: Option<String>,
    ) -> Answered<'_, Result<(), ProviderError>> {
        Box::pin(async move {
            let orders = self.0.played().machines.get(&token).map(|machine| machine.orders.clone());
            if let Some(orders) = orders {
                orders.send_replace(Order::End);
                // It is gone when nobody listens any more.
                let _ = tokio::time::timeout(GOODBYE, orders.closed()).await;
            }
            Ok(())
        })
    }

    fn list(&self) -> Answered<'_, Result<Vec<Own>, ProviderError>> {
        Box::pin(async move {
            let played = self.0.played();
            let own = played.machines.iter();
            Ok(own.map(|(token, machine)| Own { token: *token, handle: handle(machine.number) }).collect())
        })
    }
}

/// The times of one machine.
struct Course {
    booted: Duration,
    loads: Duration,
    lost: Option<Loss>,
}

/// One machine from its launch to its end.
struct Life {
    stage: Arc<Stage>,
    token: LaunchToken,
    pool: PoolId,
    number: u32,
    told: watch::Receiver<Order>,
}

impl Life {
    async fn live(self, course: Course) {
        let launched = tokio::time::Instant::now();
        let mut told = self.told.clone();
        let (stop, stopping) = watch::channel(Stop::No);
        let mut given_back = stopping.clone();
        let work = async {
            tokio::select! {
                // A machine that boots has nobody who would say goodbye.
                _ = given_back.wait_for(|stop| *stop != Stop::No) => return,
                () = tokio::time::sleep(course.booted) => {}
            }
            self.work(course.loads, stopping).await;
        };
        let fate = async {
            let Some(loss) = course.lost else { return std::future::pending().await };
            tokio::time::sleep_until(launched + loss.after).await;
            loss.notice
        };
        let order = async {
            match told.wait_for(|order| *order != Order::Live).await.map(|order| *order) {
                Ok(Order::Vanish(notice)) => Some(notice),
                Ok(Order::End | Order::Live) | Err(_) => None,
            }
        };
        tokio::pin!(work);
        let taken = tokio::select! {
            () = &mut work => None,
            notice = fate => Some(notice),
            taken = order => {
                if taken.is_none() {
                    // Given back: the worker was told to leave; it says goodbye in its own time.
                    stop.send_replace(Stop::Now);
                    work.as_mut().await;
                }
                taken
            }
        };
        if let Some(notice) = taken.filter(|notice| !notice.is_zero()) {
            // Warnings come in whole seconds.
            self.stage.news.notice(self.token, notice.as_secs_f64().round() as u32);
            let _ = tokio::time::timeout(notice, work).await;
        }
        // A machine that is taken takes its worker with it, connection and all.
        let mut played = self.stage.played();
        played.machines.remove(&self.token);
        played.fates.gone(self.number, self.pool);
        drop(played);
        self.stage.news.gone(self.token);
    }

    async fn work(&self, loads: Duration, stopping: watch::Receiver<Stop>) {
        let scenario = &self.stage.scenario;
        let pool = &scenario.system.pools[self.pool.index()];
        let settings = WorkerSettings {
            address: self.stage.address.clone(),
            pool: pool.name.clone(),
            launch: Some(self.token.to_string()),
            slots: pool.slots.iter().sum(),
            hang_after: Duration::from_secs(120),
            alone_for: Some(Duration::from_secs(60)),
        };
        let runner = Loading { loads, runner: SleepRunner::of(scenario.clone(), self.pool) };
        match Worker::new(settings, Arc::new(runner), stopping) {
            Ok(worker) => {
                let exit = worker.run().await;
                tracing::debug!(machine = self.number, ?exit, "a played machine's worker ended");
            }
            Err(error) => tracing::error!("a played machine has no thread: {error}"),
        }
    }
}

/// Takes its time to load, then sleeps for each job.
struct Loading {
    loads: Duration,
    runner: SleepRunner,
}

impl Runner for Loading {
    fn skills(&self) -> Skills {
        self.runner.skills()
    }

    fn prepare(&self) -> Result<(), String> {
        std::thread::sleep(self.loads);
        Ok(())
    }

    fn timed(&self, start: &Start) -> Option<Timed> {
        self.runner.timed(start)
    }

    fn run(&self, start: Start, control: JobControl) -> Report {
        self.runner.run(start, control)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::specimen::specimen;

    /// Every machine boots for an hour.
    struct Slow {
        gone: Arc<Mutex<Vec<u32>>>,
    }

    impl Fates for Slow {
        fn launch(&mut self, _: u32, _: PoolId) -> Fate {
            let booted = Duration::from_secs(3600);
            Fate::Starts { booted, ready: booted, lost: None }
        }

        fn gone(&mut self, machine: u32, _: PoolId) {
            self.gone.lock().unwrap().push(machine);
        }
    }

    #[tokio::test]
    async fn a_machine_that_is_given_back_while_it_boots_is_gone_at_once() {
        let address = Address::new("http://127.0.0.1:9", "", None).unwrap();
        let ((news, mut told), gone) = (News::channel(), Arc::default());
        let fates = Box::new(Slow { gone: Arc::clone(&gone) });
        let rehearsal = Rehearsal::new(address, specimen(1).scenario, news, fates);
        let (first, second) = (LaunchToken(1), LaunchToken(2));
        for token in [first, second] {
            rehearsal.launch(token, PoolId(0)).await.unwrap();
        }
        let started = std::time::Instant::now();
        rehearsal.terminate(first, None).await.unwrap();
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        let left: Vec<_> = rehearsal.list().await.unwrap().into_iter().map(|own| own.token).collect();
        assert_eq!(left, [second]);
        assert_eq!(*gone.lock().unwrap(), [0]);
        assert_eq!(told.recv().await, Some(Command::MachineGone { token: first }));
    }
}

//! The life of a plane among several: it stands by, reads along, takes over when the leader is gone, leads, and ends. It
//! never goes back to standing by: a plane that led and may no more ends its process, and a supervisor starts it anew.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use scenarios::scenario::Scenario;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::directory::{Directory, Seen};
use super::door::Door;
use super::lead::{Lead, Renewal};
use super::tail::{Fit, Progress, Tail};
use super::{LeaseGate, Seat};
use crate::api::{KeyRing, check_openness, tls::Certificate};
use crate::clock::unix_ms;
use crate::engine::{Engine, OpenError};
use crate::service::{End, MakeCrew, Service, ServiceError, ServiceSettings, rules_of};
use crate::store::{Election, PostgresPlace, StoreError};

/// A plane among several.
#[derive(Clone, Debug)]
pub struct HaSettings {
    /// `host=... port=... user=... dbname=...` or a `postgresql://` URL.
    pub connection: String,
    /// Name of this plane, for people.
    pub name: String,
    /// Where clients, workers and the other planes reach it.
    pub url: String,
    /// Shards in all; the same in every plane, and for ever.
    pub shards: u16,
    /// Shards that it stands by for; it leads one at most.
    pub candidates: Vec<u16>,
    /// A leader that was silent for so long is replaced.
    pub lease: Duration,
    /// Time between two signs of life.
    pub renew: Duration,
    /// Time between two looks at the leaders and at the journal.
    pub poll: Duration,
}

impl HaSettings {
    /// The usual times: a lease of 4 s, renewed every second, watched twice a second.
    pub fn new(connection: &str, name: &str, url: &str) -> Self {
        Self {
            connection: connection.to_owned(),
            name: name.to_owned(),
            url: url.trim_end_matches('/').to_owned(),
            shards: 1,
            candidates: vec![0],
            lease: Duration::from_secs(4),
            renew: Duration::from_secs(1),
            poll: Duration::from_millis(500),
        }
    }

    fn place(&self, shard: u16) -> PostgresPlace {
        PostgresPlace { connection: self.connection.clone(), shard, shards: self.shards }
    }

    fn check(&self) -> Result<(), HaError> {
        let wrong = |what: String| Err(HaError::Settings(what));
        if self.candidates.is_empty() {
            return wrong("a plane stands by for one shard at least; give --shard".to_owned());
        }
        if self.shards == 0 || self.shards > SHARDS_MAX {
            return wrong(format!("{} shards; use 1 to {SHARDS_MAX}", self.shards));
        }
        if let Some(shard) = self.candidates.iter().find(|shard| **shard >= self.shards) {
            return wrong(format!("there is no shard {shard} among {}; they count from 0", self.shards));
        }
        if self.renew * 3 > self.lease || self.lease > Duration::from_secs(3600) {
            return wrong(format!(
                "a lease of {:?}; use three renewals at least, an hour at most",
                self.lease
            ));
        }
        if !(self.url.starts_with("http://") || self.url.starts_with("https://")) {
            return wrong(format!("`{}` is no address for others, like http://10.0.0.5:8080", self.url));
        }
        Ok(())
    }
}

/// Shards at most.
const SHARDS_MAX: u16 = 1024;

/// A plane that cannot stand by, or cannot take over.
#[derive(Debug, thiserror::Error)]
pub enum HaError {
    /// Settings that cannot be.
    #[error("{0}")]
    Settings(String),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The plane.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The journal cannot be read along.
    #[error("the journal of shard {shard} cannot be read: {why}")]
    Tail { shard: u16, why: String },
    /// The plane in the journal cannot go on under this plane's scenario.
    #[error(
        "the plane of shard {shard} cannot go on under this scenario: {why}. Stand by with a scenario of the same shape as \
         the leader's"
    )]
    OtherScenario { shard: u16, why: String },
    /// A socket, a file or a thread.
    #[error("{what}: {error}")]
    Io { what: String, error: std::io::Error },
}

/// How such a plane ended.
#[derive(Debug)]
pub enum HaEnd {
    /// Asked to.
    Asked,
    /// Its lease is over, or another took over: the process must end.
    Deposed(String),
    /// Its journal failed: the process must end.
    Failed(StoreError),
    /// Its thread panicked: our bug. The process must end.
    Panicked,
}

/// A plane that stands by.
pub struct Standby {
    settings: HaSettings,
    service: ServiceSettings,
    listener: Arc<TcpListener>,
    /// Where it listens.
    pub address: SocketAddr,
    directory: Directory,
    tails: Vec<(u16, Tail)>,
    door: JoinHandle<()>,
    asking: JoinHandle<()>,
}

impl Standby {
    /// Checks everything that could stand in the way of leading, listens, and begins to read along.
    ///
    /// # Errors
    /// [`HaError`].
    pub async fn start(
        mut settings: HaSettings,
        service: ServiceSettings,
        scenario: &Scenario,
    ) -> Result<Self, HaError> {
        settings.check()?;
        settings.candidates.dedup();
        let io = |what: String| move |error| HaError::Io { what, error };
        let keys = KeyRing::open(&service.folder).map_err(ServiceError::from)?;
        let listening = || format!("listening at {}", service.listen);
        check_openness(&keys, service.listen).map_err(io(listening()))?;
        let certificate = service.tls.clone().map(Certificate::open).transpose();
        let certificate =
            certificate.map_err(|error| io("the certificate".to_owned())(std::io::Error::other(error)))?;
        let listener = TcpListener::bind(service.listen).await.map_err(io(listening()))?;
        let address = listener.local_addr().map_err(io("asking for the own address".to_owned()))?;
        let listener = Arc::new(listener);
        let mut tails = Vec::new();
        for shard in settings.candidates.clone() {
            let rules = rules_of(&ServiceSettings { shard, ..service.clone() }, scenario)?;
            drop(Election::connect(settings.place(shard)).await?);
            let tail = Tail::start(settings.place(shard), rules, settings.poll);
            tails.push((shard, tail.map_err(io("starting a thread".to_owned()))?));
        }
        let shard = settings.candidates[0];
        let (directory, asking) = Directory::start(settings.place(shard), settings.poll, settings.lease);
        let door = Door {
            directory: directory.clone(),
            shard,
            shards: settings.shards,
            url: settings.url.clone(),
            fit: tails[0].1.fit(),
        };
        let tls = certificate.map(|certificate| TlsAcceptor::from(certificate.config()));
        let door = tokio::spawn(door.run(listener.clone(), tls));
        Ok(Self { settings, service, listener, address, directory, tails, door, asking })
    }

    /// Stands by, leads, and ends.
    ///
    /// # Errors
    /// [`HaError`] when it cannot take over.
    pub async fn run(
        mut self,
        scenario: &Scenario,
        crew: Box<MakeCrew<'_>>,
        mut asked: watch::Receiver<bool>,
    ) -> Result<HaEnd, HaError> {
        let Some(taken) = self.stand_by(&mut asked).await? else {
            self.door.abort();
            self.asking.abort();
            return Ok(HaEnd::Asked);
        };
        let end = self.lead(taken, scenario, crew, asked).await;
        self.asking.abort();
        end
    }

    /// Waits until it leads; `None` when it is asked to end before.
    async fn stand_by(&mut self, asked: &mut watch::Receiver<bool>) -> Result<Option<Taken>, HaError> {
        let mut seen = self.directory.seen();
        let mut said = None;
        let mut fits = vec![Fit::Same; self.tails.len()];
        loop {
            tokio::select! {
                _ = asked.wait_for(|end| *end) => return Ok(None),
                changed = seen.changed() => if changed.is_err() {
                    let what = "the task that asks for the leaders is gone".to_owned();
                    return Err(HaError::Settings(what));
                },
            }
            let now = seen.borrow_and_update().clone();
            self.tell(&now, &mut said);
            for (at, (shard, tail)) in self.tails.iter().enumerate() {
                if let Progress::Failed(why) = tail.progress() {
                    return Err(HaError::Tail { shard: *shard, why });
                }
                let fit = tail.fit().borrow().clone();
                match &fit {
                    Fit::Refused(why) => {
                        let (shard, why) = (*shard, why.clone());
                        return Err(HaError::OtherScenario { shard, why });
                    }
                    Fit::Differs(how) if fits[at] != fit => tracing::warn!("shard {shard}: {how}"),
                    Fit::Differs(_) | Fit::Same => {}
                }
                fits[at] = fit;
                let vacant = now.leaders.iter().find(|leader| leader.shard == *shard);
                let vacant = vacant.filter(|leader| now.at.is_some() && leader.silent > self.settings.lease);
                let Some(leader) = vacant.filter(|_| tail.progress() == Progress::Ready) else { continue };
                match self.take(*shard, leader.epoch).await {
                    Ok(Some((epoch, asked))) => {
                        let (shard, tail) = self.tails.swap_remove(at);
                        self.tails.clear();
                        return Ok(Some(Taken { shard, epoch, asked, tail }));
                    }
                    Ok(None) => {}
                    Err(error) => tracing::warn!("taking over failed: {error}"),
                }
            }
        }
    }

    /// Logs who leads when that changes.
    fn tell(&self, now: &Seen, said: &mut Option<(u64, String)>) {
        let first = self.settings.candidates[0];
        let Some(leader) = now.leaders.iter().find(|leader| leader.shard == first) else { return };
        let current = (leader.epoch, leader.holder.clone());
        if leader.epoch > 0 && said.as_ref() != Some(&current) {
            tracing::info!(epoch = leader.epoch, "standing by: {} leads shard {first}", leader.holder);
            *said = Some(current);
        }
    }

    /// Takes over; the epoch, and the moment from which its lease counts.
    async fn take(&self, shard: u16, seen: u64) -> Result<Option<(u64, Instant)>, StoreError> {
        let election = Election::reconnect(self.settings.place(shard)).await?;
        let HaSettings { lease, name, url, .. } = &self.settings;
        let Some(epoch) = election.take(shard, seen, *lease, name, url).await? else { return Ok(None) };
        // Taking over may have waited for an append under way, while the lease counts from before the question.
        let asked = Instant::now();
        Ok(election.renew(epoch).await?.then_some((epoch, asked)))
    }

    /// Leads until it may no more, or is asked to end.
    async fn lead(
        &self,
        taken: Taken,
        scenario: &Scenario,
        crew: Box<MakeCrew<'_>>,
        mut asked: watch::Receiver<bool>,
    ) -> Result<HaEnd, HaError> {
        let HaSettings { lease, renew, shards, .. } = self.settings;
        let Taken { shard, epoch, asked: since, tail } = taken;
        let gate = Arc::new(LeaseGate::open(since, lease));
        let place = self.settings.place(shard);
        let renewal = Renewal { place, epoch, gate: gate.clone(), lease, every: renew };
        let lead = Lead::start(renewal)
            .map_err(|error| HaError::Io { what: "starting a thread".to_owned(), error })?;
        tracing::info!(epoch, "leads shard {shard} as of now");
        let seat = Seat { shard, shards, gate: gate.clone(), directory: self.directory.clone() };
        let begin = async {
            let (store, fold) = tail.finish(epoch).await?;
            let settings = ServiceSettings { shard, ..self.service.clone() };
            let rules = rules_of(&settings, scenario)?;
            let open = move || Engine::resume(store, fold, unix_ms());
            let place = Some((seat, self.listener.clone()));
            Ok::<_, HaError>(Service::start_seated(open, rules, settings, place, crew).await?)
        };
        let service = tokio::select! {
            service = begin => service,
            why = lead.lost() => return Ok(HaEnd::Deposed(why)),
        };
        let service = match service {
            Ok(service) => service,
            Err(error) => {
                lead.resign().await;
                return Err(error);
            }
        };
        self.door.abort();
        tracing::info!(
            epoch,
            commands = service.recovery.commands,
            "serves shard {shard} {:.3} s after taking over",
            since.elapsed().as_secs_f64()
        );
        let ended = service.run(async move {
            let _ = asked.wait_for(|end| *end).await;
        });
        let end = tokio::select! {
            end = ended => end,
            why = lead.lost() => return Ok(HaEnd::Deposed(why)),
        };
        // Nothing is written any more: a standby need not wait for the lease to end.
        lead.resign().await;
        Ok(match end {
            End::Asked => HaEnd::Asked,
            End::Failed(error @ StoreError::Fenced { .. }) => HaEnd::Deposed(error.to_string()),
            End::Failed(error) => HaEnd::Failed(error),
            End::Panicked => HaEnd::Panicked,
        })
    }
}

/// A shard that was taken over.
struct Taken {
    shard: u16,
    epoch: u64,
    /// The moment before the database was asked.
    asked: Instant,
    tail: Tail,
}

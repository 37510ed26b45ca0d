//! A standby's fold of the journal: it reads along while another leads, so that to take over it has only the rest to
//! read. A thread of its own; it writes nothing.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::engine::{Fold, OpenError};
use crate::plane::{Rules, Served};
use crate::store::{Doing, PostgresPlace, PostgresStore, StoreError};

/// Attempts to read the rest before a take-over is given up.
const LAST_TRIES: u32 = 3;

/// Pause between two attempts.
const AGAIN: Duration = Duration::from_millis(200);

/// A journal that was read to its end, to be written on.
pub(super) type Read = (PostgresStore, Fold);

/// How the scenario of a plane that stands by goes with the leader's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It is the same, or nobody has led yet.
    Same,
    /// It is another, and would be in force once this plane leads.
    Differs(String),
    /// The plane could not go on under it.
    Refused(String),
}

type Reply = oneshot::Sender<Result<Read, OpenError>>;

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It has not come to the end yet.
    Reading,
    /// It was at the end a moment ago.
    Ready,
    /// It cannot be read.
    Failed(String),
}

/// Reads along.
pub(super) struct Tail {
    orders: Sender<(u64, Reply)>,
    progress: watch::Receiver<Progress>,
    fit: watch::Receiver<Fit>,
}

impl Tail {
    /// Begins to read the journal at `place`, and again every `poll`.
    pub(super) fn start(place: PostgresPlace, rules: Rules, poll: Duration) -> std::io::Result<Self> {
        let (orders, receiver) = channel();
        let (sender, progress) = watch::channel(Progress::Reading);
        let (fits, fit) = watch::channel(Fit::Same);
        let mut reader = Reader { place, rules, store: None, fold: None, compared: None, fits };
        std::thread::Builder::new()
            .name("tail".to_owned())
            .spawn(move || reader.run(&receiver, &sender, poll))?;
        Ok(Self { orders, progress, fit })
    }

    /// How the own scenario goes with the leader's, as far as the journal was read.
    pub(super) fn fit(&self) -> watch::Receiver<Fit> {
        self.fit.clone()
    }

    /// How far it is.
    pub(super) fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// Reads the rest as the leader of `epoch`, and gives all of it.
    pub(super) async fn finish(self, epoch: u64) -> Result<Read, OpenError> {
        let (reply, read) = oneshot::channel();
        let gone = || {
            let what = "the thread that reads the journal is gone".to_owned();
            let (doing, place) = (Doing::Reading, "this process".to_owned());
            OpenError::Store(StoreError::Failed { doing, place, what })
        };
        self.orders.send((epoch, reply)).map_err(|_| gone())?;
        read.await.map_err(|_| gone())?
    }
}

struct Reader {
    place: PostgresPlace,
    rules: Rules,
    store: Option<PostgresStore>,
    fold: Option<Fold>,
    /// What the own scenario was last compared with.
    compared: Option<Served>,
    fits: watch::Sender<Fit>,
}

impl Reader {
    fn run(&mut self, orders: &Receiver<(u64, Reply)>, progress: &watch::Sender<Progress>, poll: Duration) {
        loop {
            match self.read() {
                Ok(()) => {
                    self.compare();
                    progress
                        .send_if_modified(|now| std::mem::replace(now, Progress::Ready) != Progress::Ready);
                }
                Err(error) if is_passing(&error) => {
                    tracing::warn!("reading along failed, trying on: {error}");
                    self.store = None;
                }
                Err(error) => {
                    progress.send_replace(Progress::Failed(error.to_string()));
                    return;
                }
            }
            match orders.recv_timeout(poll) {
                Ok((epoch, reply)) => {
                    let _ = reply.send(self.finish(epoch));
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Reads to the present end.
    fn read(&mut self) -> Result<(), OpenError> {
        let store = match &mut self.store {
            Some(store) => store,
            none => none.insert(PostgresStore::open(self.place.clone(), 0)?),
        };
        self.rules.secret = crate::store::Store::secret(store);
        let rules = &self.rules;
        let fold = self.fold.get_or_insert_with(|| Fold::new(rules.clone()));
        if fold.next() == 1 {
            return fold.recover(store);
        }
        let mut wrong = None;
        let read = store.tail(fold.next(), &mut |recovered| fold.visit(recovered, &mut wrong));
        wrong.map_or(Ok(()), Err)?;
        if let Err(StoreError::Damaged { what, .. }) = &read {
            // What it has not read may be forgotten by now. If it is not, the image does not help either.
            tracing::warn!("reading the journal anew from its latest image: {what}");
            *fold = Fold::new(rules.clone());
            return fold.recover(store);
        }
        Ok(read?)
    }

    /// Compares the own scenario with what the journal says that the leader was started with, when that is news.
    fn compare(&mut self) {
        let Some(fold) = &self.fold else { return };
        let Some(plane) = fold.plane() else { return };
        if plane.served() == self.compared.as_ref() && self.compared.is_some() {
            return;
        }
        let own = fold.rules();
        let fit = match (plane.accepts(own), plane.served()) {
            (Err(why), _) => Fit::Refused(why),
            (Ok(()), None) => Fit::Same,
            (Ok(()), Some(served)) => match served.rules(own.secret) {
                Ok(rules) if rules.decides_like(own) => Fit::Same,
                Ok(rules) => Fit::Differs(format!(
                    "the leader was started with {}, this plane with {}, which comes into force if it takes over",
                    named(&rules),
                    named(own)
                )),
                Err(error) => Fit::Refused(error.to_string()),
            },
        };
        self.compared = plane.served().cloned();
        self.fits.send_if_modified(|now| std::mem::replace(now, fit.clone()) != fit);
    }

    fn finish(&mut self, epoch: u64) -> Result<Read, OpenError> {
        let mut tries = 1;
        loop {
            match self.read() {
                Ok(()) => break,
                Err(error) if is_passing(&error) && tries < LAST_TRIES => {
                    self.store = None;
                    tries += 1;
                    std::thread::sleep(AGAIN);
                }
                Err(error) => return Err(error),
            }
        }
        let (mut store, fold) = self.store.take().zip(self.fold.take()).expect("both were read");
        store.lead(epoch);
        Ok((store, fold))
    }
}

/// A scenario for people; the settings of the plane may differ where the scenario is the same.
fn named(rules: &Rules) -> String {
    format!("scenario {} ({:.12})", rules.name, rules.digest)
}

/// Whether it may be different in a moment.
fn is_passing(error: &OpenError) -> bool {
    matches!(error, OpenError::Store(StoreError::Failed { .. } | StoreError::Full { .. }))
}

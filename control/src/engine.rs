//! The plane on its journal: commands in, durable, effects out. No thread, no clock, no socket; tests crash it anywhere.

use policy::units::{Duration, Instant};

use crate::clock::resumed;
use crate::command::Command;
use crate::effect::{Effect, JobRecord};
use crate::journal::{Seal, Sealer};
use crate::number::JobNumber;
use crate::plane::{ImageError, Plane, PlaneImage, Rules, Served, ServedError};
use crate::retention::{AT_ONCE, Forgetting, Retention};
use crate::store::{Batch, Mark, Recovered, Store, StoreError};

/// Bytes of journal after which an image is worth its cost.
const IMAGE_EVERY_BYTES: u64 = 256 << 20;

/// An image costs as much as writing the jobs in the system again, so the journal behind it must have grown by as many
/// commands per job.
const IMAGE_EVERY_COMMANDS_PER_JOB: u64 = 4;

/// A plane that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system cannot run.
    #[error(transparent)]
    System(#[from] policy::model::SystemError),
    /// The image in the store is none of this system.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// What the journal says that a plane was started with cannot be used by this release.
    #[error(
        "the journal was written under a scenario that cannot be used: {0}. Use the release that wrote it"
    )]
    Served(#[from] ServedError),
    /// The same, as far as the plane in the journal is concerned.
    #[error(
        "command {number} of the journal starts scenario `{name}`, which cannot follow the one before it"
    )]
    Unfollowed { number: u64, name: String },
    /// The plane in the journal cannot go on under what it is started with now.
    #[error(
        "the plane in the journal cannot go on under scenario `{name}`: {why}. Serve a scenario of the same shape as it was \
         served before, or give another data folder or database"
    )]
    OtherScenario { name: String, why: String },
}

/// What a recovery found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Time of the last command.
    pub last: Instant,
    /// The wall clock then, Unix milliseconds, as far as it is known.
    pub last_unix_ms: Option<u64>,
    /// Commands that were applied again.
    pub commands: u64,
    /// Whether an image was the start.
    pub from_image: bool,
}

/// A plane on its journal.
pub struct Engine<S> {
    plane: Plane,
    store: S,
    batch: Batch,
    effects: Vec<Effect>,
    /// What followed from the batch.
    sealer: Sealer,
    next: u64,
    commands_since_image: u64,
    bytes_since_image: u64,
    recovery: Recovery,
    retention: Option<Retention>,
}

impl<S: Store> Engine<S> {
    /// Folds the journal and takes over as the next epoch. What the plane before may not have done is among the first
    /// commit's effects.
    ///
    /// The journal is folded under the rules that it was written under, and goes on under `rules` where they are others
    /// than those that the plane before was started with; what an operator reloaded stays otherwise.
    ///
    /// `unix_ms` is the wall clock; `now` follows from it and the journal's last time.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(store: S, rules: Rules, unix_ms: u64) -> Result<Self, OpenError> {
        Self::open_noted(store, rules, None, unix_ms)
    }

    /// The same; `noted` is what the last plane was started with, for journals of releases that noted it elsewhere.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_noted(
        mut store: S,
        mut rules: Rules,
        noted: Option<&Served>,
        unix_ms: u64,
    ) -> Result<Self, OpenError> {
        rules.secret = store.secret();
        let mut fold = Fold::new(rules);
        if let Some(noted) = noted {
            fold.noted = Some(noted.rules(store.secret())?);
        }
        fold.recover(&mut store)?;
        Self::resume(store, fold, unix_ms)
    }

    /// Takes over as the next epoch where `fold` of the same store ended, which must be all of its journal.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn resume(store: S, fold: Fold, unix_ms: u64) -> Result<Self, OpenError> {
        let wanted = fold.wanted()?;
        let (plane, next, recovery) = fold.finish()?;
        let epoch = plane.epoch() + 1;
        // The clock goes on by the time that passed on the wall.
        let now = resumed(recovery.last, recovery.last_unix_ms, unix_ms);
        let mut engine = Self {
            commands_since_image: recovery.commands,
            bytes_since_image: 0,
            plane,
            store,
            batch: Batch { first: next, ..Batch::default() },
            effects: Vec::new(),
            sealer: Sealer::default(),
            next,
            recovery,
            retention: None,
        };
        engine.apply(now, Command::TookOver { epoch, unix_ms });
        if let Some(wanted) = wanted {
            engine.apply(now, Command::Served(Box::new(wanted)));
        }
        Ok(engine)
    }

    /// Applies one command; its effects come with the next commit.
    pub fn apply(&mut self, now: Instant, command: Command) {
        let now = now.max(self.plane.last());
        encode(&mut self.batch.body, now, &command);
        let index = self.batch.count;
        self.batch.count += 1;
        let from = self.effects.len();
        self.plane.apply(now, command, &mut self.effects);
        for effect in &self.effects[from..] {
            self.sealer.note(index, effect);
            if let Effect::Ended(record) = effect {
                self.batch.ended.push((record.job, encode_record(record)));
            }
        }
    }

    /// Makes everything applied so far durable; what follows from it is appended to `effects`.
    ///
    /// # Errors
    /// [`StoreError`]. After [`StoreError::Full`] nothing is lost and the call may be repeated; after any other the
    /// engine must be dropped and opened anew, since what is on disk is not known.
    pub fn commit(&mut self, effects: &mut Vec<Effect>) -> Result<(), StoreError> {
        if self.batch.count == 0 {
            return Ok(());
        }
        let bare = self.batch.body.len();
        self.sealer.seal().append_to(&mut self.batch.body);
        if let Err(error) = self.store.append(&self.batch) {
            self.batch.body.truncate(bare);
            return Err(error);
        }
        self.sealer.reset();
        self.next += self.batch.count;
        self.commands_since_image += self.batch.count;
        self.bytes_since_image += self.batch.body.len() as u64;
        self.batch.first = self.next;
        self.batch.count = 0;
        self.batch.body.clear();
        self.batch.ended.clear();
        effects.append(&mut self.effects);
        Ok(())
    }

    /// From now on forgets what has been over for `keep`, as [`Engine::forget_if_due`] is called; kept for ever without.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn retain(&mut self, keep: Duration) -> Result<(), StoreError> {
        self.retention = Some(Retention::new(keep, self.store.marks()?, self.plane.last()));
        Ok(())
    }

    /// Keeps an image when the journal behind the last one has grown enough, or one is to stay; everything must be
    /// committed.
    ///
    /// # Errors
    /// [`StoreError`]. After [`StoreError::Full`] the engine may go on; the next image is due when the journal has grown
    /// by as much again, or after a minute.
    pub fn keep_image_if_due(&mut self) -> Result<bool, StoreError> {
        let per_job = IMAGE_EVERY_COMMANDS_PER_JOB * self.plane.jobs_in_system() as u64;
        let has_grown = self.bytes_since_image > IMAGE_EVERY_BYTES && self.commands_since_image > per_job;
        let due = has_grown || (self.is_mark_due() && self.commands_since_image > 0);
        if due {
            self.bytes_since_image = 0;
            self.keep_image()?;
        }
        Ok(due)
    }

    fn is_mark_due(&self) -> bool {
        self.retention.as_ref().is_some_and(|retention| retention.is_mark_due(self.plane.last()))
    }

    /// Keeps an image now; everything must be committed.
    ///
    /// # Errors
    /// As [`Engine::commit`].
    pub fn keep_image(&mut self) -> Result<(), StoreError> {
        debug_assert_eq!(self.batch.count, 0, "an image is of durable state");
        let at = self.plane.last();
        let mark = Mark { upto: self.next - 1, at, ended_below: self.plane.ended_below() };
        let stays = self.is_mark_due();
        if let Some(retention) = self.retention.as_mut().filter(|_| stays) {
            retention.begin_mark(at);
        }
        self.store.keep_image(mark, &self.plane.image().encode(), stays)?;
        if let Some(retention) = self.retention.as_mut().filter(|_| stays) {
            retention.marked(mark);
        }
        self.commands_since_image = 0;
        self.bytes_since_image = 0;
        Ok(())
    }

    /// Forgets a part of what has been over for too long; `clock` is the plane's clock, which paces it.
    ///
    /// # Errors
    /// [`StoreError`]. After [`StoreError::Full`] the engine may go on; it is tried again after a minute.
    pub fn forget_if_due(&mut self, clock: Instant) -> Result<Forgetting, StoreError> {
        let Some(retention) = &mut self.retention else { return Ok(Forgetting::Idle) };
        let Some(mark) = retention.due(self.plane.last()) else { return Ok(Forgetting::Idle) };
        if !retention.may_forget(clock) {
            return Ok(Forgetting::UnderWay);
        }
        retention.begin_forgetting(clock);
        let part = self.store.forget(mark, AT_ONCE)?;
        Ok(retention.forgot(mark, part, clock))
    }

    /// The plane, to look at. Until the next commit it may show what is not durable.
    pub fn plane(&self) -> &Plane {
        &self.plane
    }

    /// Commands that are applied and not durable.
    pub fn pending(&self) -> u64 {
        self.batch.count
    }

    /// Bytes that are applied and not durable.
    pub fn pending_bytes(&self) -> usize {
        self.batch.body.len()
    }

    /// Number of the next command that becomes durable.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// What the start had to do.
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }
}

/// The fold of a journal, the number of the next command, and what it took.
///
/// # Errors
/// [`OpenError`].
pub fn fold<S: Store>(store: &mut S, mut rules: Rules) -> Result<(Plane, u64, Recovery), OpenError> {
    rules.secret = store.secret();
    let mut fold = Fold::new(rules);
    fold.recover(store)?;
    fold.finish()
}

/// A journal as far as it was read.
pub struct Fold {
    /// Those of the plane that will go on; also the journal's where nobody says which it has.
    rules: Rules,
    /// The journal's, where they stand beside it.
    noted: Option<Rules>,
    plane: Option<Plane>,
    next: u64,
    recovery: Recovery,
    effects: Vec<Effect>,
}

impl Fold {
    /// Of nothing yet. The rules must have the store's secret.
    pub fn new(rules: Rules) -> Self {
        let recovery = Recovery::default();
        Self { rules, noted: None, plane: None, next: 1, recovery, effects: Vec::new() }
    }

    /// The plane as far as the journal was read; none before its first command.
    pub fn plane(&self) -> Option<&Plane> {
        self.plane.as_ref()
    }

    /// The rules of the plane that will go on.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// What the journal must be told that the plane which goes on is started with; none where it knows, or nobody does.
    fn wanted(&self) -> Result<Option<Served>, OpenError> {
        let Some(wanted) = Served::of(&self.rules) else { return Ok(None) };
        let Some(plane) = &self.plane else { return Ok(Some(wanted)) };
        if let Some(served) = plane.served()
            && (*served == wanted || served.rules(self.rules.secret)?.decides_like(&self.rules))
        {
            return Ok(None);
        }
        match plane.accepts(&self.rules) {
            Ok(()) => Ok(Some(wanted)),
            Err(why) => Err(OpenError::OtherScenario { name: wanted.name, why }),
        }
    }

    /// Number of the first command that was not read.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Reads the latest image of a store, and all behind it.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn recover<S: Store>(&mut self, store: &mut S) -> Result<(), OpenError> {
        let mut wrong = None;
        let visited = store.recover(&mut |recovered| self.visit(recovered, &mut wrong));
        wrong.map_or(Ok(()), Err)?;
        Ok(visited?)
    }

    /// What a store's visit gives; an error of the plane's own is left in `wrong`.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where there is one.
    pub fn visit(&mut self, recovered: Recovered, wrong: &mut Option<OpenError>) -> Result<(), StoreError> {
        self.take(recovered).map_err(|error| {
            let what = error.to_string();
            *wrong = Some(error);
            StoreError::Damaged { place: "the store".to_owned(), what }
        })
    }

    fn take(&mut self, recovered: Recovered) -> Result<(), OpenError> {
        match recovered {
            Recovered::Image { upto, ref image } => {
                let rules = self.noted.as_ref().unwrap_or(&self.rules).clone();
                self.plane = Some(Plane::restore(rules, PlaneImage::decode(image)?)?);
                self.next = upto + 1;
                self.recovery.from_image = true;
            }
            Recovered::Batch { first, count, ref body } => {
                let plane = match &mut self.plane {
                    Some(plane) => plane,
                    none => {
                        let rules = match first_served(body)? {
                            Some(served) => served.rules(self.rules.secret)?,
                            None => self.noted.as_ref().unwrap_or(&self.rules).clone(),
                        };
                        none.insert(Plane::new(rules, &mut Vec::new())?)
                    }
                };
                self.next = first + count;
                self.recovery.commands += count;
                for (number, command) in (first..).zip(Commands::new(body)) {
                    let (now, command) = command?;
                    let served = match &command {
                        Command::Served(served) => Some(served.clone()),
                        _ => None,
                    };
                    plane.apply(now, command, &mut self.effects);
                    self.effects.clear();
                    if let Some(served) = served
                        && plane.served() != Some(&*served)
                    {
                        return Err(OpenError::Unfollowed { number, name: served.name });
                    }
                }
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<(Plane, u64, Recovery), OpenError> {
        let plane = match self.plane {
            Some(plane) => plane,
            None => Plane::new(self.rules, &mut Vec::new())?,
        };
        let recovery = Recovery { last: plane.last(), last_unix_ms: plane.last_unix_ms(), ..self.recovery };
        Ok((plane, self.next, recovery))
    }
}

/// What the plane that wrote a journal's first batch was started with, where the batch says it.
///
/// # Errors
/// [`StoreError::Damaged`].
pub fn first_served(body: &[u8]) -> Result<Option<Served>, StoreError> {
    for command in Commands::new(body) {
        if let (_, Command::Served(served)) = command? {
            return Ok(Some(*served));
        }
    }
    Ok(None)
}

fn encode(body: &mut Vec<u8>, now: Instant, command: &Command) {
    let at = body.len();
    body.extend_from_slice(&[0; 4]);
    let taken = postcard::to_extend(&(now, command), std::mem::take(body)).expect("commands encode");
    *body = taken;
    let length = (body.len() - at - 4) as u32;
    body[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

/// The commands of a batch, with their times.
pub struct Commands<'a> {
    body: &'a [u8],
    seal: Option<Seal>,
}

impl<'a> Commands<'a> {
    /// Reads the body of a batch.
    pub fn new(body: &'a [u8]) -> Self {
        Self { body, seal: None }
    }

    /// What followed from the batch, once all commands are taken; none in journals from before there were seals.
    pub fn into_seal(self) -> Option<Seal> {
        self.seal
    }
}

impl Iterator for Commands<'_> {
    type Item = Result<(Instant, Command), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.body.is_empty() {
            return None;
        }
        if let Some(seal) = Seal::at_start(self.body) {
            self.body = &[];
            self.seal = seal;
            return if self.seal.is_some() { None } else { Some(Err(unreadable())) };
        }
        let mut read = || {
            let (head, rest) = self.body.split_at_checked(4)?;
            let length = u32::from_le_bytes(head.try_into().ok()?) as usize;
            let (bytes, rest) = rest.split_at_checked(length)?;
            self.body = rest;
            postcard::from_bytes(bytes).ok()
        };
        let read = read();
        Some(read.ok_or_else(|| {
            self.body = &[];
            unreadable()
        }))
    }
}

fn unreadable() -> StoreError {
    StoreError::Damaged { place: "the journal".to_owned(), what: "a command cannot be read".to_owned() }
}

/// Encodes an ended job for the store.
pub fn encode_record(record: &JobRecord) -> Vec<u8> {
    postcard::to_stdvec(record).expect("records encode")
}

/// Reads an ended job from the store.
///
/// # Errors
/// [`StoreError::Damaged`].
pub fn decode_record(job: JobNumber, bytes: &[u8]) -> Result<JobRecord, StoreError> {
    postcard::from_bytes(bytes).map_err(|_| StoreError::Damaged {
        place: "the ended jobs".to_owned(),
        what: format!("{job} cannot be read"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::Patience;
    use crate::specimen::specimen;
    use crate::store::{Archive, Disk, DiskStore, Forgotten, Visit};

    /// Takes commands, and has no room for an image.
    struct Narrow(DiskStore);

    impl Store for Narrow {
        fn recover(&mut self, visit: &mut Visit<'_>) -> Result<(), StoreError> {
            self.0.recover(visit)
        }

        fn history(&mut self, visit: &mut Visit<'_>) -> Result<(), StoreError> {
            self.0.history(visit)
        }

        fn append(&mut self, batch: &Batch) -> Result<(), StoreError> {
            self.0.append(batch)
        }

        fn keep_image(&mut self, _: Mark, _: &[u8], _: bool) -> Result<(), StoreError> {
            Err(StoreError::Full { place: "here".to_owned() })
        }

        fn marks(&mut self) -> Result<Vec<Mark>, StoreError> {
            self.0.marks()
        }

        fn forget(&mut self, mark: Mark, limit: usize) -> Result<Forgotten, StoreError> {
            self.0.forget(mark, limit)
        }

        fn archive(&self) -> Box<dyn Archive> {
            self.0.archive()
        }

        fn secret(&self) -> [u8; 32] {
            self.0.secret()
        }
    }

    #[test]
    fn without_room_for_an_image_the_journal_goes_on_and_the_next_is_due_as_much_later() {
        let rules = Rules::new(&specimen(2).scenario, 0, [0; 32], Patience::default()).unwrap();
        let disk = Disk::default();
        let mut engine = Engine::open(Narrow(DiskStore::open(&disk)), rules, 0).unwrap();
        engine.commit(&mut Vec::new()).unwrap();
        engine.bytes_since_image = IMAGE_EVERY_BYTES + 1;
        assert!(matches!(engine.keep_image_if_due(), Err(StoreError::Full { .. })));
        assert!(matches!(engine.keep_image_if_due(), Ok(false)), "not at every turn");
        let now = engine.plane().last();
        engine.apply(now, Command::Tick);
        engine.commit(&mut Vec::new()).unwrap();
        engine.bytes_since_image = IMAGE_EVERY_BYTES + 1;
        assert!(matches!(engine.keep_image_if_due(), Err(StoreError::Full { .. })));
    }
}

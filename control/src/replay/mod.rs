//! A journal folded again: whether it gives the same decisions, and what it says of a day's traffic. Reads only.

mod traffic;
mod verify;

pub use traffic::{Arrival, Counts, Measured, Traffic, live_outcomes};
pub use verify::{Difference, Verdict, verify};

use policy::model::SystemError;
use policy::units::Instant;

use crate::command::Command;
use crate::effect::Effect;
use crate::engine::{Commands, first_served};
use crate::journal::{Seal, Sealer};
use crate::plane::{ImageError, Plane, PlaneImage, Rules, Served, ServedError};
use crate::store::{Recovered, Store, StoreError};

/// The rules under which a journal that does not say it was written, from an epoch on.
#[derive(Clone, Debug)]
pub struct Origin {
    /// First plane that ran under them.
    pub epoch: u64,
    /// The rules; the secret is the store's.
    pub rules: Rules,
}

/// A journal that cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The rules describe no system.
    #[error(transparent)]
    System(#[from] SystemError),
    /// What it was started with cannot be used by this release.
    #[error("the journal was written under a scenario that cannot be used: {0}")]
    Served(#[from] ServedError),
    /// Nobody said under which rules.
    #[error("under which scenario the journal was written is not known; name it with --scenario")]
    NoOrigin,
    /// The image that it begins with cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// It was cut.
    #[error("commands before number {0} are not kept: a journal is replayed from its first command")]
    Cut(u64),
}

/// A command that was applied again.
pub struct Step<'a> {
    /// Its number.
    pub number: u64,
    /// Its time.
    pub now: Instant,
    /// The command.
    pub command: &'a Command,
    /// The plane behind it.
    pub plane: &'a Plane,
    /// What followed.
    pub effects: &'a [Effect],
}

/// A batch that was applied again.
pub struct Batch<'a> {
    /// Number of its first command.
    pub first: u64,
    /// How many commands.
    pub count: u64,
    /// Time of its last command.
    pub at: Instant,
    /// What followed now.
    pub replayed: &'a Seal,
    /// What followed then, where it was noted.
    pub recorded: Option<Seal>,
}

/// Looks on while a journal is folded.
pub trait Watch {
    /// The journal's beginning is forgotten: `plane` is as it was before the first command that is kept, number `first`.
    fn begin(&mut self, _plane: &Plane, _first: u64) {}

    /// A command was applied.
    ///
    /// # Errors
    /// Ends the replay.
    fn step(&mut self, step: &Step<'_>) -> Result<(), StoreError>;

    /// A batch was.
    ///
    /// # Errors
    /// Ends the replay.
    fn batch(&mut self, _batch: &Batch<'_>) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Folds a journal again under the rules that its planes had. Gives back the plane at its end.
///
/// A journal says itself what its planes were started with. Those of earlier releases do not: `origins` are the rules of
/// such planes, in order. A plane of those that began under other rules than the one before had folded the whole journal
/// under its own, so that is what is done here: stretches before its own are folded unseen.
///
/// # Errors
/// [`ReplayError`].
pub fn walk(store: &mut dyn Store, origins: &[Origin], watch: &mut dyn Watch) -> Result<Plane, ReplayError> {
    let mut stretches: Vec<&Origin> = origins.iter().collect();
    stretches.dedup_by(|later, earlier| later.rules.decides_like(&earlier.rules));
    let Some((last, before)) = stretches.split_last() else {
        return stretch(store, None, 0..u64::MAX, watch).map(|(plane, _)| plane);
    };
    for (index, origin) in before.iter().enumerate() {
        // Whatever came before the first start that was noted belongs to it.
        let from = if index == 0 { 0 } else { origin.epoch };
        let (plane, is_whole) = stretch(store, Some(&origin.rules), from..stretches[index + 1].epoch, watch)?;
        if is_whole {
            return Ok(plane);
        }
    }
    let from = if before.is_empty() { 0 } else { last.epoch };
    stretch(store, Some(&last.rules), from..u64::MAX, watch).map(|(plane, _)| plane)
}

/// Folds everything before the end of `epochs` under `rules`, and shows what is in them. A journal that says itself what
/// it was started with is folded and shown from end to end, for which the other value is true.
fn stretch(
    store: &mut dyn Store,
    rules: Option<&Rules>,
    mut epochs: std::ops::Range<u64>,
    watch: &mut dyn Watch,
) -> Result<(Plane, bool), ReplayError> {
    let secret = store.secret();
    let mut folded: Option<Plane> = None;
    let mut wrong = None;
    let mut is_whole = false;
    let mut effects = Vec::new();
    let mut sealer = Sealer::default();
    let (mut cut, mut expected, mut is_over) = (None, 1, false);
    store.history(&mut |recovered| {
        let (first, count, body) = match recovered {
            Recovered::Batch { first, count, body } => (first, count, body),
            Recovered::Image { upto, image } => {
                match base(&image, rules, secret) {
                    Ok((plane, says)) => {
                        is_whole = says;
                        if is_whole {
                            epochs = 0..u64::MAX;
                        }
                        if epochs.contains(&plane.epoch()) {
                            watch.begin(&plane, upto + 1);
                        }
                        folded = Some(plane);
                    }
                    Err(error) => wrong = Some(error),
                }
                expected = upto + 1;
                return Ok(());
            }
        };
        if first != expected {
            cut = cut.or(Some(first));
        }
        expected = first + count;
        if cut.is_some() || is_over || wrong.is_some() {
            return Ok(());
        }
        let plane = match &mut folded {
            Some(plane) => plane,
            none => {
                let served = first_served(&body)?;
                is_whole = served.is_some();
                if is_whole {
                    epochs = 0..u64::MAX;
                }
                match begin(served, rules, secret) {
                    Ok(plane) => none.insert(plane),
                    Err(error) => {
                        wrong = Some(error);
                        return Ok(());
                    }
                }
            }
        };
        let mut commands = Commands::new(&body);
        let mut is_seen = epochs.contains(&plane.epoch());
        for (index, command) in commands.by_ref().enumerate() {
            let (now, command) = command?;
            // A plane's first command opens its first batch.
            if let Command::TookOver { epoch, .. } = command {
                if epoch >= epochs.end {
                    is_over = true;
                    return Ok(());
                }
                is_seen = epochs.contains(&epoch);
            }
            plane.apply(now, command.clone(), &mut effects);
            if is_seen {
                effects.iter().for_each(|effect| sealer.note(index as u64, effect));
                let number = first + index as u64;
                watch.step(&Step { number, now, command: &command, plane, effects: &effects })?;
            }
            effects.clear();
        }
        if is_seen {
            let recorded = commands.into_seal();
            watch.batch(&Batch { first, count, at: plane.last(), replayed: sealer.seal(), recorded })?;
        }
        sealer.reset();
        Ok(())
    })?;
    if let Some(first) = cut {
        return Err(ReplayError::Cut(first));
    }
    if let Some(error) = wrong {
        return Err(error);
    }
    let plane = match folded {
        Some(plane) => plane,
        None => begin(None, rules, secret)?,
    };
    Ok((plane, is_whole))
}

/// The plane of the image that a journal begins with, and whether the image says what the plane was started with.
fn base(image: &[u8], rules: Option<&Rules>, secret: [u8; 32]) -> Result<(Plane, bool), ReplayError> {
    let image = PlaneImage::decode(image)?;
    let rules = rules_of(image.served(), rules, secret)?;
    let says = image.served().is_some();
    Ok((Plane::restore(rules, image)?, says))
}

/// The plane before its first command.
fn begin(served: Option<Served>, rules: Option<&Rules>, secret: [u8; 32]) -> Result<Plane, ReplayError> {
    Ok(Plane::new(rules_of(served.as_ref(), rules, secret)?, &mut Vec::new())?)
}

/// The rules that a journal says itself, else those that somebody named.
fn rules_of(served: Option<&Served>, rules: Option<&Rules>, secret: [u8; 32]) -> Result<Rules, ReplayError> {
    match (served, rules) {
        (Some(served), _) => Ok(served.rules(secret)?),
        (None, Some(rules)) => Ok(rules.clone()),
        (None, None) => Err(ReplayError::NoOrigin),
    }
}

#[cfg(test)]
mod changed_tests;
#[cfg(test)]
mod tests;

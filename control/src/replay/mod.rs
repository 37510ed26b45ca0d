//! A journal folded again: whether it gives the same decisions, and what it says of a day's traffic. Reads only.

mod traffic;
mod verify;

pub use traffic::{Arrival, Counts, Measured, Traffic, live_outcomes};
pub use verify::{Difference, Verdict, verify};

use policy::model::SystemError;
use policy::units::Instant;

use crate::command::Command;
use crate::effect::Effect;
use crate::engine::Commands;
use crate::journal::{Seal, Sealer};
use crate::plane::{Plane, Rules};
use crate::store::{Recovered, Store, StoreError};

/// The rules under which a journal was written, from an epoch on.
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
    /// Nobody said under which rules.
    #[error("under which scenario the journal was written is not known; name it with --scenario")]
    NoOrigin,
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

/// Folds a journal again, each stretch under the rules that its planes had. Gives back the plane at its end.
///
/// A plane that began under other rules than the one before had folded the whole journal under its own, so that is what
/// is done here: stretches before its own are folded unseen.
///
/// # Errors
/// [`ReplayError`].
pub fn walk(store: &mut dyn Store, origins: &[Origin], watch: &mut dyn Watch) -> Result<Plane, ReplayError> {
    let mut stretches: Vec<&Origin> = origins.iter().collect();
    stretches.dedup_by(|later, earlier| later.rules == earlier.rules);
    let mut last = None;
    for (index, origin) in stretches.iter().enumerate() {
        // Whatever came before the first start that was noted belongs to it.
        let from = if index == 0 { 0 } else { origin.epoch };
        let to = stretches.get(index + 1).map_or(u64::MAX, |next| next.epoch);
        last = Some(stretch(store, &origin.rules, from..to, watch)?);
    }
    last.ok_or(ReplayError::NoOrigin)
}

/// Folds everything before the end of `epochs` under `rules`, and shows what is in them.
fn stretch(
    store: &mut dyn Store,
    rules: &Rules,
    epochs: std::ops::Range<u64>,
    watch: &mut dyn Watch,
) -> Result<Plane, ReplayError> {
    let mut plane = Plane::new(rules.clone(), &mut Vec::new())?;
    let mut effects = Vec::new();
    let mut sealer = Sealer::default();
    let (mut cut, mut expected, mut is_over) = (None, 1, false);
    store.history(&mut |recovered| {
        let Recovered::Batch { first, count, body } = recovered else { return Ok(()) };
        if first != expected {
            cut = cut.or(Some(first));
        }
        expected = first + count;
        if cut.is_some() || is_over {
            return Ok(());
        }
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
                watch.step(&Step { number, now, command: &command, plane: &plane, effects: &effects })?;
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
    match cut {
        Some(first) => Err(ReplayError::Cut(first)),
        None => Ok(plane),
    }
}

#[cfg(test)]
mod tests;

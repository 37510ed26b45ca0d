//! What a journal says beside its commands: under which scenario it was written, and what followed from each batch.
//! Reading only; the engine writes. A journal can be read while its plane runs.

mod seal;
mod starts;

pub use seal::{Row, Seal, Sealer};
pub use starts::{Start, StartsError, note_start, read_starts};

pub use crate::plane::ScenarioText;

use policy::units::Instant;

use crate::command::Command;
use crate::engine::Commands;
use crate::store::{Recovered, Store, StoreError};

/// Visits every command that is still kept, in order, with its number and time.
///
/// # Errors
/// [`StoreError`], or what `visit` returned.
pub fn history(
    store: &mut dyn Store,
    visit: &mut dyn FnMut(u64, Instant, Command) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    store.history(&mut |recovered| {
        let Recovered::Batch { first, body, .. } = recovered else { return Ok(()) };
        for (number, command) in (first..).zip(Commands::new(&body)) {
            let (now, command) = command?;
            visit(number, now, command)?;
        }
        Ok(())
    })
}

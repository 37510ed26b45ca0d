//! Machines for the plane: orders come from it, providers carry them out, and what became of each goes back as a command.
//!
//! Every order carries its launch token, and comes again after a restart: providers must answer a token that they know with
//! the machine that they made for it. Nothing here decides how many machines there are, or of which pool.

mod driver;
pub mod ec2;
mod guard;
mod hosted;
mod manual;
mod process;
mod reconcile;
mod rehearsal;

pub use driver::{Fleet, FleetSettings};
pub use guard::SpendLimits;
pub use hosted::{Hosted, end_all};
pub use manual::ManualProvider;
pub use process::{LAUNCH_VARIABLE, ProcessProvider, ProcessSettings};
pub use rehearsal::{Fate, Fates, Loss, Rehearsal};

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use policy::model::PoolId;
use tokio::sync::mpsc;

use crate::command::{Command, LaunchRefusal, LaunchToken};

/// What a provider's call gives.
pub type Answered<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Makes and ends the machines of some pools. Calls for different tokens may run at the same time; a provider that gathers
/// them into one request does so inside.
pub trait Provider: Send + Sync + 'static {
    /// What logs and messages call it.
    fn name(&self) -> &'static str;

    /// Launches one machine for `pool`, whose worker joins with `token`. Gives the provider's name of it, or `None` where
    /// nobody knows it yet: then the worker joins by itself.
    ///
    /// Called again with a token that has a machine, it gives that machine and launches none.
    fn launch(&self, token: LaunchToken, pool: PoolId) -> Answered<'_, Result<Option<String>, LaunchError>>;

    /// Ends the machine of `token`; without a `handle` it is looked up. `Ok` says that there is none, or that it is ending
    /// for certain: its costs end. Machines that this provider did not make are never touched.
    fn terminate(
        &self,
        token: LaunchToken,
        handle: Option<String>,
    ) -> Answered<'_, Result<(), ProviderError>>;

    /// All machines that this provider made for this plane and that are alive, those from before a restart included.
    fn list(&self) -> Answered<'_, Result<Vec<Own>, ProviderError>>;

    /// How long a machine may be missing from [`Provider::list`] although it lives.
    fn list_lag(&self) -> Duration {
        Duration::ZERO
    }
}

/// A machine that a provider made and that is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// The launch that it was made for.
    pub token: LaunchToken,
    /// The provider's name of it.
    pub handle: String,
}

/// A launch that made no machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// The provider says no; the dispatcher decides what comes next.
    #[error("refused: {0:?}")]
    Refused(LaunchRefusal),
    /// Whether it made one is not known, or it may do so soon: the same token is tried again.
    #[error(transparent)]
    Again(#[from] ProviderError),
}

/// A provider that could not be asked, or gave no answer that can be read. The call is made again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{provider}: {what}")]
pub struct ProviderError {
    /// Which.
    pub provider: &'static str,
    /// What happened, and what to do about it where that is known.
    pub what: String,
}

/// What providers tell without being asked. Cheap to clone.
#[derive(Clone, Debug)]
pub struct News(mpsc::UnboundedSender<Command>);

impl News {
    /// A pair: providers tell, [`Fleet`] listens.
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Command>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// A machine is gone, asked for or not.
    pub fn gone(&self, token: LaunchToken) {
        let _ = self.0.send(Command::MachineGone { token });
    }

    /// A machine will be taken away in `seconds`.
    pub fn notice(&self, token: LaunchToken, seconds: u32) {
        let _ = self.0.send(Command::MachineNotice { token, seconds });
    }
}

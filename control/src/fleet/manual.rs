//! Pools whose workers join by themselves: somebody starts them, or they run anyway.

use policy::model::PoolId;

use super::{Answered, LaunchError, Own, Provider, ProviderError};
use crate::command::LaunchToken;

/// Launches nothing and ends nothing: workers stand by until the plane wants them, and stand by again when it does not.
#[derive(Clone, Copy, Debug, Default)]
pub struct ManualProvider;

impl Provider for ManualProvider {
    fn name(&self) -> &'static str {
        "manual"
    }

    fn launch(&self, _: LaunchToken, _: PoolId) -> Answered<'_, Result<Option<String>, LaunchError>> {
        Box::pin(async { Ok(None) })
    }

    fn terminate(&self, _: LaunchToken, _: Option<String>) -> Answered<'_, Result<(), ProviderError>> {
        Box::pin(async { Ok(()) })
    }

    fn list(&self) -> Answered<'_, Result<Vec<Own>, ProviderError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

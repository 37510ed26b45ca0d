//! Machines of another provider whose workers are played: what a rehearsal on a cloud runs on. The host makes and ends
//! machines by its own interface, limits and tags; nothing need run on them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use policy::model::PoolId;

use super::{Answered, LaunchError, Own, Provider, ProviderError, Rehearsal};
use crate::command::LaunchToken;

/// Machines of a host, each with a played worker.
///
/// A launch that the host refuses is refused, and so is one that the played market refuses. A played machine that is taken
/// away leaves the host's behind: the fleet's comparison ends it, since no launch needs it any more.
pub struct Hosted {
    host: Arc<dyn Provider>,
    played: Rehearsal,
}

impl Hosted {
    /// Machines of `host` with the workers of `played`.
    pub fn new(host: Arc<dyn Provider>, played: Rehearsal) -> Self {
        Self { host, played }
    }
}

impl Provider for Hosted {
    fn name(&self) -> &'static str {
        self.host.name()
    }

    fn launch(&self, token: LaunchToken, pool: PoolId) -> Answered<'_, Result<Option<String>, LaunchError>> {
        Box::pin(async move {
            let handle = self.host.launch(token, pool).await?;
            match self.played.launch(token, pool).await {
                Ok(_) => Ok(handle),
                Err(refused) => {
                    self.host.terminate(token, handle).await?;
                    Err(refused)
                }
            }
        })
    }

    fn terminate(
        &self,
        token: LaunchToken,
        handle: Option<String>,
    ) -> Answered<'_, Result<(), ProviderError>> {
        Box::pin(async move {
            self.host.terminate(token, handle).await?;
            self.played.terminate(token, None).await
        })
    }

    fn list(&self) -> Answered<'_, Result<Vec<Own>, ProviderError>> {
        self.host.list()
    }

    fn list_lag(&self) -> Duration {
        self.host.list_lag()
    }
}

/// Ends every machine that `provider` has, and asks again until it lists none; returns how many there were.
///
/// # Errors
/// What the provider said last when machines are left after `patience`.
pub async fn end_all(provider: &dyn Provider, patience: Duration) -> Result<usize, ProviderError> {
    let until = tokio::time::Instant::now() + patience;
    let mut ended = BTreeSet::new();
    loop {
        let outcome = end_listed(provider, &mut ended).await;
        match outcome {
            Ok(0) => return Ok(ended.len()),
            Ok(left) if tokio::time::Instant::now() > until => {
                let what = format!("{left} machines are still listed");
                return Err(ProviderError { provider: provider.name(), what });
            }
            Err(error) if tokio::time::Instant::now() > until => return Err(error),
            Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    }
}

/// Asks for the end of every machine that is listed; returns how many are.
async fn end_listed(
    provider: &dyn Provider,
    ended: &mut BTreeSet<LaunchToken>,
) -> Result<usize, ProviderError> {
    let own = provider.list().await?;
    for machine in &own {
        provider.terminate(machine.token, Some(machine.handle.clone())).await?;
        ended.insert(machine.token);
    }
    Ok(own.len())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use super::*;
    use crate::command::LaunchRefusal;
    use crate::fleet::{Fate, Fates, News};
    use crate::specimen::specimen;
    use crate::worker::Address;

    /// A host with room for so many machines, whose first list after an end fails.
    struct Cloud {
        room: usize,
        machines: Mutex<BTreeMap<LaunchToken, String>>,
        stutters: Mutex<u32>,
    }

    impl Cloud {
        fn count(&self) -> usize {
            self.machines.lock().unwrap().len()
        }
    }

    impl Provider for Cloud {
        fn name(&self) -> &'static str {
            "cloud"
        }

        fn launch(&self, token: LaunchToken, _: PoolId) -> Answered<'_, Result<Option<String>, LaunchError>> {
            Box::pin(async move {
                let mut machines = self.machines.lock().unwrap();
                if machines.len() == self.room && !machines.contains_key(&token) {
                    return Err(LaunchError::Refused(LaunchRefusal::InsufficientCapacity));
                }
                Ok(Some(machines.entry(token).or_insert_with(|| format!("i-{token}")).clone()))
            })
        }

        fn terminate(
            &self,
            token: LaunchToken,
            _: Option<String>,
        ) -> Answered<'_, Result<(), ProviderError>> {
            Box::pin(async move {
                self.machines.lock().unwrap().remove(&token);
                Ok(())
            })
        }

        fn list(&self) -> Answered<'_, Result<Vec<Own>, ProviderError>> {
            Box::pin(async move {
                let mut stutters = self.stutters.lock().unwrap();
                if *stutters > 0 {
                    *stutters -= 1;
                    return Err(ProviderError { provider: "cloud", what: "throttled".to_owned() });
                }
                let machines = self.machines.lock().unwrap();
                Ok(machines
                    .iter()
                    .map(|(token, handle)| Own { token: *token, handle: handle.clone() })
                    .collect())
            })
        }
    }

    /// Machines that boot for an hour; the third is refused.
    struct Market;

    impl Fates for Market {
        fn launch(&mut self, machine: u32, _: PoolId) -> Fate {
            let booted = Duration::from_secs(3600);
            match machine {
                2 => Fate::Refused { after: Duration::ZERO },
                _ => Fate::Starts { booted, ready: booted, lost: None },
            }
        }

        fn gone(&mut self, _: u32, _: PoolId) {}
    }

    fn house(room: usize) -> (Arc<Cloud>, Rehearsal, Hosted) {
        let address = Address::new("http://127.0.0.1:9", "", None).unwrap();
        let (news, _) = News::channel();
        let played = Rehearsal::new(address, specimen(1).scenario, news, Box::new(Market));
        let cloud = Arc::new(Cloud { room, machines: Mutex::default(), stutters: Mutex::new(0) });
        (cloud.clone(), played.clone(), Hosted::new(cloud, played))
    }

    #[tokio::test]
    async fn a_machine_is_the_hosts_and_its_worker_is_played() {
        let (cloud, played, hosted) = house(3);
        for token in [1, 2, 1] {
            let handle = hosted.launch(LaunchToken(token), PoolId(0)).await.unwrap();
            assert_eq!(handle, Some(format!("i-{}", LaunchToken(token))));
        }
        assert_eq!((cloud.count(), played.list().await.unwrap().len()), (2, 2));
        hosted.terminate(LaunchToken(1), None).await.unwrap();
        let left: Vec<_> = hosted.list().await.unwrap().into_iter().map(|own| own.handle).collect();
        assert_eq!(left, [format!("i-{}", LaunchToken(2))]);
        assert_eq!(played.list().await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn who_is_refused_by_either_has_neither() {
        let (cloud, played, hosted) = house(3);
        for token in [1, 2] {
            hosted.launch(LaunchToken(token), PoolId(0)).await.unwrap();
        }
        let refused = LaunchError::Refused(LaunchRefusal::InsufficientCapacity);
        assert_eq!(hosted.launch(LaunchToken(3), PoolId(0)).await, Err(refused.clone()), "by the market");
        assert_eq!((cloud.count(), played.list().await.unwrap().len()), (2, 2));
        let (cloud, played, hosted) = house(0);
        assert_eq!(hosted.launch(LaunchToken(1), PoolId(0)).await, Err(refused), "by the host");
        assert_eq!((cloud.count(), played.list().await.unwrap().len()), (0, 0));
    }

    #[tokio::test]
    async fn all_machines_are_ended_although_the_host_stutters() {
        let (cloud, _, hosted) = house(9);
        for token in [1, 2] {
            hosted.launch(LaunchToken(token), PoolId(0)).await.unwrap();
        }
        *cloud.stutters.lock().unwrap() = 2;
        assert_eq!(end_all(&hosted, Duration::from_secs(20)).await, Ok(2));
        assert_eq!(cloud.count(), 0);
        *cloud.stutters.lock().unwrap() = u32::MAX;
        let error = end_all(&hosted, Duration::ZERO).await.unwrap_err();
        assert_eq!(error.what, "throttled");
    }
}

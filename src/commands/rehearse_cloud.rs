//! The pools of a rehearsal that are on a cloud: each of their played machines is an instance there too, from its launch to
//! its end, by the cloud's own interface.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use control::fleet::ec2::Ec2Settings;
use control::fleet::{Hosted, Provider, Rehearsal, end_all};
use control::service::{Opening, ServiceError};
use policy::model::System;
use tokio::sync::watch;

use super::ec2_pools;
use crate::failure::{Failure, Status};
use crate::interrupt;
use crate::screen::Screen;

/// Instances have so long to be gone at the end.
const END_FOR: Duration = Duration::from_secs(120);

/// What is wished of the cloud, and what it is used for.
#[derive(Clone, Default)]
pub(super) struct Cloud {
    settings: Option<Ec2Settings>,
    /// Once it is open.
    host: Arc<Mutex<Option<Arc<dyn Provider>>>>,
}

impl Cloud {
    /// Reads and checks the file that says how; nothing is asked of the cloud.
    pub(super) fn wished(file: Option<&Path>, system: &System) -> Result<Self, Failure> {
        let Some(file) = file else { return Ok(Self::default()) };
        let settings = ec2_pools::read(file, system)?;
        ec2_pools::built_with_aws()?;
        Ok(Self { settings: Some(settings), host: Arc::default() })
    }

    /// The provider of each pool: the cloud with played workers where it is wished, else played machines.
    pub(super) async fn providers(
        &self,
        opening: Opening,
        played: Rehearsal,
    ) -> Result<Vec<Arc<dyn Provider>>, ServiceError> {
        let pools = opening.rules.system.pools.iter();
        let names: Vec<String> = pools.map(|pool| pool.name.clone()).collect();
        let alone: Arc<dyn Provider> = Arc::new(played.clone());
        let Some(settings) = &self.settings else { return Ok(vec![alone; names.len()]) };
        let host: Arc<dyn Provider> = Arc::new(ec2_pools::open(settings, &opening).await?);
        *self.host.lock().unwrap_or_else(PoisonError::into_inner) = Some(host.clone());
        let hosted: Arc<dyn Provider> = Arc::new(Hosted::new(host, played));
        let of = |name| if settings.pools.contains_key(name) { hosted.clone() } else { alone.clone() };
        Ok(names.iter().map(of).collect())
    }

    /// Becomes true when the user wants the rehearsal to end. Without a cloud an interrupt ends the program by itself, and
    /// this stays false; with one, its instances have to be ended first.
    pub(super) fn interrupted(&self) -> watch::Receiver<bool> {
        let (asked, wants_end) = watch::channel(false);
        if self.settings.is_some() {
            interrupt::ask_instead(move || {
                asked.send_replace(true);
            });
        }
        wants_end
    }

    /// Ends every instance; the plane that made them has ended.
    pub(super) async fn close(&self, screen: &Screen) -> Result<(), Failure> {
        let host = self.host.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(host) = host else { return Ok(()) };
        let ended = end_all(&*host, END_FOR).await;
        interrupt::end_again();
        match ended {
            Ok(0) => Ok(()),
            Ok(ended) => {
                screen.note(&format!("{ended} instances that were left are ended"));
                Ok(())
            }
            Err(error) => Err(Failure::new(Status::Failed, "rehearse::instances", error.to_string())
                .with_help("end them by their tag headroom:plane, as docs/aws.md shows: they cost money")),
        }
    }
}

//! `headroom serve --postgres`: a plane that leads, or stands by for the one that does.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use control::ha::{HaEnd, HaError, HaSettings, Standby};
use control::service::{MakeCrew, ServiceSettings};
use scenarios::scenario::Scenario;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::failure::{Failure, Status};
use crate::screen::Screen;

/// What one of several planes needs to know.
#[derive(Args, Clone, Debug)]
pub(crate) struct SeveralArgs {
    /// Keep the journal in this PostgreSQL (URL, or `host=... dbname=...`), and stand by while another plane leads. The
    /// password may come from PGPASSWORD.
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
    /// Where clients, workers and the other planes reach this one. Default: the address of --listen.
    #[arg(long, value_name = "URL", requires = "postgres")]
    url: Option<String>,
    /// Name of this plane among the others. Default: its URL.
    #[arg(long, value_name = "NAME", requires = "postgres")]
    name: Option<String>,
    /// Shards in all: the same for every plane, and for ever.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "postgres")]
    shards: u16,
    /// Shard to stand by for; several may be given, of which it leads one at most.
    #[arg(long, value_name = "N", default_value = "0", requires = "postgres")]
    shard: Vec<u16>,
    /// Seconds of silence after which a leader is replaced; three at least.
    #[arg(long, value_name = "SECONDS", default_value_t = 4, requires = "postgres", value_parser = clap::value_parser!(u32).range(3..=3600))]
    lease: u32,
}

impl SeveralArgs {
    /// The settings, where this plane is one of several.
    pub(crate) fn settings(&self, listen: SocketAddr, is_tls: bool) -> Result<Option<HaSettings>, Failure> {
        let Some(connection) = &self.postgres else { return Ok(None) };
        let scheme = if is_tls { "https" } else { "http" };
        let url = match &self.url {
            Some(url) => url.clone(),
            None if listen.ip().is_unspecified() || listen.port() == 0 => {
                let what = format!("`{listen}` tells the others no address");
                return Err(Failure::new(Status::Usage, "serve::url", what)
                    .with_help(format!("say where this plane is reached: --url {scheme}://10.0.0.5:8080")));
            }
            None => format!("{scheme}://{listen}"),
        };
        let name = self.name.as_ref().unwrap_or(&url);
        Ok(Some(HaSettings {
            shards: self.shards,
            candidates: self.shard.clone(),
            lease: Duration::from_secs(self.lease.into()),
            ..HaSettings::new(connection, name, &url)
        }))
    }
}

/// Stands by, leads, and ends.
pub(crate) fn run(
    runtime: &Runtime,
    settings: HaSettings,
    service: ServiceSettings,
    scenario: &Scenario,
    crew: Box<MakeCrew<'_>>,
    wants_end: watch::Receiver<bool>,
    screen: &Screen,
) -> Result<(), Failure> {
    let name = settings.name.clone();
    let end = runtime.block_on(async {
        let standby = Standby::start(settings, service, scenario).await?;
        screen.note(&format!("{name} stands by for {} at {}", scenario.name, standby.address));
        standby.run(scenario, crew, wants_end).await
    });
    let again = "start it again: it stands by, and leads again when it is its turn";
    match end.map_err(failure)? {
        HaEnd::Asked => Ok(()),
        HaEnd::Deposed(why) => {
            let what = format!("this plane leads no more: {why}");
            Err(Failure::new(Status::Failed, "serve::deposed", what).with_help(again))
        }
        HaEnd::Failed(error) => {
            Err(Failure::new(Status::Failed, "serve::journal", error.to_string()).with_help(again))
        }
        HaEnd::Panicked => {
            let what = "the plane's thread ended by a bug";
            Err(Failure::new(Status::Failed, "serve::bug", what)
                .with_help("start it again, and please report the panic above"))
        }
    }
}

fn failure(error: HaError) -> Failure {
    let status = match &error {
        HaError::Settings(_) => Status::Usage,
        _ => Status::Failed,
    };
    Failure::new(status, "serve::several", error.to_string())
}

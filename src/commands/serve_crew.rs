//! Where the machines of `headroom serve` come from, and what else works beside the plane.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use control::fleet::{ManualProvider, ProcessProvider, ProcessSettings, Provider};
use control::service::{Crew, Opening, ServiceError, join_token};
use policy::model::System;

use super::serve_aws::{self, AwsArgs, AwsPlan};
use super::serve_traces::TraceArgs;
use crate::failure::{Failure, Status};

/// Name of the file in the data folder that tells simulated workers what is served.
const SERVED: &str = "served.toml";

/// Machines and more.
#[derive(Args, Clone, Debug)]
pub(crate) struct CrewArgs {
    /// Where machines come from: for all pools, or POOL=PROVIDER for one; may be repeated.
    #[arg(long, value_name = "[POOL=]PROVIDER", default_value = "process")]
    provider: Vec<String>,
    /// Models of worker processes, in the diffusers layout. Default: a tiny one with random weights, made in the data folder.
    #[arg(long, value_name = "DIR")]
    model: Vec<PathBuf>,
    /// Worker processes take time and make nothing: for tests, load and rehearsals.
    #[arg(long, conflicts_with = "model")]
    simulate: bool,
    #[command(flatten)]
    aws: AwsArgs,
}

/// Where machines come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProviderKind {
    /// Worker processes on this machine.
    Process,
    /// Workers that join by themselves.
    Manual,
    /// Instances of Amazon EC2.
    Ec2,
}

/// What the crew needs to know of the rest of the command line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings<'a> {
    /// The whole scenario as it is served, overrides included; TOML.
    pub(crate) scenario: &'a str,
    pub(crate) data: &'a Path,
    pub(crate) tls_cert: Option<&'a Path>,
    pub(crate) traces: &'a TraceArgs,
}

/// A crew as wished, checked against the scenario.
#[derive(Clone, Debug)]
pub(crate) struct CrewPlan<'a> {
    args: &'a CrewArgs,
    around: Surroundings<'a>,
    kinds: Vec<ProviderKind>,
    aws: AwsPlan,
}

impl CrewArgs {
    /// Checks the wishes; nothing is opened.
    pub(crate) fn plan<'a>(
        &'a self,
        around: Surroundings<'a>,
        system: &System,
    ) -> Result<CrewPlan<'a>, Failure> {
        let kinds = self.kinds(system)?;
        let aws = self.aws.plan(system, &kinds, around.data)?;
        Ok(CrewPlan { args: self, around, kinds, aws })
    }

    /// Every pool's provider, by pool.
    fn kinds(&self, system: &System) -> Result<Vec<ProviderKind>, Failure> {
        let mut kinds = vec![ProviderKind::Process; system.pools.len()];
        for text in &self.provider {
            let (pool, kind) = match text.split_once('=') {
                Some((pool, kind)) => (Some(pool), kind),
                None => (None, text.as_str()),
            };
            let kind = ProviderKind::from_str(kind, false).map_err(|_| {
                Failure::new(Status::Usage, "serve::provider", format!("`{kind}` is no provider"))
                    .with_help("use process, manual or ec2")
            })?;
            match pool {
                None => kinds.fill(kind),
                Some(name) => {
                    let at = system.pools.iter().position(|pool| pool.name == name).ok_or_else(|| {
                        let known: Vec<_> = system.pools.iter().map(|pool| pool.name.as_str()).collect();
                        let what = format!("there is no pool `{name}`");
                        Failure::new(Status::InvalidInput, "serve::pool", what)
                            .with_help(format!("the scenario has {}", known.join(", ")))
                    })?;
                    kinds[at] = kind;
                }
            }
        }
        Ok(kinds)
    }
}

impl CrewPlan<'_> {
    /// Names of the pools whose workers join by themselves.
    pub(crate) fn joined(&self, system: &System) -> Vec<String> {
        let pools = system.pools.iter().zip(&self.kinds);
        let joined = pools.filter(|(_, kind)| **kind == ProviderKind::Manual);
        joined.map(|(pool, _)| pool.name.clone()).collect()
    }

    /// Opens the providers, and what else is wished.
    pub(crate) async fn open(&self, opening: Opening) -> Result<Crew, ServiceError> {
        let manual: Arc<dyn Provider> = Arc::new(ManualProvider);
        let process = if self.kinds.contains(&ProviderKind::Process) {
            let process = self.process(&opening)?;
            Some(Arc::new(process) as Arc<dyn Provider>)
        } else {
            None
        };
        let amazon = serve_aws::open(&self.aws, opening).await?;
        let of = |kind: &ProviderKind| match kind {
            ProviderKind::Process => process.clone(),
            ProviderKind::Manual => None,
            ProviderKind::Ec2 => amazon.provider.clone(),
        };
        let providers = self.kinds.iter().map(|kind| of(kind).unwrap_or_else(|| manual.clone()));
        Ok(Crew { providers: providers.collect(), tasks: amazon.tasks })
    }

    fn process(&self, opening: &Opening) -> Result<ProcessProvider, ServiceError> {
        let work = self.work_arguments().map_err(io("making the tiny model"))?;
        let scheme = if self.around.tls_cert.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", opening.address);
        let rules = &opening.rules;
        let arguments = rules.system.pools.iter().enumerate().map(|(index, pool)| {
            let slots: u16 = pool.slots.iter().sum();
            let mut words: Vec<String> =
                ["worker", "--join", &url, "--pool", &pool.name].map(str::to_owned).into();
            words.extend(["--slots".to_owned(), slots.to_string()]);
            words.extend(work.iter().cloned());
            words.extend(self.around.traces.words());
            if let Some(certificate) = self.around.tls_cert {
                words.extend(["--authority".to_owned(), certificate.display().to_string()]);
            }
            (index as u16, words)
        });
        let settings = ProcessSettings {
            folder: self.around.data.join("workers"),
            program: std::env::current_exe().map_err(io("finding this program"))?,
            arguments: arguments.collect(),
            variables: vec![("HEADROOM_JOIN".to_owned(), join_token(rules))],
            grace: std::time::Duration::from_secs(20),
        };
        ProcessProvider::open(settings, opening.news.clone()).map_err(io("opening the folder of workers"))
    }

    /// What worker processes work with.
    fn work_arguments(&self) -> std::io::Result<Vec<String>> {
        if self.args.simulate {
            let file = served_file(self.around.data, self.around.scenario)?;
            return Ok(vec!["--simulate".to_owned(), "--scenario".to_owned(), file.display().to_string()]);
        }
        let mut models = self.args.model.clone();
        if models.is_empty() {
            let tiny = self.around.data.join("tiny");
            if !tiny.exists() {
                gpu_runtime::generate::make_tiny(&tiny, 1).map_err(std::io::Error::other)?;
            }
            models.push(tiny);
        }
        let mut words = Vec::new();
        for model in models {
            words.extend(["--model".to_owned(), std::path::absolute(model)?.display().to_string()]);
        }
        Ok(words)
    }
}

/// A file in the data folder with the scenario as it is served, for the workers that take its times.
fn served_file(data: &Path, scenario: &str) -> std::io::Result<PathBuf> {
    let folder = std::path::absolute(data)?;
    std::fs::create_dir_all(&folder)?;
    let file = folder.join(SERVED);
    // Workers of the plane before may be reading the old one.
    let fresh = folder.join(format!("{SERVED}.new"));
    std::fs::write(&fresh, scenario)?;
    std::fs::rename(&fresh, &file)?;
    Ok(file)
}

pub(super) fn io(what: &str) -> impl FnOnce(std::io::Error) -> ServiceError {
    let what = what.to_owned();
    move |error| ServiceError::Io { what, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCENARIO: &str = r#"
[[workload.source]]
name = "users"
arrivals = { kind = "constant", rate = "1/s" }
[[pipeline.stage]]
name = "render"
pool = "own"
time = "10s"
[fleet.pool.own]
price = "1 USD/h"
count = 1
"#;

    #[derive(clap::Parser)]
    struct Words {
        #[command(flatten)]
        crew: CrewArgs,
        #[command(flatten)]
        traces: TraceArgs,
    }

    #[test]
    fn simulated_workers_are_given_the_scenario_with_its_overrides() {
        let overrides = ["pipeline.stage.render.time=2s".to_owned()];
        let loaded = scenarios::load_str("t", SCENARIO, Path::new("/"), &overrides).expect("a scenario");
        let folder = tempfile::tempdir().expect("a folder");
        let words = <Words as clap::Parser>::parse_from(["serve", "--simulate"]);
        let data = folder.path().join("data");
        let (scenario, traces) = (&*loaded.resolved_toml, &words.traces);
        let around = Surroundings { scenario, data: &data, tls_cert: None, traces };
        let plan = words.crew.plan(around, &loaded.scenario.system).expect("a plan");
        let told = plan.work_arguments().expect("a folder that can be written");
        assert_eq!(told[..2], ["--simulate", "--scenario"]);
        let read = scenarios::load(Path::new(&told[2]), &[]).expect("workers read it without overrides");
        assert_eq!(read.scenario.stages, loaded.scenario.stages);
        assert_eq!(read.scenario.system, loaded.scenario.system);
    }
}

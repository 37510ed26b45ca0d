//! `headroom serve` on Amazon: machines from EC2, jobs from SQS, spot prices of the day. See docs/aws.md.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use control::api::key_file;
use control::fleet::Provider;
use control::fleet::ec2::Ec2Settings;
use control::ingress::Tenant;
use control::service::{Opening, ServiceError, Task};
use policy::model::System;

use super::ec2_pools;
use super::serve_crew::ProviderKind;
use crate::failure::{Failure, Status};

/// What is wished of Amazon.
#[derive(Args, Clone, Debug)]
pub(crate) struct AwsArgs {
    /// Settings of the pools on EC2 (provider ec2): launch templates, subnets, tags; docs/aws.md.
    #[arg(long, value_name = "FILE")]
    ec2: Option<PathBuf>,
    /// Take jobs from this SQS queue too.
    #[arg(long, value_name = "URL")]
    sqs: Option<String>,
    /// SQS queue that gets the ends of the jobs from --sqs.
    #[arg(long, value_name = "URL", requires = "sqs")]
    sqs_results: Option<String>,
    /// Key, by its public id (`headroom keys list`), as whose jobs those from --sqs count.
    #[arg(long, value_name = "ID", requires = "sqs")]
    sqs_key: Option<String>,
    /// Long polls of --sqs at once; each takes ten messages.
    #[arg(long, value_name = "N", default_value_t = 4, requires = "sqs", value_parser = clap::value_parser!(u16).range(1..=1000))]
    sqs_pollers: u16,
}

/// The wishes, checked.
#[derive(Clone, Debug, Default)]
#[cfg_attr(not(feature = "aws"), allow(dead_code, reason = "read by the build with AWS only"))]
pub(crate) struct AwsPlan {
    ec2: Option<Ec2Settings>,
    ingress: Option<IngressPlan>,
}

#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "aws"), allow(dead_code, reason = "read by the build with AWS only"))]
struct IngressPlan {
    queue: String,
    results: Option<String>,
    tenant: Tenant,
    pollers: u16,
}

/// What Amazon adds to a plane.
#[derive(Default)]
pub(crate) struct Amazon {
    pub(crate) provider: Option<Arc<dyn Provider>>,
    pub(crate) tasks: Vec<Task>,
}

impl AwsArgs {
    /// Reads and checks; nothing is asked of Amazon.
    pub(crate) fn plan(
        &self,
        system: &System,
        kinds: &[ProviderKind],
        data: &Path,
    ) -> Result<AwsPlan, Failure> {
        let plan = AwsPlan { ec2: self.ec2_settings(system, kinds)?, ingress: self.ingress(data)? };
        if plan.ec2.is_some() || plan.ingress.is_some() {
            ec2_pools::built_with_aws()?;
        }
        Ok(plan)
    }

    fn ec2_settings(&self, system: &System, kinds: &[ProviderKind]) -> Result<Option<Ec2Settings>, Failure> {
        let pools = || system.pools.iter().zip(kinds).filter(|(_, kind)| **kind == ProviderKind::Ec2);
        let Some(file) = &self.ec2 else {
            return match pools().next() {
                None => Ok(None),
                Some((pool, _)) => {
                    let what = format!("pool `{}` is to be on EC2, and no settings say how", pool.name);
                    Err(Failure::new(Status::Usage, "serve::ec2", what)
                        .with_help("give them with --ec2 FILE; docs/aws.md shows one"))
                }
            };
        };
        let bad = |what: String| Failure::new(Status::InvalidInput, "serve::ec2", what);
        let settings = ec2_pools::read(file, system)?;
        if let Some((pool, _)) = pools().find(|(pool, _)| !settings.pools.contains_key(&pool.name)) {
            return Err(bad(format!("`{}` has no section [pools.{}]", file.display(), pool.name)));
        }
        if let Some(name) = settings.pools.keys().find(|name| !pools().any(|(pool, _)| pool.name == **name)) {
            let what = format!("pool `{name}` of `{}` is not on EC2", file.display());
            return Err(bad(what).with_help(format!("add --provider {name}=ec2, or take it out of the file")));
        }
        Ok(Some(settings))
    }

    fn ingress(&self, data: &Path) -> Result<Option<IngressPlan>, Failure> {
        let Some(queue) = self.sqs.clone() else { return Ok(None) };
        let keys = key_file::read(data)
            .map_err(|error| Failure::new(Status::InvalidInput, "serve::keys", error.to_string()))?;
        let tenant = match (keys, &self.sqs_key) {
            (None, None) => Tenant { id: 0, jobs_max: u32::MAX },
            (Some(_), None) => {
                let what = "jobs from SQS are nobody's";
                return Err(Failure::new(Status::Usage, "serve::sqs", what)
                    .with_help("say whose they are: --sqs-key ID, one of `headroom keys list`"));
            }
            (keys, Some(id)) => {
                let entry = keys.iter().flat_map(|file| &file.keys).find(|entry| entry.id == *id);
                let entry = entry.filter(|entry| entry.revoked.is_none()).ok_or_else(|| {
                    let what = format!("there is no key `{id}`, or it was revoked");
                    Failure::new(Status::InvalidInput, "serve::sqs", what)
                        .with_help("`headroom keys list` shows all")
                })?;
                Tenant { id: entry.tenant, jobs_max: entry.jobs_max }
            }
        };
        let results = self.sqs_results.clone();
        Ok(Some(IngressPlan { queue, results, tenant, pollers: self.sqs_pollers }))
    }
}

/// Without AWS there is nothing to open, as [`AwsArgs::plan`] has made sure.
#[cfg(not(feature = "aws"))]
pub(crate) async fn open(_: &AwsPlan, _: Opening) -> Result<Amazon, ServiceError> {
    Ok(Amazon::default())
}

#[cfg(feature = "aws")]
pub(crate) use opened::open;

#[cfg(feature = "aws")]
mod opened {
    use std::time::Duration;

    use control::api::Names;
    use control::aws::Reach;
    use control::fleet::ec2::warnings;
    use control::ingress::parse_by;
    use control::ingress::sqs::{SqsIngress, SqsSettings};
    use control::prices::live::PriceWatch;

    use super::{Amazon, Arc, AwsPlan, Opening, ServiceError, ec2_pools};

    /// Spot prices change a few times a day.
    const PRICES_EVERY: Duration = Duration::from_secs(300);

    /// A message in hand stays hidden for so long; it is renewed meanwhile.
    const HIDDEN: Duration = Duration::from_secs(60);

    /// Opens what is wished. Amazon is asked for the first time when the plane launches or compares.
    pub(crate) async fn open(plan: &AwsPlan, opening: Opening) -> Result<Amazon, ServiceError> {
        let mut amazon = Amazon::default();
        if let Some(settings) = &plan.ec2 {
            let provider = ec2_pools::open(settings, &opening).await?;
            let Opening { rules, handle, news, stop, .. } = &opening;
            let reach = Reach { region: settings.region.clone(), ..Reach::default() };
            if let Some(queue) = &settings.notice_queue {
                let client = reach.sqs().await;
                let run = warnings::run(client, queue.clone(), provider.clone(), news.clone(), stop.clone());
                amazon.tasks.push(Box::pin(run));
            }
            amazon.provider = Some(Arc::new(provider));
            let watch = PriceWatch::new(handle.clone(), &rules.system.pools, PRICES_EVERY, &reach).await;
            amazon.tasks.push(Box::pin(watch.run(stop.clone())));
        }
        if let Some(wish) = &plan.ingress {
            let Opening { rules, handle, stop, .. } = opening;
            let client = Reach::default().sqs().await;
            let settings = SqsSettings {
                queue: wish.queue.clone(),
                results: wish.results.clone(),
                tenant: wish.tenant,
                pollers: wish.pollers.into(),
                hidden: HIDDEN,
            };
            let ingress = SqsIngress::new(client, settings, handle, parse_by(Names::of(&rules)));
            amazon.tasks.push(Box::pin(ingress.run(stop)));
        }
        Ok(amazon)
    }
}

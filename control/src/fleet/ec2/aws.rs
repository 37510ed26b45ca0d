//! Calls to EC2 by Amazon's SDK. One call each, never repeated in here.

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types as ec2;
use policy::units::Duration;

use super::call::{Call, Cloud, CloudError, LaunchCall, Life, Reply, Seen, Way, batch_tags, batch_tokens};
use super::provider::Ec2Provider;
use super::refusal;
use super::roster::{Known, Patience, Plan};
use super::settings::{Ec2Settings, OnDemandStrategy, Place, PoolPlan, SettingsError, SpotStrategy};
use super::{TAG_BATCH, TAG_JOIN, TAG_LAUNCH, TAG_PLANE, TAG_POOL};
use crate::aws::{Reach, failure};
use crate::command::{LaunchRefusal, LaunchToken};
use crate::plane::{LaunchView, Rules};

/// Pages of one list at most, of 1,000 instances each.
const PAGES_MAX: usize = 200;

/// EC2 itself, for one plane.
#[derive(Clone, Debug)]
pub struct AwsCloud {
    client: Client,
    /// Name of the plane in tags.
    plane: String,
    join_url: String,
    /// By pool number.
    plans: Vec<Option<PoolPlan>>,
}

/// The provider of a plane on EC2. `launches` are those that its journal knows; `is_new` says that no process before this
/// one can have launched anything.
///
/// # Errors
/// [`SettingsError`] when the settings and the scenario do not fit together.
pub async fn open(
    settings: &Ec2Settings,
    reach: &Reach,
    rules: &Rules,
    launches: &[LaunchView],
    is_new: bool,
) -> Result<Ec2Provider, SettingsError> {
    let plans = settings.plans(&rules.system.pools)?;
    let reach = Reach { region: settings.region.clone().or(reach.region.clone()), ..reach.clone() };
    let client = Client::new(&reach.config().await);
    let none = Plan { way: Way::Fleet, places: 0 };
    let roster_plans: Vec<Plan> =
        plans.iter().map(|plan| plan.as_ref().map_or(none, PoolPlan::plan)).collect();
    let known = launches.iter().filter_map(|launch| {
        let handle = launch.handle.clone()?;
        let is_ours = plans.get(launch.pool.index()).is_some_and(Option::is_some);
        is_ours.then_some(Known { token: launch.token, pool: launch.pool, handle })
    });
    let known: Vec<Known> = known.collect();
    let mut patience = Patience::default();
    if is_new {
        patience.settle = Duration::ZERO;
    }
    let plane = settings.plane_name(&rules.secret);
    let cloud = AwsCloud::new(client, plane, settings.join_url.clone(), plans);
    Ok(Ec2Provider::start(cloud, patience, &roster_plans, &known))
}

impl AwsCloud {
    /// EC2 behind `client`.
    pub fn new(client: Client, plane: String, join_url: String, plans: Vec<Option<PoolPlan>>) -> Self {
        Self { client, plane, join_url, plans }
    }

    fn plan(&self, call: &LaunchCall) -> Result<&PoolPlan, CloudError> {
        let missing = || {
            let why = "the pool has no launch template in the EC2 settings".to_owned();
            CloudError::Refused(LaunchRefusal::Other(why))
        };
        self.plans.get(call.pool.index()).and_then(Option::as_ref).ok_or_else(missing)
    }

    fn tags(&self, plan: &PoolPlan, tokens: &[LaunchToken]) -> ec2::TagSpecification {
        let mut tags =
            vec![tag(TAG_PLANE, &self.plane), tag(TAG_POOL, &plan.name), tag(TAG_JOIN, &self.join_url)];
        match tokens {
            [token] => tags.push(tag(TAG_LAUNCH, &token.to_string())),
            tokens => {
                let values = batch_tags(tokens).into_iter().enumerate();
                tags.extend(values.map(|(number, value)| tag(&format!("{TAG_BATCH}{number}"), &value)));
            }
        }
        let own = plan.settings.tags.iter().map(|(key, value)| tag(key, value));
        ec2::TagSpecification::builder()
            .resource_type(ec2::ResourceType::Instance)
            .set_tags(Some(tags.into_iter().chain(own).collect()))
            .build()
    }

    async fn create_fleet(&self, call: &LaunchCall) -> Result<Reply, CloudError> {
        let plan = self.plan(call)?;
        let config = ec2::FleetLaunchTemplateConfigRequest::builder()
            .launch_template_specification(fleet_template(plan))
            .set_overrides(Some(overrides(plan)))
            .build();
        let kind = if plan.is_spot {
            ec2::DefaultTargetCapacityType::Spot
        } else {
            ec2::DefaultTargetCapacityType::OnDemand
        };
        let count = i32::try_from(call.tokens.len()).unwrap_or(i32::MAX);
        let target = ec2::TargetCapacitySpecificationRequest::builder()
            .total_target_capacity(count)
            .default_target_capacity_type(kind)
            .build();
        let mut request = self
            .client
            .create_fleet()
            .r#type(ec2::FleetType::Instant)
            .client_token(call.client_token())
            .launch_template_configs(config)
            .target_capacity_specification(target)
            .tag_specifications(self.tags(plan, &call.tokens));
        request = if plan.is_spot {
            let strategy = ec2::SpotAllocationStrategy::from(plan.settings.spot_strategy.name());
            request.spot_options(ec2::SpotOptionsRequest::builder().allocation_strategy(strategy).build())
        } else {
            let strategy =
                ec2::FleetOnDemandAllocationStrategy::from(plan.settings.on_demand_strategy.name());
            let options = ec2::OnDemandOptionsRequest::builder().allocation_strategy(strategy).build();
            request.on_demand_options(options)
        };
        let output = request.send().await.map_err(|error| failure(&error))?;
        let handles: Vec<String> =
            output.instances().iter().flat_map(|some| some.instance_ids().iter().cloned()).collect();
        let refusals: Vec<LaunchRefusal> = output
            .errors()
            .iter()
            .map(|error| {
                refusal::refusal(error.error_code().unwrap_or("Unknown"), error.error_message().unwrap_or(""))
            })
            .collect();
        if let Some(error) = fleet_failure(&output, handles.is_empty()) {
            return Err(error);
        }
        Ok(Reply::Launched { handles, refusals })
    }

    async fn run_instances(&self, call: &LaunchCall) -> Result<Reply, CloudError> {
        let plan = self.plan(call)?;
        let Some(place) = plan.places.get(call.place) else {
            return Err(CloudError::Refused(LaunchRefusal::InsufficientCapacity));
        };
        let count = i32::try_from(call.tokens.len()).unwrap_or(i32::MAX);
        let mut request = self
            .client
            .run_instances()
            .launch_template(template(plan))
            .client_token(call.client_token())
            .min_count(1)
            .max_count(count)
            .instance_type(ec2::InstanceType::from(place.instance_type.as_str()))
            .set_subnet_id(place.subnet.clone())
            .tag_specifications(self.tags(plan, &call.tokens));
        if plan.is_spot {
            let options = ec2::InstanceMarketOptionsRequest::builder().market_type(ec2::MarketType::Spot);
            request = request.instance_market_options(options.build());
        }
        let output = request.send().await.map_err(|error| failure(&error))?;
        let handles =
            output.instances().iter().filter_map(|instance| instance.instance_id().map(str::to_owned));
        Ok(Reply::Launched { handles: handles.collect(), refusals: Vec::new() })
    }

    async fn list(&self) -> Result<Reply, CloudError> {
        let plane = ec2::Filter::builder().name(format!("tag:{TAG_PLANE}")).values(&self.plane).build();
        let mut seen = Vec::new();
        let mut next = None;
        for _ in 0..PAGES_MAX {
            let request = self.client.describe_instances().filters(plane.clone()).max_results(1000);
            let output = request.set_next_token(next).send().await.map_err(|error| failure(&error))?;
            let instances = output.reservations().iter().flat_map(ec2::Reservation::instances);
            seen.extend(instances.filter_map(|instance| self.see(instance)));
            next = output.next_token().filter(|token| !token.is_empty()).map(str::to_owned);
            if next.is_none() {
                return Ok(Reply::Listed(seen));
            }
        }
        Err(CloudError::InDoubt(format!("a list of more than {PAGES_MAX} pages")))
    }

    /// An instance that bears the plane's tag: looked at once more, whatever the filter did.
    fn see(&self, instance: &ec2::Instance) -> Option<Seen> {
        let value = |name: &str| {
            instance.tags().iter().find(|tag| tag.key() == Some(name)).and_then(|tag| tag.value())
        };
        if value(TAG_PLANE) != Some(self.plane.as_str()) {
            return None;
        }
        let parts = (0..).map_while(|number| value(&format!("{TAG_BATCH}{number}")));
        let life = match instance.state().and_then(ec2::InstanceState::name) {
            Some(ec2::InstanceStateName::ShuttingDown | ec2::InstanceStateName::Terminated) => Life::Over,
            Some(ec2::InstanceStateName::Stopping | ec2::InstanceStateName::Stopped) => Life::Stopped,
            _ => Life::Up,
        };
        Some(Seen {
            handle: instance.instance_id()?.to_owned(),
            token: value(TAG_LAUNCH).and_then(|text| text.parse().ok()),
            batch: batch_tokens(parts),
            life,
        })
    }
}

impl Cloud for AwsCloud {
    async fn call(&self, call: &Call) -> Result<Reply, CloudError> {
        match call {
            Call::Launch(call) => match call.way {
                Way::Fleet => self.create_fleet(call).await,
                Way::Run => self.run_instances(call).await,
            },
            Call::Tag { handle, token } => {
                let tag = tag(TAG_LAUNCH, &token.to_string());
                let request = self.client.create_tags().resources(handle).tags(tag);
                request.send().await.map_err(|error| failure(&error))?;
                Ok(Reply::Done)
            }
            Call::Terminate { handles } => {
                let request = self.client.terminate_instances().set_instance_ids(Some(handles.clone()));
                request.send().await.map_err(|error| failure(&error))?;
                Ok(Reply::Done)
            }
            Call::List => self.list().await,
        }
    }
}

/// A fleet that launched nothing and says why as an error of each place: throttled and forbidden are no answers.
fn fleet_failure(
    output: &aws_sdk_ec2::operation::create_fleet::CreateFleetOutput,
    is_empty: bool,
) -> Option<CloudError> {
    if !is_empty {
        return None;
    }
    let class = |error: &ec2::CreateFleetError| {
        refusal::classify(error.error_code(), error.error_message().unwrap_or_default())
    };
    let is_one = |error: &CloudError| {
        matches!(error, CloudError::Throttled | CloudError::Unauthorized(_) | CloudError::InDoubt(_))
    };
    output.errors().iter().map(class).find(is_one)
}

fn tag(key: &str, value: &str) -> ec2::Tag {
    ec2::Tag::builder().key(key).value(value).build()
}

fn is_id(template: &str) -> bool {
    template.starts_with("lt-")
}

fn template(plan: &PoolPlan) -> ec2::LaunchTemplateSpecification {
    let name = plan.settings.launch_template.as_str();
    let builder = ec2::LaunchTemplateSpecification::builder().version(&plan.settings.version);
    if is_id(name) { builder.launch_template_id(name) } else { builder.launch_template_name(name) }.build()
}

fn fleet_template(plan: &PoolPlan) -> ec2::FleetLaunchTemplateSpecificationRequest {
    let name = plan.settings.launch_template.as_str();
    let builder = ec2::FleetLaunchTemplateSpecificationRequest::builder().version(&plan.settings.version);
    if is_id(name) { builder.launch_template_id(name) } else { builder.launch_template_name(name) }.build()
}

/// Each pair of type and subnet; earlier types come first where the strategy asks for an order.
fn overrides(plan: &PoolPlan) -> Vec<ec2::FleetLaunchTemplateOverridesRequest> {
    let is_ordered = if plan.is_spot {
        plan.settings.spot_strategy == SpotStrategy::CapacityOptimizedPrioritized
    } else {
        plan.settings.on_demand_strategy == OnDemandStrategy::Prioritized
    };
    let mut types: Vec<&str> = plan.places.iter().map(|place| place.instance_type.as_str()).collect();
    types.dedup();
    let rank = |place: &Place| types.iter().position(|known| *known == place.instance_type);
    let one = |place: &Place| {
        ec2::FleetLaunchTemplateOverridesRequest::builder()
            .instance_type(ec2::InstanceType::from(place.instance_type.as_str()))
            .set_subnet_id(place.subnet.clone())
            .set_priority(rank(place).filter(|_| is_ordered).map(|rank| rank as f64))
            .build()
    };
    plan.places.iter().map(one).collect()
}

//! What an operator says about EC2: a file beside the scenario, since accounts, subnets and templates are no scenario's
//! business. Read and checked here; nothing is asked of Amazon.

use std::collections::BTreeMap;

use policy::model::{CapacityType, Pool};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::call::Way;
use super::roster::Plan;

/// Most places of one pool: a fleet takes 300 overrides.
const PLACES_MAX: usize = 300;

/// The file, `ec2.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ec2Settings {
    /// Name of the plane in tags; two planes of one account must differ. Default: from the plane's secret.
    pub plane: Option<String>,
    /// Region. Default: that of the environment or profile.
    pub region: Option<String>,
    /// Where workers join.
    pub join_url: String,
    /// SQS queue that gets EC2's warnings from EventBridge.
    pub notice_queue: Option<String>,
    /// By pool of the scenario.
    pub pools: BTreeMap<String, PoolSettings>,
}

/// What instances of a pool are made from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolSettings {
    /// Id (`lt-...`) or name of a launch template.
    pub launch_template: String,
    /// Its version: a number, `$Latest` or `$Default`.
    #[serde(default = "version_default")]
    pub version: String,
    /// Instance types that will do, best first. Default: the scenario's.
    #[serde(default)]
    pub instance_types: Vec<String>,
    /// Subnets to launch in, which name the zones. Default: the template's.
    #[serde(default)]
    pub subnets: Vec<String>,
    /// How EC2 chooses among types and zones for spot.
    #[serde(default)]
    pub spot_strategy: SpotStrategy,
    /// The same for on-demand.
    #[serde(default)]
    pub on_demand_strategy: OnDemandStrategy,
    /// API to use.
    #[serde(default = "way_default")]
    pub api: Way,
    /// More tags for each instance.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

fn version_default() -> String {
    "$Default".to_owned()
}

fn way_default() -> Way {
    Way::Fleet
}

/// How EC2 chooses spot capacity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpotStrategy {
    /// Cheap among the places least likely to be interrupted: AWS's advice for most work.
    #[default]
    PriceCapacityOptimized,
    /// Least likely to be interrupted.
    CapacityOptimized,
    /// The same, the order of types as a hint.
    CapacityOptimizedPrioritized,
    /// Over all places.
    Diversified,
    /// Cheapest.
    LowestPrice,
}

/// How EC2 chooses on-demand capacity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDemandStrategy {
    /// Cheapest first.
    #[default]
    LowestPrice,
    /// In the order of types.
    Prioritized,
}

impl SpotStrategy {
    /// EC2's name of it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PriceCapacityOptimized => "price-capacity-optimized",
            Self::CapacityOptimized => "capacity-optimized",
            Self::CapacityOptimizedPrioritized => "capacity-optimized-prioritized",
            Self::Diversified => "diversified",
            Self::LowestPrice => "lowest-price",
        }
    }
}

impl OnDemandStrategy {
    /// EC2's name of it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LowestPrice => "lowest-price",
            Self::Prioritized => "prioritized",
        }
    }
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Not TOML, or a field is missing, unknown or of the wrong kind.
    #[error("the EC2 settings cannot be read: {0}")]
    Syntax(#[from] toml::de::Error),
    /// A pool that the scenario does not have.
    #[error("the EC2 settings have a pool `{pool}`; the scenario has {known}")]
    UnknownPool { pool: String, known: String },
    /// A pool of another region.
    #[error("pool `{pool}` is in {region}, the EC2 settings are for {own}: one provider serves one region")]
    Region { pool: String, region: String, own: String },
    /// A pool of another provider.
    #[error("pool `{pool}` is bought from `{provider}`; EC2 serves pools of provider `aws`")]
    NotAws { pool: String, provider: String },
    /// A text that EC2 would not take.
    #[error("EC2 settings: {field} `{text}` {why}")]
    Text { field: String, text: String, why: &'static str },
    /// More types and subnets than a fleet takes.
    #[error("pool `{pool}` has {count} pairs of instance type and subnet; a fleet takes {PLACES_MAX}")]
    Places { pool: String, count: usize },
}

/// Where an instance may be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Type.
    pub instance_type: String,
    /// Subnet; `None` for the template's.
    pub subnet: Option<String>,
}

/// All that a launch of a pool needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolPlan {
    /// The pool.
    pub name: String,
    /// Spot or not.
    pub is_spot: bool,
    /// At least one.
    pub places: Vec<Place>,
    /// The rest, as given.
    pub settings: PoolSettings,
}

impl PoolPlan {
    /// What the roster must know.
    pub fn plan(&self) -> Plan {
        Plan { way: self.settings.api, places: self.places.len() }
    }
}

impl Ec2Settings {
    /// Reads the file's text.
    ///
    /// # Errors
    /// [`SettingsError::Syntax`] or [`SettingsError::Text`].
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let settings: Self = toml::from_str(text)?;
        let http = settings.join_url.starts_with("https://") || settings.join_url.starts_with("http://");
        check("join_url", &settings.join_url, http, "must begin with https:// or http://")?;
        check_tag("join_url", &settings.join_url)?;
        if let Some(plane) = &settings.plane {
            check_tag("plane", plane)?;
        }
        if let Some(queue) = &settings.notice_queue {
            check("notice_queue", queue, queue.starts_with("http"), "must be the queue's URL")?;
        }
        for (name, pool) in &settings.pools {
            let field = |field: &str| format!("pools.{name}.{field}");
            check_tag(&field("name"), name)?;
            let template = &pool.launch_template;
            check(&field("launch_template"), template, !template.is_empty(), "is empty")?;
            for subnet in &pool.subnets {
                check(&field("subnets"), subnet, subnet.starts_with("subnet-"), "must begin with subnet-")?;
            }
            for (key, value) in &pool.tags {
                check(&field("tags"), key, !key.starts_with("headroom:"), "is one of headroom's own tags")?;
                check(&field("tags"), key, !key.starts_with("aws:"), "is reserved by AWS")?;
                check_tag(&field("tags"), value)?;
            }
        }
        Ok(settings)
    }

    /// The plane's name in tags.
    pub fn plane_name(&self, secret: &[u8; 32]) -> String {
        let derived = || {
            let digest = Sha256::new_with_prefix(b"plane").chain_update(secret).finalize();
            digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
        };
        self.plane.clone().unwrap_or_else(derived)
    }

    /// The plan of each of the scenario's pools, by number; `None` for pools that are not in the file.
    ///
    /// # Errors
    /// [`SettingsError`] when the file and the scenario do not fit together.
    pub fn plans(&self, pools: &[Pool]) -> Result<Vec<Option<PoolPlan>>, SettingsError> {
        if let Some(pool) = self.pools.keys().find(|name| !pools.iter().any(|pool| pool.name == **name)) {
            let known: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
            return Err(SettingsError::UnknownPool { pool: pool.clone(), known: known.join(", ") });
        }
        pools
            .iter()
            .map(|pool| self.pools.get(&pool.name).map(|own| self.plan(pool, own)).transpose())
            .collect()
    }

    fn plan(&self, pool: &Pool, settings: &PoolSettings) -> Result<PoolPlan, SettingsError> {
        let (offering, name) = (&pool.offering, pool.name.clone());
        if offering.provider != "aws" {
            return Err(SettingsError::NotAws { pool: name, provider: offering.provider.clone() });
        }
        if let Some(own) = self.region.as_ref().filter(|own| **own != offering.region) {
            let region = offering.region.clone();
            return Err(SettingsError::Region { pool: name, region, own: own.clone() });
        }
        let types = match settings.instance_types.as_slice() {
            [] => std::slice::from_ref(&offering.instance_type),
            types => types,
        };
        let mut places = Vec::new();
        for instance_type in types {
            let place = |subnet| Place { instance_type: instance_type.clone(), subnet };
            places.extend(settings.subnets.iter().map(|subnet| place(Some(subnet.clone()))));
            if settings.subnets.is_empty() {
                places.push(place(None));
            }
        }
        if places.len() > PLACES_MAX {
            return Err(SettingsError::Places { pool: name, count: places.len() });
        }
        let is_spot = offering.capacity_type == CapacityType::Spot;
        Ok(PoolPlan { name, is_spot, places, settings: settings.clone() })
    }
}

fn check(field: &str, text: &str, holds: bool, why: &'static str) -> Result<(), SettingsError> {
    if holds {
        return Ok(());
    }
    Err(SettingsError::Text { field: field.to_owned(), text: text.to_owned(), why })
}

/// EC2 takes tag values of 256 characters: letters, digits, spaces and `+-=._:/@`.
fn check_tag(field: &str, text: &str) -> Result<(), SettingsError> {
    let is_good = |letter: char| letter.is_alphanumeric() || " +-=._:/@".contains(letter);
    check(field, text, !text.is_empty() && text.chars().count() <= 256, "must have 1 to 256 characters")?;
    check(field, text, text.chars().all(is_good), "may hold letters, digits, spaces and +-=._:/@ only")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
join_url = "https://plane.example.com"
region = "us-east-1"
[pools.spot]
launch_template = "lt-0abc"
instance_types = ["g5.xlarge", "g6.xlarge"]
subnets = ["subnet-a", "subnet-b"]
"#;

    fn pool(name: &str) -> Pool {
        let text = include_str!("../../../../scenarios/library/quickstart.toml");
        let scenario = scenarios::load_str("quickstart", text, std::path::Path::new("/nonexistent"), &[]);
        let mut pool = scenario.unwrap().scenario.system.pools[0].clone();
        pool.name = name.to_owned();
        pool.offering.provider = "aws".to_owned();
        pool.offering.region = "us-east-1".to_owned();
        pool
    }

    #[test]
    fn types_and_subnets_make_places() {
        let settings = Ec2Settings::parse(GOOD).unwrap();
        let plans = settings.plans(&[pool("other"), pool("spot")]).unwrap();
        assert!(plans[0].is_none());
        let plan = plans[1].clone().unwrap();
        assert_eq!(plan.places.len(), 4);
        assert_eq!(plan.places[1].subnet.as_deref(), Some("subnet-b"));
        assert_eq!(plan.plan(), Plan { way: Way::Fleet, places: 4 });
    }

    #[test]
    fn plane_has_a_name_of_its_own_without_one_given() {
        let mut settings = Ec2Settings::parse(GOOD).unwrap();
        let name = settings.plane_name(&[1; 32]);
        assert_eq!(name.len(), 16);
        assert_ne!(name, settings.plane_name(&[2; 32]));
        settings.plane = Some("prod".to_owned());
        assert_eq!(settings.plane_name(&[1; 32]), "prod");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let check = |from: &str, to: &str, expected: &str| {
            let text = GOOD.replace(from, to);
            let result = Ec2Settings::parse(&text).and_then(|settings| settings.plans(&[pool("spot")]));
            let message = result.map(|_| ()).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        };
        check("https://plane", "plane", "must begin with https://");
        check("[pools.spot]", "[pools.sopt]", "the scenario has spot");
        check("us-east-1", "eu-west-1", "one provider serves one region");
        check("subnet-b", "b", "must begin with subnet-");
        check("launch_template", "template", "launch_template");
        check("example.com", "example.com/ä?b", "may hold letters");
        check("subnets =", "tags = { \"headroom:plane\" = \"x\" }\nsubnets =", "headroom's own tags");
    }
}

//! Providers against a server on loopback.

use std::time::Duration;

use control::aws::Reach;
use control::command::LaunchToken;
use control::fleet::ec2::aws::AwsCloud;
use control::fleet::ec2::roster::{Known, Patience};
use control::fleet::ec2::{Ec2Provider, Ec2Settings, PoolPlan};
use control::fleet::{LaunchError, Provider};
use policy::model::{CapacityType, Pool, PoolId};
use policy::units::Duration as Time;

/// Pools of the tests, by number.
pub(crate) const SPOT: PoolId = PoolId(0);
pub(crate) const ON_DEMAND: PoolId = PoolId(1);
pub(crate) const ONE_BY_ONE: PoolId = PoolId(2);

/// Nothing here takes as long, unless it is wrong.
pub(crate) const SOON: Duration = Duration::from_secs(60);

pub(crate) fn reach(url: &str) -> Reach {
    Reach {
        region: Some("us-east-1".to_owned()),
        endpoint: Some(url.to_owned()),
        keys: Some(("AKIATEST".to_owned(), "secret".to_owned())),
        answer_max: None,
    }
}

pub(crate) async fn ec2(url: &str, answer_max: Duration) -> aws_sdk_ec2::Client {
    let reach = Reach { answer_max: Some(answer_max), ..reach(url) };
    aws_sdk_ec2::Client::new(&reach.config().await)
}

pub(crate) async fn sqs(url: &str) -> aws_sdk_sqs::Client {
    aws_sdk_sqs::Client::new(&reach(url).config().await)
}

/// Times short enough for tests; `lag` is the server's.
pub(crate) fn patience(lag_ms: u64, is_first: bool) -> Patience {
    let lag = Time::from_millis(lag_ms);
    Patience {
        window: Time::from_millis(50),
        lag,
        settle: if is_first { Time::ZERO } else { lag },
        look_every: Time::from_millis(100),
        ..Patience::default()
    }
}

fn pools() -> Vec<Pool> {
    let text = r#"
        [[workload.source]]
        name = "users"
        arrivals = { kind = "constant", rate = "1/s" }
        [[pipeline.stage]]
        name = "generate"
        pool = "gpu"
        time = "1s"
        [fleet.pool.gpu]
        provider = "aws"
        region = "us-east-1"
        instance_type = "g6.xlarge"
        count = 1
        [objective]
        deadline = "5min"
        [run]
        horizon = "1h"
        "#;
    let scenario =
        scenarios::load_str("test", text, std::path::Path::new("."), &[]).expect("a scenario").scenario;
    let like = &scenario.system.pools[0];
    [("spot", CapacityType::Spot), ("on-demand", CapacityType::OnDemand), ("one-by-one", CapacityType::Spot)]
        .into_iter()
        .map(|(name, capacity_type)| {
            let mut pool = like.clone();
            pool.name = name.to_owned();
            pool.offering.capacity_type = capacity_type;
            pool
        })
        .collect()
}

/// Plans of the three pools; `subnets` may be none.
pub(crate) fn plans(template: &str, subnets: &[&str]) -> Vec<Option<PoolPlan>> {
    let subnets = format!("{subnets:?}");
    let settings = format!(
        r#"
        region = "us-east-1"
        join_url = "https://plane.example.com:8443"
        [pools.spot]
        launch_template = "{template}"
        instance_types = ["g6.xlarge", "g5.xlarge"]
        subnets = {subnets}
        tags = {{ team = "video & <more>" }}
        [pools.on-demand]
        launch_template = "{template}"
        on_demand_strategy = "prioritized"
        subnets = {subnets}
        [pools.one-by-one]
        launch_template = "{template}"
        instance_types = ["g6.xlarge", "g5.xlarge"]
        subnets = {subnets}
        api = "run"
        "#
    )
    .replace("video & <more>", "video");
    Ec2Settings::parse(&settings).expect("settings").plans(&pools()).expect("plans")
}

pub(crate) fn provider(
    client: aws_sdk_ec2::Client,
    plane: &str,
    plans: Vec<Option<PoolPlan>>,
    patience: Patience,
    known: &[Known],
) -> Ec2Provider {
    let roster_plans: Vec<_> = plans.iter().flatten().map(PoolPlan::plan).collect();
    let cloud = AwsCloud::new(client, plane.to_owned(), "https://plane.example.com:8443".to_owned(), plans);
    Ec2Provider::start(cloud, patience, &roster_plans, known)
}

/// A token that no other test has.
pub(crate) fn token(number: u64) -> LaunchToken {
    static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let unix = jiff::Timestamp::now().as_millisecond() as u64;
    LaunchToken(u128::from(unix) << 64 | u128::from(count << 32 | number))
}

pub(crate) async fn launch(
    provider: &Ec2Provider,
    token: LaunchToken,
    pool: PoolId,
) -> Result<String, LaunchError> {
    let launched = tokio::time::timeout(SOON, provider.launch(token, pool)).await.expect("an answer");
    launched.map(|handle| handle.expect("EC2 names its instances"))
}

/// Launches several at once.
pub(crate) async fn launch_all(
    provider: &Ec2Provider,
    tokens: &[LaunchToken],
    pool: PoolId,
) -> Vec<Result<String, LaunchError>> {
    futures_util::future::join_all(tokens.iter().map(|token| launch(provider, *token, pool))).await
}

pub(crate) async fn terminate(provider: &Ec2Provider, token: LaunchToken, handle: Option<&str>) {
    let ended = provider.terminate(token, handle.map(str::to_owned));
    tokio::time::timeout(SOON, ended).await.expect("an answer").expect("it is ended");
}

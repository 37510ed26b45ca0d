//! What must hold against any server that speaks EC2: ours, moto, Amazon.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_ec2::types::{InstanceStateName, InstanceType};
use control::command::LaunchToken;
use control::fleet::Provider;
use control::fleet::ec2::roster::{Known, Patience};

use super::setup::{
    ON_DEMAND, ONE_BY_ONE, SOON, SPOT, ec2, launch, launch_all, patience, plans, provider, terminate, token,
};

/// A server to test against.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) template: String,
    pub(crate) subnets: Vec<String>,
    /// Of which somebody else's instance is made.
    pub(crate) image: String,
    pub(crate) lag_ms: u64,
}

impl Server {
    fn patience(&self, is_first: bool) -> Patience {
        patience(self.lag_ms, is_first)
    }

    fn plans(&self) -> Vec<Option<control::fleet::ec2::PoolPlan>> {
        plans(&self.template, &self.subnets.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

/// Tags and state of instances.
async fn look(client: &aws_sdk_ec2::Client, ids: &[String]) -> Vec<(BTreeMap<String, String>, bool)> {
    let output = client.describe_instances().send().await.expect("a list");
    let mut pages = vec![output];
    while let Some(next) = pages.last().and_then(|page| page.next_token()).filter(|next| !next.is_empty()) {
        let request = client.describe_instances().next_token(next);
        pages.push(request.send().await.expect("a page"));
    }
    let all = pages.iter().flat_map(|page| page.reservations()).flat_map(|one| one.instances());
    let by_id: BTreeMap<&str, _> = all.map(|one| (one.instance_id().unwrap_or_default(), one)).collect();
    ids.iter()
        .map(|id| {
            let one = by_id[id.as_str()];
            let pair = |tag: &aws_sdk_ec2::types::Tag| {
                (tag.key().unwrap_or_default().to_owned(), tag.value().unwrap_or_default().to_owned())
            };
            let state = one.state().and_then(|state| state.name());
            let is_alive = matches!(state, Some(InstanceStateName::Pending | InstanceStateName::Running));
            (one.tags().iter().map(pair).collect(), is_alive)
        })
        .collect()
}

/// All of it, in one account.
pub(crate) async fn everything(server: &Server) {
    let plane = format!("test-{}", token(0));
    let client = ec2(&server.url, SOON).await;
    let first = provider(client.clone(), &plane, server.plans(), server.patience(true), &[]);

    // Somebody else's instance, which outlives everything here.
    let run = client.run_instances().image_id(&server.image).min_count(1).max_count(1);
    let run = run.instance_type(InstanceType::M5Large).send().await.expect("an instance of somebody else");
    let foreign = run.instances()[0].instance_id().expect("an id").to_owned();

    // Launches that come together are one call; each launch has an instance of its own with its token on it.
    let tokens: Vec<LaunchToken> = (0..5).map(token).collect();
    let launched = launch_all(&first, &tokens, SPOT).await;
    let handles: Vec<String> = launched.into_iter().map(|one| one.expect("an instance")).collect();
    assert_eq!(handles.iter().collect::<BTreeSet<_>>().len(), 5, "{handles:?}");
    tokio::time::sleep(Duration::from_millis(server.lag_ms)).await;
    for ((tags, is_alive), token) in look(&client, &handles).await.iter().zip(&tokens) {
        assert!(*is_alive);
        assert_eq!(tags["headroom:launch"], token.to_string());
        assert_eq!(tags["headroom:plane"], plane);
        assert_eq!((tags["headroom:pool"].as_str(), tags["team"].as_str()), ("spot", "video"));
        assert_eq!(tags["headroom:join"], "https://plane.example.com:8443");
    }

    // On demand, and one by one; a single launch bears its token from the start.
    for pool in [ON_DEMAND, ONE_BY_ONE] {
        let single = token(0);
        let handle = launch(&first, single, pool).await.expect("an instance");
        tokio::time::sleep(Duration::from_millis(server.lag_ms)).await;
        let (tags, _) = &look(&client, std::slice::from_ref(&handle)).await[0];
        assert_eq!(tags["headroom:launch"], single.to_string());
        assert!(!tags.contains_key("headroom:batch.0"));
        terminate(&first, single, Some(&handle)).await;
        tokio::time::sleep(Duration::from_millis(server.lag_ms)).await;
        assert!(!look(&client, &[handle]).await[0].1);
    }

    // The same launch again is the same instance: here, and after a restart that knows nothing.
    assert_eq!(launch(&first, tokens[0], SPOT).await.as_ref(), Ok(&handles[0]));
    let known = [Known { token: tokens[1], pool: SPOT, handle: handles[1].clone() }];
    let second = provider(client.clone(), &plane, server.plans(), server.patience(false), &known);
    for number in [0, 2] {
        assert_eq!(launch(&second, tokens[number], SPOT).await.as_ref(), Ok(&handles[number]));
    }
    assert_eq!(second.owner(&handles[1]).await, Some(tokens[1]));
    let own: BTreeMap<_, _> =
        second.list().await.expect("a list").into_iter().map(|own| (own.token, own.handle)).collect();
    let expected: BTreeMap<_, _> = tokens.iter().copied().zip(handles.iter().cloned()).collect();
    assert_eq!(own, expected, "what nobody asked for again is listed too, for the comparison");

    // Instances of other planes and of other people are not there for this one.
    let other =
        provider(client.clone(), &format!("{plane}-other"), server.plans(), server.patience(false), &[]);
    assert_eq!(other.list().await.as_deref(), Ok(&[][..]));
    terminate(&other, tokens[0], Some(&handles[0])).await;
    terminate(&second, token(9), Some(&foreign)).await;
    terminate(&second, token(9), None).await;
    let ids = [foreign.clone(), handles[0].clone()];
    assert!(look(&client, &ids).await.iter().all(|(_, is_alive)| *is_alive), "a foreign instance was ended");

    // Ended once, and again, by name and without.
    for (number, (token, handle)) in tokens.iter().zip(&handles).enumerate() {
        terminate(&second, *token, Some(handle).filter(|_| number % 2 == 0).map(String::as_str)).await;
        terminate(&second, *token, Some(handle)).await;
    }
    tokio::time::sleep(Duration::from_millis(server.lag_ms)).await;
    assert!(look(&client, &handles).await.iter().all(|(_, is_alive)| !is_alive));
    assert_eq!(second.list().await.as_deref(), Ok(&[][..]));
    assert!(look(&client, &[foreign]).await[0].1);
}

/// Prices of zones can be read.
pub(crate) async fn spot_prices(url: &str) -> usize {
    let wanted = control::prices::update::Wanted {
        types: ["g5.xlarge".to_owned(), "g6.xlarge".to_owned()].into(),
        regions: ["us-east-1".to_owned()].into(),
    };
    let fetched = control::prices::update::fetch(&wanted, &super::setup::reach(url)).await;
    fetched.quotes.spot.get("us-east-1").map_or(0, Vec::len)
}

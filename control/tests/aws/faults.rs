//! What Amazon does at its worst, as only our own stand-in does it.

use std::time::Duration;

use control::command::LaunchRefusal;
use control::fleet::ec2::roster::Patience;
use control::fleet::{LaunchError, Provider};
use policy::units::Duration as Time;

use super::fake::{Fake, Fault};
use super::setup::{
    ON_DEMAND, ONE_BY_ONE, SOON, SPOT, ec2, launch, launch_all, patience, plans, provider, terminate, token,
};
use super::suite::{Server, everything};

const SUBNETS: [&str; 2] = ["subnet-a", "subnet-b"];

/// A provider whose calls are given up after a third of a second.
async fn start(fake: &Fake, patience: Patience) -> control::fleet::ec2::Ec2Provider {
    let client = ec2(&fake.url(), Duration::from_millis(300)).await;
    provider(client, "plane", plans("lt-1", &SUBNETS), patience, &[])
}

fn refused(why: LaunchRefusal) -> LaunchError {
    LaunchError::Refused(why)
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_stand_in_and_the_provider_agree() {
    for lag_ms in [0, 400] {
        let fake = Fake::start().await;
        fake.account().lag = Duration::from_millis(lag_ms);
        fake.account().pending_for = Duration::from_millis(200);
        let server = Server {
            url: fake.url(),
            template: "lt-1".to_owned(),
            subnets: SUBNETS.map(str::to_owned).to_vec(),
            image: "ami-1".to_owned(),
            lag_ms: lag_ms + 300,
        };
        everything(&server).await;
        assert_eq!(fake.account().alive().len(), 1, "only somebody else's instance is left");
        let calls = fake.account().calls.clone();
        let fleets = calls.iter().filter(|call| *call == "CreateFleet").count();
        assert_eq!(fleets, 2, "five launches that came together, and one: {calls:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reasons_of_refusals_are_told_apart() {
    let fake = Fake::start().await;
    let provider = start(&fake, patience(300, true)).await;
    let check = async |fault: Fault, expected: LaunchRefusal| {
        fake.account().faults.push_back(("CreateFleet", fault));
        assert_eq!(launch(&provider, token(0), SPOT).await, Err(refused(expected)));
    };
    check(Fault::Error(400, "InsufficientInstanceCapacity"), LaunchRefusal::InsufficientCapacity).await;
    check(Fault::Error(400, "MaxSpotInstanceCountExceeded"), LaunchRefusal::Quota).await;
    check(Fault::Error(400, "VcpuLimitExceeded"), LaunchRefusal::Quota).await;
    check(Fault::Partial(0, "UnfulfillableCapacity"), LaunchRefusal::InsufficientCapacity).await;
    let words = |result: Result<String, LaunchError>| match result {
        Err(LaunchError::Refused(LaunchRefusal::Other(words))) => words,
        other => panic!("{other:?}"),
    };
    for (code, expected) in [
        ("UnauthorizedOperation", "IAM policy"),
        ("AuthFailure", "IAM policy"),
        ("ExpiredToken", "renew them"),
        ("InvalidLaunchTemplateId.NotFound", "InvalidLaunchTemplateId.NotFound"),
    ] {
        fake.account().faults.push_back(("CreateFleet", Fault::Error(403, code)));
        let words = words(launch(&provider, token(0), SPOT).await);
        assert!(words.contains(expected), "{words}");
    }
    assert_eq!(fake.account().instances.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_fleet_serves_as_many_launches_as_it_has_instances() {
    let fake = Fake::start().await;
    let provider = start(&fake, patience(300, true)).await;
    fake.account().spot_max = Some(3);
    let tokens: Vec<_> = (0..5).map(token).collect();
    let results = launch_all(&provider, &tokens, SPOT).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3);
    let others = results.iter().filter(|result| **result == Err(refused(LaunchRefusal::Quota)));
    assert_eq!(others.count(), 2, "{results:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn places_without_capacity_are_passed_over() {
    let fake = Fake::start().await;
    let provider = start(&fake, patience(300, true)).await;
    for (kind, subnet, count) in
        [("g6.xlarge", "subnet-a", 0), ("g6.xlarge", "subnet-b", 1), ("g5.xlarge", "subnet-a", 1)]
    {
        fake.account().capacity.insert((kind.to_owned(), subnet.to_owned()), count);
    }
    for pool in [SPOT, ONE_BY_ONE] {
        let tokens: Vec<_> = (0..3).map(token).collect();
        let handles = launch_all(&provider, &tokens, pool).await;
        let places: Vec<_> = fake.account().alive().into_iter().map(|one| (one.kind, one.subnet)).collect();
        let place = |kind: &str, subnet: &str| (kind.to_owned(), subnet.to_owned());
        let expected =
            [place("g6.xlarge", "subnet-b"), place("g5.xlarge", "subnet-a"), place("g5.xlarge", "subnet-b")];
        assert_eq!(places, expected, "{handles:?}");
        for (token, handle) in tokens.iter().zip(handles) {
            terminate(&provider, *token, Some(&handle.expect("an instance"))).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn throttled_calls_are_made_again() {
    let fake = Fake::start().await;
    let provider = start(&fake, patience(300, true)).await;
    for action in ["CreateFleet", "CreateTags", "TerminateInstances", "DescribeInstances"] {
        for _ in 0..2 {
            fake.account().faults.push_back((action, Fault::Error(503, "RequestLimitExceeded")));
        }
    }
    let tokens: Vec<_> = (0..2).map(token).collect();
    let handles = launch_all(&provider, &tokens, SPOT).await;
    for (token, handle) in tokens.iter().zip(handles) {
        terminate(&provider, *token, Some(&handle.expect("an instance"))).await;
    }
    while provider.list().await.is_err() {}
    assert!(fake.account().faults.is_empty() && fake.account().alive().is_empty());
    assert_eq!(fake.account().instances.len(), 2);
    assert!(provider.health().await.expect("it runs").throttled >= 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_whose_answer_is_lost_is_found_by_its_tags() {
    for lag_ms in [0, 500] {
        let fake = Fake::start().await;
        fake.account().lag = Duration::from_millis(lag_ms);
        let provider = start(&fake, patience(lag_ms + 300, true)).await;
        for (count, pool, action) in
            [(1, SPOT, "CreateFleet"), (4, ON_DEMAND, "CreateFleet"), (3, ONE_BY_ONE, "RunInstances")]
        {
            fake.account().faults.push_back((action, Fault::AnswerLost));
            let tokens: Vec<_> = (0..count).map(token).collect();
            for result in launch_all(&provider, &tokens, pool).await {
                result.expect("an instance");
            }
        }
        let account = fake.account();
        assert_eq!(account.instances.len(), 8, "none was made twice");
        assert_eq!(
            account.calls.iter().filter(|call| *call == "CreateFleet").count(),
            2,
            "none was asked twice"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_that_never_arrived_is_made_again_with_the_same_client_token() {
    let fake = Fake::start().await;
    let provider = start(&fake, patience(300, true)).await;
    fake.account().faults.push_back(("CreateFleet", Fault::RequestLost));
    fake.account().faults.push_back(("CreateFleet", Fault::Page));
    launch(&provider, token(0), SPOT).await.expect("an instance");
    assert_eq!(fake.account().instances.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_understands_end_in_a_refusal_and_are_reported() {
    let fake = Fake::start().await;
    let provider = start(&fake, patience(200, true)).await;
    for _ in 0..10 {
        fake.account().faults.push_back(("CreateFleet", Fault::Page));
    }
    for _ in 0..3 {
        fake.account().faults.push_back(("DescribeInstances", Fault::Page));
    }
    let result = launch(&provider, token(0), SPOT).await;
    let Err(LaunchError::Refused(LaunchRefusal::Other(words))) = result else { panic!("{result:?}") };
    assert!(words.contains("no clear answer"), "{words}");
    assert_eq!(fake.account().calls.iter().filter(|call| *call == "CreateFleet").count(), 3);
    fake.account().faults.clear();
    launch(&provider, token(1), SPOT).await.expect("it works again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_process_made_is_adopted_or_ended() {
    let fake = Fake::start().await;
    fake.account().lag = Duration::from_millis(300);
    // The process before asked for four and died before it could write their tokens on them.
    let before = start(&fake, patience(10_000, true)).await;
    for _ in 0..50 {
        fake.account().faults.push_back(("CreateTags", Fault::RequestLost));
    }
    let tokens: Vec<_> = (0..4).map(token).collect();
    let lost = tokio::time::timeout(Duration::from_millis(600), launch_all(&before, &tokens, SPOT)).await;
    assert!(lost.is_err(), "nothing is told before the tokens are written");
    drop(before);
    assert_eq!(fake.account().alive().len(), 4);
    fake.account().faults.clear();
    // The next one hears of three of them again.
    let next = start(&fake, patience(700, false)).await;
    for result in launch_all(&next, &tokens[..3], SPOT).await {
        result.expect("an instance");
    }
    let until = tokio::time::Instant::now() + SOON;
    while fake.account().alive().len() > 3 {
        assert!(tokio::time::Instant::now() < until, "the fourth is nobody's and lives");
        let _ = next.list().await;
    }
    assert_eq!(fake.account().instances.len(), 4, "none was made again");
    assert_eq!(next.list().await.expect("a list").len(), 3);
    assert_eq!(next.health().await.expect("it runs").orphans, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plane_that_may_not_list_instances_is_told_so_and_launches_nothing() {
    let fake = Fake::start().await;
    for _ in 0..10 {
        fake.account().faults.push_back(("DescribeInstances", Fault::Error(403, "UnauthorizedOperation")));
    }
    let provider = start(&fake, patience(300, false)).await;
    let result = launch(&provider, token(0), SPOT).await;
    let Err(LaunchError::Refused(LaunchRefusal::Other(words))) = result else { panic!("{result:?}") };
    assert!(words.contains("no list") && words.contains("IAM policy"), "{words}");
    let error = provider.list().await.expect_err("it may not");
    assert!(error.to_string().contains("IAM policy"), "{error}");
    let error = provider.terminate(token(1), None).await.expect_err("it cannot look it up");
    assert!(error.to_string().contains("IAM policy"), "{error}");
    assert!(fake.account().calls.iter().all(|call| call == "DescribeInstances"));
}

#[tokio::test(flavor = "multi_thread")]
async fn run_instances_is_used_where_there_is_no_create_fleet() {
    let fake = Fake::start().await;
    let provider = start(&fake, patience(300, true)).await;
    fake.account().faults.push_back(("CreateFleet", Fault::Error(400, "UnsupportedOperation")));
    for number in 0..2 {
        launch(&provider, token(number), ON_DEMAND).await.expect("an instance");
    }
    let account = fake.account();
    let count = |action: &str| account.calls.iter().filter(|call| *call == action).count();
    assert_eq!((count("CreateFleet"), count("RunInstances")), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_termination_is_repeated_until_it_is_confirmed() {
    let fake = Fake::start().await;
    let patience = Patience { lag: Time::from_millis(300), ..patience(300, true) };
    let provider = start(&fake, patience).await;
    let token = token(0);
    let handle = launch(&provider, token, SPOT).await.expect("an instance");
    for fault in [Fault::Page, Fault::RequestLost, Fault::AnswerLost] {
        fake.account().faults.push_back(("TerminateInstances", fault));
    }
    terminate(&provider, token, Some(&handle)).await;
    assert!(fake.account().alive().is_empty() && fake.account().faults.is_empty());
}

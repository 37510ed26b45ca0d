//! What a scenario file says is what the typed scenario holds.

use std::path::{Path, PathBuf};

use policy::model::{Place, PoolId, QualityId};
use policy::policies::{Quality, Retry, Scaling};
use policy::units::{Duration, Usd};
use scenarios::scenario::{Law, Scenario, StepKind};

fn load(name: &str, overrides: &[&str]) -> Scenario {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("valid").join(name);
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    scenarios::load(&path, &overrides).unwrap_or_else(|errors| panic!("{name}: {errors:?}")).scenario
}

fn secs(text: &str) -> f64 {
    Duration::parse(text).expect("a valid duration").as_secs_f64()
}

#[test]
fn minimal_scenario_gets_its_defaults() {
    let scenario = load("minimal.toml", &[]);
    let pool = &scenario.system.pools[0];
    assert_eq!((pool.count_initial, pool.count_min, pool.count_max), (10, 0, 10));
    assert_eq!(pool.startup_expected.as_secs_f64(), secs("183s"));
    assert_eq!(scenario.system.regions[0].name, "local");
    assert_eq!(scenario.system.classes[0].deadline, None);
    assert!(matches!(scenario.system.policies.scaling, Scaling::Static));
    assert!(matches!(scenario.system.policies.retry, Retry::Backoff { attempts_max: 3, .. }));
    assert_eq!(scenario.system.stages[0].service_expected.as_secs_f64(), 4.0);
    assert_eq!((scenario.run.seed, scenario.run.horizon.as_secs_f64()), (1, 3600.0));
    assert_eq!(scenario.name, "minimal");
}

#[test]
fn quantiles_of_a_lognormal_law_become_mean_and_cv() {
    // sigma = ln(900/120)/2.32635 = 0.866129; mean = 120 exp(sigma^2/2) = 174.614 ms; cv = 1.05705.
    let Law::Lognormal { mean, cv } = load("humen.toml", &[]).tiers[0].get.latency else {
        panic!("the file states a lognormal law");
    };
    assert!((mean.as_secs_f64() - 0.174_614).abs() < 2e-6, "{mean:?}");
    assert!((cv - 1.057_051).abs() < 2e-6, "{cv}");
}

#[test]
fn factors_go_by_pool_name_then_by_the_pool() {
    let factors = |scenario: &Scenario, stage: usize| match &scenario.stages[stage].steps[0].kind {
        StepKind::Compute { factor, .. } => factor.clone(),
        other => panic!("{other:?} is no compute step"),
    };
    assert_eq!(factors(&load("humen.toml", &[]), 2), [1.05, 1.0]);
    assert_eq!(factors(&load("wombo.toml", &[]), 1), [1.0, 1.4, 0.4, 1.0]);
}

#[test]
fn stages_hold_the_slot_kind_that_they_name() {
    let scenario = load("humen.toml", &[]);
    let kinds = scenario.system.stages.iter().map(|stage| match stage.place {
        Place::Slot { kind, .. } => kind.0,
        Place::Outside => panic!("every stage holds a slot"),
    });
    assert_eq!(kinds.collect::<Vec<_>>(), [1, 0, 0, 1]);
    assert_eq!(scenario.system.pools[0].slots, [2, 2, 0, 0]);
}

#[test]
fn extended_scenario_keeps_what_it_does_not_change() {
    let (standard, express) = (load("lyrebird-standard.toml", &[]), load("lyrebird-express.toml", &[]));
    assert_eq!(express.stages, standard.stages);
    assert_eq!(express.system.stages[1].lease, Some(Duration::from_secs(30)));
    assert_eq!(standard.system.stages[1].lease, None);
    assert_eq!(express.tiers[0].put, standard.tiers[0].put);
    // Dated list prices: 0.0004 USD per 1000 GETs on Standard, 0.00003 USD on Express since 2025-04-10.
    assert_eq!(standard.tiers[0].prices.per_million_get, Usd::from_nanos(400_000_000));
    assert_eq!(express.tiers[0].prices.per_million_get, Usd::from_nanos(30_000_000));
    assert_ne!(express.digest, standard.digest);
}

#[test]
fn round_trips_hold_in_both_directions() {
    let system = load("meta.toml", &[]).system;
    let millis = |from: usize, to: usize| system.regions[from].round_trip[to].as_nanos() / 1_000_000;
    assert_eq!([millis(0, 1), millis(1, 0), millis(2, 1), millis(0, 0)], [80, 80, 130, 0]);
    assert_eq!(system.queue_per_slot_max, Some(0.0));
}

#[test]
fn catalog_prices_come_with_their_source() {
    let scenario = load("humen.toml", &[]);
    let [spot, on_demand] = [PoolId(0), PoolId(1)].map(|id| &scenario.system.pools[id.index()].offering);
    assert_eq!(on_demand.price.as_nanos(), 526_000_000);
    assert!(spot.price < on_demand.price && spot.price_list == on_demand.price, "{spot:?}");
    assert!(!spot.source.is_empty() && spot.accelerator == "T4", "{spot:?}");
}

#[test]
fn overrides_change_the_answer_and_the_digest() {
    let plain = load("wombo.toml", &[]);
    let set = load(
        "wombo.toml",
        &[
            "policy.quality={ kind = \"fixed\", level = \"4-steps\" }",
            "pipeline.stage.paint.deliveries_max=7",
            "workload.source.2.factor=0",
        ],
    );
    assert!(matches!(plain.system.policies.quality, Quality::Ladder { .. }));
    assert_eq!(set.system.policies.quality, Quality::Fixed(QualityId(2)));
    assert_eq!(set.system.stages[1].deliveries_max, 7);
    assert_eq!(set.workload[2].rate_factor, 0.0);
    assert_ne!(set.digest, plain.digest);
}

#[test]
fn mistakes_in_overrides_and_in_the_base_point_into_their_own_text() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("valid");
    let fails = |text: &str, set: &str| {
        let overrides: Vec<String> =
            [set].iter().filter(|s| !s.is_empty()).map(|s| (*s).to_owned()).collect();
        let errors = scenarios::load_str("a.toml", text, &folder, &overrides).expect_err("a mistake");
        let error = &errors[0];
        let span = error.span().expect("a place");
        let at = &error.source_text().expect("a text")[span];
        (error.source_name().expect("a name").to_owned(), error.key().to_owned(), at.to_owned())
    };
    let (name, key, at) = fails("extends = \"minimal.toml\"", "run.horizn=2h");
    assert_eq!((name.as_str(), key.as_str(), at.as_str()), ("--set", "run.horizn", "run.horizn"));
    let (name, key, at) = fails("extends = \"minimal.toml\"\n[fleet]\nslot_kinds = [\"a\", \"a\"]", "");
    assert_eq!((name.as_str(), key.as_str(), at.as_str()), ("a.toml", "fleet.slot_kinds.1", "\"a\""));
    let (name, key, at) = fails("extends = \"minimal.toml\"\n[network]\nregions = [\"x\", \"y\"]", "");
    assert_eq!((name.as_str(), key.as_str(), at.as_str()), ("a.toml", "network.round_trip", "[network]"));
    let (name, key, at) =
        fails("extends = \"minimal.toml\"\n[[pipeline.stage]]\nname = \"post\"\ntime = \"1s\"", "");
    assert_eq!(
        (name.as_str(), key.as_str(), at.as_str()),
        ("a.toml", "pipeline.stage.post", "[[pipeline.stage]]")
    );
}

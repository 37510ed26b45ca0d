//! Small systems that between them use every part of a dispatcher.

use std::path::Path;
use std::sync::OnceLock;

use control::plane::{Patience, Rules, ScenarioText};
use policy::model::PoolId;
use policy::units::Duration;

/// One stage, a fixed fleet of workers that join by themselves.
const JOINED: &str = r#"
description = "workers that join by themselves"
[[workload.source]]
name = "users"
arrivals = { kind = "constant", rate = "1/s" }
[[pipeline.stage]]
name = "render"
pool = "gpu"
time = "4s"
lease = "30s"
[fleet.pool.own]
class = "gpu"
provider = "aws"
region = "us-east-1"
instance_type = "g6.xlarge"
count = 3
count_max = 3
[objective]
deadline = "2min"
[run]
horizon = "1h"
"#;

/// Two stages, spot behind a hedge, two slots each, backoff, scaled by the queue.
const HEDGED: &str = r#"
description = "spot with on-demand behind it"
[[workload.source]]
name = "users"
arrivals = { kind = "constant", rate = "1/s" }
[[pipeline.stage]]
name = "train"
pool = "g4"
time = "6s"
lease = "25s"
deliveries_max = 20
[[pipeline.stage]]
name = "infer"
pool = "g4"
time = "3s"
lease = "25s"
deliveries_max = 20
[fleet.pool.spot]
class = "g4"
provider = "aws"
region = "us-east-1"
instance_type = "g4dn.xlarge"
capacity_type = "spot"
interruption = { hazard_per_hour = 0.05 }
slots = { gpu = 2 }
count_max = 6
startup = { boot = "20s", image = "5s", weights = "5s" }
[fleet.pool.base]
class = "g4"
provider = "aws"
region = "us-east-1"
instance_type = "g4dn.xlarge"
slots = { gpu = 2 }
count = 1
count_max = 6
startup = { boot = "20s", image = "5s", weights = "5s" }
[policy]
scaling = { kind = "keda", queue_length = 2 }
purchase = { kind = "spot-hedge", overprovision = 1 }
retry = { kind = "backoff", base = "1s", cap = "20s" }
[objective]
deadline = "10min"
[run]
horizon = "1h"
"#;

/// One stage, deadlines that bite.
const LATE: &str = r#"
description = "deadlines that bite"
[[workload.source]]
name = "users"
arrivals = { kind = "constant", rate = "1/s" }
class = "hurried"
[[workload.class]]
name = "hurried"
deadline = "40s"
expires = true
[[pipeline.stage]]
name = "render"
pool = "gpu"
time = "5s"
lease = "30s"
[fleet.pool.own]
class = "gpu"
provider = "aws"
region = "us-east-1"
instance_type = "g6.xlarge"
count = 2
count_min = 1
count_max = 5
startup = { boot = "10s", image = "2s", weights = "2s" }
[policy]
scaling = "hpa"
[queue]
order = "deadline"
[objective]
deadline = "40s"
[run]
horizon = "1h"
"#;

/// What an operator changes in them between two starts.
const CHANGES: [(&str, &str); 6] = [
    ("lease = \"30s\"", "lease = \"20s\""),
    ("count = 3\ncount_max = 3", "count = 2\ncount_max = 2"),
    ("queue_length = 2", "queue_length = 1"),
    ("overprovision = 1", "overprovision = 2"),
    ("count_max = 5", "count_max = 4"),
    ("cap = \"20s\"", "cap = \"10s\""),
];

/// The rules of scenario `index`, of any, as they are first, or as they are `changed`.
pub(crate) fn rules(index: u64, changed: bool) -> Rules {
    static RULES: OnceLock<Vec<Rules>> = OnceLock::new();
    let all = RULES.get_or_init(|| {
        let load = |(at, text): (usize, String)| {
            let loaded = control_scenario(&format!("scenario {at}"), &text);
            let text = ScenarioText { toml: loaded.resolved_toml, compress: 1.0 };
            let loaded = loaded.scenario;
            let patience = Patience {
                jobs_max: 60,
                idempotency: Duration::from_secs(3600),
                join: Duration::from_secs(120),
                ..Patience::default()
            };
            let mut rules = Rules::new(&loaded, 3, [7; 32], patience).expect("a sound world");
            rules.text = Some(text);
            if at / 2 == 0 {
                rules.joined.insert(PoolId(0));
            }
            rules
        };
        let change =
            |text: &str| CHANGES.iter().fold(text.to_owned(), |text, (was, is)| text.replace(was, is));
        let texts = [JOINED, HEDGED, LATE].iter().flat_map(|text| [(*text).to_owned(), change(text)]);
        texts.enumerate().map(load).collect()
    });
    all[index as usize % (all.len() / 2) * 2 + usize::from(changed)].clone()
}

fn control_scenario(name: &str, text: &str) -> scenarios::Loaded {
    match scenarios::load_str(name, text, Path::new("."), &[]) {
        Ok(loaded) => loaded,
        Err(errors) => {
            let lines: Vec<_> = errors
                .iter()
                .map(|error| format!("{}: {} ({:?})", error.key(), error.message(), error.help()))
                .collect();
            panic!("{name}: {lines:#?}")
        }
    }
}

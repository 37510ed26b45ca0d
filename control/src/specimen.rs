//! The smallest scenario that a plane can serve, for the tests beside the code.

use std::path::Path;

use scenarios::Loaded;

/// One stage `render` of a second on the pool `own`, which has so many machines.
pub(crate) fn specimen(machines: u32) -> Loaded {
    let text = format!(
        r#"
[[workload.source]]
name = "users"
arrivals = {{ kind = "constant", rate = "1/s" }}
[[pipeline.stage]]
name = "render"
pool = "own"
time = "1s"
[fleet.pool.own]
price = "1 USD/h"
count = {machines}
"#
    );
    scenarios::load_str("specimen", &text, Path::new("/"), &[]).expect("the scenario is valid")
}

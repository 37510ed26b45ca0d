//! The service that the live tests run: one stage `generate` on the pool `gpu`, whose machines are there from the start.

/// What differs between the tests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene {
    pub(crate) lease: &'static str,
    pub(crate) deliveries_max: u32,
    pub(crate) slots: u16,
    pub(crate) machines: usize,
    pub(crate) deadline: &'static str,
}

impl Scene {
    /// The scenario.
    pub(crate) fn toml(&self) -> String {
        let Self { lease, deliveries_max, slots, machines, deadline } = self;
        format!(
            r#"
[[workload.source]]
name = "users"
arrivals = {{ kind = "constant", rate = "1/s" }}
[[pipeline.stage]]
name = "generate"
pool = "gpu"
time = "1s"
lease = "{lease}"
deliveries_max = {deliveries_max}
[fleet.pool.gpu]
provider = "aws"
region = "us-east-1"
instance_type = "g6.xlarge"
slots = {slots}
count = {machines}
count_max = {machines}
[policy]
scaling = "static"
[objective]
deadline = "{deadline}"
[run]
horizon = "1h"
"#
        )
    }
}

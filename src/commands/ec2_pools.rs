//! Pools on EC2: the file that says how, read and compared with the scenario, and the provider that it makes.

use std::path::Path;

use control::fleet::ec2::Ec2Settings;
use policy::model::System;

use crate::failure::{Failure, Status};

/// Reads `file` and checks it against the pools that it is for; nothing is asked of Amazon.
pub(crate) fn read(file: &Path, system: &System) -> Result<Ec2Settings, Failure> {
    let bad = |what: String| Failure::new(Status::InvalidInput, "ec2::settings", what);
    let text = std::fs::read_to_string(file)
        .map_err(|error| bad(format!("`{}` cannot be read: {error}", file.display())))?;
    Ec2Settings::parse(&text)
        .and_then(|settings| settings.plans(&system.pools).map(|_| settings))
        .map_err(|error| bad(format!("{}: {error}", file.display())))
}

/// Says so where this program cannot speak to Amazon.
pub(crate) fn built_with_aws() -> Result<(), Failure> {
    if cfg!(feature = "aws") {
        return Ok(());
    }
    Err(Failure::new(Status::Failed, "aws::missing", "this headroom was built without AWS")
        .with_help("build it with `cargo build --release --features aws`"))
}

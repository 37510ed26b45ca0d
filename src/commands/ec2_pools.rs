//! Pools on EC2: the file that says how, read and compared with the scenario, and the provider that it makes.

use std::path::Path;

use control::fleet::ec2::Ec2Settings;
use control::service::{Opening, ServiceError};
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

/// The provider of a plane that is opening. Amazon is asked for the first time when the plane launches or compares.
#[cfg(feature = "aws")]
pub(crate) async fn open(
    settings: &Ec2Settings,
    opening: &Opening,
) -> Result<control::fleet::ec2::Ec2Provider, ServiceError> {
    let Opening { rules, launches, epoch, .. } = opening;
    let reach = control::aws::Reach::default();
    Ok(control::fleet::ec2::aws::open(settings, &reach, rules, launches, *epoch == 1).await?)
}

/// Never called: [`built_with_aws`] has refused the wish.
#[cfg(not(feature = "aws"))]
pub(crate) async fn open(
    _: &Ec2Settings,
    _: &Opening,
) -> Result<control::fleet::ManualProvider, ServiceError> {
    unreachable!("a build without AWS refuses the wish")
}

//! Instances of EC2: how many and of which pool is the plane's decision; this makes them, finds them again and ends them.
//!
//! [`roster`] decides which call comes next, and is tested without any; [`call`] is what it asks; [`provider`] carries
//! calls and answers; `aws` makes the calls with Amazon's SDK (feature `aws`); [`settings`] says from which launch
//! templates; [`notice`] reads Amazon's warnings. Nothing here touches an instance that does not bear the plane's tags.

pub mod call;
pub mod notice;
pub mod provider;
pub mod refusal;
pub mod roster;
pub mod settings;

#[cfg(feature = "aws")]
pub mod aws;
#[cfg(feature = "aws")]
pub mod warnings;

pub use provider::Ec2Provider;
pub use settings::{Ec2Settings, PoolPlan, SettingsError};

/// Tag with the plane's name; every instance of a plane has it.
pub const TAG_PLANE: &str = "headroom:plane";
/// Tag with the pool's name.
pub const TAG_POOL: &str = "headroom:pool";
/// Tag with the launch's token.
pub const TAG_LAUNCH: &str = "headroom:launch";
/// Tags with the tokens of the call that made the instance; a number follows.
pub const TAG_BATCH: &str = "headroom:batch.";
/// Tag with the address that the worker joins.
pub const TAG_JOIN: &str = "headroom:join";

//! The commands, one file each, and what several of them need.

#[cfg(feature = "live")]
mod beside;
pub(crate) mod compare;
pub(crate) mod completions;
#[cfg(feature = "live")]
mod day;
pub(crate) mod device;
#[cfg(feature = "live")]
mod ec2_pools;
#[cfg(feature = "live")]
pub(crate) mod fidelity;
pub(crate) mod inputs;
#[cfg(feature = "live")]
pub(crate) mod keys;
#[cfg(feature = "live")]
mod log;
#[cfg(feature = "live")]
mod market;
pub(crate) mod model_args;
mod overrides;
pub(crate) mod parquet_rows;
pub(crate) mod plan;
#[cfg(feature = "live")]
mod played;
mod price_update;
pub(crate) mod prices;
pub(crate) mod profile;
#[cfg(feature = "live")]
pub(crate) mod rehearse;
#[cfg(feature = "live")]
mod rehearse_cloud;
#[cfg(feature = "live")]
mod rehearse_remote;
#[cfg(feature = "live")]
pub(crate) mod replay;
pub(crate) mod result_folder;
pub(crate) mod run_args;
pub(crate) mod schema;
#[cfg(feature = "live")]
pub(crate) mod serve;
#[cfg(feature = "live")]
mod serve_aws;
#[cfg(feature = "live")]
mod serve_crew;
#[cfg(feature = "live")]
mod serve_several;
#[cfg(feature = "live")]
mod serve_traces;
pub(crate) mod simulate;
mod spot_zones;
mod summary_text;
pub(crate) mod trace;
pub(crate) mod train;
pub(crate) mod validate;
pub(crate) mod worker;
mod worker_join;

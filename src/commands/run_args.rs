//! Flags of the commands that run scenarios. What they mean for a scenario is in `overrides`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use policy::units::Duration;

/// Largest seed that a scenario file can hold.
const SEED_MAX: u64 = i64::MAX as u64;

/// Flags that change a scenario; they win over the file, and over `--set`.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Changes to the scenario")]
pub(crate) struct OverrideArgs {
    /// Change one value, e.g. `run.horizon=2h` or `fleet.pool.main.count=8`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Seed of all chance.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=SEED_MAX))]
    pub(crate) seed: Option<u64>,
    /// Independent repetitions.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) replications: Option<u32>,
    /// When arrivals end, e.g. `2h` or `1d`.
    #[arg(long, value_name = "DURATION", value_parser = duration_text)]
    pub(crate) horizon: Option<String>,
    /// Confidence of the intervals, between 0 and 1.
    #[arg(long, value_name = "SHARE", value_parser = confidence)]
    pub(crate) confidence: Option<f64>,
    /// Replay this trace as the arrivals of the first source, or of SOURCE; its class and regions stay.
    #[arg(long, value_name = "[SOURCE=]FILE")]
    pub(crate) trace: Vec<String>,
    /// Take the availability of spot pools from this folder of `<zone>_v100_1.json` files.
    #[arg(long, value_name = "DIR")]
    pub(crate) spot_trace: Option<PathBuf>,
}

/// Flags of a run.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) overrides: OverrideArgs,
    /// Write records and charts into this folder.
    #[arg(long, value_name = "DIR", help_heading = "Run")]
    pub(crate) out: Option<PathBuf>,
    /// Threads for replications; the result is the same for any number. Default: all cores.
    #[arg(long, value_name = "N", value_parser = thread_count, help_heading = "Run")]
    pub(crate) threads: Option<NonZeroUsize>,
}

/// `headroom simulate`.
#[derive(Args, Clone, Debug)]
pub(crate) struct SimulateArgs {
    /// The scenario.
    #[arg(value_name = "SCENARIO")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// `headroom compare`.
#[derive(Args, Clone, Debug)]
pub(crate) struct CompareArgs {
    /// The scenarios; the first is what the others are compared with.
    #[arg(value_name = "SCENARIO", required = true)]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// `headroom plan`.
#[derive(Args, Clone, Debug)]
pub(crate) struct PlanArgs {
    /// The scenario.
    #[arg(value_name = "SCENARIO")]
    pub(crate) file: PathBuf,
    /// Most that the run may cost, in dollars, e.g. `5000` or `"5000 USD"`.
    #[arg(long, value_name = "USD", value_parser = budget_text)]
    pub(crate) budget: Option<String>,
    /// Fewer replications and candidates: an answer in seconds, with wider intervals.
    #[arg(long)]
    pub(crate) quick: bool,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Checks a duration and leaves it as it was written.
fn duration_text(text: &str) -> Result<String, String> {
    match Duration::parse(text) {
        Ok(Duration::ZERO) => Err("it must last longer than 0s".to_owned()),
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads a duration longer than zero in nanoseconds.
pub(crate) fn duration_ns(text: &str) -> Result<u64, String> {
    duration_text(text)?;
    Duration::parse(text).map(Duration::as_nanos).map_err(|error| error.to_string())
}

fn thread_count(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "it must be a whole number from 1".to_owned())
}

fn confidence(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| *share > 0.0 && *share < 1.0);
    share.ok_or_else(|| "it must be a share strictly between 0 and 1, such as 0.95".to_owned())
}

/// Checks an amount of dollars, with its unit or without.
fn budget_text(text: &str) -> Result<String, String> {
    let text = match text.trim() {
        bare if bare.parse::<f64>().is_ok() => format!("{bare} USD"),
        text => text.to_owned(),
    };
    policy::units::Usd::parse(&text).map(|_| text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_dollars_with_or_without_the_word() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(budget_text(text).ok().as_deref(), expected, "{text}");
        };
        check("5000", Some("5000 USD"));
        check("12.5 USD", Some("12.5 USD"));
        check("-1", None);
        check("5 EUR", None);
    }

    #[test]
    fn confidence_lies_between_zero_and_one() {
        assert_eq!(confidence("0.99"), Ok(0.99));
        for text in ["0", "1", "95", "nan", ""] {
            assert!(confidence(text).is_err(), "{text}");
        }
    }
}

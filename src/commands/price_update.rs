//! `headroom prices update`: today's prices of AWS, as rows of the catalog with their source and day.

use std::path::PathBuf;

use clap::Args;

use crate::failure::Failure;
use crate::screen::Screen;

const EXAMPLES: &str = "\
Examples:
  headroom prices update
  headroom prices update --region us-east-1 --region eu-west-1 --out prices-aws.toml
  headroom prices show --catalog prices-aws.toml --instance g6

Asks the AWS Price List API and, for each region, DescribeSpotPriceHistory, with the credentials that other AWS tools use.
Needs a program built with `--features aws`; the questions are free of charge.";

#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES)]
#[cfg_attr(not(feature = "aws"), allow(dead_code, reason = "read by the build with AWS only"))]
pub(crate) struct UpdateArgs {
    /// Only this region; may be given several times. Default: all AWS regions of the catalog.
    #[arg(long, value_name = "REGION")]
    region: Vec<String>,
    /// Only this instance type, e.g. `g6.xlarge`; may be given several times. Default: all of the catalog.
    #[arg(long, value_name = "TYPE")]
    instance: Vec<String>,
    /// File to write, whole or not at all.
    #[arg(long, value_name = "FILE", default_value = "prices-aws.toml")]
    out: PathBuf,
}

#[cfg(not(feature = "aws"))]
pub(crate) fn run(_: &UpdateArgs, _: &Screen) -> Result<(), Failure> {
    use crate::failure::Status;
    let what = "this headroom was built without AWS";
    Err(Failure::new(Status::Failed, "prices::no-aws", what)
        .with_help("build it with `cargo build --release --features aws`"))
}

#[cfg(feature = "aws")]
pub(crate) use asked::run;

#[cfg(feature = "aws")]
mod asked {
    use std::collections::BTreeSet;

    use control::aws::Reach;
    use control::prices::rows::rows;
    use control::prices::update::{Wanted, fetch, wanted};
    use scenarios::catalog::Catalog;
    use serde_json::json;

    use super::{Failure, Screen, UpdateArgs};
    use crate::failure::{Status, nearest};
    use crate::whole_file::WholeFile;

    /// Reasons that are shown one by one at most.
    const SHOWN_MAX: usize = 5;

    pub(crate) fn run(args: &UpdateArgs, screen: &Screen) -> Result<(), Failure> {
        let catalog = Catalog::embedded();
        let all = wanted(catalog);
        let wanted = Wanted {
            types: chosen("instance type", &args.instance, all.types)?,
            regions: chosen("region", &args.region, all.regions)?,
        };
        let failed = |code, what: String| Failure::new(Status::Failed, code, what);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(|error| failed("prices::runtime", error.to_string()))?;
        let fetched = runtime.block_on(fetch(&wanted, &Reach::default()));
        for failure in &fetched.failures {
            screen.warn(failure);
        }
        if fetched.unreadable > 0 {
            screen.warn(&format!("{} products of the price list could not be read", fetched.unreadable));
        }
        let file = rows(catalog, &fetched.quotes, jiff::Timestamp::now())
            .map_err(|error| failed("prices::catalog", error.to_string()))?;
        if file.on_demand + file.spot == 0 {
            let what = format!("AWS gave no prices; `{}` is as it was", args.out.display());
            return Err(failed("prices::none", what));
        }
        let mut out = WholeFile::create(&args.out)?;
        out.write(|out| out.write_all(file.text.as_bytes()))?;
        out.finish()?;
        for left_out in file.left_out.iter().take(SHOWN_MAX) {
            screen.note(&format!("left out: {left_out}"));
        }
        if file.left_out.len() > SHOWN_MAX {
            screen.note(&format!("and {} more prices that are no discount", file.left_out.len() - SHOWN_MAX));
        }
        if screen.json {
            let path = args.out.display().to_string();
            return screen.print_json(&json!({
                "file": path, "on_demand": file.on_demand, "spot": file.spot,
                "left_out": file.left_out, "failures": fetched.failures, "unreadable": fetched.unreadable,
            }));
        }
        let path = args.out.display();
        screen.print(&format!("{} on-demand and {} spot prices in {path}\n", file.on_demand, file.spot))
    }

    /// The names that were given, each of which the catalog must have; all without any.
    fn chosen(kind: &str, given: &[String], all: BTreeSet<String>) -> Result<BTreeSet<String>, Failure> {
        if given.is_empty() {
            return Ok(all);
        }
        if let Some(unknown) = given.iter().find(|name| !all.contains(*name)) {
            let message = format!("the price catalog has no {kind} `{unknown}` of AWS");
            let failure = Failure::new(Status::InvalidInput, "prices::unknown-name", message);
            let near = nearest(unknown, all.iter().map(String::as_str));
            return Err(match near {
                Some(near) => failure.with_help(format!("did you mean `{near}`?")),
                None => failure,
            });
        }
        Ok(given.iter().cloned().collect())
    }
}

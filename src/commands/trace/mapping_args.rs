//! Flags that say how to read a trace, and what to try when it cannot be read.

use std::path::Path;

use clap::Args;
use scenarios::trace::{ImportOptions, Mapping, TimeUnit, Trace};

use crate::commands::inputs::read_trace;
use crate::commands::run_args::duration_ns;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::screen::Screen;

/// Which column holds what; public formats are known by their content and need none of this.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Columns of a plain CSV, JSON-lines or Parquet file")]
pub(crate) struct MappingArgs {
    /// Column of arrival times, or of the starts of bins.
    #[arg(long, value_name = "COLUMN")]
    time: Option<String>,
    /// What it holds: s, ms, us, ns (numbers) or datetime.
    #[arg(long, value_name = "UNIT", requires = "time", default_value = "datetime", value_parser = time_unit)]
    time_unit: TimeUnit,
    /// Column of requests per bin; without it each row is one request.
    #[arg(long, value_name = "COLUMN", requires = "time")]
    count: Option<String>,
    /// Column of execution times in seconds.
    #[arg(long, value_name = "COLUMN", requires = "time")]
    exec: Option<String>,
    /// Column of regions.
    #[arg(long, value_name = "COLUMN", requires = "time")]
    region: Option<String>,
    /// Column of job classes.
    #[arg(long, value_name = "COLUMN", requires = "time")]
    class: Option<String>,
    /// Column of sizes (tokens, images, bytes).
    #[arg(long, value_name = "COLUMN", requires = "time")]
    size: Option<String>,
    /// Count requests per bin of this width, e.g. `1min`, or join the bins of a trace of counts.
    #[arg(long, value_name = "DURATION", value_parser = duration_ns)]
    bin: Option<u64>,
    /// Width of the bins of a trace of counts, where its rows do not tell.
    #[arg(long, value_name = "DURATION", value_parser = duration_ns)]
    count_bin: Option<u64>,
    /// Accept rows in any order.
    #[arg(long)]
    sort: bool,
}

fn time_unit(text: &str) -> Result<TimeUnit, String> {
    text.parse::<TimeUnit>().map_err(|error| error.to_string())
}

impl MappingArgs {
    pub(super) fn options(&self) -> ImportOptions {
        let mapping = self.time.as_ref().map(|time| Mapping {
            time: time.clone(),
            time_unit: self.time_unit,
            count: self.count.clone(),
            exec_s: self.exec.clone(),
            region: self.region.clone(),
            class: self.class.clone(),
            size: self.size.clone(),
        });
        ImportOptions {
            mapping,
            bin_ns: self.bin,
            count_bin_ns: self.count_bin,
            sort: self.sort,
            ..ImportOptions::default()
        }
    }

    /// Reads a trace, with a sign of life on a terminal.
    ///
    /// # Errors
    /// Any mistake of the file, with the flag that may help.
    pub(super) fn read(&self, path: &Path, screen: &Screen) -> Result<Trace, Failure> {
        let _progress = Progress::spinner(screen, &format!("reading {}", path.display()));
        read_trace(path, &self.options()).map_err(advised)
    }
}

/// Names the flag that may help.
pub(super) fn advised(failure: Failure) -> Failure {
    let [mistake] = failure.mistakes() else { return failure };
    let help = match mistake.code {
        "trace::unknown-format" => {
            "name its columns, e.g. --time COLUMN --time-unit s; add --count COLUMN when rows are counts"
        }
        "trace::bad-value" if mistake.message.contains("time") => {
            "--time-unit says what the time column holds: s, ms, us, ns or datetime"
        }
        "trace::wrong-type" => {
            "check the column, and for a time column --time-unit: s, ms, us or ns for numbers, else datetime"
        }
        "trace::unsorted" => "--sort accepts rows in any order",
        "trace::too-many-rows" => "--bin 1min counts rows per minute while they stream",
        "trace::too-many-bins" => "--bin 1h makes wider bins; check --time-unit as well",
        "trace::bin-unknown" | "trace::bin-misfit" => "--count-bin 5min states the width of the file's bins",
        _ => return failure,
    };
    failure.with_help(help)
}

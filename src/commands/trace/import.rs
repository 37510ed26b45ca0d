//! `headroom trace import`: reads a trace in any known format and writes it in the normal form.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use scenarios::trace::{Trace, TraceData};
use serde::Serialize;

use super::mapping_args::MappingArgs;
use super::normal_form::{NormalFormat, write};
use crate::commands::inputs::load_trace;
use crate::failure::{Failure, Status};
use crate::numerals::{figure, time};
use crate::screen::Screen;
use crate::whole_file::WholeFile;

const EXAMPLES: &str = "\
Examples:
  headroom trace import AzureLLMInferenceTrace_conv.csv --out azure.csv
  headroom trace import log.csv --time at --time-unit ms --class plan --out log.norm.csv
  headroom trace import day.parquet --time ts --bin 1s --out day.jsonl

The result has a column `time` (or `time_s`, in JSON `time_ns`), and `count`, `exec_s`, `size`, `region` and `class` where known.
A scenario names it as   arrivals = { kind = \"trace\", path = \"azure.csv\" }";

#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct ImportArgs {
    /// The trace: CSV, JSON lines (gzipped or not) or Parquet.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where to write it; it appears whole or not at all. `-` or nothing: stdout.
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// How to write it. Default: as the ending of --out says, else CSV.
    #[arg(long, value_name = "FORMAT")]
    format: Option<NormalFormat>,
    #[command(flatten)]
    mapping: MappingArgs,
}

/// What was written, as programs read it.
#[derive(Serialize)]
struct Imported<'a> {
    out: String,
    format: &'static str,
    count: f64,
    rows: u64,
    span_s: f64,
    source: &'a str,
    source_format: scenarios::trace::TraceFormat,
    source_sha256: Option<&'a str>,
}

pub(crate) fn run(args: &ImportArgs, screen: &Screen) -> Result<(), Failure> {
    let trace = args.mapping.read(&args.file, screen)?;
    let out = args.out.as_deref().filter(|out| *out != Path::new("-"));
    let format = args.format.unwrap_or_else(|| out.map_or(NormalFormat::Csv, format_of));
    let Some(out) = out else {
        if screen.json {
            return Err(Failure::new(
                Status::Usage,
                "trace::two-results",
                "--json describes the import on stdout, where the trace would go, too",
            )
            .with_help("name a file: --out trace.csv"));
        }
        let written = write(&trace, format, &mut io::BufWriter::new(io::stdout().lock()));
        return written.map_err(Failure::stdout);
    };
    save(&trace, format, out)?;
    if matches!(&trace.data, TraceData::Timestamps(stamps) if stamps.model.is_some()) {
        screen.note("the names of models are left out: the normal form has no column for them");
    }
    if screen.json {
        return screen.print_json(&Imported {
            out: out.display().to_string(),
            format: match format {
                NormalFormat::Csv => "csv",
                NormalFormat::Jsonl => "jsonl",
            },
            count: trace.count(),
            rows: rows(&trace),
            span_s: trace.span_ns() as f64 / 1e9,
            source: &trace.source.name,
            source_format: trace.source.format,
            source_sha256: trace.source.sha256.as_deref(),
        });
    }
    let (count, span) = (figure(trace.count()), time(trace.span_ns() as f64 / 1e9));
    screen.note(&format!("wrote {}: {count} requests over {span}", out.display()));
    Ok(())
}

fn format_of(out: &Path) -> NormalFormat {
    let ending = out.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    if matches!(ending.as_str(), "jsonl" | "ndjson" | "json") {
        NormalFormat::Jsonl
    } else {
        NormalFormat::Csv
    }
}

fn rows(trace: &Trace) -> u64 {
    match &trace.data {
        TraceData::Timestamps(stamps) => stamps.at_ns.len() as u64,
        TraceData::Counts(counts) => counts.bin_count() - counts.missing().len() as u64,
    }
}

/// Writes the file and reads it back before it takes its place.
fn save(trace: &Trace, format: NormalFormat, out: &Path) -> Result<(), Failure> {
    let mut file = WholeFile::create(out)?;
    file.write(|out| write(trace, format, out))?;
    let again = load_trace(file.part())?;
    if !same(&trace.data, &again.data) {
        let message = format!("`{}` does not read back as it was written", out.display());
        return Err(Failure::new(Status::Failed, "trace::import-differs", message).with_help(
            "a trace of a single bin, or with most bins missing, does not tell the width of its bins",
        ));
    }
    Ok(file.finish()?)
}

/// Whether both hold the same requests at the same distances.
fn same(written: &TraceData, read: &TraceData) -> bool {
    match (written, read) {
        (TraceData::Timestamps(written), TraceData::Timestamps(read)) => written.at_ns == read.at_ns,
        (TraceData::Counts(written), TraceData::Counts(read)) => {
            written.bin_ns() == read.bin_ns() && written.total() == read.total()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ending_tells_the_format() {
        assert_eq!(format_of(Path::new("a.jsonl")), NormalFormat::Jsonl);
        assert_eq!(format_of(Path::new("a.NDJSON")), NormalFormat::Jsonl);
        assert_eq!(format_of(Path::new("a.csv")), NormalFormat::Csv);
        assert_eq!(format_of(Path::new("a")), NormalFormat::Csv);
    }
}

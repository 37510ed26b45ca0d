//! `headroom trace`: measured traffic comes in, is described, and is fitted.

mod describe;
mod fit;
mod import;
mod mapping_args;
mod normal_form;
mod portrait;
mod source_section;

use clap::Subcommand;

use crate::failure::Failure;
use crate::screen::Screen;

#[derive(Debug, Subcommand)]
pub(crate) enum TraceCommand {
    /// Read a trace and write it in the form that scenarios name.
    Import(import::ImportArgs),
    /// Describe a trace, or a folder of traces: level, peaks, bursts.
    Describe(describe::DescribeArgs),
    /// Fit a generator to a trace and print its section of a scenario.
    Fit(fit::FitArgs),
}

pub(crate) fn run(command: &TraceCommand, screen: &Screen) -> Result<(), Failure> {
    match command {
        TraceCommand::Import(args) => import::run(args, screen),
        TraceCommand::Describe(args) => describe::run(args, screen),
        TraceCommand::Fit(args) => fit::run(args, screen),
    }
}

//! The command-line program `headroom`: reads arguments, runs one command, ends with its exit code. Decides nothing.

mod cli;
mod commands;
mod failure;
mod interrupt;
mod numerals;
mod progress;
mod screen;
mod table;
mod whole_file;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}

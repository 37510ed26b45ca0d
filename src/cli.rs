//! What can be typed: the commands, the flags that hold for all of them, and the way from arguments to an exit code.

use std::process::ExitCode;

use clap::{Args, ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::commands::run_args::{CompareArgs, PlanArgs, SimulateArgs};
use crate::commands::{
    compare, completions, plan, prices, profile, schema, simulate, trace, train, validate, worker,
};
#[cfg(feature = "live")]
use crate::commands::{fidelity, keys, rehearse, replay, serve};
use crate::failure::Failure;
use crate::interrupt;
use crate::screen::Screen;

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed while running
  2    wrong use of the command line
  3    invalid input: a scenario, a trace or a name
  4    the objective or the budget is not met
  5    the device of a worker has failed: only a new process helps
  130  interrupted

Results go to stdout, everything else to stderr. Colours are off where NO_COLOR is set or TERM is dumb.";

const EXAMPLES: &str = "\
Examples:
  headroom plan launch.toml                    which fleet, at what cost, and what does it survive?
  headroom simulate launch.toml                what happens with the scenario as it is written?
  headroom trace describe requests.csv         what is this traffic like?
  headroom prices show --accelerator L4        what does an L4 cost, and where?
  headroom validate launch.toml                is this scenario right?";

/// Know before the spike what it will cost and whether it will hold.
#[derive(Debug, Parser)]
#[command(
    name = "headroom",
    version,
    arg_required_else_help = true,
    max_term_width = 100,
    before_long_help = EXAMPLES,
    after_help = "`--help` shows examples and exit codes.",
    after_long_help = EXIT_CODES
)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every command.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct GlobalArgs {
    /// Print the result as JSON, and errors as JSON on stderr.
    #[arg(long, global = true, help_heading = "Output")]
    pub(crate) json: bool,
    /// No colours.
    #[arg(long, global = true, help_heading = "Output")]
    pub(crate) no_color: bool,
    /// No notes and no progress: results, warnings and errors alone.
    #[arg(short, long, global = true, help_heading = "Output")]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Search for the cheapest plan that meets the objective, and say what it survives.
    #[command(after_long_help = plan::EXAMPLES)]
    Plan(PlanArgs),
    /// Simulate one scenario.
    #[command(after_long_help = simulate::EXAMPLES)]
    Simulate(SimulateArgs),
    /// Compare scenarios side by side, with paired intervals.
    #[command(after_long_help = compare::EXAMPLES, mut_arg("out", |out| out.hide(true)))]
    Compare(CompareArgs),
    /// Read measured traffic: import it, describe it, fit a generator to it.
    #[command(subcommand)]
    Trace(trace::TraceCommand),
    /// The dated price catalog.
    #[command(subcommand)]
    Prices(prices::PricesCommand),
    /// Check scenarios and the files they name.
    Validate(validate::ValidateArgs),
    /// Measure what a model takes on this machine, as a part of a scenario.
    #[command(after_long_help = profile::EXAMPLES)]
    Profile(profile::ProfileArgs),
    /// Teach a model what a handful of pictures shows, as a low-rank adapter.
    #[command(after_long_help = train::EXAMPLES)]
    Train(train::TrainArgs),
    /// Work for a plane, or make one animation.
    #[command(after_long_help = worker::EXAMPLES)]
    Worker(worker::WorkerArgs),
    /// Run the live control plane of a scenario.
    #[cfg(feature = "live")]
    #[command(after_long_help = serve::EXAMPLES)]
    Serve(Box<serve::ServeArgs>),
    /// Make, show and revoke the keys of the job API.
    #[cfg(feature = "live")]
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Try a scenario out on a live plane with played machines, beside its plan.
    #[cfg(feature = "live")]
    #[command(after_long_help = rehearse::EXAMPLES)]
    Rehearse(rehearse::RehearseArgs),
    /// Fold a plane's journal again: the same decisions, or another policy's.
    #[cfg(feature = "live")]
    #[command(after_long_help = replay::EXAMPLES)]
    Replay(replay::ReplayArgs),
    /// Compare a live day with its simulation.
    #[cfg(feature = "live")]
    #[command(after_long_help = fidelity::EXAMPLES)]
    Fidelity(fidelity::FidelityArgs),
    /// Print the JSON Schema of scenario files.
    #[command(after_long_help = schema::EXAMPLES)]
    Schema,
    /// Print a completion script for a shell.
    Completions(completions::CompletionsArgs),
}

/// Runs the program on its arguments.
pub(crate) fn run() -> ExitCode {
    interrupt::watch();
    let cli = match parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing is left to be done about a terminal that takes no message.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1));
        }
    };
    let screen = Screen::new(cli.global);
    match dispatch(&cli.command, &screen) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.show(&screen);
            failure.exit_code()
        }
    }
}

fn dispatch(command: &Command, screen: &Screen) -> Result<(), Failure> {
    match command {
        Command::Plan(args) => plan::run(args, screen),
        Command::Simulate(args) => simulate::run(args, screen),
        Command::Compare(args) => compare::run(args, screen),
        Command::Trace(command) => trace::run(command, screen),
        Command::Prices(command) => prices::run(command, screen),
        Command::Validate(args) => validate::run(args, screen),
        Command::Profile(args) => profile::run(args, screen),
        Command::Train(args) => train::run(args, screen),
        Command::Worker(args) => worker::run(args, screen),
        #[cfg(feature = "live")]
        Command::Serve(args) => serve::run(args, screen),
        #[cfg(feature = "live")]
        Command::Keys(command) => keys::run(command, screen),
        #[cfg(feature = "live")]
        Command::Rehearse(args) => rehearse::run(args, screen),
        #[cfg(feature = "live")]
        Command::Replay(args) => replay::run(args, screen),
        #[cfg(feature = "live")]
        Command::Fidelity(args) => fidelity::run(args, screen),
        Command::Schema => schema::run(screen),
        Command::Completions(args) => completions::run(args, screen),
    }
}

/// Parses the arguments; `--no-color` holds for the messages of the parser itself, too.
fn parse() -> Result<Cli, clap::Error> {
    let plain = std::env::args_os().any(|argument| argument == "--no-color");
    let mut command = Cli::command();
    if plain {
        command = command.color(ColorChoice::Never);
    }
    let matches = command.try_get_matches()?;
    Cli::from_arg_matches(&matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}

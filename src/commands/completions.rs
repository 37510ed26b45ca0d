//! `headroom completions`: a script that lets a shell complete commands and flags.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::failure::Failure;
use crate::screen::Screen;

const EXAMPLES: &str = "\
Examples:
  headroom completions bash > ~/.local/share/bash-completion/completions/headroom
  headroom completions zsh > ~/.zfunc/_headroom
  headroom completions fish > ~/.config/fish/completions/headroom.fish";

#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

pub(crate) fn run(args: &CompletionsArgs, screen: &Screen) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "headroom", &mut script);
    screen.print(&String::from_utf8_lossy(&script))
}

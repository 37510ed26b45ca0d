//! The log of the commands that run for long: on stderr, for people or for machines.

use std::io::IsTerminal;

use clap::ValueEnum;

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogForm {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts the log; RUST_LOG says what is in it, by default all but details.
pub(crate) fn start(form: LogForm) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_env_filter(filter);
    // A second subscriber in one process is no mistake worth dying for.
    let _ = match form {
        LogForm::Text => builder.with_target(false).try_init(),
        LogForm::Json => builder.json().try_init(),
    };
}

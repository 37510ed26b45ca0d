//! Progress of long work on stderr: seen on a terminal alone, gone when the work is done.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::screen::Screen;

const TICK: Duration = Duration::from_millis(100);

/// A line that moves while something is done; it disappears when dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Work of unknown length, e.g. `reading requests.csv`.
    pub(crate) fn spinner(screen: &Screen, what: &str) -> Self {
        let progress = Self::hidden_or(screen, ProgressBar::no_length());
        let marks = if screen.unicode { "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ " } else { "-\\|/ " };
        progress.bar.set_style(style("{spinner} {msg} {elapsed}").tick_chars(marks));
        progress.bar.set_message(what.to_owned());
        if screen.animates() {
            progress.bar.enable_steady_tick(TICK);
        }
        progress
    }

    /// Work of `total` equal steps, with the time left, e.g. replications.
    pub(crate) fn steps(screen: &Screen, what: &str, total: u64) -> Self {
        let progress = Self::hidden_or(screen, ProgressBar::new(total));
        let marks = if screen.unicode { "━╸─" } else { "=> " };
        let line = "{msg} [{bar:30}] {pos}/{len}, {eta} left";
        progress.bar.set_style(style(line).progress_chars(marks));
        progress.bar.set_message(what.to_owned());
        progress
    }

    /// Counts `done` more steps; may be called from any thread.
    pub(crate) fn advance(&self, done: u64) {
        self.bar.inc(done);
    }

    /// Shows that `done` of `total` steps are complete and what is being done now; may be called from any thread.
    pub(crate) fn reach(&self, what: &str, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        self.bar.set_message(what.to_owned());
    }

    /// Writes something else on stderr, above the line.
    pub(crate) fn aside(&self, write: impl FnOnce()) {
        self.bar.suspend(write);
    }

    fn hidden_or(screen: &Screen, bar: ProgressBar) -> Self {
        let target =
            if screen.animates() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        bar.set_draw_target(target);
        Self { bar }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("templates are constants of this file")
}

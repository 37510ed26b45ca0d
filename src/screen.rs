//! Where text goes: results to stdout, notes and warnings to stderr, with or without colours. Holds no texts.

use std::io::{self, IsTerminal, Write};

use miette::{GraphicalReportHandler, GraphicalTheme};
use serde::Serialize;

use crate::cli::GlobalArgs;
use crate::failure::Failure;

/// Width where stdout is no terminal.
const WIDTH_DEFAULT: usize = 80;
/// Wider lines are hard to read, narrower ones hold no table.
const WIDTH_RANGE: (usize, usize) = (40, 160);

/// Where text goes and how it may look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    /// Whether the result is wanted as JSON.
    pub(crate) json: bool,
    /// Characters per line of stdout.
    pub(crate) width: usize,
    /// Whether characters beyond ASCII can be shown.
    pub(crate) unicode: bool,
    quiet: bool,
    error_colour: bool,
    dumb: bool,
}

impl Screen {
    /// The screen that the flags and the environment ask for.
    pub(crate) fn new(args: GlobalArgs) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let terminal = io::stdout().is_terminal();
        let width =
            terminal_size::terminal_size().filter(|_| terminal).map(|(width, _)| usize::from(width.0));
        Self {
            json: args.json,
            width: width.unwrap_or(WIDTH_DEFAULT).clamp(WIDTH_RANGE.0, WIDTH_RANGE.1),
            unicode: shows_unicode(|name| std::env::var(name).ok()),
            quiet: args.quiet,
            error_colour: io::stderr().is_terminal() && !args.no_color && !set("NO_COLOR") && !dumb,
            dumb,
        }
    }

    /// Whether something may move on stderr.
    pub(crate) fn animates(&self) -> bool {
        io::stderr().is_terminal() && !self.quiet && !self.json && !self.dumb
    }

    /// Prints a part of the result.
    ///
    /// # Errors
    /// Stdout takes no more.
    pub(crate) fn print(&self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::stdout)
    }

    /// Prints the result as indented JSON.
    ///
    /// # Errors
    /// Stdout takes no more.
    pub(crate) fn print_json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(Failure::json)?;
        self.print(&format!("{text}\n"))
    }

    /// Tells something that may be missed.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            self.complain(text);
        }
    }

    /// Tells something that must not be missed.
    pub(crate) fn warn(&self, text: &str) {
        let (start, end) = if self.error_colour { ("\u{1b}[33m", "\u{1b}[0m") } else { ("", "") };
        self.complain(&format!("{start}warning:{end} {text}"));
    }

    /// Writes a line to stderr; when even that fails there is nobody left to tell.
    pub(crate) fn complain(&self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// How errors are drawn.
    pub(crate) fn report_handler(&self) -> GraphicalReportHandler {
        let mut theme = match (self.unicode, self.error_colour) {
            (true, true) => GraphicalTheme::unicode(),
            (true, false) => GraphicalTheme::unicode_nocolor(),
            (false, colour) => {
                let mut theme = GraphicalTheme::ascii();
                if !colour {
                    theme.styles = GraphicalTheme::none().styles;
                }
                theme
            }
        };
        if self.dumb {
            theme = GraphicalTheme::none();
        }
        GraphicalReportHandler::new_themed(theme).with_width(self.width).with_links(false)
    }
}

/// Whether the locale says UTF-8; the Linux console does not draw blocks whatever it says.
fn shows_unicode(variable: impl Fn(&str) -> Option<String>) -> bool {
    let named = |name| variable(name).filter(|value| !value.is_empty());
    let locale = named("LC_ALL").or_else(|| named("LC_CTYPE")).or_else(|| named("LANG"));
    let utf8 = locale.is_some_and(|locale| {
        let locale = locale.to_lowercase();
        locale.ends_with("utf-8") || locale.ends_with("utf8")
    });
    utf8 && named("TERM").is_none_or(|term| term != "linux" && term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locale_and_terminal_decide_about_unicode() {
        let check = |variables: &[(&str, &str)], expected| {
            let variable = |name: &str| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            };
            assert_eq!(shows_unicode(variable), expected, "{variables:?}");
        };
        check(&[("LANG", "en_GB.UTF-8")], true);
        check(&[("LANG", "C.utf8"), ("TERM", "xterm")], true);
        check(&[("LANG", "C")], false);
        check(&[], false);
        check(&[("LC_ALL", "C"), ("LANG", "C.UTF-8")], false);
        check(&[("LC_ALL", ""), ("LANG", "C.UTF-8")], true);
        check(&[("LANG", "C.UTF-8"), ("TERM", "linux")], false);
    }
}

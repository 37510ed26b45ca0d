//! A run of the program that is over: what it printed and how it ended. Shared by the tests of the command line.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// The program, to be run in a folder, in an environment that is the same everywhere.
pub(crate) fn headroom(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headroom"));
    command.args(args).current_dir(folder);
    command.env("LC_ALL", "C.UTF-8").env("TERM", "xterm").env_remove("NO_COLOR");
    command
}

pub(crate) struct Ran {
    pub(crate) args: String,
    pub(crate) output: Output,
}

impl Ran {
    /// Runs a command to its end.
    pub(crate) fn of(command: &mut Command) -> Self {
        let args: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        Self { args: args.join(" "), output: command.output().expect("the program starts") }
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8(self.output.stdout.clone()).expect("results are UTF-8")
    }

    /// Stderr with line breaks and the frames around errors taken out, so that texts can be looked for.
    pub(crate) fn stderr(&self) -> String {
        let text = String::from_utf8(self.output.stderr.clone()).expect("messages are UTF-8");
        let lines = text.lines().map(|line| line.trim().trim_start_matches(['│', '×']).trim());
        lines.collect::<Vec<_>>().join(" ")
    }

    /// Asks for the exit code and for texts on stderr.
    pub(crate) fn ends(self, code: i32, texts: &[&str]) -> Self {
        let stderr = self.stderr();
        assert_eq!(self.output.status.code(), Some(code), "{}: {stderr}", self.args);
        for text in texts {
            assert!(stderr.contains(text), "{}: no `{text}` in: {stderr}", self.args);
        }
        self
    }

    /// Asks for success and gives stdout as JSON.
    pub(crate) fn json(self) -> Value {
        let ran = self.ends(0, &[]);
        serde_json::from_str(&ran.stdout())
            .unwrap_or_else(|error| panic!("{}: {error}: {}", ran.args, ran.stdout()))
    }
}

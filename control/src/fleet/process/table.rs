//! The system's table of processes, as Linux shows it in `/proc`. A process is named by its number and its start, so that a
//! number that was given again names another process.

use std::fs;
use std::io;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};

use crate::command::LaunchToken;

/// Variable that carries the launch token to a worker.
pub const LAUNCH_VARIABLE: &str = "HEADROOM_LAUNCH";

/// One process, for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessId {
    pub(super) number: i32,
    /// Clock ticks from the system's start to the process's, with the system's start.
    pub(super) started: String,
}

impl ProcessId {
    /// The process that has this number now.
    pub(super) fn of(number: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
        // The name is in parentheses and may hold anything; the state and 19 more fields follow, then the start.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?;
        let ticks = fields.nth(18)?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        (!matches!(state, "Z" | "X")).then(|| Self { number, started: format!("{}-{ticks}", boot.trim()) })
    }

    /// Whether it still runs.
    pub(super) fn is_alive(&self) -> bool {
        Self::of(self.number).is_some_and(|now| now == *self)
    }

    /// Signals it and all that it began; nobody, if it is gone.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        let Some(group) = Pid::from_raw(self.number).filter(|_| self.is_alive()) else { return Ok(()) };
        match kill_process_group(group, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The worker that was begun with `token`, and leads its group, if it runs.
pub(super) fn find(token: LaunchToken) -> Option<ProcessId> {
    let wanted = format!("{LAUNCH_VARIABLE}={token}");
    let numbers =
        fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter_map(ProcessId::of).find(|process| {
        let environment = fs::read(format!("/proc/{}/environ", process.number)).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
            && rustix::process::getpgid(Pid::from_raw(process.number))
                .is_ok_and(|group| group.as_raw_nonzero().get() == process.number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_is_named_by_number_and_start() {
        let own = ProcessId::of(std::process::id() as i32).expect("this process runs");
        assert!(own.is_alive());
        let reused = ProcessId { started: "another boot-1".to_owned(), ..own.clone() };
        assert!(!reused.is_alive(), "the number is another's now");
        reused.signal(Signal::KILL).expect("nobody is signalled");
        assert_eq!(ProcessId::of(-1), None);
    }
}

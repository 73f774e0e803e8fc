//! The caller's terminal, which is raw while a session has it.
#![forbid(unsafe_code)]

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use super::command_line::{CommandLine, Tty};

/// Whether the session gets a terminal.
pub(super) fn is_wanted(line: &CommandLine) -> bool {
    let has_terminal = io::stdin().is_terminal() && !line.has_no_input;
    match line.tty {
        Tty::Never => false,
        Tty::Force => true,
        Tty::Always => has_terminal,
        Tty::Auto => has_terminal && line.command.is_empty() && !line.is_subsystem,
    }
}

/// Gives the terminal back as it was.
pub(super) struct Raw(Termios);

impl Raw {
    /// `None` where standard input is no terminal.
    pub(super) fn take() -> Option<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(stdin.as_fd()).ok()?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin.as_fd(), SetArg::TCSADRAIN, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin().as_fd(), SetArg::TCSADRAIN, &self.0);
    }
}

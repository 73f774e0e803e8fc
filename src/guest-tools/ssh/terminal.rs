//! Whether a session has a terminal.
#![forbid(unsafe_code)]

use std::io::{self, IsTerminal};

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

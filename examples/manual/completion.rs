//! Completion of `spank-docker` for shells.

use clap_complete::{Generator, Shell};

use crate::command_line::command_line;

/// For bash.
pub(crate) fn bash() -> String {
    of(Shell::Bash)
}

/// For zsh.
pub(crate) fn zsh() -> String {
    of(Shell::Zsh)
}

/// For fish.
pub(crate) fn fish() -> String {
    of(Shell::Fish)
}

fn of(shell: impl Generator) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command_line(), "spank-docker", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

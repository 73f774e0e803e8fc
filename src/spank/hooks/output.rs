//! How hooks report to admins and to users: one line each. It is escaped here, because engines, registries,
//! images and users write parts of it.

use slurm_spank::{LogLevel, slurm_spank_log, spank_log};

use crate::log::Log;
use crate::log::escape::Escaped;

/// Slurm's log: slurmd's file, or the user's terminal, depending on the process.
pub(super) struct SlurmLog;

impl Log for SlurmLog {
    fn error(&mut self, line: &str) {
        spank_log(LogLevel::Error, &format!("spank_docker: {}", Escaped::line(line)));
    }

    fn info(&mut self, line: &str) {
        spank_log(LogLevel::Info, &format!("spank_docker: {}", Escaped::line(line)));
    }
}

/// Writes one line to the user's terminal, or to the batch script's output.
pub(super) fn tell_user(line: &str) {
    slurm_spank_log(&format!("spank_docker: {}", Escaped::line(line)));
}

/// Puts the name of this node before a line: the host name without its domain, as slurmd derives it too (apart
/// from `-N`). Slurm itself sets this name only later in its steps' processes.
pub(super) fn by_this_node(line: &str) -> String {
    let host = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
    let node = host.split('.').next().unwrap_or_default();
    format!("{node}: {line}")
}

//! How hooks report to admins and to users: one line each. It is escaped here, because engines, registries,
//! images and users write parts of it.

use std::env;

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

/// Puts the name of this node before a line: Slurm's, which is in slurmstepd's own environment (slurmstepd.c, `_init_from_slurmd`),
/// or else the host name without its domain, from which slurmd derives it.
pub(super) fn by_this_node(line: &str) -> String {
    let of_host = || {
        let host = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
        host.split('.').next().unwrap_or_default().to_owned()
    };
    let node = env::var("SLURMD_NODENAME").ok().filter(|node| !node.is_empty()).unwrap_or_else(of_host);
    format!("{node}: {line}")
}

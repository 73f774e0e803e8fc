//! Which process the kernel kills first when a job has no memory left.
//!
//! Slurm protects its own processes (`oom_score_adj` of -1000), for which root needs CAP_SYS_RESOURCE. A slurmd
//! that runs in a container itself may lack it. Then, where the memory is in files that remain when processes
//! end (`/dev/shm`, a tmpfs), the kernel kills a slurmstepd for lack of a larger process, and no process is
//! left to end the job. On such a node the plugin makes the kernel kill the job's processes first: their
//! namespaces, and the files, go with the last of them.
//!
//! Runs as root in the prolog, and in the forked child that becomes a task.
#![forbid(unsafe_code)]

use std::fs;
use std::io;

use caps::{CapSet, Capability};
use nix::unistd::Pid;

/// The highest score: the kernel kills such a process before all others.
const FIRST: u16 = 1000;

/// The score for jobs' processes where Slurm's own cannot be protected; `None` where they can, or where that
/// cannot be found out.
#[must_use]
pub fn score_of_jobs() -> Option<u16> {
    let can_protect = caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_RESOURCE).unwrap_or(true);
    (!can_protect).then_some(FIRST)
}

/// Protects this process as far as another one is, a slurmstepd, where root may do that.
pub(super) fn protect_as(slurmstepd: Pid) {
    // Without, it is killed like a task.
    let _ = fs::read_to_string(format!("/proc/{slurmstepd}/oom_score_adj"))
        .and_then(|score| fs::write("/proc/self/oom_score_adj", score));
}

/// Gives this score to this process.
pub fn take_score_of_jobs() -> io::Result<()> {
    match score_of_jobs() {
        Some(score) => fs::write("/proc/self/oom_score_adj", score.to_string()),
        None => Ok(()),
    }
}

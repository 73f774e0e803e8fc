//! Whom the kernel ends first when a job has no memory left.
//!
//! Slurm keeps its own processes from that (`oom_score_adj` of -1000), for which root needs CAP_SYS_RESOURCE. A slurmd that is in
//! a container itself may be without: then the kernel takes a slurmstepd for want of a larger process, where the memory is files
//! that no process' end sets free (`/dev/shm`, a tmpfs), and nobody is left to end the job. So there the job's processes go first;
//! with the last of them its namespaces, and the files.
//!
//! Runs as root in the prolog, and in the forked child that becomes a task.
#![forbid(unsafe_code)]

use std::fs;
use std::io;

use caps::{CapSet, Capability};

/// Before all others.
const FIRST: u16 = 1000;

/// What the processes of jobs have where Slurm's cannot be kept from the kernel's choice; none where they can, or where that
/// cannot be found out.
#[must_use]
pub fn score_of_jobs() -> Option<u16> {
    let can_protect = caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_RESOURCE).unwrap_or(true);
    (!can_protect).then_some(FIRST)
}

/// Gives it to this process.
pub fn take_score_of_jobs() -> io::Result<()> {
    match score_of_jobs() {
        Some(score) => fs::write("/proc/self/oom_score_adj", score.to_string()),
        None => Ok(()),
    }
}

//! Control groups: adopting a container's processes into the cgroups of the job's extern step, as pam_slurm_adopt(8) does for
//! ssh sessions. The plugin finds the paths from processes that Slurm has put in place, and never builds them: they differ
//! between cgroup v1 and v2 and between releases of Slurm.
//!
//! Runs as root in the extern step's slurmstepd, in tasks that start a container of their step, in the epilog when it removes a
//! container, and in `spank-docker check`.

mod adopt;
mod find;
mod freeze;
mod hierarchy;
mod members;
mod memory;
mod remove;

pub use find::{Cgroups, OfJob};
pub use hierarchy::job_of;
pub use memory::memory_limit;
pub use remove::{kill_all, remove};

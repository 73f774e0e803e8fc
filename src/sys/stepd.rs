//! The slurmstepds of this node: which jobs have one. A step's says so in its title (`slurmstepd: [12.extern]`), a
//! prolog's in its environment. Only root's count: anybody can choose a title.
//!
//! Runs as root in a starting slurmd, and in a task that waits for the extern step.

use std::collections::BTreeSet;
use std::os::linux::fs::MetadataExt;

use super::process::{self, Process};
use crate::job::JobId;

/// Jobs of which a slurmstepd runs here, be it a step's or a prolog's.
#[must_use]
pub fn jobs() -> BTreeSet<JobId> {
    let job_of = |pid: i32| {
        let (process, title) = titled(pid)?;
        if let Some((_, rest)) = title.split_once("slurmstepd: [") {
            return rest.split(['.', ']', '_']).next()?.parse().ok();
        }
        if !title.contains("slurmstepd\0spank\0") {
            return None;
        }
        let environment = process.read("environ").ok()?;
        let entry =
            environment.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(b"SLURM_JOB_ID="))?;
        std::str::from_utf8(entry).ok()?.parse().ok()
    };
    process::all().map(|pids| pids.filter_map(job_of).collect()).unwrap_or_default()
}

/// Whether the extern step of this job runs here.
#[must_use]
pub fn has_extern_step(job: JobId) -> bool {
    let wanted = format!("slurmstepd: [{job}.extern]");
    let is_it = |pid| titled(pid).is_some_and(|(_, title)| title.contains(&wanted));
    process::all().is_ok_and(|mut pids| pids.any(is_it))
}

/// A process of root's, and its arguments.
fn titled(pid: i32) -> Option<(Process, String)> {
    let process = Process::find(pid).ok()?;
    let file = process.open("cmdline").ok()?;
    if file.metadata().ok()?.st_uid() != 0 {
        return None;
    }
    let title = process.read("cmdline").ok()?;
    Some((process, String::from_utf8_lossy(&title).into_owned()))
}

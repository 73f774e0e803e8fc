//! The slurmstepds of this node: which jobs have one. A step's says so in its title (`slurmstepd: [12.extern]`), a
//! prolog's in its environment. Only root's count: anybody can choose a title.
//!
//! Runs as root in a starting slurmd, in the epilog, and in a task that waits for the extern step.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::job::JobId;
use crate::sys::process::{self, Process};

/// Jobs of which a slurmstepd runs here, be it a step's or a prolog's.
#[must_use]
pub fn jobs() -> BTreeSet<JobId> {
    let job_of = |pid: i32| {
        let (process, title) = titled(pid)?;
        match title.split_once("slurmstepd: [") {
            Some((_, rest)) => rest.split(['.', ']', '_']).next()?.parse().ok(),
            None => job_of_hook(&process, &title, "slurmstepd\0spank\0"),
        }
    };
    process::all().map(|pids| pids.filter_map(job_of).collect()).unwrap_or_default()
}

/// Kills a prolog of this job that still runs, and waits for its end. That of a slurmd that has died outlives it: nobody
/// waits for it any more, and it would start a container after the job's end.
pub fn end_prolog(job: JobId) -> io::Result<()> {
    const PATIENCE: Duration = Duration::from_secs(5);
    const INTERVAL: Duration = Duration::from_millis(5);
    let deadline = Instant::now() + PATIENCE;
    let is_its = |(process, title): &(Process, String)| {
        job_of_hook(process, title, "slurmstepd\0spank\0prolog\0") == Some(job)
    };
    for (process, _) in process::all()?.filter_map(titled).filter(is_its) {
        while process.is_alive() {
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            // Gone already, as like as not.
            let _ = process.signal(Signal::SIGKILL);
            std::thread::sleep(INTERVAL);
        }
    }
    Ok(())
}

/// Whose prolog or epilog it is, if its arguments begin like that.
fn job_of_hook(process: &Process, title: &str, mark: &str) -> Option<JobId> {
    if !title.contains(mark) {
        return None;
    }
    let environment = process.read("environ").ok()?;
    let entry =
        environment.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(b"SLURM_JOB_ID="))?;
    std::str::from_utf8(entry).ok()?.parse().ok()
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
    if process.real_uid().ok()? != 0 {
        return None;
    }
    let title = process.read("cmdline").ok()?;
    Some((process, String::from_utf8_lossy(&title).into_owned()))
}

//! The slurmstepds of this node, and the jobs that they belong to. A step's slurmstepd has its job in its title
//! (`slurmstepd: [12.extern]`), a prolog's in its environment. Only root's processes count, because any user
//! can set a title.
//!
//! Runs as root in a starting slurmd, in the epilog, and in a task that waits for the extern step.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use super::ids::JobId;
use crate::linux::poll;
use crate::linux::process::{self, Process};
use crate::log::escape::Escaped;

/// Jobs with a slurmstepd on this node, a step's or a prolog's. An error unless all of them are known: the caller may remove
/// the containers of jobs that are missing here.
pub fn jobs() -> io::Result<BTreeSet<JobId>> {
    process::every()?.into_iter().filter_map(|pid| gone(job_of(pid)).transpose()).collect()
}

fn job_of(pid: i32) -> io::Result<Option<JobId>> {
    let process = Process::find(pid)?;
    match process.arguments_of_root()? {
        Some(arguments) => job_named(&arguments, || process.read("environ")),
        None => Ok(None),
    }
}

/// The job in the arguments of a process of root, or in its environment.
fn job_named(
    arguments: &[u8],
    environment: impl FnOnce() -> io::Result<Vec<u8>>,
) -> io::Result<Option<JobId>> {
    let title = String::from_utf8_lossy(arguments);
    match title.strip_prefix("slurmstepd: [") {
        Some(rest) => job_in_title(rest).map(Some),
        None if title.contains("slurmstepd\0spank\0") => job_in_environment(&environment()?).map(Some),
        None => Ok(None),
    }
}

/// Parses the rest of a title: `12.extern]`, `12.0]`, for a component `12+1.0]` (log_build_step_id_str() in
/// Slurm's slurm_protocol_defs.c).
fn job_in_title(rest: &str) -> io::Result<JobId> {
    let number = rest.split(['.', ']', '_', '+']).next();
    let job = number.and_then(|number| number.parse().ok());
    job.ok_or_else(|| io::Error::other(format!("a slurmstepd of an unknown job: [{}", Escaped::new(rest))))
}

fn job_in_environment(environment: &[u8]) -> io::Result<JobId> {
    let mut entries = environment.split(|byte| *byte == 0);
    let entry = entries.find_map(|entry| entry.strip_prefix(b"SLURM_JOB_ID="));
    let job = entry.and_then(|job| std::str::from_utf8(job).ok()?.parse().ok());
    job.ok_or_else(|| io::Error::other("a prolog or epilog of an unknown job"))
}

/// A process that ends during the check counts as none.
fn gone<T>(found: io::Result<Option<T>>) -> io::Result<Option<T>> {
    match found {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(None),
        found => found,
    }
}

/// Kills a prolog of this job that still runs, and waits for its end. The prolog of a slurmd that has died
/// outlives it: no process waits for that prolog any more, and it would start a container after the job's end.
pub fn end_prolog(job: JobId) -> io::Result<()> {
    const PATIENCE: Duration = Duration::from_secs(5);
    const INTERVAL: Duration = Duration::from_millis(5);
    let deadline = Instant::now() + PATIENCE;
    let is_of_prolog = |(process, title): &(Process, String)| {
        job_of_hook(process, title, "slurmstepd\0spank\0prolog\0") == Some(job)
    };
    for (process, _) in process::all()?.filter_map(titled).filter(is_of_prolog) {
        let is_alive = || {
            // If this fails, the process has probably ended already.
            let _ = process.kill();
            process.is_alive()
        };
        if poll::until(deadline, INTERVAL, is_alive, |is_alive| !is_alive) {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    Ok(())
}

/// The job of this prolog or epilog, if its arguments begin with `title`.
fn job_of_hook(process: &Process, title: &str, mark: &str) -> Option<JobId> {
    if !title.contains(mark) {
        return None;
    }
    job_in_environment(&process.read("environ").ok()?).ok()
}

/// Whether the extern step of this job runs here.
#[must_use]
pub fn has_extern_step(job: JobId) -> bool {
    let wanted = format!("slurmstepd: [{job}.extern]");
    let is_it = |pid| titled(pid).is_some_and(|(_, title)| title.contains(&wanted));
    process::all().is_ok_and(|mut pids| pids.any(is_it))
}

/// A process of root, and its arguments.
fn titled(pid: i32) -> Option<(Process, String)> {
    let process = Process::find(pid).ok()?;
    let title = process.arguments_of_root().ok()??;
    Some((process, String::from_utf8_lossy(&title).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::lacking;

    #[test]
    fn slurmstepd_whose_job_is_unknown_is_an_error() {
        for title in ["12.extern]", "12.batch]\0\0", "12.0]", "12_3.0]", "12+1.0]", "12]"] {
            assert_eq!(job_in_title(title).unwrap(), JobId(12), "{title}");
        }
        for title in ["", "extern]", "12x.0]", "+1.0]"] {
            job_in_title(title).unwrap_err();
        }
        assert_eq!(job_in_environment(b"A=1\0SLURM_JOB_ID=12\0").unwrap(), JobId(12));
        job_in_environment(b"A=1\0").unwrap_err();
        job_in_environment(b"SLURM_JOB_ID=\0").unwrap_err();
        let of = |arguments: &[u8], environment: &[u8]| job_named(arguments, || Ok(environment.to_vec()));
        assert_eq!(of(b"sleep\x0060\0", b"").unwrap(), None);
        assert_eq!(of(b"slurmstepd: [12.0]\0", b"").unwrap(), Some(JobId(12)));
        of(b"slurmstepd: [x.0]\0", b"SLURM_JOB_ID=12\0").unwrap_err();
        let hook = b"/usr/sbin/slurmstepd\0spank\0epilog\0";
        assert_eq!(of(hook, b"SLURM_JOB_ID=12\0").unwrap(), Some(JobId(12)));
        of(hook, b"").unwrap_err();
        job_named(hook, || Err(io::ErrorKind::PermissionDenied.into())).unwrap_err();
    }

    #[test]
    fn processes_of_this_machine_are_identified() {
        if lacking::root() {
            return;
        }
        jobs().unwrap();
    }
}

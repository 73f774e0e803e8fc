//! The end of cgroups and of what runs in them.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, Instant};

use super::find::Cgroups;
use super::freeze::Frozen;
use super::members::threads;
use crate::linux::poll;
use crate::linux::process::{self, Process};

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(5);

/// Removes the cgroups of a job that has ended, of which each of `directories` is a part: these and what else is left
/// there. Slurm tries once, at a step's end; a process that was adopted may still wait to be reaped then, and keeps them.
/// Processes that still run, because somebody has killed the slurmstepd that was to end them, are killed. The first cgroup
/// that cannot be removed is returned, with the reason.
pub fn remove<'a>(directories: &[&'a Path]) -> Result<(), (&'a Path, io::Error)> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let jobs: Vec<&Path> = directories.iter().map(|directory| job_of(directory)).collect();
    // What cannot be ended keeps its cgroup.
    let _ = end(&jobs, Instant::now() + PATIENCE);
    let deadline = Instant::now() + PATIENCE;
    let removed = jobs.into_iter().map(|job| remove_tree(job, deadline).map_err(|error| (job, error)));
    // Each is tried.
    removed.collect::<Vec<_>>().into_iter().collect()
}

/// The directory of a job, from one of a step or one below that.
#[must_use]
pub fn job_of(directory: &Path) -> &Path {
    let is_step =
        |path: &&Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"step_"));
    directory.ancestors().find(is_step).and_then(Path::parent).unwrap_or(directory)
}

/// From the deepest directory up, as a cgroup has to be removed.
fn remove_tree(directory: &Path, deadline: Instant) -> io::Result<()> {
    let children = fs::read_dir(directory).into_iter().flatten().flatten();
    for child in children.filter(|child| child.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&child.path(), deadline)?;
    }
    // A process that has ended keeps it until it is reaped.
    let is_final = |removed: &io::Result<()>| !matches!(removed, Err(error) if error.raw_os_error() == Some(libc::EBUSY));
    match poll::until(deadline, INTERVAL, || fs::remove_dir(directory), is_final) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Ends every process in these cgroups and below them, and sees it gone. They are stopped meanwhile: what forks faster than
/// it is killed would never end.
pub(super) fn end(directories: &[&Path], deadline: Instant) -> io::Result<()> {
    let lists = || directories.iter().map(|directory| Ok((*directory, threads(directory)?)));
    let are_gone = || {
        if lists().collect::<io::Result<Vec<_>>>()?.iter().all(|(_, threads)| threads.is_empty()) {
            return Ok(true);
        }
        // With cgroup v1 they die of it only when they go on.
        let _frozen = Frozen::stop(directories.iter().copied())?;
        for (directory, threads) in lists().collect::<io::Result<Vec<_>>>()? {
            threads.into_iter().for_each(|thread| kill_process_of(directory, thread));
        }
        Ok(false)
    };
    match poll::until(deadline, INTERVAL, are_gone, |gone| !matches!(gone, Ok(false))) {
        Ok(false) => Err(ErrorKind::TimedOut.into()),
        gone => gone.map(drop),
    }
}

/// Found by any of its threads: the first may have ended elsewhere, and a cgroup does not name the process then. The number
/// may be another's by now.
fn kill_process_of(directory: &Path, thread: i32) {
    let Some(name) = directory.file_name().and_then(|name| name.to_str()) else { return };
    let Ok(Some(process)) = Process::of_thread(thread) else { return };
    let is_member = process.read(&format!("task/{thread}/cgroup")).is_ok_and(|membership| {
        String::from_utf8_lossy(&membership).lines().any(|line| line.split('/').any(|part| part == name))
    });
    if is_member {
        // What is gone is gone.
        let _ = process.kill();
    }
}

/// Ends every process in a cgroup whose path has `mark`, a container's id, in it.
pub fn kill_all(mark: &str) -> io::Result<()> {
    for pid in process::all()? {
        let cgroups = Cgroups::of_container(pid, mark)?;
        if !cgroups.is_empty() {
            return cgroups.end();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_a_job_is_above_that_of_its_step() {
        let job = Path::new("/sys/fs/cgroup/memory/slurm_n1/uid_5001/job_7");
        assert_eq!(job_of(&job.join("step_extern")), job);
        assert_eq!(job_of(job), job);
        // As seen with Slurm 26.05.
        let job = Path::new("/sys/fs/cgroup/system.slice/v0_slurmstepd.scope/s0RNM87PBRW600");
        assert_eq!(job_of(&job.join("step_extern/slurm")), job);
    }
}

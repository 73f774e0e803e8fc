//! The removal of cgroups and of the processes in them.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::find::Cgroups;
use super::freeze::Frozen;
use super::hierarchy::job_of;
use super::members::threads;
use crate::linux::poll;
use crate::linux::process::{self, Process};

/// Interval between checks.
const INTERVAL: Duration = Duration::from_millis(5);

/// Removes the cgroups of a job that has ended, found from `directories` inside of them, with all cgroups of
/// that job that are left. Slurm tries once, at a step's end; an adopted process may then still wait to be
/// reaped, and keeps its cgroup. Kills processes that still run because their slurmstepd was killed before it
/// could end them. Returns the first cgroup that cannot be removed, with the reason.
pub fn remove<'a>(directories: &[&'a Path]) -> Result<(), (&'a Path, io::Error)> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let jobs: Vec<&Path> = directories.iter().map(|directory| job_of(directory)).collect();
    // If this fails, the removal of the cgroup fails too, with its path.
    let _ = end(&jobs, Instant::now() + PATIENCE);
    let deadline = Instant::now() + PATIENCE;
    let removed = jobs.into_iter().map(|job| remove_tree(job, deadline).map_err(|error| (job, error)));
    // Collects first, so that each cgroup is tried.
    removed.collect::<Vec<_>>().into_iter().collect()
}

/// From the deepest directory up, as the kernel requires for cgroups.
fn remove_tree(directory: &Path, deadline: Instant) -> io::Result<()> {
    let children = fs::read_dir(directory).into_iter().flatten().flatten();
    for child in children.filter(|child| child.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&child.path(), deadline)?;
    }
    // A process that has ended keeps its cgroup until it is reaped.
    let is_final = |removed: &io::Result<()>| !matches!(removed, Err(error) if error.raw_os_error() == Some(libc::EBUSY));
    match poll::until(deadline, INTERVAL, || fs::remove_dir(directory), is_final) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Ends every process in these cgroups and below them, and waits until it is gone. Freezes them meanwhile: processes that fork
/// faster than they are killed would never end.
pub(super) fn end(directories: &[&Path], deadline: Instant) -> io::Result<()> {
    let lists = || directories.iter().map(|directory| Ok((*directory, threads(directory)?)));
    let are_gone = || {
        if lists().collect::<io::Result<Vec<_>>>()?.iter().all(|(_, threads)| threads.is_empty()) {
            return Ok(true);
        }
        // With cgroup v1, killed processes die only when they are thawed.
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

/// Kills the process of this thread. Any of its threads identifies it: where the first thread has ended
/// elsewhere, a cgroup does not list the process. Another process may have reused the number meanwhile, so the
/// cgroup is checked again.
fn kill_process_of(directory: &Path, thread: i32) {
    let Some(name) = directory.file_name().and_then(|name| name.to_str()) else { return };
    let Ok(Some(process)) = Process::of_thread(thread) else { return };
    let is_member = process.read(&format!("task/{thread}/cgroup")).is_ok_and(|membership| {
        String::from_utf8_lossy(&membership).lines().any(|line| line.split('/').any(|part| part == name))
    });
    if is_member {
        // The process may have ended already.
        let _ = process.kill();
    }
}

/// Ends every process in the cgroups of root whose paths contain `mark`, a container's id. A user with cgroups of their own (those
/// of systemd's user manager) can give one any name.
pub fn kill_all(mark: &str) -> io::Result<()> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let found: Vec<Cgroups> =
        process::all()?.map(|pid| Cgroups::of_container(pid, mark)).collect::<io::Result<_>>()?;
    let directories = roots(&found);
    if directories.is_empty() { Ok(()) } else { end(&directories, Instant::now() + PATIENCE) }
}

/// The directories of root among these, each once.
fn roots(found: &[Cgroups]) -> Vec<&Path> {
    let directories: BTreeSet<&Path> = found.iter().flat_map(Cgroups::directories).collect();
    let is_roots = |directory: &&Path| fs::symlink_metadata(directory).is_ok_and(|found| found.uid() == 0);
    directories.into_iter().filter(is_roots).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;

    use super::*;
    use crate::linux::lacking;

    #[test]
    fn cgroup_that_a_user_has_named_after_a_container_is_not_taken_for_its_own() {
        if lacking::root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let make = |name: &str, uid| {
            let path = directory.path().join(name);
            fs::create_dir(&path).unwrap();
            chown(&path, Some(uid), None).unwrap();
            Cgroups([(directory.path().to_owned(), path)].into())
        };
        let (users, own) = (make("0a1b", 1000), make("docker-0a1b.scope", 0));
        let found = [users.clone(), own.clone(), own.clone(), Cgroups::default()];
        assert_eq!(roots(&found), own.directories().collect::<Vec<_>>());
        assert!(roots(&[users]).is_empty());
    }
}

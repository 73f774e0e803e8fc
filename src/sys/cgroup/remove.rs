//! The end of cgroups and of what runs in them.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::adopt::members;
use crate::sys::process::{self, Process};

/// Removes the cgroup of a job that has ended, of which this is a part: this and what else is left there. Slurm tries
/// once, at a step's end; a process that was adopted may still wait to be reaped then, and keeps it. Processes that still
/// run, because somebody has killed the slurmstepd that was to end them, are killed.
pub fn remove(directory: &Path) -> io::Result<()> {
    const PATIENCE: Duration = Duration::from_secs(5);
    remove_tree(job_of(directory), Instant::now() + PATIENCE)
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
    const INTERVAL: Duration = Duration::from_millis(5);
    let children = fs::read_dir(directory).into_iter().flatten().flatten();
    for child in children.filter(|child| child.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&child.path(), deadline)?;
    }
    loop {
        match fs::remove_dir(directory) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                for pid in members(directory)? {
                    // Gone already, as like as not.
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
                std::thread::sleep(INTERVAL);
            }
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => return Ok(()),
        }
    }
}

/// Ends every process in a cgroup whose path has `mark`, a container's id, in it.
pub fn kill_all(mark: &str) {
    for pid in process::all().into_iter().flatten() {
        let is_member = || {
            let membership = Process::find(pid)?.read("cgroup")?;
            io::Result::Ok(String::from_utf8_lossy(&membership).contains(mark))
        };
        if is_member().unwrap_or(false) {
            // What is gone is gone.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
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

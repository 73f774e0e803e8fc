//! Moving processes from one cgroup to another while they go on forking.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, Instant};

use super::find::Cgroups;

impl Cgroups {
    /// Moves all processes of `others` here, in each hierarchy that Slurm uses, until none is left there: processes
    /// fork while they are moved.
    pub fn adopt_all(&self, others: &Self) -> io::Result<()> {
        self.0.iter().try_for_each(|(hierarchy, ours)| match others.0.get(hierarchy) {
            Some(theirs) if theirs != ours => move_all(theirs, ours),
            Some(_) | None => Ok(()),
        })
    }
}

fn move_all(from: &Path, to: &Path) -> io::Result<()> {
    const PATIENCE: Duration = Duration::from_secs(10);
    const INTERVAL: Duration = Duration::from_millis(1);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let pids = members(from)?;
        if pids.is_empty() {
            return Ok(());
        }
        for pid in pids {
            match fs::write(to.join("cgroup.procs"), pid.to_string()) {
                // Gone already.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                other => other?,
            }
        }
        if Instant::now() > deadline {
            return Err(io::Error::other("processes were forked faster than they could be moved"));
        }
        // One that is between its end and its parent's wait stays for a moment.
        std::thread::sleep(INTERVAL);
    }
}

/// All processes in this cgroup.
pub(super) fn members(directory: &Path) -> io::Result<Vec<i32>> {
    match fs::read_to_string(directory.join("cgroup.procs")) {
        Ok(pids) => Ok(pids.lines().filter_map(|pid| pid.parse().ok()).collect()),
        Err(error)
            if matches!(error.kind(), ErrorKind::NotFound) || error.raw_os_error() == Some(libc::ENODEV) =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

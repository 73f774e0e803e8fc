//! Moving the processes of a container from the engine's cgroups to Slurm's, all of them, though they go on forking; or
//! ending them.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::find::Cgroups;
use super::freeze::{self, Frozen};
use super::hierarchy::write;
use super::remove::end;

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(1);

/// What limits processes in a cgroup of the engine's, and the value without a limit; memory with swap first, since it is
/// never less than without.
const LIMITS: [(&str, &str); 3] =
    [("pids.max", "max"), ("memory.memsw.limit_in_bytes", "-1"), ("memory.limit_in_bytes", "-1")];

impl Cgroups {
    /// Moves all processes of `container` here, in each hierarchy that Slurm uses, until none is left there. Where Slurm
    /// has no cgroup they stay in the engine's, without its limits.
    pub fn adopt(&self, container: &Self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let pairs: io::Result<Vec<_>> = self
            .0
            .iter()
            .map(|(hierarchy, ours)| {
                let theirs = container.0.get(hierarchy).ok_or_else(|| {
                    io::Error::other(format!("it has no cgroup in '{}'", hierarchy.display()))
                })?;
                Ok((theirs, ours))
            })
            .collect();
        let mut pairs = pairs?;
        // Who leaves that hierarchy runs on, and forks.
        pairs.sort_by_key(|(theirs, _)| freeze::can_be_stopped(theirs));
        let frozen = Frozen::stop(container.directories())?;
        for (theirs, ours) in pairs {
            move_all(theirs, ours, deadline)?;
        }
        drop(frozen);
        let left = container.0.iter().filter(|(hierarchy, _)| !self.0.contains_key(*hierarchy));
        left.map(|(_, directory)| directory).try_for_each(|directory| lift(directory))
    }

    /// Ends every process in these cgroups, and sees it gone.
    pub fn end(&self) -> io::Result<()> {
        end(&self.directories().collect::<Vec<_>>(), Instant::now() + PATIENCE)
    }
}

fn move_all(from: &Path, to: &Path, deadline: Instant) -> io::Result<()> {
    loop {
        let pids = members(from)?;
        if pids.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(io::Error::other(
                "its processes cannot be moved: they are forked, or stay, in its own cgroups",
            ));
        }
        for pid in pids {
            match write(&to.join("cgroup.procs"), &pid.to_string()) {
                // Gone already.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                other => other?,
            }
        }
        // One that is between its end and its parent's wait stays for a moment.
        std::thread::sleep(INTERVAL);
    }
}

fn lift(directory: &Path) -> io::Result<()> {
    for (file, unlimited) in LIMITS {
        match write(&directory.join(file), unlimited) {
            Err(error) if !freeze::is_gone(&error) => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// All processes in this cgroup and those below it.
pub(super) fn members(directory: &Path) -> io::Result<Vec<i32>> {
    let pids = match fs::read_to_string(directory.join("cgroup.procs")) {
        Err(error) if freeze::is_gone(&error) => return Ok(Vec::new()),
        pids => pids?,
    };
    // One of another PID namespace is shown as 0, by which this process would be meant.
    let number = |pid: &str| pid.parse().ok().filter(|pid| *pid > 0).ok_or(io::ErrorKind::InvalidData);
    let mut pids = pids.lines().map(number).collect::<Result<Vec<i32>, _>>()?;
    for child in fs::read_dir(directory).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            pids.extend(members(&child.path())?);
        }
    }
    Ok(pids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_below_count_and_those_that_cannot_be_named_are_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("container");
        fs::create_dir(&below).unwrap();
        fs::write(directory.path().join("cgroup.procs"), "12\n").unwrap();
        fs::write(below.join("cgroup.procs"), "13\n14\n").unwrap();
        assert_eq!(members(directory.path()).unwrap(), [12, 13, 14]);
        assert_eq!(members(Path::new("/nonexistent")).unwrap(), [0; 0]);
        fs::write(below.join("cgroup.procs"), "0\n").unwrap();
        assert!(members(directory.path()).is_err());
    }

    #[test]
    fn limits_are_lifted_where_there_are_any() {
        let directory = tempfile::tempdir().unwrap();
        let limit = directory.path().join("pids.max");
        fs::write(&limit, "4096").unwrap();
        lift(directory.path()).unwrap();
        lift(Path::new("/nonexistent")).unwrap();
        assert_eq!(fs::read_to_string(limit).unwrap(), "max");
    }
}

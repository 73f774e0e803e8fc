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
        if threads(from)?.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(io::Error::other(
                "its processes cannot be moved: they are forked, or stay, in its own cgroups",
            ));
        }
        // All threads of a process move with its number.
        for pid in members(from, PROCESSES)? {
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

/// The file of a cgroup that names its processes, each by its first thread. One whose first thread has ended is named as long
/// as others live, where that thread was at its end, wherever they are (kernel/cgroup/cgroup.c, `css_task_iter_advance`).
const PROCESSES: [&str; 1] = ["cgroup.procs"];
/// The one that names threads, those alone that live: with cgroup v2, and with v1.
const THREADS: [&str; 2] = ["cgroup.threads", "tasks"];

/// All threads that live in this cgroup and those below it.
pub(super) fn threads(directory: &Path) -> io::Result<Vec<i32>> {
    members(directory, THREADS)
}

/// What is named in the first of these files that there is, of this cgroup and those below it.
fn members<const N: usize>(directory: &Path, files: [&str; N]) -> io::Result<Vec<i32>> {
    let paths = files.map(|file| directory.join(file));
    let Some(path) = paths.iter().find(|path| path.exists()) else { return Ok(Vec::new()) };
    let pids = match fs::read_to_string(path) {
        Err(error) if freeze::is_gone(&error) => return Ok(Vec::new()),
        pids => pids?,
    };
    // One of another PID namespace is shown as 0, by which this process would be meant.
    let number = |pid: &str| pid.parse().ok().filter(|pid| *pid > 0).ok_or(io::ErrorKind::InvalidData);
    let mut pids = pids.lines().map(number).collect::<Result<Vec<i32>, _>>()?;
    for child in fs::read_dir(directory).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            pids.extend(members(&child.path(), files)?);
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
        assert_eq!(members(directory.path(), PROCESSES).unwrap(), [12, 13, 14]);
        assert_eq!(members(Path::new("/nonexistent"), PROCESSES).unwrap(), [0; 0]);
        fs::write(below.join("cgroup.procs"), "0\n").unwrap();
        assert!(members(directory.path(), PROCESSES).is_err());
        for file in THREADS {
            assert_eq!(threads(&below).unwrap(), [0; 0]);
            fs::write(below.join(file), "15\n").unwrap();
            assert_eq!(threads(directory.path()).unwrap(), [0; 0], "the directory itself has no such file");
            assert_eq!(threads(&below).unwrap(), [15]);
            fs::remove_file(below.join(file)).unwrap();
        }
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

    /// With the kernel's cgroup v2, on any machine whose root may mount it: its core can stop processes, without any
    /// controller. What is stopped there can be moved and ended.
    #[test]
    fn processes_that_fork_all_the_time_are_all_moved_and_all_ended() {
        use nix::mount::{MsFlags, mount};
        use nix::sched::{CloneFlags, unshare};

        const LINEAGES: &str =
            "echo $$ >$0/cgroup.procs || exit; f() { f & }; for i in $(seq 40); do f & done";
        let directory = tempfile::tempdir().unwrap();
        let nothing = None::<&str>;
        // This thread alone sees the mount.
        let mounted = unshare(CloneFlags::CLONE_NEWNS)
            .and_then(|()| mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing))
            .and_then(|()| mount(nothing, directory.path(), Some("cgroup2"), MsFlags::empty(), nothing));
        if mounted.is_err() {
            return;
        }
        let parent = directory.path().join(format!("spank-docker-{}", std::process::id()));
        let [engines, slurms] = ["engine", "slurm"].map(|name| parent.join(name));
        for path in [&parent, &engines, &slurms] {
            fs::create_dir(path).unwrap();
        }
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", LINEAGES]).arg(&engines).spawn().unwrap().wait().unwrap();
        let cgroups = |path: &Path| Cgroups([(directory.path().to_owned(), path.to_owned())].into());
        let adopted = cgroups(&slurms).adopt(&cgroups(&engines));
        let counts = [&engines, &slurms].map(|path| threads(path).unwrap().len());
        let ended = cgroups(&parent).end();
        for path in [&engines, &slurms, &parent] {
            fs::remove_dir(path).unwrap();
        }
        nix::mount::umount(directory.path()).unwrap();
        adopted.unwrap();
        ended.unwrap();
        assert!(counts[0] == 0 && counts[1] > 0, "{counts:?}");
    }
}

//! Moves all processes of a container from the engine's cgroups to Slurm's, even while they fork; or ends them.

use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::find::Cgroups;
use super::freeze::{self, Frozen};
use super::hierarchy::write;
use super::members::{processes, threads};
use super::remove::end;

/// The time limit for the whole move.
const PATIENCE: Duration = Duration::from_secs(10);
/// Each list is read at least this often, even past the deadline: on an overloaded node the kernel may take
/// seconds to move one process, and a list that was read only before that move does not show what is left.
const ROUNDS: u32 = 10;
/// Interval between checks.
const INTERVAL: Duration = Duration::from_millis(1);

/// The files that limit processes in a cgroup of the engine, each with the value for "no limit". Memory with
/// swap comes first, because the kernel never lets it be lower than memory without swap.
const LIMITS: [(&str, &str); 3] =
    [("pids.max", "max"), ("memory.memsw.limit_in_bytes", "-1"), ("memory.limit_in_bytes", "-1")];

impl Cgroups {
    /// Moves all processes of `container` here, in each hierarchy that Slurm uses, until none is left there. In
    /// a hierarchy without a cgroup of Slurm they stay in the engine's cgroup, whose limits are lifted.
    pub fn adopt(&self, container: &Self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let pairs: io::Result<Vec<_>> = self
            .0
            .iter()
            .map(|(hierarchy, to)| {
                let from = container.0.get(hierarchy).ok_or_else(|| {
                    io::Error::other(format!("it has no cgroup in '{}'", hierarchy.display()))
                })?;
                Ok((from, to))
            })
            .collect();
        let mut pairs = pairs?;
        // Frozen processes come first: a process that leaves the hierarchy that freezes it runs on, and may
        // fork.
        pairs.sort_by_key(|(from, _)| freeze::can_be_stopped(from));
        let frozen = Frozen::stop(container.directories())?;
        for (from, to) in pairs {
            move_all(from, to, deadline)?;
        }
        drop(frozen);
        let left = container.0.iter().filter(|(hierarchy, _)| !self.0.contains_key(*hierarchy));
        left.map(|(_, directory)| directory).try_for_each(|directory| lift(directory))
    }

    /// Moves this process here: the kernel takes pid 0 for the process that writes.
    pub(in crate::linux) fn enter(&self) -> io::Result<()> {
        self.directories().try_for_each(|directory| write(&directory.join("cgroup.procs"), "0"))
    }

    /// Ends every process in these cgroups, and waits until it is gone.
    pub fn end(&self) -> io::Result<()> {
        end(&self.directories().collect::<Vec<_>>(), Instant::now() + PATIENCE)
    }
}

fn move_all(from: &Path, to: &Path, deadline: Instant) -> io::Result<()> {
    let mut rounds = 0;
    // A process stays listed for a moment, from its end until its parent has waited for it.
    while rounds < ROUNDS || Instant::now() < deadline {
        if threads(from)?.is_empty() {
            return Ok(());
        }
        // The kernel moves all threads of a process with its pid.
        for pid in processes(from)? {
            match write(&to.join("cgroup.procs"), &pid.to_string()) {
                // Gone already.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                other => other?,
            }
        }
        rounds += 1;
        // The first move is usually the last one, which the list shows at once.
        if rounds > 1 {
            thread::sleep(INTERVAL);
        }
    }
    Err(io::Error::other("its processes cannot be moved: they are forked, or stay, in its own cgroups"))
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn limits_are_lifted_where_there_are_any() {
        let directory = tempfile::tempdir().unwrap();
        let limit = directory.path().join("pids.max");
        fs::write(&limit, "4096").unwrap();
        lift(directory.path()).unwrap();
        lift(Path::new("/nonexistent")).unwrap();
        assert_eq!(fs::read_to_string(limit).unwrap(), "max");
    }

    /// Stands in for the kernel's files: a process that is moved disappears from its list only after the
    /// deadline.
    #[test]
    fn processes_that_are_moved_late_are_moved() {
        let directory = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| directory.path().join(name));
        for (path, file) in [(&from, "cgroup.procs"), (&from, "tasks"), (&to, "cgroup.procs")] {
            fs::create_dir_all(path).unwrap();
            fs::write(path.join(file), "12\n").unwrap();
        }
        let over = Instant::now();
        assert!(move_all(&from, &to, over).is_err());
        std::thread::scope(|threads| {
            threads.spawn(|| {
                std::thread::sleep(INTERVAL * 2);
                fs::write(from.join("tasks"), "").unwrap();
            });
            move_all(&from, &to, over).unwrap();
        });
    }

    /// Uses the kernel's cgroup v2, on any machine whose root may mount it: its core can freeze processes
    /// without any controller. Frozen processes can still be moved and killed.
    #[test]
    fn processes_that_fork_all_the_time_are_all_moved_and_all_ended() {
        use nix::mount::{MsFlags, mount};
        use nix::sched::{CloneFlags, unshare};

        const LINEAGES: &str =
            "echo $$ >$0/cgroup.procs || exit; f() { f & }; for i in $(seq 40); do f & done";
        let directory = tempfile::tempdir().unwrap();
        let nothing = None::<&str>;
        // Only this thread sees the mount.
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

//! The processes and threads in a cgroup.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::path::Path;

use super::freeze;

/// The file of a cgroup that lists its processes, each by its first thread. A process whose first thread has
/// ended stays listed while its other threads live, in the cgroup where the first thread ended, wherever the
/// other threads are (kernel/cgroup/cgroup.c, `css_task_iter_advance`).
const PROCESSES: [&str; 1] = ["cgroup.procs"];
/// The files that list only living threads: of cgroup v2, and of v1.
const THREADS: [&str; 2] = ["cgroup.threads", "tasks"];

/// All processes of this cgroup and those below it.
pub(super) fn processes(directory: &Path) -> io::Result<Vec<i32>> {
    members(directory, PROCESSES)
}

/// All threads that live in this cgroup and those below it.
pub(super) fn threads(directory: &Path) -> io::Result<Vec<i32>> {
    members(directory, THREADS)
}

/// The numbers in the first of these files that exists, of this cgroup and those below it.
fn members<const N: usize>(directory: &Path, files: [&str; N]) -> io::Result<Vec<i32>> {
    let paths = files.map(|file| directory.join(file));
    let Some(path) = paths.iter().find(|path| path.exists()) else { return Ok(Vec::new()) };
    let pids = match fs::read_to_string(path) {
        Err(error) if freeze::is_gone(&error) => return Ok(Vec::new()),
        pids => pids?,
    };
    // The kernel shows a process of another PID namespace as 0, which would mean this process.
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
        assert_eq!(processes(directory.path()).unwrap(), [12, 13, 14]);
        assert_eq!(processes(Path::new("/nonexistent")).unwrap(), [0; 0]);
        fs::write(below.join("cgroup.procs"), "0\n").unwrap();
        assert!(processes(directory.path()).is_err());
        for file in THREADS {
            assert_eq!(threads(&below).unwrap(), [0; 0]);
            fs::write(below.join(file), "15\n").unwrap();
            assert_eq!(threads(directory.path()).unwrap(), [0; 0], "the directory itself has no such file");
            assert_eq!(threads(&below).unwrap(), [15]);
            fs::remove_file(below.join(file)).unwrap();
        }
    }
}

//! Checks the caller by what the kernel says of it, and makes a process of root's the user's: in the caller's
//! cgroups, with the caller's limits, for good.
//!
//! If the caller has ended, another process may have its pid by now. That process is in the same job, or the
//! call is refused.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::process;
use crate::relay::Job;

/// A hierarchy of cgroups that Slurm uses for the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// The controllers, as in /proc/PID/cgroup (cgroups(7)); empty for cgroup v2.
    controllers: Vec<u8>,
    /// The path of the job's cgroup, as in /proc/PID/cgroup.
    job: Vec<u8>,
    /// The directory of the job's cgroup.
    directory: PathBuf,
}

impl Hierarchy {
    /// Parses the three fields, one on each line.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let mut parts = text.split(|byte| *byte == b'\n');
        let [controllers, job, directory] = [parts.next()?, parts.next()?, parts.next()?];
        let is_absolute = job.starts_with(b"/") && job.len() > 1 && directory.starts_with(b"/");
        is_absolute.then(|| Self {
            controllers: controllers.to_vec(),
            job: job.to_vec(),
            directory: Path::new(OsStr::from_bytes(directory)).to_owned(),
        })
    }

    /// The directory of a process' cgroup, from the content of its /proc/PID/cgroup. `None` unless that is the
    /// job's cgroup or below it.
    fn directory_of(&self, membership: &[u8]) -> Option<PathBuf> {
        membership.split(|byte| *byte == b'\n').find_map(|line| {
            let mut fields = line.splitn(3, |byte| *byte == b':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let below = path.strip_prefix(&self.job[..]).filter(|_| controllers == self.controllers)?;
            let is_whole = below.is_empty() || below.starts_with(b"/");
            let is_plain = !below.split(|byte| *byte == b'/').any(|part| part == b"..");
            let below = below.strip_prefix(b"/").unwrap_or(below);
            (is_whole && is_plain).then(|| self.directory.join(OsStr::from_bytes(below)))
        })
    }
}

/// Moves this process into the caller's cgroups, and makes it the user's. False if the caller is not in the
/// job's cgroups.
pub(crate) fn stand_for(job: &Job, caller: i32) -> io::Result<bool> {
    if caller <= 0 {
        return Ok(false);
    }
    let membership = fs::read(format!("/proc/{caller}/cgroup"))?;
    let limits = fs::read_to_string(format!("/proc/{caller}/limits"))?;
    let directories: Vec<_> =
        job.hierarchies.iter().filter_map(|hierarchy| hierarchy.directory_of(&membership)).collect();
    // In a hierarchy in which the caller is outside the job's cgroup, this process stays in the relay's.
    if directories.is_empty() {
        return Ok(false);
    }
    for directory in directories {
        enter(&directory)?;
    }
    process::take_limits(&limits, caller)?;
    process::take_oom_score(caller)?;
    process::become_user(&job.user)?;
    Ok(true)
}

/// The kernel reads 0 as the process that writes.
fn enter(directory: &Path) -> io::Result<()> {
    fs::File::options().write(true).open(directory.join("cgroup.procs"))?.write_all(b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caller_is_known_by_the_cgroup_of_its_job() {
        let memory = Hierarchy::parse(b"memory\n/slurm/uid_1/job_7\n/cg/memory/slurm/uid_1/job_7").unwrap();
        let found = |membership: &str| memory.directory_of(membership.as_bytes());
        let at = |path: &str| Some(PathBuf::from(format!("/cg/memory/slurm/uid_1/job_7{path}")));
        assert_eq!(found("4:memory:/slurm/uid_1/job_7/step_0/task_1\n0::/x\n"), at("/step_0/task_1"));
        assert_eq!(found("4:memory:/slurm/uid_1/job_7"), at(""));
        for other in [
            "4:memory:/slurm/uid_1/job_70/step_0",
            "4:memory:/slurm/uid_1/job_8/step_0",
            "4:memory:/slurm/uid_1/job_7/../job_8",
            "4:memory:/docker/slurm/uid_1/job_7",
            "4:cpuset:/slurm/uid_1/job_7/step_0",
            "memory:/slurm/uid_1/job_7",
            "",
        ] {
            assert_eq!(found(other), None, "{other}");
        }
        let unified = Hierarchy::parse(b"\n/system.slice/job_7\n/sys/fs/cgroup/system.slice/job_7").unwrap();
        let found = unified.directory_of(b"1:name=systemd:/x\n0::/system.slice/job_7/step_0/user/task_0");
        assert_eq!(found, Some("/sys/fs/cgroup/system.slice/job_7/step_0/user/task_0".into()));
        for wrong in [&b"memory\n/job"[..], b"memory\njob\n/x", b"memory\n/\n/x", b""] {
            assert_eq!(Hierarchy::parse(wrong), None);
        }
    }
}

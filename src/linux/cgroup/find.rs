//! Finds the cgroups of a process: those that Slurm made for it, or those that the engine made.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::hierarchy::{Membership, Mounts, job_of};
use crate::linux::poll;
use crate::linux::process::Process;

/// Part of the path of a job's cgroup, or of its extern step's: from 26.05 on, with cgroup v2, Slurm names a
/// job's cgroup by an identifier that is not the job's number.
const JOB: &str = "/job_";
const EXTERN_STEP: &str = "step_extern";
/// With cgroup v2, the leaf cgroup of the extern step's slurmstepd, and the one for adopted processes.
const SLURMSTEPD: &str = "step_extern/slurm";
const SPECIAL: &str = "user/task_special";

/// Part of the path of a step's cgroup.
const STEP: &str = "/step_";
/// How long slurmstepd may take to put a task that it has forked into the step's cgroups.
const PLACING: Duration = Duration::from_secs(10);

/// The cgroups of a process: for each hierarchy, by its mount point, the cgroup's directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroups(pub(super) BTreeMap<PathBuf, PathBuf>);

impl Cgroups {
    /// The cgroups of the extern step, found from its slurmstepd. In the hierarchy by which Slurm kills (the
    /// freezer, with cgroup v1), the cgroup is a direct child of the job's, as those of other steps are.
    pub fn of_extern_step(slurmstepd: i32) -> io::Result<Self> {
        Ok(Self::of(slurmstepd, &[JOB, EXTERN_STEP])?.of_extern(Path::is_dir))
    }

    /// With cgroup v2, slurmstepd has a leaf cgroup of its own next to the one for adopted processes, in the
    /// releases of Slurm that have that one (from 25.05 on it is gone by default). Slurm kills the processes in
    /// both, and the job's limits hold for both.
    fn of_extern(self, exists: impl Fn(&Path) -> bool) -> Self {
        let found = self.0.into_iter().filter_map(|(hierarchy, mut directory)| {
            if !directory.components().any(|part| part.as_os_str() == EXTERN_STEP) {
                directory.push(EXTERN_STEP);
                if !exists(&directory) {
                    return None;
                }
            }
            if directory.ends_with(SLURMSTEPD) {
                let special = directory.with_file_name(SPECIAL);
                if exists(&special) {
                    directory = special;
                }
            }
            Some((hierarchy, directory))
        });
        Self(found.collect())
    }

    /// The cgroups of this task's step: see [`Self::of_task`].
    pub fn of_own_step() -> io::Result<Option<Self>> {
        Self::of_task(nix::unistd::getpid(), nix::unistd::getppid())
    }

    /// The cgroups of the step of a task, once slurmstepd has put the task there: it forks all tasks first.
    /// `None` when it does not do so in time.
    pub fn of_task(task: Pid, slurmstepd: Pid) -> io::Result<Option<Self>> {
        const INTERVAL: Duration = Duration::from_millis(2);
        let look = || {
            // The child starts in the cgroups of slurmstepd itself.
            let (task, daemon) = (Self::of(task.as_raw(), &[STEP])?, Self::of(slurmstepd.as_raw(), &[STEP])?);
            let is_placed = |(hierarchy, directory)| daemon.0.get(hierarchy) != Some(directory);
            Ok(task.0.iter().any(is_placed).then_some(task))
        };
        poll::until(Instant::now() + PLACING, INTERVAL, look, |placed| !matches!(placed, Ok(None)))
    }

    /// The cgroups in which Slurm keeps a slurmstepd itself; none where it tracks processes by other means.
    pub(in crate::linux) fn of_slurmstepd(slurmstepd: Pid) -> io::Result<Self> {
        Self::of(slurmstepd.as_raw(), &[JOB, STEP])
    }

    /// The cgroups that the engine made for a container, found from one of its processes: every cgroup driver
    /// puts the container's id into their names. The processes may be in cgroups below them (crun makes one for
    /// systemd).
    pub fn of_container(pid: i32, container_id: &str) -> io::Result<Self> {
        Ok(Self::of(pid, &[container_id])?.up_to(container_id))
    }

    fn up_to(self, container_id: &str) -> Self {
        let is_of_container = |path: &&Path| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.contains(container_id))
        };
        let own = |directory: PathBuf| {
            directory.ancestors().filter(is_of_container).last().map(Path::to_owned).unwrap_or(directory)
        };
        Self(self.0.into_iter().map(|(hierarchy, directory)| (hierarchy, own(directory))).collect())
    }

    /// The cgroups of the step to which a process belongs.
    pub fn of_step(pid: i32) -> io::Result<Self> {
        Self::of(pid, &[STEP])
    }

    /// The cgroups of a process whose paths contain one of `marks`; none when the process is gone.
    fn of(pid: i32, marks: &[&str]) -> io::Result<Self> {
        let mountinfo = fs::read("/proc/self/mountinfo")?;
        let membership = match fs::read(format!("/proc/{pid}/cgroup")) {
            Ok(membership) => membership,
            Err(error)
                if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) =>
            {
                return Ok(Self(BTreeMap::new()));
            }
            Err(error) => return Err(error),
        };
        let found = Self::parse(&mountinfo, &membership, marks);
        if !found.is_empty() {
            return Ok(found);
        }
        // With cgroup v1, a first thread that has ended is in no cgroup (kernel/cgroup/cgroup.c,
        // `proc_cgroup_show`); other threads of the process may still run.
        Ok(Self::parse(&mountinfo, &of_other_threads(pid), marks))
    }

    /// From the contents of /proc/self/mountinfo and /proc/PID/cgroup.
    #[must_use]
    pub fn parse(mountinfo: &[u8], membership: &[u8], marks: &[&str]) -> Self {
        let mounts = Mounts::parse(mountinfo);
        let groups = Membership::all(membership);
        let groups = groups.filter(|group| marks.iter().any(|mark| group.has(mark)));
        Self(groups.filter_map(|group| mounts.directory(&group)).collect())
    }

    /// Whether these cgroups, or their parents up to the job's, limit the CPUs. With cgroup v2, one that does
    /// not has an empty file, or no file where the controller is off (cgroups(7), cpuset); with v1, Slurm makes
    /// such a cgroup only to limit CPUs. A file that cannot be read counts as no limit.
    #[must_use]
    pub fn limit_cpus(&self) -> bool {
        let limits = |directory: &Path| {
            fs::read_to_string(directory.join("cpuset.cpus")).is_ok_and(|cpus| !cpus.trim().is_empty())
        };
        let is_of_step = |path: &Path| path.to_str().is_some_and(|path| path.contains(STEP));
        // The parent of a step's cgroup is the job's.
        let up_to_job = |directory: &Path| {
            let of_step = directory.ancestors().take_while(|path| is_of_step(path)).count();
            directory.ancestors().take(of_step + 1).any(limits)
        };
        self.directories().any(up_to_job)
    }

    /// Whether there are no cgroups.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The directories of these cgroups.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        self.0.values().map(PathBuf::as_path)
    }
}

/// A job's cgroup in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfJob {
    /// The hierarchy, as /proc/PID/cgroup names it.
    pub controllers: String,
    /// The cgroup, as /proc/PID/cgroup names it.
    pub path: PathBuf,
    /// Its directory.
    pub directory: PathBuf,
}

impl OfJob {
    /// Those of the job of this process, which is in the cgroups of a step: one in each hierarchy that Slurm uses.
    pub fn of(pid: i32) -> io::Result<Vec<Self>> {
        Ok(Self::parse(&fs::read("/proc/self/mountinfo")?, &fs::read(format!("/proc/{pid}/cgroup"))?))
    }

    fn parse(mountinfo: &[u8], membership: &[u8]) -> Vec<Self> {
        let mounts = Mounts::parse(mountinfo);
        let is_of_job = |group: &Membership<'_>| [JOB, EXTERN_STEP, STEP].iter().any(|mark| group.has(mark));
        let groups = Membership::all(membership).filter(is_of_job);
        let found = groups.filter_map(|group| {
            let (_, directory) = mounts.directory(&group)?;
            Some(Self {
                controllers: group.controllers.to_owned(),
                path: job_of(group.path).to_owned(),
                directory: job_of(&directory).to_owned(),
            })
        });
        found.collect()
    }
}

/// /proc/PID/task/TID/cgroup of the threads of a process whose first one has ended.
fn of_other_threads(pid: i32) -> Vec<u8> {
    if !Process::find(pid).is_ok_and(|process| !process.is_alive()) {
        return Vec::new();
    }
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.filter_map(|thread| fs::read(thread.path().join("cgroup")).ok()).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_limited_where_a_cgroup_of_the_job_names_some() {
        let root = tempfile::tempdir().unwrap();
        let (scope, job, task) = ("scope", "scope/job_7", "scope/job_7/step_0/user/task_0");
        fs::create_dir_all(root.path().join(task)).unwrap();
        let cgroups = Cgroups([(root.path().to_owned(), root.path().join(task))].into());
        let write = |directory: &str, cpus: &str| {
            fs::write(root.path().join(directory).join("cpuset.cpus"), cpus).unwrap();
        };
        // A cgroup above the job's limits the node, not the job.
        write(scope, "0-3\n");
        assert!(!cgroups.limit_cpus());
        write(task, "\n");
        write(job, "\n");
        assert!(!cgroups.limit_cpus());
        write(job, "0-1\n");
        assert!(cgroups.limit_cpus());
    }

    const UNIFIED: &[u8] = b"30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";

    /// The cgroup for a container on a machine with cgroup v2, from slurmstepd's line in /proc/PID/cgroup.
    fn extern_leaf(stepd: &str, existing: &[&str]) -> Option<PathBuf> {
        let of_stepd = Cgroups::parse(UNIFIED, format!("0::{stepd}\n").as_bytes(), &[JOB, EXTERN_STEP]);
        let exists = |path: &Path| existing.iter().any(|known| Path::new(known) == path);
        of_stepd.of_extern(exists).0.into_values().next()
    }

    #[test]
    fn leaf_for_other_processes_is_preferred_to_that_of_slurmstepd() {
        // Up to Slurm 24.11.
        let step = "/system.slice/slurmstepd.scope/job_7/step_extern";
        let special = format!("/sys/fs/cgroup{step}/user/task_special");
        assert_eq!(extern_leaf(&format!("{step}/slurm"), &[&special]), Some(special.into()));
    }

    #[test]
    fn the_cgroup_of_a_container_is_the_one_with_its_name() {
        for (path, own) in [
            ("/docker/0a1b", "/docker/0a1b"),
            ("/system.slice/docker-0a1b.scope", "/system.slice/docker-0a1b.scope"),
            ("/machine.slice/libpod-0a1b.scope/container", "/machine.slice/libpod-0a1b.scope"),
        ] {
            let found = Cgroups::parse(UNIFIED, format!("0::{path}\n").as_bytes(), &["0a1b"]).up_to("0a1b");
            let own = PathBuf::from(format!("/sys/fs/cgroup{own}"));
            assert_eq!(found.0.into_values().collect::<Vec<_>>(), [own]);
        }
    }

    #[test]
    fn cgroup_of_the_job_is_above_that_of_the_step() {
        let of = |path: &str| OfJob::parse(UNIFIED, format!("0::{path}\n1:name=systemd:/x\n").as_bytes());
        for (path, job) in [
            (
                "/system.slice/slurmstepd.scope/job_7/step_extern/slurm",
                "/system.slice/slurmstepd.scope/job_7",
            ),
            (
                "/system.slice/v0_slurmstepd.scope/s0RN/step_0/user/task_0",
                "/system.slice/v0_slurmstepd.scope/s0RN",
            ),
            ("/slurm/uid_5001/job_7", "/slurm/uid_5001/job_7"),
        ] {
            let directory = PathBuf::from(format!("/sys/fs/cgroup{job}"));
            assert_eq!(of(path), [OfJob { controllers: String::new(), path: job.into(), directory }]);
        }
        assert_eq!(of("/system.slice/slurmd.service"), []);
    }

    #[test]
    fn leaf_of_slurmstepd_is_used_without_a_leaf_for_other_processes() {
        // As seen with Slurm 26.05, where the job's directory does not have its number.
        let stepd = "/system.slice/v0_slurmstepd.scope/s0RNM87PBRW600/step_extern/slurm";
        let leaf = format!("/sys/fs/cgroup{stepd}");
        assert_eq!(extern_leaf(stepd, &[]), Some(leaf.into()));
    }
}

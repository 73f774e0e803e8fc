//! Control groups: adopting a container's processes into the cgroups of the job's extern step, as pam_slurm_adopt(8)
//! does for ssh sessions. Paths are discovered from processes that Slurm has put in place, never built: they differ
//! between cgroup v1 and v2 and between releases of Slurm.
//!
//! Runs as root in the extern step's slurmstepd, and in tasks that start a container of their step.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::process::{self, Process};

/// What marks a cgroup of a job, or else of its extern step: from 26.05 on, with cgroup v2, a job's is named by an
/// identifier of Slurm's that is not the job's number.
const JOB: &str = "/job_";
const EXTERN_STEP: &str = "step_extern";
/// With cgroup v2, the leaf of its slurmstepd, and the one for processes that come from outside.
const SLURMSTEPD: &str = "step_extern/slurm";
const SPECIAL: &str = "user/task_special";

/// What marks one of a step.
const STEP: &str = "/step_";
/// How long slurmstepd may take to put a task that it has forked into the step's cgroups.
const PLACING: Duration = Duration::from_secs(10);

/// Whether this machine has cgroup v2 alone.
#[must_use]
pub fn is_unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Cgroups that a process is in: for each hierarchy, by its mount point, the directory.
#[derive(Debug, PartialEq, Eq)]
pub struct Cgroups(BTreeMap<PathBuf, PathBuf>);

impl Cgroups {
    /// Those of the extern step, found from its slurmstepd and its placeholder. Where two lie below each other in one
    /// hierarchy the deeper one counts. In the hierarchy by which Slurm kills (the freezer, with cgroup v1) slurmstepd
    /// is in the job's cgroup, and the placeholder will only be moved: there the step's lies below the job's.
    pub fn of_extern_step(pids: &[i32]) -> io::Result<Self> {
        let memberships: io::Result<Vec<Self>> =
            pids.iter().map(|pid| Self::of(*pid, &[JOB, EXTERN_STEP])).collect();
        Ok(Self::merge_extern(memberships?, Path::is_dir))
    }

    /// With cgroup v2, slurmstepd is in a leaf of its own beside the one for processes that come from outside, where a
    /// release of Slurm has that (it is gone by default from 25.05 on). Slurm kills what it finds in either, and the
    /// job's limits hold for both.
    fn merge_extern(memberships: Vec<Self>, exists: impl Fn(&Path) -> bool) -> Self {
        let mut found: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
        for (hierarchy, mut directory) in memberships.into_iter().flat_map(|cgroups| cgroups.0) {
            if !directory.components().any(|part| part.as_os_str() == EXTERN_STEP) {
                directory.push(EXTERN_STEP);
                if !exists(&directory) {
                    continue;
                }
            }
            if directory.ends_with(SLURMSTEPD) {
                let special = directory.with_file_name(SPECIAL);
                if exists(&special) {
                    directory = special;
                }
            }
            let known = found.entry(hierarchy).or_insert_with(|| directory.clone());
            if directory.starts_with(&*known) || known.ends_with(SLURMSTEPD) {
                *known = directory;
            }
        }
        Self(found)
    }

    /// Those of the step that this process is a task of, once slurmstepd has put it there: it forks all tasks first.
    /// `None` when it does not.
    pub fn of_own_step() -> io::Result<Option<Self>> {
        const INTERVAL: Duration = Duration::from_millis(2);
        let deadline = Instant::now() + PLACING;
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        while Instant::now() < deadline {
            // Those that slurmstepd is in by itself, a forked child is in from the start.
            let (task, daemon) =
                (Self::of(own, &[STEP])?, Self::of(nix::unistd::getppid().as_raw(), &[STEP])?);
            if task.0.iter().any(|(hierarchy, directory)| daemon.0.get(hierarchy) != Some(directory)) {
                return Ok(Some(task));
            }
            std::thread::sleep(INTERVAL);
        }
        Ok(None)
    }

    /// Those that the engine made for a container: its id is part of their names, with every cgroup driver.
    pub fn of_container(pid: i32, container_id: &str) -> io::Result<Self> {
        Self::of(pid, &[container_id])
    }

    /// The cgroups of a process whose paths contain one of `marks`; none when the process is gone.
    fn of(pid: i32, marks: &[&str]) -> io::Result<Self> {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo")?;
        let membership = match fs::read_to_string(format!("/proc/{pid}/cgroup")) {
            Ok(membership) => membership,
            Err(error)
                if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) =>
            {
                return Ok(Self(BTreeMap::new()));
            }
            Err(error) => return Err(error),
        };
        Ok(Self::parse(&mountinfo, &membership, marks))
    }

    /// From the texts of /proc/self/mountinfo and /proc/PID/cgroup.
    #[must_use]
    pub fn parse(mountinfo: &str, membership: &str, marks: &[&str]) -> Self {
        let mounts = Mounts::parse(mountinfo);
        let groups = membership.lines().filter_map(Membership::parse);
        let groups = groups.filter(|group| marks.iter().any(|mark| group.path.contains(mark)));
        Self(groups.filter_map(|group| mounts.directory(&group)).collect())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Their directories.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        self.0.values().map(PathBuf::as_path)
    }

    /// Moves all processes of `others` here, in each hierarchy that Slurm uses, until none is left there: processes
    /// fork while they are moved.
    pub fn adopt_all(&self, others: &Self) -> io::Result<()> {
        self.0.iter().try_for_each(|(hierarchy, ours)| match others.0.get(hierarchy) {
            Some(theirs) if theirs != ours => move_all(theirs, ours),
            Some(_) | None => Ok(()),
        })
    }
}

/// Removes the cgroup of a job that has ended, of which this is a part: this and what else is left there. Slurm tries
/// once, at a step's end; a process that was adopted may still wait to be reaped then, and keeps it. Processes that still
/// run, because somebody has killed the slurmstepd that was to end them, are killed.
pub fn remove(directory: &Path) -> io::Result<()> {
    const PATIENCE: Duration = Duration::from_secs(5);
    remove_tree(job_of(directory), Instant::now() + PATIENCE)
}

/// The directory of a job, from one of a step or one below that.
fn job_of(directory: &Path) -> &Path {
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
fn members(directory: &Path) -> io::Result<Vec<i32>> {
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

/// One line of /proc/PID/cgroup (cgroups(7)): `id:controllers:path`.
#[derive(Debug, PartialEq, Eq)]
struct Membership<'a> {
    controllers: &'a str,
    path: &'a str,
}

impl<'a> Membership<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.splitn(3, ':').skip(1);
        Some(Self { controllers: fields.next()?, path: fields.next()? })
    }
}

/// Where each hierarchy is mounted.
#[derive(Debug)]
struct Mounts(Vec<Mount>);

#[derive(Debug)]
struct Mount {
    root: String,
    point: PathBuf,
    unified: bool,
    options: String,
}

impl Mounts {
    /// From proc_pid_mountinfo(5): `id parent major:minor root point options … - type source super-options`.
    fn parse(mountinfo: &str) -> Self {
        let parse = |line: &str| {
            let (mount, file_system) = line.split_once(" - ")?;
            let mut mount = mount.split(' ').skip(3);
            let mut file_system = file_system.split(' ');
            let unified = match file_system.next()? {
                "cgroup" => false,
                "cgroup2" => true,
                _ => return None,
            };
            Some(Mount {
                root: mount.next()?.to_owned(),
                point: mount.next()?.into(),
                unified,
                options: file_system.nth(1)?.to_owned(),
            })
        };
        Self(mountinfo.lines().filter_map(parse).collect())
    }

    /// Mount point of the hierarchy, and the directory of this cgroup.
    fn directory(&self, group: &Membership<'_>) -> Option<(PathBuf, PathBuf)> {
        let mount = self.0.iter().find(|mount| {
            let names = |name: &str| mount.options.split(',').any(|option| option == name);
            mount.unified == group.controllers.is_empty()
                && group.controllers.split(',').all(|c| mount.unified || names(c))
        })?;
        let below = Path::new(group.path).strip_prefix(&mount.root).ok()?;
        Some((mount.point.clone(), mount.point.join(below)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
30 24 0:26 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory
31 24 0:27 / /sys/fs/cgroup/cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct
32 24 0:28 /outer /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
33 24 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate";

    fn directory(line: &str) -> Option<PathBuf> {
        Mounts::parse(MOUNTS).directory(&Membership::parse(line)?).map(|(_, directory)| directory)
    }

    #[test]
    fn finds_the_directory_of_a_cgroup() {
        assert_eq!(directory("4:memory:/slurm/job_1"), Some("/sys/fs/cgroup/memory/slurm/job_1".into()));
        assert_eq!(directory("5:cpu,cpuacct:/slurm"), Some("/sys/fs/cgroup/cpuacct/slurm".into()));
        assert_eq!(directory("6:freezer:/outer/slurm"), Some("/sys/fs/cgroup/freezer/slurm".into()));
        assert_eq!(directory("0::/system.slice/a:b"), Some("/sys/fs/cgroup/unified/system.slice/a:b".into()));
    }

    const UNIFIED: &str = "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";

    /// Where a container goes on a machine with cgroup v2, from what /proc/PID/cgroup says of slurmstepd and placeholder.
    fn extern_leaf(stepd: &str, placeholder: Option<&str>, existing: &[&str]) -> Option<PathBuf> {
        let parse = |path: &str| Cgroups::parse(UNIFIED, &format!("0::{path}\n"), &[JOB, EXTERN_STEP]);
        let memberships = [Some(stepd), placeholder].into_iter().flatten().map(parse).collect();
        let exists = |path: &Path| existing.iter().any(|known| Path::new(known) == path);
        Cgroups::merge_extern(memberships, exists).0.into_values().next()
    }

    #[test]
    fn the_leaf_for_processes_from_outside_is_preferred_to_that_of_slurmstepd() {
        // As far as Slurm 24.11, with a placeholder that is there already, or is still to be moved.
        let step = "/system.slice/slurmstepd.scope/job_7/step_extern";
        let special = format!("/sys/fs/cgroup{step}/user/task_special");
        let (stepd, placeholder) = (format!("{step}/slurm"), format!("{step}/user/task_special"));
        assert_eq!(extern_leaf(&stepd, Some(&placeholder), &[]), Some(special.clone().into()));
        assert_eq!(extern_leaf(&stepd, Some(&stepd), &[&special]), Some(special.clone().into()));
        assert_eq!(extern_leaf(&stepd, None, &[&special]), Some(special.into()));
    }

    #[test]
    fn without_such_a_leaf_it_is_that_of_slurmstepd() {
        // As seen with Slurm 26.05, where the job's directory does not have its number.
        let stepd = "/system.slice/v0_slurmstepd.scope/s0RNM87PBRW600/step_extern/slurm";
        let leaf = format!("/sys/fs/cgroup{stepd}");
        assert_eq!(extern_leaf(stepd, None, &[]), Some(leaf.clone().into()));
        assert_eq!(
            job_of(Path::new(&leaf)),
            Path::new("/sys/fs/cgroup/system.slice/v0_slurmstepd.scope/s0RNM87PBRW600")
        );
    }

    #[test]
    fn the_directory_of_a_job_is_above_that_of_its_step() {
        let job = Path::new("/sys/fs/cgroup/memory/slurm_n1/uid_5001/job_7");
        assert_eq!(job_of(&job.join("step_extern")), job);
        assert_eq!(job_of(job), job);
    }

    #[test]
    fn unknown_hierarchies_have_no_directory() {
        assert_eq!(directory("9:pids:/slurm"), None);
        assert_eq!(directory("6:freezer:/elsewhere"), None);
    }
}

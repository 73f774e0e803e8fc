//! The kernel's view of cgroups: the mounts of their hierarchies, and a cgroup's directory in them.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::linux::mountinfo::{self, Mounted};

/// The type of cgroup v2's file system.
const UNIFIED: &str = "cgroup2";

/// Writes to a file of the kernel. Never creates one: the kernel's error for that would be a different one.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    File::options().write(true).truncate(true).open(path)?.write_all(text.as_bytes())
}

/// The directory of a job, from one of a step or one below that.
#[must_use]
pub fn job_of(directory: &Path) -> &Path {
    let is_step =
        |path: &&Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"step_"));
    directory.ancestors().find(is_step).and_then(Path::parent).unwrap_or(directory)
}

/// One line of /proc/PID/cgroup (cgroups(7)): `id:controllers:path`. The path is bytes: a user can name a cgroup of their own
/// (below systemd's user manager) as they like, as they can a mount point.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Membership<'a> {
    pub(super) controllers: &'a str,
    pub(super) path: &'a Path,
}

impl<'a> Membership<'a> {
    /// Those of a process, one in each hierarchy.
    pub(super) fn all(membership: &'a [u8]) -> impl Iterator<Item = Self> {
        membership.split(|byte| *byte == b'\n').filter_map(Self::parse)
    }

    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.splitn(3, |byte| *byte == b':').skip(1);
        let controllers = std::str::from_utf8(fields.next()?).ok()?;
        Some(Self { controllers, path: Path::new(OsStr::from_bytes(fields.next()?)) })
    }

    /// Whether the path contains this text; no path contains an empty one.
    pub(super) fn has(&self, mark: &str) -> bool {
        !mark.is_empty()
            && self.path.as_os_str().as_bytes().windows(mark.len()).any(|part| part == mark.as_bytes())
    }

    /// The file with the memory limit, if this hierarchy may have one.
    pub(super) fn file_of_memory(&self) -> Option<&'static str> {
        if self.controllers.is_empty() {
            return Some("memory.max");
        }
        self.controllers.split(',').any(|one| one == "memory").then_some("memory.limit_in_bytes")
    }
}

/// The mount point of each hierarchy.
#[derive(Debug)]
pub(super) struct Mounts(Vec<Mounted>);

impl Mounts {
    /// Parses the text of proc_pid_mountinfo(5).
    pub(super) fn parse(mountinfo: &[u8]) -> Self {
        let is_cgroup = |mount: &Mounted| mount.kind == "cgroup" || mount.kind == UNIFIED;
        Self(mountinfo::parse(mountinfo).filter(is_cgroup).collect())
    }

    /// Mount point of the hierarchy, and the directory of this cgroup.
    pub(super) fn directory(&self, group: &Membership<'_>) -> Option<(PathBuf, PathBuf)> {
        let is_of_hierarchy = |mount: &&Mounted| {
            let options: Vec<&str> = mount.options.to_str().unwrap_or_default().split(',').collect();
            match mount.kind == UNIFIED {
                true => group.controllers.is_empty(),
                false if group.controllers.is_empty() => false,
                false => group.controllers.split(',').all(|controller| options.contains(&controller)),
            }
        };
        let mount = self.0.iter().find(is_of_hierarchy)?;
        let below = group.path.strip_prefix(&mount.root).ok()?;
        Some((mount.point.clone(), mount.point.join(below)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &[u8] = b"\
31 24 0:50 / /tmp/m\xff rw - fuse.bindfs bindfs rw,user_id=5001
30 24 0:26 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory
31 24 0:27 / /sys/fs/cgroup/cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct
32 24 0:28 /outer /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
33 24 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate";

    fn directory(line: &str) -> Option<PathBuf> {
        Mounts::parse(MOUNTS).directory(&Membership::parse(line.as_bytes())?).map(|(_, directory)| directory)
    }

    #[test]
    fn finds_the_directory_of_a_cgroup() {
        assert_eq!(directory("4:memory:/slurm/job_1"), Some("/sys/fs/cgroup/memory/slurm/job_1".into()));
        assert_eq!(directory("5:cpu,cpuacct:/slurm"), Some("/sys/fs/cgroup/cpuacct/slurm".into()));
        assert_eq!(directory("6:freezer:/outer/slurm"), Some("/sys/fs/cgroup/freezer/slurm".into()));
        assert_eq!(directory("0::/system.slice/a:b"), Some("/sys/fs/cgroup/unified/system.slice/a:b".into()));
    }

    #[test]
    fn cgroup_with_any_name_is_told_from_those_with_a_mark() {
        let membership = b"4:memory:/user.slice/\xff\n6:freezer:/outer/job_7\n\n0::/\xff/job_7\n";
        let of_jobs: Vec<_> = Membership::all(membership).filter(|group| group.has("/job_")).collect();
        assert_eq!(of_jobs.iter().map(|group| group.controllers).collect::<Vec<_>>(), ["freezer", ""]);
        assert!(!of_jobs[0].has("") && !of_jobs[0].has("/outer/job_7 and more"));
    }

    #[test]
    fn unknown_hierarchies_have_no_directory() {
        assert_eq!(directory("9:pids:/slurm"), None);
        assert_eq!(directory("6:freezer:/elsewhere"), None);
    }

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

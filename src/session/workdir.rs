//! The job's working directory, for a mount at its own path in the container.
//!
//! Runs as root in the prolog. The directory is opened with the user's rights and handed to the engine by that
//! descriptor, attached below `state_dir`: should the user swap it for a symlink meanwhile, nothing changes.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

use crate::sys::identity::{Credentials, as_user};
use crate::sys::mount::{self, Attributes};

/// Directories that an image's own system needs: neither they nor what is below them is hidden by the host's.
const SYSTEM: [&str; 13] =
    ["bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "run", "sbin", "sys", "usr"];
/// Directories that hold both the system's and other things: only what is below them may be mounted.
const SHARED: [&str; 3] = ["opt", "root", "var"];

/// The path that the directory gets in the container; `None` when it must not be mounted there.
#[must_use]
pub(super) fn target(path: &Path) -> Option<&Path> {
    let mut components = path.components();
    if components.next() != Some(Component::RootDir) || path.as_os_str().len() > libc::PATH_MAX as usize {
        return None;
    }
    let names: Option<Vec<&OsStr>> = components
        .map(|component| match component {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect();
    let first = names.as_ref()?.first()?.to_str().unwrap_or_default();
    let alone = names.as_ref()?.len() == 1;
    let hides = SYSTEM.contains(&first) || (alone && SHARED.contains(&first));
    (!hides).then_some(path)
}

/// Opens the directory as the user would enter it. `None` when the user cannot, or when it is not on this node: then
/// Slurm itself tells the user, as it does for a job without a container.
pub(super) fn open_as(user: &Credentials, path: &Path) -> io::Result<Option<OwnedFd>> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    // The second step needs the right to search the directory, which an O_PATH descriptor alone does not.
    let opened = as_user(user, || {
        let directory = open(path, flags, Mode::empty())?;
        openat(&directory, ".", flags, Mode::empty())
    })?;
    Ok(opened.ok())
}

/// Attaches it at `point`, without setuid programs and device nodes, with what is mounted below it.
pub(super) fn attach(directory: &OwnedFd, point: &Path) -> io::Result<()> {
    let tree = mount::detached_copy(directory, true)?;
    mount::change(&tree, true, Attributes::NOSUID.and(Attributes::NODEV), Attributes::NONE)?;
    let point = open(point, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    mount::attach(tree, point)
}

/// Whether a fresh home directory belongs at `home`: not where the system lies, and not at or below a working
/// directory that is mounted.
#[must_use]
pub(super) fn fresh_home(home: &Path, workdir: Option<&Path>) -> Option<PathBuf> {
    let home = target(home).filter(|home| home.components().count() > 1 && *home != Path::new("/tmp"))?;
    let covered = workdir.is_some_and(|workdir| home.starts_with(workdir));
    (!covered).then(|| home.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_directories_are_not_hidden() {
        for path in [
            "/",
            "/etc",
            "/usr",
            "/usr/lib/x",
            "/lib64",
            "/var",
            "/opt",
            "/run/x",
            "relative",
            "/a/../etc",
            "/proc/1",
        ] {
            assert_eq!(target(Path::new(path)), None, "{path}");
        }
        for path in ["/home/alice", "/tmp", "/scratch", "/var/tmp/x", "/opt/data", "/users/a/b", "/root/x"] {
            assert_eq!(target(Path::new(path)), Some(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn home_is_fresh_unless_the_working_directory_covers_it() {
        let home = Path::new("/home/alice");
        assert_eq!(fresh_home(home, None).as_deref(), Some(home));
        assert_eq!(fresh_home(home, Some(Path::new("/home/alice/project"))).as_deref(), Some(home));
        assert_eq!(fresh_home(home, Some(home)), None);
        assert_eq!(fresh_home(Path::new("/"), None), None);
        assert_eq!(fresh_home(Path::new("/nonexistent"), None).as_deref(), Some(Path::new("/nonexistent")));
    }
}

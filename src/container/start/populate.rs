//! What the plugin does inside a container that was started, before anything of the image has run in it: take the
//! danger out of its mounts, read what the image says of users and ssh, and put our files over it.
//!
//! Runs as root in the container's mount namespace. The image is hostile until shown otherwise: see [`crate::linux::inside`].

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::first_process::StagingDir;
use crate::guest::paths;
use crate::guest::ssh::server;
use crate::linux::identity::UserIds;
use crate::linux::inside::{self, ContainerRoot, PlaceError, Rules};
use crate::linux::mount::{self, Attributes};
use crate::linux::mountinfo::Mounted;
use crate::linux::terminals::Terminals;

/// Files of the image that the plugin's replace, and the limit for reading them.
pub(super) const REPLACED: [&str; 3] = ["/etc/passwd", "/etc/group", "/etc/ssh/ssh_config"];
pub(super) const LIMIT: u64 = 1 << 20;
/// What login shells read, in a frame where the image has it.
pub(super) const PROFILE: &str = "/etc/profile";
/// For an sshd: they have 1 to 4 MB.
const SSHD_LIMIT: u64 = 16 << 20;

/// Where an sshd may be, besides the image's own PATH.
const SSHD_DIRECTORIES: [&str; 6] =
    ["/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin", "/sbin", "/opt/openssh/sbin"];

/// Where the plugin's ssh covers the image's. Not elsewhere: an ssh there may look for its libraries beside itself.
const SSH_PROGRAMS: [&str; 3] = ["/usr/bin/ssh", "/bin/ssh", "/usr/local/bin/ssh"];

/// What was found in the image.
#[derive(Debug)]
pub(super) struct ImageFiles {
    /// Contents of [`REPLACED`], in this order; empty where there is none that can be used.
    pub(super) replaced: [Vec<u8>; 3],
    /// Its ssh, a program of its own.
    pub(super) ssh: Option<&'static str>,
    /// Its [`PROFILE`].
    pub(super) profile: Option<Vec<u8>>,
    /// Its sshd.
    pub(super) sshd: Option<PathBuf>,
    /// What its configuration has besides.
    pub(super) sshd_lines: String,
    /// Which of the shells that were asked for it has first.
    pub(super) shell: Option<PathBuf>,
}

/// Why a container cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum PopulateError {
    /// There is something at this place that no file can be mounted on.
    #[error("cannot mount on '{path}': {source}")]
    Place {
        /// In the container.
        path: &'static str,
        /// Why not.
        source: PlaceError,
    },
    /// The kernel refuses a mount.
    #[error("cannot mount on '{path}'")]
    Target {
        /// In the container.
        path: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The container's /dev or the like is not the engine's.
    #[error("has its own '{path}' instead of the system's: build it without a volume there")]
    System {
        /// In the container.
        path: &'static str,
    },
    /// A mount could not be changed.
    #[error("cannot {what}")]
    Mount {
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Where the engine mounts what the system needs, and what lies there: the root of a file system of this kind, nothing
/// over it. A volume of the image at /dev would hold the image's own device nodes; a /proc of the image's own would lie
/// to Slurm, which still writes there as root.
const SYSTEM: [(&str, &str); 4] =
    [("/proc", "proc"), ("/dev", "tmpfs"), ("/dev/pts", "devpts"), ("/sys", "sysfs")];

/// No setuid programs, no file capabilities and no device nodes, on any mount but /dev: joined tasks are outside the
/// engine's confinement, so that a setuid-root shell of the image would make them root on the node. `mounts` is what
/// the kernel says is mounted there, `hiding` what the host's own /proc hides of other users' processes: the container has
/// another one, in the host's PID namespace.
pub(super) fn harden(
    root: &ContainerRoot,
    mounts: &[Mounted],
    hiding: &[(CString, CString)],
) -> Result<(), PopulateError> {
    for (path, kind) in SYSTEM {
        let mut here = mounts.iter().filter(|mount| mount.point == Path::new(path));
        let whole = |mount: &Mounted| mount.root == Path::new("/") && mount.kind == kind;
        if !here.next().is_some_and(whole) || here.next().is_some() {
            return Err(PopulateError::System { path });
        }
    }
    let failed = |what| move |source| PopulateError::Mount { what, source };
    let everything = root.find(Path::new("/")).map_err(failed("open the root directory"))?;
    mount::change(&everything, true, Attributes::NOSUID.and(Attributes::NODEV), Attributes::NONE)
        .map_err(failed("make the container's mounts nosuid and nodev"))?;
    for path in ["/dev", "/dev/pts"] {
        let directory = root.find(Path::new(path)).map_err(failed("open /dev"))?;
        mount::change(&directory, false, Attributes::NONE, Attributes::NODEV)
            .map_err(failed("allow devices in /dev"))?;
    }
    if !hiding.is_empty() {
        let proc = root.find(Path::new("/proc")).map_err(failed("open /proc"))?;
        mount::reconfigure(&proc, hiding).map_err(failed("set hidepid on /proc as on the node"))?;
    }
    // NVIDIA's hook mounts device nodes of the node there, each by itself. An image's volume is always a directory.
    for mount in mounts.iter().filter(|mount| mount.point.starts_with("/dev")) {
        let found = root.find(&mount.point).map_err(failed("open what is mounted in /dev"))?;
        if inside::is_device(&found).map_err(failed("inspect what is mounted in /dev"))? {
            mount::change(&found, false, Attributes::NONE, Attributes::NODEV)
                .map_err(failed("allow a device that is mounted in /dev"))?;
        }
    }
    Ok(())
}

/// In place of the engine's own, where [`harden`] has found them.
pub(super) fn share_terminals(root: &ContainerRoot, terminals: Terminals) -> Result<(), PopulateError> {
    let open = |path| root.find(Path::new(path));
    let attached = open("/dev").and_then(|dev| terminals.attach(&dev, open("/dev/pts")?));
    attached
        .map_err(|source| PopulateError::Mount { what: "give the container the node's terminals", source })
}

fn no_place(source: io::Error) -> PopulateError {
    PopulateError::Target { path: paths::DIRECTORY, source }
}

/// Where our directory will be. An image whose /run is no directory has none.
pub(super) fn place_of_ours(root: &ContainerRoot) -> Result<OwnedFd, PopulateError> {
    root.directory(Path::new(paths::DIRECTORY)).map_err(no_place)
}

/// A directory for the user alone on the container's own file system, below where our directory is about to hide it; by a
/// name that no image has.
pub(super) fn fresh_home(place: &OwnedFd, entry: &StagingDir, user: &UserIds) -> io::Result<OwnedFd> {
    let name = entry.directory().file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let home = inside::new_directory(place, name, user)?;
    mount::detached_copy(&home, false)
}

/// Moves our directory from where the container was entered to its own place.
pub(super) fn move_into_place(
    root: &ContainerRoot,
    entry: &StagingDir,
    place: OwnedFd,
) -> Result<(), PopulateError> {
    let ours = root.find(entry.directory()).map_err(no_place)?;
    mount::attach(ours, place).map_err(no_place)?;
    if let Some(name) = entry.directory().file_name() {
        // Where the root file system is read-only the empty directory stays.
        let _ = root.remove_directory(name);
    }
    Ok(())
}

/// Makes the image's WORKDIR where it is not there: Docker does so itself, Podman does not, and leaves an empty one out of the
/// images that it builds. Where it cannot be made, tasks begin elsewhere.
pub(super) fn make_workdir(root: &ContainerRoot, workdir: Option<&str>) {
    if let Some(workdir) = workdir {
        let _ = root.directory(Path::new(workdir));
    }
}

/// Where an sshd is looked for, each once: a PATH may name a directory thousands of times, or thousands of them.
fn directories_of_sshd(path_of_image: &str) -> Vec<&str> {
    const LIMIT: usize = 64;
    let mut directories = Vec::new();
    for directory in SSHD_DIRECTORIES.into_iter().chain(path_of_image.split(':')) {
        if directory.starts_with('/') && !directories.contains(&directory) {
            directories.push(directory);
        }
        if directories.len() == LIMIT {
            break;
        }
    }
    directories
}

/// Reads what the image brings. What it brings in a form that cannot be used counts as not there.
/// Root's sshd needs capabilities before a login, later ones (OpenSSH 10.6) before their banner: it counts as not there.
pub(super) fn inspect_rootfs(
    root: &ContainerRoot,
    path_of_image: &str,
    shells: &[PathBuf],
    user: &UserIds,
) -> ImageFiles {
    let read = |path: &str| root.read(Path::new(path), LIMIT).ok().flatten().unwrap_or_default();
    let candidates = directories_of_sshd(path_of_image).into_iter().map(|d| Path::new(d).join("sshd"));
    let is_sshd = |path: &PathBuf| user.uid != 0 && root.is_program(path);
    let sshd = candidates.into_iter().find(is_sshd);
    let program = sshd.as_ref().and_then(|sshd| root.read(sshd, SSHD_LIMIT).ok().flatten());
    ImageFiles {
        replaced: REPLACED.map(read),
        ssh: SSH_PROGRAMS.into_iter().find(|ssh| is_plain_program(root, Path::new(ssh))),
        profile: root.read(Path::new(PROFILE), LIMIT).ok().flatten(),
        sshd_lines: server::more_lines(&program.unwrap_or_default()),
        sshd,
        shell: shells.iter().find(|shell| root.is_program(shell)).cloned(),
    }
}

/// Whether it has this very name, and is not one of many names of a program that goes by them. A shell must be there too.
fn is_plain_program(root: &ContainerRoot, path: &Path) -> bool {
    let is_alone = || root.has_other_names(path).is_ok_and(|has| !has);
    root.is_program(path) && root.is_program(Path::new("/bin/sh")) && is_alone()
}

/// Mounts `ours` over the image's ssh, and the image's at `place`, before any mount of the user's.
pub(super) fn cover_ssh(
    root: &ContainerRoot,
    ssh: &'static str,
    ours: OwnedFd,
    place: &'static str,
) -> Result<(), PopulateError> {
    let failed = |path| move |source| PopulateError::Target { path, source };
    let program = root.find(Path::new(ssh)).map_err(failed(ssh))?;
    let own = mount::detached_copy(&program, false).map_err(failed(ssh))?;
    mount::attach(own, root.find(Path::new(place)).map_err(failed(place))?).map_err(failed(place))?;
    mount::attach(ours, program).map_err(failed(ssh))
}

/// Shells, compilers and MPI need a directory for temporary files, whatever an image has there. Where that cannot be made of it, the
/// container is as the image has it.
pub(super) fn share_temporary(root: &ContainerRoot, volumes: &[u64]) {
    let _ = root.share(OsStr::new("tmp"), volumes);
    let _ = root.share_existing(Path::new("/var/tmp"), volumes);
}

/// Mounts detached trees over the image's files of these names, or those of a directory that the user has mounted there.
pub(super) fn replace(
    root: &ContainerRoot,
    trees: Vec<(&'static str, OwnedFd)>,
    user: &UserIds,
    volumes: &[u64],
) -> Result<(), PopulateError> {
    for (path, tree) in trees {
        let target = root
            .resolve_target(Path::new(path), false, user, Rules { closed: &paths::CLOSED, volumes })
            .map_err(|source| PopulateError::Place { path, source })?;
        mount::attach(tree, target).map_err(|source| PopulateError::Target { path, source })?;
    }
    Ok(())
}

/// Makes the container's own files read-only; what is mounted on top of them stays as it is.
pub(super) fn make_read_only(root: &ContainerRoot) -> Result<(), PopulateError> {
    let own = root
        .find(Path::new("/"))
        .and_then(|root| mount::change(root, false, Attributes::RDONLY, Attributes::NONE));
    own.map_err(|source| PopulateError::Mount { what: "make the container's files read-only", source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sshd_is_looked_for_in_few_directories() {
        let found = directories_of_sshd("bin:/opt/a::/usr/bin:/opt/a/b:/opt/a");
        assert_eq!(found[..SSHD_DIRECTORIES.len()], SSHD_DIRECTORIES);
        assert_eq!(found[SSHD_DIRECTORIES.len()..], ["/opt/a", "/opt/a/b"]);
        let many: Vec<_> = (0..100_000).map(|n| format!("/{n}")).collect();
        assert_eq!(directories_of_sshd(&many.join(":")).len(), 64);
    }
}

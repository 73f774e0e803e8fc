//! What the plugin does in a started container before any program of the image runs in it: it hardens the
//! mounts, reads the image's accounts and ssh configuration, and covers the image's files with its own.
//!
//! Runs as root in the container's mount namespace. The image is untrusted: see [`crate::linux::inside`].

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
use crate::settings::choices::Sshd;

/// Files of the image that the plugin's cover.
pub(super) const REPLACED: [&str; 3] = ["/etc/passwd", "/etc/group", "/etc/ssh/ssh_config"];
pub(super) const LIMIT: u64 = 1 << 20;
/// The file that login shells read; covered only where the image has it.
pub(super) const PROFILE: &str = "/etc/profile";
/// The limit for reading an sshd, which has 1 to 4 MB.
const SSHD_LIMIT: u64 = 16 << 20;

/// Directories in which to look for an sshd, besides the image's own PATH.
const SSHD_DIRECTORIES: [&str; 6] =
    ["/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin", "/sbin", "/opt/openssh/sbin"];

/// Paths at which the plugin's ssh covers the image's. An ssh elsewhere may look for its libraries beside
/// itself.
const SSH_PROGRAMS: [&str; 3] = ["/usr/bin/ssh", "/bin/ssh", "/usr/local/bin/ssh"];

/// The files that were found in the image.
#[derive(Debug)]
pub(super) struct ImageFiles {
    /// Contents of [`REPLACED`], in this order; empty where the image has no such file that can be used.
    pub(super) replaced: [Vec<u8>; 3],
    /// The image's ssh, where it is a separate program.
    pub(super) ssh: Option<&'static str>,
    /// The content of its [`PROFILE`].
    pub(super) profile: Option<Vec<u8>>,
    /// The sshd that the container gets.
    pub(super) server: Option<Server>,
    /// Whether the ssh to the job's nodes is the plugin's.
    pub(super) is_client_plugins: bool,
    /// The first of the requested shells that the image has.
    pub(super) shell: Option<PathBuf>,
}

/// The sshd of a container.
#[derive(Debug)]
pub(super) enum Server {
    /// The image's.
    Image {
        /// In the container.
        path: PathBuf,
        /// Additional lines of configuration for it.
        lines: String,
    },
    /// The plugin's.
    Plugins,
}

/// Why a container cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum PopulateError {
    /// The image has something at this path on which no file can be mounted.
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
    /// /dev or another directory of the system is not the engine's mount.
    #[error("has its own '{path}' instead of the system's: build it without a volume there")]
    System {
        /// In the container.
        path: &'static str,
    },
    /// A mount could not be changed.
    #[error("cannot {what}")]
    Mount {
        /// What was attempted.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Where the engine mounts parts of the system, and the file system that must be there: its root, with nothing
/// mounted over it. A volume of the image at /dev would hold the image's own device nodes; a /proc of the
/// image's own would receive what Slurm still writes there as root.
const SYSTEM: [(&str, &str); 4] =
    [("/proc", "proc"), ("/dev", "tmpfs"), ("/dev/pts", "devpts"), ("/sys", "sysfs")];

fn check_system(mounts: &[Mounted]) -> Result<(), PopulateError> {
    for (path, kind) in SYSTEM {
        let mut here = mounts.iter().filter(|mount| mount.point == Path::new(path));
        let whole = |mount: &Mounted| mount.root == Path::new("/") && mount.kind == kind;
        if !here.next().is_some_and(whole) || here.next().is_some() {
            return Err(PopulateError::System { path });
        }
    }
    Ok(())
}

/// Removes setuid programs, file capabilities and device nodes from all mounts but /dev: the engine does not
/// confine tasks that join the container, so a setuid-root shell of the image would make them root on the node.
/// `mounts` are the container's mounts according to the kernel. `hiding` are the options by which the host's
/// /proc hides other users' processes: the container has another /proc, in the host's PID namespace.
pub(super) fn harden(
    root: &ContainerRoot,
    mounts: &[Mounted],
    hiding: &[(CString, CString)],
) -> Result<(), PopulateError> {
    check_system(mounts)?;
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
    // NVIDIA's hook mounts single device nodes of the node there. A volume of an image is always a directory.
    for mount in mounts.iter().filter(|mount| mount.point.starts_with("/dev")) {
        let found = root.find(&mount.point).map_err(failed("open what is mounted in /dev"))?;
        if inside::is_device(&found).map_err(failed("inspect what is mounted in /dev"))? {
            mount::change(&found, false, Attributes::NONE, Attributes::NODEV)
                .map_err(failed("allow a device that is mounted in /dev"))?;
        }
    }
    Ok(())
}

/// Mounts the node's terminals in place of the engine's, where [`harden`] has found them.
pub(super) fn share_terminals(root: &ContainerRoot, terminals: Terminals) -> Result<(), PopulateError> {
    let open = |path| root.find(Path::new(path));
    let attached = open("/dev").and_then(|dev| terminals.attach(&dev, open("/dev/pts")?));
    attached
        .map_err(|source| PopulateError::Mount { what: "give the container the node's terminals", source })
}

fn no_place(source: io::Error) -> PopulateError {
    PopulateError::Target { path: paths::DIRECTORY, source }
}

/// The target of the plugin's directory. An image whose /run is not a directory has none.
pub(super) fn target_of_plugin_directory(root: &ContainerRoot) -> Result<OwnedFd, PopulateError> {
    root.directory(Path::new(paths::DIRECTORY)).map_err(no_place)
}

/// A directory for the user alone on the container's own file system, in a place that the plugin's directory is
/// about to cover, with a name that no image has.
pub(super) fn fresh_home(place: &OwnedFd, entry: &StagingDir, user: &UserIds) -> io::Result<OwnedFd> {
    let name = entry.directory().file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let home = inside::new_directory(place, name, user)?;
    mount::detached_copy(&home, false)
}

/// Moves the plugin's directory from its temporary place to the final one.
pub(super) fn move_into_place(
    root: &ContainerRoot,
    entry: &StagingDir,
    place: OwnedFd,
) -> Result<(), PopulateError> {
    let directory = root.find(entry.directory()).map_err(no_place)?;
    mount::attach(directory, place).map_err(no_place)?;
    if let Some(name) = entry.directory().file_name() {
        // Where the root file system is read-only, the empty directory stays.
        let _ = root.remove_directory(name);
    }
    Ok(())
}

/// Makes the image's WORKDIR where it is missing: Docker does so itself, but Podman does not, and it leaves an
/// empty one out of the images that it builds. Where it cannot be made, tasks start in another directory.
pub(super) fn make_workdir(root: &ContainerRoot, workdir: Option<&str>) {
    if let Some(workdir) = workdir {
        let _ = root.directory(Path::new(workdir));
    }
}

/// The directories in which to look for an sshd or an ssh, each once: a PATH may have thousands of entries.
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

/// Reads the image's files. A file that cannot be used counts as missing.
pub(super) fn inspect_rootfs(
    root: &ContainerRoot,
    path_of_image: &str,
    shells: &[PathBuf],
    user: &UserIds,
    sshd: Sshd,
) -> ImageFiles {
    let read = |path: &str| root.read(Path::new(path), LIMIT).ok().flatten().unwrap_or_default();
    let directories = directories_of_sshd(path_of_image);
    let find =
        |name: &str| directories.iter().map(|d| Path::new(d).join(name)).find(|path| root.is_program(path));
    let server = choose_server(user, sshd, || {
        let path = find("sshd")?;
        let program = root.read(&path, SSHD_LIMIT).ok().flatten().unwrap_or_default();
        Some(Server::Image { path, lines: server::more_lines(&program) })
    });
    let is_client_plugins = match server {
        Some(Server::Plugins) => true,
        Some(Server::Image { .. }) => sshd == Sshd::Auto && find("ssh").is_none(),
        None => false,
    };
    ImageFiles {
        replaced: REPLACED.map(read),
        ssh: SSH_PROGRAMS.into_iter().find(|ssh| is_plain_ssh(root, Path::new(ssh))),
        profile: root.read(Path::new(PROFILE), LIMIT).ok().flatten(),
        server,
        is_client_plugins,
        shell: shells.iter().find(|shell| root.is_program(shell)).cloned(),
    }
}

/// The sshd of a container. A job of root has none: as root the image's needs capabilities before a login, from
/// OpenSSH 10.6 on before its banner.
fn choose_server(user: &UserIds, sshd: Sshd, images: impl FnOnce() -> Option<Server>) -> Option<Server> {
    match sshd {
        _ if user.uid == 0 => None,
        Sshd::None => None,
        Sshd::Builtin => Some(Server::Plugins),
        Sshd::Image => images(),
        Sshd::Auto => images().or(Some(Server::Plugins)),
    }
}

/// Whether the file is an ssh only, and not one of many names of a multi-call program such as busybox. A link may lead to it
/// (update-alternatives), from an ssh to an ssh of another name. The image must also have a shell.
fn is_plain_ssh(root: &ContainerRoot, path: &Path) -> bool {
    let is_alone = |path: &Path| root.has_other_names(path).is_ok_and(|has| !has);
    let is_ssh = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().contains("ssh"));
    let is_one = || root.end_of_links(path).is_ok_and(|end| is_ssh(&end) && is_alone(&end));
    root.is_program(path) && root.is_program(Path::new("/bin/sh")) && is_one()
}

/// Mounts the plugin's program over the image's ssh, and the image's ssh at `place`, before any mount of the
/// user's.
pub(super) fn cover_ssh(
    root: &ContainerRoot,
    ssh: &'static str,
    program_of_plugin: OwnedFd,
    place: &'static str,
) -> Result<(), PopulateError> {
    let failed = |path| move |source| PopulateError::Target { path, source };
    let program = root.find(Path::new(ssh)).map_err(failed(ssh))?;
    let own = mount::detached_copy(&program, false).map_err(failed(ssh))?;
    mount::attach(own, root.find(Path::new(place)).map_err(failed(place))?).map_err(failed(place))?;
    mount::attach(program_of_plugin, program).map_err(failed(ssh))
}

/// Makes /tmp and the like writable for all users, since shells, compilers and MPI need a directory for
/// temporary files. Where that fails, the image's own directory stays as it is.
pub(super) fn share_temporary(root: &ContainerRoot, volumes: &[u64]) {
    let _ = root.share(OsStr::new("tmp"), volumes);
    let _ = root.share_existing(Path::new("/var/tmp"), volumes);
}

/// Mounts detached trees over the image's files of these names, or over those in a directory that the user has
/// mounted there.
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

/// Makes the container's own files read-only; mounts on top of them do not change.
pub(super) fn make_read_only(root: &ContainerRoot) -> Result<(), PopulateError> {
    let own = root
        .find(Path::new("/"))
        .and_then(|root| mount::change(root, false, Attributes::RDONLY, Attributes::NONE));
    own.map_err(|source| PopulateError::Mount { what: "make the container's files read-only", source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::mountinfo;

    #[test]
    fn a_container_has_the_systems_own_directories_and_nothing_over_them() {
        const ENGINES: &str = "\
            20 1 0:30 / / rw - overlay overlay rw\n\
            21 20 0:31 / /proc rw - proc proc rw\n\
            22 20 0:32 / /dev rw - tmpfs tmpfs rw\n\
            23 22 0:33 / /dev/pts rw - devpts devpts rw\n\
            24 20 0:34 / /sys ro - sysfs sysfs ro\n";
        let check = |mounts: &str| {
            let mounts: Vec<_> = mountinfo::parse(mounts.as_bytes()).collect();
            check_system(&mounts).map_err(|error| error.to_string())
        };
        assert_eq!(check(ENGINES), Ok(()));
        let refused = |path: &str| {
            Err(format!("has its own '{path}' instead of the system's: build it without a volume there"))
        };
        let volume = "25 20 8:1 /v/_data /dev rw - ext4 /dev/vda rw\n";
        assert_eq!(check(&format!("{ENGINES}{volume}")), refused("/dev"));
        assert_eq!(check(&ENGINES.replace("0:34 / /sys", "0:34 /fs /sys")), refused("/sys"));
        assert_eq!(check(&ENGINES.replace("- proc proc", "- tmpfs tmpfs")), refused("/proc"));
        assert_eq!(check(&ENGINES.replace(" /dev/pts ", " /dev/pty ")), refused("/dev/pts"));
    }

    #[test]
    fn sshd_is_looked_for_in_few_directories() {
        let found = directories_of_sshd("bin:/opt/a::/usr/bin:/opt/a/b:/opt/a");
        assert_eq!(found[..SSHD_DIRECTORIES.len()], SSHD_DIRECTORIES);
        assert_eq!(found[SSHD_DIRECTORIES.len()..], ["/opt/a", "/opt/a/b"]);
        let many: Vec<_> = (0..100_000).map(|n| format!("/{n}")).collect();
        assert_eq!(directories_of_sshd(&many.join(":")).len(), 64);
    }
}

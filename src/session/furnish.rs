//! What the prolog does inside a container that was started, before anything of the image has run in it: take the
//! danger out of its mounts, read what the image says of users and ssh, and put our files over it.
//!
//! Runs as root in the container's mount namespace. The image is hostile until shown otherwise: see `sys::inside`.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::sys::statfs::TMPFS_MAGIC;

use crate::sys::inside::Root;
use crate::sys::mount::{self, Attributes};

/// Files of the image that ours replace, and the limit for reading them.
pub(super) const REPLACED: [&str; 3] = ["/etc/passwd", "/etc/group", "/etc/ssh/ssh_config"];
const LIMIT: u64 = 1 << 20;

/// Where an sshd may be, besides the image's own PATH.
const SSHD_DIRECTORIES: [&str; 6] =
    ["/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin", "/sbin", "/opt/openssh/sbin"];

/// What was found in the image.
#[derive(Debug)]
pub(super) struct Found {
    /// Contents of [`REPLACED`], in this order; empty where there is none that can be used.
    pub(super) replaced: [Vec<u8>; 3],
    /// Its sshd.
    pub(super) sshd: Option<PathBuf>,
    /// Which of the shells that were asked for it has first.
    pub(super) shell: Option<PathBuf>,
}

/// Why a container cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FurnishError {
    /// The image has something at this place that no file can be mounted on.
    #[error("cannot mount on '{path}'")]
    Target {
        /// In the container.
        path: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The container's /dev is not the engine's.
    #[error("/dev is not the one that the engine makes")]
    Dev,
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

/// No setuid programs, no file capabilities and no device nodes, on any mount but /dev: joined tasks are outside the
/// engine's confinement, so that a setuid-root shell of the image would make them root on the node.
pub(super) fn harden(root: &Root) -> Result<(), FurnishError> {
    let failed = |what| move |source| FurnishError::Mount { what, source };
    let everything = root.find(Path::new("/")).map_err(failed("open the root directory"))?;
    mount::change(&everything, true, Attributes::NOSUID.and(Attributes::NODEV), Attributes::NONE)
        .map_err(failed("make the container's mounts nosuid and nodev"))?;
    // A volume of the image at /dev would hold the image's own device nodes.
    for (path, magic) in [("/dev", TMPFS_MAGIC), ("/dev/pts", DEVPTS_MAGIC)] {
        let directory = root.find(Path::new(path)).map_err(failed("open /dev"))?;
        if mount::file_system_type(&directory).map_err(failed("look at /dev"))? != magic {
            return Err(FurnishError::Dev);
        }
        mount::change(&directory, false, Attributes::NONE, Attributes::NODEV)
            .map_err(failed("allow devices in /dev"))?;
    }
    Ok(())
}

/// DEVPTS_SUPER_MAGIC of linux/magic.h.
const DEVPTS_MAGIC: nix::sys::statfs::FsType = nix::sys::statfs::FsType(0x1cd1);

/// Reads what the image brings. What it brings in a form that cannot be used counts as not there.
pub(super) fn look(root: &Root, path_of_image: &str, shells: &[PathBuf]) -> Found {
    let read = |path: &str| root.read(Path::new(path), LIMIT).ok().flatten().unwrap_or_default();
    let directories = SSHD_DIRECTORIES.into_iter().chain(path_of_image.split(':'));
    let candidates =
        directories.filter(|directory| directory.starts_with('/')).map(|d| Path::new(d).join("sshd"));
    Found {
        replaced: REPLACED.map(read),
        sshd: candidates.into_iter().find(|path| root.is_program(path)),
        shell: shells.iter().find(|shell| root.is_program(shell)).cloned(),
    }
}

/// Mounts `trees` (detached, one for each of [`REPLACED`]) over the image's files.
pub(super) fn replace(root: &Root, trees: [OwnedFd; 3]) -> Result<(), FurnishError> {
    for (path, tree) in REPLACED.into_iter().zip(trees) {
        let failed = |source| FurnishError::Target { path, source };
        let target = root.file_to_mount_on(Path::new(path)).map_err(failed)?;
        mount::attach(tree, target).map_err(failed)?;
    }
    Ok(())
}

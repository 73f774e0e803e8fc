//! The facts about a file in a container, found by its descriptor. Apart because they decide both which files
//! are read and where mounts may go: a file on a pseudo file system of the kernel is not a file of the image.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::stat::{FileStat, SFlag, fstat};
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, FsType, PROC_SUPER_MAGIC, SYSFS_MAGIC};
use serde::{Deserialize, Serialize};

use crate::linux::mount;

/// Pseudo file systems of the kernel.
const INVENTED: [FsType; 4] = [PROC_SUPER_MAGIC, SYSFS_MAGIC, CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC];

/// The facts about a file that the plugin uses.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct FileFacts {
    pub(super) is_directory: bool,
    pub(super) device: u64,
    pub(super) mount: u64,
    pub(super) is_invented: bool,
}

impl FileFacts {
    pub(super) fn of(file: &OwnedFd) -> io::Result<Self> {
        let stat = fstat(file)?;
        Ok(Self {
            is_directory: kind(&stat) == SFlag::S_IFDIR,
            device: stat.st_dev,
            mount: mount::id(file)?,
            is_invented: is_invented(file)?,
        })
    }
}

/// Whether this is a character device.
pub fn is_device(file: impl AsFd) -> io::Result<bool> {
    Ok(kind(&fstat(file)?) == SFlag::S_IFCHR)
}

/// A regular file, and not on a pseudo file system (a symlink in the image may lead to /proc or /sys).
pub(super) fn is_plain_file(file: &OwnedFd) -> io::Result<bool> {
    Ok(kind(&fstat(file)?) == SFlag::S_IFREG && !is_invented(file)?)
}

fn is_invented(file: &OwnedFd) -> io::Result<bool> {
    Ok(INVENTED.contains(&mount::file_system_type(file)?))
}

/// The type of a file, from its mode.
pub(super) fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

//! Mounts handled by descriptor (open_tree(2), move_mount(2), mount_setattr(2)), so that no path is resolved twice.
//!
//! Runs as root: on the host, where a container is started or removed, and inside the mount namespace of a container that is
//! being started.
#![expect(unsafe_code, reason = "neither nix nor rustix has mount_setattr")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{AccessFlags, access};
use rustix::fs::{AtFlags, StatxFlags, statx};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_reconfigure, fsconfig_set_string, fsmount, fsopen, fspick, move_mount, open_tree,
};

/// Attributes of a mount, as mount_setattr(2) names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes(MountAttrFlags);

impl Attributes {
    /// No attribute.
    pub const NONE: Self = Self(MountAttrFlags::empty());
    /// No setuid, setgid or file capabilities.
    pub const NOSUID: Self = Self(MountAttrFlags::MOUNT_ATTR_NOSUID);
    /// No device nodes.
    pub const NODEV: Self = Self(MountAttrFlags::MOUNT_ATTR_NODEV);
    /// Read-only.
    pub const RDONLY: Self = Self(MountAttrFlags::MOUNT_ATTR_RDONLY);
    /// No programs.
    pub const NOEXEC: Self = Self(MountAttrFlags::MOUNT_ATTR_NOEXEC);

    /// These attributes and the others together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0.union(other.0))
    }
}

/// A mount that is attached nowhere yet: a copy of the one on which `file` (a directory or a file, also opened
/// with `O_PATH`) lies, with `file` as its root. With `recursive`, of the mounts below it too. `file` must lie
/// on a mount of this process' mount namespace: before Linux 6.15 the kernel copies no other mounts.
pub fn detached_copy(file: impl AsFd, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    Ok(open_tree(file, c"", flags)?)
}

/// Attaches a detached mount on top of `target`, which may be a descriptor opened with `O_PATH`.
pub fn attach(tree: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(tree, c"", target, c"", flags)?)
}

/// Sets and clears attributes of the mount whose root `file` is, and makes it private; with `recursive`, of all below it.
pub fn change(file: impl AsFd, recursive: bool, set: Attributes, clear: Attributes) -> io::Result<()> {
    set_attributes(file, recursive, set, clear, libc::MS_PRIVATE)
}

/// Sets attributes, and makes the mount a slave: later mounts of the host appear in it, but not the reverse.
pub fn enslave(tree: impl AsFd, set: Attributes) -> io::Result<()> {
    set_attributes(tree, true, set, Attributes::NONE, libc::MS_SLAVE)
}

fn set_attributes(
    file: impl AsFd,
    recursive: bool,
    set: Attributes,
    clear: Attributes,
    propagation: libc::c_ulong,
) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: set.0.bits().into(),
        attr_clr: clear.0.bits().into(),
        propagation,
        userns_fd: 0,
    };
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: a valid descriptor, an empty path, and a struct with its size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            file.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(result).map(drop).map_err(io::Error::from)
}

/// A fresh tmpfs that is attached nowhere yet, with these options; neither setuid programs nor device nodes.
pub fn detached_tmpfs(options: &[(&CStr, &CStr)]) -> io::Result<OwnedFd> {
    let context = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, c"source", c"spank-docker")?;
    options.iter().try_for_each(|(name, value)| fsconfig_set_string(&context, *name, *value))?;
    fsconfig_create(&context)?;
    Ok(fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, Attributes::NOSUID.and(Attributes::NODEV).0)?)
}

/// Changes options of the file system whose mount's root is `file`; all other options stay.
pub fn reconfigure(file: impl AsFd, options: &[(CString, CString)]) -> io::Result<()> {
    let context = fspick(file, c"", FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH)?;
    options.iter().try_for_each(|(name, value)| fsconfig_set_string(&context, name, value))?;
    Ok(fsconfig_reconfigure(context)?)
}

/// Mounts a small private tmpfs at `path`, with executable files (a state directory may lie on a noexec /run), but nosuid and
/// nodev.
pub fn tmpfs(path: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("spank-docker"), path, Some("tmpfs"), flags, Some("mode=0755,size=64m"))?;
    mount(None::<&str>, path, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)?;
    Ok(())
}

/// Detaches all layers of mounts at `path`. No mount there is success.
pub fn detach(path: &Path) -> io::Result<()> {
    loop {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The type of the file system of `file`, as statfs(2) returns it.
pub fn file_system_type(file: impl AsFd) -> io::Result<nix::sys::statfs::FsType> {
    Ok(nix::sys::statfs::fstatfs(file)?.filesystem_type())
}

/// The kernel's id of the mount of `file`, as in mountinfo (proc_pid_mountinfo(5)).
pub fn id(file: impl AsFd) -> io::Result<u64> {
    // Available from Linux 5.8 on.
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let found = statx(file, c"", flags, StatxFlags::MNT_ID)?;
    match found.stx_mask & StatxFlags::MNT_ID.bits() {
        0 => Err(io::ErrorKind::Unsupported.into()),
        _ => Ok(found.stx_mnt_id),
    }
}

/// Whether `path` exists, without a memory allocation: hooks of jobs without a container do no more than this.
#[must_use]
pub fn exists(path: &CStr) -> bool {
    access(path, AccessFlags::F_OK).is_ok()
}

//! Mounts handled by descriptor (open_tree(2), move_mount(2), mount_setattr(2)), so that no path is looked up twice.
//!
//! Runs as root: in the prolog and epilog on the host, and in the prolog inside a container's mount namespace.
#![expect(unsafe_code, reason = "neither libc nor nix wraps these system calls")]

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Attributes of a mount, as mount_setattr(2) names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes(u64);

impl Attributes {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// No setuid, setgid or file capabilities.
    pub const NOSUID: Self = Self(libc::MOUNT_ATTR_NOSUID);
    /// No device nodes.
    pub const NODEV: Self = Self(libc::MOUNT_ATTR_NODEV);
    /// Read-only.
    pub const RDONLY: Self = Self(libc::MOUNT_ATTR_RDONLY);
    /// No programs.
    pub const NOEXEC: Self = Self(libc::MOUNT_ATTR_NOEXEC);

    /// These attributes and the others together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A mount that is attached nowhere yet: a copy of the one that `file` (a directory or a file, also opened with
/// `O_PATH`) lies on, with `file` as its root. With `recursive`, of the mounts below it too.
pub fn detached_copy(file: impl AsFd, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as libc::c_uint;
    if recursive {
        flags |= libc::AT_RECURSIVE as libc::c_uint;
    }
    // SAFETY: a valid descriptor and an empty path; the result is a new descriptor that nobody else owns.
    unsafe {
        let fd = libc::syscall(libc::SYS_open_tree, file.as_fd().as_raw_fd(), c"".as_ptr(), flags);
        descriptor(fd)
    }
}

/// Attaches a detached mount on top of `target`, which may be a descriptor opened with `O_PATH`.
pub fn attach(tree: impl AsFd, target: impl AsFd) -> io::Result<()> {
    // SAFETY: two valid descriptors and empty paths.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            target.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH,
        )
    };
    Errno::result(result).map(drop).map_err(io::Error::from)
}

/// Sets and clears attributes of the mount that `file` is the root of, and makes it private; with `recursive`, of all
/// below it.
pub fn change(file: impl AsFd, recursive: bool, set: Attributes, clear: Attributes) -> io::Result<()> {
    set_attributes(file, recursive, set, clear, libc::MS_PRIVATE)
}

/// Sets attributes, and has later mounts of the host appear in what is a copy of its mounts: not the other way round.
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
    let attributes = libc::mount_attr { attr_set: set.0, attr_clr: clear.0, propagation, userns_fd: 0 };
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: a valid descriptor, an empty path, and a struct of the size that is passed.
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
    // linux/mount.h: enum fsconfig_command.
    const CMD_CREATE: libc::c_uint = 6;
    const FSOPEN_CLOEXEC: libc::c_uint = 1;
    const FSMOUNT_CLOEXEC: libc::c_uint = 1;
    let safe = Attributes::NOSUID.and(Attributes::NODEV).0 as libc::c_uint;
    // SAFETY: a static string, and a descriptor that nobody else owns.
    let context = unsafe { descriptor(libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), FSOPEN_CLOEXEC))? };
    set_option(&context, c"source", c"spank-docker")?;
    options.iter().try_for_each(|(name, value)| set_option(&context, name, value))?;
    configure(&context, CMD_CREATE, None)?;
    // SAFETY: a valid descriptor, and a new one that nobody else owns.
    unsafe { descriptor(libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, safe)) }
}

/// Changes options of the file system whose mount `file` is the root of; all others stay.
pub fn reconfigure(file: impl AsFd, options: &[(CString, CString)]) -> io::Result<()> {
    // linux/mount.h: enum fsconfig_command, and flags of fspick(2).
    const CMD_RECONFIGURE: libc::c_uint = 7;
    const FSPICK_CLOEXEC: libc::c_uint = 1;
    const FSPICK_EMPTY_PATH: libc::c_uint = 8;
    // SAFETY: a valid descriptor and an empty path, and a descriptor that nobody else owns.
    let context = unsafe {
        descriptor(libc::syscall(
            libc::SYS_fspick,
            file.as_fd().as_raw_fd(),
            c"".as_ptr(),
            FSPICK_CLOEXEC | FSPICK_EMPTY_PATH,
        ))?
    };
    options.iter().try_for_each(|(name, value)| set_option(&context, name, value))?;
    configure(&context, CMD_RECONFIGURE, None)
}

fn set_option(context: &OwnedFd, name: &CStr, value: &CStr) -> io::Result<()> {
    const SET_STRING: libc::c_uint = 1;
    configure(context, SET_STRING, Some((name, value)))
}

fn configure(context: &OwnedFd, command: libc::c_uint, option: Option<(&CStr, &CStr)>) -> io::Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    let [name, value] = [pointer(option.map(|(name, _)| name)), pointer(option.map(|(_, value)| value))];
    // SAFETY: a valid descriptor, and strings that outlive the call, or none.
    let result = unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, name, value, 0) };
    Errno::result(result).map(drop).map_err(io::Error::from)
}

/// Mounts a small private tmpfs at `path`, with files that may be executed (a state directory may lie on a noexec
/// /run) and nothing else that is dangerous.
pub fn tmpfs(path: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("spank-docker"), path, Some("tmpfs"), flags, Some("mode=0755,size=64m"))?;
    mount(None::<&str>, path, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)?;
    Ok(())
}

/// Detaches whatever is mounted at `path`, all layers of it. Nothing there is success.
pub fn detach(path: &Path) -> io::Result<()> {
    loop {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The type of the file system that `file` lies on, as statfs(2) has it.
pub fn file_system_type(file: impl AsFd) -> io::Result<nix::sys::statfs::FsType> {
    Ok(nix::sys::statfs::fstatfs(file)?.filesystem_type())
}

/// The kernel's number for the mount that `file` lies in, as in mountinfo (proc_pid_mountinfo(5)).
pub fn id(file: impl AsFd) -> io::Result<u64> {
    // statx(2), from Linux 5.8 on.
    const STATX_MNT_ID: libc::c_uint = 0x1000;
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    // SAFETY: a valid descriptor, an empty string with its NUL, and a buffer of the kernel's own layout.
    let result = unsafe {
        libc::statx(file.as_fd().as_raw_fd(), c"".as_ptr(), flags, STATX_MNT_ID, found.as_mut_ptr())
    };
    Errno::result(result).map_err(io::Error::from)?;
    // SAFETY: all of it is numbers, which were zero before the kernel wrote some.
    let found = unsafe { found.assume_init() };
    match found.stx_mask & STATX_MNT_ID {
        0 => Err(io::ErrorKind::Unsupported.into()),
        _ => Ok(found.stx_mnt_id),
    }
}

/// Whether there is something at `path`, without a single allocation: the answer for jobs that have no container.
#[must_use]
pub fn exists(path: &CStr) -> bool {
    // SAFETY: a NUL-terminated string.
    unsafe { libc::access(path.as_ptr(), libc::F_OK) == 0 }
}

/// # Safety
/// `result` is what a system call returned that makes a new descriptor.
unsafe fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = Errno::result(result).map_err(io::Error::from)?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the caller's word: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

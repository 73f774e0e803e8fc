//! The source of a mount in a container: a directory, a file or a device of the host, opened with its user's
//! rights.
//!
//! Root starts this as an errand of the user, where a container is started. The descriptor represents the
//! source from then on, and its name is not resolved again. Root does not even ask for its type: that would be
//! a request to the server of the file system, too.
#![expect(unsafe_code, reason = "faccessat2(2) of a descriptor is in neither libc nor nix")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, SFlag, fstat, major, minor};
use serde::{Deserialize, Serialize};

use super::errand::{self, Answer, Errand};
use super::identity::UserIds;

/// A file of the host, open for reference only (`O_PATH`).
#[derive(Debug)]
pub struct OpenedSource {
    /// The descriptor.
    pub file: OwnedFd,
    /// Its type.
    pub kind: SourceKind,
    /// For a device: whether its opener could open it for reading and writing.
    pub is_writable: bool,
}

/// The types of files that mounts distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SourceKind {
    /// A directory.
    Directory,
    /// Anything that is neither a directory nor a device; sockets and FIFOs too.
    File,
    /// A device node.
    Device(Device),
}

/// The device behind a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Whether it is a block device, else a character device.
    pub is_block: bool,
    /// The major number.
    pub major: u64,
    /// The minor number.
    pub minor: u64,
}

impl OpenedSource {
    /// Opens the file at `path` as `user` could, a directory only if they may enter it; without a user, as root.
    ///
    /// Does not follow links of /proc that bypass all rights: "/proc/self/fd/7" would be a file that root has open.
    ///
    /// # Errors
    /// `ETIMEDOUT` when the file system does not answer.
    pub async fn open(path: &Path, user: Option<&UserIds>) -> io::Result<Self> {
        let sent = Errand::send(user, &[], || {
            let file = open(path)?;
            let kind = SourceKind::of(&file)?;
            let is_writable = matches!(kind, SourceKind::Device(_)) && is_writable(&file)?;
            Ok(Answer::of(&(kind, is_writable))?.with(file))
        });
        let found = sent?.answer(errand::PATIENCE).await?;
        let (kind, is_writable) = found.value()?;
        Ok(Self { file: found.into_file()?, kind, is_writable })
    }

    /// Its path according to the kernel: without symlinks, and even if other mounts cover it.
    pub fn path(&self) -> io::Result<PathBuf> {
        std::fs::read_link(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let at = |flags: OFlag| {
        let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(AT_FDCWD, path, how)
    };
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    // As a directory first: this triggers an automount.
    match at(flags | OFlag::O_DIRECTORY) {
        // This openat checks the right to search the directory, which an O_PATH descriptor alone does not.
        Ok(directory) => Ok(openat(&directory, ".", flags | OFlag::O_DIRECTORY, Mode::empty())?),
        Err(Errno::ENOTDIR) => Ok(at(flags)?),
        Err(error) => Err(error.into()),
    }
}

/// Whether this process could open it for reading and writing. Does not try to: opening a device may have
/// effects.
fn is_writable(file: &OwnedFd) -> io::Result<bool> {
    let mode = libc::R_OK | libc::W_OK;
    let flags = libc::AT_EMPTY_PATH | libc::AT_EACCESS;
    // SAFETY: a valid descriptor and an empty path.
    let asked = unsafe { libc::syscall(libc::SYS_faccessat2, file.as_raw_fd(), c"".as_ptr(), mode, flags) };
    match Errno::result(asked) {
        Ok(_) => Ok(true),
        Err(Errno::EACCES | Errno::EPERM | Errno::EROFS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl SourceKind {
    fn of(file: &OwnedFd) -> io::Result<Self> {
        let stat = fstat(file)?;
        let device = |is_block| {
            Self::Device(Device { is_block, major: major(stat.st_rdev), minor: minor(stat.st_rdev) })
        };
        Ok(match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFDIR => Self::Directory,
            SFlag::S_IFBLK => device(true),
            SFlag::S_IFCHR => device(false),
            _ => Self::File,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_as_root(path: &str) -> io::Result<SourceKind> {
        let runtime = crate::linux::runtime::runtime().unwrap();
        runtime.block_on(OpenedSource::open(Path::new(path), None)).map(|source| source.kind)
    }

    #[test]
    fn a_source_is_a_directory_a_file_or_a_device() {
        assert_eq!(open_as_root("/etc").unwrap(), SourceKind::Directory);
        assert_eq!(open_as_root("/etc/passwd").unwrap(), SourceKind::File);
        let null = Device { is_block: false, major: 1, minor: 3 };
        assert_eq!(open_as_root("/dev/null").unwrap(), SourceKind::Device(null));
        assert_eq!(open_as_root("/nowhere").unwrap_err().raw_os_error(), Some(libc::ENOENT));
        assert_eq!(open_as_root("/etc/passwd/x").unwrap_err().raw_os_error(), Some(libc::ENOTDIR));
    }

    #[test]
    fn source_below_proc_fd_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/proc/self/fd/0", &link).unwrap();
        for path in ["/proc/self/fd/0", "/proc/self/root", "/proc/self/cwd", link.to_str().unwrap()] {
            assert_eq!(open_as_root(path).unwrap_err().raw_os_error(), Some(libc::ELOOP), "{path}");
        }
    }
}

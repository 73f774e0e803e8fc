//! Directories that root makes in a container, or opens to all users, other than the targets of mounts. Apart
//! because here root changes the image's files: only on the container's own root mount, or in its volumes.
//!
//! Runs as root in the container's mount namespace.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, ResolveFlag, openat};
use nix::sys::stat::{Mode, fchmod, fstat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat};

use super::facts::FileFacts;
use super::root::{ContainerRoot, is_absent};
use crate::linux::identity::UserIds;

/// The mode of /tmp.
const SHARED: Mode = Mode::S_ISVTX.union(Mode::S_IRWXU).union(Mode::S_IRWXG).union(Mode::S_IRWXO);

impl ContainerRoot {
    /// A directory in which root may create entries: on the container's own root mount. Another mount may be a directory of the
    /// host to which the image has a link, such as the job's working directory; root creates nothing there.
    fn own_directory(&self, path: &Path) -> io::Result<OwnedFd> {
        self.resolve(path, OFlag::O_PATH | OFlag::O_DIRECTORY, ResolveFlag::RESOLVE_NO_XDEV)
    }

    /// The directory at `path`, created with those above it when absent. Created ones are root's, mode 0755; none is created
    /// outside the container's own root mount (`EXDEV`).
    pub fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let mut directory = self.find(Path::new("/"))?;
        let mut walked = PathBuf::from("/");
        for component in path.components() {
            let name: &OsStr = match component {
                Component::RootDir | Component::CurDir => continue,
                Component::Normal(name) => name,
                Component::ParentDir | Component::Prefix(_) => return Err(io::Error::from(Errno::EINVAL)),
            };
            let above = walked.clone();
            walked.push(name);
            // Looked up from the root each time: a symlink in the image's tree may be absolute.
            directory = match self.find_directory(&walked) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                    match mkdirat(self.own_directory(&above)?, name, Mode::from_bits_truncate(0o755)) {
                        Ok(()) | Err(Errno::EEXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                    self.find_directory(&walked)?
                }
                other => other?,
            };
        }
        Ok(directory)
    }

    /// Makes a directory of the root directory writable for all users, like /tmp; replaces another file of its name. Does the
    /// same to a link's target, in the container's own files or in one of these `volumes`; changes nothing in other mounts.
    pub fn share(&self, name: &OsStr, volumes: &[u64]) -> io::Result<()> {
        if self.share_existing(Path::new(name), volumes)? {
            return Ok(());
        }
        match unlinkat(&self.directory, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
        mkdirat(&self.directory, name, SHARED)?;
        self.share_existing(Path::new(name), volumes).map(drop)
    }

    /// The same as [`Self::share`] for a directory that may be absent: returns whether it exists.
    pub fn share_existing(&self, path: &Path, volumes: &[u64]) -> io::Result<bool> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NONBLOCK;
        let directory = match self.resolve(path, flags, ResolveFlag::RESOLVE_NO_XDEV) {
            Err(error) if error.raw_os_error() == Some(libc::EXDEV) => {
                let place = self.find_directory(path)?;
                if !volumes.contains(&FileFacts::of(&place)?.mount) {
                    return Ok(true);
                }
                self.open(path, flags)?
            }
            Err(error) if is_absent(&error) => return Ok(false),
            other => other?,
        };
        if fstat(&directory)?.st_mode & SHARED.bits() != SHARED.bits() {
            fchmod(&directory, SHARED)?;
        }
        Ok(true)
    }

    /// Removes an empty directory of the root directory, by its name.
    pub fn remove_directory(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.directory, name, UnlinkatFlags::RemoveDir)?)
    }
}

/// Creates a directory that only this user can enter; an existing entry of that name is an error.
pub fn new_directory(directory: &OwnedFd, name: &OsStr, user: &UserIds) -> io::Result<OwnedFd> {
    mkdirat(directory, name, Mode::S_IRWXU)?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = openat(directory, name, flags, Mode::empty())?;
    fchown(&made, Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)))?;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::root::tests::root;
    use super::*;

    #[test]
    fn directory_for_temporary_files_is_everybodys_whatever_was_there() {
        use std::os::unix::fs::PermissionsExt;
        let (directory, root) = root();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("closed")).unwrap();
        fs::set_permissions(at("closed"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(at("there")).unwrap();
        symlink("there", at("link")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        symlink("loop", at("loop")).unwrap();
        fs::write(at("file"), "").unwrap();
        for name in ["closed", "link", "dangling", "loop", "file", "absent"] {
            root.share(OsStr::new(name), &[]).unwrap();
            assert_eq!(fs::metadata(at(name)).unwrap().permissions().mode() & 0o7777, 0o1777, "{name}");
        }
        assert!(at("link").is_symlink() && !at("nowhere").exists());
        assert!(!root.share_existing(Path::new("/var/tmp"), &[]).unwrap());
        // A directory in another mount stays unchanged.
        let host = ContainerRoot::current().unwrap();
        let mode = fs::metadata("/sys").unwrap().permissions().mode();
        assert!(host.share_existing(Path::new("/sys"), &[]).unwrap());
        assert_eq!(fs::metadata("/sys").unwrap().permissions().mode(), mode);
    }
}

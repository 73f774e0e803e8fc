//! Targets of mounts in a container: looked up, and created where they are missing. Apart because here a path
//! may leave the container's own file systems, and from there on it belongs to the user.
//!
//! Runs as root in the container's mount namespace; a child does lookups and creates entries in other mounts.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, fstat, mkdirat, umask};
use nix::sys::statfs::TMPFS_MAGIC;

use super::error::{PlaceError, unmade, unreachable};
use super::facts::FileFacts;
use super::root::ContainerRoot;
use crate::linux::errand::Answer;
use crate::linux::identity::UserIds;
use crate::linux::mount::{self, Attributes};

/// Special mounts of a container, for lookups in it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules<'a> {
    /// No target may be on these mounts.
    pub closed: &'a [&'a str],
    /// Mounts that are the container's own like its root, by their ids: volumes that its engine has made for it.
    pub volumes: &'a [u64],
}

/// A file in the container, and whether it is on the container's own file systems.
struct Located {
    file: OwnedFd,
    facts: FileFacts,
    is_own: bool,
}

impl ContainerRoot {
    /// The file at `path`, for a mount on top of it; created, with the directories above it, when absent.
    ///
    /// Root looks it up, and creates missing parts, on the container's own file system, to which only the image has written;
    /// and creates them in volumes of the container. In another mount (a directory of the user) both happen with the user's
    /// rights.
    pub fn resolve_target(
        &self,
        path: &Path,
        is_directory: bool,
        user: &UserIds,
        rules: Rules<'_>,
    ) -> Result<OwnedFd, PlaceError> {
        let found = match self.lookup_target(path, user, rules) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                self.create_target(path, is_directory, user, rules)?;
                self.lookup_target(path, user, rules)
            }
            other => other,
        };
        let place = found.map_err(|error| unreachable(error, path))?;
        if self.is_systems(&place.facts, rules.closed).map_err(PlaceError::Reach)? {
            return Err(PlaceError::System);
        }
        fits(&place.facts, is_directory)?;
        Ok(place.file)
    }

    /// The same as [`Self::resolve_target`] below /dev, for a device node: on the tmpfs that the engine has
    /// mounted there, and through no link.
    pub fn place_in_dev(&self, path: &Path) -> Result<OwnedFd, PlaceError> {
        let below = path.strip_prefix("/dev").map_err(|_| PlaceError::System)?;
        let dev = self.find_directory(Path::new("/dev")).map_err(PlaceError::Reach)?;
        if mount::file_system_type(&dev).map_err(PlaceError::Reach)? != TMPFS_MAGIC {
            return Err(PlaceError::System);
        }
        let resolve =
            ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV;
        let open = |path: &Path| -> io::Result<OwnedFd> {
            let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(resolve);
            Ok(openat2(&dev, path, how)?)
        };
        let mut directory = dev.try_clone().map_err(PlaceError::Reach)?;
        let mut walked = PathBuf::new();
        let mut names = below.components().map(|component| component.as_os_str()).peekable();
        while let Some(name) = names.next() {
            walked.push(name);
            let is_directory = names.peek().is_some();
            let entry = match open(&walked) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                    make_entry(&directory, name, is_directory)
                        .map_err(|source| PlaceError::Make { at: Path::new("/dev").join(&walked), source })?;
                    open(&walked)
                }
                // The engine has mounted a device there already.
                Err(error) if error.raw_os_error() == Some(libc::EXDEV) && !is_directory => self.find(path),
                other => other,
            };
            directory = entry.map_err(PlaceError::Reach)?;
            fits(&FileFacts::of(&directory).map_err(PlaceError::Reach)?, is_directory)?;
        }
        Ok(directory)
    }

    /// Finds the file at `path`: as root on the container's own file system, as the user where another mount begins.
    fn lookup_target(&self, path: &Path, user: &UserIds, rules: Rules<'_>) -> io::Result<Located> {
        match self.resolve(path, OFlag::O_PATH, ResolveFlag::RESOLVE_NO_XDEV) {
            Err(error) if error.raw_os_error() == Some(libc::EXDEV) => {
                let found = self.ask(user, &[self.directory.as_fd()], || {
                    let file = self.find(path)?;
                    Ok(Answer::of(&FileFacts::of(&file)?)?.with(file))
                })?;
                let facts: FileFacts = found.value()?;
                Ok(Located { facts, file: found.into_file()?, is_own: rules.volumes.contains(&facts.mount) })
            }
            other => {
                let file = other?;
                Ok(Located { facts: FileFacts::of(&file)?, file, is_own: true })
            }
        }
    }

    /// Creates an empty file or directory at `path`, and the directories above it.
    fn create_target(
        &self,
        path: &Path,
        is_directory: bool,
        user: &UserIds,
        rules: Rules<'_>,
    ) -> Result<(), PlaceError> {
        let mut walked = PathBuf::from("/");
        let reached = |found: io::Result<Located>, at: &Path| found.map_err(|error| unreachable(error, at));
        let mut directory = reached(self.lookup_target(&walked, user, rules), &walked)?;
        let mut names = path.components().skip(1).map(|component| component.as_os_str()).peekable();
        while let Some(name) = names.next() {
            let above = walked.clone();
            walked.push(name);
            // Looked up from the root each time: a symlink in the image's tree may be absolute.
            let found = match self.lookup_target(&walked, user, rules) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                    let is_directory = is_directory || names.peek().is_some();
                    let made = if directory.is_own {
                        self.make_own_entry(&directory.file, &above, name, is_directory)
                    } else {
                        self.make_entry_as(user, &directory.file, name, is_directory)
                    };
                    made.map_err(|error| unmade(error, &walked))?;
                    self.lookup_target(&walked, user, rules)
                }
                other => other,
            };
            directory = reached(found, &walked)?;
        }
        Ok(())
    }

    /// Creates an entry on the container's own file system. Writes through another mount of it, since the
    /// container's may be read-only.
    fn make_own_entry(
        &self,
        directory: &OwnedFd,
        path: &Path,
        name: &OsStr,
        is_directory: bool,
    ) -> io::Result<()> {
        match make_entry(directory, name, is_directory) {
            Err(error) if error.raw_os_error() == Some(libc::EROFS) => {
                let writable = mount::detached_copy(&self.directory, false)?;
                mount::change(&writable, false, Attributes::NONE, Attributes::RDONLY)?;
                let directory = Self::at(writable).find_directory(path)?;
                make_entry(&directory, name, is_directory)
            }
            other => other,
        }
    }

    /// Creates one empty entry with a user's rights, in a directory whose file system the user may serve.
    fn make_entry_as(
        &self,
        user: &UserIds,
        directory: &OwnedFd,
        name: &OsStr,
        is_directory: bool,
    ) -> io::Result<()> {
        let work = || make_entry(directory, name, is_directory).map(|()| Answer::default());
        self.ask(user, &[directory.as_fd()], work).map(drop)
    }

    /// Whether a target is on a pseudo file system of the kernel, or on one of these mounts.
    fn is_systems(&self, place: &FileFacts, closed: &[&str]) -> io::Result<bool> {
        let is_on =
            |path: &str| self.find(Path::new(path)).and_then(|file| Ok(fstat(file)?.st_dev == place.device));
        for path in closed {
            if is_on(path)? {
                return Ok(true);
            }
        }
        Ok(place.is_invented)
    }
}

fn fits(place: &FileFacts, is_directory: bool) -> Result<(), PlaceError> {
    match (is_directory, place.is_directory) {
        (true, false) => Err(PlaceError::NotDirectory),
        (false, true) => Err(PlaceError::IsDirectory),
        _ => Ok(()),
    }
}

/// Creates one empty entry, with the rights of this process. An existing one counts as created.
fn make_entry(directory: &OwnedFd, name: &OsStr, is_directory: bool) -> io::Result<()> {
    // The daemon that started this process may have a umask that would close the entry to users.
    let umask = umask(Mode::from_bits_truncate(0o022));
    let made = if is_directory {
        mkdirat(directory, name, Mode::from_bits_truncate(0o755))
    } else {
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        openat(directory, name, flags, Mode::from_bits_truncate(0o644)).map(drop)
    };
    nix::sys::stat::umask(umask);
    match made {
        Err(Errno::EEXIST) => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::root::tests::{own, root};
    use super::*;

    #[test]
    fn nothing_is_made_outside_the_root_mount() {
        let host = ContainerRoot::current().unwrap();
        let name = format!("spank-docker-{}", std::process::id());
        // On every machine this is a file system of its own, as a job's working directory is in a container.
        let there = Path::new("/dev/shm").join(&name);
        assert_eq!(host.directory(&there).unwrap_err().raw_os_error(), Some(libc::EXDEV));
        assert!(!there.exists());
        let (directory, root) = root();
        symlink("b", directory.path().join("a")).unwrap();
        fs::create_dir(directory.path().join("b")).unwrap();
        root.create_target(Path::new("/a/c/file"), false, &own(), Rules::default()).unwrap();
        assert!(directory.path().join("b/c/file").is_file());
        // A dangling link is no target, and nothing is created where it leads.
        symlink("nowhere", directory.path().join("dangling")).unwrap();
        assert!(root.create_target(Path::new("/dangling"), false, &own(), Rules::default()).is_err());
        assert!(!directory.path().join("nowhere").exists());
    }
}

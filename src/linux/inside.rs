//! Paths inside a container, for root. An image may contain a symlink to /proc/1/root, which in the host's PID namespace leads
//! to the host: no function here follows one out. Every lookup is an openat2(2) with RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS
//! from the container's root, and every object is checked by descriptor before it is used.
//!
//! Mounts other than the container's own may be a file system that a user serves: there a child does the lookup, as the user,
//! and root accesses neither its paths nor its files.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, mkdirat, umask};
use nix::sys::statfs::{
    CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, FsType, PROC_SUPER_MAGIC, SYSFS_MAGIC, TMPFS_MAGIC,
};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat};
use serde::{Deserialize, Serialize};

use super::errand::{self, Answer, Errand};
use super::identity::UserIds;
use super::mount::{self, Attributes};

/// The root directory of a container, as a descriptor.
#[derive(Debug)]
pub struct ContainerRoot {
    directory: OwnedFd,
    /// When to stop waiting for users' file systems.
    deadline: Instant,
}

/// The mode of /tmp.
const SHARED: Mode = Mode::S_ISVTX.union(Mode::S_IRWXU).union(Mode::S_IRWXG).union(Mode::S_IRWXO);

/// How long a visit may wait for users' file systems in all. Each access has a limit of its own, but a path has hundreds of
/// parts, and a job many mounts.
const PATIENCE: Duration = Duration::from_secs(60);

impl ContainerRoot {
    /// The root directory of this process: meant for use right after joining a container's mount namespace.
    pub fn current() -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self::at(nix::fcntl::open("/", flags, Mode::empty())?))
    }

    fn at(directory: OwnedFd) -> Self {
        Self { directory, deadline: Instant::now() + PATIENCE }
    }

    /// Lets a child do `work` as `user`, with these descriptors.
    ///
    /// # Errors
    /// `ETIMEDOUT` when the file system does not answer, or all of them together take too long.
    fn ask(
        &self,
        user: &UserIds,
        files: &[BorrowedFd<'_>],
        work: impl FnOnce() -> io::Result<Answer>,
    ) -> io::Result<Answer> {
        match self.deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(Errno::ETIMEDOUT.into()),
            left => Errand::send(Some(user), files, work)?.wait(left.min(errand::PATIENCE)),
        }
    }

    /// Opens the file at `path`, for reference only (`O_PATH`).
    pub fn find(&self, path: &Path) -> io::Result<OwnedFd> {
        self.open(path, OFlag::O_PATH)
    }

    fn open(&self, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
        self.resolve(path, flags, ResolveFlag::empty())
    }

    fn resolve(&self, path: &Path, flags: OFlag, resolve: ResolveFlag) -> io::Result<OwnedFd> {
        // Today the first implies the second; openat2(2) asks callers that rely on it to name it.
        let inside = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(inside | resolve);
        Ok(openat2(&self.directory, relative(path), how)?)
    }

    /// A directory in which root may create entries: on the container's own root mount. Another mount may be a directory of the
    /// host to which the image has a link, such as the job's working directory; root creates nothing there.
    fn own_directory(&self, path: &Path) -> io::Result<OwnedFd> {
        self.resolve(path, OFlag::O_PATH | OFlag::O_DIRECTORY, ResolveFlag::RESOLVE_NO_XDEV)
    }

    /// The content of the regular file at `path`, at most `limit` bytes. `None` when there is no such file, when it is not a
    /// regular file of a real file system, or when it is larger.
    pub fn read(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        // O_NONBLOCK and the check before reading: an image may have a FIFO here, or a device.
        let found = match self.find(path) {
            Ok(found) => found,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        if !is_plain_file(&found)? {
            return Ok(None);
        }
        let file = self.open(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
        if !is_plain_file(&file)? {
            return Ok(None);
        }
        let mut content = Vec::new();
        File::from(file).take(limit + 1).read_to_end(&mut content)?;
        Ok((content.len() as u64 <= limit).then_some(content))
    }

    /// The names in the directory at `path` that are text.
    pub fn names(&self, path: &Path) -> io::Result<Vec<String>> {
        let directory = self.open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NONBLOCK)?;
        let mut directory = nix::dir::Dir::from_fd(directory)?;
        let names = directory.iter().map(|entry| Ok(entry?.file_name().to_str().map(str::to_owned).ok()));
        names.filter_map(io::Result::transpose).collect()
    }

    /// Whether `path` is a regular file that all users may execute.
    #[must_use]
    pub fn is_program(&self, path: &Path) -> bool {
        let Ok(found) = self.find(path) else { return false };
        is_plain_file(&found).unwrap_or(false) && fstat(&found).is_ok_and(|stat| stat.st_mode & 0o111 != 0)
    }

    /// Whether the file at `path` has other names too: a link leads there, or it is one of several.
    pub fn has_other_names(&self, path: &Path) -> io::Result<bool> {
        let stat = fstat(self.open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW)?)?;
        Ok(stat.st_mode & libc::S_IFMT == libc::S_IFLNK || stat.st_nlink > 1)
    }

    /// Whether `user` can enter `path`, and it is a directory.
    ///
    /// # Errors
    /// `ETIMEDOUT` when its file system does not answer.
    pub fn is_directory_for(&self, path: &Path, user: &UserIds) -> io::Result<bool> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let found = self.ask(user, &[self.directory.as_fd()], || {
            let directory = self.open(path, flags);
            let entered =
                directory.and_then(|here| Ok(openat(&here, ".", flags | OFlag::O_CLOEXEC, Mode::empty())?));
            Answer::of(&entered.is_ok())
        });
        found?.value()
    }

    /// The directory at `path`, created with those above it when absent. Created ones are root's, mode 0755; none is created
    /// outside the container's own root mount (`EXDEV`).
    pub fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let mut directory = self.find(Path::new("/"))?;
        let mut walked = std::path::PathBuf::from("/");
        for component in path.components() {
            let name: &OsStr = match component {
                Component::RootDir | Component::CurDir => continue,
                Component::Normal(name) => name,
                Component::ParentDir | Component::Prefix(_) => return Err(io::Error::from(Errno::EINVAL)),
            };
            let above = walked.clone();
            walked.push(name);
            // Looked up from the root each time: a symlink in the image's tree may be absolute.
            directory = match self.open(&walked, OFlag::O_PATH | OFlag::O_DIRECTORY) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                    match mkdirat(self.own_directory(&above)?, name, Mode::from_bits_truncate(0o755)) {
                        Ok(()) | Err(Errno::EEXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                    self.open(&walked, OFlag::O_PATH | OFlag::O_DIRECTORY)?
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

    /// The same for a directory that may be absent: returns whether it exists.
    pub fn share_existing(&self, path: &Path, volumes: &[u64]) -> io::Result<bool> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NONBLOCK;
        let directory = match self.resolve(path, flags, ResolveFlag::RESOLVE_NO_XDEV) {
            Err(error) if error.raw_os_error() == Some(libc::EXDEV) => {
                let place = self.open(path, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
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

    /// The same below /dev, for a device node: on the tmpfs that the engine has mounted there, and through no link.
    pub fn place_in_dev(&self, path: &Path) -> Result<OwnedFd, PlaceError> {
        let below = path.strip_prefix("/dev").map_err(|_| PlaceError::System)?;
        let dev =
            self.open(Path::new("/dev"), OFlag::O_PATH | OFlag::O_DIRECTORY).map_err(PlaceError::Reach)?;
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
                // A device that the engine has bound there already.
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
                        self.copy_into_tmpfs(&directory.file, &above, name, is_directory)
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

    /// Creates an entry on the container's own file system, also when its mount is read-only: through another mount of it.
    fn copy_into_tmpfs(
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
                let directory = Self::at(writable).open(path, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
                make_entry(&directory, name, is_directory)
            }
            other => other,
        }
    }

    /// Creates one empty entry with a user's rights, in a directory of a file system that may be the user's too.
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

    /// Whether a place is on a pseudo file system of the kernel, or on one of these mounts.
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

/// Special mounts of a container, for lookups in it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules<'a> {
    /// No place may be on these mounts.
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

/// The facts about a file that the plugin uses.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct FileFacts {
    is_directory: bool,
    device: u64,
    mount: u64,
    is_invented: bool,
}

impl FileFacts {
    fn of(file: &OwnedFd) -> io::Result<Self> {
        let stat = fstat(file)?;
        Ok(Self {
            is_directory: SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR,
            device: stat.st_dev,
            mount: mount::id(file)?,
            is_invented: INVENTED.contains(&mount::file_system_type(file)?),
        })
    }
}

/// Why a place cannot be mounted on.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// A directory is there, but the source is none.
    #[error("it is a directory")]
    IsDirectory,
    /// No directory is there, but the source is one.
    #[error("it is not a directory")]
    NotDirectory,
    /// It leads into the container's own system.
    #[error("it resolves to a path of the container's own system")]
    System,
    /// Its file system does not answer.
    #[error("'{}' does not answer", at.display())]
    Silent {
        /// The path of the lookup.
        at: PathBuf,
    },
    /// It cannot be looked up.
    #[error("it cannot be looked up")]
    Reach(#[source] io::Error),
    /// It is missing, and cannot be created.
    #[error("cannot create '{}'", at.display())]
    Make {
        /// The part of the path that is missing.
        at: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

fn unreachable(error: io::Error, at: &Path) -> PlaceError {
    match error.raw_os_error() {
        Some(libc::ETIMEDOUT) => PlaceError::Silent { at: at.to_owned() },
        _ => PlaceError::Reach(error),
    }
}

fn unmade(error: io::Error, at: &Path) -> PlaceError {
    match error.raw_os_error() {
        Some(libc::ETIMEDOUT) => PlaceError::Silent { at: at.to_owned() },
        _ => PlaceError::Make { at: at.to_owned(), source: error },
    }
}

fn fits(place: &FileFacts, is_directory: bool) -> Result<(), PlaceError> {
    match (is_directory, place.is_directory) {
        (true, false) => Err(PlaceError::NotDirectory),
        (false, true) => Err(PlaceError::IsDirectory),
        _ => Ok(()),
    }
}

/// Creates one empty entry, with the rights of this process. An existing one is as good.
fn make_entry(directory: &OwnedFd, name: &OsStr, is_directory: bool) -> io::Result<()> {
    // Whatever daemon started this process may have a umask with which users could not pass.
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

/// Creates a directory for a user alone, where no entry may have that name yet.
pub fn new_directory(directory: &OwnedFd, name: &OsStr, user: &UserIds) -> io::Result<OwnedFd> {
    mkdirat(directory, name, Mode::S_IRWXU)?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = openat(directory, name, flags, Mode::empty())?;
    fchown(&made, Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)))?;
    Ok(made)
}

/// Whether this is a character device.
pub fn is_device(file: impl AsFd) -> io::Result<bool> {
    Ok(fstat(file)?.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits())
}

/// Pseudo file systems of the kernel.
const INVENTED: [FsType; 4] = [PROC_SUPER_MAGIC, SYSFS_MAGIC, CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC];

/// A regular file, and not on a pseudo file system (a symlink in the image may lead to /proc or /sys).
fn is_plain_file(file: impl AsFd) -> io::Result<bool> {
    let kind = SFlag::from_bits_truncate(fstat(&file)?.st_mode) & SFlag::S_IFMT;
    Ok(kind == SFlag::S_IFREG && !INVENTED.contains(&mount::file_system_type(&file)?))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::EXDEV))
}

fn relative(path: &Path) -> &Path {
    match path.strip_prefix("/") {
        Ok(rest) if rest.as_os_str().is_empty() => Path::new("."),
        Ok(rest) => rest,
        Err(_) => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::lacking;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// A directory as a container's root.
    fn root() -> (tempfile::TempDir, ContainerRoot) {
        let directory = tempfile::tempdir().unwrap();
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = ContainerRoot::at(nix::fcntl::open(directory.path(), flags, Mode::empty()).unwrap());
        (directory, root)
    }

    /// The user who runs the tests.
    fn own() -> UserIds {
        let groups = nix::unistd::getgroups().unwrap().into_iter().map(nix::unistd::Gid::as_raw).collect();
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        UserIds { uid, gid, groups }
    }

    /// Each access gets an answer in time, and there is always one more.
    #[test]
    fn users_file_systems_are_not_waited_for_any_longer_than_a_visit_may_last() {
        if lacking::root() {
            return;
        }
        let (_directory, mut root) = root();
        let look = |root: &ContainerRoot| {
            root.is_directory_for(Path::new("/"), &own()).map_err(|e| e.raw_os_error())
        };
        assert_eq!(look(&root), Ok(true));
        root.deadline = Instant::now();
        assert_eq!(look(&root), Err(Some(libc::ETIMEDOUT)));
    }

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
        // Another mount stays unchanged.
        let host = ContainerRoot::current().unwrap();
        let mode = fs::metadata("/sys").unwrap().permissions().mode();
        assert!(host.share_existing(Path::new("/sys"), &[]).unwrap());
        assert_eq!(fs::metadata("/sys").unwrap().permissions().mode(), mode);
    }

    #[test]
    fn links_do_not_lead_out() {
        let (directory, root) = root();
        fs::create_dir(directory.path().join("etc")).unwrap();
        fs::write(directory.path().join("etc/passwd"), "inside").unwrap();
        for (name, link) in [("absolute", "/etc/passwd"), ("up", "../../../../../../../../etc/passwd")] {
            symlink(link, directory.path().join(name)).unwrap();
            assert_eq!(root.read(Path::new(name), 100).unwrap().as_deref(), Some(&b"inside"[..]), "{name}");
        }
        // A bind mount would show the host's /proc there; the test is about following the links of /proc.
        let host = ContainerRoot::current().unwrap();
        let rules = Rules { closed: &["/dev"], volumes: &[] };
        for path in ["/proc/self/root/etc/passwd", "/proc/self/cwd/Cargo.toml", "/proc/self/exe"] {
            assert_eq!(host.read(Path::new(path), 1 << 20).unwrap(), None, "{path}");
            assert!(host.find(Path::new(path)).is_err(), "{path}");
            assert!(host.resolve_target(Path::new(path), false, &own(), rules).is_err(), "{path}");
        }
    }

    #[test]
    fn non_regular_file_in_the_image_is_read_as_absent() {
        let (directory, root) = root();
        let path = |name| directory.path().join(name);
        nix::unistd::mkfifo(&path("fifo"), Mode::from_bits_truncate(0o666)).unwrap();
        fs::create_dir(path("directory")).unwrap();
        File::create(path("huge")).unwrap().set_len(1 << 30).unwrap();
        symlink("loop", path("loop")).unwrap();
        symlink("nowhere", path("dangling")).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        for name in ["fifo", "directory", "huge", "loop", "dangling", "socket", "absent", "fifo/below"] {
            assert_eq!(root.read(Path::new(name), 1 << 20).unwrap(), None, "{name}");
            assert!(!root.is_program(Path::new(name)), "{name}");
        }
        assert!(!path("nowhere").exists());
        // A file of a pseudo file system is no file of an image.
        let host = ContainerRoot::current().unwrap();
        for path in ["/proc/version", "/sys/kernel/uevent_seqnum"] {
            assert_eq!(host.read(Path::new(path), 1 << 20).unwrap(), None, "{path}");
        }
    }

    #[test]
    fn nothing_is_made_outside_the_root_mount() {
        let host = ContainerRoot::current().unwrap();
        let name = format!("spank-docker-{}", std::process::id());
        // A file system of its own on every machine, as a job's working directory is in a container.
        let there = Path::new("/dev/shm").join(&name);
        assert_eq!(host.directory(&there).unwrap_err().raw_os_error(), Some(libc::EXDEV));
        assert!(!there.exists());
        let (directory, root) = root();
        symlink("b", directory.path().join("a")).unwrap();
        fs::create_dir(directory.path().join("b")).unwrap();
        root.create_target(Path::new("/a/c/file"), false, &own(), Rules::default()).unwrap();
        assert!(directory.path().join("b/c/file").is_file());
        // A dangling link is no place, and nothing is created at its target.
        symlink("nowhere", directory.path().join("dangling")).unwrap();
        assert!(root.create_target(Path::new("/dangling"), false, &own(), Rules::default()).is_err());
        assert!(!directory.path().join("nowhere").exists());
    }
}

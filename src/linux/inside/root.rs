//! A container's root directory: the lookups from it, and what is read of an image's files. Apart because the files beside it
//! look up through it, and it changes nothing.
//!
//! Runs as root in the container's mount namespace, and in tasks.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::statvfs::fstatvfs;

use super::facts::{is_plain_file, kind};
use crate::linux::errand::{self, Answer, Errand};
use crate::linux::identity::UserIds;

/// The root directory of a container, as a descriptor.
#[derive(Debug)]
pub struct ContainerRoot {
    pub(super) directory: OwnedFd,
    /// When to stop waiting for users' file systems.
    deadline: Instant,
}

/// How long all accesses to users' file systems may take together. Each access has a limit of its own, but a
/// path may have hundreds of parts, and a job many mounts.
const PATIENCE: Duration = Duration::from_secs(60);

impl ContainerRoot {
    /// The root directory of this process: meant for use right after joining a container's mount namespace.
    pub fn current() -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self::at(nix::fcntl::open("/", flags, Mode::empty())?))
    }

    pub(super) fn at(directory: OwnedFd) -> Self {
        Self { directory, deadline: Instant::now() + PATIENCE }
    }

    /// Lets a child do `work` as `user`, with these descriptors.
    ///
    /// # Errors
    /// `ETIMEDOUT` when the file system does not answer, or all accesses together take too long.
    pub(super) fn ask(
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

    /// How many bytes the file system at `path` has, or how many are allowed where a quota holds for that directory
    /// (fs/xfs/xfs_qm_bhv.c, `xfs_fill_statvfs_from_dquot`).
    pub fn size_of_file_system(&self, path: &Path) -> io::Result<u64> {
        let found = fstatvfs(self.find(path)?)?;
        Ok(found.blocks().saturating_mul(found.fragment_size()))
    }

    /// Opens the file at `path`, for reference only (`O_PATH`).
    pub fn find(&self, path: &Path) -> io::Result<OwnedFd> {
        self.open(path, OFlag::O_PATH)
    }

    /// The same as [`Self::find`] for a directory.
    pub(super) fn find_directory(&self, path: &Path) -> io::Result<OwnedFd> {
        self.open(path, OFlag::O_PATH | OFlag::O_DIRECTORY)
    }

    pub(super) fn open(&self, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
        self.resolve(path, flags, ResolveFlag::empty())
    }

    pub(super) fn resolve(&self, path: &Path, flags: OFlag, resolve: ResolveFlag) -> io::Result<OwnedFd> {
        // Today the first flag implies the second; openat2(2) asks callers that rely on it to pass both.
        let inside = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(inside | resolve);
        Ok(openat2(&self.directory, relative(path), how)?)
    }

    /// The content of the regular file at `path`, at most `limit` bytes. `None` when there is no such file, when it is not a
    /// regular file of a real file system, or when it is larger.
    pub fn read(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        // O_NONBLOCK, and the check before reading: an image may have a FIFO or a device here.
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

    /// The names in the directory at `path`, without those that are not UTF-8.
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

    /// Where the links at `path` end. The kernel looks up each step from this root: none leads out.
    pub fn end_of_links(&self, path: &Path) -> io::Result<PathBuf> {
        // As many as the kernel itself follows: include/linux/namei.h, `MAXSYMLINKS`.
        const MOST: usize = 40;
        let mut path = path.to_owned();
        for _ in 0..MOST {
            let found = self.open(&path, OFlag::O_PATH | OFlag::O_NOFOLLOW)?;
            if kind(&fstat(&found)?) != SFlag::S_IFLNK {
                return Ok(path);
            }
            let target = readlinkat(&found, "")?;
            path = path.parent().unwrap_or(Path::new("/")).join(target);
        }
        Err(Errno::ELOOP.into())
    }

    /// Whether the file at `path` has other names too: `path` is a symlink, or the file has several hard links.
    pub fn has_other_names(&self, path: &Path) -> io::Result<bool> {
        let stat = fstat(self.open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW)?)?;
        Ok(kind(&stat) == SFlag::S_IFLNK || stat.st_nlink > 1)
    }

    /// Whether `path` is a directory, and no link, that the mode lets others enter.
    #[must_use]
    pub fn is_open_to_others(&self, path: &Path) -> bool {
        let found = self.open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW).and_then(|found| Ok(fstat(found)?));
        found.is_ok_and(|found| kind(&found) == SFlag::S_IFDIR && found.st_mode & libc::S_IXOTH != 0)
    }

    /// Whether `path` is a directory that `user` can enter.
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
}

pub(super) fn is_absent(error: &io::Error) -> bool {
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
pub(super) mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::Rules;
    use super::*;
    use crate::linux::lacking;

    /// A directory as a container's root.
    pub(in crate::linux::inside) fn root() -> (tempfile::TempDir, ContainerRoot) {
        let directory = tempfile::tempdir().unwrap();
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = ContainerRoot::at(nix::fcntl::open(directory.path(), flags, Mode::empty()).unwrap());
        (directory, root)
    }

    /// The user who runs the tests.
    pub(in crate::linux::inside) fn own() -> UserIds {
        let groups = nix::unistd::getgroups().unwrap().into_iter().map(nix::unistd::Gid::as_raw).collect();
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        UserIds { uid, gid, groups }
    }

    /// Each access is answered in time, and another one always follows.
    #[test]
    fn accesses_to_users_file_systems_share_one_time_limit() {
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
    fn links_do_not_lead_out() {
        let (directory, root) = root();
        fs::create_dir(directory.path().join("etc")).unwrap();
        fs::write(directory.path().join("etc/passwd"), "inside").unwrap();
        for (name, link) in [("absolute", "/etc/passwd"), ("up", "../../../../../../../../etc/passwd")] {
            symlink(link, directory.path().join(name)).unwrap();
            assert_eq!(root.read(Path::new(name), 100).unwrap().as_deref(), Some(&b"inside"[..]), "{name}");
        }
        // A bind mount would show the host's /proc there, and the test follows the links of /proc.
        let host = ContainerRoot::current().unwrap();
        let rules = Rules { closed: &["/dev"], volumes: &[] };
        for path in ["/proc/self/root/etc/passwd", "/proc/self/cwd/Cargo.toml", "/proc/self/exe"] {
            assert_eq!(host.read(Path::new(path), 1 << 20).unwrap(), None, "{path}");
            assert!(host.find(Path::new(path)).is_err(), "{path}");
            assert!(host.resolve_target(Path::new(path), false, &own(), rules).is_err(), "{path}");
        }
    }

    #[test]
    fn links_are_followed_to_their_end_within_the_root() {
        let (directory, root) = root();
        for (name, link) in [
            ("bin", "usr/bin"),
            ("usr/bin/ssh", "/etc/alternatives/ssh"),
            ("etc/alternatives/ssh", "../../../../bin/ssh.openssh"),
            ("usr/bin/up", "../lib"),
            ("usr/bin/loop", "loop"),
        ] {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(link, path).unwrap();
        }
        fs::write(directory.path().join("usr/bin/ssh.openssh"), "").unwrap();
        fs::create_dir(directory.path().join("usr/lib")).unwrap();
        let end = |path: &str| {
            let end = root.end_of_links(Path::new(path)).map_err(|error| error.raw_os_error())?;
            Ok((end.file_name().unwrap().to_str().unwrap().to_owned(), root.find(&end).is_ok()))
        };
        assert_eq!(end("/usr/bin/ssh"), Ok(("ssh.openssh".to_owned(), true)));
        assert_eq!(end("/usr/bin/ssh.openssh"), Ok(("ssh.openssh".to_owned(), true)));
        assert_eq!(end("/bin/up"), Ok(("lib".to_owned(), true)));
        assert_eq!(end("/bin/loop"), Err(Some(libc::ELOOP)));
        assert_eq!(end("/bin/absent"), Err(Some(libc::ENOENT)));
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
        // A file of a pseudo file system is not read as a file of the image.
        let host = ContainerRoot::current().unwrap();
        for path in ["/proc/version", "/sys/kernel/uevent_seqnum"] {
            assert_eq!(host.read(Path::new(path), 1 << 20).unwrap(), None, "{path}");
        }
    }
}

//! Paths inside a container, for root. An image may hold a symlink to /proc/1/root, which in the host's PID namespace
//! leads to the host: nothing here follows one out. Every lookup is an openat2(2) with RESOLVE_IN_ROOT and
//! RESOLVE_NO_MAGICLINKS from the container's root, and every object is checked by descriptor before it is used.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, FsType, PROC_SUPER_MAGIC, SYSFS_MAGIC};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::mount;

/// The root directory of a container, as a descriptor.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// The root directory of this process: meant for use right after joining a container's mount namespace.
    pub fn current() -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self(nix::fcntl::open("/", flags, Mode::empty())?))
    }

    /// Opens what is at `path`, for reference only (`O_PATH`).
    pub fn find(&self, path: &Path) -> io::Result<OwnedFd> {
        self.open(path, OFlag::O_PATH)
    }

    fn open(&self, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
        self.resolve(path, flags, ResolveFlag::empty())
    }

    fn resolve(&self, path: &Path, flags: OFlag, resolve: ResolveFlag) -> io::Result<OwnedFd> {
        let inside = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(inside | resolve);
        Ok(openat2(&self.0, relative(path), how)?)
    }

    /// A directory in which something may be made: on the container's own root mount. What is mounted elsewhere may be
    /// a directory of the host that the image has a link to, such as the job's working directory; root makes nothing there.
    fn own_directory(&self, path: &Path) -> io::Result<OwnedFd> {
        self.resolve(path, OFlag::O_PATH | OFlag::O_DIRECTORY, ResolveFlag::RESOLVE_NO_XDEV)
    }

    /// The content of the regular file at `path`, at most `limit` bytes. `None` when there is no such file, when it is
    /// something else than a regular file of a real file system, or when it is larger.
    pub fn read(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        // O_NONBLOCK and the check before reading: an image may hold a FIFO here, or a device.
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

    /// Whether `path` is a regular file that anybody may execute.
    #[must_use]
    pub fn is_program(&self, path: &Path) -> bool {
        let Ok(found) = self.find(path) else { return false };
        is_plain_file(&found).unwrap_or(false) && fstat(&found).is_ok_and(|stat| stat.st_mode & 0o111 != 0)
    }

    /// Whether `path` is a directory.
    #[must_use]
    pub fn is_directory(&self, path: &Path) -> bool {
        self.open(path, OFlag::O_PATH | OFlag::O_DIRECTORY).is_ok()
    }

    /// The regular file at `path`, for a mount on top of it; made, empty, with the directories above it, when absent.
    /// Nothing is made outside the container's own root mount (`EXDEV`).
    pub fn file_to_mount_on(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.find(path) {
            Ok(found) if is_plain_file(&found)? => return Ok(found),
            Ok(_) => return Err(io::Error::other("not a regular file")),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::from(Errno::EISDIR));
        };
        self.directory(directory)?;
        let directory = self.own_directory(directory)?;
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        Ok(nix::fcntl::openat(&directory, name, flags, Mode::from_bits_truncate(0o644))?)
    }

    /// The directory at `path`, made with those above it when absent. Made ones are root's, mode 0755; none is made
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

    /// Removes an empty directory of the root directory, by its name.
    pub fn remove_directory(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.0, name, UnlinkatFlags::RemoveDir)?)
    }
}

/// A regular file, and not one that the kernel invents (a symlink in the image may lead to /proc or /sys).
fn is_plain_file(file: impl AsFd) -> io::Result<bool> {
    const INVENTED: [FsType; 4] = [PROC_SUPER_MAGIC, SYSFS_MAGIC, CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC];
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
    use std::fs;
    use std::os::unix::fs::symlink;

    /// A directory as a container's root.
    fn root() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = Root(nix::fcntl::open(directory.path(), flags, Mode::empty()).unwrap());
        (directory, root)
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
        // A bind mount would show the host's /proc there; the links of /proc are what must not be followed.
        let host = Root::current().unwrap();
        for path in ["/proc/self/root/etc/passwd", "/proc/self/cwd/Cargo.toml", "/proc/self/exe"] {
            assert_eq!(host.read(Path::new(path), 1 << 20).unwrap(), None, "{path}");
            assert!(host.find(Path::new(path)).is_err(), "{path}");
            assert!(host.file_to_mount_on(Path::new(path)).is_err(), "{path}");
        }
    }

    #[test]
    fn what_is_no_plain_file_counts_as_absent() {
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
        for name in ["fifo", "directory", "loop", "dangling", "socket", "fifo/below"] {
            assert!(root.file_to_mount_on(Path::new(name)).is_err(), "{name}");
        }
        assert!(!path("nowhere").exists());
        // What the kernel invents is no file of an image.
        let host = Root::current().unwrap();
        for path in ["/proc/version", "/sys/kernel/uevent_seqnum"] {
            assert_eq!(host.read(Path::new(path), 1 << 20).unwrap(), None, "{path}");
        }
    }

    #[test]
    fn nothing_is_made_outside_the_root_mount() {
        let host = Root::current().unwrap();
        let name = format!("spank-docker-{}", std::process::id());
        // A file system of its own on every machine, as a job's working directory is in a container.
        let there = Path::new("/dev/shm").join(&name);
        for made in [host.directory(&there), host.file_to_mount_on(&there)] {
            assert_eq!(made.unwrap_err().raw_os_error(), Some(libc::EXDEV));
        }
        assert!(!there.exists());
        let (directory, root) = root();
        symlink("b", directory.path().join("a")).unwrap();
        fs::create_dir(directory.path().join("b")).unwrap();
        root.file_to_mount_on(Path::new("/a/c/file")).unwrap();
        assert!(directory.path().join("b/c/file").is_file());
    }
}

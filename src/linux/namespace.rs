//! The namespaces of a container's first process, and how to enter them.
//!
//! Runs as root, in single-threaded processes: in the prolog, which returns to its own namespaces, and in a
//! task before it becomes the user, which stays in the container's.
#![expect(unsafe_code, reason = "nix does not wrap the ioctls of namespaces")]

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::linux::fs::MetadataExt;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use serde::{Deserialize, Serialize};

use super::inside::ContainerRoot;
use super::process::Process;

/// The identity of namespaces: the inode numbers that the kernel gave them. It reuses a number when its namespace is gone,
/// which happens when all of its processes have left it: so the numbers identify only namespaces that no user can have made
/// (`Namespaces::of`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceIds {
    mount: u64,
    ipc: u64,
    uts: u64,
}

impl NamespaceIds {
    /// Whether a process has these mounts.
    pub fn are_mounts_of(&self, process: &Process) -> io::Result<bool> {
        Ok(process.open("ns/mnt")?.metadata()?.st_ino() == self.mount)
    }
}

/// Open mount, IPC and UTS namespaces of a process.
#[derive(Debug)]
pub struct Namespaces {
    mount: File,
    ipc: File,
    uts: File,
}

impl Namespaces {
    /// The namespaces of `process`. `None` unless they belong to this process' own user namespace: a user can
    /// make and enter others only below a user namespace of their own, where they have all rights and root must
    /// not go.
    pub fn of(process: &Process) -> io::Result<Option<Self>> {
        let own = fs::metadata("/proc/self/ns/user")?;
        let [mount, ipc, uts] = ["ns/mnt", "ns/ipc", "ns/uts"].map(|name| process.open(name));
        let namespaces = Self { mount: mount?, ipc: ipc?, uts: uts? };
        for namespace in [&namespaces.mount, &namespaces.ipc, &namespaces.uts] {
            if !is_same(&owner(namespace)?.metadata()?, &own) {
                return Ok(None);
            }
        }
        Ok(Some(namespaces))
    }

    /// The namespaces of a process that has executed no program of an image yet: the engine made them.
    pub fn as_made(process: &Process) -> io::Result<Self> {
        Self::of(process)?.ok_or_else(|| io::Error::other("they belong to another user namespace"))
    }

    /// The namespaces of the node's first process, if it has other mounts than this process, and if they can be
    /// entered.
    #[must_use]
    pub fn of_node() -> Option<Self> {
        let node = Self::of(&Process::find(1).ok()?).ok()??;
        let own = fs::metadata("/proc/self/ns/mnt").ok()?;
        (!is_same(&node.mount.metadata().ok()?, &own)).then_some(node)
    }

    /// The identity of these namespaces.
    pub fn ids(&self) -> io::Result<NamespaceIds> {
        Ok(NamespaceIds {
            mount: self.mount.metadata()?.st_ino(),
            ipc: self.ipc.metadata()?.st_ino(),
            uts: self.uts.metadata()?.st_ino(),
        })
    }

    /// Enters all three for good. The root and the working directory become the container's root directory.
    pub fn join(&self) -> io::Result<()> {
        setns(&self.uts, CloneFlags::CLONE_NEWUTS)?;
        setns(&self.ipc, CloneFlags::CLONE_NEWIPC)?;
        setns(&self.mount, CloneFlags::CLONE_NEWNS)?;
        Ok(())
    }

    /// Enters the mount namespace, runs `work` with its root directory, and returns to the previous one.
    pub fn in_mount_namespace<T>(&self, work: impl FnOnce(&ContainerRoot) -> T) -> io::Result<T> {
        let home = Home(File::open("/proc/self/ns/mnt")?);
        // setns(2) refuses a thread that shares its root and working directory with others.
        unshare(CloneFlags::CLONE_FS)?;
        setns(&self.mount, CloneFlags::CLONE_NEWNS)?;
        let result = ContainerRoot::current().map(|root| work(&root));
        drop(home);
        result
    }
}

/// The mount namespace to return to in any case.
struct Home(File);

impl Drop for Home {
    fn drop(&mut self) {
        if setns(&self.0, CloneFlags::CLONE_NEWNS).is_err() {
            // Code that runs next, of the plugin, of Slurm or of another plugin, would run as root among the
            // image's files.
            std::process::abort();
        }
    }
}

/// The user namespace that owns a namespace (ioctl_nsfs(2)). The kernel refuses to show one that is neither this process' own
/// nor below it (EPERM).
fn owner(namespace: &File) -> io::Result<File> {
    // SAFETY: a valid descriptor; this request has no argument.
    let result = unsafe { libc::ioctl(namespace.as_raw_fd(), libc::NS_GET_USERNS) };
    let descriptor = Errno::result(result).map_err(io::Error::from)?;
    // SAFETY: a new descriptor that nothing else owns.
    Ok(unsafe { File::from_raw_fd(descriptor) })
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.st_dev(), one.st_ino()) == (other.st_dev(), other.st_ino())
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::process::{Child, Command};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::linux::lacking::skip;
    use crate::linux::poll;

    /// A process in namespaces of its own, once it is there; `None` where the tests do not run as root.
    fn elsewhere(flags: &str) -> Option<(Child, Process)> {
        let own = fs::metadata("/proc/self/ns/mnt").unwrap();
        let mut child =
            Command::new("unshare").args([flags, "--mount", "--", "sleep", "60"]).spawn().unwrap();
        let process = Process::find(i32::try_from(child.id()).unwrap()).unwrap();
        let is_there = || {
            let namespace = process.open("ns/mnt").and_then(|namespace| namespace.metadata());
            namespace.is_ok_and(|theirs| !is_same(&theirs, &own))
        };
        // `None`: the process is not there yet.
        let look = || if is_there() { Some(true) } else { child.try_wait().unwrap().map(|_| false) };
        let deadline = Instant::now() + Duration::from_secs(10);
        if poll::until(deadline, Duration::from_millis(5), look, Option::is_some) == Some(true) {
            return Some((child, process));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        None
    }

    #[test]
    fn namespaces_of_a_user_namespace_are_not_opened() {
        let Some((mut child, process)) = elsewhere("--user") else { return skip("user namespaces") };
        let namespaces = Namespaces::of(&process);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(namespaces.unwrap().is_none());
    }

    #[test]
    fn in_mount_namespace_comes_back_from_a_panic() {
        let Some((mut child, process)) = elsewhere("--ipc") else { return skip("root") };
        let here = || fs::read_link("/proc/thread-self/ns/mnt").unwrap();
        let (home, namespaces) = (here(), Namespaces::of(&process).unwrap().unwrap());
        let mut there = None;
        let visited = catch_unwind(AssertUnwindSafe(|| {
            namespaces.in_mount_namespace(|_| {
                there = Some(here());
                panic!("in a visit");
            })
        }));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(visited.is_err());
        assert_ne!(there.as_ref(), Some(&home));
        assert_eq!(here(), home);
    }
}

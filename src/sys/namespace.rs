//! The namespaces of a container's first process, and how to enter them.
//!
//! Runs as root, in single-threaded processes: in the prolog, which comes back, and in a task before it becomes the
//! user, which stays.

use std::fs::File;
use std::io;
use std::os::linux::fs::MetadataExt;

use nix::sched::{CloneFlags, setns, unshare};
use serde::{Deserialize, Serialize};

use super::inside::Root;
use super::process::Process;

/// Which namespaces they are: the inode numbers that the kernel gave them. A container that died and a stranger that
/// got its pid cannot both match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceIds {
    mount: u64,
    ipc: u64,
    uts: u64,
}

/// Open mount, IPC and UTS namespaces of a process.
#[derive(Debug)]
pub struct Namespaces {
    mount: File,
    ipc: File,
    uts: File,
}

impl Namespaces {
    /// Those of `process`.
    pub fn of(process: &Process) -> io::Result<Self> {
        Ok(Self {
            mount: process.open("ns/mnt")?,
            ipc: process.open("ns/ipc")?,
            uts: process.open("ns/uts")?,
        })
    }

    /// What identifies them.
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

    /// Enters the mount namespace, runs `work` with its root directory, and comes back.
    pub fn visit<T>(&self, work: impl FnOnce(&Root) -> T) -> io::Result<T> {
        let home = File::open("/proc/self/ns/mnt")?;
        // setns(2) refuses a thread that shares its root and working directory with others.
        unshare(CloneFlags::CLONE_FS)?;
        setns(&self.mount, CloneFlags::CLONE_NEWNS)?;
        let result = Root::current().map(|root| work(&root));
        setns(&home, CloneFlags::CLONE_NEWNS)?;
        result
    }
}

//! The privileges that a task gives up before it becomes the user, and its limits.
//!
//! Runs as root in the forked child that becomes the task.
#![expect(unsafe_code, reason = "setrlimit with values beyond what nix's type carries, _exit")]

use std::io;

use caps::{CapSet, CapsHashSet};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};

/// From here on execve(2) adds no privilege: setuid-root programs and file capabilities of the image have no effect, and every
/// capability is gone as soon as the process has become the user.
pub fn renounce() -> io::Result<()> {
    nix::sys::prctl::set_no_new_privs()?;
    // The kernel does that too when root becomes a user, unless SECBIT_NO_SETUID_FIXUP is set.
    caps::clear(None, CapSet::Ambient).map_err(io::Error::other)?;
    // Only those that this kernel knows: dropping an unknown one is an error.
    for capability in caps::read(None, CapSet::Bounding).map_err(io::Error::other)? {
        caps::drop(None, CapSet::Bounding, capability).map_err(io::Error::other)?;
    }
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new()).map_err(io::Error::other)
}

/// The umask for root's files; dropping this restores the process' own.
#[derive(Debug)]
pub struct Umask(Mode);

impl Umask {
    /// With this umask, files of the plugin get exactly the modes that it passes.
    #[must_use]
    pub fn of_root() -> Self {
        Self(umask(Mode::from_bits_truncate(0o022)))
    }
}

impl Drop for Umask {
    fn drop(&mut self) {
        umask(self.0);
    }
}

/// How the soft limit changes with the hard one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Soft {
    /// It stays, unless the hard limit is lower.
    Stays,
    /// It equals the hard limit.
    Follows,
}

/// Sets the hard limit, in bytes; `None` is unlimited.
pub fn limit(resource: Resource, bytes: Option<u64>, soft: Soft) -> io::Result<()> {
    let hard = bytes.unwrap_or(libc::RLIM_INFINITY);
    let soft = match soft {
        Soft::Follows => hard,
        Soft::Stays => getrlimit(resource)?.0.min(hard),
    };
    Ok(setrlimit(resource, soft, hard)?)
}

/// Ends this process at once, without any handler of Slurm: for a forked child that must not go on.
pub fn leave(code: i32) -> ! {
    // SAFETY: async-signal-safe, and always available.
    unsafe { libc::_exit(code) }
}

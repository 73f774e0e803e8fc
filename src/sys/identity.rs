//! Acting with the user's rights for one system call or two: what the user cannot open, root does not open for them.
//!
//! Runs as root in single-threaded processes (prolog, task before it becomes the user).

use std::io;

use nix::unistd::{Gid, Uid, getegid, geteuid, getgroups, setegid, seteuid, setgroups};
use serde::{Deserialize, Serialize};

/// The numbers that the kernel decides by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups.
    pub groups: Vec<u32>,
}

/// Runs `work` with the effective user and groups of `user`, and becomes root again. The real user id stays root's, so
/// that the user can neither signal nor trace this process meanwhile.
///
/// # Errors
/// When the change fails; when the way back fails, which a process must not survive as root in name only.
pub fn as_user<T>(user: &Credentials, work: impl FnOnce() -> T) -> io::Result<T> {
    let (uid, gid, groups) = (geteuid(), getegid(), getgroups()?);
    let theirs: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
    let result = (|| {
        setgroups(&theirs)?;
        setegid(Gid::from_raw(user.gid))?;
        seteuid(Uid::from_raw(user.uid))?;
        Ok(work())
    })();
    seteuid(uid)?;
    setegid(gid)?;
    setgroups(&groups)?;
    result
}

//! A process' identity for the kernel, and how a child of root takes a user's.

use std::io;

use caps::{CapSet, CapsHashSet};
use nix::sys::prctl::{set_dumpable, set_keepcaps, set_no_new_privs};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use serde::{Deserialize, Serialize};

/// The ids by which the kernel decides on access.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserIds {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups.
    pub groups: Vec<u32>,
}

/// Makes this process the user's, without a way back; only its memory stays protected as root's.
///
/// # Errors
/// When a step fails, the process is partly root's and partly the user's, and must end.
pub fn become_user(user: &UserIds) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups)?;
    setresgid(gid, gid, gid)?;
    // With fs.suid_dumpable=1 the user could read the memory of this process as soon as it has changed its ids,
    // unless it has capabilities that the user lacks (kernel: cap_ptrace_access_check): so the capabilities go
    // last.
    set_keepcaps(true)?;
    setresuid(uid, uid, uid)?;
    set_dumpable(false)?;
    if !uid.is_root() {
        for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
            caps::set(None, set, &CapsHashSet::new()).map_err(io::Error::other)?;
        }
    }
    set_no_new_privs()?;
    Ok(())
}

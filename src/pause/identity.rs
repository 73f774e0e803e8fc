//! Whether this process is the job's user with exactly their groups, and has no privileges, as the kernel says: for `--as`. Apart
//! because only this decides with which rights an image's ENTRYPOINT runs (`linux::rights`).

use super::strings::number;
use super::system_call::{arch, syscall};

/// The most groups that the kernel allows a process.
const NGROUPS: usize = 65536;
const PR_CAPBSET_READ: usize = 23;
const PR_GET_NO_NEW_PRIVS: usize = 39;
/// Number of bits in the kernel's sets of capabilities.
const CAPABILITIES: usize = 64;
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Whether this process has exactly the ids of the user `UID:GID:GROUP,…`. The primary group counts as one of the groups.
///
/// # Safety
/// `user` ends with a NUL. Called once: it has a static list.
pub unsafe fn is_user(user: *const u8) -> bool {
    static mut GROUPS: [u32; NGROUPS] = [0; NGROUPS];
    let groups = (&raw mut GROUPS).cast::<u32>();
    // SAFETY: the caller guarantees it; the kernel writes into a list of the length that it is told.
    unsafe {
        let (uid, behind) = id(user);
        let (gid, behind) = id(behind.add(usize::from(*behind == b':')));
        let mut list = behind.add(usize::from(*behind == b':'));
        if !has_ids(arch::GETRESUID, arch::SETFSUID, uid) || !has_ids(arch::GETRESGID, arch::SETFSGID, gid) {
            return false;
        }
        let count = syscall(arch::GETGROUPS, [NGROUPS, groups as usize]);
        let Ok(count) = usize::try_from(count) else { return false };
        let own = |at: usize| groups.add(at).read();
        if (0..count).any(|at| own(at) != gid && !lists(list, own(at))) {
            return false;
        }
        while (*list).is_ascii_digit() {
            let (group, behind) = id(list);
            if group != gid && !(0..count).any(|at| own(at) == group) {
                return false;
            }
            list = behind.add(usize::from(*behind == b','));
        }
        *list == 0
    }
}

/// Whether these ids, and the file system id, all equal `wanted`.
///
/// # Safety
/// `get` is getresuid(2) or getresgid(2), `set_for_files` setfsuid(2) or setfsgid(2).
unsafe fn has_ids(get: usize, set_for_files: usize, wanted: u32) -> bool {
    let mut ids = [0u32; 3];
    let ids = (&raw mut ids).cast::<u32>();
    // SAFETY: the caller guarantees it: one has room for three ids, the other sets no invalid id, and returns the current one.
    unsafe {
        let got = syscall(get, [ids as usize, ids.add(1) as usize, ids.add(2) as usize]);
        let for_files = syscall(set_for_files, [u32::MAX as usize]);
        got == 0
            && for_files == wanted as isize
            && (0..3).all(|at| ids.add(at).read_volatile() == wanted)
    }
}

/// Whether this process has no capability and no program can give it one.
pub fn is_powerless() -> bool {
    let mut header = [CAPABILITY_VERSION_3, 0];
    let mut sets = [u32::MAX; 6];
    let (header, sets) = ((&raw mut header).cast::<u32>(), (&raw mut sets).cast::<u32>());
    // SAFETY: for this version the kernel writes two times three numbers; the other calls write nothing.
    unsafe {
        syscall(arch::CAPGET, [header as usize, sets as usize]) == 0
            && (0..6).all(|at| sets.add(at).read_volatile() == 0)
            // Capabilities that the kernel does not know return an error, not 1.
            && (0..CAPABILITIES).all(|capability| syscall(arch::PRCTL, [PR_CAPBSET_READ, capability]) != 1)
            && syscall(arch::PRCTL, [PR_GET_NO_NEW_PRIVS]) == 1
    }
}

/// An id, and the text after it.
///
/// # Safety
/// `text` ends with a NUL.
unsafe fn id(text: *const u8) -> (u32, *const u8) {
    // SAFETY: the caller guarantees it.
    let (number, behind) = unsafe { number(text) };
    (number as u32, behind)
}

/// Whether this number is in a list, `1,2,3`.
///
/// # Safety
/// `list` ends with a NUL.
unsafe fn lists(mut list: *const u8, wanted: u32) -> bool {
    // SAFETY: the caller guarantees it: a NUL ends the walk.
    unsafe {
        while (*list).is_ascii_digit() {
            let (group, behind) = id(list);
            if group == wanted {
                return true;
            }
            list = behind.add(usize::from(*behind == b','));
        }
    }
    false
}

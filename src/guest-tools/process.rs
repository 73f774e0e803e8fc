//! What a process of the relay's has, and gives up: user, capabilities, limits, descriptors.
#![expect(unsafe_code, reason = "system calls that nix has not, and fork(2)")]

use std::ffi::{CString, c_int};
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::prctl::{set_dumpable, set_keepcaps, set_no_new_privs, set_pdeathsig};
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::{ForkResult, Gid, Uid, setgroups, setresgid, setresuid};

/// Whose a call is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// _LINUX_CAPABILITY_VERSION_3 of linux/capability.h.
const CAPABILITIES: u32 = 0x2008_0522;

/// Makes this process the user's, without a way back: no capability in any set, and none to be gained.
pub(crate) fn become_user(user: &User) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
    set_no_new_privs()?;
    leave_bounding_set()?;
    setgroups(&groups)?;
    setresgid(gid, gid, gid)?;
    // With fs.suid_dumpable=1 the user could read the memory of a process as soon as it is the user's, unless
    // the process has capabilities that the user lacks (kernel: cap_ptrace_access_check): so they go last.
    set_keepcaps(true)?;
    setresuid(uid, uid, uid)?;
    set_dumpable(false)?;
    leave_capabilities()
}

/// Until the kernel knows no more of them. A user who is root keeps the others.
fn leave_bounding_set() -> io::Result<()> {
    for capability in 0..=63 {
        // SAFETY: takes numbers.
        let done = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        match Errno::result(done) {
            Err(Errno::EINVAL) => break,
            done => done?,
        };
    }
    Ok(())
}

fn leave_capabilities() -> io::Result<()> {
    let header = [CAPABILITIES, 0];
    let none = [0u32; 6];
    // SAFETY: structures of this version's size (capset(2)); the kernel reads them.
    let done = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
    Errno::result(done)?;
    // SAFETY: takes numbers.
    Errno::result(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) })?;
    Ok(())
}

/// Gives this process the limits of another, as its /proc/PID/limits has them, and its CPUs. Where this
/// process may not raise a limit so far, it keeps its own.
pub(crate) fn take_limits(limits: &str, pid: i32) -> io::Result<()> {
    for (resource, mut theirs) in parse_limits(limits) {
        if set_limit(resource, theirs).is_err() {
            let own = limit_of(resource)?;
            theirs.rlim_max = theirs.rlim_max.min(own.rlim_max);
            theirs.rlim_cur = theirs.rlim_cur.min(theirs.rlim_max);
            set_limit(resource, theirs)?;
        }
    }
    if let Ok(cpus) = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(pid)) {
        // CPUs that are gone meanwhile are the kernel's to leave out.
        let _ = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &cpus);
    }
    Ok(())
}

/// A line for each limit, in the order of their numbers, behind a head (fs/proc/base.c, `proc_pid_limits`).
/// prlimit(2) would need CAP_SYS_RESOURCE, which root in a container may lack.
fn parse_limits(text: &str) -> impl Iterator<Item = (u32, libc::rlimit64)> {
    const NAME: usize = 26;
    let value =
        |text: &str| if text == "unlimited" { Some(libc::RLIM64_INFINITY) } else { text.parse().ok() };
    (0..).zip(text.lines().skip(1)).filter_map(move |(resource, line)| {
        let mut values = line.get(NAME..)?.split_ascii_whitespace().map(value);
        Some((resource, libc::rlimit64 { rlim_cur: values.next()??, rlim_max: values.next()?? }))
    })
}

fn limit_of(resource: u32) -> io::Result<libc::rlimit64> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one limit.
    let done = unsafe { libc::prlimit64(0, resource as _, std::ptr::null(), &raw mut limit) };
    Errno::result(done)?;
    Ok(limit)
}

fn set_limit(resource: u32, limit: libc::rlimit64) -> io::Result<()> {
    // SAFETY: the kernel reads one limit.
    let done = unsafe { libc::prlimit64(0, resource as _, &raw const limit, std::ptr::null_mut()) };
    Ok(Errno::result(done).map(drop)?)
}

/// Closes all descriptors from this one on.
pub(crate) fn close_from(first: c_int) -> io::Result<()> {
    // SAFETY: the caller owns none of them.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    Ok(Errno::result(done).map(drop)?)
}

/// Opens /dev/null until the standard descriptors are taken. Which of them were open: bits.
pub(crate) fn occupy_standard_descriptors() -> io::Result<u8> {
    let mut open = 0b111;
    loop {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        match null.as_raw_fd() {
            number @ 0..=2 => open &= !(1 << number),
            _ => return Ok(open),
        }
        let _ = null.into_raw_fd();
    }
}

/// Puts this descriptor in place of a standard one, for programs that this process executes.
pub(crate) fn put(descriptor: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: replaces what the caller does not use.
    let done = unsafe { libc::dup2(descriptor.as_raw_fd(), number) };
    Ok(Errno::result(done).map(drop)?)
}

/// Another number for it, which programs that this process executes have too.
pub(crate) fn keep_open(descriptor: BorrowedFd<'_>) -> io::Result<RawFd> {
    // SAFETY: makes a descriptor.
    Ok(Errno::result(unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_DUPFD, 3) })?)
}

/// Closes this one.
pub(crate) fn close(number: RawFd) {
    // SAFETY: the caller does not use it.
    unsafe { libc::close(number) };
}

/// Forks. This process has one thread.
pub(crate) fn fork() -> nix::Result<ForkResult> {
    // SAFETY: with one thread, the child may call anything.
    unsafe { nix::unistd::fork() }
}

/// Ends with this signal when the parent ends.
pub(crate) fn end_with_parent(parent: nix::unistd::Pid, signal: Signal) -> io::Result<()> {
    set_pdeathsig(signal)?;
    if nix::unistd::getppid() == parent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
}

/// Ends at once.
pub(crate) fn leave(code: c_int) -> ! {
    // SAFETY: ends this process alone.
    unsafe { libc::_exit(code) }
}

/// Executes a program; returns why not.
pub(crate) fn execute(program: &[u8], arguments: &[Vec<u8>], environment: &[Vec<u8>]) -> io::Error {
    let strings = |items: &[Vec<u8>]| {
        items.iter().map(|item| CString::new(item.clone())).collect::<Result<Vec<_>, _>>()
    };
    let Ok(program) = CString::new(program) else { return Errno::EINVAL.into() };
    let (Ok(arguments), Ok(environment)) = (strings(arguments), strings(environment)) else {
        return Errno::EINVAL.into();
    };
    match nix::unistd::execve(&program, &arguments, &environment) {
        Err(error) => error.into(),
    }
}

/// What has become of a child, if anything has: its end, a stop, or that it goes on.
pub(crate) fn look(child: nix::unistd::Pid) -> io::Result<Option<c_int>> {
    let mut status = 0;
    let flags = libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED;
    // SAFETY: the kernel writes a number.
    let found = Errno::result(unsafe { libc::waitpid(child.as_raw(), &raw mut status, flags) })?;
    Ok((found != 0).then_some(status))
}

/// Sends a signal to a child, or to its whole process group. Those of real time are numbers only.
pub(crate) fn send(child: nix::unistd::Pid, signal: c_int, to_all: bool) {
    let to = if to_all { -child.as_raw() } else { child.as_raw() };
    // SAFETY: takes numbers. A child that has ended is not waited for yet, so that its number is its own.
    unsafe { libc::kill(to, signal) };
}

/// Receives the first bytes of a conversation, and the descriptors that come with them; more than `most` are
/// an error.
pub(crate) fn receive_descriptors<const MOST: usize>(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
) -> io::Result<Vec<OwnedFd>> {
    let length = bytes.len();
    let mut parts = [IoSliceMut::new(bytes)];
    let mut space = nix::cmsg_space!([RawFd; MOST]);
    let message =
        recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut received = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control {
            // SAFETY: the kernel has just made them, and nothing else owns them.
            received.extend(descriptors.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
        }
    }
    let is_whole = message.bytes == length && !message.flags.contains(MsgFlags::MSG_CTRUNC);
    if is_whole { Ok(received) } else { Err(io::ErrorKind::InvalidData.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_a_process_are_read_as_the_kernel_writes_them() {
        let text = std::fs::read_to_string("/proc/self/limits").unwrap();
        let limits: Vec<_> = parse_limits(&text).collect();
        assert_eq!(limits.len(), 16);
        for (resource, limit) in limits {
            let own = limit_of(resource).unwrap();
            assert_eq!((limit.rlim_cur, limit.rlim_max), (own.rlim_cur, own.rlim_max), "{resource}");
        }
    }
}

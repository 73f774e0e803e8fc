//! The attributes of a process: user, capabilities, limits, descriptors.
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

/// The job's user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// _LINUX_CAPABILITY_VERSION_3 of linux/capability.h.
const CAPABILITIES: u32 = 0x2008_0522;

/// Makes this process the user's for good: it has no capability in any set, and cannot gain one.
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

/// Drops each capability up to the last that the kernel knows, from the bounding set.
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

/// Gives this process the limits (the content of /proc/PID/limits) and the CPUs of another one. If this process
/// may not raise a limit that far, its own hard limit stays.
pub(crate) fn take_limits(limits: &str, pid: i32) -> io::Result<()> {
    for (resource, mut limit) in parse_limits(limits) {
        if set_limit(resource, limit).is_err() {
            let own = limit_of(resource)?;
            limit.rlim_max = limit.rlim_max.min(own.rlim_max);
            limit.rlim_cur = limit.rlim_cur.min(limit.rlim_max);
            set_limit(resource, limit)?;
        }
    }
    if let Ok(cpus) = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(pid)) {
        // Fails if none of these CPUs is left: then the process keeps its own.
        let _ = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &cpus);
    }
    Ok(())
}

/// Makes this process as likely a victim as `pid` is where a job has no memory left. The relay has the score of slurmstepd, which
/// the kernel never kills (src/slurmd/slurmstepd/mgr.c, `set_oom_adj`): a user's process with it could not be ended for its job's
/// limit. An error unless the score is at least that of the other one: lowering it needs CAP_SYS_RESOURCE.
pub(crate) fn take_oom_score(pid: i32) -> io::Result<()> {
    const OWN: &str = "/proc/self/oom_score_adj";
    let score = |path: &str| -> io::Result<i32> {
        std::fs::read_to_string(path)?.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
    };
    let wanted = score(&format!("/proc/{pid}/oom_score_adj"))?;
    match std::fs::write(OWN, wanted.to_string()) {
        Err(error) if score(OWN)? < wanted => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The file has a header, then one line for each limit, in the order of their numbers (Linux, fs/proc/base.c,
/// `proc_pid_limits`). To read another user's limits by prlimit(2), a process needs CAP_SYS_RESOURCE, which root
/// in a container may lack.
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

/// Opens /dev/null in place of standard descriptors that are closed. Returns which ones were open: bit 0 for
/// standard input, and so on.
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

/// Duplicates a descriptor onto a standard one, for the program that this process executes.
pub(crate) fn put(descriptor: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: nothing in this process owns the standard descriptors.
    let done = unsafe { libc::dup2(descriptor.as_raw_fd(), number) };
    Ok(Errno::result(done).map(drop)?)
}

/// Duplicates a descriptor without close-on-exec, and returns the new number.
pub(crate) fn keep_open(descriptor: BorrowedFd<'_>) -> io::Result<RawFd> {
    // SAFETY: only creates a descriptor.
    Ok(Errno::result(unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_DUPFD, 3) })?)
}

/// Closes a descriptor that no object of this process owns.
pub(crate) fn close(number: RawFd) {
    // SAFETY: no object of this process owns it.
    unsafe { libc::close(number) };
}

/// Closes an object's descriptor in a forked process, which does not use the object again.
pub(crate) fn close_inherited(descriptor: BorrowedFd<'_>) {
    // SAFETY: the object is its parent's, and this process ends without running its destructor ([`leave`]).
    unsafe { libc::close(descriptor.as_raw_fd()) };
}

/// Makes the process that a command starts the leader of a session; its standard input becomes the session's
/// terminal, if it is one.
pub(crate) fn lead_session(command: &mut std::process::Command, has_terminal: bool) {
    let lead = move || {
        nix::unistd::setsid()?;
        if has_terminal { control_terminal() } else { Ok(()) }
    };
    // SAFETY: makes two system calls, and allocates nothing.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, lead) };
}

/// The device number of a terminal; `None` for anything else. /dev/tty has that of the terminal for which it stands.
pub(crate) fn device_of_terminal(descriptor: BorrowedFd<'_>) -> Option<u32> {
    let mut device = 0;
    // SAFETY: the kernel writes a number of this size.
    let done = unsafe { libc::ioctl(descriptor.as_raw_fd(), libc::TIOCGDEV, &raw mut device) };
    Errno::result(done).ok().map(|_| device)
}

/// Makes the standard input the terminal of the session that this process leads.
pub(crate) fn control_terminal() -> io::Result<()> {
    // SAFETY: takes numbers.
    Ok(Errno::result(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) }).map(drop)?)
}

/// The size of a terminal: rows, columns, and the same in pixels.
pub(crate) fn size_of_terminal(terminal: BorrowedFd<'_>) -> libc::winsize {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel writes one such structure, or nothing.
    unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    size
}

/// Changes it.
pub(crate) fn resize_terminal(terminal: BorrowedFd<'_>, size: libc::winsize) {
    // SAFETY: the kernel reads one such structure.
    unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
}

/// Forks. This process has one thread.
pub(crate) fn fork() -> nix::Result<ForkResult> {
    // SAFETY: with one thread, the child may call anything.
    unsafe { nix::unistd::fork() }
}

/// Has the kernel send this signal to the process when its parent ends (PR_SET_PDEATHSIG).
pub(crate) fn end_with_parent(parent: nix::unistd::Pid, signal: Signal) -> io::Result<()> {
    set_pdeathsig(signal)?;
    if nix::unistd::getppid() == parent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
}

/// Ends the process without running exit handlers.
pub(crate) fn leave(code: c_int) -> ! {
    // SAFETY: ends this process alone.
    unsafe { libc::_exit(code) }
}

/// Executes a program. Returns only if that fails.
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

/// The wait status of a child that has ended, stopped or continued since the last call.
pub(crate) fn look(child: nix::unistd::Pid) -> io::Result<Option<c_int>> {
    let mut status = 0;
    let flags = libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED;
    // SAFETY: the kernel writes a number.
    let found = Errno::result(unsafe { libc::waitpid(child.as_raw(), &raw mut status, flags) })?;
    Ok((found != 0).then_some(status))
}

/// Sends a signal to a child, or to its whole process group. Real-time signals have no names in nix.
pub(crate) fn send(child: nix::unistd::Pid, signal: c_int, to_all: bool) {
    let to = if to_all { -child.as_raw() } else { child.as_raw() };
    // SAFETY: takes numbers. The child has not been reaped, so its pid cannot be another process'.
    unsafe { libc::kill(to, signal) };
}

/// Receives the first bytes of a request, and the descriptors sent with them. More than `MOST` descriptors are
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
            // SAFETY: the kernel has just created them for this process.
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
    fn process_is_no_better_protected_than_the_one_that_it_stands_for() {
        let own =
            || std::fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse::<i32>().unwrap();
        let before = own();
        for score in [before.max(0) + 20, before.max(0) + 10] {
            let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
            let pid = other.id().try_into().unwrap();
            std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()).unwrap();
            take_oom_score(pid).unwrap();
            other.kill().unwrap();
            other.wait().unwrap();
            // Not all of root may lower it again.
            assert!(own() >= score, "{} {score}", own());
        }
        assert!(take_oom_score(i32::MAX).is_err());
    }

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

//! A child of a child, forked for one task, for which no process waits: it must not outlive its time, nor keep its parent's
//! descriptors open.
//!
//! Runs as root in the extern step's slurmstepd, in the prolog, and in the child.
#![expect(unsafe_code, reason = "descriptors and a signal handler of a forked child")]

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, alarm, fork, setsid};

/// The descriptors that this process has open. Not that of the list itself: the next one to be opened gets its number.
pub fn descriptors() -> io::Result<Vec<RawFd>> {
    let listed = fs::read_dir("/proc/self/fd")?.flatten();
    let mut open: Vec<RawFd> = listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    // SAFETY: only asks.
    open.retain(|descriptor| unsafe { libc::fcntl(*descriptor, libc::F_GETFD) } >= 0);
    Ok(open)
}

/// Forks a process that does `work`, with none of the `inherited` descriptors. With `seconds`, the kernel ends
/// it after that time, even while it waits.
///
/// # Safety
/// This process may have other threads: `work` must not call anything that may wait for a lock that one of them held at the fork.
pub unsafe fn spawn(seconds: Option<u32>, inherited: &[RawFd], work: impl FnOnce()) -> io::Result<()> {
    // SAFETY: the caller guarantees it.
    unsafe { spawn_after(|| true, seconds, inherited, work) }
}

/// The same, if the child in between, which has ended when this returns, finds that it is `ready`.
///
/// # Safety
/// As for [`spawn`].
unsafe fn spawn_after(
    ready: impl FnOnce() -> bool,
    seconds: Option<u32>,
    inherited: &[RawFd],
    work: impl FnOnce(),
) -> io::Result<()> {
    // SAFETY: the caller guarantees it; the C library's own locks survive fork(2). Both children end by _exit(2).
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            waitpid(child, None)?;
            Ok(())
        }
        ForkResult::Child => {
            if ready() {
                // SAFETY: as above.
                if let Ok(ForkResult::Child) = unsafe { fork() }
                    && begin(seconds, inherited).is_ok()
                {
                    work();
                }
            }
            // SAFETY: ends this process alone.
            unsafe { libc::_exit(0) }
        }
    }
}

/// Forks a process that does `work` for at most `seconds`, in a session of its own, so that it outlives the process
/// group of a prolog, which slurmd kills when the prolog has ended (src/slurmd/common/run_command.c). An error in
/// a process with threads.
pub fn spawn_alone(seconds: u32, work: impl FnOnce()) -> io::Result<()> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("this process has threads"));
    }
    let inherited = descriptors()?;
    // A panic must not go on in the parent's code.
    let work = || drop(catch_unwind(AssertUnwindSafe(work)));
    // SAFETY: this process has one thread, so that no other one holds a lock.
    unsafe { spawn_after(has_session, Some(seconds), &inherited, work) }
}

/// Begins a session. In the child in between: when that has ended, the prolog may end at once.
fn has_session() -> bool {
    setsid().is_ok()
}

/// slurmstepd blocks SIGALRM in all of its threads (slurmstepd.c, `slurmstepd_blocked_signals`; up to 24.05),
/// and a child inherits that. The numbers of `inherited` stay occupied: Slurm's log, for example, still writes
/// to one of them, and must not write into a socket instead.
fn begin(seconds: Option<u32>, inherited: &[RawFd]) -> io::Result<()> {
    // SAFETY: installs no handler.
    unsafe { signal(Signal::SIGALRM, SigHandler::SigDfl) }?;
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGALRM);
    mask.thread_unblock()?;
    seconds.and_then(alarm::set);
    let null = File::options().read(true).write(true).open("/dev/null")?;
    for descriptor in inherited {
        // SAFETY: the process was forked for this work, and no other code in it uses these descriptors.
        Errno::result(unsafe { libc::dup2(null.as_raw_fd(), *descriptor) })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::{Duration, Instant};

    use nix::sys::signal::kill;
    use nix::sys::wait::{WaitPidFlag, WaitStatus};
    use nix::unistd::{getpid, getsid};

    use super::*;
    use crate::linux::poll::until;

    #[test]
    fn child_of_its_own_session_has_it_from_its_beginning() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("sessions");
        let work = || {
            let [own, of_its_session] = [getpid(), getsid(None).unwrap_or(getpid())];
            let _ = fs::write(&file, format!("{own} {of_its_session}."));
        };
        // SAFETY: the child makes system calls, and uses memory, which the C library keeps usable.
        unsafe { spawn_after(has_session, Some(10), &[], work) }.unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let look = || fs::read_to_string(&file).unwrap_or_default();
        let seen = until(deadline, Duration::from_millis(1), look, |seen| seen.ends_with('.'));
        let ids: Vec<i32> = seen.trim_end_matches('.').split(' ').map(|id| id.parse().unwrap()).collect();
        let of_the_test = getsid(None).unwrap().as_raw();
        assert!(ids[1] != ids[0] && ids[1] != of_the_test, "{ids:?} {of_the_test}");
    }

    #[test]
    fn child_ends_by_its_alarm_though_blocked_and_keeps_nothing_open() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGALRM);
        mask.thread_block().unwrap();
        let open = [writer.as_raw_fd()];
        // SAFETY: the child makes only system calls.
        let child = match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                let begun = begin(Some(1), &open);
                while begun.is_ok() {
                    nix::unistd::pause();
                }
                // SAFETY: ends this process alone.
                unsafe { libc::_exit(1) }
            }
        };
        mask.thread_unblock().unwrap();
        drop(writer);
        // Ends while the child still runs.
        reader.read_to_end(&mut Vec::new()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut ended = WaitStatus::StillAlive;
        while ended == WaitStatus::StillAlive {
            std::thread::sleep(Duration::from_millis(10));
            ended = waitpid(child, Some(WaitPidFlag::WNOHANG)).unwrap();
            if Instant::now() > deadline {
                kill(child, Signal::SIGKILL).unwrap();
            }
        }
        assert!(matches!(ended, WaitStatus::Signaled(_, Signal::SIGALRM, _)), "{ended:?}");
    }
}

//! Work of root for a step that its user cannot stop. `scancel --signal=STOP` freezes what is in the step's cgroups, this process
//! among it: frozen between the start of a container and its adoption, it would leave that outside the job's limits for as long
//! as the user likes, and no deadline of its own would end that. A child does the work, where slurmstepd itself is: Slurm keeps
//! that out of what it freezes (src/plugins/cgroup/v1/cgroup_v1.c, `cgroup_p_step_create`; v2: the leaf `slurm` beside `user`).
//!
//! The child ends with its parent, as it would in the step's cgroups; and where the job has no memory left, the kernel spares it
//! as it spares slurmstepd: a stopped parent would notice nothing.
//!
//! Runs as root in the forked child that becomes a task, which has one thread.
#![expect(unsafe_code, reason = "fork(2)")]

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid};

use super::cgroup::Cgroups;
use super::{oom, privilege, signals};

/// Interval between checks whether the child has ended.
const INTERVAL: Duration = Duration::from_millis(5);

/// Does `work` in a child that slurmstepd, this process' parent, does not stop, and waits for its end, however that comes. `work`
/// gets the failure to leave the step's cgroups, if any, and a question that it has to ask: whether it is still wanted.
pub fn run(work: impl FnOnce(io::Result<()>, &dyn Fn() -> bool)) -> io::Result<()> {
    let (slurmstepd, parent) = (getppid(), getpid());
    // SAFETY: this process has one thread, so that no other one holds a lock. The child ends by _exit(2).
    match unsafe { fork() }? {
        ForkResult::Parent { child } => wait(child),
        ForkResult::Child => {
            // A panic must not go on in the parent's code.
            let done = catch_unwind(AssertUnwindSafe(|| {
                let is_wanted = || getppid() == parent && !signals::is_end_asked();
                oom::protect_as(slurmstepd);
                let left = set_pdeathsig(Signal::SIGKILL)
                    .map_err(io::Error::from)
                    .and_then(|()| Cgroups::of_slurmstepd(slurmstepd)?.enter());
                work(left, &is_wanted);
            }));
            privilege::leave(i32::from(done.is_err()))
        }
    }
}

/// Passes on the signals that ask for the end: Slurm sends them to what is in the step's cgroups. The work has its own deadline.
fn wait(child: Pid) -> io::Result<()> {
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => {}
            // Where a parent ignores its children's ends, the kernel forgets them.
            Ok(_) | Err(Errno::ECHILD) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        if signals::is_end_asked() {
            // It may have ended meanwhile.
            let _ = kill(child, Signal::SIGTERM);
        }
        std::thread::sleep(INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Instant;

    use nix::sys::signal::raise;

    use super::*;
    use crate::linux::signals::DeferredSignals;

    #[test]
    fn a_child_does_the_work_and_is_told_that_the_end_is_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("worker");
        let note = || drop(fs::write(&file, getpid().to_string()));
        let worker = || fs::read_to_string(&file).unwrap_or_default();
        run(|left, is_wanted| {
            if left.is_ok() && is_wanted() {
                note();
            }
        })
        .unwrap();
        assert!(!worker().is_empty() && worker() != getpid().to_string(), "{}", worker());
        // However it ends.
        run(|_, _| panic!("on purpose")).unwrap();
        run(|_, _| {
            let _ = kill(getpid(), Signal::SIGKILL);
        })
        .unwrap();
        fs::remove_file(&file).unwrap();
        let kept = DeferredSignals::begin();
        raise(Signal::SIGTERM).unwrap();
        let began = Instant::now();
        run(|_, is_wanted| {
            while is_wanted() && began.elapsed() < Duration::from_secs(10) {
                std::thread::sleep(INTERVAL);
            }
            if !is_wanted() {
                note();
            }
        })
        .unwrap();
        assert!(!worker().is_empty());
        // Its mask stays: the signal would end this process.
        std::mem::forget(kept);
    }

    #[test]
    fn the_child_ends_with_its_parent() {
        let (reader, writer) = std::io::pipe().unwrap();
        // SAFETY: the child makes system calls, and uses memory, which the C library keeps usable.
        match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => {
                drop(writer);
                let mut one = [0];
                std::io::Read::read_exact(&mut &reader, &mut one).unwrap();
                kill(child, Signal::SIGKILL).unwrap();
                waitpid(child, None).unwrap();
                // Ends when the worker has: it keeps the other end open.
                assert_eq!(std::io::Read::read(&mut &reader, &mut one).unwrap(), 0);
            }
            ForkResult::Child => {
                let _ = run(|_, _| {
                    let _ = std::io::Write::write_all(&mut &writer, b"1");
                    std::thread::sleep(Duration::from_secs(600));
                });
                privilege::leave(0)
            }
        }
    }
}

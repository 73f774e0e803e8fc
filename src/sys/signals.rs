//! Signals that come while a task starts. Its process is a fork of slurmstepd, whose handlers do nothing, or hold them back
//! to throw them away: what Slurm asks of a task before its command runs is lost. That is short, unless a plugin takes its
//! time.
//!
//! Runs in the task, as root and as the user.
#![expect(unsafe_code, reason = "sigpending(2) and sigaction(2)")]

use std::mem::MaybeUninit;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, raise, sigaction};

/// What a task is sent by others, of what slurmstepd has handlers for (src/slurmd/slurmstepd/mgr.c).
const SENT: [Signal; 6] =
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2];

/// Those that have come since they are kept.
#[derive(Debug)]
pub struct Kept {
    before: Option<SigSet>,
    seen: Vec<Signal>,
}

impl Kept {
    /// Keeps what comes to this thread, the only one, from now on.
    #[must_use]
    pub fn begin() -> Self {
        Self { before: sent().thread_swap_mask(SigmaskHow::SIG_BLOCK).ok(), seen: Vec::new() }
    }

    /// Before somebody else might throw them away.
    pub fn look(&mut self) {
        self.seen.extend(pending());
    }

    /// Leaves the process as it was.
    pub fn forget(self) {
        if let Some(before) = self.before {
            // Fails for no mask that there was.
            let _ = before.thread_set_mask();
        }
    }

    /// What came has its default effect, which is the end, and so has what comes: as slurmstepd has it for a command. Its
    /// own mask may be another one by now.
    pub fn obey(mut self) {
        self.look();
        for signal in SENT {
            let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
            // SAFETY: no handler but the default. Does not fail for these signals.
            let _ = unsafe { sigaction(signal, &default) };
        }
        let _ = sent().thread_unblock();
        for signal in self.seen {
            let _ = raise(signal);
        }
    }
}

fn sent() -> SigSet {
    SENT.into_iter().collect()
}

fn pending() -> Vec<Signal> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: it fills the set, or fails; then it is not looked at.
    let set = unsafe {
        if libc::sigpending(set.as_mut_ptr()) != 0 {
            return Vec::new();
        }
        SigSet::from_sigset_t_unchecked(set.assume_init())
    };
    SENT.into_iter().filter(|signal| set.contains(*signal)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};

    extern "C" fn nothing(_: i32) {}

    /// How a process ends that has slurmstepd's handler, and does this.
    fn end_of(work: impl FnOnce()) -> WaitStatus {
        // SAFETY: the child calls nothing but what may be called between fork and exec, and ends.
        match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => waitpid(child, None).unwrap(),
            ForkResult::Child => {
                let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
                // SAFETY: the handler does nothing.
                let _ = unsafe { sigaction(Signal::SIGTERM, &action) };
                work();
                // SAFETY: ends this process alone.
                unsafe { libc::_exit(7) }
            }
        }
    }

    #[test]
    fn what_came_meanwhile_is_obeyed_in_spite_of_a_handler() {
        let end = end_of(|| {
            let kept = Kept::begin();
            let _ = raise(Signal::SIGTERM);
            kept.obey();
        });
        assert!(matches!(end, WaitStatus::Signaled(_, Signal::SIGTERM, _)), "{end:?}");
    }

    #[test]
    fn what_was_thrown_away_after_a_look_is_obeyed() {
        let end = end_of(|| {
            let mut kept = Kept::begin();
            let _ = raise(Signal::SIGTERM);
            kept.look();
            let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
            // SAFETY: no handler.
            let _ = unsafe { sigaction(Signal::SIGTERM, &ignore) };
            if pending().is_empty() {
                kept.obey();
            }
        });
        assert!(matches!(end, WaitStatus::Signaled(_, Signal::SIGTERM, _)), "{end:?}");
    }

    #[test]
    fn what_was_held_back_before_is_not_afterwards() {
        let end = end_of(|| {
            let _ = sent().thread_block();
            Kept::begin().obey();
            let _ = raise(Signal::SIGTERM);
        });
        assert!(matches!(end, WaitStatus::Signaled(_, Signal::SIGTERM, _)), "{end:?}");
    }

    #[test]
    fn without_any_the_process_goes_on() {
        for work in [|| Kept::begin().obey(), || Kept::begin().forget()] {
            let end = end_of(work);
            assert!(matches!(end, WaitStatus::Exited(_, 7)), "{end:?}");
        }
    }
}

//! Signals that come while a task starts. Its process is a fork of slurmstepd, whose handlers do nothing, or hold them back
//! to throw them away: when Slurm asks a task to end before its command runs, that is lost. The moment is short, unless a
//! plugin takes its time.
//!
//! SIGUSR1 and SIGUSR2 are words to a command that has a handler for them: with none there yet, they are better lost.
//!
//! Runs in the task, as root and as the user.
#![expect(unsafe_code, reason = "sigpending(2) and sigaction(2)")]

use std::mem::MaybeUninit;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, raise, sigaction};

/// They ask for an end, and slurmstepd has handlers for them (src/slurmd/slurmstepd/mgr.c).
const TERMINATION: [Signal; 4] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];
/// What they mean is the command's affair.
const USER_SIGNALS: [Signal; 2] = [Signal::SIGUSR1, Signal::SIGUSR2];

/// Those that have come since they are kept.
#[derive(Debug)]
pub struct DeferredSignals {
    before: Option<SigSet>,
    seen: Vec<Signal>,
}

impl DeferredSignals {
    /// Keeps what comes to this thread, the only one, from now on.
    #[must_use]
    pub fn begin() -> Self {
        Self { before: ends().thread_swap_mask(SigmaskHow::SIG_BLOCK).ok(), seen: Vec::new() }
    }

    /// Before somebody else might throw them away.
    pub fn poll(&mut self) {
        self.seen.extend(pending());
    }

    /// Leaves the process as it was.
    pub fn discard(self) {
        if let Some(before) = self.before {
            // Fails for no mask that there was.
            let _ = before.thread_set_mask();
        }
    }

    /// What came has its default effect, which is the end, and so has what comes: as slurmstepd has it for a command. Its
    /// own mask may be another one by now.
    pub fn deliver(mut self) {
        self.poll();
        have(&TERMINATION, SigHandler::SigDfl);
        let _ = ends().thread_unblock();
        for signal in self.seen {
            let _ = raise(signal);
        }
    }
}

/// Whether one has come while they are kept.
#[must_use]
pub fn is_end_asked() -> bool {
    !pending().is_empty()
}

/// For a process that has no command: what is meant for the step's others does not end it.
pub fn ignore_user_signals() {
    have(&USER_SIGNALS, SigHandler::SigIgn);
}

/// For a process that ends by itself, when the step's command has done what it was asked.
pub fn ignore_ends() {
    have(&TERMINATION, SigHandler::SigIgn);
}

fn have(signals: &[Signal], effect: SigHandler) {
    for signal in signals {
        let action = SigAction::new(effect, SaFlags::empty(), SigSet::empty());
        // SAFETY: no handler of ours. Does not fail for these signals.
        let _ = unsafe { sigaction(*signal, &action) };
    }
}

fn ends() -> SigSet {
    TERMINATION.into_iter().collect()
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
    TERMINATION.into_iter().filter(|signal| set.contains(*signal)).collect()
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
    fn deferred_signal_is_delivered_despite_a_handler() {
        let end = end_of(|| {
            let kept = DeferredSignals::begin();
            let _ = raise(Signal::SIGTERM);
            kept.deliver();
        });
        assert!(matches!(end, WaitStatus::Signaled(_, Signal::SIGTERM, _)), "{end:?}");
    }

    #[test]
    fn signal_discarded_after_a_poll_is_delivered() {
        let end = end_of(|| {
            let mut kept = DeferredSignals::begin();
            let _ = raise(Signal::SIGTERM);
            kept.poll();
            have(&TERMINATION, SigHandler::SigIgn);
            if pending().is_empty() {
                kept.deliver();
            }
        });
        assert!(matches!(end, WaitStatus::Signaled(_, Signal::SIGTERM, _)), "{end:?}");
    }

    #[test]
    fn signal_blocked_before_is_delivered_afterwards() {
        let end = end_of(|| {
            let _ = ends().thread_block();
            DeferredSignals::begin().deliver();
            let _ = raise(Signal::SIGTERM);
        });
        assert!(matches!(end, WaitStatus::Signaled(_, Signal::SIGTERM, _)), "{end:?}");
    }

    #[test]
    fn ignored_signal_ends_nothing() {
        let end = end_of(|| {
            DeferredSignals::begin().deliver();
            ignore_user_signals();
            ignore_ends();
            for signal in TERMINATION.into_iter().chain(USER_SIGNALS) {
                let _ = raise(signal);
            }
        });
        assert!(matches!(end, WaitStatus::Exited(_, 7)), "{end:?}");
    }

    #[test]
    fn without_any_the_process_goes_on() {
        for work in [|| DeferredSignals::begin().deliver(), || DeferredSignals::begin().discard()] {
            let end = end_of(work);
            assert!(matches!(end, WaitStatus::Exited(_, 7)), "{end:?}");
        }
    }
}

//! Signals during the start of a task. The task is a fork of slurmstepd, whose signal handlers do nothing and
//! which blocks some signals to discard them: a request to end the task before its command runs is lost.
//! Without a plugin that time is short; this plugin makes it longer.
//!
//! SIGUSR1 and SIGUSR2 are meant for a command with a handler: before the command runs they are dropped.
//!
//! Runs in the task, as root and as the user.
#![expect(unsafe_code, reason = "sigpending(2) and sigaction(2)")]

use std::mem::MaybeUninit;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, raise, sigaction};

/// Signals that request the task's end, and for which slurmstepd has handlers (src/slurmd/slurmstepd/mgr.c).
const TERMINATION: [Signal; 4] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];
/// Signals whose meaning the command defines.
const USER_SIGNALS: [Signal; 2] = [Signal::SIGUSR1, Signal::SIGUSR2];

/// The signals that have arrived since `begin`.
#[derive(Debug)]
pub struct DeferredSignals {
    before: Option<SigSet>,
    seen: Vec<Signal>,
}

impl DeferredSignals {
    /// From now on, blocks and keeps signals to this thread, which must be the only one.
    #[must_use]
    pub fn begin() -> Self {
        Self { before: ends().thread_swap_mask(SigmaskHow::SIG_BLOCK).ok(), seen: Vec::new() }
    }

    /// Keeps pending signals, before other code can discard them.
    pub fn poll(&mut self) {
        self.seen.extend(pending());
    }

    /// Restores the process' mask.
    pub fn discard(self) {
        if let Some(before) = self.before {
            // Cannot fail for an earlier mask.
            let _ = before.thread_set_mask();
        }
    }

    /// Kept and later signals get their default effect, which ends the process, as slurmstepd sets it for a
    /// command. The process' signal mask may have changed by now.
    pub fn deliver(mut self) {
        self.poll();
        have(&TERMINATION, SigHandler::SigDfl);
        let _ = ends().thread_unblock();
        for signal in self.seen {
            let _ = raise(signal);
        }
    }
}

/// Whether a signal that requests the end has arrived while signals are kept.
#[must_use]
pub fn is_end_asked() -> bool {
    !pending().is_empty()
}

/// For a process without a command: signals that are sent to all tasks of the step must not end it.
pub fn ignore_user_signals() {
    have(&USER_SIGNALS, SigHandler::SigIgn);
}

/// For a process that ends by itself when the step's command has ended.
pub fn ignore_ends() {
    have(&TERMINATION, SigHandler::SigIgn);
}

fn have(signals: &[Signal], effect: SigHandler) {
    for signal in signals {
        let action = SigAction::new(effect, SaFlags::empty(), SigSet::empty());
        // SAFETY: installs no handler. Does not fail for these signals.
        let _ = unsafe { sigaction(*signal, &action) };
    }
}

fn ends() -> SigSet {
    TERMINATION.into_iter().collect()
}

fn pending() -> Vec<Signal> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: fills the set, or fails; after a failure the set is not read.
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

    /// How a process with slurmstepd's handler ends after `work`.
    fn end_of(work: impl FnOnce()) -> WaitStatus {
        // SAFETY: the child calls only functions that are allowed between fork and exec, and ends.
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
    fn process_continues_if_no_signal_was_deferred() {
        for work in [|| DeferredSignals::begin().deliver(), || DeferredSignals::begin().discard()] {
            let end = end_of(work);
            assert!(matches!(end, WaitStatus::Exited(_, 7)), "{end:?}");
        }
    }
}

//! Signals by number, real-time signals included: which ones a process ignores and blocks, and a signalfd(2) for
//! several.
#![expect(unsafe_code, reason = "sets of signals as the kernel has them, which nix knows only some of")]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, RawFd};
use std::ptr;

use nix::errno::Errno;

/// A set of signals, bit 0 for signal 1: the kernel's `sigset_t` on all supported architectures.
pub(crate) type Set = u64;

const LAST: i32 = 64;
/// Signals that concern a process itself: its faults, children, pipes, and place in its terminal's session. They
/// are not forwarded.
const OWN: [i32; 14] = [
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGCHLD,
    libc::SIGPIPE,
    libc::SIGTTIN,
    libc::SIGTTOU,
    // Reserved by the C library.
    32,
    33,
];

/// The set of this signal alone.
pub(crate) fn only(signal: i32) -> Set {
    u32::try_from(signal - 1).ok().and_then(|bit| 1u64.checked_shl(bit)).unwrap_or_default()
}

/// The signals that are forwarded, unless the caller ignores or blocks them.
pub(crate) fn passed_on() -> Set {
    (1..=LAST).filter(|signal| !OWN.contains(signal)).map(only).fold(0, |set, one| set | one)
}

/// The signals that this process ignores.
pub(crate) fn ignored() -> Set {
    let is_ignored = |signal: &i32| {
        let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: changes nothing; a sigaction of zeroes is valid (SIG_DFL).
        unsafe {
            libc::sigaction(*signal, ptr::null(), action.as_mut_ptr());
            action.assume_init().sa_sigaction == libc::SIG_IGN
        }
    };
    (1..=LAST).filter(is_ignored).map(only).fold(0, |set, one| set | one)
}

/// The signals that this process blocks.
pub(crate) fn blocked() -> Set {
    let mut set: Set = 0;
    // SAFETY: the kernel writes a set of this size.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_BLOCK,
            ptr::null::<Set>(),
            &raw mut set,
            size_of::<Set>(),
        )
    };
    set
}

/// Blocks exactly these signals.
pub(crate) fn block(set: Set) {
    // SAFETY: the kernel reads a set of this size.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const set,
            ptr::null_mut::<Set>(),
            size_of::<Set>(),
        )
    };
}

/// Ignores these signals, and sets all others to their default.
pub(crate) fn ignore(set: Set) {
    for signal in 1..=LAST {
        let action = if set & only(signal) == 0 { libc::SIG_DFL } else { libc::SIG_IGN };
        // SAFETY: installs no handler. For SIGKILL and SIGSTOP the kernel returns an error.
        unsafe { libc::signal(signal, action) };
    }
}

/// Ends this process by this signal, without a core file.
pub(crate) fn die_of(signal: i32) {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: installs no handler, and takes numbers.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        libc::signal(signal, libc::SIG_DFL);
        block(!only(signal));
        libc::kill(libc::getpid(), signal);
    }
}

/// Stops this process until it receives SIGCONT.
pub(crate) fn stop() {
    // SAFETY: takes numbers.
    unsafe { libc::kill(libc::getpid(), libc::SIGSTOP) };
}

/// A signalfd(2): reports signals that this process blocks.
#[derive(Debug)]
pub(crate) struct Arriving(File);

/// A signal that has arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived {
    pub(crate) signal: i32,
    /// Whether the kernel sent it (SI_KERNEL), as a terminal does to its whole foreground process group.
    pub(crate) is_kernels: bool,
}

impl Arriving {
    /// For this set.
    pub(crate) fn of(set: Set) -> io::Result<Self> {
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: the kernel reads a set of this size, and creates a descriptor.
        let descriptor = Errno::result(unsafe {
            libc::syscall(libc::SYS_signalfd4, -1, &raw const set, size_of::<Set>(), flags)
        })?;
        let descriptor = RawFd::try_from(descriptor).map_err(io::Error::other)?;
        // SAFETY: the descriptor is new, so nothing else owns it.
        Ok(Self(unsafe { File::from_raw_fd(descriptor) }))
    }

    /// The next signal, if one has arrived.
    pub(crate) fn next(&self) -> Option<Arrived> {
        // signalfd(2): ssi_signo, ssi_errno, ssi_code, of four bytes each.
        let mut bytes = [0; 128];
        (&self.0).read_exact(&mut bytes).ok()?;
        let (number, rest) = bytes.split_first_chunk()?;
        let code = rest.get(4..)?.first_chunk()?;
        Some(Arrived {
            signal: i32::from_ne_bytes(*number),
            is_kernels: i32::from_ne_bytes(*code) == libc::SI_KERNEL,
        })
    }
}

impl AsFd for Arriving {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_bits() {
        assert_eq!((only(1), only(64)), (1, 1 << 63));
        assert_eq!((only(0), only(65), only(-1)), (0, 0, 0));
        for (signal, passes) in [(libc::SIGINT, true), (libc::SIGKILL, false), (34, true), (32, false)] {
            assert_eq!(passed_on() & only(signal) != 0, passes, "{signal}");
        }
    }
}

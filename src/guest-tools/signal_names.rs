//! The names of signals in the ssh protocol (RFC 4254, 6.10).
#![forbid(unsafe_code)]

use russh::Sig;

/// Each name with its number.
fn all() -> [(Sig, i32); 13] {
    [
        (Sig::ABRT, libc::SIGABRT),
        (Sig::ALRM, libc::SIGALRM),
        (Sig::FPE, libc::SIGFPE),
        (Sig::HUP, libc::SIGHUP),
        (Sig::ILL, libc::SIGILL),
        (Sig::INT, libc::SIGINT),
        (Sig::KILL, libc::SIGKILL),
        (Sig::PIPE, libc::SIGPIPE),
        (Sig::QUIT, libc::SIGQUIT),
        (Sig::SEGV, libc::SIGSEGV),
        (Sig::TERM, libc::SIGTERM),
        (Sig::USR1, libc::SIGUSR1),
        (Sig::Custom("USR2".to_owned()), libc::SIGUSR2),
    ]
}

/// The number of a signal; `None` for a name that the protocol does not have.
pub(crate) fn numbered(name: &Sig) -> Option<i32> {
    let wanted = format!("{name:?}");
    all().into_iter().find(|(known, _)| format!("{known:?}") == wanted).map(|(_, number)| number)
}

/// The name of a signal. The protocol lets each side have names of its own, with an `@` in them.
pub(crate) fn named(number: i32) -> Sig {
    let known = all().into_iter().find(|(_, known)| *known == number).map(|(name, _)| name);
    known.unwrap_or_else(|| Sig::Custom(format!("{number}@spank-docker")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_keeps_its_number() {
        for signal in [libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2] {
            assert_eq!(numbered(&named(signal)), Some(signal));
        }
        assert_eq!(numbered(&named(libc::SIGSTOP)), None);
    }
}

//! The caller's terminal in raw mode: what is typed goes to a terminal at the other end, which edits lines and makes
//! signals of keys.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::AsFd;

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// Gives the terminal back as it was.
pub(crate) struct Raw(Termios);

impl Raw {
    /// `None` where standard input is no terminal. If other programs write to the terminal too, such as the next one
    /// in a pipeline, their lines must still begin at the left: with `for_others`, output is not raw.
    pub(crate) fn take(for_others: bool) -> Option<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(stdin.as_fd()).ok()?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        if for_others {
            raw.output_flags = before.output_flags;
        }
        tcsetattr(stdin.as_fd(), SetArg::TCSADRAIN, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin().as_fd(), SetArg::TCSADRAIN, &self.0);
    }
}

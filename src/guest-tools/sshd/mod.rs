//! The job's sshd where the image's does not run: the container's first process executes it in place of that
//! one, with the same configuration file and the same arguments, and it behaves as OpenSSH's does with that file.
//!
//! ```text
//!   listener     accepts, and forks one process for each connection: no connection can end another one
//!   connection   its protocol and login, by russh; only the job's user, with the job's key
//!   session      one command: a process with pipes or a terminal
//! ```

mod account;
mod connection;
mod listener;
mod session;
mod settings;

use std::io::Write;

use nix::sys::prctl::set_dumpable;

use crate::arguments::Arguments;
use crate::process;
use settings::Settings;

/// The exit code of an sshd that does not start, as OpenSSH's.
const FAILED: i32 = 255;

/// Serves until it is killed. Returns only if it cannot start.
pub(crate) fn run(arguments: &Arguments) -> i32 {
    // First: the user's processes outside the container must not look through this one into the container. What it executes for
    // a session is the user's own.
    let failure = match set_dumpable(false).map_err(Into::into).and_then(|()| process::close_from(3)) {
        Ok(()) => Settings::of(arguments.rest()).map_or_else(|failure| failure, |it| listener::serve(&it)),
        Err(error) => format!("sshd: cannot close its /proc and its files: {error}"),
    };
    // The prolog reads it (`container::start::sshd` in the plugin).
    let _ = writeln!(std::io::stderr(), "{failure}");
    FAILED
}

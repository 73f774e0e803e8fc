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

use crate::arguments::Arguments;
use settings::Settings;

/// The exit code of an sshd that does not start, as OpenSSH's.
const FAILED: i32 = 255;

/// Serves until it is killed. Returns only if it cannot start.
pub(crate) fn run(arguments: &Arguments) -> i32 {
    let failure = match Settings::of(arguments.rest()) {
        Ok(settings) => listener::serve(&settings),
        Err(failure) => failure,
    };
    // The prolog reads it (`container::start::sshd` in the plugin).
    let _ = writeln!(std::io::stderr(), "{failure}");
    FAILED
}

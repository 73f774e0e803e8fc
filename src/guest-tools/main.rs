//! The static program that every container has at `/run/spank-docker/tools`, and in `/run/spank-docker/bin`
//! by the names of Slurm's commands. It runs in any image, and needs nothing of it.
//!
//! ```text
//!   container                                │ node
//!                                            │ relay        root: who connects, and nothing of what is said
//!   srun ──── socket, descriptors 0 1 2 ─────┼── caller     becomes the caller's user, in the caller's cgroups
//!   command   signals ─────────────────────> │   call       as the user: reads the request
//!             <─────────────────── its end   │     └─ srun  the node's own
//! ```
//!
//! By a command's name it stands in for that command: as the user, in the container ([`command`]). With
//! `--relay` it is the other end, on the node: as root, in the job's cgroups ([`relay`]), from where each
//! call becomes the user ([`caller`], [`call`]). Both ends are the same file, so that they always speak the
//! same language ([`request`]).
#![cfg_attr(not(test), no_main)]
#![cfg_attr(test, allow(dead_code, reason = "the entry is not part of the tests"))]

mod arguments;
mod call;
mod caller;
mod command;
mod environment;
mod message;
mod process;
mod relay;
mod request;
mod script;
mod signals;

#[cfg(not(test))]
use std::ffi::{c_char, c_int};

#[cfg(not(test))]
use arguments::Arguments;

/// Without the standard library's own start, which changes what a command inherits: it ignores SIGPIPE, and
/// opens descriptors that the caller has closed.
#[cfg(not(test))]
#[expect(unsafe_code, reason = "the C library's entry")]
#[unsafe(no_mangle)]
extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    // SAFETY: as the C library passes them.
    let arguments = unsafe { Arguments::of_process(argc, argv) };
    match arguments.first() {
        Some(b"--relay") => relay::run(&arguments),
        _ => command::run(&arguments),
    }
}

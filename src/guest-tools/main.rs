//! The static program that every container has at `/run/spank-docker/tools`, and in `/run/spank-docker/bin`
//! under the names of Slurm's commands, and of ssh where the image has none. It runs in any image and uses
//! nothing of the image.
//!
//! As `ssh` and `sshd` it connects the job's nodes ([`ssh`], [`sshd`]).
//!
//! ```text
//!   container                                │ node
//!                                            │ relay        root: accepts connections, reads no request
//!   srun ──── socket, descriptors 0 1 2 ─────┼── caller     becomes the caller's user, in the caller's cgroups
//!   command   signals ─────────────────────> │   call       as the user: reads the request
//!             <─────────────────── its end   │     └─ srun  the node's own
//! ```
//!
//! Under a command's name it is a stand-in for that command: as the user, in the container ([`command`]). With
//! `--relay` it is the server on the node: as root, in the job's cgroups ([`relay`]). For each call it forks a
//! process, which becomes the user ([`caller`], [`call`]). Client and server are the same file, so that they
//! always use the same protocol ([`request`]).
#![cfg_attr(not(test), no_main)]
#![cfg_attr(test, allow(dead_code, reason = "the entry is not part of the tests"))]

mod algorithms;
mod arguments;
mod call;
mod caller;
mod command;
mod environment;
mod flow;
#[path = "../guest/ssh/left_out.rs"]
mod left_out;
mod message;
mod process;
mod relay;
mod request;
mod script;
mod signal_names;
mod signals;
mod ssh;
mod sshd;

#[cfg(not(test))]
use std::ffi::{c_char, c_int};

#[cfg(not(test))]
use arguments::Arguments;

/// Replaces the standard library's entry point, which changes what a command inherits: it ignores SIGPIPE, and
/// opens the standard descriptors that the caller has closed.
#[cfg(not(test))]
#[expect(unsafe_code, reason = "the C library's entry")]
#[unsafe(no_mangle)]
extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    // SAFETY: the C library passes `argc` strings in `argv`.
    let arguments = unsafe { Arguments::of_process(argc, argv) };
    match (arguments.name(), arguments.first()) {
        (b"ssh" | b"slogin", _) => ssh::run(&arguments),
        (b"sshd", _) => sshd::run(&arguments),
        (_, Some(b"--relay")) => relay::run(&arguments),
        _ => command::run(&arguments),
    }
}

//! The static programs that containers have in `/run/spank-docker`. They run in any image and use nothing of it.
//!
//! - `tools` (bin/commands.rs): in `bin` under the names of Slurm's commands. Every container has it.
//! - `ssh_tools` (bin/ssh.rs): ssh and sshd, where the image has none ([`ssh`], [`sshd`]). A program of its own, since it is three
//!   times as large.
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
//! always use the same protocol ([`request`]). A command that controls its terminal gets one of its own
//! ([`own_terminal`]).

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
mod own_terminal;
mod process;
mod raw_terminal;
mod relay;
mod request;
mod script;
mod signal_names;
mod signals;
mod ssh;
mod sshd;

use std::ffi::{c_char, c_int};

use arguments::Arguments;

/// Slurm's commands, and the node's end of them.
///
/// # Safety
/// `argv` must be the `argc` strings that the C library passes to `main`.
#[expect(unsafe_code, reason = "the C library's arguments")]
pub unsafe fn commands(argc: c_int, argv: *const *const c_char) -> c_int {
    // SAFETY: as above.
    let arguments = unsafe { Arguments::of_process(argc, argv) };
    match arguments.first() {
        Some(b"--relay") => relay::run(&arguments),
        _ => command::run(&arguments),
    }
}

/// ssh and sshd.
///
/// # Safety
/// As for [`commands`].
#[expect(unsafe_code, reason = "the C library's arguments")]
pub unsafe fn ssh_and_sshd(argc: c_int, argv: *const *const c_char) -> c_int {
    // SAFETY: as above.
    let arguments = unsafe { Arguments::of_process(argc, argv) };
    match arguments.name() {
        b"sshd" => sshd::run(&arguments),
        _ => ssh::run(&arguments),
    }
}

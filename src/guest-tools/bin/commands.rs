//! Slurm's commands in a container, and the node's end of them.
#![no_main]

use std::ffi::{c_char, c_int};

/// Replaces the standard library's entry point, which changes what a command inherits: it ignores SIGPIPE, and
/// opens the standard descriptors that the caller has closed.
#[expect(unsafe_code, reason = "the C library's entry")]
#[unsafe(no_mangle)]
extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    // SAFETY: the C library passes `argc` strings in `argv`.
    unsafe { spank_docker_guest_tools::commands(argc, argv) }
}

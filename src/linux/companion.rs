//! A program of the plugin that runs beside a job, in its cgroups, until Slurm kills it there with everything else.
//! No process waits for it, and it keeps nothing of its parent's open.
//!
//! Started by root in the extern step's slurmstepd, which has threads, and in the task that starts its step's
//! container.
#![expect(unsafe_code, reason = "a child of a process with threads")]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{OwnedFd, RawFd};

use nix::unistd::{dup2_stdin, fexecve};

use super::cgroup::Cgroups;
use super::{oom, orphan};

/// Starts `program` with these `arguments`, the name included, and `stdin`. Of this process' descriptors,
/// `inherited` were open before any of those: see [`orphan::descriptors`].
pub fn start(
    cgroups: &Cgroups,
    inherited: &[RawFd],
    program: &File,
    arguments: &[CString],
    stdin: &OwnedFd,
) -> io::Result<()> {
    let work = || {
        if cgroups.enter().is_ok() && oom::take_score_of_jobs().is_ok() && dup2_stdin(stdin).is_ok() {
            let _ = fexecve(program, arguments, &[] as &[CString]);
        }
    };
    // SAFETY: makes system calls, and uses memory, which the C library keeps usable.
    unsafe { orphan::spawn(None, inherited, work) }
}

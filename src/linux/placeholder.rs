//! The placeholder of an extern step: a `sleep` that slurmstepd starts (up to 24.11; src/slurmd/slurmstepd/mgr.c,
//! `_spawn_job_container`). When it ends, the extern step ends, and with it the container. Signals for a job's steps
//! (`scancel --signal`, `sbatch --signal`) reach it too.
//!
//! So it is stopped: a stopped process does not act on signals, and Slurm continues all processes of a job before it
//! ends them (src/slurmd/slurmd/req.c, `_rpc_terminate_job`). But Slurm also continues the processes of a suspended job,
//! and then the signals that have arrived take effect. So all signals are blocked in it that Slurm does not need to
//! suspend or end a job. Only ptrace(2) changes another process' signal mask.
//!
//! Runs as root in the extern step's slurmstepd.
#![expect(unsafe_code, reason = "ptrace(2)")]

use std::io;
use std::ptr;
use std::time::{Duration, Instant};

use libc::c_void;
use nix::sys::signal::Signal;

use super::orphan;
use super::poll;
use super::process::{self, Process};

/// The time limit for slurmstepd's child to execute `sleep`, which takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_millis(1);
/// The time limit in seconds for the process that sets the mask.
const SECONDS: u32 = 5;
/// The signals that Slurm needs to suspend and to end a job.
const SLURMS: [Signal; 7] = [
    Signal::SIGTERM,
    Signal::SIGKILL,
    Signal::SIGSTOP,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGCONT,
];

struct Child {
    pid: i32,
    process: Process,
    has_executed: bool,
    leads_group: bool,
}

/// Keeps signals from ending the placeholder of this `slurmstepd`, if it has one.
pub fn protect(slurmstepd: i32) -> io::Result<()> {
    let is_final = |children: &io::Result<Vec<Child>>| match children {
        Ok(children) => children.iter().all(|child| child.has_executed),
        Err(_) => true,
    };
    let children = poll::until(Instant::now() + PATIENCE, INTERVAL, || children(slurmstepd), is_final)?;
    for child in children.iter().filter(|child| child.leads_group) {
        child.process.stop()?;
        block_signals(child.pid)?;
    }
    Ok(())
}

/// The placeholder, and children of `slurmstepd` that have not executed a program yet.
fn children(slurmstepd: i32) -> io::Result<Vec<Child>> {
    // A hook of slurmstepd may run in a child of it.
    let own = std::process::id().to_string();
    let child = |pid: i32| {
        let process = Process::find(pid).ok()?;
        let is_child = process.stat_field(4).ok()? == slurmstepd.to_string() && pid.to_string() != own;
        let name = process.read("comm").ok().filter(|_| is_child)?;
        let has_executed = name == b"sleep\n";
        let leads_group = process.stat_field(5).ok()? == pid.to_string();
        (has_executed && leads_group || name.starts_with(b"slurmstepd")).then_some(Child {
            pid,
            process,
            has_executed,
            leads_group,
        })
    };
    Ok(process::all()?.filter_map(child).collect())
}

/// Done by a process of its own: when that ends, the kernel detaches it from the placeholder, whatever has happened.
fn block_signals(pid: i32) -> io::Result<()> {
    let inherited = orphan::descriptors()?;
    // SAFETY: makes only system calls.
    unsafe { orphan::spawn(Some(SECONDS), &inherited, || set_mask(pid)) }
}

/// Ends without a detach, which the kernel does.
fn set_mask(pid: i32) {
    let bit = |signal: &Signal| 1u64 << (*signal as i32 - 1);
    let mut mask = !SLURMS.iter().map(bit).fold(0, |bits, bit| bits | bit);
    let none = ptr::null_mut::<c_void>();
    let size = ptr::without_provenance_mut::<c_void>(size_of::<u64>());
    // SAFETY: the kernel reads a mask of eight bytes (the size of its sigset_t), and nothing else is written.
    unsafe {
        if libc::ptrace(libc::PTRACE_SEIZE, pid, none, none) == 0
            && libc::ptrace(libc::PTRACE_INTERRUPT, pid, none, none) == 0
            && libc::waitpid(pid, ptr::null_mut(), libc::__WALL) == pid
        {
            libc::ptrace(libc::PTRACE_SETSIGMASK, pid, size, (&raw mut mask).cast::<c_void>());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Command;

    use nix::sys::signal::kill;
    use nix::unistd::Pid;

    use super::*;
    use crate::linux::lacking;

    #[test]
    fn placeholder_that_is_continued_ends_only_by_the_signals_of_slurm() {
        if lacking::root() {
            return;
        }
        let mut placeholder = Command::new("sleep").arg("100").process_group(0).spawn().unwrap();
        let pid = placeholder.id().cast_signed();
        let field = |name: &str| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
        };
        let wait_for = |what: &str, is_so: &dyn Fn() -> bool| {
            let deadline = Instant::now() + Duration::from_secs(10);
            assert!(poll::until(deadline, INTERVAL, is_so, |is_so| *is_so), "{what}");
        };
        protect(std::process::id().cast_signed()).unwrap();
        wait_for("stopped", &|| field("State:").starts_with('T'));
        wait_for("blocked", &|| field("SigBlk:") != "0000000000000000" && field("TracerPid:") == "0");
        assert!(field("State:").starts_with('T'), "still stopped");
        for signal in [Signal::SIGUSR1, Signal::SIGCONT, Signal::SIGUSR2, Signal::SIGHUP] {
            kill(Pid::from_raw(pid), signal).unwrap();
        }
        wait_for("continued", &|| field("State:").starts_with('S'));
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
        assert_eq!(placeholder.wait().unwrap().signal(), Some(Signal::SIGTERM as i32));
    }
}

//! `dockerexec CMD…`: runs CMD in the job's container on this node, from a batch script that runs on the host
//! (`--docker-script=host`). Runs as the user, without privileges: it executes srun, and the command becomes a
//! step of one task, so that Slurm provides standard input and output, exit code, limits, accounting and (with
//! a terminal) a pty.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    reason = "a program, not part of the plugin"
)]

use std::env;
use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::process::{Command, exit};

const USAGE: &str = "usage: dockerexec CMD [ARG...]\n\
    Runs CMD in this job's container on this node. For batch scripts with --docker-script=host.";
/// The exit code that env(1) uses for a command that cannot be run.
const CANNOT_RUN: i32 = 127;
/// EX_USAGE of sysexits.h.
const BAD_USAGE: i32 = 64;

/// Variables by which srun gives a step only some of the job's CPUs (srun(1), "INPUT ENVIRONMENT VARIABLES").
const OF_STEPS: [&str; 3] = ["SLURM_CPU_BIND", "SLURM_EXACT", "SRUN_CPUS_PER_TASK"];

fn main() {
    let mut command: Vec<_> = env::args_os().skip(1).collect();
    match command.first().and_then(|first| first.to_str()) {
        None if command.is_empty() => fail(USAGE, BAD_USAGE),
        Some("-h" | "--help") => {
            println!("{USAGE}");
            exit(0)
        }
        Some("--") if command.len() > 1 => drop(command.remove(0)),
        Some(option) if option.starts_with('-') => fail(USAGE, BAD_USAGE),
        _ => {}
    }
    let (Some(_), Some(node)) = (env::var_os("SLURM_JOB_ID"), env::var_os("SLURMD_NODENAME")) else {
        fail("dockerexec: not running in a job on one of its nodes: use it in a batch script", CANNOT_RUN);
    };
    let mut srun = Command::new("srun");
    // --overlap: the step shares the CPUs and memory of the job's other steps.
    srun.args([
        "--overlap",
        "--quiet",
        "--nodes=1",
        "--ntasks=1",
        "--ntasks-per-node=1",
        "--export=ALL",
        "--docker-launch=auto",
    ]);
    srun.arg("--nodelist").arg(node);
    // The command has all CPUs of the job on this node, as the script has, whatever it says to its own steps.
    for name in OF_STEPS {
        srun.env_remove(name);
    }
    // The job's container, not another one, and never the host: see `slurm::env_protocol` in the plugin.
    srun.env_remove("SLURM_DOCKER_IMAGE").env("SLURM_DOCKEREXEC", "1");
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        srun.arg("--pty");
    }
    let error = srun.arg("--").args(command).exec();
    fail(&format!("dockerexec: cannot run srun: {error}"), CANNOT_RUN);
}

fn fail(text: &str, code: i32) -> ! {
    eprintln!("{text}");
    exit(code)
}

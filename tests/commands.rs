//! The command `spank-docker` as a program: what the library's own tests do not see.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs::File;
use std::process::{Command, Output, Stdio};

/// What becomes of it, without Slurm's commands. `None` without root, which it needs.
fn run(arguments: &[&str], output: Stdio) -> Option<Output> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_spank-docker"));
    command.args(arguments).env("PATH", "/nowhere").env_remove("SLURM_CONF").stdout(output);
    Some(command.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap())
}

#[test]
fn output_that_cannot_be_written_is_named() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let Some(output) = run(&["check"], full.into()) else { return };
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "spank-docker: cannot write to standard output: No space left on device (os error 28)\n"
    );
    assert_eq!(output.status.code(), Some(3));
}

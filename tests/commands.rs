//! The command `spank-docker` as a program: what the library's own tests do not see.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs::File;
use std::process::{Command, Output, Stdio};

/// What becomes of it, without Slurm's commands and configuration. `None` without root, which it needs.
fn run(arguments: &[&str], output: Stdio) -> Option<Output> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_spank-docker"));
    command.args(arguments).env("PATH", "/nowhere").env("SLURM_CONF", "/nowhere/slurm.conf").stdout(output);
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

#[test]
fn command_does_not_guess_settings_where_slurm_conf_cannot_be_read() {
    for command in ["jobs", "images", "metrics"] {
        let Some(output) = run(&[command], Stdio::piped()) else { return };
        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            "spank-docker: SLURM_CONF: '/nowhere/slurm.conf' cannot be read (No such file or directory (os error 2)): correct it, or unset it\n",
            "{command}"
        );
        assert_eq!((output.status.code(), output.stdout.len()), (Some(3), 0), "{command}");
    }
}

//! `spank-docker`, run by an admin, or by monitoring, as root. `check` tests whether this node can run jobs in
//! containers, with one line for each check. `secret` makes a new secret for the cluster.
#![expect(clippy::print_stderr, reason = "a program, not part of the plugin")]

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use spank_docker::check;
use spank_docker::guest::ssh::new_secret;

const USAGE: &str = "usage: spank-docker check [--json] [--accept NAME,...]
       spank-docker secret
       spank-docker --help | --version

check: inspects whether this node is ready for jobs in containers, and changes
nothing. Run it as root on a node with slurmd.

Prints a line `LEVEL CHECK: WHAT` for each check or, with --json, one object.
Exits with 0 if all is ok, 1 for warnings, 2 for failures, and 3 if the check
could not run. --accept turns warnings off: by the name of a CHECK, or of a
vulnerability such as CVE-2025-31133 that a distribution has fixed without a new
version number. Failures cannot be accepted.

secret: creates the file from which the ssh keys of all jobs are derived, at the
path of the setting secret=, else at /etc/slurm/spank-docker.secret. It never
overwrites a file.
";
/// Nagios' code for an unknown state.
const UNKNOWN: u8 = 3;

fn main() -> ExitCode {
    let arguments: Vec<String> =
        env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["--help" | "-h"] | ["check", "--help" | "-h"] => print(USAGE, 0),
        ["--version"] => print(concat!("spank-docker ", env!("CARGO_PKG_VERSION"), "\n"), 0),
        ["check", options @ ..] => match check_options(options) {
            Ok((json, accepted)) => check(json, &accepted),
            Err(line) => refuse(&line),
        },
        ["secret"] => secret(),
        ["secret", "--help" | "-h"] => print(USAGE, 0),
        [] => refuse("no command: use check, secret, --help or --version"),
        ["secret", other, ..] => refuse(&format!("'{other}' is not an option of secret: it takes none")),
        [other, ..] => refuse(&format!("'{other}' is not a command: use check, secret, --help or --version")),
    }
}

/// Whether JSON is requested, and which warnings are accepted.
fn check_options(options: &[&str]) -> Result<(bool, Vec<String>), String> {
    let (mut json, mut accepted) = (false, Vec::new());
    let mut rest = options.iter();
    while let Some(option) = rest.next() {
        let names = match option.split_once('=') {
            None if *option == "--json" => {
                json = true;
                continue;
            }
            None if *option == "--accept" => {
                rest.next().copied().ok_or("--accept: no name given: use --accept NAME,NAME")?
            }
            Some(("--accept", names)) => names,
            _ => {
                return Err(format!(
                    "'{option}' is not an option of check: use --json, --accept NAME, or nothing"
                ));
            }
        };
        accepted.extend(names.split(',').map(str::to_owned));
    }
    Ok((json, accepted))
}

fn check(json: bool, accepted: &[String]) -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        return refuse("the check needs root: run it as root");
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let report = check::check(&path, env::var_os("SLURM_CONF").as_deref(), accepted);
    let text =
        if json { serde_json::to_string(&report).map(|text| text + "\n") } else { Ok(report.to_string()) };
    match text {
        Ok(text) => print(&text, report.level.exit_code()),
        Err(error) => refuse(&format!("cannot write the report: {error}")),
    }
}

fn secret() -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        return refuse("creating a secret needs root: run it as root");
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let place = match check::place_of_secret(&path, env::var_os("SLURM_CONF").as_deref()) {
        Ok(place) => place,
        Err(error) => return refuse(&error),
    };
    match new_secret::make(&place) {
        Ok(()) => print(&what_comes_next(&place.display().to_string()), 0),
        Err(error) => refuse(&error.to_string()),
    }
}

fn what_comes_next(place: &str) -> String {
    format!(
        "created '{place}': {} random bytes, mode 0400
Copy it to the same path on all nodes with slurmd, with owner and mode (scp -p), and nowhere else: login nodes do not need it.
This node uses it from now on. While nodes have different secrets, jobs that span them fail, because their containers do not
accept each other's keys: drain the nodes first, or do this in a maintenance window. Running jobs keep their keys. Whoever has
the old secret can derive these keys until the jobs have ended.
",
        new_secret::LENGTH
    )
}

fn print(text: &str, code: u8) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::from(code),
        Err(error) => refuse(&format!("cannot write to standard output: {error}")),
    }
}

fn refuse(line: &str) -> ExitCode {
    eprintln!("spank-docker: {line}");
    ExitCode::from(UNKNOWN)
}

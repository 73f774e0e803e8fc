//! The job's ssh where the image has none: reaches the job's nodes, and nothing else. For any other host it
//! executes the image's own ssh, if there is one.
//!
//! ```text
//!   command_line   what launchers, rsync and git give to ssh
//!   node           where a node is, and its key: from the files that the plugin writes for OpenSSH's ssh
//!   state          the caller's variables, umask and limits, which the session at the other end takes over
//!   client         the connection and the session, by russh
//!   terminal       the caller's terminal while a session has it
//! ```

mod client;
mod command_line;
mod node;
mod state;
mod terminal;

use std::io::{self, Write};

use nix::unistd::Pid;

use crate::arguments::{Arguments, environment};
use crate::{process, signals};
use command_line::{Asked, CommandLine};

/// The exit code of ssh for everything that is not its command's.
const FAILED: i32 = 255;
/// The image's own ssh, where this program covers it; empty where the image has none.
const OF_IMAGE: &str = "/run/spank-docker/ssh_of_image";

/// Returns the exit code.
pub(crate) fn run(arguments: &Arguments) -> i32 {
    if process::occupy_standard_descriptors().is_err() {
        return FAILED;
    }
    let parent = nix::unistd::getppid();
    let is_launchers = is_from_launcher(arguments, parent);
    let code = match reach(arguments) {
        Ok(code) => {
            if code == FAILED && is_launchers {
                say("the MPI launcher's daemon at the other end was killed, or could not start");
            }
            code
        }
        Err(text) => {
            say(&text);
            FAILED
        }
    };
    if code == FAILED && is_launchers {
        end_launcher(parent);
    }
    code
}

/// If standard error is closed, the line is lost.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "spank_docker: ssh: {text}");
}

/// Whether this starts a daemon for MPICH's or Intel MPI's launcher; not for a script that starts such a daemon itself.
fn is_from_launcher(arguments: &Arguments, parent: Pid) -> bool {
    let words = arguments.rest().join(&b' ');
    let words = String::from_utf8_lossy(&words);
    let is_launcher = || {
        let name = std::fs::read_to_string(format!("/proc/{parent}/comm")).unwrap_or_default();
        name.starts_with("mpi") || name.starts_with("hydra")
    };
    words.split_once("hydra").is_some_and(|(_, rest)| rest.contains("proxy")) && is_launcher()
}

/// Ends the launcher, which waits without end for a daemon that ssh could not start. A second later, for it must have read and
/// passed on what was printed. Another one's ssh may have ended it by then: whoever is the parent now is left alone.
fn end_launcher(launcher: Pid) {
    std::thread::sleep(std::time::Duration::from_secs(1));
    if nix::unistd::getppid() == launcher {
        process::send(launcher, libc::SIGTERM, false);
    }
}

fn reach(arguments: &Arguments) -> Result<i32, String> {
    match CommandLine::parse(arguments.rest()) {
        Ok(Asked::Version) => {
            let _ = writeln!(io::stderr(), "spank_docker: ssh to the job's nodes");
            Ok(0)
        }
        Ok(Asked::Host(line)) => match node::find(&line.host)? {
            Some(node) => {
                signals::ignore(signals::only(libc::SIGPIPE) | signals::ignored());
                client::run(&line, &node)
            }
            None => Err(images_own(arguments).unwrap_or_else(|| {
                format!(
                    "'{}' is not a node of this job, and the image has no ssh of its own: install openssh-client in it",
                    line.host
                )
            })),
        },
        Err(text) => Err(images_own(arguments).unwrap_or(text)),
    }
}

/// Executes the image's own ssh, which knows the job's nodes too. Returns only if that fails; `None` where the
/// image has none.
fn images_own(arguments: &Arguments) -> Option<String> {
    if std::fs::metadata(OF_IMAGE).map_or(0, |found| found.len()) == 0 {
        return None;
    }
    let all: Vec<Vec<u8>> = [b"ssh".to_vec()].into_iter().chain(arguments.rest().iter().cloned()).collect();
    // Libraries of the user's are not meant for it.
    let is_loaders =
        |entry: &Vec<u8>| entry.starts_with(b"LD_LIBRARY_PATH=") || entry.starts_with(b"LD_PRELOAD=");
    let environment: Vec<Vec<u8>> = environment().into_iter().filter(|entry| !is_loaders(entry)).collect();
    Some(format!(
        "cannot execute the image's ssh: {}",
        process::execute(OF_IMAGE.as_bytes(), &all, &environment)
    ))
}

//! One call, on the node, as the user: reads the request, runs the node's command, forwards signals to it, and
//! reports its end. If the caller ends, the command is ended too.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, fstat, umask};
use nix::unistd::{ForkResult, Pid, chdir, getpid, setpgid, setsid};

use crate::environment;
use crate::message::Message;
use crate::process;
use crate::request::{HEADER, Request, Script};
use crate::signals::{self, Arriving};

/// How long a caller may take to send its request.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the command may take to end after SIGTERM when its caller has ended: srun ends its step first.
const GRACE: Duration = Duration::from_secs(30);
/// The descriptors of a request: 0, 1, 2, the working directory, the directory of a script.
const DESCRIPTORS: usize = 5;
/// PATH of the node's command.
const PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The exit codes of a shell for a command that it cannot find, and for one that it cannot execute.
const NOT_FOUND: i32 = 127;
const CANNOT_RUN: i32 = 126;

/// What a call needs to know of the node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    /// The node's name in Slurm.
    pub(crate) name: Vec<u8>,
    /// The job's working directory.
    pub(crate) directory: Vec<u8>,
    /// slurmd's configuration file; empty for the default.
    pub(crate) slurm_conf: Vec<u8>,
    /// The allowed commands: their names and paths.
    pub(crate) commands: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Serves the call of this process, which is the user's by now. Returns its exit code, which no process reads.
pub(crate) fn answer(node: &Node, connection: &UnixStream) -> i32 {
    // Without a controlling terminal, so that no job control stops a command that uses the caller's terminal:
    // that holds in the terminal's own session alone (tty_jobctrl.c, `__tty_check_change`).
    let _ = setsid();
    match serve(node, connection) {
        Ok(()) => 0,
        // The caller is gone, or its request is malformed.
        Err(_) => 1,
    }
}

fn serve(node: &Node, connection: &UnixStream) -> io::Result<()> {
    connection.set_read_timeout(Some(PATIENCE))?;
    let (request, descriptors) = receive(connection)?;
    let Some((_, program)) = node.commands.iter().find(|(name, _)| *name == request.name) else {
        say(
            &descriptors,
            &request,
            "is not one of Slurm's commands on this node, or the admin has not allowed it (slurm_commands)",
        );
        return Message::Ended(NOT_FOUND << 8).send(connection);
    };
    Message::Ready.send(connection)?;
    let mut go = [0; 2];
    (&*connection).read_exact(&mut go)?;
    connection.set_read_timeout(None)?;
    enter_directory(node, &request, &descriptors);
    let passing = Arriving::of(signals::only(libc::SIGCHLD))?;
    signals::block(signals::only(libc::SIGCHLD));
    let own = getpid();
    match process::fork()? {
        ForkResult::Child => {
            let error = become_command(node, own, program, &request, &descriptors);
            say(&descriptors, &request, &format!("cannot be run on the node: {error}"));
            process::leave(CANNOT_RUN)
        }
        ForkResult::Parent { child } => {
            drop(descriptors);
            attend(connection, &passing, child, request.has_terminal)
        }
    }
}

/// Receives the request, and the descriptors with its header.
fn receive(connection: &UnixStream) -> io::Result<(Request, Vec<OwnedFd>)> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let mut header = [0; HEADER];
    let descriptors = process::receive_descriptors::<DESCRIPTORS>(connection.as_fd(), &mut header)?;
    let length = Request::length(header).ok_or_else(invalid)?;
    let mut bytes = Vec::new();
    connection.take(u64::try_from(length).map_err(io::Error::other)?).read_to_end(&mut bytes)?;
    if bytes.len() != length || descriptors.len() != DESCRIPTORS {
        return Err(invalid());
    }
    Ok((Request::decode(&bytes).ok_or_else(invalid)?, descriptors))
}

fn say(descriptors: &[OwnedFd], request: &Request, text: &str) {
    let line = format!("spank_docker: {}: {text}\n", request.name.escape_ascii());
    if request.open & 0b100 != 0
        && let Some(error) = descriptors.get(2)
    {
        // If the caller's standard error is closed, the line is lost.
        let _ = nix::unistd::write(error, line.as_bytes());
    }
}

/// Whether the command starts something in its working directory, or reads or writes files there: `scontrol write batch_script`
/// and `scrontab FILE` as well, and sacctmgr's `dump`, `load` and `archive`.
fn uses_directory(request: &Request) -> bool {
    let says = |words: &[&[u8]]| request.arguments.iter().any(|argument| words.contains(&&argument[..]));
    match &request.name[..] {
        b"srun" | b"sbatch" | b"salloc" | b"sbcast" => true,
        b"scontrol" => says(&[b"write"]),
        b"scrontab" => request.arguments.last().is_some_and(|last| !last.starts_with(b"-")),
        b"sacctmgr" => says(&[b"dump", b"load", b"archive"]),
        _ => false,
    }
}

/// Changes to the caller's working directory if its path leads to the same directory on the node, else to the
/// job's, and says so.
fn enter_directory(node: &Node, request: &Request, descriptors: &[OwnedFd]) {
    let asked = descriptors.get(3).and_then(|directory| fstat(directory).ok());
    let is_same = |path: &Path| {
        let here = fs::metadata(path).ok();
        here.zip(asked).is_some_and(|(here, asked)| (here.dev(), here.ino()) == (asked.st_dev, asked.st_ino))
    };
    let path = Path::new(OsStr::from_bytes(&request.directory));
    if path.is_absolute() && is_same(path) && chdir(path).is_ok() {
        return;
    }
    let of_job = Path::new(OsStr::from_bytes(&node.directory));
    let directory = if of_job.is_absolute() && chdir(of_job).is_ok() { of_job } else { Path::new("/") };
    if directory == Path::new("/") {
        let _ = chdir(directory);
    }
    if !uses_directory(request) {
        return;
    }
    say(
        descriptors,
        request,
        &format!(
            "directory '{}' is not on node '{}': running in '{}'",
            request.directory.escape_ascii(),
            node.name.escape_ascii(),
            directory.as_os_str().as_bytes().escape_ascii()
        ),
    );
}

/// Executes the command in the child. Returns only if that fails.
fn become_command(
    node: &Node,
    parent: Pid,
    program: &[u8],
    request: &Request,
    descriptors: &[OwnedFd],
) -> io::Error {
    let prepared = || -> io::Result<()> {
        match request.has_terminal {
            true => drop(setsid()?),
            false => setpgid(Pid::from_raw(0), Pid::from_raw(0))?,
        }
        // Not SIGKILL: on SIGTERM srun ends its step.
        process::end_with_parent(parent, Signal::SIGTERM)?;
        umask(Mode::from_bits_truncate(request.umask));
        for (number, descriptor) in (0..3).zip(descriptors) {
            match request.open & (1 << number) {
                0 => process::close(number),
                _ => process::put(descriptor.as_fd(), number)?,
            }
        }
        if request.has_terminal {
            process::control_terminal()?;
        }
        signals::ignore(request.ignored);
        signals::block(request.blocked);
        Ok(())
    };
    if let Err(error) = prepared() {
        return error;
    }
    let mut arguments = vec![request.name.clone()];
    arguments.extend(request.arguments.iter().cloned());
    if let Some(script) = &request.script
        && let Some(directory) = descriptors.get(4)
        && let Err(error) = hand_over(script, directory, &mut arguments)
    {
        return error;
    }
    let is_file = |path: &[u8]| Path::new(OsStr::from_bytes(path)).is_file();
    let environment = environment::of_command(&request.environment, PATH, &node.slurm_conf, is_file);
    process::execute(program, &arguments, &environment)
}

/// Forwards signals until the command has ended, and reports its end.
fn attend(connection: &UnixStream, children: &Arriving, child: Pid, has_terminal: bool) -> io::Result<()> {
    let mut is_caller_there = true;
    loop {
        let mut polled = [
            PollFd::new(children.as_fd(), PollFlags::POLLIN),
            PollFd::new(connection.as_fd(), PollFlags::POLLIN),
        ];
        let ready = match is_caller_there {
            true => poll(&mut polled, PollTimeout::NONE),
            false => poll(&mut polled[..1], PollTimeout::try_from(GRACE).unwrap_or(PollTimeout::MAX)),
        };
        let has_said = is_caller_there && polled[1].any().unwrap_or_default();
        while children.next().is_some() {}
        match process::look(child)? {
            Some(status) if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) => {
                return Message::Ended(status).send(connection);
            }
            // If the caller is gone, the read below reports it.
            Some(status) if libc::WIFSTOPPED(status) => drop(Message::Stopped.send(connection)),
            Some(_) | None if ready == Ok(0) => process::send(child, libc::SIGKILL, true),
            Some(_) | None => {}
        }
        if !has_said {
            continue;
        }
        match next_signal(connection) {
            // Whether SIGTSTP stops a process depends on its session and process group, which are not the
            // caller's.
            Some((libc::SIGTSTP, to_all)) => process::send(child, libc::SIGSTOP, to_all),
            Some((signal, to_all)) => process::send(child, signal, to_all),
            // The kernel has hung up the terminal, which went with the caller. A second signal could catch salloc
            // while it ends its job: its handler of SIGTERM does that too, and would wait for itself without end
            // (src/salloc/salloc.c, `_signal_while_allocating`).
            None if has_terminal => is_caller_there = false,
            None => {
                is_caller_there = false;
                process::send(child, libc::SIGTERM, true);
                process::send(child, libc::SIGCONT, true);
            }
        }
    }
}

fn next_signal(mut connection: &UnixStream) -> Option<(i32, bool)> {
    let mut bytes = [0; 2];
    connection.read_exact(&mut bytes).ok()?;
    let [signal, to_all] = bytes;
    Some((signal.into(), to_all != 0))
}

/// If the path of a batch script does not lead to the same file on the node, replaces the path by one through
/// the script's open directory. So the file's name stays, from which sbatch makes the job's name.
fn hand_over(script: &Script, directory: &OwnedFd, arguments: &mut [Vec<u8>]) -> io::Result<()> {
    let Some(path) = usize::try_from(script.place).ok().and_then(|place| arguments.get_mut(place + 1)) else {
        return Ok(());
    };
    let here = fs::metadata(OsStr::from_bytes(path)).ok();
    if here.is_some_and(|here| (here.dev(), here.ino()) == (script.device, script.inode)) {
        return Ok(());
    }
    let number = process::keep_open(directory.as_fd())?;
    *path = [format!("/proc/self/fd/{number}/").as_bytes(), &script.name].concat();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_matters_where_a_command_uses_it() {
        let uses = |line: &str| {
            let mut words = line.split(' ').map(|word| word.as_bytes().to_vec());
            let name = words.next().unwrap_or_default();
            uses_directory(&Request { name, arguments: words.collect(), ..Request::default() })
        };
        for line in [
            "srun ./app",
            "sbatch next.sh",
            "scontrol -o write batch_script 7",
            "scrontab table",
            "sacctmgr -i load file=cluster.cfg",
        ] {
            assert!(uses(line), "{line}");
        }
        for line in
            ["squeue", "scontrol show hostnames n[1-3]", "scrontab -l", "scrontab", "sacctmgr show user"]
        {
            assert!(!uses(line), "{line}");
        }
    }
}

//! The stand-in for a Slurm command in the container: has the relay run the node's command. This process stays
//! in the foreground of its terminal, forwards the signals that it receives, and ends as the command ends.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;

use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::stat::{Mode, umask};

use crate::arguments::{Arguments, environment};
use crate::message::{Message, Refusal};
use crate::own_terminal::{self, OwnTerminal};
use crate::process;
use crate::request::{HEADER, Request};
use crate::script;
use crate::signals::{self, Arriving};

/// The relay's socket.
const SOCKET: &str = "/run/spank-docker/commands";
/// The exit codes of a shell for a command that it cannot find, and for one that it cannot execute.
const NOT_FOUND: i32 = 127;
const CANNOT_RUN: i32 = 126;

/// Runs the command under whose name this process was started. Returns its exit code.
pub(crate) fn run(arguments: &Arguments) -> i32 {
    match pass_on(arguments) {
        Ok(code) => code,
        Err(Failure { text, code }) => {
            say(arguments.name(), &text);
            code
        }
    }
}

struct Failure {
    text: String,
    code: i32,
}

impl Failure {
    fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: CANNOT_RUN }
    }
}

fn say(name: &[u8], text: &str) {
    // If standard error is closed, the line is lost.
    let _ = writeln!(io::stderr(), "spank_docker: {}: {text}", name.escape_ascii());
}

fn pass_on(arguments: &Arguments) -> Result<i32, Failure> {
    let open_before = process::occupy_standard_descriptors()
        .map_err(|error| Failure::new(format!("cannot open /dev/null: {error}")))?;
    let connection = UnixStream::connect(SOCKET).map_err(|error| unreachable(&error))?;
    let (ignored, blocked) = (signals::ignored(), signals::blocked());
    let directory = open(".", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).ok();
    let script = script::find(arguments.name(), arguments.rest());
    let (mut terminal, of_command) = own_terminal(arguments.name(), open_before)?.unzip();
    let request = Request {
        name: arguments.name().to_vec(),
        arguments: arguments.rest().to_vec(),
        environment: environment(),
        directory: std::env::current_dir().unwrap_or_default().into_os_string().into_vec(),
        open: open_before,
        has_terminal: terminal.is_some(),
        umask: own_umask(),
        ignored,
        blocked,
        script: script.as_ref().map(|(script, _)| script.clone()),
    };
    let bytes = request.encode().ok_or_else(|| Failure::new("arguments and environment are too long"))?;
    let root =
        File::open("/dev/null").map_err(|error| Failure::new(format!("cannot open /dev/null: {error}")))?;
    let directory = directory.as_ref().map_or(root.as_fd(), AsFd::as_fd);
    let script = script.as_ref().map_or(root.as_fd(), |(_, directory)| directory.as_fd());
    let (input, output, errors) = (io::stdin(), io::stdout(), io::stderr());
    let standard = [input.as_fd(), output.as_fd(), errors.as_fd()].map(|descriptor| match &of_command {
        Some(terminal) if own_terminal::is_callers(descriptor) => terminal.as_fd(),
        _ => descriptor,
    });
    let sent = send(&connection, standard, [directory, script], &bytes);
    // The command's end of the terminal: its output is over when the command and its children have closed it.
    drop(of_command);
    // A relay that refuses does not read the request: then `sent` is an error, and the answer has the reason.
    let answer = Message::receive(&connection);
    let ended = match (sent, answer) {
        (Ok(()), Ok(Message::Ready)) => accompany(&connection, ignored, blocked, terminal.as_mut()),
        (_, Ok(Message::Refused(refusal))) => Err(refused(refusal)),
        (_, Ok(Message::Ended(status))) => Ok(status),
        (_, Ok(_) | Err(_)) => Err(gone()),
    };
    // Before a signal that has ended the command ends this process.
    if let Some(terminal) = terminal {
        terminal.finish();
    }
    ended.map(end_as)
}

/// The terminal of a command that needs one of its own, and the command's end of it.
fn own_terminal(command: &[u8], open: u8) -> Result<Option<(OwnTerminal, OwnedFd)>, Failure> {
    if !own_terminal::is_wanted(command, open & 1 != 0) {
        return Ok(None);
    }
    let failed = |error| {
        Failure::new(format!(
            "cannot have a terminal of its own: {error}: give it another input, as by </dev/null"
        ))
    };
    OwnTerminal::open().map(Some).map_err(failed)
}

fn unreachable(error: &io::Error) -> Failure {
    match error.kind() {
        ErrorKind::NotFound => {
            Failure { text: "Slurm's commands are not available in this container".into(), code: NOT_FOUND }
        }
        ErrorKind::ConnectionRefused => gone(),
        ErrorKind::PermissionDenied => refused(Refusal::User),
        _ => Failure::new(format!("cannot reach the node: {error}")),
    }
}

fn gone() -> Failure {
    Failure::new("the node's end of the connection is gone: the job or the step is ending, or it was killed")
}

fn refused(refusal: Refusal) -> Failure {
    Failure::new(match refusal {
        Refusal::User => "only the job's user can use Slurm's commands in this container",
        Refusal::Stranger => "this process is not in the job's cgroups: it cannot use the job's commands",
        Refusal::Failed => "the node cannot start a process for it: the job has reached a limit",
    })
}

/// umask(2) can only be read by changing it.
fn own_umask() -> u32 {
    let own = umask(Mode::empty());
    umask(own);
    own.bits()
}

/// Sends the request, and the descriptors with its header.
fn send(
    connection: &UnixStream,
    standard: [BorrowedFd<'_>; 3],
    others: [BorrowedFd<'_>; 2],
    bytes: &[u8],
) -> io::Result<()> {
    let descriptors: Vec<_> =
        standard.into_iter().chain(others).map(|descriptor| descriptor.as_raw_fd()).collect();
    let (header, rest) = bytes.split_at(HEADER);
    let rights = [ControlMessage::ScmRights(&descriptors)];
    sendmsg::<()>(connection.as_raw_fd(), &[IoSlice::new(header)], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    let mut rest = rest;
    while !rest.is_empty() {
        let parts = [IoSlice::new(rest)];
        let count = sendmsg::<()>(connection.as_raw_fd(), &parts, &[], MsgFlags::MSG_NOSIGNAL, None)?;
        rest = rest.get(count..).unwrap_or_default();
    }
    Ok(())
}

/// Forwards signals until the command has ended, and copies between the caller's terminal and the command's. Returns
/// the wait status. Signals are blocked here: one that ended this process would close the connection, and the command
/// would get SIGTERM instead of that signal.
fn accompany(
    connection: &UnixStream,
    ignored: u64,
    blocked: u64,
    mut terminal: Option<&mut OwnTerminal>,
) -> Result<i32, Failure> {
    let passed_on = signals::passed_on() & !ignored & !blocked;
    signals::block(blocked | passed_on);
    let arriving = Arriving::of(passed_on).map_err(|error| Failure::new(error.to_string()))?;
    terminal.iter_mut().for_each(|terminal| terminal.take());
    go(connection)?;
    let mut was_continued = false;
    loop {
        let mut descriptors = vec![
            PollFd::new(connection.as_fd(), PollFlags::POLLIN),
            PollFd::new(arriving.as_fd(), PollFlags::POLLIN),
        ];
        descriptors.extend(terminal.iter().flat_map(|terminal| terminal.awaited()));
        // EINTR after a stop and continuation: nothing is lost.
        let _ = poll(&mut descriptors, terminal.as_ref().map_or(PollTimeout::NONE, |own| own.patience()));
        let has = |place: usize| descriptors.get(place).and_then(PollFd::any).unwrap_or_default();
        let (from_other_end, from_others) = (has(0), has(1));
        drop(descriptors);
        terminal.iter_mut().for_each(|terminal| terminal.copy());
        while from_others && let Some(arrived) = arriving.next() {
            if arrived.signal == libc::SIGWINCH
                && let Some(terminal) = &terminal
            {
                terminal.resize();
                continue;
            }
            // If the relay is gone, the next read reports it.
            let number = u8::try_from(arrived.signal).unwrap_or_default();
            let _ = (&*connection).write_all(&[number, arrived.is_kernels.into()]);
            match arrived.signal {
                libc::SIGTSTP => was_continued = false,
                libc::SIGCONT => {
                    was_continued = true;
                    terminal.iter_mut().for_each(|terminal| terminal.take());
                }
                _ => {}
            }
        }
        if from_other_end {
            match Message::receive(connection) {
                Ok(Message::Ended(status)) => return Ok(status),
                // If SIGCONT has arrived meanwhile, this process must not stop.
                Ok(Message::Stopped) if !was_continued => {
                    terminal.iter_mut().for_each(|terminal| terminal.give_back());
                    signals::stop();
                }
                Ok(Message::Stopped) => {}
                Ok(Message::Ready) => {}
                Ok(Message::Refused(refusal)) => return Err(refused(refusal)),
                Err(_) => return Err(gone()),
            }
        }
    }
}

fn go(mut connection: &UnixStream) -> Result<(), Failure> {
    connection.write_all(&[0, 0]).map_err(|_| gone())
}

/// Ends this process by the signal that has ended the command; otherwise returns the command's exit code.
fn end_as(status: i32) -> i32 {
    if libc::WIFSIGNALED(status) {
        let signal = libc::WTERMSIG(status);
        signals::die_of(signal);
        return 128 + signal;
    }
    libc::WEXITSTATUS(status)
}

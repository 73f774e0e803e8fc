//! A session of a connection: one command, with pipes or with a terminal of its own.
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::pty::openpty;
use nix::unistd::Pid;
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy};
use tokio::net::unix::pipe;
use tokio::process::Command;
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::account::Account;
use crate::flow::Waiting;
use crate::process;
use crate::signal_names::{named, numbered};

/// The PATH until the session's script sets the job's.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Debian's bash reads ~/.bashrc for each command where it has SSH_CLIENT and this is not set (shell.c, `run_startup_files`), as
/// if sshd had started it: after the session's script, that would undo what the caller's shell has set. A client of OpenSSH
/// sends it.
const LEVEL: &str = "SHLVL";
/// The shell of an image that does not have the user's.
const SHELL: &str = "/bin/sh";
/// The command that the session's script gets for the subsystem `sftp`.
const SFTP: (&str, &[u8]) = ("sftp", b"internal-sftp");
/// The most variables, and bytes in them, that a client may send.
const VARIABLES: usize = 1024;
const BYTES: usize = 4 << 20;
/// How long the rest of a terminal's output may take when its command has ended, but other processes have the
/// terminal open.
const REST: Duration = Duration::from_millis(100);
const STDERR: u32 = 1;
/// Exists once the job's limits hold for the container.
const ADOPTED: &str = "/run/spank-docker/adopted";
const INTERVAL: Duration = Duration::from_millis(10);

/// What a session has from its connection.
pub(super) struct Surroundings {
    pub(super) account: Account,
    /// The client's address, and this node's.
    pub(super) ends: [SocketAddr; 2],
    /// What is executed in place of the client's command.
    pub(super) command: String,
}

/// What a client has requested before the command.
#[derive(Default)]
struct Request {
    variables: Vec<(String, String)>,
    bytes: usize,
    terminal: Option<(String, libc::winsize)>,
    /// None for a login shell.
    command: Option<Vec<u8>>,
}

pub(super) fn is_subsystem(name: &str) -> bool {
    name == SFTP.0
}

/// Serves a session to its end.
pub(super) async fn serve(
    channel: Channel<Msg>,
    handle: Handle,
    surroundings: Surroundings,
    waiting: Waiting,
) {
    let id = channel.id();
    let (mut from, to) = channel.split();
    let Some(request) = read_request(&mut from, &waiting).await else { return };
    // The session's script waits too, but the image may have no sleep(1).
    while !Path::new(ADOPTED).exists() {
        tokio::time::sleep(INTERVAL).await;
    }
    let ended = match Started::begin(&request, &surroundings) {
        Ok(started) => started.serve(from, &to, waiting).await,
        Err(error) => {
            let line = format!("spank_docker: sshd: cannot start a shell: {error}\r\n");
            let _ = to.extended_data_bytes(STDERR, line.into_bytes()).await;
            // No exit code of a command's: a launcher that waits for its daemon ends by it (`ssh::end_launcher`).
            Ok(ExitStatus::from_raw(255 << 8))
        }
    };
    if let Ok(status) = ended {
        match status.signal() {
            Some(signal) => {
                let sent = handle.exit_signal_request(
                    id,
                    named(signal),
                    status.core_dumped(),
                    String::new(),
                    String::new(),
                );
                let _ = sent.await;
            }
            None => {
                let code = status.code().and_then(|code| u32::try_from(code).ok());
                let _ = to.exit_status(code.unwrap_or(255)).await;
            }
        }
    }
    let _ = to.eof().await;
    let _ = to.close().await;
}

async fn read_request(from: &mut ChannelReadHalf, waiting: &Waiting) -> Option<Request> {
    let mut request = Request::default();
    loop {
        match from.wait().await? {
            ChannelMsg::SetEnv { variable_name, variable_value, .. } => {
                request.bytes += variable_name.len() + variable_value.len();
                if request.variables.len() < VARIABLES && request.bytes < BYTES {
                    request.variables.push((variable_name, variable_value));
                }
            }
            ChannelMsg::RequestPty { term, col_width, row_height, .. } => {
                request.terminal = Some((term, size(col_width, row_height)));
            }
            ChannelMsg::RequestShell { .. } => return Some(request),
            ChannelMsg::Exec { command, .. } => {
                request.command = Some(command);
                return Some(request);
            }
            ChannelMsg::RequestSubsystem { name, .. } if is_subsystem(&name) => {
                request.command = Some(SFTP.1.to_vec());
                return Some(request);
            }
            ChannelMsg::Data { data } => waiting.used(data.len()),
            ChannelMsg::Close => return None,
            _ => {}
        }
    }
}

fn size(columns: u32, rows: u32) -> libc::winsize {
    let short = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    libc::winsize { ws_row: short(rows), ws_col: short(columns), ws_xpixel: 0, ws_ypixel: 0 }
}

/// The environment of the session's script, as OpenSSH's sshd makes it (session.c, `do_setup_env`): the client's
/// variables, except for those of the session.
fn environment(
    request: &Request,
    around: &Surroundings,
    shell: &str,
    terminal: Option<&Path>,
) -> Vec<(OsString, OsString)> {
    let owned = |(name, value): (&str, &OsStr)| (OsString::from(name), value.to_owned());
    let [client, server] = around.ends;
    let client_and_ports = format!("{} {} {}", client.ip(), client.port(), server.port());
    let connection = format!("{} {} {} {}", client.ip(), client.port(), server.ip(), server.port());
    let is_possible = |(name, value): &&(String, String)| {
        !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
    };
    let sent = request.variables.iter().filter(is_possible).map(|(name, value)| (name.into(), value.into()));
    let own = [
        ("USER", around.account.name.as_str()),
        ("LOGNAME", &around.account.name),
        ("HOME", &around.account.home),
        ("PATH", PATH),
        ("SHELL", shell),
        ("SSH_CLIENT", &client_and_ports),
        ("SSH_CONNECTION", &connection),
    ];
    let mut all: Vec<(OsString, OsString)> = sent.collect();
    if !all.iter().any(|(name, value)| name == LEVEL && !value.is_empty() && value != "0") {
        all.push((LEVEL.into(), "1".into()));
    }
    all.extend(own.map(|(name, value)| owned((name, value.as_ref()))));
    if let (Some(path), Some((term, _))) = (terminal, &request.terminal) {
        all.push(owned(("SSH_TTY", path.as_os_str())));
        all.push(owned(("TERM", term.as_ref())));
    }
    if let Some(command) = request.command.as_ref().filter(|command| !command.contains(&0)) {
        all.push(("SSH_ORIGINAL_COMMAND".into(), OsString::from_vec(command.clone())));
    }
    all
}

/// A command that runs.
struct Started {
    child: tokio::process::Child,
    pid: Pid,
    input: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    output: Box<dyn AsyncRead + Send + Unpin>,
    errors: Option<Box<dyn AsyncRead + Send + Unpin>>,
    terminal: Option<OwnedFd>,
}

impl Started {
    fn begin(request: &Request, around: &Surroundings) -> io::Result<Self> {
        let own = around.account.shell.as_str();
        let shell = if !own.is_empty() && Path::new(own).exists() { own } else { SHELL };
        let name = shell.rsplit('/').next().unwrap_or(shell);
        let mut command = std::process::Command::new(shell);
        command.arg0(name).args(["-c", &around.command]).env_clear();
        let home = Path::new(&around.account.home);
        if home.is_dir() {
            command.current_dir(home);
        }
        match &request.terminal {
            None => {
                command.envs(environment(request, around, shell, None));
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
                process::lead_session(&mut command, false);
                let mut child = Command::from(command).spawn()?;
                let none = || io::Error::from(io::ErrorKind::BrokenPipe);
                Ok(Self {
                    pid: pid(&child)?,
                    input: Some(Box::new(child.stdin.take().ok_or_else(none)?)),
                    output: Box::new(child.stdout.take().ok_or_else(none)?),
                    errors: Some(Box::new(child.stderr.take().ok_or_else(none)?)),
                    terminal: None,
                    child,
                })
            }
            Some((_, size)) => {
                let pair = openpty(size, None)?;
                for end in [&pair.master, &pair.slave] {
                    fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
                }
                let path = nix::unistd::ttyname(&pair.slave)?;
                command.envs(environment(request, around, shell, Some(&path)));
                let slave = || pair.slave.try_clone().map(Stdio::from);
                command.stdin(slave()?).stdout(slave()?).stderr(slave()?);
                process::lead_session(&mut command, true);
                let child = Command::from(command).spawn()?;
                drop(pair.slave);
                fcntl(&pair.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
                let [read, write] = [pair.master.try_clone()?, pair.master.try_clone()?];
                Ok(Self {
                    pid: pid(&child)?,
                    input: Some(Box::new(pipe::Sender::from_owned_fd_unchecked(write)?)),
                    output: Box::new(pipe::Receiver::from_owned_fd_unchecked(read)?),
                    errors: None,
                    terminal: Some(pair.master),
                    child,
                })
            }
        }
    }

    async fn serve(
        self,
        mut from: ChannelReadHalf,
        to: &ChannelWriteHalf<Msg>,
        waiting: Waiting,
    ) -> io::Result<ExitStatus> {
        let Self { mut child, pid, mut input, mut output, errors, terminal } = self;
        let has_terminal = terminal.is_some();
        let (over, mut is_over) = oneshot::channel::<Infallible>();
        // To the end of the channel: what the command has not read must be taken, or the connection is not read any more. The
        // command's signals come through here too, until it has been reaped.
        tokio::spawn(async move {
            while let Some(message) = from.wait().await {
                if !matches!(is_over.try_recv(), Err(TryRecvError::Empty)) {
                    input = None;
                }
                match message {
                    ChannelMsg::Data { data } => {
                        if let Some(open) = &mut input {
                            let is_written = tokio::select! {
                                written = open.write_all(&data) => written.is_ok(),
                                _ = &mut is_over => false,
                            };
                            if !is_written {
                                input = None;
                            }
                        }
                        waiting.used(data.len());
                    }
                    ChannelMsg::Eof if !has_terminal => input = None,
                    ChannelMsg::Signal { signal }
                        if matches!(is_over.try_recv(), Err(TryRecvError::Empty)) =>
                    {
                        if let Some(number) = numbered(&signal) {
                            process::send(pid, number, true);
                        }
                    }
                    ChannelMsg::WindowChange { col_width, row_height, .. } => {
                        if let Some(terminal) = &terminal {
                            process::resize_terminal(terminal.as_fd(), size(col_width, row_height));
                        }
                    }
                    ChannelMsg::Close => break,
                    _ => {}
                }
            }
        });
        let (mut plain, mut extended) = (to.make_writer(), to.make_writer_ext(Some(STDERR)));
        let printed = async {
            let errors = async {
                if let Some(mut errors) = errors {
                    let _ = copy(&mut errors, &mut extended).await;
                }
            };
            // The end of a terminal's output is an error (EIO).
            let output = async { drop(copy(&mut output, &mut plain).await) };
            tokio::join!(output, errors);
        };
        tokio::pin!(printed);
        let status = tokio::select! {
            () = &mut printed => child.wait().await,
            status = child.wait() => {
                drop(over);
                match has_terminal {
                    true => drop(tokio::time::timeout(REST, printed).await),
                    false => printed.await,
                }
                status
            }
        };
        status
    }
}

fn pid(child: &tokio::process::Child) -> io::Result<Pid> {
    let number = child.id().and_then(|id| i32::try_from(id).ok());
    number.map(Pid::from_raw).ok_or_else(|| io::ErrorKind::BrokenPipe.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bash_is_not_told_that_sshd_has_started_it() {
        let account = Account { name: "alice".to_owned(), home: "/".to_owned(), shell: SHELL.to_owned() };
        let ends = ["127.0.0.1:1", "127.0.0.1:2"].map(|end| end.parse().unwrap());
        let around = Surroundings { account, ends, command: String::new() };
        let level = |sent: &[(&str, &str)]| {
            let variables = sent.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let request = Request { variables: variables.collect(), ..Request::default() };
            let all = environment(&request, &around, SHELL, None);
            let value = |name: &str| {
                all.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.clone())
            };
            assert!(value("SSH_CLIENT").is_some());
            value(LEVEL).unwrap()
        };
        assert_eq!(level(&[]), "1");
        assert_eq!(level(&[(LEVEL, "0")]), "1");
        assert_eq!(level(&[(LEVEL, "")]), "1");
        assert_eq!(level(&[(LEVEL, "4")]), "4");
    }
}

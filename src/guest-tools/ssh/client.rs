//! The connection to a node, and the session over it.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

use nix::sys::stat::{Mode, umask};
use nix::unistd::ForkResult;
use russh::client::{Config, Handle, Handler, Msg, Session, connect_stream};
use russh::keys::{PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate, load_secret_key};
use russh::{Channel, ChannelId, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, SshId};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;

use super::FAILED;
use super::command_line::{CommandLine, Forward};
use super::node::Node;
use super::state;
use super::terminal::is_wanted;
use crate::flow::{self, Waiting, gated};
use crate::raw_terminal::Raw;
use crate::signal_names::named;
use crate::{algorithms, arguments, process};

/// How long a connection may take, and how often it is tried: as in the configuration for OpenSSH's ssh.
const PATIENCE: Duration = Duration::from_secs(60);
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);
/// The largest piece of input that is sent at once.
const PIECE: usize = 32 << 10;
/// How long the command at the other end may take to end by a signal that this process got.
const END: Duration = Duration::from_secs(2);
const STDERR: u32 = 1;

/// Returns the exit code of the command.
pub(super) fn run(line: &CommandLine, node: &Node) -> Result<i32, String> {
    if let Some(user) = line.user.as_ref().filter(|user| **user != node.user) {
        return Err(format!(
            "'{}' lets only '{}' in, not '{user}': leave the user out",
            node.name, node.user
        ));
    }
    if let Some(port) = line.port.filter(|port| *port != node.port) {
        return Err(format!("port '{port}' of '{}' is not the job's: leave the port out", node.name));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot wait for events: {error}"))?;
    let result = runtime.block_on(serve(line, node));
    // A thread may still read standard input.
    runtime.shutdown_background();
    result
}

async fn serve(line: &CommandLine, node: &Node) -> Result<i32, String> {
    let waiting = Waiting::default();
    let limit = line.timeout.unwrap_or(PATIENCE);
    let connected = timeout(limit, log_in(node, limit, &waiting)).await;
    let late = || {
        format!(
            "'{}' does not answer within {} s: its container has ended, or a firewall is between the nodes",
            node.name,
            limit.as_secs()
        )
    };
    let handle = Arc::new(connected.map_err(|_| late())??);
    for forward in &line.forwards {
        listen(Arc::clone(&handle), forward.clone(), waiting.clone()).await?;
    }
    if line.goes_to_background {
        go_to_background()?;
    }
    if let Some((host, port)) = &line.standard_forward {
        let opened = handle.channel_open_direct_tcpip(host, u32::from(*port), "127.0.0.1", 0).await;
        let channel = opened.map_err(|_| format!("'{}' does not connect to '{host}:{port}'", node.name))?;
        return converse(channel, false, true, &waiting).await.map(|code| code.unwrap_or(0));
    }
    if line.has_no_command {
        while !handle.is_closed() {
            tokio::time::sleep(PAUSE).await;
        }
        return Ok(FAILED);
    }
    let lost = |_| format!("the connection to '{}' is lost", node.name);
    let channel = handle.channel_open_session().await.map_err(lost)?;
    let has_terminal = is_wanted(line);
    request(line, &channel, has_terminal).await.map_err(lost)?;
    let code = converse(channel, has_terminal, !line.has_no_input, &waiting).await?;
    code.ok_or_else(|| format!("the connection to '{}' is lost", node.name))
}

/// Connects, checks the host's key, and logs in with the job's.
async fn log_in(node: &Node, limit: Duration, waiting: &Waiting) -> Result<Handle<Known>, String> {
    let addresses = node.addresses().await?;
    let addresses: Vec<_> = addresses.into_iter().map(|address| (address, node.port).into()).collect();
    let stream = connect(&addresses, limit).await.map_err(|failure| {
        format!(
            "cannot reach the job's container on '{}': {failure}: it has ended, or a firewall is between the nodes",
            node.name
        )
    })?;
    let _ = stream.set_nodelay(true);
    // As the configuration for OpenSSH has it: a node that is gone ends the session after hours, not never.
    let _ = socket2::SockRef::from(&stream).set_keepalive(true);
    let key =
        load_secret_key(&node.key, None).map_err(|error| format!("cannot read the job's key: {error}"))?;
    let config = Config {
        client_id: SshId::Standard(Cow::Borrowed("SSH-2.0-spank_docker")),
        preferred: algorithms::preferred(),
        channel_buffer_size: flow::MESSAGES,
        window_size: flow::GRANTED_BY_CLIENT,
        ..Config::default()
    };
    let known = Known { key: node.host_key.clone(), waiting: waiting.clone() };
    let connected = connect_stream(Arc::new(config), gated(stream, waiting.clone()), known).await;
    let mut handle = connected.map_err(|error| match error {
        russh::Error::UnknownKey => format!(
            "'{}' does not have this job's host key: another program has the job's port there, or the nodes have different secrets: ask the admin",
            node.name
        ),
        error => format!("'{}' does not speak ssh: {error}", node.name),
    })?;
    let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
    match handle.authenticate_publickey(&node.user, key).await {
        Ok(result) if result.success() => Ok(handle),
        Ok(_) => Err(format!(
            "'{}' refuses the job's key: the nodes have different secrets: ask the admin",
            node.name
        )),
        Err(_) => Err(format!("the connection to '{}' is lost", node.name)),
    }
}

/// Tries one address after the other. None takes so long that the others are not tried within the limit.
async fn connect(addresses: &[SocketAddr], limit: Duration) -> io::Result<TcpStream> {
    let each = limit / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut failure = io::Error::from(ErrorKind::NotFound);
    for attempt in 1..=ATTEMPTS {
        for address in addresses {
            match timeout(each, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failure = error,
                Err(_) => failure = ErrorKind::TimedOut.into(),
            }
        }
        if attempt < ATTEMPTS {
            tokio::time::sleep(PAUSE).await;
        }
    }
    Err(failure)
}

/// The client's side of the protocol: the only host key that it knows, and what waits for standard output.
struct Known {
    key: PublicKey,
    waiting: Waiting,
}

impl Handler for Known {
    type Error = russh::Error;

    async fn check_server_key(&mut self, found: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(
            matches!(found, PublicKeyOrCertificate::PublicKey { key, .. } if key.key_data() == self.key.key_data()),
        )
    }

    async fn data(&mut self, _: ChannelId, data: &[u8], _: &mut Session) -> Result<(), russh::Error> {
        self.waiting.add(data.len());
        Ok(())
    }

    async fn extended_data(
        &mut self,
        _: ChannelId,
        _: u32,
        data: &[u8],
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.waiting.add(data.len());
        Ok(())
    }
}

/// Requests the session: its environment, its terminal, its command.
async fn request(line: &CommandLine, channel: &Channel<Msg>, has_terminal: bool) -> Result<(), russh::Error> {
    let own = umask(Mode::empty());
    umask(own);
    let mut variables = state::variables(&arguments::environment(), own.bits());
    variables.extend(line.variables.iter().cloned());
    for (name, value) in variables {
        channel.set_env(false, name, value).await?;
    }
    if has_terminal {
        let size = process::size_of_terminal(io::stdin().as_fd());
        let term = std::env::var("TERM").unwrap_or_else(|_| "dumb".to_owned());
        channel.request_pty(false, &term, size.ws_col.into(), size.ws_row.into(), 0, 0, &[]).await?;
    }
    match &line.command {
        name if line.is_subsystem => channel.request_subsystem(true, String::from_utf8_lossy(name)).await,
        command if command.is_empty() => channel.request_shell(true).await,
        command => channel.exec(true, command.clone()).await,
    }
}

/// Copies between the channel and the standard descriptors until the channel closes. Returns the command's exit
/// code; `None` if there was none.
async fn converse(
    channel: Channel<Msg>,
    is_raw: bool,
    has_input: bool,
    waiting: &Waiting,
) -> Result<Option<i32>, String> {
    let _raw = is_raw.then(|| Raw::take(false));
    let (from, to) = channel.split();
    let to = Arc::new(to);
    let input = has_input.then(standard_input);
    tokio::spawn(feed(Arc::clone(&to), input));
    let (output, writer) = standard_output(waiting.clone());
    let ended = listen_to(from, &to, output).await;
    // What has arrived is written before this process ends.
    let _ = writer.join();
    ended.map_err(|error| format!("cannot watch signals: {error}"))
}

async fn feed(to: Arc<ChannelWriteHalf<Msg>>, input: Option<Receiver<Vec<u8>>>) {
    if let Some(mut input) = input {
        while let Some(bytes) = input.recv().await {
            if to.data_bytes(bytes).await.is_err() {
                return;
            }
        }
    }
    let _ = to.eof().await;
}

/// Signals that end this process are passed on to the command, whose end is awaited for a moment.
async fn listen_to(
    mut from: ChannelReadHalf,
    to: &ChannelWriteHalf<Msg>,
    output: Sender<Piece>,
) -> io::Result<Option<i32>> {
    let mut signals =
        [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()]
            .map(signal);
    let mut resized = signal(SignalKind::window_change())?;
    let (mut code, mut deadline) = (None, None);
    let [one, two, three, four] = &mut signals;
    loop {
        let arrived = async {
            tokio::select! {
                () = next(one) => libc::SIGINT,
                () = next(two) => libc::SIGTERM,
                () = next(three) => libc::SIGHUP,
                () = next(four) => libc::SIGQUIT,
            }
        };
        let ends = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = from.wait() => match message {
                Some(ChannelMsg::Data { data }) if output.send((false, data.to_vec())).await.is_ok() => {}
                Some(ChannelMsg::ExtendedData { data, ext: STDERR }) if output.send((true, data.to_vec())).await.is_ok() => {}
                // Standard output is closed.
                Some(ChannelMsg::Data { .. } | ChannelMsg::ExtendedData { ext: STDERR, .. }) => return Ok(Some(FAILED)),
                Some(ChannelMsg::ExitStatus { exit_status }) => code = Some(i32::try_from(exit_status).unwrap_or(FAILED)),
                Some(ChannelMsg::ExitSignal { .. } | ChannelMsg::Failure) => code = Some(FAILED),
                Some(ChannelMsg::Close) | None => return Ok(code),
                Some(_) => {}
            },
            number = arrived => {
                let _ = to.signal(named(number)).await;
                deadline = deadline.or(Some(tokio::time::Instant::now() + END));
            }
            _ = resized.recv() => {
                let size = process::size_of_terminal(io::stdin().as_fd());
                let _ = to.window_change(size.ws_col.into(), size.ws_row.into(), 0, 0).await;
            }
            () = ends => return Ok(Some(FAILED)),
        }
    }
}

async fn next(signal: &mut io::Result<Signal>) {
    match signal {
        Ok(signal) => drop(signal.recv().await),
        Err(_) => std::future::pending().await,
    }
}

/// Reads standard input in a thread: a file cannot be waited for, and O_NONBLOCK would be the caller's too.
fn standard_input() -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel(4);
    thread::spawn(move || {
        let Ok(input) = io::stdin().as_fd().try_clone_to_owned() else { return };
        let (mut input, mut piece) = (File::from(input), vec![0; PIECE]);
        loop {
            match input.read(&mut piece) {
                Ok(0) => return,
                Ok(count) => {
                    let read = piece.get(..count).unwrap_or_default().to_vec();
                    if sender.blocking_send(read).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => sleep(Duration::from_millis(5)),
                Err(_) => return,
            }
        }
    });
    receiver
}

/// Bytes for standard output, or for standard error.
type Piece = (bool, Vec<u8>);

/// Writes standard output and error in a thread, for the same reason.
fn standard_output(waiting: Waiting) -> (Sender<Piece>, JoinHandle<()>) {
    let (sender, mut receiver) = channel::<Piece>(16);
    let writer = thread::spawn(move || {
        let own = |descriptor: io::Result<std::os::fd::OwnedFd>| descriptor.map(File::from);
        let (Ok(mut output), Ok(mut errors)) =
            (own(io::stdout().as_fd().try_clone_to_owned()), own(io::stderr().as_fd().try_clone_to_owned()))
        else {
            return;
        };
        while let Some((is_error, bytes)) = receiver.blocking_recv() {
            let written = write_all(if is_error { &mut errors } else { &mut output }, &bytes);
            waiting.used(bytes.len());
            if written.is_err() && !is_error {
                return;
            }
        }
    });
    (sender, writer)
}

fn write_all(file: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Another process has made the caller's terminal or pipe non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => sleep(Duration::from_millis(5)),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Listens on a port of this node for `-L`.
async fn listen(handle: Arc<Handle<Known>>, forward: Forward, waiting: Waiting) -> Result<(), String> {
    let (bind, port) = &forward.from;
    let address: IpAddr = bind.parse().map_err(|_| format!("-L: '{bind}' is not an address"))?;
    let listener = TcpListener::bind((address, *port)).await;
    let listener = listener.map_err(|error| format!("-L: cannot listen on '{bind}:{port}': {error}"))?;
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let (handle, to, waiting) = (Arc::clone(&handle), forward.to.clone(), waiting.clone());
            tokio::spawn(async move {
                let (host, port) = to;
                let from = (peer.ip().to_string(), u32::from(peer.port()));
                if let Ok(channel) = handle.channel_open_direct_tcpip(host, port.into(), from.0, from.1).await
                {
                    flow::join(channel, stream, waiting).await;
                }
            });
        }
    });
    Ok(())
}

/// The caller goes on, and a child of this process has the connection. No other thread runs yet.
fn go_to_background() -> Result<(), String> {
    match process::fork() {
        Ok(ForkResult::Parent { .. }) => process::leave(0),
        Ok(ForkResult::Child) => {
            let _ = nix::unistd::setsid();
            Ok(())
        }
        Err(error) => Err(format!("cannot go to the background: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Socket, Type};

    /// A listener whose queue is full: the kernel drops what asks for a connection.
    #[test]
    fn address_that_does_not_answer_leaves_time_for_the_others() {
        let (silent, open) = ([127, 0, 0, 1], [127, 0, 0, 2]);
        let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        full.bind(&SocketAddr::from((silent, 0)).into()).unwrap();
        full.listen(0).unwrap();
        let silent = full.local_addr().unwrap().as_socket().unwrap();
        let _held = std::net::TcpStream::connect(silent).unwrap();
        let listener = std::net::TcpListener::bind((IpAddr::from(open), 0)).unwrap();
        let open = listener.local_addr().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let limit = Duration::from_secs(2);
            let both = timeout(limit, connect(&[silent, open], limit)).await.unwrap().unwrap();
            assert_eq!(both.peer_addr().unwrap(), open);
            timeout(limit / 2, connect(&[silent], limit)).await.unwrap_err();
        });
    }
}

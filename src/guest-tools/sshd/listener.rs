//! Accepts connections, and forks a process for each.
//!
//! Whoever connects without a key costs the job a process: so their number is limited, in total and by address,
//! as OpenSSH's MaxStartups and PerSourceMaxStartups do, and the time for a login is.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::sleep;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{ForkResult, pipe2, setsid};
use socket2::{Domain, Protocol, Socket, Type};

use super::connection;
use super::settings::Settings;
use crate::{process, signals};

const BACKLOG: i32 = 128;
/// How long to wait when a connection cannot be accepted (sshd.c waits as long).
const PAUSE: Duration = Duration::from_millis(100);

/// A connection that has not logged in: the other end of the pipe is in its process until it does.
struct Starting {
    peer: IpAddr,
    end: OwnedFd,
}

/// Serves for good. Returns why it cannot start.
pub(super) fn serve(settings: &Settings) -> String {
    let mut failure = None;
    let mut listeners = Vec::new();
    for address in &settings.addresses {
        match listen(*address) {
            Ok(listener) => listeners.push(listener),
            // Without IPv6, say: the other family is enough.
            Err(error) => failure = Some(format!("sshd: cannot listen on '{address}': {error}")),
        }
    }
    if let (true, Some(failure)) = (listeners.is_empty(), failure) {
        return failure;
    }
    // Its children are reaped by the kernel.
    signals::ignore(signals::only(libc::SIGCHLD) | signals::only(libc::SIGPIPE));
    let mut starting: Vec<Starting> = Vec::new();
    loop {
        let ready = wait(&listeners, &mut starting);
        for listener in
            listeners.iter().zip(ready).filter_map(|(listener, is_ready)| is_ready.then_some(listener))
        {
            match listener.accept() {
                Ok((stream, peer)) => {
                    if has_room(&starting, peer.ip(), settings.starts)
                        && let Some(one) = fork(settings, &listeners, &mut starting, stream, peer)
                    {
                        starting.push(one);
                    }
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                    ) => {}
                Err(_) => sleep(PAUSE),
            }
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of an earlier job do not block its port.
    socket.set_reuse_address(true)?;
    // So that the process of a client whose node is gone ends. What is accepted inherits it.
    socket.set_keepalive(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Waits for connections, and forgets those that have logged in or ended. Returns which listeners have one.
fn wait(listeners: &[TcpListener], starting: &mut Vec<Starting>) -> Vec<bool> {
    let mut polled: Vec<PollFd<'_>> =
        listeners.iter().map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN)).collect();
    // The other end closes: POLLHUP, which is always reported.
    polled.extend(starting.iter().map(|one| PollFd::new(one.end.as_fd(), PollFlags::empty())));
    let _ = poll(&mut polled, PollTimeout::NONE);
    let mut seen: Vec<bool> = polled.iter().map(|one| one.any().unwrap_or_default()).collect();
    let ended = seen.split_off(listeners.len());
    let mut ended = ended.into_iter();
    starting.retain(|_| !ended.next().unwrap_or_default());
    seen
}

/// Whether one more may begin to log in from this address, of at most `most`; one address may take three
/// quarters of these.
fn has_room(starting: &[Starting], peer: IpAddr, most: usize) -> bool {
    let of_peer = starting.iter().filter(|one| one.peer == peer).count();
    starting.len() < most && of_peer < most - most / 4
}

/// Forks the process of a connection. If that fails, the connection is closed.
fn fork(
    settings: &Settings,
    listeners: &[TcpListener],
    starting: &mut Vec<Starting>,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<Starting> {
    let (end, others) = pipe2(OFlag::O_CLOEXEC).ok()?;
    match process::fork().ok()? {
        ForkResult::Parent { .. } => Some(Starting { peer: peer.ip(), end }),
        ForkResult::Child => {
            starting.clear();
            for listener in listeners {
                process::close_inherited(listener.as_fd());
            }
            drop(end);
            let _ = setsid();
            signals::ignore(signals::only(libc::SIGPIPE));
            if leave_output().is_ok() {
                connection::serve(settings.clone(), stream, peer, others);
            }
            process::leave(0)
        }
    }
}

/// No process of a connection holds the prolog's pipe.
fn leave_output() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    (0..=2).try_for_each(|number| process::put(null.as_fd(), number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_cannot_take_all_places() {
        let starting = |address: &str, count: usize| -> Vec<Starting> {
            let one = || Starting { peer: address.parse().unwrap(), end: pipe2(OFlag::O_CLOEXEC).unwrap().0 };
            std::iter::repeat_with(one).take(count).collect()
        };
        let [one, other] = ["10.0.0.1", "10.0.0.2"];
        let mut all = starting(one, 96);
        assert!(!has_room(&all, one.parse().unwrap(), 128));
        assert!(has_room(&all, other.parse().unwrap(), 128));
        all.extend(starting(other, 32));
        assert!(!has_room(&all, "10.0.0.3".parse().unwrap(), 128));
    }
}

//! Waiting until *this job's* sshd answers: the socket that listens must be held by the container's first process, and
//! the banner must carry the job's token.
//!
//! Runs as root where a container is started: in the prolog, or in the task that starts its step's container.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::guest::ssh::server;
use crate::linux::process::Process;
use crate::linux::{listener, load, poll};
use crate::log::escape::Escaped;

/// How long an sshd may take from its start to its banner, on a node that is not overloaded.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one connection may wait for a banner there.
const BANNER: Duration = Duration::from_secs(5);
/// Interval between checks; a start takes about 20 ms.
const INTERVAL: Duration = Duration::from_millis(1);
/// RFC 4253, 4.2: the identification string is at most 255 characters long.
const BANNER_LIMIT: u64 = 255;

/// Why no sshd of the job answers.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReadyError {
    /// The container's first process has ended.
    #[error("sshd exited")]
    Ended,
    /// The process runs, but nothing listens, or the listener sends nothing.
    #[error("no answer within {} s", waited.as_secs())]
    Silent {
        /// How long it had to answer.
        waited: Duration,
    },
    /// It sends a banner that is not this job's.
    #[error("answered '{banner}'")]
    Stranger {
        /// The banner.
        banner: Escaped,
    },
}

/// Waits for the sshd that `process` is about to execute.
pub(super) async fn wait(process: &Process, port: u16, token: &str) -> Result<(), ReadyError> {
    let look = async || check_sshd(process, port, token).await;
    let is_final = |found: &Result<bool, ReadyError>| *found != Ok(false);
    let began = Instant::now();
    loop {
        let waited = load::patience(PATIENCE);
        if poll::until_meanwhile(began + waited, INTERVAL, look, is_final).await? {
            return Ok(());
        }
        // The load is read again: the node may be more overloaded by now.
        if began.elapsed() >= load::patience(PATIENCE) {
            return Err(ReadyError::Silent { waited });
        }
    }
}

/// Whether the sshd answers already.
async fn check_sshd(process: &Process, port: u16, token: &str) -> Result<bool, ReadyError> {
    if !process.is_alive() {
        return Err(ReadyError::Ended);
    }
    // The banner alone proves nothing: any process that connects to another node of the job sees the token. So
    // the listening socket must be the process' own.
    let sockets = listener::on_port(port).unwrap_or_default();
    if !listener::is_held_by(&sockets, process.id().pid) {
        return Ok(false);
    }
    match timeout(load::patience(BANNER), banner((Ipv4Addr::LOCALHOST, port).into())).await {
        Ok(Ok(banner)) if server::is_banner(&banner, token) => Ok(true),
        Ok(Ok(banner)) if !banner.is_empty() => Err(ReadyError::Stranger { banner: Escaped::new(banner) }),
        // The sshd is too busy to answer, or still starting.
        Ok(Ok(_) | Err(_)) | Err(_) => Ok(false),
    }
}

/// The first line that the server sends.
pub(super) async fn banner(address: SocketAddr) -> std::io::Result<Vec<u8>> {
    let stream = TcpStream::connect(address).await?;
    let mut reader = BufReader::new(stream).take(BANNER_LIMIT);
    let mut line = Vec::new();
    loop {
        match reader.read_u8().await {
            Ok(b'\n') => return Ok(line),
            // The line ends with CR LF.
            Ok(b'\r') => {}
            Ok(byte) => line.push(byte),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(line),
            Err(error) => return Err(error),
        }
    }
}

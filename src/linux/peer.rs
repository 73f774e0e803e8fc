//! Who is at the other end of a TCP connection on loopback: the owner of the other socket, whom the kernel names to everyone
//! (sock_diag(7)).
//!
//! Used by the user's process that serves an image from a file.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use super::sock_diag::{self, ESTABLISHED};

/// The socket at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Open, and of this user.
    Of(u32),
    /// Half closed, so that its owner is not known any more; or it could not be found out.
    Closing,
    /// This kernel cannot say (it answers the same about a socket that is gone).
    Unknown,
}

/// The socket at the other end of a connection between these addresses of this host.
pub fn peer(own: SocketAddr, peer: SocketAddr) -> Peer {
    let (SocketAddr::V4(own), SocketAddr::V4(peer)) = (own, peer) else { return Peer::Unknown };
    match sock_diag::connected(peer, own) {
        Ok(Some(socket)) if socket.state == ESTABLISHED => Peer::Of(socket.uid),
        // The kernel has forgotten the owner of a socket that is closed.
        Ok(Some(_)) => Peer::Closing,
        Err(error) if sock_diag::is_unknown(&error) => Peer::Unknown,
        Ok(None) | Err(_) => Peer::Closing,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use nix::unistd::geteuid;

    use super::*;

    #[test]
    fn owner_of_a_connections_other_end_is_known_while_it_is_open() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ours = TcpStream::connect(address).unwrap();
        let (accepted, peer) = listener.accept().unwrap();
        let mut owners = vec![(peer, geteuid().as_raw())];
        let mut child = None;
        let mut other = None;
        // Whoever is not root can be nobody else.
        if geteuid().is_root() {
            let script = format!("exec 3<>/dev/tcp/127.0.0.1/{}; read -r", address.port());
            let mut bash = Command::new("bash");
            bash.args(["-c", &script]).uid(65534).stdin(Stdio::piped());
            child = Some(bash.spawn().unwrap());
            let (accepted, peer) = listener.accept().unwrap();
            other = Some(accepted);
            owners.push((peer, 65534));
        }
        for (peer, uid) in owners {
            assert_eq!(super::peer(address, peer), Peer::Of(uid));
        }
        drop(ours);
        (&accepted).read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(super::peer(address, peer), Peer::Closing);
        if let Some(mut child) = child {
            drop((other, child.stdin.take()));
            child.wait().unwrap();
        }
    }
}

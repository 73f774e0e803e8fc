//! Who is at the other end of a TCP connection on loopback: the owner of the other socket, whom the kernel names to everyone
//! (sock_diag(7)).
//!
//! Used by the user's process that serves an image from a file.
#![forbid(unsafe_code)]

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

/// `SOCK_DIAG_BY_FAMILY` (linux/sock_diag.h): the request, and its answer.
const BY_FAMILY: u16 = 20;
/// Of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Of `struct inet_diag_req_v2`.
const REQUEST: usize = 56;
/// Where `idiag_state` and `idiag_uid` are in the answer (`struct inet_diag_msg`).
const STATE: usize = HEADER + 1;
const UID: usize = HEADER + 64;
/// Both ends are open. The kernel has forgotten the owner of a socket that is closed.
const ESTABLISHED: u8 = 1;

/// The socket at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Open, and of this user.
    Of(u32),
    /// Half closed, so that its owner is not known any more.
    Closing,
    /// This kernel cannot say (it answers the same about a socket that is gone), or its answer cannot be read.
    Unknown,
}

/// The socket at the other end of a connection between these addresses of this host.
pub fn peer(own: SocketAddr, peer: SocketAddr) -> Peer {
    let (SocketAddr::V4(own), SocketAddr::V4(peer)) = (own, peer) else { return Peer::Unknown };
    let answer = asked(&request(peer, own)).unwrap_or_default();
    let uid = answer.get(UID..UID + 4).and_then(|uid| uid.try_into().ok()).map(u32::from_ne_bytes);
    match (answer.get(4..6), answer.get(STATE), uid) {
        (Some(kind), Some(&ESTABLISHED), Some(uid)) if kind == BY_FAMILY.to_ne_bytes() => Peer::Of(uid),
        (Some(kind), Some(_), Some(_)) if kind == BY_FAMILY.to_ne_bytes() => Peer::Closing,
        _ => Peer::Unknown,
    }
}

/// The question for the one socket that is bound to `from` and connected to `to`.
fn request(from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    let length = (HEADER + REQUEST) as u32;
    let mut request = Vec::with_capacity(HEADER + REQUEST);
    request.extend(length.to_ne_bytes());
    request.extend(BY_FAMILY.to_ne_bytes());
    request.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    // Its number and its sender.
    request.extend([0; 8]);
    request.extend([libc::AF_INET as u8, libc::IPPROTO_TCP as u8, 0, 0]);
    // In any state.
    request.extend(u32::MAX.to_ne_bytes());
    request.extend(from.port().to_be_bytes());
    request.extend(to.port().to_be_bytes());
    // Places for addresses of IPv6.
    for address in [from, to] {
        request.extend(address.ip().octets());
        request.extend([0; 12]);
    }
    // On any interface; `INET_DIAG_NOCOOKIE`.
    request.extend([0; 4]);
    request.extend([0xff; 8]);
    request
}

fn asked(request: &[u8]) -> io::Result<Vec<u8>> {
    let (family, kind) = (AddressFamily::Netlink, SockType::Datagram);
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    sendto(socket.as_raw_fd(), request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    // The kernel has answered before it returns from that.
    let mut answer = vec![0; 4096];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
    answer.truncate(length);
    Ok(answer)
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

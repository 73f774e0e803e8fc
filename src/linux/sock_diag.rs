//! TCP sockets of this host, whom they belong to and in which state they are, as the kernel tells everyone (sock_diag(7)). It
//! looks only where such a socket can be; /proc/net/tcp is a walk through a table for all connections, which on a node
//! with much memory takes many milliseconds however few there are.
#![forbid(unsafe_code)]

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

/// `SOCK_DIAG_BY_FAMILY` (linux/sock_diag.h): the request, and each socket of its answer.
const BY_FAMILY: u16 = 20;
/// Of `struct nlmsghdr` (netlink(7)).
const HEADER: usize = 16;
/// Of `struct inet_diag_req_v2`.
const REQUEST: usize = 56;
/// Where they are in `struct inet_diag_msg`.
const STATE: usize = 1;
const UID: usize = 64;
const INODE: usize = 68;

/// The states of the kernel's net/tcp_states.h.
pub(super) const ESTABLISHED: u8 = 1;
const LISTEN: u8 = 10;

/// What the kernel tells of a socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Socket {
    pub(super) state: u8,
    pub(super) uid: u32,
    pub(super) inode: u32,
}

/// The one socket, in any state, that is bound to `from` and connected to `to`. An error too if there is none.
pub(super) fn connected(from: SocketAddrV4, to: SocketAddrV4) -> io::Result<Option<Socket>> {
    let request = request(libc::AF_INET, libc::NLM_F_REQUEST, u32::MAX, from, to);
    Ok(ask(&request, false)?.first().copied())
}

/// The sockets that listen on `port`, of one family: `AF_INET`, or `AF_INET6`.
pub(super) fn listening(family: i32, port: u16) -> io::Result<Vec<Socket>> {
    let any = |port| SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
    ask(&request(family, flags, 1 << LISTEN, any(port), any(0)), true)
}

/// Whether this kernel has no tcp_diag, or no sock_diag at all. `ENOENT` also says that there is no such connection.
pub(super) fn is_unknown(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT))
}

fn request(family: i32, flags: i32, states: u32, from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    let length = (HEADER + REQUEST) as u32;
    let mut request = Vec::with_capacity(HEADER + REQUEST);
    request.extend(length.to_ne_bytes());
    request.extend(BY_FAMILY.to_ne_bytes());
    request.extend((flags as u16).to_ne_bytes());
    // Its number and its sender.
    request.extend([0; 8]);
    request.extend([family as u8, libc::IPPROTO_TCP as u8, 0, 0]);
    request.extend(states.to_ne_bytes());
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

/// `in_parts`: the answer ends with `NLMSG_DONE`.
fn ask(request: &[u8], in_parts: bool) -> io::Result<Vec<Socket>> {
    let (family, kind) = (AddressFamily::Netlink, SockType::Datagram);
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    sendto(socket.as_raw_fd(), request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut found = Vec::new();
    let mut part = vec![0; 32 << 10];
    loop {
        // The kernel has a part ready before it returns from sendto and from recv.
        let length = recv(socket.as_raw_fd(), &mut part, MsgFlags::MSG_DONTWAIT)?;
        let is_last = read(part.get(..length).unwrap_or_default(), &mut found)?;
        if is_last || !in_parts {
            return Ok(found);
        }
    }
}

/// Reads the messages of one part of an answer. Returns whether it is the last one.
fn read(mut part: &[u8], found: &mut Vec<Socket>) -> io::Result<bool> {
    let broken = || io::Error::from(io::ErrorKind::InvalidData);
    while !part.is_empty() {
        let length = number(part, 0).ok_or_else(broken)? as usize;
        let kind = number(part, 4).ok_or_else(broken)? & 0xffff;
        let body = part.get(HEADER..length).ok_or_else(broken)?;
        match kind as i32 {
            libc::NLMSG_ERROR | libc::NLMSG_DONE => {
                return match number(body, 0).ok_or_else(broken)? as i32 {
                    0 => Ok(true),
                    error => Err(io::Error::from_raw_os_error(error.wrapping_neg())),
                };
            }
            kind if kind == i32::from(BY_FAMILY) => {
                let socket = || {
                    let state = *body.get(STATE)?;
                    Some(Socket { state, uid: number(body, UID)?, inode: number(body, INODE)? })
                };
                found.push(socket().ok_or_else(broken)?);
            }
            _ => {}
        }
        part = part.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::TcpListener;

    use super::*;
    use crate::linux::lacking::skip;
    use crate::linux::listener;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = (HEADER + body.len()) as u32;
        let kind = [kind.to_ne_bytes(), [0; 2]].concat();
        let mut message = [&length.to_ne_bytes()[..], &kind, &[0; 8], body].concat();
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    fn found(part: &[u8]) -> Result<(bool, usize), Option<i32>> {
        let mut found = Vec::new();
        read(part, &mut found).map(|is_last| (is_last, found.len())).map_err(|error| error.raw_os_error())
    }

    #[test]
    fn answer_is_read_to_its_end_and_never_beyond() {
        let socket = message(BY_FAMILY, &[7; 72]);
        let done = message(libc::NLMSG_DONE as u16, &[0; 4]);
        assert_eq!(found(&socket), Ok((false, 1)));
        assert_eq!(found(&[&socket[..], &socket, &done].concat()), Ok((true, 2)));
        // As from a kernel without tcp_diag, to a dump and to a single question.
        for kind in [libc::NLMSG_DONE, libc::NLMSG_ERROR] {
            let failed = message(kind as u16, &(-libc::ENOENT).to_ne_bytes());
            assert_eq!(found(&failed), Err(Some(libc::ENOENT)));
            // One that does not say how it ended is no answer.
            assert_eq!(found(&message(kind as u16, &[])), Err(None));
        }
        assert_eq!(found(&message(BY_FAMILY, &[7; 71])), Err(None));
        for length in 1..socket.len() {
            assert_eq!(found(&socket[..length]), Err(None), "{length}");
        }
        for length in [0_u32, 15, 89, u32::MAX] {
            let mut wrong = socket.clone();
            wrong[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(found(&wrong), Err(None), "{length}");
        }
    }

    #[test]
    fn listeners_are_those_of_the_kernels_table() {
        for (family, address, table) in
            [(libc::AF_INET, "127.0.0.1:0", "/proc/net/tcp"), (libc::AF_INET6, "[::1]:0", "/proc/net/tcp6")]
        {
            let Ok(open) = TcpListener::bind(address) else { return skip("IPv6") };
            let port = open.local_addr().unwrap().port();
            let sockets = match listening(family, port) {
                Err(error) if is_unknown(&error) => return skip("tcp_diag"),
                sockets => sockets.unwrap(),
            };
            assert!(sockets.iter().all(|socket| socket.state == LISTEN), "{sockets:?}");
            let inodes: BTreeSet<u64> = sockets.iter().map(|socket| socket.inode.into()).collect();
            let table = std::fs::read_to_string(table).unwrap();
            assert_eq!(inodes, listener::in_table(&table, port).into_iter().collect());
            assert_eq!(inodes.len(), 1);
            drop(open);
            assert!(listening(family, port).unwrap().is_empty());
        }
    }
}

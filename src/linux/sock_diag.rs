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
                return match number(body, 0).unwrap_or_default() as i32 {
                    0 => Ok(true),
                    error => Err(io::Error::from_raw_os_error(-error)),
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

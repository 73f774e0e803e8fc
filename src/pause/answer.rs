//! Answers connections with one line of root's, where the image has no sshd (`container::start::sshd`). Apart
//! because only this uses sockets.

use super::system_call::{EINTR, arch, syscall};

/// The length of the `sockaddr_in` at the start of an order to listen.
pub const ADDRESS: usize = 16;
const BACKLOG: usize = 128;
const ECONNABORTED: isize = -103;
const AF_INET: usize = 2;
const SOCK_STREAM: usize = 1;
const SOCK_CLOEXEC: usize = 0o2000000;
const SOL_SOCKET: usize = 1;
const SO_REUSEADDR: usize = 2;
const MSG_NOSIGNAL: usize = 0x4000;

/// Sends a line to each client, until that fails.
///
/// # Safety
/// `order` has `length` bytes: a `sockaddr_in`, then the line.
pub unsafe fn answer(order: *const u8, length: usize) {
    let on = 1i32;
    // SAFETY: the caller guarantees the length; all other pointers are to local variables.
    unsafe {
        let socket = syscall(arch::SOCKET, [AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0]);
        let Ok(socket) = usize::try_from(socket) else { return };
        // Connections of an earlier job do not block its port.
        syscall(arch::SETSOCKOPT, [socket, SOL_SOCKET, SO_REUSEADDR, &raw const on as usize, size_of_val(&on)]);
        if syscall(arch::BIND, [socket, order as usize, ADDRESS]) == 0
            && syscall(arch::LISTEN, [socket, BACKLOG]) == 0
        {
            loop {
                match syscall(arch::ACCEPT, [socket]) {
                    EINTR | ECONNABORTED => {}
                    // The line fits into a socket's buffer: no client can make this process wait.
                    peer if peer >= 0 => {
                        let peer = peer as usize;
                        syscall(arch::SENDTO, [peer, order.add(ADDRESS) as usize, length - ADDRESS, MSG_NOSIGNAL]);
                        syscall(arch::CLOSE, [peer]);
                    }
                    _ => break,
                }
            }
        }
        syscall(arch::CLOSE, [socket]);
    }
}

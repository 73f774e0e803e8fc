//! The process that listens on a TCP port: that a connection succeeds does not tell this job's sshd from
//! another listener.
//!
//! Runs as root where a container is started.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::sock_diag;

/// TCP_LISTEN of the kernel's net/tcp_states.h, in the notation of proc_net_tcp(5).
const LISTEN: &str = "0A";

/// A port that is free on all addresses of both families, of those that the kernel gives.
pub fn any_free() -> io::Result<u16> {
    const TRIES: usize = 16;
    for _ in 0..TRIES {
        let port = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?.local_addr()?.port();
        if is_free(port)? {
            return Ok(port);
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// Whether a process could listen on `port` now, on all addresses of both families.
pub fn is_free(port: u16) -> io::Result<bool> {
    // One after the other: a socket of one family may occupy the port for both.
    for address in [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)] {
        match TcpListener::bind((address, port)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Ok(false),
            // The host has no IPv6.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Inodes of the sockets that listen on `port` over IPv4, of any user.
pub fn on_port(port: u16) -> io::Result<HashSet<u64>> {
    listening_sockets(libc::AF_INET, "/proc/net/tcp", port)
}

/// From the kernel's table of one family, where it cannot be asked.
fn listening_sockets(family: i32, table: &str, port: u16) -> io::Result<HashSet<u64>> {
    /// Whether it has no tcp_diag. It looks for the module each time that it is asked.
    static IS_SILENT: AtomicBool = AtomicBool::new(false);
    if !IS_SILENT.load(Ordering::Relaxed) {
        match sock_diag::listening(family, port) {
            Ok(sockets) => return Ok(sockets.iter().map(|socket| socket.inode.into()).collect()),
            Err(error) => IS_SILENT.store(sock_diag::is_unknown(&error), Ordering::Relaxed),
        }
    }
    Ok(in_table(&fs::read_to_string(table)?, port))
}

/// Whether a process other than this one listens on `port` too, in either family.
pub fn is_shared(port: u16, pid: i32) -> io::Result<bool> {
    let mut listening = on_port(port)?;
    match listening_sockets(libc::AF_INET6, "/proc/net/tcp6", port) {
        Ok(sockets) => listening.extend(sockets),
        // The kernel has no IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(!listening.is_subset(&held_by(pid)?))
}

/// The sockets in the text of proc_net_tcp(5).
#[must_use]
pub fn in_table(table: &str, port: u16) -> HashSet<u64> {
    table.lines().skip(1).filter_map(|line| listening(line, port)).collect()
}

/// `sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode …`
fn listening(line: &str, port: u16) -> Option<u64> {
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    let (_, local_port) = local.rsplit_once(':')?;
    if state != LISTEN || u16::from_str_radix(local_port, 16).ok()? != port {
        return None;
    }
    fields.nth(5)?.parse().ok()
}

/// Whether process `pid` holds one of these sockets.
#[must_use]
pub fn is_held_by(sockets: &HashSet<u64>, pid: i32) -> bool {
    held_by(pid).is_ok_and(|held| !held.is_disjoint(sockets))
}

/// Inodes of the sockets that process `pid` holds.
fn held_by(pid: i32) -> io::Result<HashSet<u64>> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?;
    let inode = |target: PathBuf| target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    Ok(descriptors.flatten().filter_map(|found| inode(fs::read_link(found.path()).ok()?)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::lacking::skip;

    #[test]
    fn finds_its_own_listener_and_its_holder() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let sockets = on_port(port).unwrap();
        assert_eq!(sockets.len(), 1);
        assert_eq!(sockets, in_table(&fs::read_to_string("/proc/net/tcp").unwrap(), port));
        assert!(is_held_by(&sockets, i32::try_from(std::process::id()).unwrap()));
        assert!(!is_free(port).unwrap());
        assert!(!is_shared(port, i32::try_from(std::process::id()).unwrap()).unwrap());
        drop(listener);
        assert!(on_port(port).unwrap().is_empty());
    }

    #[test]
    fn a_port_of_one_family_is_not_free() {
        let Ok(listener) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) else { return skip("IPv6") };
        let port = listener.local_addr().unwrap().port();
        assert!(on_port(port).unwrap().is_empty());
        let sockets = listening_sockets(libc::AF_INET6, "/proc/net/tcp6", port).unwrap();
        assert_eq!(sockets, in_table(&fs::read_to_string("/proc/net/tcp6").unwrap(), port));
        assert_eq!(sockets.len(), 1);
        assert!(!is_free(port).unwrap());
        assert!(!is_shared(port, i32::try_from(std::process::id()).unwrap()).unwrap());
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(is_shared(port, i32::try_from(other.id()).unwrap()).unwrap());
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn reads_a_line_of_the_kernel() {
        let line = "   0: 00000000:4E20 00000000:0000 0A 00000000:00000000 00:00000000 00000000  5001        0 4711 1 0";
        assert_eq!(listening(line, 20000), Some(4711));
        assert_eq!(listening(line, 20001), None);
        assert_eq!(listening("garbage", 20000), None);
    }
}

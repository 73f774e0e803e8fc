//! Who listens on a TCP port: a connection alone cannot tell this job's sshd from a listener of somebody else.
//!
//! Runs as root in the prolog; reads /proc only.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};

/// TCP_LISTEN of the kernel's net/tcp_states.h, as proc_net_tcp shows it.
const LISTEN: &str = "0A";

/// Whether anything may listen on `port` now, on all addresses of both families.
pub fn is_free(port: u16) -> io::Result<bool> {
    // One after the other: a socket of one family may take the port for both.
    for address in [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)] {
        match TcpListener::bind((address, port)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Ok(false),
            // A host without IPv6.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Inodes of the sockets that listen on `port` over IPv4, of any user.
pub fn on_port(port: u16) -> io::Result<HashSet<u64>> {
    Ok(in_table(&fs::read_to_string("/proc/net/tcp")?, port))
}

/// The same, from the text of proc_net_tcp(5).
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
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.flatten().any(|descriptor| {
        let Ok(target) = fs::read_link(descriptor.path()) else { return false };
        let inode = target
            .to_str()
            .and_then(|target| target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        inode.is_some_and(|inode| sockets.contains(&inode))
    })
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
        assert!(is_held_by(&sockets, i32::try_from(std::process::id()).unwrap()));
        assert!(!is_free(port).unwrap());
        drop(listener);
        assert!(on_port(port).unwrap().is_empty());
    }

    #[test]
    fn a_port_of_one_family_is_not_free() {
        let Ok(listener) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) else { return skip("IPv6") };
        let port = listener.local_addr().unwrap().port();
        assert!(on_port(port).unwrap().is_empty());
        assert!(!is_free(port).unwrap());
    }

    #[test]
    fn reads_a_line_of_the_kernel() {
        let line = "   0: 00000000:4E20 00000000:0000 0A 00000000:00000000 00:00000000 00000000  5001        0 4711 1 0";
        assert_eq!(listening(line, 20000), Some(4711));
        assert_eq!(listening(line, 20001), None);
        assert_eq!(listening("garbage", 20000), None);
    }
}

//! The containers of one step begin and end on each node by themselves, with the step's tasks there. A launcher needs
//! all of them for as long as it runs: so it begins when all are there, and those who have nothing to do but to keep
//! their node's container wait for its end.
//!
//! Both look at the ports of the containers' sshds, and at nothing else: no node needs to be told anything. Runs in the
//! task: as root before it joins the container, and as the user.
#![forbid(unsafe_code)]

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long one connection may take.
const CONNECTION: Duration = Duration::from_secs(5);
/// Between two looks at those that were not there.
const INTERVAL: Duration = Duration::from_millis(100);
/// How many of those who wait for the launcher's end may look at its node in one second.
const LOOKS: u32 = 100;
/// A look may fail when the node is busy: its sshd is gone when that many in a row did.
const MISSES: u32 = 3;

/// Waits until an sshd listens on each of these nodes. Returns the first one where none does when the patience is over.
pub fn wait_for_all(nodes: &[String], port: u16, is_patient: impl Fn() -> bool) -> Result<(), String> {
    let mut missing: Vec<&String> = nodes.iter().collect();
    loop {
        missing.retain(|node| !address(node, port).is_some_and(|address| is_there(&address)));
        let Some(first) = missing.first() else { return Ok(()) };
        if !is_patient() {
            return Err((*first).clone());
        }
        sleep(INTERVAL);
    }
}

/// The address of a node's sshd. To be asked for on the host: in a container the resolver would load the image's
/// libraries.
#[must_use]
pub fn address(node: &str, port: u16) -> Option<SocketAddr> {
    let addresses: Vec<SocketAddr> = (node, port).to_socket_addrs().ok()?.collect();
    addresses.iter().find(|address| address.is_ipv4()).or(addresses.first()).copied()
}

/// Waits until the sshd there has come, then calls `come`, and waits until it has gone; for its coming no longer than the
/// limit. `nodes` as many wait.
pub fn wait_for_end(sshd: &SocketAddr, nodes: u32, limit: Option<Duration>, come: impl FnOnce()) {
    let began = Instant::now();
    while !is_there(sshd) {
        if limit.is_some_and(|limit| began.elapsed() > limit) {
            return;
        }
        sleep(INTERVAL);
    }
    come();
    let interval = INTERVAL.max(Duration::from_secs(1) * nodes / LOOKS);
    let mut missed = 0;
    while missed < MISSES {
        sleep(if missed == 0 { interval } else { INTERVAL });
        missed = if is_there(sshd) { 0 } else { missed + 1 };
    }
}

fn is_there(address: &SocketAddr) -> bool {
    TcpStream::connect_timeout(address, CONNECTION).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn the_node_that_is_missing_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let here = "127.0.0.1".to_owned();
        assert_eq!(wait_for_all(std::slice::from_ref(&here), port, || true), Ok(()));
        let there = "127.0.0.2".to_owned();
        let missing = wait_for_all(&[here, there.clone()], port, || false);
        assert_eq!(missing, Err(there));
    }

    #[test]
    fn whoever_waits_goes_when_the_listener_has_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let mut has_come = false;
                wait_for_end(&address, 3, None, || has_come = true);
                has_come
            });
            // Seen once at least.
            let seen = listener.accept().unwrap();
            assert!(!waiting.is_finished());
            drop((seen, listener));
            assert!(waiting.join().unwrap());
        });
        wait_for_end(&address, 3, Some(Duration::ZERO), || panic!("nothing has come"));
    }
}

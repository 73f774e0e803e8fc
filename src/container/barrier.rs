//! The containers of one step begin and end on each node independently, with the step's tasks there. A launcher
//! needs all of them for as long as it runs: so it starts when all of them are there, and tasks that only keep
//! their node's container wait for its end.
//!
//! Both only test whether the containers' sshds accept connections: the nodes exchange no messages. Runs in the
//! task: as root before it joins the container, and as the user.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::pin::pin;
use std::thread::sleep;
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use futures_util::{StreamExt, stream};

use crate::linux::runtime::runtime;

/// How long one connection may take.
const CONNECTION: Duration = Duration::from_secs(5);
/// Interval between attempts to connect.
const INTERVAL: Duration = Duration::from_millis(100);
/// The first of them: nodes start the containers of a step at about the same time, and end them so.
const FIRST_INTERVAL: Duration = Duration::from_millis(10);
/// The most connections that are tried at once: each is an open file of a task, which may have a low limit.
const AT_ONCE: usize = 128;
/// A single attempt may fail because the node is busy: after this many failures in a row its sshd counts as
/// gone.
const MISSES: u32 = 3;
/// After a silence of this length the other end may be lost: a new connection shows whether it is.
const SILENCE: Duration = Duration::from_secs(60);
/// The most nodes that wait for the end of one node's sshd, which has a process for each of them.
const WAITING: usize = 16;

/// Why a launcher does not start.
#[derive(Debug, PartialEq, Eq)]
pub enum Missing {
    /// The address of this node is unknown.
    Address(String),
    /// No sshd listens on this node.
    Sshd(String),
}

/// Waits until an sshd listens on each of these nodes, for as long as `is_patient` returns true.
pub fn wait_for_all(nodes: &[String], port: u16, is_patient: impl Fn() -> bool) -> Result<(), Missing> {
    let mut known = Vec::with_capacity(nodes.len());
    for (node, address) in nodes.iter().zip(addresses(nodes, port)) {
        known.push(address.ok_or_else(|| Missing::Address(node.clone()))?);
    }
    let missing = RefCell::new((0..known.len()).collect::<BTreeSet<_>>());
    let all = async {
        let mut pause = FIRST_INTERVAL;
        loop {
            let left = missing.borrow().clone();
            let looks = left.into_iter().map(|place| {
                let (address, missing) = (known[place], &missing);
                async move {
                    if is_there(address).await {
                        missing.borrow_mut().remove(&place);
                    }
                }
            });
            stream::iter(looks).buffer_unordered(AT_ONCE).collect::<()>().await;
            if missing.borrow().is_empty() {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = longer(pause);
        }
    };
    let given_up = async {
        while is_patient() {
            tokio::time::sleep(INTERVAL).await;
        }
    };
    let first = || missing.borrow().first().and_then(|place| nodes.get(*place)).cloned();
    let sshd = || first().map_or(Ok(()), |node| Err(Missing::Sshd(node)));
    let Ok(runtime) = runtime() else { return sshd() };
    runtime.block_on(async {
        match select(pin!(all), pin!(given_up)).await {
            Either::Left(((), _)) => Ok(()),
            Either::Right(((), _)) => sshd(),
        }
    })
}

/// The pause after this one.
fn longer(pause: Duration) -> Duration {
    INTERVAL.min(pause * 2)
}

async fn is_there(address: SocketAddr) -> bool {
    let connected = tokio::time::timeout(CONNECTION, tokio::net::TcpStream::connect(address)).await;
    matches!(connected, Ok(Ok(_)))
}

/// The addresses of these nodes' sshds.
#[must_use]
pub fn addresses(nodes: &[String], port: u16) -> Vec<Option<SocketAddr>> {
    let addresses = super::nodes::addresses(nodes).into_iter();
    addresses.map(|address| Some(SocketAddr::new(address?, port))).collect()
}

/// The node whose end this node waits for. Not all nodes wait for the launcher's, whose sshd would need a
/// process for each of them. The first node waits for none.
#[must_use]
pub fn awaited(nodes: &[String], own: &str) -> Option<String> {
    let place = nodes.iter().position(|node| node == own)?;
    nodes.get(place.checked_sub(1)? / WAITING).cloned()
}

/// Waits until the sshd at this address listens (no longer than `limit`), then calls `come`, and waits until
/// the sshd has ended. Uses one connection that stays open: each new one would cost CPU time of the job on that
/// node.
pub fn wait_for_end(sshd: &SocketAddr, limit: Option<Duration>, come: impl FnOnce()) {
    let began = Instant::now();
    let mut pause = FIRST_INTERVAL;
    let mut connection = loop {
        match TcpStream::connect_timeout(sshd, CONNECTION) {
            Ok(connection) => break connection,
            Err(_) if limit.is_some_and(|limit| began.elapsed() > limit) => return,
            Err(_) => sleep(pause),
        }
        pause = longer(pause);
    };
    come();
    // A connection that lasts long is followed by a short pause again; an sshd that ends each one at once is not asked more often
    // than every INTERVAL.
    pause = FIRST_INTERVAL;
    let mut missed = 0;
    loop {
        let held = Instant::now();
        hold(connection);
        if held.elapsed() > INTERVAL {
            pause = FIRST_INTERVAL;
        }
        connection = loop {
            sleep(pause);
            pause = longer(pause);
            match TcpStream::connect_timeout(sshd, CONNECTION) {
                Ok(connection) => break connection,
                // The node answers, and nothing listens there.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => return,
                Err(_) if missed + 1 >= MISSES => return,
                Err(_) => missed += 1,
            }
        };
        missed = 0;
    }
}

/// Waits until the other end closes the connection, or sends nothing for long.
fn hold(mut connection: TcpStream) {
    if connection.set_read_timeout(Some(SILENCE)).is_ok() {
        // Reads the greeting of sshd.
        while connection.read(&mut [0; 256]).is_ok_and(|count| count > 0) {}
    }
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
        let began = Instant::now();
        let missing = wait_for_all(&[here.clone(), there.clone()], port, || {
            began.elapsed() < Duration::from_millis(500)
        });
        assert_eq!(missing, Err(Missing::Sshd(there)));
        let nowhere = "nowhere.invalid".to_owned();
        assert_eq!(wait_for_all(&[here, nowhere.clone()], port, || true), Err(Missing::Address(nowhere)));
    }

    /// 63 nodes behind a firewall that drops packets.
    #[test]
    fn wait_for_other_nodes_ends_while_connections_are_tried() {
        // Packets to addresses for documentation (RFC 5737) are lost, or rejected.
        let nodes: Vec<String> = (1..64).map(|host| format!("192.0.2.{host}")).collect();
        let began = Instant::now();
        let missing = wait_for_all(&nodes, 9, || began.elapsed() < Duration::from_millis(300));
        assert_eq!(missing, Err(Missing::Sshd("192.0.2.1".to_owned())));
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }

    #[test]
    fn nodes_wait_for_each_other_in_a_tree() {
        let nodes: Vec<String> = (0..300).map(|node| format!("n{node}")).collect();
        for (own, awaits) in [
            ("n0", None),
            ("n1", Some("n0")),
            ("n16", Some("n0")),
            ("n17", Some("n1")),
            ("n299", Some("n18")),
            ("x", None),
        ] {
            assert_eq!(awaited(&nodes, own).as_deref(), awaits, "{own}");
        }
    }

    #[test]
    fn waiting_task_ends_when_the_listener_is_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::scope(|owner| {
            let waiting = owner.spawn(|| {
                let mut has_come = false;
                wait_for_end(&address, None, || has_come = true);
                has_come
            });
            // The waiting end has connected at least once.
            let seen = listener.accept().unwrap();
            assert!(!waiting.is_finished());
            drop((seen, listener));
            assert!(waiting.join().unwrap());
        });
        wait_for_end(&address, Some(Duration::ZERO), || panic!("nothing has come"));
    }
}

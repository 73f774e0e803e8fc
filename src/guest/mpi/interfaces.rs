//! Which networks MPI may use between nodes. Every node with an engine has its bridge, `docker0`, with the same address
//! on each: Open MPI takes it for a network that connects them, and hangs or talks to itself.
//!
//! Runs as root in the prolog; the container is in the host's network.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// Beginnings of the names of bridges that connect containers and virtual machines of one host, never two hosts.
const LOCAL: [&str; 8] = ["docker", "br-", "veth", "virbr", "lxcbr", "lxdbr", "cni", "podman"];

/// The IPv4 networks that may connect nodes, as `10.1.0.0/16,…`; `None` when this node has no bridge to keep MPI from.
#[must_use]
pub fn between_nodes() -> Option<String> {
    let up = InterfaceFlags::IFF_UP;
    let interfaces = getifaddrs().ok()?.filter(|interface| interface.flags.contains(up));
    let networks = interfaces.filter_map(|interface| {
        let address = interface.address?.as_sockaddr_in()?.ip();
        let mask = interface.netmask?.as_sockaddr_in()?.ip();
        Some((interface.interface_name, address, mask))
    });
    choose(networks)
}

fn choose(networks: impl Iterator<Item = (String, Ipv4Addr, Ipv4Addr)>) -> Option<String> {
    let (local, others): (Vec<_>, Vec<_>) =
        networks.filter(|(_, address, _)| !address.is_loopback()).partition(|(name, ..)| is_local(name));
    let others: BTreeSet<String> = others.iter().map(|(_, address, mask)| network(*address, *mask)).collect();
    let list: Vec<String> = others.into_iter().collect();
    (!local.is_empty() && !list.is_empty()).then(|| list.join(","))
}

fn is_local(name: &str) -> bool {
    LOCAL.iter().any(|prefix| name.starts_with(prefix))
}

fn network(address: Ipv4Addr, mask: Ipv4Addr) -> String {
    let network = Ipv4Addr::from(u32::from(address) & u32::from(mask));
    format!("{network}/{}", u32::from(mask).count_ones())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(interfaces: &[(&str, [u8; 4], [u8; 4])]) -> Option<String> {
        choose(
            interfaces
                .iter()
                .map(|(name, address, mask)| ((*name).to_owned(), (*address).into(), (*mask).into())),
        )
    }

    const LOOPBACK: (&str, [u8; 4], [u8; 4]) = ("lo", [127, 0, 0, 1], [255, 0, 0, 0]);
    const BRIDGE: (&str, [u8; 4], [u8; 4]) = ("docker0", [172, 17, 0, 1], [255, 255, 0, 0]);
    const ETHERNET: (&str, [u8; 4], [u8; 4]) = ("eth0", [10, 1, 2, 3], [255, 255, 0, 0]);
    const INFINIBAND: (&str, [u8; 4], [u8; 4]) = ("ib0", [192, 168, 4, 5], [255, 255, 255, 0]);

    #[test]
    fn the_engines_bridge_is_left_out() {
        assert_eq!(chosen(&[LOOPBACK, BRIDGE, ETHERNET]).as_deref(), Some("10.1.0.0/16"));
        assert_eq!(
            chosen(&[BRIDGE, INFINIBAND, ETHERNET, ETHERNET]).as_deref(),
            Some("10.1.0.0/16,192.168.4.0/24")
        );
    }

    #[test]
    fn without_a_bridge_open_mpi_chooses() {
        assert_eq!(chosen(&[LOOPBACK, ETHERNET]), None);
        assert_eq!(chosen(&[LOOPBACK, BRIDGE]), None);
        assert_eq!(chosen(&[]), None);
    }
}

//! Which networks MPI may use between nodes. The engine of every node has its bridge, `docker0`, with the same
//! address on each: Open MPI takes it for a network between the nodes, and hangs or connects to itself.
//!
//! Runs as root where a container is started; the container is in the host's network namespace.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// Prefixes of the names of bridges that connect containers and virtual machines of one host, never two hosts.
const LOCAL: [&str; 13] = [
    "docker", "br-", "veth", "virbr", "lxcbr", "lxdbr", "incusbr", "cni", "podman", "nerdctl", "sbr",
    "vboxnet", "mpqemubr",
];

/// The networks of this node, without local bridges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Between {
    /// IPv4 networks, as `10.1.0.0/16,…`.
    pub networks: String,
    /// Variables for libraries that choose interfaces.
    pub variables: Vec<(&'static str, String)>,
}

/// An interface with an address.
struct Interface {
    name: String,
    address: Ipv4Addr,
    mask: Ipv4Addr,
    is_running: bool,
}

/// The networks that may connect nodes; `None` when this node has no bridge that MPI must avoid.
#[must_use]
pub fn between_nodes() -> Option<Between> {
    let up = InterfaceFlags::IFF_UP;
    let interfaces = getifaddrs().ok()?.filter(|interface| interface.flags.contains(up));
    let interfaces = interfaces.filter_map(|interface| {
        let address = interface.address?.as_sockaddr_in()?.ip();
        let mask = interface.netmask?.as_sockaddr_in()?.ip();
        let is_running = interface.flags.contains(InterfaceFlags::IFF_RUNNING);
        Some(Interface { name: interface.interface_name, address, mask, is_running })
    });
    let has_rdma = fs::read_dir("/sys/class/infiniband").is_ok_and(|mut devices| devices.next().is_some());
    choose(interfaces, has_rdma)
}

fn choose(interfaces: impl Iterator<Item = Interface>, has_rdma: bool) -> Option<Between> {
    let (local, others): (Vec<_>, Vec<_>) = interfaces
        .filter(|interface| !interface.address.is_loopback())
        .partition(|interface| is_local(&interface.name));
    let networks: BTreeSet<String> =
        others.iter().map(|interface| network(interface.address, interface.mask)).collect();
    if local.is_empty() || networks.is_empty() {
        return None;
    }
    let names: BTreeSet<&str> =
        others.iter().filter(|other| other.is_running).map(|other| other.name.as_str()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let has_carrier = local.iter().any(|bridge| bridge.is_running);
    Some(Between {
        networks: networks.into_iter().collect::<Vec<_>>().join(","),
        variables: if has_carrier { variables(&names, has_rdma) } else { Vec::new() },
    })
}

/// The variables for UCX and libfabric, which use a bridge once a container on it gives it a carrier (UCX,
/// src/ucs/sys/sock.c, `ucs_netif_is_active`), and then cannot reach other nodes. UCX accepts only a list of
/// all devices that it may use; on a node with RDMA devices it prefers those by itself. libfabric
/// (prov/util/src/util_attr.c and src/common.c, "iface") accepts one name.
fn variables(names: &[&str], has_rdma: bool) -> Vec<(&'static str, String)> {
    let ucx = (!names.is_empty() && !has_rdma).then(|| ("UCX_NET_DEVICES", names.join(",")));
    let one = match names {
        [name] => Some(*name),
        _ => None,
    };
    let libfabric = ["FI_TCP_IFACE", "FI_SOCKETS_IFACE"];
    let libfabric = one.into_iter().flat_map(|name| libfabric.map(|variable| (variable, name.to_owned())));
    ucx.into_iter().chain(libfabric).collect()
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

    fn between(interfaces: &[(&str, [u8; 4], [u8; 4])], down: &[&str], has_rdma: bool) -> Option<Between> {
        let interface = |(name, address, mask): &(&str, [u8; 4], [u8; 4])| Interface {
            name: (*name).to_owned(),
            address: (*address).into(),
            mask: (*mask).into(),
            is_running: !down.contains(name),
        };
        choose(interfaces.iter().map(interface), has_rdma)
    }

    fn chosen(interfaces: &[(&str, [u8; 4], [u8; 4])]) -> Option<String> {
        between(interfaces, &[], false).map(|between| between.networks)
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
    fn bridges_of_other_engines_are_left_out_too() {
        for name in ["incusbr0", "nerdctl0", "cni0", "podman1", "lxdbr0", "sbr0"] {
            let bridge = (name, [10, 88, 0, 1], [255, 255, 0, 0]);
            assert_eq!(chosen(&[bridge, ETHERNET]).as_deref(), Some("10.1.0.0/16"), "{name}");
        }
        // A bridge with the machine's own port is a network between nodes.
        for name in ["br0", "vmbr0", "bond0"] {
            assert_eq!(chosen(&[(name, [10, 1, 2, 3], [255, 255, 0, 0]), ETHERNET]), None, "{name}");
        }
    }

    #[test]
    fn without_a_bridge_open_mpi_chooses() {
        assert_eq!(chosen(&[LOOPBACK, ETHERNET]), None);
        assert_eq!(chosen(&[LOOPBACK, BRIDGE]), None);
        assert_eq!(chosen(&[]), None);
    }

    #[test]
    fn interfaces_are_named_only_if_a_bridge_has_a_carrier() {
        let told = |interfaces: &[_], down: &[&str], has_rdma| {
            let variables = between(interfaces, down, has_rdma).unwrap().variables;
            variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
        };
        let one = ["UCX_NET_DEVICES=eth0", "FI_TCP_IFACE=eth0", "FI_SOCKETS_IFACE=eth0"];
        assert_eq!(told(&[LOOPBACK, BRIDGE, ETHERNET], &[], false), one);
        assert_eq!(told(&[BRIDGE, ETHERNET, INFINIBAND], &["ib0"], false), one);
        assert_eq!(told(&[BRIDGE, ETHERNET, INFINIBAND], &[], false), ["UCX_NET_DEVICES=eth0,ib0"]);
        assert_eq!(told(&[BRIDGE, ETHERNET], &[], true), one[1..]);
        assert_eq!(told(&[BRIDGE, ETHERNET], &["docker0"], false), [""; 0]);
    }
}

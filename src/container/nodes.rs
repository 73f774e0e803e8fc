//! The addresses and names of a job's nodes: Slurm's NodeName, the host name, the full name, others in /etc/hosts, addresses.
//!
//! A child does the lookups, on the host: a name service may not answer, and in a container it would be the
//! image's. Runs as root in the prolog, and in tasks before they join the container.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::env;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use serde::{Deserialize, Serialize};

use crate::guest::ssh::client::SshHost;
use crate::linux::errand::{self, Answer, Errand};
use crate::linux::hosts_file;
use crate::linux::resolve::{Resolved, resolve};
use crate::slurm::node_addresses::{self, Configured};
use crate::slurm::scontrol;

/// In larger jobs, nodes have only the names of Slurm's configuration: otherwise each node would ask a name
/// service about each other one.
const MANY: usize = 256;
/// How long names are looked up; nodes that are not resolved by then have only the names of Slurm's
/// configuration.
const NAMES: Duration = Duration::from_secs(5);
const SLURM_CONF: &str = "/etc/slurm/slurm.conf";

/// All nodes of a job.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct JobNodes {
    /// In the job's order.
    pub(super) hosts: Vec<SshHost>,
    /// Names and addresses of this node alone.
    pub(super) own: Vec<String>,
    /// Names that this node's name service does not resolve, with their addresses.
    pub(super) unknown: Vec<(String, IpAddr)>,
}

impl JobNodes {
    /// Looks the nodes up. Those that are not resolved in time have only their names.
    pub(super) async fn look_up(nodes: &[String]) -> Self {
        let asked = async {
            let errand = Errand::send(None, &[], || Answer::of(&found(nodes)))?;
            errand.answer(errand::PATIENCE).await?.value()
        };
        let answer: io::Result<Self> = asked.await;
        answer.unwrap_or_else(|_| Self {
            hosts: nodes.iter().map(|node| SshHost::named(node)).collect(),
            ..Self::default()
        })
    }
}

/// The addresses of these nodes: from Slurm's configuration (NodeAddr), else from the name service, else from
/// slurmctld.
#[must_use]
pub(super) fn addresses(nodes: &[String]) -> Vec<Option<IpAddr>> {
    let sent = Errand::send(None, &[], || Answer::of(&addresses_of(nodes)));
    let answer: io::Result<Vec<Option<IpAddr>>> =
        sent.and_then(|errand| errand.wait(errand::PATIENCE)?.value());
    answer.unwrap_or_else(|_| vec![None; nodes.len()])
}

fn configured(nodes: &[String]) -> impl Fn(&str) -> Configured {
    let file = env::var_os("SLURM_CONF").unwrap_or_else(|| SLURM_CONF.into());
    let known = node_addresses::of_nodes(Path::new(&file), nodes).unwrap_or_default();
    move |node| {
        let by_name = || Configured { host_name: node.to_owned(), address: node.to_owned() };
        known.get(node).cloned().unwrap_or_else(by_name)
    }
}

fn addresses_of(nodes: &[String]) -> Vec<Option<IpAddr>> {
    let (began, configured) = (Instant::now(), configured(nodes));
    let mut found: Vec<Option<IpAddr>> = nodes
        .iter()
        .map(|node| {
            let address = configured(node).address;
            let is_in_time = began.elapsed() < NAMES;
            let look_up = |name: &str| is_in_time.then(|| resolve(name).address()).flatten();
            let literal = || address.parse().ok();
            literal().or_else(|| look_up(&address)).or_else(|| look_up(node).filter(|_| address != *node))
        })
        .collect();
    let missing: Vec<_> =
        nodes.iter().zip(&found).filter(|(_, at)| at.is_none()).map(|(node, _)| node).collect();
    if !missing.is_empty() {
        let by_slurm = scontrol::addresses(&missing).unwrap_or_default();
        for (node, at) in nodes.iter().zip(&mut found) {
            *at = at.or_else(|| resolve(by_slurm.get(node)?).address());
        }
    }
    found
}

fn found(nodes: &[String]) -> JobNodes {
    let (began, configured) = (Instant::now(), configured(nodes));
    // In a large job one name is tried for all: it shows whether the name service knows Slurm's names.
    let is_many = nodes.len() > MANY;
    let are_known = !is_many || nodes.first().is_none_or(|node| resolve(node).address().is_some());
    let mut all = JobNodes::default();
    let mut nameless = Vec::new();
    for node in nodes {
        let Configured { host_name, address } = configured(node);
        let mut host = SshHost::named(node);
        let is_looked_up = !is_many && began.elapsed() < NAMES;
        let look_up = |name: &str| match is_looked_up || name.parse::<IpAddr>().is_ok() {
            true => resolve(name),
            false => Resolved::default(),
        };
        let by_name = look_up(node);
        let by_host_name = if host_name == *node { by_name.clone() } else { look_up(&host_name) };
        let by_address = if address == *node { by_name.clone() } else { look_up(&address) };
        let at = by_address.address().or(by_name.address()).or(by_host_name.address());
        host.address = match at {
            Some(at) => Some(at.to_string()),
            None => Some(address.clone()).filter(|address| address != node),
        };
        for found in [&by_address, &by_name, &by_host_name] {
            // On a node its own name may resolve to a loopback address, which other nodes must not use.
            host.also(found.addresses.iter().filter(|at| !at.is_loopback()).map(ToString::to_string));
            host.also(found.canonical.clone());
        }
        host.also([host_name, address]);
        let is_known = if is_looked_up { by_name.address().is_some() } else { are_known };
        match at {
            Some(at) if !is_known => all.unknown.push((node.clone(), at)),
            None if !is_known && host.address.is_none() => nameless.push(node),
            _ => {}
        }
        all.hosts.push(host);
    }
    by_slurmctld(&mut all, &nameless);
    if !is_many {
        by_hosts_file(&mut all.hosts, &hosts_file::read());
    }
    all.own = own();
    all
}

/// Adds nodes that are in no configuration file: cloud nodes, or dynamic ones.
fn by_slurmctld(all: &mut JobNodes, nameless: &[&String]) {
    if nameless.is_empty() {
        return;
    }
    let by_slurm = scontrol::addresses(nameless).unwrap_or_default();
    for host in all.hosts.iter_mut().filter(|host| host.address.is_none()) {
        let Some(address) = by_slurm.get(&host.name) else { continue };
        let Some(at) = resolve(address).address() else { continue };
        host.address = Some(at.to_string());
        host.also([at.to_string(), address.clone()]);
        all.unknown.push((host.name.clone(), at));
    }
}

/// Adds the names that this file has for addresses of the nodes, except where it calls a node by another one's name.
fn by_hosts_file(hosts: &mut [SshHost], content: &str) {
    let of_slurm: HashSet<String> = hosts.iter().map(|host| host.name.clone()).collect();
    let mut by_address: HashMap<IpAddr, Vec<usize>> = HashMap::new();
    for (place, host) in hosts.iter().enumerate() {
        let known = host.others.iter().chain(&host.address).chain([&host.name]);
        for address in known.filter_map(|known| known.parse().ok()) {
            by_address.entry(address).or_default().push(place);
        }
    }
    for (address, names) in hosts_file::lines(content) {
        // Nodes that share an address share what it is called by: not even Slurm tells them apart by that.
        let Some(places) = by_address.get(&address) else { continue };
        let names: Vec<_> = names.filter(|name| !of_slurm.contains(*name)).map(str::to_owned).collect();
        places.iter().for_each(|place| hosts[*place].also(names.iter().cloned()));
    }
}

/// The names and addresses that belong to this node alone.
fn own() -> Vec<String> {
    let mut own = Vec::new();
    let host_name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    own.extend(host_name.as_deref().and_then(|name| resolve(name).canonical));
    own.extend(host_name);
    for interface in getifaddrs().into_iter().flatten() {
        let Some(address) = interface.address else { continue };
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
        let v6 = address.as_sockaddr_in6().map(|address| IpAddr::from(address.ip()));
        own.extend(v4.or(v6).filter(|address| !address.is_loopback()).map(|address| address.to_string()));
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_has_all_names_that_the_hosts_file_has_for_its_addresses() {
        let mut hosts = ["n1", "n2"].map(SshHost::named);
        hosts[0].address = Some("10.0.0.1".to_owned());
        hosts[1].also(["2001:db8::2".to_owned(), "10.0.0.2".to_owned()]);
        let content = "127.0.0.1 localhost n1\n10.0.0.1 n1 n1.example n2\n10.0.0.2 n2 node2 # node3\n\
            2001:db8:0::2 n2 n2-v6 node2\n10.1.0.2 n2-storage\n";
        by_hosts_file(&mut hosts, content);
        assert_eq!(hosts[0].others, ["n1.example"]);
        assert_eq!(hosts[1].others, ["2001:db8::2", "10.0.0.2", "node2", "n2-v6"]);
    }
}

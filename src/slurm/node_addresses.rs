//! Addresses of nodes in slurm.conf: its lines `NodeName=… NodeHostname=… NodeAddr=…`, read as Slurm reads them
//! (src/common/read_config.c, `expand_nodeline_info`). The plugin does not ask slurmctld, since each node of a
//! large job would have to.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;

use super::conf;
use super::hostlist;

/// A node's names in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configured {
    /// The host name by which the node knows itself.
    pub host_name: String,
    /// The address of its slurmd, or a name.
    pub address: String,
}

/// Those of these nodes that slurm.conf names.
pub fn of_nodes(slurm_conf: &Path, nodes: &[String]) -> io::Result<HashMap<String, Configured>> {
    let nodes: HashSet<&str> = nodes.iter().map(String::as_str).collect();
    let mut found = HashMap::new();
    for line in conf::lines_of(slurm_conf)? {
        found.extend(of_line(&line).into_iter().filter(|(name, _)| nodes.contains(name.as_str())));
    }
    Ok(found)
}

/// Parses one line. Several nodes may share one address; any other mismatch between the numbers of addresses
/// and nodes is an error in Slurm.
fn of_line(line: &str) -> Vec<(String, Configured)> {
    let pairs: Vec<_> = conf::pairs(line).collect();
    let list = |key: &str| {
        let (_, value) = pairs.iter().find(|(found, _)| found.eq_ignore_ascii_case(key))?;
        hostlist::expand(value).ok().filter(|list| !list.is_empty())
    };
    let is_node = pairs.first().is_some_and(|(key, _)| key.eq_ignore_ascii_case("NodeName"));
    let Some(names) = list("NodeName").filter(|_| is_node) else { return Vec::new() };
    let host_names = list("NodeHostname").unwrap_or_else(|| names.clone());
    let addresses = list("NodeAddr").unwrap_or_else(|| host_names.clone());
    let at = |list: &[String], place: usize| match list {
        [only] => Some(only.clone()),
        list => list.get(place).cloned(),
    };
    let configured = |(place, name)| {
        Some((name, Configured { host_name: at(&host_names, place)?, address: at(&addresses, place)? }))
    };
    names.into_iter().enumerate().filter_map(configured).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_where_their_line_says() {
        let found = |line| {
            let nodes = of_line(line).into_iter();
            nodes.map(|(name, at)| format!("{name} {} {}", at.host_name, at.address)).collect::<Vec<_>>()
        };
        assert_eq!(found("NodeName=n[1-2] CPUs=4"), ["n1 n1 n1", "n2 n2 n2"]);
        assert_eq!(
            found("nodename=c[1-2] NodeHostName=h[3-4] NodeAddr=10.0.0.[1-2]"),
            ["c1 h3 10.0.0.1", "c2 h4 10.0.0.2"]
        );
        assert_eq!(found("NodeName=a,b NodeAddr=gate"), ["a a gate", "b b gate"]);
        assert_eq!(found("NodeName=n[1-3] NodeAddr=x[1-2]"), ["n1 n1 x1", "n2 n2 x2"]);
        assert_eq!(found("PartitionName=n1 NodeName=n1"), [""; 0]);
        assert_eq!(found("NodeName=n[1"), [""; 0]);
    }
}

//! The configuration of ssh in the container: only for the job's own nodes; all other hosts are unaffected.
//!
//! Written by root where a container is started, read by ssh as the job's user. Valid for all OpenSSH from 7.2
//! on: an option that a release does not know makes every ssh of that release fail, even to another host.
//! `IgnoreUnknown` does not help: only its first value counts, which may be the user's.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::server::Reach;
use crate::guest::paths::{KNOWN_HOSTS, USER_KEY};

/// OpenSSH 7.4 and older read lines of up to 1023 bytes, and stop at a longer one.
const MAX_LINE: usize = 900;
/// The longest name of a node.
const MAX_NODE: usize = 255;
/// The largest image configuration that is merged.
const MAX_IMAGE_CONFIG: usize = 1 << 20;

/// Names that each node uses for itself: of Debian's and of Fedora's /etc/hosts, and addresses by which Linux connects to
/// the node itself.
const LOOPBACK: [&str; 11] = [
    "localhost",
    "127.0.0.1",
    "::1",
    "127.0.1.1",
    "localhost.localdomain",
    "localhost4",
    "localhost6",
    "ip6-localhost",
    "ip6-loopback",
    "0.0.0.0",
    "::",
];
/// The nodes of larger jobs are known only as they are written: the file would have thrice as many names.
const MAX_SPELLED: usize = 256;

/// A node of the job, for ssh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshHost {
    /// Slurm's name for it.
    pub name: String,
    /// Its other names, and its addresses.
    pub others: Vec<String>,
    /// Its address, unless that is its name.
    pub address: Option<String>,
}

impl SshHost {
    /// A node that is known only by its name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), others: Vec::new(), address: None }
    }

    /// Adds other names, each once.
    pub fn also(&mut self, names: impl IntoIterator<Item = String>) {
        for name in names {
            if name != self.name && !self.others.contains(&name) {
                self.others.push(name);
            }
        }
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.name).chain(&self.others).map(String::as_str)
    }
}

/// The text of `ssh_config`: one block with all settings for as many of the nodes' names as fit on a `Host`
/// line, then each node's address. `own` are names of this node alone.
///
/// `alias` is the name under which [`known_hosts`] has the hosts' key. Names that are not valid host names are
/// left out. An sshd that serves only its own node is reached at the loopback address.
pub fn ssh_config(nodes: &[SshHost], own: &[String], port: u16, user: &str, alias: &str) -> String {
    let reach = Reach::of(nodes.len());
    let settings = settings(port, user, alias, reach);
    let mut text = String::new();
    // Length of the current `Host` line; 0 when there is none.
    let mut line = 0;
    let own = own.iter().map(String::as_str).chain(LOOPBACK).filter(|_| !nodes.is_empty());
    // Slurm's names come first: users look for them most.
    let names = nodes.iter().map(|node| node.name.as_str());
    let others = nodes.iter().flat_map(|node| node.others.iter().map(String::as_str));
    // As they are written, then their other spellings.
    let spelled = |names: &[&str]| {
        let hosts: Vec<_> = names.iter().copied().filter(|name| is_host(name)).collect();
        let others = hosts.iter().copied().filter(|_| nodes.len() <= MAX_SPELLED).flat_map(other_spellings);
        let others: Vec<_> = others.filter(|name| is_host(name)).collect();
        hosts.into_iter().map(str::to_owned).chain(others).collect::<Vec<_>>()
    };
    let all = spelled(&names.chain(others).chain(own).collect::<Vec<_>>());
    let mut seen = HashSet::new();
    for node in all.iter().filter(|name| seen.insert(name.as_str())) {
        if line > 0 && line + 1 + node.len() > MAX_LINE {
            text.push_str(&settings);
            line = 0;
        }
        if line == 0 {
            text.push_str("Host");
            line = "Host".len();
        }
        text.push(' ');
        text.push_str(node);
        line += 1 + node.len();
    }
    if line > 0 {
        text.push_str(&settings);
    }
    if reach == Reach::Nodes {
        let at = |names: &[&str], address: &str| {
            let mut line = "Host".to_owned();
            for name in spelled(names) {
                if line.len() + 1 + name.len() <= MAX_LINE {
                    line.push(' ');
                    line.push_str(&name);
                }
            }
            format!("{line}\n    HostName {address}\n")
        };
        for node in nodes {
            if let Some(address) = node.address.as_deref().filter(|address| is_host(address)) {
                text.push_str(&at(&node.names().collect::<Vec<_>>(), address));
            }
        }
        text.push_str(&at(&LOOPBACK, "127.0.0.1"));
    }
    text
}

/// `/etc/ssh/ssh_config` for the container: the plugin's, then the image's for all hosts. ssh takes the first value of each
/// setting, so the plugin's win for the job's nodes. An image's configuration of more than 1 MiB is left out.
pub fn merged_ssh_config(plugins: &str, image: &[u8]) -> Vec<u8> {
    let image = if image.len() > MAX_IMAGE_CONFIG { &[] } else { image };
    let mut merged = Vec::with_capacity(plugins.len() + image.len() + 80);
    merged.extend_from_slice(plugins.as_bytes());
    merged.extend_from_slice(b"\n# From here on, the image's own configuration.\nHost *\n");
    merged.extend_from_slice(image);
    merged
}

/// The line of `known_hosts` for the job's hosts, from their public key.
pub fn known_hosts(alias: &str, host_key: &str) -> String {
    format!("{alias} {host_key}\n")
}

/// The end of a `Host` line and all settings for these hosts.
fn settings(port: u16, user: &str, alias: &str, reach: Reach) -> String {
    let host = match reach {
        Reach::Nodes => "",
        Reach::Loopback => "\n    HostName 127.0.0.1",
    };
    // A name in quotes may contain a space; a quote or a line break would end it.
    let user: String = user.chars().filter(|c| !c.is_control() && *c != '"').collect();
    format!(
        "
    User \"{user}\"
    Port {port}{host}
    IdentityFile {USER_KEY}
    IdentitiesOnly yes
    PreferredAuthentications publickey
    HostKeyAlias {alias}
    HostKeyAlgorithms ssh-ed25519
    StrictHostKeyChecking yes
    UserKnownHostsFile {KNOWN_HOSTS}
    GlobalKnownHostsFile /dev/null
    UpdateHostKeys no
    CheckHostIP no
    VerifyHostKeyDNS no
    CanonicalizeHostname no
    ProxyCommand none
    ControlMaster no
    ControlPath none
    ForwardAgent no
    ForwardX11 no
    SendEnv *
    BatchMode yes
    ConnectTimeout 60
    ConnectionAttempts 3
    LogLevel ERROR
"
    )
}

/// Other spellings that lead to the same node: the name in lower and in upper case, and each with the dot that ends a
/// full name; of an address, the one that an IPv6 socket has for it, or all of its groups. Name services and sockets take
/// them for the same; ssh's `Host` does not (`match_pattern` in OpenSSH's match.c), and has no pattern for that.
fn other_spellings(name: &str) -> impl Iterator<Item = String> {
    let written = match name.parse() {
        Ok(IpAddr::V4(address)) => vec![name.to_owned(), address.to_ipv6_mapped().to_string()],
        Ok(IpAddr::V6(address)) => {
            let groups = address.segments().map(|group| format!("{group:x}"));
            vec![name.to_owned(), groups.join(":")]
        }
        Err(_) => vec![name.to_owned(), format!("{}.", name.trim_end_matches('.'))],
    };
    let cases = |name: String| [name.to_ascii_lowercase(), name.to_ascii_uppercase(), name];
    let mut all: Vec<String> = written.into_iter().flat_map(cases).filter(|other| other != name).collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter()
}

/// Whether this is a host name, or an address.
fn is_host(name: &str) -> bool {
    is_host_name(name) || name.parse::<IpAddr>().is_ok()
}

/// Only letters, digits, dots, dashes and underscores: no patterns, no options, no other character with a
/// meaning for ssh.
fn is_host_name(name: &str) -> bool {
    name.len() <= MAX_NODE
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::lacking::skip;
    use std::process::Command;

    fn nodes(count: usize) -> Vec<String> {
        (0..count).map(|node| format!("node{node:05}")).collect()
    }

    fn config_of<S: AsRef<str>>(nodes: &[S], port: u16, user: &str, alias: &str) -> String {
        let hosts: Vec<_> = nodes.iter().map(|node| SshHost::named(node.as_ref())).collect();
        ssh_config(&hosts, &[], port, user, alias)
    }

    #[test]
    fn each_name_of_a_node_leads_to_where_slurm_has_it() {
        let mut hosts = [SshHost::named("c1"), SshHost::named("c2")];
        hosts[1].also(["n2.example.org", "2001:db8::2", "10.0.0.2", "c2", "*", "n2"].map(str::to_owned));
        hosts[1].address = Some("10.0.0.2".to_owned());
        let own = ["10.0.0.1".to_owned(), "c1.example.org".to_owned()];
        let config = ssh_config(&hosts, &own, 20123, "alice", "docker_123");
        for (host, at) in [
            ("c1", "c1"),
            ("c1.example.org", "c1.example.org"),
            ("10.0.0.1", "10.0.0.1"),
            ("c2", "10.0.0.2"),
            ("n2.example.org", "10.0.0.2"),
            ("10.0.0.2", "10.0.0.2"),
            ("2001:db8::2", "10.0.0.2"),
            ("localhost", "127.0.0.1"),
            ("::1", "127.0.0.1"),
            ("C2", "10.0.0.2"),
            ("N2.EXAMPLE.ORG", "10.0.0.2"),
            ("2001:DB8::2", "10.0.0.2"),
            ("LOCALHOST", "127.0.0.1"),
            ("localhost.localdomain", "127.0.0.1"),
            ("c2.", "10.0.0.2"),
            ("N2.EXAMPLE.ORG.", "10.0.0.2"),
            ("::ffff:10.0.0.2", "10.0.0.2"),
            ("2001:db8:0:0:0:0:0:2", "10.0.0.2"),
            ("::ffff:127.0.0.1", "127.0.0.1"),
        ] {
            let Some(ssh) = understood(config.as_bytes(), host) else { return skip("ssh") };
            for line in
                ["port 20123".to_owned(), "hostkeyalias docker_123".to_owned(), format!("hostname {at}")]
            {
                assert!(ssh.lines().any(|found| found == line), "{host}: {line}: {ssh}");
            }
        }
        let other = understood(config.as_bytes(), "10.0.0.3").unwrap();
        assert!(!other.contains("20123"), "{other}");
    }

    /// How ssh interprets a configuration for a host; `None` where there is no ssh.
    fn understood(config: &[u8], host: &str) -> Option<String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ssh_config");
        std::fs::write(&path, config).unwrap();
        let output = Command::new("ssh").arg("-F").arg(&path).args(["-T", "-G", host]).output().ok()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        Some(String::from_utf8(output.stdout).unwrap())
    }

    #[test]
    fn the_nodes_of_the_job_are_reached_with_its_key_on_its_port() {
        let config = config_of(&["n1", "n2"], 20123, "alice", "docker_123");
        assert!(config.starts_with("Host n1 n2 localhost 127.0.0.1 "));
        assert!(config.contains("\n    User \"alice\"\n    Port 20123\n"));
        let Some(ssh) = understood(config.as_bytes(), "n2") else { return skip("ssh") };
        for line in [
            "user alice",
            "port 20123",
            "hostkeyalias docker_123",
            "identityfile /run/spank-docker/id_ed25519",
            "userknownhostsfile /run/spank-docker/known_hosts",
            "stricthostkeychecking true",
            "batchmode yes",
        ] {
            assert!(ssh.lines().any(|found| found == line), "{line}: {ssh}");
        }
    }

    /// The options in readconf.c of 7.2p1; `IdentityAgent` was added in 7.3.
    #[test]
    fn oldest_openssh_knows_every_word() {
        const KNOWN: [&str; 24] = [
            "Host",
            "User",
            "Port",
            "HostName",
            "IdentityFile",
            "IdentitiesOnly",
            "PreferredAuthentications",
            "HostKeyAlias",
            "HostKeyAlgorithms",
            "StrictHostKeyChecking",
            "UserKnownHostsFile",
            "GlobalKnownHostsFile",
            "UpdateHostKeys",
            "CheckHostIP",
            "VerifyHostKeyDNS",
            "CanonicalizeHostname",
            "ProxyCommand",
            "ControlMaster",
            "ControlPath",
            "ForwardAgent",
            "ForwardX11",
            "SendEnv",
            "BatchMode",
            "ConnectTimeout",
        ];
        const MORE: [&str; 2] = ["ConnectionAttempts", "LogLevel"];
        for nodes in [&["n1"][..], &["n1", "n2"]] {
            let config = config_of(nodes, 20123, "alice", "docker_123");
            let words = config.lines().filter_map(|line| line.split_whitespace().next());
            for word in words {
                assert!(KNOWN.contains(&word) || MORE.contains(&word), "{word}");
            }
        }
    }

    #[test]
    fn other_hosts_are_unaffected() {
        let config = config_of(&["n1"], 20123, "alice", "docker_123");
        let merged = merged_ssh_config(&config, b"Port 2222\nHost n1\n  User bob\n# \xff\n");
        let Some(other) = understood(&merged, "example.org") else { return skip("ssh") };
        assert!(other.contains("\nport 2222\n") && !other.contains("/run/spank-docker"));
        let own = understood(&merged, "n1").unwrap();
        assert!(own.contains("\nport 20123\n") && own.contains("user alice\n"));
    }

    #[test]
    fn no_line_is_too_long_and_no_node_is_lost() {
        let nodes = nodes(10_000);
        let config = config_of(&nodes, 20123, "alice", "docker_123");
        assert!(config.lines().all(|line| line.len() <= MAX_LINE));
        let hosts = config.lines().filter_map(|line| line.strip_prefix("Host "));
        assert!(
            hosts.flat_map(|line| line.split(' ')).take(nodes.len()).eq(nodes.iter().map(String::as_str))
        );
        let Some(ssh) = understood(config.as_bytes(), "node09999") else { return skip("ssh") };
        assert!(ssh.contains("\nport 20123\n"));
    }

    #[test]
    fn hostile_names_are_left_out() {
        let long = "n".repeat(256);
        let bad = ["", "*", "a b", "a\nPort 1", "-oX", "!a", "n1", "a,b", &long, "é"];
        let config = config_of(&bad, 1, "a\"\nPort 2\n", "x");
        assert!(config.starts_with("Host n1 localhost 127.0.0.1 "));
        assert!(config.contains("\n    User \"aPort 2\"\n    Port 1\n"));
        assert!(config_of(&["*", "n1"], 1, "a", "x").starts_with("Host n1 "));
    }

    #[test]
    fn a_huge_configuration_of_an_image_is_left_out() {
        assert!(merged_ssh_config("ours\n", &[b'\n'; MAX_IMAGE_CONFIG + 1]).len() < 100);
        assert!(merged_ssh_config("ours\n", &[b'\n'; MAX_IMAGE_CONFIG]).len() > MAX_IMAGE_CONFIG);
    }

    #[test]
    fn the_hosts_are_known_by_their_alias() {
        assert_eq!(known_hosts("docker_123", "ssh-ed25519 AAAA"), "docker_123 ssh-ed25519 AAAA\n");
    }
}

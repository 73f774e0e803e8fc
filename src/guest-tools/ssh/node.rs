//! Where a node of the job is, by any of its names: from the ssh_config and the known_hosts that the plugin
//! writes for OpenSSH's ssh (`guest::ssh::client` in the plugin).
#![forbid(unsafe_code)]

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Stdio;

use russh::keys::PublicKey;
use tokio::process::Command;

const CONFIG: &str = "/run/spank-docker/ssh_config";
const KNOWN_HOSTS: &str = "/run/spank-docker/known_hosts";
const HOSTS: &str = "/etc/hosts";

/// A node of the job.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// As the caller wrote it.
    pub(super) name: String,
    /// An address, or a name that the name service knows.
    pub(super) address: String,
    pub(super) port: u16,
    pub(super) user: String,
    /// The file with the user's key.
    pub(super) key: String,
    /// The key that its sshd must have.
    pub(super) host_key: PublicKey,
}

/// The node of this name; `None` if the job has none.
pub(super) fn find(host: &str) -> Result<Option<Node>, String> {
    let read = |path: &str| {
        fs::read_to_string(path)
            .map_err(|error| format!("cannot read '{path}': {error}: this works only in a job's container"))
    };
    let config = read(CONFIG)?;
    let Some(port) = setting(&config, host, "Port").and_then(|port| port.parse().ok()) else {
        return Ok(None);
    };
    let own = |name| setting(&config, host, name).map(|value| value.trim_matches('"').to_owned());
    let alias = own("HostKeyAlias").ok_or("the job's ssh_config has no HostKeyAlias")?;
    let known = read(KNOWN_HOSTS)?;
    let host_key = known.lines().find_map(|line| line.strip_prefix(&*alias)?.strip_prefix(' '));
    let host_key = host_key.ok_or_else(|| format!("the job's known_hosts has no key of '{alias}'"))?;
    Ok(Some(Node {
        name: host.to_owned(),
        address: own("HostName").unwrap_or_else(|| host.to_owned()),
        port,
        user: own("User").unwrap_or_default(),
        key: own("IdentityFile").unwrap_or_default(),
        host_key: PublicKey::from_openssh(host_key.trim())
            .map_err(|error| format!("the job's host key: {error}"))?,
    }))
}

/// The first value of a setting in the blocks for this host, whose name may be in any case.
fn setting<'a>(config: &'a str, host: &str, wanted: &str) -> Option<&'a str> {
    let mut is_for_host = false;
    for line in config.lines() {
        let (name, value) = line.trim().split_once(' ').unwrap_or_default();
        if name == "Host" {
            is_for_host = value.split(' ').any(|known| known.eq_ignore_ascii_case(host));
        } else if is_for_host && name == wanted {
            return Some(value);
        }
    }
    None
}

impl Node {
    /// Its addresses. This static program must not load the image's name services, so names that are not in
    /// /etc/hosts are looked up by the image's getent(1).
    pub(super) async fn addresses(&self) -> Result<Vec<IpAddr>, String> {
        if let Ok(address) = self.address.parse() {
            return Ok(vec![address]);
        }
        let hosts = fs::read(HOSTS).unwrap_or_default();
        let mut found = in_hosts(&String::from_utf8_lossy(&hosts), &self.address);
        if found.is_empty() {
            found = by_getent(&self.address).await;
        }
        if found.is_empty() {
            return Err(format!(
                "the address of '{}' cannot be found: the image has no getent, or its name service does not know the node",
                self.name
            ));
        }
        Ok(found)
    }
}

fn in_hosts(hosts: &str, name: &str) -> Vec<IpAddr> {
    let lines = hosts.lines().map(|line| line.split('#').next().unwrap_or_default());
    let mut found = Vec::new();
    for line in lines {
        let mut words = line.split_ascii_whitespace();
        let address: Option<IpAddr> = words.next().and_then(|address| address.parse().ok());
        found.extend(address.filter(|_| words.any(|known| known.eq_ignore_ascii_case(name))));
    }
    found
}

/// A name service may take for ever: the program ends with the future.
async fn by_getent(name: &str) -> Vec<IpAddr> {
    let paths = ["/usr/bin/getent", "/bin/getent"];
    let Some(getent) = paths.into_iter().find(|path| Path::new(path).exists()) else { return Vec::new() };
    let mut command = Command::new(getent);
    command.args(["hosts", name]).stdin(Stdio::null()).stderr(Stdio::null());
    command.env_remove("LD_LIBRARY_PATH").env_remove("LD_PRELOAD").kill_on_drop(true);
    let output = command.output().await.map(|output| output.stdout).unwrap_or_default();
    let lines = String::from_utf8_lossy(&output);
    lines.lines().filter_map(|line| line.split_ascii_whitespace().next()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_found_by_each_of_its_names() {
        let config = "Host n1 n2 localhost N1\n    User \"alice\"\n    Port 20123\n    HostKeyAlias docker_1\nHost n2 10.0.0.2\n    HostName 10.0.0.2\nHost localhost\n    HostName 127.0.0.1\n";
        assert_eq!(setting(config, "n2", "Port"), Some("20123"));
        assert_eq!(setting(config, "N2", "HostName"), Some("10.0.0.2"));
        assert_eq!(setting(config, "n1", "HostName"), None);
        assert_eq!(setting(config, "localhost", "HostName"), Some("127.0.0.1"));
        assert_eq!(setting(config, "n3", "Port"), None);
        assert_eq!(setting(config, "n1 n2", "Port"), None);
    }

    #[test]
    fn hosts_are_read_without_the_c_library() {
        let hosts = "127.0.0.1 localhost\n10.0.0.2  n2.example.org n2 # n3\n# 10.0.0.3 n3\n::1 localhost\n";
        assert_eq!(in_hosts(hosts, "N2"), ["10.0.0.2".parse::<IpAddr>().unwrap()]);
        assert_eq!(in_hosts(hosts, "localhost").len(), 2);
        assert!(in_hosts(hosts, "n3").is_empty());
    }
}

//! The configuration of ssh in the container: only for the job's own nodes; all other hosts are unaffected.
//!
//! Written by root where a container is started, read by ssh as the job's user. Valid for all OpenSSH from 7.2
//! on: an option that a release does not know makes every ssh of that release fail, even to another host.
//! `IgnoreUnknown` does not help: only its first value counts, which may be the user's.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::fmt::Write;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::server::Reach;
use crate::guest::paths::{KNOWN_HOSTS, SSH_CONFIG, SSH_OF_IMAGE, USER_KEY};

/// OpenSSH 7.4 and older read lines of up to 1023 bytes, and stop at a longer one.
const MAX_LINE: usize = 900;
/// The longest name of a node.
const MAX_NODE: usize = 255;
/// The largest image configuration that is merged.
const MAX_IMAGE_CONFIG: usize = 1 << 20;

/// Names that each node uses for itself.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

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
    let mut seen = HashSet::new();
    // Slurm's names come first: users look for them most.
    let names = nodes.iter().map(|node| node.name.as_str());
    let others = nodes.iter().flat_map(|node| node.others.iter().map(String::as_str));
    for node in names.chain(others).chain(own).filter(|name| is_host(name) && seen.insert(*name)) {
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
        for node in nodes {
            let Some(address) = node.address.as_deref().filter(|address| is_host(address)) else { continue };
            let mut line = "Host".to_owned();
            for name in node.names().filter(|name| is_host(name)) {
                if line.len() + 1 + name.len() <= MAX_LINE {
                    line.push(' ');
                    line.push_str(name);
                }
            }
            let _ = write!(text, "{line}\n    HostName {address}\n");
        }
        let _ = write!(text, "Host {}\n    HostName 127.0.0.1\n", LOOPBACK.join(" "));
    }
    text
}

/// `/etc/ssh/ssh_config` for the container: the plugin's, then the image's for all hosts. ssh takes the first value of each
/// setting, so the plugin's win for the job's nodes. An image's configuration of more than 1 MiB is left out.
pub fn merged_ssh_config(ours: &str, image: &[u8]) -> Vec<u8> {
    let image = if image.len() > MAX_IMAGE_CONFIG { &[] } else { image };
    let mut merged = Vec::with_capacity(ours.len() + image.len() + 80);
    merged.extend_from_slice(ours.as_bytes());
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

/// Carries the state of the shell that calls ssh: all of its variables, its umask and its limits, in one
/// variable which [`super::force_command`] evaluates in the same shell, since the image is the same. An sshd
/// resets some variables (PATH, HOME), accepts only the first 128, and cannot unset any.
///
/// Leaves out the session's own variables. Does nothing where the shell's `export -p` has another format, where
/// some exported variables are read-only (bash's BASHOPTS and SHELLOPTS), or where all of them together are
/// longer than the kernel's limit for one variable (128 KiB): then only the variables that sshd accepts arrive.
/// ssh itself runs without the image's or the user's libraries, which are not meant for it. The text for each
/// limit is a command that ends with a backslash, and its number on the next line; limits that the shell does
/// not know are left out.
const CARRY: &str = r#"spank_docker_limits=$(
        echo "umask \\"; umask
        for spank_docker_letter in t f d s c m l n v u p; do
            for spank_docker_kind in S H; do
                ulimit -$spank_docker_kind -$spank_docker_letter >/dev/null &&
                    echo "ulimit -$spank_docker_kind -$spank_docker_letter \\" &&
                    ulimit -$spank_docker_kind -$spank_docker_letter
            done
        done 2>/dev/null)
    spank_docker_all=$(unset PWD OLDPWD SHELL SHLVL TERM MAIL SSH_CLIENT SSH_CONNECTION SSH_TTY; export -p)
    spank_docker_rest="
$spank_docker_all" spank_docker_names= spank_docker_count=0
    while spank_docker_more=${spank_docker_rest#*"
export "}; [ "$spank_docker_more" != "$spank_docker_rest" ]; do
        spank_docker_rest=$spank_docker_more spank_docker_count=$((spank_docker_count + 1))
        case ${spank_docker_more%%[!A-Za-z0-9_]*} in
        BASHOPTS | SHELLOPTS) spank_docker_count=0; break ;;
        PATH | HOME) ;;
        *) spank_docker_names="$spank_docker_names ${spank_docker_more%%[!A-Za-z0-9_]*}" ;;
        esac
    done
    spank_docker_all="{ $spank_docker_limits
} 2>/dev/null
$spank_docker_all"
    spank_docker_size=$(LC_ALL=C; echo ${#spank_docker_all})
    if [ "$spank_docker_count" -gt 0 ] && [ "$spank_docker_size" -lt 120000 ]; then
        unset $spank_docker_names
        SLURM_DOCKERENVIRONMENT=$spank_docker_all
        export SLURM_DOCKERENVIRONMENT
    fi
    for spank_docker_word in LD_LIBRARY_PATH LD_PRELOAD; do
        eval "[ -z \"\${$spank_docker_word-}\" ] || export \"SLURM_DOCKER$spank_docker_word=\$$spank_docker_word\""
        unset "$spank_docker_word"
    done"#;

/// Runs ssh, and prints likely causes when ssh itself fails (255): ssh's own messages are about ports and keys.
const SSH: &str = r#"if command -v SSH_PROGRAM >/dev/null 2>&1; then
    CARRY
    SSH_PROGRAM -F SSH_CONFIG "$@"
    spank_docker_code=$?
    [ "$spank_docker_code" = 255 ] || exit "$spank_docker_code"
    spank_docker_skip=
    for spank_docker_word do
        shift
        case $spank_docker_word in
        -[bcDEeFIiJLlmOopQRSWw]) spank_docker_skip=yes ;;
        -*) ;;
        *) [ "$spank_docker_skip" ] || break; spank_docker_skip= ;;
        esac
    done
    echo "spank_docker: cannot reach the job's container on '$spank_docker_word' over ssh: it has ended, the nodes have different secrets, or a firewall is between them: ask the admin" >&2
    exit 255
fi
"#;

/// The program that MPI launchers call instead of ssh. It prints what the image lacks, where ssh would fail
/// without naming the cause: `missing` when the image has no sshd, or that it has no ssh. `ssh` is the path of
/// the image's ssh, where the plugin's is mounted over it.
#[must_use]
pub fn program(image: &str, missing: Option<&str>, ssh: Option<&str>) -> String {
    let no_client = format!(
        "image '{image}': has no ssh, mpirun cannot start ranks on other nodes: install openssh-client in it"
    );
    let ssh = match missing {
        Some(_) => String::new(),
        None => SSH
            .replace("CARRY", CARRY)
            .replace("SSH_PROGRAM", ssh.unwrap_or("ssh"))
            .replace("SSH_CONFIG", SSH_CONFIG),
    };
    let words = missing.unwrap_or(&no_client).replace('\'', r"'\''");
    format!("#!/bin/sh\n{ssh}echo 'spank_docker: {words}' >&2\nexit 255\n")
}

/// Mounted over the image's ssh: to the job's nodes, by the names in the plugin's configuration, it passes on
/// the caller's state; for any other host it runs the image's ssh unchanged.
const OVER_SSH: &str = r#"#!/bin/sh
# Written by spank-docker: the image's own ssh, which takes the caller's environment along to the job's nodes.
spank_docker_skip= spank_docker_host= spank_docker_ours=
for spank_docker_word do
    case $spank_docker_word in
    -[BbcDEeFIiJLlmOopPQRSWw]) spank_docker_skip=yes ;;
    -*) ;;
    *)
        [ "$spank_docker_skip" ] || { spank_docker_host=${spank_docker_word##*@}; break; }
        spank_docker_skip=
        ;;
    esac
done
if [ -n "$spank_docker_host" ] && [ -r SSH_CONFIG ]; then
    while read -r spank_docker_word spank_docker_names; do
        case "$spank_docker_word $spank_docker_names " in
        "Host "*" $spank_docker_host "* | "Host $spank_docker_host "*) spank_docker_ours=yes; break ;;
        esac
    done <SSH_CONFIG
fi
if [ "$spank_docker_ours" ]; then
    CARRY
fi
unset LD_LIBRARY_PATH LD_PRELOAD
exec SSH_OF_IMAGE "$@"
"#;

/// The file to mount over the image's ssh.
#[must_use]
pub fn over_ssh() -> String {
    OVER_SSH.replace("CARRY", CARRY).replace("SSH_OF_IMAGE", SSH_OF_IMAGE).replace("SSH_CONFIG", SSH_CONFIG)
}

/// The message to a user whose image cannot be reached over ssh: printed once per job, and by `mpirun` when it
/// tries.
#[must_use]
pub fn no_sshd(image: &str, uid: u32) -> String {
    if uid == 0 {
        return "jobs of root have no ssh between their containers, mpirun cannot start ranks on other nodes: submit as a user".to_owned();
    }
    format!(
        "image '{image}': has no sshd, mpirun cannot start ranks on other nodes: install openssh-server in it"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::ssh::shells;
    use crate::linux::lacking::skip;
    use crate::slurm::env_protocol;
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
        assert!(
            config.starts_with("Host n1 n2 localhost 127.0.0.1 ::1\n    User \"alice\"\n    Port 20123\n")
        );
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
    fn other_hosts_are_reached_as_ever() {
        let ours = config_of(&["n1"], 20123, "alice", "docker_123");
        let merged = merged_ssh_config(&ours, b"Port 2222\nHost n1\n  User bob\n# \xff\n");
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
        assert!(config.starts_with("Host n1 localhost 127.0.0.1 ::1\n    User \"aPort 2\"\n    Port 1\n"));
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

    #[test]
    fn a_launcher_is_told_what_the_image_lacks() {
        let text = program("reg:5000/a", Some("image 'reg:5000/a': has no sshd"), None);
        assert_eq!(
            text,
            "#!/bin/sh\necho 'spank_docker: image '\\''reg:5000/a'\\'': has no sshd' >&2\nexit 255\n"
        );
        let text = program("a", None, None);
        assert!(text.contains("ssh -F /run/spank-docker/ssh_config \"$@\"\n"));
    }

    /// The result of the launchers' program when its ssh exits with this code.
    fn called(code: u8, arguments: &[&str]) -> (Option<i32>, String) {
        let directory = tempfile::tempdir().unwrap();
        let ssh = directory.path().join("ssh");
        std::fs::write(&ssh, format!("#!/bin/sh\nexit {code}\n")).unwrap();
        std::fs::set_permissions(&ssh, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut sh = Command::new("/bin/sh");
        // A variable of the user that the script could confuse with one of its own.
        sh.args(["-c", &program("a", None, None), "ssh"]).args(arguments).env("PATH", directory.path());
        sh.envs([("skip", "1"), ("spank_docker_skip", "1")]);
        let output = sh.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    #[test]
    fn variables_umask_and_limits_go_in_one() {
        const HOSTILE: &str = "it's\nexport FAKE='x' $(touch /x) `y`\n";
        let directory = tempfile::tempdir().unwrap();
        let ssh = directory.path().join("ssh");
        std::fs::write(&ssh, "#!/bin/sh\nexec /usr/bin/env -0\n").unwrap();
        std::fs::set_permissions(&ssh, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        for shell in shells() {
            for count in [1, 300] {
                let mut sh = Command::new(&shell[0]);
                sh.args(&shell[1..]).args(["-c", &program("a", None, None), "ssh", "n2", "true"]).env_clear();
                sh.env("PATH", directory.path()).env("HOSTILE", HOSTILE).env("rest", "r").env("PWD", "/");
                sh.env("LD_LIBRARY_PATH", "/a b:$c");
                sh.envs((0..count).map(|number| (format!("MINE_{number}"), "m".repeat(20))));
                let output = sh.output().unwrap();
                let sent: Vec<&str> =
                    std::str::from_utf8(&output.stdout).unwrap().split_terminator('\0').collect();
                let packed = sent
                    .iter()
                    .find_map(|entry| entry.strip_prefix(env_protocol::ENVIRONMENT)?.strip_prefix('='));
                assert!(!sent.iter().any(|entry| entry.starts_with("LD_LIBRARY_PATH=")), "{shell:?}");
                let Some(packed) = packed else {
                    assert!(sent.contains(&"SLURM_DOCKERLD_LIBRARY_PATH=/a b:$c"), "{shell:?}");
                    // The output of a shell with another format of `export -p`.
                    assert!(
                        shell.len() == 1 && shell[0].ends_with("bash") && sent.contains(&"rest=r"),
                        "{shell:?}"
                    );
                    continue;
                };
                assert!(sent.len() < 10, "{shell:?} {sent:?}");
                let show = "eval \"$PACKED\"; printf '%s|' \"$HOSTILE\" \"$MINE_0\" \"$rest\" \"${FAKE-none}\" \"$LD_LIBRARY_PATH\"";
                let mut sh = Command::new(&shell[0]);
                sh.args(&shell[1..]).args(["-c", show]).env("PACKED", packed);
                let seen = sh.output().unwrap();
                let expected = format!("{HOSTILE}|{}|r|none|/a b:$c|", "m".repeat(20));
                assert_eq!(String::from_utf8(seen.stdout).unwrap(), expected, "{shell:?}");
            }
        }
    }

    #[test]
    fn a_launcher_is_told_which_node_cannot_be_reached() {
        let line = |node| {
            format!(
                "spank_docker: cannot reach the job's container on '{node}' over ssh: it has ended, the nodes have different secrets, or a firewall is between them: ask the admin\n"
            )
        };
        assert_eq!(called(255, &["-x", "n2", "orted -x"]), (Some(255), line("n2")));
        assert_eq!(called(255, &["-q", "-l", "alice", "-x", "n3", "true"]), (Some(255), line("n3")));
        assert_eq!(called(0, &["n2", "true"]), (Some(0), String::new()));
        assert_eq!(called(7, &["n2", "false"]), (Some(7), String::new()));
    }
}

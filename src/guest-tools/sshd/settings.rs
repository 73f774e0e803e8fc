//! What this sshd takes from the configuration that the plugin writes for OpenSSH's (`guest::ssh::server` in the
//! plugin). Everything else in it is what this one does anyway.
#![forbid(unsafe_code)]

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use russh::keys::{PrivateKey, PublicKey, load_secret_key};

/// The settings, and the keys that they name.
#[derive(Clone)]
pub(super) struct Settings {
    /// Where to listen.
    pub(super) addresses: Vec<SocketAddr>,
    /// The hosts' key.
    pub(super) host_key: PrivateKey,
    /// The only key that may log in.
    pub(super) user_key: PublicKey,
    /// The only user that may log in; `?` stands for any character.
    pub(super) user: String,
    /// What identifies the job and its image in the first line.
    pub(super) token: String,
    /// The most connections without a login.
    pub(super) starts: usize,
    /// The most sessions of one connection.
    pub(super) sessions: usize,
    /// How long a login may take.
    pub(super) grace: Duration,
    /// What each session runs.
    pub(super) command: String,
}

impl Settings {
    /// By the argument of `-f`. The error is a line that says why sshd does not start.
    pub(super) fn of(arguments: &[Vec<u8>]) -> Result<Self, String> {
        let file = arguments.iter().skip_while(|argument| *argument != b"-f").nth(1);
        let path = Path::new(std::ffi::OsStr::from_bytes(file.ok_or("sshd: no configuration: use -f")?));
        let text = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
        let read = |key: &'static str| {
            let path = Path::new(value(&text, key)?);
            fs::read_to_string(path).map_err(|error| unreadable(path, &error))
        };
        let port = number(&text, "Port")?;
        let given = values(&text, "ListenAddress").map(str::parse);
        let mut addresses: Vec<IpAddr> =
            given.collect::<Result<_, _>>().map_err(|_| "sshd: a ListenAddress is not an address")?;
        if addresses.is_empty() {
            addresses = vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        }
        let host_key = Path::new(value(&text, "HostKey")?);
        Ok(Self {
            addresses: addresses.into_iter().map(|address| (address, port).into()).collect(),
            host_key: load_secret_key(host_key, None).map_err(|error| unreadable(host_key, &error))?,
            user_key: PublicKey::from_openssh(read("AuthorizedKeysFile")?.trim())
                .map_err(|error| format!("sshd: the user's key: {error}"))?,
            user: value(&text, "AllowUsers")?.to_owned(),
            token: value(&text, "VersionAddendum")?.to_owned(),
            starts: number(&text, "MaxStartups")?.into(),
            sessions: number(&text, "MaxSessions")?.into(),
            grace: Duration::from_secs(number(&text, "LoginGraceTime")?.into()),
            command: value(&text, "ForceCommand")?.to_owned(),
        })
    }

    /// Whether this name is that of the only user.
    pub(super) fn is_user(&self, name: &str) -> bool {
        let is_same = |(expected, found): (char, char)| expected == found || expected == '?';
        name.chars().count() == self.user.chars().count() && self.user.chars().zip(name.chars()).all(is_same)
    }
}

fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("sshd: cannot read '{}': {error}", path.display())
}

/// All values of a key.
fn values<'a>(text: &'a str, key: &str) -> impl Iterator<Item = &'a str> {
    text.lines()
        .filter_map(move |line| line.split_once(' ').filter(|(name, _)| *name == key))
        .map(|(_, value)| value)
}

fn value<'a>(text: &'a str, key: &str) -> Result<&'a str, String> {
    values(text, key).next().ok_or_else(|| format!("sshd: no '{key}' in its configuration"))
}

fn number(text: &str, key: &str) -> Result<u16, String> {
    value(text, key)?.parse().map_err(|_| format!("sshd: '{key}' is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_the_configuration_spells_them() {
        let text =
            "# AllowUsers nobody\nPort 20123\nAllowUsers a?c\nListenAddress 127.0.0.1\nListenAddress ::1\n";
        assert_eq!(value(text, "AllowUsers"), Ok("a?c"));
        assert_eq!(number(text, "Port"), Ok(20123));
        assert_eq!(values(text, "ListenAddress").collect::<Vec<_>>(), ["127.0.0.1", "::1"]);
        number("MaxStartups many\n", "MaxStartups").unwrap_err();
        value(text, "HostKey").unwrap_err();
    }
}

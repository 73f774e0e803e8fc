//! The configuration of the image's own sshd, which runs in the container as the job's user.
//!
//! It has to work with every OpenSSH from 7.4 (CentOS 7) to 10: an unknown option would keep sshd from starting, so the text
//! has no option newer than 7.4, except those that [`more_lines`] adds. Written by root where a container is started.
#![forbid(unsafe_code)]

use crate::guest::paths::{AUTHORIZED_KEYS, HOST_KEY, SESSION, SSHD_CONFIG};

/// The arguments of sshd as `argv[1..]`, which the first process passes on: sshd stays in the foreground.
///
/// Until it listens, sshd writes errors to stderr even without `-e`. With `-e` its sessions would inherit
/// stderr and hold the container's output open, and an engine that stops or restarts the container would wait
/// for that as long as a session lives.
///
/// The log level is set here too: sshd reports deprecated options before it reads the level in the file.
pub const ARGUMENTS: [&str; 5] = ["-D", "-f", SSHD_CONFIG, "-o", "LogLevel=ERROR"];

/// Lines for an sshd that knows the option, each after the option's name as the program contains it
/// (servconf.c, `keywords`; 10.6 has them with capitals). From 9.8 on sshd refuses addresses that have
/// connected without a login: any user of a node could block the job's ssh from that node. From 8.5 on sshd can
/// limit each address to a part of the connections that wait for a login.
const LATER: [(&[u8], &str); 2] = [
    (b"persourcepenalties", "PerSourcePenalties no\n"),
    (b"persourcemaxstartups", "PerSourceMaxStartups 96\n"),
];

/// The lines to add for an sshd, by the content of its program.
#[must_use]
pub fn more_lines(program: &[u8]) -> String {
    // Strings of another length than an option's are not compared, so that even a megabyte is quickly
    // searched, and once for all options.
    let mut is_known = LATER.map(|_| false);
    for word in program.split(|byte| *byte == 0) {
        for ((name, _), is_known) in LATER.iter().zip(&mut is_known) {
            *is_known |= word.eq_ignore_ascii_case(name);
        }
    }
    LATER.iter().zip(is_known).filter(|(_, is_known)| *is_known).map(|((_, line), _)| *line).collect()
}

/// From where the sshd is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// From the job's other nodes.
    Nodes,
    /// Only from the job's only node.
    Loopback,
}

impl Reach {
    /// For a container on this many nodes.
    #[must_use]
    pub fn of(nodes: usize) -> Self {
        if nodes > 1 { Self::Nodes } else { Self::Loopback }
    }

    /// The addresses on which sshd listens. It skips an address of a family that the host does not have.
    const fn listen(self) -> &'static str {
        match self {
            Self::Nodes => "",
            Self::Loopback => "ListenAddress 127.0.0.1\nListenAddress ::1\n",
        }
    }
}

/// The text of `sshd_config` for this user, port and token (see [`super::keys::JobKeys::banner`]).
pub fn sshd_config(user: &str, port: u16, token: &str, reach: Reach) -> String {
    let (user, listen) = (pattern(user), reach.listen());
    let token: String = token.chars().filter(char::is_ascii_alphanumeric).collect();
    format!(
        "# Written by spank-docker for this job.
Port {port}
{listen}HostKey {HOST_KEY}
# How a node that waits for this sshd knows it from another job's.
VersionAddendum {token}
PidFile none
LogLevel ERROR
UseDNS no

# The job's key and its user, nothing else. sshd has the user's rights only: it could not become another one anyway.
AuthenticationMethods publickey
AuthorizedKeysFile {AUTHORIZED_KEYS}
PubkeyAuthentication yes
PasswordAuthentication no
ChallengeResponseAuthentication no
HostbasedAuthentication no
AllowUsers {user}
# PAM, login records and privilege separation (7.4; later ones ignore this line) are root's.
UsePAM no
UsePrivilegeSeparation no
# The image decides on owner and mode of / and /run, and may have them as it likes.
StrictModes no

# Several launchers may open their connections all at once. Whoever connects without a key costs the job a process each, so
# they are neither many nor long there.
MaxStartups 128
MaxSessions 1024
LoginGraceTime 20
TCPKeepAlive yes
X11Forwarding no
PermitUserEnvironment no
PermitUserRC no
PrintMotd no
PrintLastLog no
# Whoever gets in is the job's user, coming from a task of the job: its environment comes along.
AcceptEnv *
# What differs between the nodes, and what is the image's, every session gets from here.
ForceCommand {SESSION}
Subsystem sftp internal-sftp
"
    )
}

/// The user's name as a pattern that matches it: `a@b` would mean a user at a host, so `?` replaces special
/// characters.
fn pattern(user: &str) -> String {
    user.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '?' }).collect()
}

/// The line by which the pause program answers in place of an sshd: the first line of an sshd with this token
/// (RFC 4253, 4.2).
#[must_use]
pub fn stand_in_line(token: &str) -> String {
    format!("SSH-2.0-none {token}\r\n")
}

/// Whether this is the first line of an sshd with this token.
#[must_use]
pub fn is_banner(line: &[u8], token: &str) -> bool {
    line.starts_with(b"SSH-2.0-") && String::from_utf8_lossy(line).contains(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_port_user_and_token() {
        let text = sshd_config("alice", 20123, "0123abcd", Reach::Nodes);
        for line in [
            "Port 20123",
            "AllowUsers alice",
            "VersionAddendum 0123abcd",
            "HostKey /run/spank-docker/ssh_host_ed25519_key",
            "AuthorizedKeysFile /run/spank-docker/authorized_keys",
            "AuthenticationMethods publickey",
            "ForceCommand /run/spank-docker/session",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}");
        }
    }

    #[test]
    fn stand_in_for_sshd_shows_the_same_token() {
        assert!(is_banner(stand_in_line("0123abcd").as_bytes(), "0123abcd"));
        assert!(!is_banner(stand_in_line("0123abcd").as_bytes(), "4567abcd"));
    }

    #[test]
    fn process_with_sshds_arguments_is_recognised_as_sshd() {
        for (program, lines) in [
            (
                &b"\x7fELF\0maxstartups\0persourcepenalties\0x\0persourcemaxstartups\0"[..],
                "PerSourcePenalties no\nPerSourceMaxStartups 96\n",
            ),
            (
                b"\x7fELF\0MaxStartups\0PerSourcePenalties\0PerSourceMaxStartups\0PerSourceNetBlockSize\0",
                "PerSourcePenalties no\nPerSourceMaxStartups 96\n",
            ),
            (b"\x7fELF\0maxstartups\0persourcemaxstartups\0", "PerSourceMaxStartups 96\n"),
            (b"\x7fELF\0maxstartups\0persourcepenaltyexemptlist\0", ""),
            (b"", ""),
        ] {
            assert_eq!(more_lines(program), lines);
        }
    }

    #[test]
    fn an_sshd_of_one_node_is_for_that_node_alone() {
        let listens = |nodes| {
            sshd_config("alice", 1, "0", Reach::of(nodes))
                .contains("\nListenAddress 127.0.0.1\nListenAddress ::1\n")
        };
        assert!(listens(1) && !listens(2));
    }

    #[test]
    fn no_option_is_given_twice() {
        let text = sshd_config("alice", 20123, "0123abcd", Reach::Nodes);
        let mut names: Vec<_> = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .filter_map(|line| line.split(' ').next())
            .collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn a_hostile_name_stays_one_pattern_on_one_line() {
        let plain = sshd_config("alice", 20123, "0123abcd", Reach::Nodes);
        let hostile = sshd_config("a@b *\nPort 22", 20123, "0123\nabcd", Reach::Nodes);
        assert_eq!(hostile.lines().count(), plain.lines().count());
        assert!(hostile.contains("\nAllowUsers a?b???Port?22\n"));
        assert!(hostile.contains("\nVersionAddendum 0123abcd\n"));
    }
}

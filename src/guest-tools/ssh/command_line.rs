//! The command line of ssh, as OpenSSH's reads it (ssh.c, `main`): options, the host, more options, the command.
//!
//! Options that only say how to find or to trust a host are accepted and have no effect: the job's nodes have
//! one key, and it is always checked. Options that this program cannot obey are refused.
#![forbid(unsafe_code)]

use std::time::Duration;

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Version,
    Host(CommandLine),
}

/// Whether the session gets a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tty {
    /// Where there is no command, and standard input is a terminal.
    #[default]
    Auto,
    Never,
    /// If standard input is a terminal.
    Always,
    Force,
}

/// A port of this node that leads to one of the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Forward {
    pub(super) from: (String, u16),
    pub(super) to: (String, u16),
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CommandLine {
    pub(super) host: String,
    pub(super) user: Option<String>,
    pub(super) port: Option<u16>,
    /// Empty for a login shell.
    pub(super) command: Vec<u8>,
    pub(super) tty: Tty,
    pub(super) has_no_input: bool,
    pub(super) goes_to_background: bool,
    pub(super) has_no_command: bool,
    pub(super) is_subsystem: bool,
    pub(super) forwards: Vec<Forward>,
    /// Standard input and output lead there.
    pub(super) standard_forward: Option<(String, u16)>,
    pub(super) timeout: Option<Duration>,
    pub(super) variables: Vec<(String, String)>,
}

/// Without a value, and without an effect here: about protocol, addresses, logins, X11 and agents, compression,
/// output.
const IGNORED: &[u8] = b"246AaCKkqvXxYy";
/// With a value, and without an effect here.
const IGNORED_VALUES: &[u8] = b"BbcEeFIimoS";
/// Settings (`-o`) without an effect here, in lower case.
const SETTINGS: [&str; 52] = [
    "addkeystoagent",
    "addressfamily",
    "batchmode",
    "bindaddress",
    "canonicalizehostname",
    "challengeresponseauthentication",
    "checkhostip",
    "ciphers",
    "clearallforwardings",
    "compression",
    "connectionattempts",
    "controlmaster",
    "controlpath",
    "controlpersist",
    "escapechar",
    "exitonforwardfailure",
    "fingerprinthash",
    "forwardagent",
    "forwardx11",
    "forwardx11trusted",
    "globalknownhostsfile",
    "gssapiauthentication",
    "hashknownhosts",
    "hostbasedauthentication",
    "hostkeyalgorithms",
    "hostkeyalias",
    "identitiesonly",
    "identityagent",
    "identityfile",
    "ignoreunknown",
    "ipqos",
    "kbdinteractiveauthentication",
    "kexalgorithms",
    "loglevel",
    "macs",
    "nohostauthenticationforlocalhost",
    "numberofpasswordprompts",
    "passwordauthentication",
    "permitlocalcommand",
    "preferredauthentications",
    "pubkeyacceptedalgorithms",
    "pubkeyacceptedkeytypes",
    "pubkeyauthentication",
    "sendenv",
    "serveralivecountmax",
    "serveraliveinterval",
    "stricthostkeychecking",
    "tcpkeepalive",
    "updatehostkeys",
    "userknownhostsfile",
    "verifyhostkeydns",
    "visualhostkey",
];

impl CommandLine {
    pub(super) fn parse(arguments: &[Vec<u8>]) -> Result<Asked, String> {
        let mut line = Self::default();
        let mut rest = arguments;
        loop {
            rest = match line.options(rest)? {
                Some(rest) => rest,
                None => return Ok(Asked::Version),
            };
            match rest.split_first() {
                Some((host, after)) if line.host.is_empty() => {
                    line.destination(&text(host)?)?;
                    rest = after;
                }
                _ => break,
            }
        }
        if line.host.is_empty() {
            return Err("no host given: use ssh NODE [COMMAND]".to_owned());
        }
        line.command = rest.join(&b' ');
        Ok(Asked::Host(line))
    }

    /// Reads options up to the first argument that is none. `None` if the version is asked for.
    fn options<'a>(&mut self, arguments: &'a [Vec<u8>]) -> Result<Option<&'a [Vec<u8>]>, String> {
        let mut rest = arguments;
        while let Some((argument, after)) = rest.split_first() {
            let Some(letters) = argument.strip_prefix(b"-").filter(|letters| !letters.is_empty()) else {
                break;
            };
            rest = after;
            if letters == b"-" {
                break;
            }
            for (place, letter) in letters.iter().enumerate() {
                if *letter == b'V' {
                    return Ok(None);
                }
                if self.switch(*letter) {
                    continue;
                }
                let attached = letters.get(place + 1..).filter(|attached| !attached.is_empty());
                let value = match (attached, rest.split_first()) {
                    _ if !takes_value(*letter) => return Err(unknown(*letter)),
                    (Some(attached), _) => attached,
                    (None, Some((value, after))) => {
                        rest = after;
                        value
                    }
                    (None, None) => return Err(format!("-{}: needs a value", char::from(*letter))),
                };
                self.value(*letter, &text(value)?)?;
                break;
            }
        }
        Ok(Some(rest))
    }

    /// Whether this is an option without a value.
    fn switch(&mut self, letter: u8) -> bool {
        match letter {
            b'T' => self.tty = Tty::Never,
            b't' if self.tty == Tty::Always => self.tty = Tty::Force,
            b't' if self.tty != Tty::Force => self.tty = Tty::Always,
            b't' => {}
            b'n' => self.has_no_input = true,
            b'N' => self.has_no_command = true,
            b's' => self.is_subsystem = true,
            b'f' => (self.goes_to_background, self.has_no_input) = (true, true),
            letter => return IGNORED.contains(&letter),
        }
        true
    }

    fn value(&mut self, letter: u8, value: &str) -> Result<(), String> {
        match letter {
            b'l' => self.user = Some(value.to_owned()),
            b'p' => self.port = Some(port(value)?),
            b'o' => self.setting(value)?,
            b'L' => self
                .forwards
                .push(forward(value).ok_or_else(|| format!("-L: '{value}' is not PORT:HOST:PORT"))?),
            b'W' => {
                let to = host_and_port(value).ok_or_else(|| format!("-W: '{value}' is not HOST:PORT"))?;
                self.standard_forward = Some(to);
            }
            _ => {}
        }
        Ok(())
    }

    /// `Name=value`, or with a space between them.
    fn setting(&mut self, setting: &str) -> Result<(), String> {
        let (name, value) = setting.split_once(['=', ' ', '\t']).unwrap_or((setting, ""));
        let value = value.trim_matches([' ', '\t', '=', '"']);
        match name.trim().to_ascii_lowercase().as_str() {
            "user" => self.user = Some(value.to_owned()),
            "port" => self.port = Some(port(value)?),
            "connecttimeout" if value != "none" => {
                let seconds =
                    value.parse().map_err(|_| format!("-o ConnectTimeout: '{value}' is not a number"))?;
                // As for OpenSSH, no limit.
                self.timeout = (seconds > 0).then(|| Duration::from_secs(seconds));
            }
            "requesttty" => {
                self.tty = match value {
                    "no" | "false" => Tty::Never,
                    "yes" | "true" => Tty::Always,
                    "force" => Tty::Force,
                    _ => Tty::Auto,
                }
            }
            "setenv" => {
                self.variables.extend(value.split_once('=').map(|(name, value)| (name.into(), value.into())))
            }
            "proxycommand" | "proxyjump" | "localcommand" | "remotecommand" if value == "none" => {}
            "connecttimeout" => {}
            known if SETTINGS.contains(&known) => {}
            _ => {
                return Err(format!(
                    "-o '{setting}': this ssh, which the job has because the image has none, does not know it: leave it out"
                ));
            }
        }
        Ok(())
    }

    /// `[user@]host` or `ssh://[user@]host[:port]`.
    fn destination(&mut self, destination: &str) -> Result<(), String> {
        let (is_url, whole) = match destination.strip_prefix("ssh://") {
            Some(rest) => (true, rest.trim_end_matches('/')),
            None => (false, destination),
        };
        let (user, mut host) = match whole.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, whole),
        };
        if is_url && let Some((name, number)) = host.rsplit_once(':') {
            self.port = self.port.or(Some(port(number)?));
            host = name;
        }
        self.user = self.user.take().or(user.map(str::to_owned));
        self.host = host.trim_matches(['[', ']']).to_owned();
        Ok(())
    }
}

fn takes_value(letter: u8) -> bool {
    b"lpoLW".contains(&letter) || IGNORED_VALUES.contains(&letter)
}

fn unknown(letter: u8) -> String {
    format!(
        "-{}: this ssh, which the job has because the image has none, does not know it: leave it out",
        letter.escape_ascii()
    )
}

fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| format!("'{}' is not UTF-8", bytes.escape_ascii()))
}

fn port(value: &str) -> Result<u16, String> {
    value.parse().map_err(|_| format!("'{value}' is not a port"))
}

/// `[bind:]port:host:hostport`.
fn forward(value: &str) -> Option<Forward> {
    let (rest, to_port) = value.rsplit_once(':')?;
    let (rest, to_host) = match rest.strip_suffix(']') {
        Some(open) => open.rsplit_once(":[")?,
        None => rest.rsplit_once(':')?,
    };
    let (bind, from_port) = rest.rsplit_once(':').unwrap_or(("localhost", rest));
    let bind =
        if bind.is_empty() || bind == "localhost" { "127.0.0.1" } else { bind.trim_matches(['[', ']']) };
    Some(Forward {
        from: (bind.to_owned(), from_port.parse().ok()?),
        to: (to_host.to_owned(), to_port.parse().ok()?),
    })
}

fn host_and_port(value: &str) -> Option<(String, u16)> {
    let (host, port) = value.rsplit_once(':')?;
    Some((host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Asked, String> {
        CommandLine::parse(
            &line.split_ascii_whitespace().map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>(),
        )
    }

    fn parsed(line: &str) -> CommandLine {
        match parse(line) {
            Ok(Asked::Host(line)) => line,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn what_launchers_and_tools_give_is_understood() {
        for (line, user, command) in [
            // Open MPI, PRRTE, MPICH, pdsh, rsync, git, Horovod, DeepSpeed, scp.
            ("-x n2 orted -mca x -y", None, "orted -mca x -y"),
            ("-q -x -F /run/spank-docker/ssh_config n2 prted", None, "prted"),
            ("-oConnectTimeout=10 -2 -a -x -lalice n2 hostname", Some("alice"), "hostname"),
            ("-l alice -a -x n2 -q hostname", Some("alice"), "hostname"),
            (
                "alice@n2 rsync --server -e.LsfxCIvu . /tmp/x",
                Some("alice"),
                "rsync --server -e.LsfxCIvu . /tmp/x",
            ),
            ("-o SendEnv=GIT_PROTOCOL n2 git-upload-pack", None, "git-upload-pack"),
            ("-o PasswordAuthentication=no -o StrictHostKeyChecking=no n2 -p 20001 true", None, "true"),
            ("-T -n -i /home/alice/.ssh/id n2 -- -odd", None, "-odd"),
            (
                "-x -oPermitLocalCommand=no -oClearAllForwardings=yes -oRemoteCommand=none -oRequestTTY=no -- n2 scp -t .",
                None,
                "scp -t .",
            ),
            ("-oForwardAgent=no -oPermitLocalCommand=no -s -- n2 sftp", None, "sftp"),
        ] {
            let parsed = parsed(line);
            assert_eq!((&*parsed.host, parsed.user.as_deref()), ("n2", user), "{line}");
            assert_eq!(parsed.command, command.as_bytes(), "{line}");
        }
        let line = parsed("-tt -p20001 -oConnectTimeout=7 ssh://bob@n2:22/");
        assert_eq!((line.port, line.tty, line.user.as_deref()), (Some(20001), Tty::Force, Some("bob")));
        assert_eq!(line.timeout, Some(Duration::from_secs(7)));
        let line = parsed("-fNL 8080:localhost:80 -L [::1]:81:[::1]:82 n2");
        assert!(line.goes_to_background && line.has_no_command && line.has_no_input);
        let of = |host: &str, port| (host.to_owned(), port);
        assert_eq!(line.forwards[0], Forward { from: of("127.0.0.1", 8080), to: of("localhost", 80) });
        assert_eq!(line.forwards[1], Forward { from: of("::1", 81), to: of("::1", 82) });
        assert_eq!(parse("-V"), Ok(Asked::Version));
    }

    #[test]
    fn what_cannot_be_obeyed_is_refused() {
        for line in [
            "",
            "-x",
            "-p",
            "-p x n2",
            "-D 1080 n2",
            "-R 1:n:2 n2",
            "-J n1 n2",
            "-w 0 n2",
            "-G n2",
            "-o Nonsense=1 n2",
            "-oProxyJump=n1 n2",
            "-L 80 n2",
            "-W n2 n2",
        ] {
            parse(line).unwrap_err();
        }
    }
}

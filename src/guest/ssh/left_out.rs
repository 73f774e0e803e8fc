//! The variables that do not travel over ssh: one table for the plugin and for the guest tools, which include this
//! file.
#![forbid(unsafe_code)]

/// Those of the session itself.
pub(crate) const OF_SESSION: [&str; 10] = [
    "MAIL",
    "OLDPWD",
    "PWD",
    "SHELL",
    "SHLVL",
    "SSH_CLIENT",
    "SSH_CONNECTION",
    "SSH_ORIGINAL_COMMAND",
    "SSH_TTY",
    "TERM",
];

/// Those of a shell, which some shell refuses to set.
pub(crate) const OF_SHELLS: [&str; 15] = [
    "_",
    "BASHOPTS",
    "BASHPID",
    "BASH_VERSINFO",
    "DIRSTACK",
    "EUID",
    "FUNCNAME",
    "GROUPS",
    "HISTCMD",
    "IFS",
    "LINENO",
    "OPTIND",
    "PPID",
    "SHELLOPTS",
    "UID",
];

/// Whether a shell can set a variable of this name.
pub(crate) fn is_name(name: &[u8]) -> bool {
    name.first().is_some_and(|first| !first.is_ascii_digit())
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

/// The same, and it is neither the session's nor the shell's, nor one of the scripts around ssh.
pub(crate) fn travels(name: &[u8]) -> bool {
    is_name(name)
        && !name.starts_with(b"spank_docker_")
        && !OF_SESSION.iter().chain(&OF_SHELLS).any(|other| other.as_bytes() == name)
}

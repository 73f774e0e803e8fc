//! The arguments of slurmd's command line. Pure.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// The options of slurmd that take a value (Slurm's slurmd.c, `_process_cmdline`, "bcCd:Df:F::GhL:Mn:N:svVZ"):
/// those whose value follows directly, or as the next argument; and those whose value can only follow directly.
const WITH_VALUE: &[u8] = b"dfLnN";
const WITH_VALUE_BEHIND: &[u8] = b"F";
const LONG_WITH_VALUE: [&[u8]; 8] = [
    b"authinfo",
    b"ca-cert-file",
    b"conf",
    b"conf-server",
    b"extra",
    b"instance-id",
    b"instance-type",
    b"parameters",
];

/// The node's name, if slurmd was given one (`-N`).
#[must_use]
pub fn node(mut arguments: impl Iterator<Item = OsString>) -> Option<String> {
    let mut node = None;
    while let Some(argument) = arguments.next() {
        let bytes = argument.as_bytes();
        if let Some(name) = bytes.strip_prefix(b"--") {
            if LONG_WITH_VALUE.contains(&name) {
                arguments.next();
            }
            continue;
        }
        let letters = bytes.strip_prefix(b"-").unwrap_or_default();
        let has_value = |letter: &u8| WITH_VALUE.contains(letter) || WITH_VALUE_BEHIND.contains(letter);
        let Some((letter, behind)) =
            letters.iter().position(has_value).and_then(|at| letters[at..].split_first())
        else {
            continue;
        };
        let value = match behind {
            [] if WITH_VALUE.contains(letter) => arguments.next(),
            behind => Some(OsStr::from_bytes(behind).to_owned()),
        };
        if *letter == b'N' {
            node = value.and_then(|value| value.into_string().ok());
        }
    }
    node
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_node_is_found_among_other_options() {
        for (line, expected) in [
            ("", None),
            ("-D -vvv", None),
            ("-N n1", Some("n1")),
            ("-Nn1 -D", Some("n1")),
            ("-DvN n1", Some("n1")),
            ("-f -N --conf -N -N n2", Some("n2")),
            ("-L /var/log/N -F", None),
            ("-ZFN -D", None),
            ("--conf-server=n1 --systemd -N n1 -N n3", Some("n3")),
            ("-N", None),
        ] {
            let arguments = line.split_ascii_whitespace().map(OsString::from);
            assert_eq!(node(arguments).as_deref(), expected, "{line}");
        }
    }
}

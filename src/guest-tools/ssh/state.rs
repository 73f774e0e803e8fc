//! The caller's state, which the session at the other end takes over: its variables, umask and limits, in one
//! variable that the session's script evaluates (`guest::ssh::force_command` in the plugin). An sshd resets some
//! variables, accepts only the first 128, and cannot unset any. A second variable has what no script can export.
#![forbid(unsafe_code)]

use std::fmt::Write;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use crate::left_out;

/// The variable, and the ones for the loader's variables where that does not hold all.
const STATE: &str = "SLURM_DOCKERENVIRONMENT";
/// The one for variables whose names are no shell's; the session's end unpacks it (src/pause/packed.rs in the plugin).
const ODD: &str = "SLURM_DOCKERODD";
const LOADERS: [&str; 2] = ["LD_LIBRARY_PATH", "LD_PRELOAD"];
const LOADERS_PREFIX: &str = "SLURM_DOCKER";
/// The kernel's limit for one variable is 128 KiB.
const MOST: usize = 120_000;
/// The letters of ulimit, with the resource and the bytes of its unit in POSIX shells. Those from `i` on are bash's (builtins/ulimit.def);
/// a shell that does not know one leaves that limit as it is.
const LIMITS: [(&str, Resource, u64); 16] = [
    ("t", Resource::RLIMIT_CPU, 1),
    ("f", Resource::RLIMIT_FSIZE, 512),
    ("d", Resource::RLIMIT_DATA, 1024),
    ("s", Resource::RLIMIT_STACK, 1024),
    ("c", Resource::RLIMIT_CORE, 512),
    ("m", Resource::RLIMIT_RSS, 1024),
    ("l", Resource::RLIMIT_MEMLOCK, 1024),
    ("n", Resource::RLIMIT_NOFILE, 1),
    ("v", Resource::RLIMIT_AS, 1024),
    ("u", Resource::RLIMIT_NPROC, 1),
    ("i", Resource::RLIMIT_SIGPENDING, 1),
    ("q", Resource::RLIMIT_MSGQUEUE, 1),
    ("x", Resource::RLIMIT_LOCKS, 1),
    ("e", Resource::RLIMIT_NICE, 1),
    ("r", Resource::RLIMIT_RTPRIO, 1),
    ("R", Resource::RLIMIT_RTTIME, 1),
];

/// The variables to send.
pub(super) fn variables(environment: &[Vec<u8>], umask: u32) -> Vec<(String, String)> {
    let pairs = || environment.iter().filter_map(|entry| pair(entry));
    // The protocol's text is UTF-8, what others write is not.
    let (beside, within) = match String::from_utf8(odd(environment)) {
        Ok(text) => ((!text.is_empty()).then(|| (ODD.to_owned(), text)), None),
        Err(error) => (None, Some(error.into_bytes())),
    };
    let within = within.iter().map(|packed| (ODD.as_bytes(), packed.as_slice()));
    let script = script(pairs().chain(within), &limits(), umask);
    if script.len() < MOST {
        return [(STATE.to_owned(), script)].into_iter().chain(beside).collect();
    }
    let texts =
        pairs().filter_map(|(name, value)| Some((str::from_utf8(name).ok()?, str::from_utf8(value).ok()?)));
    texts
        .map(|(name, value)| match LOADERS.contains(&name) {
            true => (format!("{LOADERS_PREFIX}{name}"), value.to_owned()),
            false => (name.to_owned(), value.to_owned()),
        })
        .chain(beside)
        .collect()
}

/// The variables that no script can export, as far as they fit: a netstring for each.
fn odd(environment: &[Vec<u8>]) -> Vec<u8> {
    let mut packed = Vec::new();
    for entry in environment {
        let name = entry.split(|byte| *byte == b'=').next().unwrap_or_default();
        if name.is_empty() || name.len() == entry.len() || left_out::is_name(name) {
            continue;
        }
        let length = entry.len().to_string();
        if packed.len() + length.len() + entry.len() + 2 < MOST {
            for part in [length.as_bytes(), b":", entry, b","] {
                packed.extend_from_slice(part);
            }
        }
    }
    packed
}

/// A variable that a shell can set, and that is not the session's.
fn pair(entry: &[u8]) -> Option<(&[u8], &[u8])> {
    let place = entry.iter().position(|byte| *byte == b'=')?;
    let (name, value) = (entry.get(..place)?, entry.get(place + 1..)?);
    let is_plugins = [STATE, ODD].iter().any(|own| own.as_bytes() == name);
    (left_out::travels(name) && !is_plugins).then_some((name, value))
}

/// The hard limits follow the soft ones: a soft one can be raised up to the hard one only.
fn limits() -> Vec<(&'static str, Option<u64>, Option<u64>)> {
    let number = |value: u64, unit: u64| (value != RLIM_INFINITY).then(|| value / unit);
    let read = |(letter, resource, unit): (&'static str, Resource, u64)| {
        let (soft, hard) = getrlimit(resource).ok()?;
        Some((letter, number(soft, unit), number(hard, unit)))
    };
    LIMITS.into_iter().filter_map(read).collect()
}

fn script<'a>(
    pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    limits: &[(&str, Option<u64>, Option<u64>)],
    umask: u32,
) -> String {
    let mut text = format!("{{ umask {umask:04o}\n");
    for (letter, soft, hard) in limits {
        for (kind, limit) in [("S", soft), ("H", hard)] {
            let limit = limit.map_or("unlimited".to_owned(), |limit| limit.to_string());
            let _ = writeln!(text, "ulimit -{kind} -{letter} {limit}");
            if *letter == "u" {
                // Some shells call it so; in others that letter is a constant.
                let _ = writeln!(text, "ulimit -{kind} -p {limit}");
            }
        }
    }
    text.push_str("} 2>/dev/null\n");
    for (name, value) in pairs {
        let name = String::from_utf8_lossy(name);
        match str::from_utf8(value) {
            Ok(value) => {
                let _ = writeln!(text, "export {name}='{}'", value.replace('\'', r"'\''"));
            }
            // The protocol's text is UTF-8. The full stop protects line breaks at the end.
            Err(_) => {
                let _ = write!(text, "{name}=$(printf '");
                for byte in value {
                    let _ = write!(text, "\\{byte:03o}");
                }
                let _ = writeln!(text, ".'); export {name}=\"${{{name}%.}}\"");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    use std::process::Command;

    #[test]
    fn a_shell_gets_the_state_as_it_was() {
        let hostile = b"it's\nexport FAKE='x' $(touch /x) `y`\n".to_vec();
        let bytes: Vec<u8> = (1..=255).chain(*b"\n\n").collect();
        let entries = [
            [b"HOSTILE=", &hostile[..]].concat(),
            [b"BYTES=", &bytes[..]].concat(),
            b"UID=1".to_vec(),
            b"A-B=1".to_vec(),
            b"PWD=/x".to_vec(),
            b"odd".to_vec(),
        ];
        let limits = [("n", Some(100), Some(200)), ("c", Some(0), None), ("q", Some(4096), Some(8192))];
        let text = script(entries.iter().filter_map(|entry| pair(entry)), &limits, 0o27);
        assert!(!text.contains("UID") && !text.contains("A-B") && !text.contains("PWD"));
        for shell in ["/bin/sh", "/bin/bash"] {
            let mut sh = Command::new(shell);
            let show = "eval \"$STATE\"; unset STATE; printf '%s|' \"$(umask)\" \"$(ulimit -S -n)\" \"$(ulimit -H -n)\" \"$(ulimit -S -q 2>&1)\" \"$HOSTILE\" \"$BYTES\" \"${FAKE-none}\"";
            let output = sh.args(["-c", show]).env_clear().env("STATE", &text).output().unwrap();
            assert!(output.stderr.is_empty(), "{shell} {output:?}");
            let mut expected = b"0027|100|200|".to_vec();
            // Only bash knows it.
            let queues = Command::new(shell).args(["-c", "ulimit -S -q"]).output().unwrap();
            let queues = if queues.status.success() { b"4096\n".to_vec() } else { queues.stderr };
            expected.extend_from_slice(queues.trim_ascii_end());
            expected.push(b'|');
            for value in [&hostile[..], &bytes[..], b"none"] {
                expected.extend_from_slice(value);
                expected.push(b'|');
            }
            assert_eq!(OsString::from_vec(output.stdout), OsString::from_vec(expected), "{shell}");
        }
    }

    #[test]
    fn limits_of_bash_are_sent() {
        let sent = &variables(&[], 0o22)[0].1;
        for letter in ["n", "u", "i", "q", "x", "e", "r", "R"] {
            assert!(sent.contains(&format!("\nulimit -H -{letter} ")), "{letter}: {sent}");
        }
    }

    #[test]
    fn a_large_environment_goes_one_by_one() {
        let large = [b"LARGE=", &[b'x'; MOST][..]].concat();
        let sent = variables(&[large, b"LD_PRELOAD=/x.so".to_vec(), b"ODD=\xff".to_vec()], 0o22);
        let names: Vec<_> = sent.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["LARGE", "SLURM_DOCKERLD_PRELOAD"]);
        assert_eq!(variables(&[b"A=1".to_vec()], 0o22).len(), 1);
    }

    #[test]
    fn variables_that_no_script_can_export_go_beside_it() {
        let entries = |value: &[u8]| {
            let odd = [&b"my.var="[..], value].concat();
            let rest = ["A=1", "=x", "odd", "1=", "BASH_FUNC_f%%=() {  a=b,\n}", "SLURM_DOCKERODD=x"];
            [odd].into_iter().chain(rest.map(|entry| entry.as_bytes().to_vec())).collect::<Vec<_>>()
        };
        let packed = "9:my.var=é,2:1=,26:BASH_FUNC_f%%=() {  a=b,\n},";
        let beside = (ODD.to_owned(), packed.to_owned());
        let sent = variables(&entries("é".as_bytes()), 0o22);
        assert!(sent.len() == 2 && sent.contains(&beside) && !sent[0].1.contains("DOCKERODD"), "{sent:?}");
        // Also where the others go one by one.
        let large = [vec![[b"LARGE=", &[b'x'; MOST][..]].concat()], entries("é".as_bytes())].concat();
        assert!(variables(&large, 0o22).contains(&beside));
        let script = &variables(&entries(b"\xe9"), 0o22)[..];
        let [(_, script)] = script else { panic!("{script:?}") };
        let show = "eval \"$0\"; printf %s \"$SLURM_DOCKERODD\"";
        let output = Command::new("/bin/sh").args(["-c", show, script]).output().unwrap();
        assert!(output.stdout.starts_with(b"8:my.var=\xe9,2:1=,26:BASH"), "{output:?}");
        let too_large = vec![b'x'; MOST];
        assert_eq!(odd(&entries(&too_large)), packed.split_once(',').unwrap().1.as_bytes());
    }
}

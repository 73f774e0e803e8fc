//! Finds the batch script among the arguments of sbatch. A script that the node does not have is handed over by
//! its open directory.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::request::Script;

/// The short options of sbatch whose value may be the next argument: those of `optstring` in all releases from
/// 22.05 to 26.05 (src/common/slurm_opt.c: `opt_list`, `required_argument`).
const SHORT: &[u8] = b"AaBbCcDdeFGiJLMmNnopqStwx";
/// The long options without a value, or with an optional one after `=`, the plugin's included. All others take a
/// value.
const WITHOUT_VALUE: [&str; 36] = [
    "consolidate-segments",
    "contiguous",
    "docker-entrypoint",
    "docker-mount-home",
    "docker-readonly",
    "docker-writable",
    "exclusive",
    "external",
    "get-user-env",
    "help",
    "hold",
    "ignore-pbs",
    "nice",
    "no-docker-entrypoint",
    "no-docker-mount-home",
    "no-kill",
    "no-requeue",
    "oom-kill-step",
    "overcommit",
    "oversubscribe",
    "parsable",
    "propagate",
    "quiet",
    "reboot",
    "requeue",
    "resv-ports",
    "share",
    "spread-job",
    "spread-segments",
    "stepmgr",
    "test-only",
    "usage",
    "use-min-nodes",
    "verbose",
    "version",
    "wait",
];

/// The batch script among the arguments of `command`, and its directory.
pub(crate) fn find(command: &[u8], arguments: &[Vec<u8>]) -> Option<(Script, OwnedFd)> {
    if command != b"sbatch" {
        return None;
    }
    let place = place(arguments)?;
    let path = Path::new(OsStr::from_bytes(arguments.get(place)?));
    let found = fs::metadata(path).ok()?;
    let path = plain(path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let script = Script {
        place: u32::try_from(place).ok()?,
        name: path.file_name()?.as_bytes().to_vec(),
        device: found.dev(),
        inode: found.ino(),
    };
    Some((script, open(directory, flags, Mode::empty()).ok()?))
}

/// Resolves a link to an absolute path, which would lead to another file on the node.
fn plain(path: &Path) -> Option<PathBuf> {
    match fs::read_link(path) {
        Ok(target) if target.is_absolute() => fs::canonicalize(path).ok(),
        Ok(_) | Err(_) => Some(path.to_owned()),
    }
}

/// The place of the first argument that is neither an option nor the value of one. `None` with `--wrap`.
fn place(arguments: &[Vec<u8>]) -> Option<usize> {
    let mut arguments = arguments.iter().enumerate();
    while let Some((place, argument)) = arguments.next() {
        match &argument[..] {
            b"--" => return arguments.next().map(|(place, _)| place),
            [b'-', b'-', name @ ..] => {
                if is_abbreviation(name, b"wrap") {
                    return None;
                }
                if !name.contains(&b'=') && !is_without_value(name) {
                    arguments.next();
                }
            }
            [b'-', letters @ ..] if !letters.is_empty() => {
                // For the first letter that takes a value, the rest of the word is that value.
                let with_value = letters.iter().position(|letter| SHORT.contains(letter));
                if with_value.is_some_and(|at| at + 1 == letters.len()) {
                    arguments.next();
                }
            }
            _ => return Some(place),
        }
    }
    None
}

/// Whether a long option takes no value: by its name or an abbreviation, which getopt_long(3) accepts.
fn is_without_value(name: &[u8]) -> bool {
    WITHOUT_VALUE
        .iter()
        .any(|known| known.as_bytes() == name || name.len() > 3 && known.as_bytes().starts_with(name))
}

fn is_abbreviation(name: &[u8], whole: &[u8]) -> bool {
    let name = name.split(|byte| *byte == b'=').next().unwrap_or_default();
    name.len() > 2 && whole.starts_with(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_is_found_behind_the_options() {
        for (line, script) in [
            ("next.sh", Some("next.sh")),
            ("-N2 -n 4 next.sh -x", Some("next.sh")),
            ("--nodes 2 --ntasks=4 next.sh", Some("next.sh")),
            ("--parsable -Q next.sh a", Some("next.sh")),
            ("-Qn 4 next.sh", Some("next.sh")),
            ("-Qn4 next.sh", Some("next.sh")),
            ("-d afterok:7 --wait --exclusive next.sh", Some("next.sh")),
            ("--docker-image app --docker-readonly next.sh", Some("next.sh")),
            ("--job-name next.sh", None),
            ("-- -odd.sh", Some("-odd.sh")),
            ("--wrap=hostname next.sh", None),
            ("--wrap hostname", None),
            ("", None),
        ] {
            let arguments: Vec<_> = line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect();
            let found = place(&arguments).map(|place| String::from_utf8(arguments[place].clone()).unwrap());
            assert_eq!(found.as_deref(), script, "{line}");
        }
    }

    #[test]
    fn script_is_known_by_its_directory_and_its_file() {
        let directory = std::env::temp_dir().join(format!("guest-tools-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let path = directory.join("next.sh");
        fs::write(&path, "#!/bin/sh\n").unwrap();
        std::os::unix::fs::symlink(&path, directory.join("link.sh")).unwrap();
        let find =
            |name: &str| find(b"sbatch", &[directory.join(name).into_os_string().into_encoded_bytes()]);
        let names: Vec<_> = ["next.sh", "link.sh", "none.sh"]
            .map(find)
            .into_iter()
            .map(|found| found.map(|(script, _)| script.name))
            .collect();
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(names, [Some(b"next.sh".to_vec()), Some(b"next.sh".to_vec()), None]);
    }
}

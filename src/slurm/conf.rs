//! slurm.conf and the files beside it, read as Slurm reads them (src/common/parse_config.c: `s_p_parse_file`,
//! `_get_next_line`, `_parse_include_directive`).
//!
//! Runs as root: in slurmd, in the prolog, in a task before it becomes the user. A file that cannot be read is an error, never
//! the same as a missing key.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The depth of nested includes. Slurm has no limit, and no protection against a cycle.
const DEPTH: usize = 8;
/// The largest file: a larger one is not a configuration.
const MAX_FILE: usize = 4 << 20;
/// The placeholder for the cluster's name in the name of an included file.
const CLUSTER: &str = "%c";

/// The value of this key in slurm.conf and the files that it includes: the last one counts.
pub fn setting(slurm_conf: &Path, key: &str) -> io::Result<Option<String>> {
    let lines = lines_of(slurm_conf)?;
    let mut values =
        lines.iter().filter_map(|line| pair(line)).filter(|(found, _)| found.eq_ignore_ascii_case(key));
    Ok(values.next_back().map(|(_, value)| value.to_owned()))
}

/// The lines of a file and of what it includes, without comments.
pub(super) fn lines_of(file: &Path) -> io::Result<Vec<String>> {
    let beside = file.parent().unwrap_or(Path::new("/")).to_owned();
    let mut reading = Reading { beside, cluster: None, lines: Vec::new() };
    reading.read(file, DEPTH)?;
    Ok(reading.lines)
}

/// Whether Slurm calls the prologs and epilogs of plugins. With RunInJob the slurmstepd of the extern step should do so
/// (src/slurmd/slurmstepd/mgr.c: `_run_prolog_epilog`), but only slurmd knows that plugins have any (src/common/spank.c).
pub fn has_epilog(slurm_conf: &Path) -> io::Result<bool> {
    let flags = setting(slurm_conf, "PrologFlags")?.unwrap_or_default();
    Ok(!flags.split(',').any(|flag| flag.eq_ignore_ascii_case("RunInJob")))
}

/// Whether a job's cgroup decides which devices its processes can open. cgroup.conf may be missing; any value
/// other than those for "no" (src/common/parse_config.c, `_handle_boolean`) counts as "yes".
pub fn constrains_devices(slurm_conf: &Path) -> io::Result<bool> {
    const NO: [&str; 4] = ["no", "down", "false", "0"];
    let plugins = setting(slurm_conf, "TaskPlugin")?.unwrap_or_default();
    if !plugins.to_ascii_lowercase().contains("cgroup") {
        return Ok(false);
    }
    let value = match setting(&slurm_conf.with_file_name("cgroup.conf"), "ConstrainDevices") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        value => value?,
    };
    Ok(value.is_some_and(|value| !NO.iter().any(|no| value.eq_ignore_ascii_case(no))))
}

/// A file of Slurm's configuration, as text.
pub(super) fn text_of(file: &Path) -> io::Result<String> {
    let bytes = fs::read(file)?;
    if bytes.len() > MAX_FILE {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

struct Reading {
    /// Where Slurm looks for an included file without a path.
    beside: PathBuf,
    /// The cluster's name, if known, for names of included files.
    cluster: Option<String>,
    lines: Vec<String>,
}

impl Reading {
    fn read(&mut self, file: &Path, depth: usize) -> io::Result<()> {
        for line in lines(&text_of(file)?) {
            if let Some(name) = included(&line) {
                // Slurm reports that it supports no patterns, and continues.
                if !name.contains('*') {
                    let depth = depth.checked_sub(1).ok_or(io::ErrorKind::InvalidData)?;
                    self.read(&self.place(name, file)?, depth)?;
                }
                continue;
            }
            if let Some((_, value)) = pair(&line).filter(|(key, _)| key.eq_ignore_ascii_case("ClusterName")) {
                self.cluster = Some(value.to_ascii_lowercase());
            }
            self.lines.push(line);
        }
        Ok(())
    }

    /// The path of an included file: next to slurm.conf; before 23.11 next to the file that includes it.
    fn place(&self, name: &str, file: &Path) -> io::Result<PathBuf> {
        let name = match &self.cluster {
            Some(cluster) => name.replace(CLUSTER, cluster),
            None if name.contains(CLUSTER) => return Err(io::ErrorKind::InvalidData.into()),
            None => name.to_owned(),
        };
        let place = self.beside.join(&name);
        if place.try_exists()? {
            return Ok(place);
        }
        Ok(file.parent().unwrap_or(Path::new("/")).join(name))
    }
}

/// The lines without comments; lines that end with a backslash are joined with the next one.
fn lines(text: &str) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for part in text.split('\n') {
        let part = part.get(..comment(part)).unwrap_or(part);
        let end = part.trim_end();
        let backslashes = end.len() - end.trim_end_matches('\\').len();
        if backslashes % 2 == 1 {
            line.push_str(end.get(..end.len() - 1).unwrap_or(end));
            continue;
        }
        line.push_str(part);
        lines.push(without_backslashes(&line));
        line.clear();
    }
    lines.push(without_backslashes(&line));
    lines
}

/// Where the comment of a line begins: at a `#` that no backslash escapes.
fn comment(line: &str) -> usize {
    let mut is_escaped = false;
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            b'#' if !is_escaped => return at,
            b'\\' => is_escaped = !is_escaped,
            _ => is_escaped = false,
        }
    }
    line.len()
}

fn without_backslashes(line: &str) -> String {
    let mut chars = line.chars();
    std::iter::from_fn(|| match chars.next()? {
        '\\' => chars.next(),
        other => Some(other),
    })
    .collect()
}

/// The file name of a line `Include FILE`.
fn included(line: &str) -> Option<&str> {
    const WORD: &str = "include";
    // Slurm accepts it only at the very beginning.
    let (word, rest) = line.split_at_checked(WORD.len())?;
    let is_word = word.eq_ignore_ascii_case(WORD) && rest.starts_with(|c: char| c.is_ascii_whitespace());
    if is_word { rest.split_ascii_whitespace().next() } else { None }
}

/// The first `KEY=VALUE` of a line; Slurm reports further text as an error, unless the key is that of a node,
/// partition, or the like.
fn pair(line: &str) -> Option<(&str, &str)> {
    let (key, value, _) = cut(line)?;
    (!value.is_empty()).then_some((key, value))
}

/// All pairs of a line that may have several.
pub(super) fn pairs(line: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = line;
    std::iter::from_fn(move || {
        let (key, value, left) = cut(rest)?;
        rest = left;
        Some((key, value))
    })
    .filter(|(_, value)| !value.is_empty())
}

/// Key and value of the first pair, and the rest of the line.
fn cut(line: &str) -> Option<(&str, &str, &str)> {
    let (key, rest) = line.split_once('=')?;
    let (key, rest) = (key.trim_ascii(), rest.trim_ascii_start());
    let quoted = rest.strip_prefix('"').and_then(|rest| rest.split_once('"'));
    let (value, left) =
        quoted.or_else(|| rest.split_once(|c: char| c.is_ascii_whitespace())).unwrap_or((rest, ""));
    Some((key, value, left))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)], key: &str) -> io::Result<Option<String>> {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let file = directory.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        setting(&directory.path().join("slurm.conf"), key)
    }

    #[test]
    fn a_key_has_the_value_that_slurm_gives_it() {
        for (text, value) in [
            ("", None),
            ("Key=", None),
            ("#Key=/y", None),
            ("Key=/y", Some("/y")),
            ("  kEy = /y # here", Some("/y")),
            ("Key=\"/a b\" # here", Some("/a b")),
            ("Key=/a b", Some("/a")),
            ("Key=/a\nOther=x\nKey=/b\n", Some("/b")),
            ("Other=x Key=/a", None),
            ("Key=\\\n  /y\nOther=x", Some("/y")),
            ("Key=/a\\#b\\\\c#d", Some("/a#b\\c")),
            ("# x \\\nKey=/y", Some("/y")),
            ("Other=\\\nKey=/y", None),
        ] {
            assert_eq!(found(&[("slurm.conf", text)], "Key").unwrap().as_deref(), value, "{text}");
        }
    }

    #[test]
    fn a_line_may_set_several_keys() {
        let found = |line| pairs(line).collect::<Vec<_>>();
        assert_eq!(found("a = b  c=\"d e\" f=g "), [("a", "b"), ("c", "d e"), ("f", "g")]);
        assert_eq!(found("a"), []);
    }

    #[test]
    fn epilog_is_expected_unless_run_in_job_is_set() {
        let directory = tempfile::tempdir().unwrap();
        let slurm_conf = directory.path().join("slurm.conf");
        has_epilog(&slurm_conf).unwrap_err();
        for (text, comes) in [
            ("", true),
            ("PrologFlags=Contain,DeferBatch\n", true),
            ("PrologFlags=Contain,RunInJob\n", false),
            ("PrologFlags=runinjob\n", false),
        ] {
            fs::write(&slurm_conf, text).unwrap();
            assert_eq!(has_epilog(&slurm_conf).unwrap(), comes, "{text}");
        }
    }

    #[test]
    fn unclear_device_constraint_counts_as_constraining() {
        let directory = tempfile::tempdir().unwrap();
        let [slurm_conf, cgroup_conf] = ["slurm.conf", "cgroup.conf"].map(|name| directory.path().join(name));
        let constrains = || constrains_devices(&slurm_conf).map_err(|error| error.kind());
        assert_eq!(constrains(), Err(io::ErrorKind::NotFound));
        fs::write(&slurm_conf, "TaskPlugin=task/affinity,task/cgroup\n").unwrap();
        assert_eq!(constrains(), Ok(false));
        for (text, yes) in [("", false), ("no", false), ("False", false), ("yes", true), ("x", true)] {
            fs::write(&cgroup_conf, format!("CgroupPlugin=autodetect\nconstraindevices={text}\n")).unwrap();
            assert_eq!(constrains(), Ok(yes), "{text}");
        }
        fs::write(&slurm_conf, "TaskPlugin=task/affinity\n").unwrap();
        assert_eq!(constrains(), Ok(false));
        fs::write(&slurm_conf, "TaskPlugin=cgroup\n").unwrap();
        fs::remove_file(&cgroup_conf).unwrap();
        fs::create_dir(&cgroup_conf).unwrap();
        constrains().unwrap_err();
    }

    #[test]
    fn included_line_counts_at_its_include() {
        let more = ("more.conf", "Key=/b\n");
        for (text, value) in [
            ("Key=/a\ninclude more.conf\n", "/b"),
            ("INCLUDE\tmore.conf # here\nKey=/a\n", "/a"),
            ("Key=/a\n include more.conf\n", "/a"),
            ("Key=/a\nincluded more.conf\n", "/a"),
            ("Key=/a\ninclude m*.conf\n", "/a"),
            ("ClusterName=More\ninclude %c.conf\n", "/b"),
            ("include d/in.conf\n", "/c"),
        ] {
            let files =
                [("slurm.conf", text), more, ("d/in.conf", "Include own.conf"), ("d/own.conf", "Key=/c")];
            assert_eq!(found(&files, "Key").unwrap().as_deref(), Some(value), "{text}");
        }
    }

    #[test]
    fn path_that_cannot_be_followed_is_not_absent() {
        for text in ["include slurm.conf", "include nowhere.conf", "include .", "include %c.conf"] {
            assert!(found(&[("slurm.conf", text)], "Key").is_err(), "{text}");
        }
        assert!(found(&[], "Key").is_err());
    }
}

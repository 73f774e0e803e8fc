//! plugstack.conf, read as Slurm reads it (src/common/spank.c: `_spank_stack_load`, `_plugin_stack_parse_line`,
//! `_spank_conf_include`): which plugins it names, in which order.
//!
//! Runs as root: in slurmd when it starts, before the plugin starts a container, and in `spank-docker check`.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use glob::MatchOptions;

use super::conf::{setting, text_of};
use crate::log::escape::Escaped;

/// The name of the plugin's file, as the README installs it.
const FILE: &str = "spank_docker.so";
/// Slurm reads lines into a buffer of 4096 bytes, and treats the rest as another line.
pub const LONGEST: usize = 4095;
/// The depth of nested includes. Slurm has no limit, and no protection against a cycle.
const DEPTH: usize = 8;

/// A line that names a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginLine {
    /// The file that has the line.
    pub file: PathBuf,
    /// The number of the line, from 1.
    pub number: usize,
    /// Whether it begins with `required`.
    pub is_required: bool,
    /// Whether Slurm cuts it, because it is too long.
    pub is_too_long: bool,
    /// The plugin's file, as written there.
    pub plugin: PathBuf,
    /// The rest of the line.
    pub arguments: Vec<String>,
}

impl PluginLine {
    /// Whether it names this plugin.
    #[must_use]
    pub fn is_this_plugin(&self) -> bool {
        self.plugin.file_name().is_some_and(|name| name == FILE)
    }

    /// The message to an admin about a plugin behind this one.
    #[must_use]
    pub fn comes_after_this_plugin(&self) -> String {
        let (file, plugin) = (Escaped::from(self.file.as_path()), Escaped::from(self.plugin.as_path()));
        let number = self.number;
        format!(
            "'{file}' line {number}: '{plugin}' comes after {FILE}, and would run as root in users' images: move it before that line"
        )
    }
}

/// The first plugin after this one. Slurm calls the hooks in the order of the lines: the hooks of that plugin
/// would run as root, with all capabilities, in the file system of a user's image.
#[must_use]
pub fn first_after_this_plugin(lines: &[PluginLine]) -> Option<&PluginLine> {
    lines.iter().skip_while(|line| !line.is_this_plugin()).find(|line| !line.is_this_plugin())
}

/// The kinds of a line.
#[derive(Debug, PartialEq, Eq)]
enum Statement<'a> {
    Plugin { is_required: bool, path: &'a str, arguments: Vec<&'a str> },
    Include(&'a str),
}

/// Parses a line. Slurm has no quotes there; a `#` anywhere ends the line.
fn words(line: &str) -> Option<Statement<'_>> {
    let mut words = line.split('#').next()?.split([' ', '\t', '\n']).filter(|word| !word.is_empty());
    let (kind, path) = (words.next()?, words.next()?);
    match kind {
        "include" => Some(Statement::Include(path)),
        "required" | "optional" => {
            Some(Statement::Plugin { is_required: kind == "required", path, arguments: words.collect() })
        }
        _ => None,
    }
}

/// All plugins that `file` and its included files name, in the order in which Slurm calls them.
pub fn read(file: &Path) -> io::Result<Vec<PluginLine>> {
    let mut lines = Vec::new();
    read_below(file, DEPTH, &mut lines)?;
    Ok(lines)
}

fn read_below(file: &Path, depth: usize, lines: &mut Vec<PluginLine>) -> io::Result<()> {
    let text = text_of(file)?;
    for (place, line) in text.split('\n').enumerate() {
        let is_too_long = line.len() >= LONGEST;
        for part in parts(line) {
            match words(part) {
                Some(Statement::Plugin { is_required, path, arguments }) => lines.push(PluginLine {
                    file: file.to_owned(),
                    number: place + 1,
                    is_required,
                    is_too_long,
                    plugin: path.into(),
                    arguments: arguments.into_iter().map(str::to_owned).collect(),
                }),
                Some(Statement::Include(pattern)) => {
                    let depth = depth.checked_sub(1).ok_or_else(|| {
                        io::Error::new(io::ErrorKind::InvalidData, "it includes itself, or too much")
                    })?;
                    include(&file.parent().unwrap_or(Path::new("/")).join(pattern), depth, lines)?;
                }
                None => {}
            }
        }
    }
    Ok(())
}

/// The pieces of a line that Slurm reads, one buffer each.
fn parts(mut line: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let end = (0..=line.len().min(LONGEST)).rev().find(|end| line.is_char_boundary(*end))?;
        let (part, rest) = line.split_at(end);
        line = rest;
        (!part.is_empty()).then_some(part)
    })
}

/// Reads the files that match, as glob(3) without flags: a leading dot must be written out. A missing file
/// counts as empty.
fn include(pattern: &Path, depth: usize, lines: &mut Vec<PluginLine>) -> io::Result<()> {
    let options = MatchOptions {
        require_literal_separator: true,
        require_literal_leading_dot: true,
        ..MatchOptions::new()
    };
    let found = glob::glob_with(&pattern.to_string_lossy(), options)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    for path in found {
        let path = path.map_err(io::Error::from)?;
        match read_below(&path, depth, lines) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    Ok(())
}

/// Why this node may start no container.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// Another plugin comes after this one, and would run as root in the container.
    #[error("plugstack.conf: {0}: ask the admin")]
    Behind(String),
    /// plugstack.conf cannot be read.
    #[error("plugstack.conf: cannot be read: ask the admin")]
    Unreadable(#[source] io::Error),
    /// plugstack.conf does not name this plugin: Slurm reads another file, or the file names the plugin
    /// differently.
    #[error(
        "plugstack.conf: '{0}' does not name {FILE}, so what comes after it cannot be seen: ask the admin"
    )]
    NotNamed(Escaped),
}

/// Succeeds where this plugin is the last one. `slurm_conf` is slurmd's variable SLURM_CONF, which it sets before it calls a
/// plugin, wherever it found the file, and passes to slurmstepd and to the prolog (src/slurmd/slurmd/slurmd.c:
/// `setenv("SLURM_CONF", conf->conffile, 1)`).
pub fn check_is_last(slurm_conf: Option<&OsStr>) -> Result<(), OrderError> {
    let slurm_conf = slurm_conf.ok_or(OrderError::Unreadable(io::ErrorKind::NotFound.into()))?;
    let file = file_beside(Path::new(slurm_conf)).map_err(OrderError::Unreadable)?;
    let lines = read(&file).map_err(OrderError::Unreadable)?;
    if !lines.iter().any(PluginLine::is_this_plugin) {
        return Err(OrderError::NotNamed(Escaped::from(file.as_path())));
    }
    match first_after_this_plugin(&lines) {
        Some(line) => Err(OrderError::Behind(line.comes_after_this_plugin())),
        None => Ok(()),
    }
}

/// The cluster's name in slurmd's configuration. Used by tasks, whose variables about the cluster are under the
/// user's control.
pub fn cluster_name(slurm_conf: Option<&OsStr>) -> io::Result<String> {
    let slurm_conf = slurm_conf.ok_or(io::ErrorKind::NotFound)?;
    let name = setting(Path::new(slurm_conf), "ClusterName")?.ok_or(io::ErrorKind::InvalidData)?;
    // Slurm does the same (src/common/read_config.c, `_validate_and_set_defaults`).
    Ok(name.to_ascii_lowercase())
}

/// The path of plugstack.conf: `PlugStackConfig`, else next to slurm.conf (src/common/spank.c:
/// `spank_stack_init`; src/common/read_config.c: `get_extra_conf_path`). Slurm would resolve a relative path
/// from its current directory.
fn file_beside(slurm_conf: &Path) -> io::Result<PathBuf> {
    match setting(slurm_conf, "PlugStackConfig")?.map(PathBuf::from) {
        Some(configured) if configured.is_absolute() => Ok(configured),
        Some(_) => Err(io::ErrorKind::InvalidFilename.into()),
        None => Ok(slurm_conf.parent().unwrap_or(Path::new("/")).join("plugstack.conf")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn lines_are_read_as_slurm_reads_them() {
        assert_eq!(words("# required x.so"), None);
        assert_eq!(words("required"), None);
        assert_eq!(words("maybe x.so"), None);
        assert_eq!(words("\tinclude  a/*.conf # b"), Some(Statement::Include("a/*.conf")));
        assert_eq!(
            words("required /x.so a=b  c=d#e"),
            Some(Statement::Plugin { is_required: true, path: "/x.so", arguments: vec!["a=b", "c=d"] })
        );
        let long = format!("{}required x.so", "#".repeat(LONGEST));
        assert_eq!(parts(&long).nth(1), Some("required x.so"));
        assert_eq!(parts("").count(), 0);
    }

    /// The plugins of a plugstack.conf with these lines, next to `more.d` with two files.
    fn order(text: &str) -> (Vec<String>, Option<String>) {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("more.d")).unwrap();
        fs::write(path("plugstack.conf"), text).unwrap();
        fs::write(path("more.d/a.conf"), "# required c.so\n optional a.so\n").unwrap();
        fs::write(path("more.d/m.conf"), "required /usr/lib/spank-docker/spank_docker.so pull=never\n")
            .unwrap();
        fs::write(path("more.d/z.conf"), "required z.so\n").unwrap();
        fs::write(path("more.d/.hidden.conf"), "required hidden.so\n").unwrap();
        let lines = read(&path("plugstack.conf")).unwrap();
        let name = |line: &PluginLine| line.plugin.file_name().unwrap().to_string_lossy().into_owned();
        (lines.iter().map(name).collect(), first_after_this_plugin(&lines).map(name))
    }

    #[test]
    fn plugin_after_this_one_is_found_in_every_file() {
        for (text, behind) in [
            ("required spank_docker.so", None),
            ("required b.so\nrequired spank_docker.so a=b", None),
            ("required spank_docker.so\n# required b.so\nmaybe b.so\n\n", None),
            ("required spank_docker.so\nrequired spank_docker.so", None),
            ("required b.so", None),
            ("required spank_docker.so\nrequired b.so", Some("b.so")),
            ("required spank_docker.so\n\toptional\tb.so x", Some("b.so")),
            ("include more.d/[am].conf", None),
            ("include more.d/*.conf", Some("z.so")),
            ("include more.d/m.conf\ninclude more.d/a.conf", Some("a.so")),
            ("required spank_docker.so\ninclude more.d/none*", None),
            ("required spank_docker.so\ninclude more.d/z.*", Some("z.so")),
        ] {
            assert_eq!(order(text).1.as_deref(), behind, "{text}");
        }
        assert_eq!(order("include more.d/*").0, ["a.so", "spank_docker.so", "z.so"]);
    }

    #[test]
    fn include_that_cannot_be_followed_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("plugstack.conf");
        for text in ["include plugstack.conf", "include [", "include ."] {
            fs::write(&file, text).unwrap();
            assert!(read(&file).is_err(), "{text}");
        }
        assert_eq!(read(Path::new("/nowhere/plugstack.conf")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn plugstack_conf_is_where_slurm_conf_says_or_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let conf = directory.path().join("slurm.conf");
        for (text, file) in [
            ("ClusterName=x\n#PlugStackConfig=/y\n", Some(directory.path().join("plugstack.conf"))),
            ("plugstackconfig = /y/z # here\n", Some("/y/z".into())),
            ("PlugStackConfig=\"other\"\n", None),
        ] {
            fs::write(&conf, text).unwrap();
            assert_eq!(file_beside(&conf).ok(), file);
        }
    }

    /// Both the order of plugins and the keys are errors, not empty, when a file cannot be read.
    #[test]
    fn order_of_plugins_that_cannot_be_read_is_a_failure() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let conf = path("slurm.conf");
        let order = || check_is_last(Some(conf.as_os_str())).map_err(|error| error.to_string());
        let cluster = || cluster_name(Some(conf.as_os_str())).ok();
        const UNREADABLE: &str = "plugstack.conf: cannot be read: ask the admin";
        assert_eq!((order().unwrap_err(), cluster()), (UNREADABLE.to_owned(), None));
        assert!(check_is_last(None).is_err() && cluster_name(None).is_err());
        fs::write(&conf, "ClusterName=One\n").unwrap();
        assert_eq!((order().unwrap_err(), cluster()), (UNREADABLE.to_owned(), Some("one".to_owned())));
        for (text, is_in_order) in [
            ("required /usr/lib/spank-docker/spank_docker.so", true),
            ("required b.so\nrequired spank_docker.so", true),
            ("", false),
            ("required b.so", false),
            ("required docker.so", false),
            ("required another_spank_docker.so", false),
            ("include nowhere*", false),
        ] {
            fs::write(path("plugstack.conf"), text).unwrap();
            assert_eq!(order().is_ok(), is_in_order, "{text}");
        }
        fs::write(&conf, "SlurmctldHost=n1\n").unwrap();
        assert_eq!(cluster(), None);
    }
}

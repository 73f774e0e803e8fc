//! plugstack.conf, read as Slurm reads it: is the plugin there, `required`, once, and does it take its settings?

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::finding::Finding;
use crate::config::Config;
use crate::shown::Shown;

const NAME: &str = "plugstack";
/// As README installs it.
const FILE: &str = "spank_docker.so";
const USUAL: &str = "/usr/lib/spank-docker/spank_docker.so";
/// Slurm reads lines into a buffer of PATH_MAX, and takes what does not fit for another line.
const LONGEST: usize = 4095;
/// Includes in includes; Slurm has no limit, and no way out of a circle.
const DEPTH: usize = 8;

/// A line that names the plugin.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    file: PathBuf,
    number: usize,
    is_required: bool,
    is_too_long: bool,
    /// The plugin's file, as it stands there.
    pub(super) plugin: PathBuf,
    arguments: Vec<String>,
}

/// What a line can be.
#[derive(Debug, PartialEq, Eq)]
enum Words<'a> {
    Plugin { is_required: bool, path: &'a str, arguments: Vec<&'a str> },
    Include(&'a str),
}

/// Slurm knows no quotes; a `#` ends a line wherever it stands.
fn words(line: &str) -> Option<Words<'_>> {
    let mut words = line.split('#').next()?.split([' ', '\t', '\n']).filter(|word| !word.is_empty());
    let (kind, path) = (words.next()?, words.next()?);
    match kind {
        "include" => Some(Words::Include(path)),
        "required" | "optional" => {
            Some(Words::Plugin { is_required: kind == "required", path, arguments: words.collect() })
        }
        _ => None,
    }
}

/// The lines of `file`, and of what it includes, that name the plugin.
pub(super) fn read(file: &Path) -> io::Result<Vec<Line>> {
    let mut lines = Vec::new();
    read_below(file, DEPTH, &mut lines)?;
    Ok(lines)
}

fn read_below(file: &Path, depth: usize, lines: &mut Vec<Line>) -> io::Result<()> {
    let text = String::from_utf8_lossy(&fs::read(file)?).into_owned();
    for (place, line) in text.lines().enumerate() {
        match words(line) {
            Some(Words::Plugin { is_required, path, arguments }) if path.ends_with(FILE) => {
                lines.push(Line {
                    file: file.to_owned(),
                    number: place + 1,
                    is_required,
                    is_too_long: line.len() >= LONGEST,
                    plugin: path.into(),
                    arguments: arguments.into_iter().map(str::to_owned).collect(),
                })
            }
            Some(Words::Include(pattern)) if depth > 0 => {
                let pattern = file.parent().unwrap_or(Path::new("/")).join(pattern);
                let found = glob::glob(&pattern.to_string_lossy()).into_iter().flatten();
                for path in found.filter_map(Result::ok).filter(|path| path.is_file()) {
                    read_below(&path, depth - 1, lines)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The plugin's line, if there is one that can be used, and what is to be said of it. `directories`: where Slurm looks
/// for a plugin without a path (PluginDir).
pub(super) fn check(file: &Path, lines: io::Result<Vec<Line>>, directories: &str) -> (Option<Line>, Finding) {
    let lines = match lines {
        Ok(lines) => lines,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let file = Shown::from(file);
            return (
                None,
                Finding::fail(NAME, format!("'{file}' does not exist: make it, with 'required {USUAL}'")),
            );
        }
        Err(error) => {
            let text = format!("'{}' cannot be read ({error}): Slurm cannot either", Shown::from(file));
            return (None, Finding::fail(NAME, text));
        }
    };
    let count = lines.len();
    let Some(line) = lines.into_iter().next() else {
        let text = format!("'{}' does not name the plugin: add 'required {USUAL}'", Shown::from(file));
        return (None, Finding::fail(NAME, text));
    };
    let finding = judge(&line, count, directories);
    (Some(line), finding)
}

fn judge(line: &Line, count: usize, directories: &str) -> Finding {
    let place = format!("'{}' line {}", Shown::from(line.file.as_path()), line.number);
    if count > 1 {
        return Finding::fail(NAME, format!("{place} and others name the plugin {count} times: leave one"));
    }
    if !line.is_required {
        return Finding::fail(
            NAME,
            format!("{place}: 'optional' lets jobs go on when the plugin fails, use 'required'"),
        );
    }
    if line.is_too_long {
        return Finding::fail(
            NAME,
            format!("{place}: Slurm cuts lines after {LONGEST} bytes, make it shorter"),
        );
    }
    let mut candidates = directories.split(':').map(|directory| Path::new(directory).join(&line.plugin));
    let plugin = candidates.find(|path| path.is_file()).unwrap_or_else(|| line.plugin.clone());
    let shown = Shown::from(plugin.as_path());
    match fs::metadata(&plugin) {
        Err(error) => {
            Finding::fail(NAME, format!("{place}: '{shown}' cannot be opened ({error}): install it"))
        }
        Ok(metadata) if metadata.uid() != 0 || metadata.mode() & 0o022 != 0 => Finding::fail(
            NAME,
            format!("{place}: '{shown}' can be changed by others than root: chown root, chmod 0755"),
        ),
        Ok(_) => Finding::ok(NAME, format!("{place} requires '{shown}'")),
    }
}

/// What the plugin itself would say of its settings.
pub(super) fn settings(line: &Line) -> (Option<Config>, Finding) {
    const NAME: &str = "settings";
    let arguments: Vec<&str> = line.arguments.iter().map(String::as_str).collect();
    match Config::parse(&arguments) {
        Ok(config) if arguments.is_empty() => (Some(config), Finding::ok(NAME, "all default")),
        Ok(config) => (Some(config), Finding::ok(NAME, Shown::new(arguments.join(" ")).to_string())),
        Err(error) => (
            None,
            Finding::fail(
                NAME,
                format!("{error}; no job with an image starts, and what depends on it was not checked"),
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> (Option<Line>, String) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("plugstack.conf");
        fs::write(&file, text).unwrap();
        let (line, finding) = check(&file, read(&file), "/usr/lib/slurm");
        let place = directory.path().display().to_string();
        (line, finding.to_string().replace(&place, "DIR"))
    }

    #[test]
    fn lines_are_read_as_slurm_reads_them() {
        assert_eq!(words("# required x.so"), None);
        assert_eq!(words("required"), None);
        assert_eq!(words("maybe x.so"), None);
        assert_eq!(words("\tinclude  a/*.conf # b"), Some(Words::Include("a/*.conf")));
        assert_eq!(
            words("required /x.so a=b  c=d#e"),
            Some(Words::Plugin { is_required: true, path: "/x.so", arguments: vec!["a=b", "c=d"] })
        );
    }

    #[test]
    fn a_plugin_that_slurm_would_not_use_is_told() {
        let at = "'DIR/plugstack.conf'";
        for (text, line) in [
            ("", format!("fail plugstack: {at} does not name the plugin: add 'required {USUAL}'")),
            (
                "\noptional /x/spank_docker.so",
                format!(
                    "fail plugstack: {at} line 2: 'optional' lets jobs go on when the plugin fails, use 'required'"
                ),
            ),
            (
                "required /x/spank_docker.so\nrequired /y/spank_docker.so",
                format!("fail plugstack: {at} line 1 and others name the plugin 2 times: leave one"),
            ),
            (
                "required /nowhere/spank_docker.so",
                format!(
                    "fail plugstack: {at} line 1: '/nowhere/spank_docker.so' cannot be opened (No such file or directory (os error 2)): install it"
                ),
            ),
            (
                &format!("required /nowhere/spank_docker.so mounts={}", "/a,".repeat(2000)),
                format!("fail plugstack: {at} line 1: Slurm cuts lines after 4095 bytes, make it shorter"),
            ),
        ] {
            assert_eq!(found(text).1, line);
        }
        let nowhere = Path::new("/nowhere/plugstack.conf");
        assert_eq!(
            check(nowhere, read(nowhere), "").1.to_string(),
            format!(
                "fail plugstack: '/nowhere/plugstack.conf' does not exist: make it, with 'required {USUAL}'"
            )
        );
    }

    #[test]
    fn includes_are_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("more.d")).unwrap();
        fs::write(path("plugstack.conf"), "required other.so\ninclude more.d/*.conf\n").unwrap();
        fs::write(path("more.d/a.conf"), "# nothing\n").unwrap();
        fs::write(path("more.d/b.conf"), "required spank_docker.so pull=never\ninclude b.conf\n").unwrap();
        let lines = read(&path("plugstack.conf")).unwrap();
        // Read as often as the circle is followed.
        assert_eq!(lines.len(), DEPTH);
        assert_eq!((lines[0].file.as_path(), lines[0].number), (path("more.d/b.conf").as_path(), 1));
        assert_eq!(settings(&lines[0]).1.to_string(), "ok   settings: pull=never");
    }

    #[test]
    fn settings_are_judged_by_the_plugins_own_code() {
        let line = found("required spank_docker.so memlok=1").0.unwrap();
        assert_eq!(
            settings(&line).1.to_string(),
            "fail settings: 'memlok' is not a key of the configuration: did you mean 'memlock'?; no job with an image starts, and what depends on it was not checked"
        );
        let line = found("required spank_docker.so").0.unwrap();
        assert_eq!(settings(&line).0, Some(Config::default()));
    }
}

//! plugstack.conf: is the plugin listed, `required`, once, as the last one, and are its settings valid?

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::finding::Finding;
use crate::log::escape::Escaped;
use crate::settings::plugstack::{Config, ConfigError};
use crate::slurm::plugin_order::{LONGEST, PluginLine, first_after_this_plugin};

const NAME: &str = "plugstack";
/// The path at which README installs the plugin.
const USUAL: &str = "/usr/lib/spank-docker/spank_docker.so";

/// The plugin's line, if there is a valid one, and the findings about it and its position. `directories`: where
/// Slurm looks for a plugin without a path (PluginDir).
pub(super) fn check(
    file: &Path,
    lines: io::Result<Vec<PluginLine>>,
    directories: &str,
) -> (Option<PluginLine>, Vec<Finding>) {
    let lines = match lines {
        Ok(lines) => lines,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let file = Escaped::from(file);
            let text = format!("'{file}' does not exist: create it with 'required {USUAL}'");
            return (None, vec![Finding::fail(NAME, text), not_seen()]);
        }
        Err(error) => {
            let text =
                format!("'{}' cannot be read ({error}): Slurm cannot read it either", Escaped::from(file));
            return (None, vec![Finding::fail(NAME, text), not_seen()]);
        }
    };
    let mut own = lines.iter().filter(|line| line.is_this_plugin());
    let Some(line) = own.next().cloned() else {
        let file_shown = Escaped::from(file);
        let text = match is_from_slurmctld(file) {
            false => {
                format!("'{file_shown}' does not name the plugin: add 'required {USUAL}' as its last line")
            }
            true => format!(
                "'{file_shown}', which slurmctld hands out without the files that it includes, does not name the plugin: add 'required {USUAL}' as its last line on slurmctld's host, or jobs run without their containers"
            ),
        };
        return (None, vec![Finding::fail(NAME, text), not_seen()]);
    };
    let findings = vec![judge(&line, 1 + own.count(), directories), order(first_after_this_plugin(&lines))];
    (Some(line), findings)
}

/// Whether slurmctld has handed the file out, to a node without a configuration of its own: slurmd keeps it in its spool
/// directory (src/slurmd/slurmd/slurmd.c, `_establish_configuration`).
fn is_from_slurmctld(file: &Path) -> bool {
    fs::canonicalize(file).is_ok_and(|file| file.parent().is_some_and(|place| place.ends_with("conf-cache")))
}

const ORDER: &str = "plugin_order";

fn order(behind: Option<&PluginLine>) -> Finding {
    match behind {
        None => Finding::ok(ORDER, "no other plugin comes after spank_docker.so"),
        Some(line) => Finding::fail(ORDER, line.comes_after_this_plugin()),
    }
}

fn not_seen() -> Finding {
    Finding::fail(ORDER, "what comes after spank_docker.so cannot be seen")
}

fn judge(line: &PluginLine, count: usize, directories: &str) -> Finding {
    let place = format!("'{}' line {}", Escaped::from(line.file.as_path()), line.number);
    if count > 1 {
        return Finding::fail(NAME, format!("{place} and others name the plugin {count} times: keep one"));
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
    let shown = Escaped::from(plugin.as_path());
    match fs::metadata(&plugin) {
        Err(error) => {
            Finding::fail(NAME, format!("{place}: '{shown}' cannot be opened ({error}): install it"))
        }
        Ok(metadata) if metadata.uid() != 0 || metadata.mode() & 0o022 != 0 => Finding::fail(
            NAME,
            format!("{place}: '{shown}' can be changed by non-root users: chown root, chmod 0755"),
        ),
        Ok(_) => Finding::ok(NAME, format!("{place} requires '{shown}'")),
    }
}

/// The plugin's own message about its settings.
pub(super) fn settings(line: &PluginLine) -> (Option<Config>, Finding) {
    const NAME: &str = "settings";
    let arguments: Vec<&str> = line.arguments.iter().map(String::as_str).collect();
    match parse(&arguments) {
        Ok(config) if arguments.is_empty() => (Some(config), Finding::ok(NAME, "all default")),
        Ok(config) => (Some(config), Finding::ok(NAME, Escaped::new(arguments.join(" ")).to_string())),
        Err(error) => (
            None,
            Finding::fail(
                NAME,
                format!(
                    "{error}; jobs with an image cannot start, and what depends on the settings was not checked"
                ),
            ),
        ),
    }
}

/// The file was read as text: where it is none, characters stand in for what Slurm would pass on.
fn parse(arguments: &[&str]) -> Result<Config, ConfigError> {
    match arguments.iter().find(|argument| argument.contains(char::REPLACEMENT_CHARACTER)) {
        Some(argument) => Err(ConfigError::Text((*argument).into())),
        None => Config::parse(arguments),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slurm::plugin_order::read;

    fn found(text: &str) -> (Option<PluginLine>, Vec<String>) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("plugstack.conf");
        fs::write(&file, text).unwrap();
        let (line, findings) = check(&file, read(&file), "/usr/lib/slurm");
        let place = directory.path().display().to_string();
        (line, findings.iter().map(|finding| finding.to_string().replace(&place, "DIR")).collect())
    }

    #[test]
    fn plugstack_line_that_slurm_would_not_use_is_reported() {
        let at = "'DIR/plugstack.conf'";
        for (text, line) in [
            (
                "",
                format!(
                    "fail plugstack: {at} does not name the plugin: add 'required {USUAL}' as its last line"
                ),
            ),
            (
                "\noptional /x/spank_docker.so",
                format!(
                    "fail plugstack: {at} line 2: 'optional' lets jobs go on when the plugin fails, use 'required'"
                ),
            ),
            (
                "required /x/spank_docker.so\nrequired /y/spank_docker.so",
                format!("fail plugstack: {at} line 1 and others name the plugin 2 times: keep one"),
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
            assert_eq!(found(text).1[0], line);
        }
        let nowhere = Path::new("/nowhere/plugstack.conf");
        assert_eq!(
            check(nowhere, read(nowhere), "").1[0].to_string(),
            format!(
                "fail plugstack: '/nowhere/plugstack.conf' does not exist: create it with 'required {USUAL}'"
            )
        );
    }

    /// Slurm ignores an include of a file that is missing, and runs the job on the host.
    #[test]
    fn include_that_slurmctld_does_not_hand_out_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let cache = directory.path().join("conf-cache");
        fs::create_dir(&cache).unwrap();
        let file = cache.join("plugstack.conf");
        fs::write(&file, "include plugstack.conf.d/*.conf\n").unwrap();
        assert_eq!(
            check(&file, read(&file), "").1[0].to_string(),
            format!(
                "fail plugstack: '{}', which slurmctld hands out without the files that it includes, does not name the plugin: add 'required {USUAL}' as its last line on slurmctld's host, or jobs run without their containers",
                file.display()
            )
        );
    }

    #[test]
    fn later_plugin_is_reported() {
        assert_eq!(
            found("required b.so\nrequired spank_docker.so\n").1[1],
            "ok   plugin_order: no other plugin comes after spank_docker.so"
        );
        assert_eq!(
            found("required spank_docker.so\noptional b.so\n").1[1],
            "fail plugin_order: 'DIR/plugstack.conf' line 2: 'b.so' comes after spank_docker.so, and would run as root in users' images: move it before that line"
        );
    }

    #[test]
    fn settings_are_judged_by_the_plugins_own_code() {
        let line = found("required spank_docker.so memlok=1").0.unwrap();
        assert_eq!(
            settings(&line).1.to_string(),
            "fail settings: 'memlok=1': 'memlok' is not a configuration key: did you mean 'memlock'?; jobs with an image cannot start, and what depends on the settings was not checked"
        );
        let line = found("required spank_docker.so").0.unwrap();
        assert_eq!(settings(&line).0, Some(Config::default()));
        // What is not UTF-8 in the file.
        let line = found("required spank_docker.so state_dir=/x\u{fffd}").0.unwrap();
        assert!(settings(&line).1.text.contains("is not valid UTF-8: use text in UTF-8"));
    }
}

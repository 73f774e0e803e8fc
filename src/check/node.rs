//! All checks of a node, in the order in which one would set it up.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use super::finding::{Finding, Level, Report};
use super::holes::{self, Release};
use super::processes::{self, Loaded};
use super::slurm::Settings;
use super::{devices, engine, kernel, limits, plugstack, ports, secret, slurm, state_dir};
use crate::guest::ssh::keys;
use crate::log::escape::Escaped;
use crate::settings::plugstack::{Config, SecretFile};
use crate::slurm::plugin_order as stack;

/// The usual directories of slurm.conf, which also hold plugstack.conf. The second one is used on nodes that
/// get it from slurmctld: a link to conf-cache in SlurmdSpoolDir.
const USUAL: [&str; 4] = ["/etc/slurm", "/run/slurm/conf", "/usr/local/etc", "/etc/slurm-llnl"];

/// Runs all checks. `path` and `slurm_conf` are the variables PATH and SLURM_CONF; `accepted` are names of
/// checks and of vulnerabilities whose warnings are suppressed.
#[must_use]
pub fn check(path: &OsStr, slurm_conf: Option<&OsStr>, accepted: &[String]) -> Report {
    let mut findings = vec![kernel::check()];
    let shown = crate::slurm::scontrol::configuration(path);
    let settings = Settings::parse(shown.as_deref().unwrap_or_default());

    let file = plugstack_file(&settings, slurm_conf);
    let (line, found) = plugstack::check(&file, stack::read(&file), settings.get("PluginDir"));
    findings.extend(found);
    // Where plugstack.conf has no line for the plugin yet, the checks assume a line without settings.
    let mut config = Some(Config::default());
    if let Some(line) = &line {
        let (parsed, finding) = plugstack::settings(line);
        config = parsed;
        findings.extend([finding, slurmd(&line.plugin)]);
    }

    let start_timeout = config.as_ref().unwrap_or(&Config::default()).start_timeout;
    match shown {
        Ok(_) => findings.extend(slurm::check(&settings, start_timeout)),
        Err(error) => {
            let wrong = slurm_conf_is_readable(slurm_conf).err();
            let text =
                wrong.unwrap_or_else(|| format!("{error}: start slurmctld, or install Slurm's commands"));
            findings.push(Finding::fail("slurm", format!("{text}; slurm.conf was not checked")));
        }
    }
    if let Some(config) = config {
        findings.push(secret::check(&config.secret, settings.get("AuthType")));
        findings.push(state_dir::check(&config.state_dir));
        findings.push(ports::check(config.ports));
        let (found, mut releases) = engine::check(&config.docker_host, config.storage_size);
        findings.extend(found);
        releases.extend(others(&config.secret, &settings));
        findings.push(holes::check(&releases, accepted));
        findings.extend(limits::check(&config));
        findings.push(devices::check(&config.devices));
    }
    for finding in findings.iter_mut().filter(|finding| finding.level == Level::Warn) {
        if accepted.iter().any(|name| name == finding.check) {
            finding.level = Level::Ok;
            finding.text.push_str(" (accepted)");
        }
    }
    let node = nix::unistd::gethostname().unwrap_or_default();
    Report::new(node.to_string_lossy().into_owned(), findings)
}

/// The releases of other software that containers depend on.
fn others(secret: &SecretFile, settings: &Settings) -> Vec<Release> {
    let slurm = Some(settings.version()).filter(|version| !version.is_empty());
    let slurm = slurm.map(|version| Release::new("Slurm", version));
    let toolkit = Release::reported_by(
        "NVIDIA Container Toolkit",
        &["/usr/bin/nvidia-ctk", "/usr/local/bin/nvidia-ctk"],
        "--version",
    );
    let is_munges = keys::secret_file(secret).is_ok_and(|path| path == Path::new(keys::MUNGE));
    let munged = ["/usr/sbin/munged", "/usr/local/sbin/munged", "/opt/munge/sbin/munged"];
    let munge = if is_munges { Release::reported_by(holes::MUNGE, &munged, "--version") } else { None };
    [slurm, toolkit, munge].into_iter().flatten().map(Release::packaged).collect()
}

/// The plugin's configuration on this node, as plugstack.conf has it; the default one where no line names the plugin yet.
pub fn configuration(path: &OsStr, slurm_conf: Option<&OsStr>) -> Result<Config, String> {
    slurm_conf_is_readable(slurm_conf)?;
    let shown = crate::slurm::scontrol::configuration(path).unwrap_or_default();
    let file = plugstack_file(&Settings::parse(&shown), slurm_conf);
    let lines = match stack::read(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        lines => {
            lines.map_err(|error| format!("'{}' cannot be read: {error}", Escaped::from(file.as_path())))?
        }
    };
    match lines.iter().find(|line| line.is_this_plugin()) {
        Some(line) => plugstack::settings(line)
            .0
            .ok_or_else(|| "plugstack.conf has an invalid setting: use 'spank-docker check'".to_owned()),
        None => Ok(Config::default()),
    }
}

/// An error where the variable SLURM_CONF names no file that can be read. Slurm's own commands fail with it: beside it there is
/// no plugstack.conf, and the default settings would be those of another cluster.
pub fn slurm_conf_is_readable(slurm_conf: Option<&OsStr>) -> Result<(), String> {
    let Some(file) = slurm_conf else { return Ok(()) };
    let wrong = |error| {
        format!("SLURM_CONF: '{}' cannot be read ({error}): correct it, or unset it", Escaped::from(file))
    };
    std::fs::read(file).map(drop).map_err(wrong)
}

/// Where a new secret belongs on this node: where the configuration says, else the plugin's own place.
pub fn place_of_secret(path: &OsStr, slurm_conf: Option<&OsStr>) -> Result<PathBuf, String> {
    Ok(match configuration(path, slurm_conf)?.secret {
        SecretFile::At(path) => path,
        SecretFile::Auto => keys::OWN.into(),
    })
}

fn plugstack_file(settings: &Settings, slurm_conf: Option<&OsStr>) -> PathBuf {
    const NAME: &str = "plugstack.conf";
    let configured = settings.get("PlugStackConfig");
    if !configured.is_empty() {
        return configured.into();
    }
    let beside = |conf: &Path| Some(conf.parent()?.join(NAME));
    if let Some(file) = slurm_conf.and_then(|conf| beside(Path::new(conf))) {
        return file;
    }
    // scontrol shows the path of slurm.conf on slurmctld's host, which may not exist here.
    let shown = beside(Path::new(settings.get("SLURM_CONF"))).filter(|path| path.is_absolute());
    let cache = Path::new(settings.get("SlurmdSpoolDir")).join("conf-cache").join(NAME);
    let usual = USUAL.iter().map(|directory| Path::new(directory).join(NAME));
    let candidates = shown.iter().cloned().chain(usual).chain([cache]).filter(|path| path.is_absolute());
    let candidates: Vec<PathBuf> = candidates.filter(|path| path.exists()).collect();
    // A node that gets slurm.conf from slurmctld may have another plugstack.conf, of a package, which Slurm does not read.
    let is_beside = |path: &&PathBuf| path.with_file_name("slurm.conf").exists();
    let there = candidates.iter().find(is_beside).or(candidates.first()).cloned();
    there.or(shown).unwrap_or_else(|| Path::new(USUAL[0]).join(NAME))
}

/// slurmd detects plugins with a prolog only at its start.
fn slurmd(plugin: &Path) -> Finding {
    const NAME: &str = "slurmd";
    let daemons = processes::of_names(&["slurmd"]);
    let plugin = std::fs::canonicalize(plugin).unwrap_or_else(|_| plugin.to_owned());
    let shown = Escaped::from(plugin.as_path());
    let loaded: Vec<_> = daemons.iter().map(|daemon| daemon.has_loaded(&plugin)).collect();
    if loaded.is_empty() {
        Finding::warn(NAME, "is not running on this node: start it")
    } else if loaded.contains(&Loaded::None) {
        Finding::fail(NAME, format!("has not loaded '{shown}': restart slurmd"))
    } else if loaded.contains(&Loaded::Older) {
        Finding::warn(NAME, format!("has loaded an older '{shown}': restart slurmd"))
    } else {
        Finding::ok(NAME, format!("has loaded '{shown}'"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugstack_conf_is_where_slurm_looks_for_it() {
        let at = |settings: &str, variable: Option<&str>| {
            plugstack_file(&Settings::parse(settings), variable.map(OsStr::new))
        };
        let shown = "SLURM_CONF = /run/slurm/conf/slurm.conf\nPlugStackConfig = (null)";
        assert_eq!(at(shown, None), Path::new("/run/slurm/conf/plugstack.conf"));
        assert_eq!(at(shown, Some("/opt/slurm.conf")), Path::new("/opt/plugstack.conf"));
        assert_eq!(at("PlugStackConfig = /x/stack", Some("/opt/slurm.conf")), Path::new("/x/stack"));
        // A node that gets slurm.conf from slurmctld, which has the file elsewhere.
        let directory = tempfile::tempdir().unwrap();
        let cached = directory.path().join("conf-cache/plugstack.conf");
        std::fs::create_dir(cached.parent().unwrap()).unwrap();
        std::fs::write(&cached, "").unwrap();
        let spool = directory.path().display();
        let shown = format!("SLURM_CONF = /nowhere/slurm.conf\nSlurmdSpoolDir = {spool}");
        assert_eq!(at(&shown, None), cached);
        // slurmctld's host has it at this path, this node only a plugstack.conf that nobody reads.
        let unread = directory.path().join("plugstack.conf");
        std::fs::write(&unread, "").unwrap();
        let shown = format!("SLURM_CONF = {spool}/slurm.conf\nSlurmdSpoolDir = {spool}");
        assert_eq!(at(&shown, None), unread);
        std::fs::write(cached.with_file_name("slurm.conf"), "").unwrap();
        assert_eq!(at(&shown, None), cached);
    }

    const NOWHERE: &str = "SLURM_CONF: '/nowhere/slurm.conf' cannot be read (No such file or directory (os error 2)): correct it, or unset it";

    #[test]
    fn settings_are_not_guessed_where_slurm_conf_cannot_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let conf = directory.path().join("slurm.conf");
        let of = |conf: &Path| configuration(OsStr::new("/nowhere"), Some(conf.as_os_str()));
        assert_eq!(of(Path::new("/nowhere/slurm.conf")).unwrap_err(), NOWHERE);
        assert!(of(directory.path()).is_err() && of(Path::new("")).is_err() && of(&conf).is_err());
        std::fs::write(&conf, "").unwrap();
        assert_eq!(of(&conf), Ok(Config::default()));
    }

    #[test]
    fn a_node_without_slurm_gets_its_findings_all_the_same() {
        let report = check(OsStr::new("/nowhere"), Some(OsStr::new("/nowhere/slurm.conf")), &[]);
        let line = |check: &str| report.findings.iter().find(|finding| finding.check == check);
        assert!(line("plugstack").is_some_and(|finding| finding.text.contains("does not exist")), "{report}");
        assert!(line("ports").is_some(), "{report}");
        assert_eq!(
            line("slurm").unwrap().to_string(),
            format!("fail slurm: {NOWHERE}; slurm.conf was not checked")
        );
    }
}

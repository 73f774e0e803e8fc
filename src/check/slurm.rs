//! Slurm: its release, and the settings of slurm.conf that the plugin needs, as slurmctld reports them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::finding::Finding;
use crate::log::escape::Escaped;
use crate::slurm::release;

/// slurm.conf, as `scontrol show config` shows it.
#[derive(Debug, Default)]
pub(super) struct Settings(BTreeMap<String, String>);

impl Settings {
    pub(super) fn parse(shown: &str) -> Self {
        let setting = |line: &str| {
            let (key, value) = line.split_once('=')?;
            Some((key.trim().to_owned(), value.trim().to_owned()))
        };
        Self(shown.lines().filter_map(setting).collect())
    }

    /// A setting's value; empty, if it is not set.
    pub(super) fn get(&self, key: &str) -> &str {
        let value = self.0.get(key).map_or("", String::as_str);
        if value.starts_with("(null") { "" } else { value }
    }

    fn has(&self, key: &str, word: &str) -> bool {
        self.get(key).split(',').any(|one| one.trim().eq_ignore_ascii_case(word))
    }

    /// Slurm's own version, as slurmctld reports it.
    pub(super) fn version(&self) -> &str {
        self.get("SLURM_VERSION")
    }

    fn release(&self) -> Option<(u8, u8)> {
        let mut numbers = self.get("SLURM_VERSION").split('.');
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}

/// All findings about slurm.conf.
pub(super) fn check(settings: &Settings, start_timeout: Option<Duration>) -> Vec<Finding> {
    vec![
        release_known(settings),
        prolog_flags(settings),
        proctrack(settings),
        task_plugin(settings),
        task_prolog(settings),
        job_container(settings),
        launch_parameters(settings),
        prolog_timeout(settings, start_timeout),
        batch_start_timeout(settings, start_timeout),
    ]
}

fn release_known(settings: &Settings) -> Finding {
    const NAME: &str = "slurm";
    let version = Escaped::new(settings.get("SLURM_VERSION"));
    let plugin = env!("CARGO_PKG_VERSION");
    match settings.release() {
        Some((major, minor)) if release::is_supported(major, minor) => {
            Finding::ok(NAME, format!("{version}, supported by spank_docker {plugin}"))
        }
        Some(_) | None => {
            let range = release::range();
            let text = format!("{version} is not one of {range}: install a spank_docker.so made for it");
            Finding::fail(NAME, text)
        }
    }
}

fn prolog_flags(settings: &Settings) -> Finding {
    const NAME: &str = "prolog_flags";
    let flags = Escaped::new(settings.get("PrologFlags"));
    let missing: Vec<_> =
        ["Contain", "DeferBatch"].into_iter().filter(|flag| !settings.has("PrologFlags", flag)).collect();
    if settings.has("PrologFlags", "RunInJob") {
        return Finding::fail(
            NAME,
            format!("'{flags}': with RunInJob Slurm does not call the prologs of plugins, remove it"),
        );
    }
    if missing.is_empty() {
        return Finding::ok(NAME, flags.to_string());
    }
    let missing = missing.join(",");
    Finding::fail(
        NAME,
        format!("'{flags}' lacks {missing}: set PrologFlags=Contain,DeferBatch in slurm.conf"),
    )
}

fn proctrack(settings: &Settings) -> Finding {
    const NAME: &str = "proctrack";
    match settings.get("ProctrackType") {
        found @ "proctrack/cgroup" => Finding::ok(NAME, found),
        found => Finding::fail(
            NAME,
            format!("'{}': set ProctrackType=proctrack/cgroup in slurm.conf", Escaped::new(found)),
        ),
    }
}

/// Without task/cgroup the limits of a job do not hold for processes that are started over ssh.
fn task_plugin(settings: &Settings) -> Finding {
    const NAME: &str = "task_plugin";
    let plugins = Escaped::new(settings.get("TaskPlugin"));
    if !settings.has("TaskPlugin", "task/cgroup") {
        return Finding::warn(
            NAME,
            format!(
                "'{plugins}' lacks task/cgroup, without which ranks started over ssh are not confined to the job's CPUs and memory: add it"
            ),
        );
    }
    let off: Vec<_> = ["ConstrainCores", "ConstrainRAMSpace", "ConstrainDevices"]
        .into_iter()
        .filter(|key| settings.get(key) != "yes")
        .collect();
    if off.is_empty() {
        return Finding::ok(NAME, plugins.to_string());
    }
    let off = off.join(", ");
    Finding::warn(
        NAME,
        format!("'{plugins}', but not {off}: set yes in cgroup.conf, or these limits do not hold"),
    )
}

/// A TaskProlog runs where the task runs: in the container. (A TaskEpilog runs on the host: slurmstepd starts
/// it after the task has ended.)
fn task_prolog(settings: &Settings) -> Finding {
    const NAME: &str = "task_prolog";
    let file = settings.get("TaskProlog");
    if file.is_empty() {
        return Finding::ok(NAME, "none");
    }
    Finding::warn(
        NAME,
        format!(
            "TaskProlog='{}' must exist in the containers, or tasks fail: name it in mounts= in plugstack.conf",
            Escaped::new(file)
        ),
    )
}

fn job_container(settings: &Settings) -> Finding {
    const NAME: &str = "job_container";
    // The setting has this name from 25.11 on.
    let found = match settings.get("NamespaceType") {
        "" => settings.get("JobContainerType"),
        found => found,
    };
    match found {
        "" | "job_container/none" | "namespace/none" => Finding::ok(NAME, "none"),
        "job_container/tmpfs" | "namespace/tmpfs" => {
            Finding::ok(NAME, format!("{found}, for steps on the host"))
        }
        found => Finding::warn(
            NAME,
            format!("'{}' is untested with containers: use its tmpfs, or none", Escaped::new(found)),
        ),
    }
}

/// With test_exec, srun looks for the program itself, on its own host.
fn launch_parameters(settings: &Settings) -> Finding {
    const NAME: &str = "launch_parameters";
    if settings.has("LaunchParameters", "test_exec") {
        return Finding::warn(
            NAME,
            "test_exec: srun refuses programs that exist only in the image, remove it from LaunchParameters",
        );
    }
    Finding::ok(NAME, "no test_exec")
}

/// How much longer than `start_timeout` a prolog may last, in seconds: an engine that has died gets a minute to
/// come back, and before that the prolog asks the engine, and afterwards reports to slurmctld.
const ROOM: u64 = 120;

/// A node whose prolog lasts longer than Slurm allows is drained.
fn prolog_timeout(settings: &Settings, start_timeout: Option<Duration>) -> Finding {
    const NAME: &str = "prolog_timeout";
    let limits = ["PrologEpilogTimeout", "PrologTimeout"];
    let limit = limits.into_iter().filter_map(|key| Some((seconds(settings.get(key))?, key))).min();
    let Some((limit, key)) = limit else { return Finding::ok(NAME, "none") };
    let start = start_timeout.map(|start| start.as_secs());
    if start.is_some_and(|start| start.saturating_add(ROOM) <= limit) {
        return Finding::ok(NAME, format!("{limit} s, enough for start_timeout"));
    }
    let start = start.map_or("no limit".to_owned(), |start| format!("{start} s"));
    Finding::warn(
        NAME,
        format!(
            "{key} is {limit} s, start_timeout {start}: a long pull drains the node, let {ROOM} s be between them"
        ),
    )
}

/// Whenever a slurmd registers, slurmctld ends batch jobs whose script should be running on that node and is
/// not: during the prolog no script runs yet (`_purge_missing_jobs`, src/slurmctld/job_mgr.c).
fn batch_start_timeout(settings: &Settings, start_timeout: Option<Duration>) -> Finding {
    const NAME: &str = "batch_start_timeout";
    let Some(limit) = seconds(settings.get("BatchStartTimeout")) else { return Finding::ok(NAME, "none") };
    let wanted = start_timeout.map(|start| start.as_secs().saturating_add(ROOM));
    if wanted.is_some_and(|wanted| wanted <= limit) {
        return Finding::ok(NAME, format!("{limit} s, enough for start_timeout"));
    }
    let wanted = wanted.map_or("as long as a pull may take".to_owned(), |wanted| format!("{wanted} s"));
    Finding::warn(
        NAME,
        format!(
            "BatchStartTimeout is {limit} s: a slurmd that registers during a long pull ends the batch job, set it to {wanted} in slurm.conf"
        ),
    )
}

/// Parses a number of seconds; `None` for the texts that Slurm writes when there is no limit.
fn seconds(value: &str) -> Option<u64> {
    const NONE: [u64; 4] = [65_534, 65_535, 4_294_967_294, 4_294_967_295];
    let number = value.split_whitespace().next()?.parse().ok()?;
    (!NONE.contains(&number)).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The settings in the format of slurmctld 24.11.
    const GOOD: &str = "\
Configuration data as of 2026-11-24T19:53:09
BatchStartTimeout       = 720 sec
JobContainerType        = (null)
PlugStackConfig         = (null)
ProctrackType           = proctrack/cgroup
PrologEpilogTimeout     = 65534
PrologFlags             = Alloc,Contain,DeferBatch
SLURM_CONF              = /etc/slurm/slurm.conf
SLURM_VERSION           = 24.11.5
TaskEpilog              = (null)
TaskPlugin              = task/cgroup,task/affinity
TaskPluginParam         = (null type)
TaskProlog              = (null)

Cgroup Support Configuration:
ConstrainCores          = yes
ConstrainDevices        = yes
ConstrainRAMSpace       = yes

Slurmctld(primary) at n1 is UP
";

    fn told(change: &str) -> Vec<String> {
        // A later line overrides an earlier one.
        let settings = Settings::parse(&format!("{GOOD}{change}\n"));
        check(&settings, Some(Duration::from_secs(600)))
            .iter()
            .filter(|finding| finding.level > super::super::Level::Ok)
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn complete_slurm_conf_passes_every_check() {
        let findings = check(&Settings::parse(GOOD), Some(Duration::from_secs(600)));
        let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                &format!("ok   slurm: 24.11.5, supported by spank_docker {}", env!("CARGO_PKG_VERSION")),
                "ok   prolog_flags: Alloc,Contain,DeferBatch",
                "ok   proctrack: proctrack/cgroup",
                "ok   task_plugin: task/cgroup,task/affinity",
                "ok   task_prolog: none",
                "ok   job_container: none",
                "ok   launch_parameters: no test_exec",
                "ok   prolog_timeout: none",
                "ok   batch_start_timeout: 720 s, enough for start_timeout",
            ]
        );
    }

    #[test]
    fn each_wrong_setting_is_reported_with_its_remedy() {
        for (change, line) in [
            (
                "SLURM_VERSION = 21.08.8",
                "fail slurm: 21.08.8 is not one of 22.05 to 26.05: install a spank_docker.so made for it",
            ),
            (
                "PrologFlags = Alloc",
                "fail prolog_flags: 'Alloc' lacks Contain,DeferBatch: set PrologFlags=Contain,DeferBatch in slurm.conf",
            ),
            (
                "PrologFlags = (null)",
                "fail prolog_flags: '' lacks Contain,DeferBatch: set PrologFlags=Contain,DeferBatch in slurm.conf",
            ),
            (
                "PrologFlags = Alloc,Contain,DeferBatch,RunInJob",
                "fail prolog_flags: 'Alloc,Contain,DeferBatch,RunInJob': with RunInJob Slurm does not call the prologs of plugins, remove it",
            ),
            (
                "ProctrackType = proctrack/linuxproc",
                "fail proctrack: 'proctrack/linuxproc': set ProctrackType=proctrack/cgroup in slurm.conf",
            ),
            (
                "TaskPlugin = task/affinity",
                "warn task_plugin: 'task/affinity' lacks task/cgroup, without which ranks started over ssh are not confined to the job's CPUs and memory: add it",
            ),
            (
                "ConstrainRAMSpace = no",
                "warn task_plugin: 'task/cgroup,task/affinity', but not ConstrainRAMSpace: set yes in cgroup.conf, or these limits do not hold",
            ),
            (
                "TaskProlog = /etc/slurm/x",
                "warn task_prolog: TaskProlog='/etc/slurm/x' must exist in the containers, or tasks fail: name it in mounts= in plugstack.conf",
            ),
            (
                "JobContainerType = job_container/cncu",
                "warn job_container: 'job_container/cncu' is untested with containers: use its tmpfs, or none",
            ),
            (
                "NamespaceType = namespace/linux",
                "warn job_container: 'namespace/linux' is untested with containers: use its tmpfs, or none",
            ),
            (
                "LaunchParameters = use_interactive_step,test_exec",
                "warn launch_parameters: test_exec: srun refuses programs that exist only in the image, remove it from LaunchParameters",
            ),
            (
                "PrologEpilogTimeout = 300 sec",
                "warn prolog_timeout: PrologEpilogTimeout is 300 s, start_timeout 600 s: a long pull drains the node, let 120 s be between them",
            ),
            (
                "BatchStartTimeout = 10 sec",
                "warn batch_start_timeout: BatchStartTimeout is 10 s: a slurmd that registers during a long pull ends the batch job, set it to 720 s in slurm.conf",
            ),
        ] {
            assert_eq!(told(change), [line]);
        }
        assert_eq!(told("PrologEpilogTimeout = 900\nJobContainerType = job_container/tmpfs"), [""; 0]);
        assert_eq!(told("NamespaceType = namespace/tmpfs"), [""; 0]);
    }
}

//! Daemons of this node, as /proc shows them.

use std::path::Path;

use crate::linux::process::{self, Process};

/// The facts about a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Daemon {
    /// Its program's name.
    pub(super) name: String,
    /// Its pid.
    pub(super) pid: i32,
    /// Whether it may give its children higher limits than its own.
    pub(super) may_raise_limits: bool,
    /// Its hard limit of locked memory in bytes; `None` is unlimited.
    pub(super) memlock: Option<u64>,
    /// Its hard limit of the stack in bytes; `None` is unlimited.
    pub(super) stack: Option<u64>,
    /// Its mapped files, in the text of /proc/PID/maps.
    maps: String,
}

/// All processes of root that run a program of one of these names.
pub(super) fn of_names(names: &[&str]) -> Vec<Daemon> {
    let daemon = |pid: i32| {
        let process = Process::find(pid).ok()?;
        let text = |file: &str| Some(String::from_utf8_lossy(&process.read(file).ok()?).into_owned());
        // Only root's processes count: a user can give a program any name.
        let arguments = process.arguments_of_root().ok()??;
        let name = name(names, text("comm")?.trim(), &String::from_utf8_lossy(&arguments))?;
        if !process.is_alive() {
            return None;
        }
        let maps = text("maps").unwrap_or_default();
        Some(Daemon { pid, ..parse(name.to_owned(), &text("status")?, &text("limits")?, maps) })
    };
    process::all().into_iter().flatten().filter_map(daemon).collect()
}

/// The name by which it was started: Debian's slurmd binary is slurmd-wlm, but it is started as `slurmd`.
fn name<'a>(names: &[&'a str], comm: &str, command_line: &str) -> Option<&'a str> {
    let called = command_line.split('\0').next()?.rsplit('/').next()?;
    names.iter().copied().find(|name| *name == comm || *name == called)
}

fn parse(name: String, status: &str, limits: &str, maps: String) -> Daemon {
    /// CAP_SYS_RESOURCE of linux/capability.h.
    const SYS_RESOURCE: u32 = 24;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or_default();
    let hard = |what: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(what))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    Daemon {
        name,
        pid: 0,
        may_raise_limits: effective >> SYS_RESOURCE & 1 == 1,
        memlock: hard("Max locked memory"),
        stack: hard("Max stack size"),
        maps,
    }
}

/// Which build of the plugin a slurmd has loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loaded {
    /// The installed file.
    Current,
    /// A file that has been replaced since.
    Older,
    /// No file of the plugin.
    None,
}

impl Daemon {
    pub(super) fn has_loaded(&self, plugin: &Path) -> Loaded {
        let plugin = plugin.to_string_lossy();
        let mut lines = self.maps.lines().filter_map(|line| line.split_once('/')).map(|(_, path)| path);
        let rest = lines.find_map(|path| format!("/{path}").strip_prefix(&*plugin).map(str::to_owned));
        match rest.as_deref() {
            Some("") => Loaded::Current,
            Some(_) => Loaded::Older,
            None => Loaded::None,
        }
    }

    #[cfg(test)]
    pub(super) fn example(name: &str, may_raise_limits: bool, memlock: Option<u64>, maps: &str) -> Self {
        Self { name: name.into(), pid: 0, may_raise_limits, memlock, stack: None, maps: maps.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_is_read_from_what_the_kernel_writes() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
            Max stack size            8388608              unlimited            bytes     \n\
            Max locked memory         65536                8388608              bytes     \n";
        let daemon =
            parse("dockerd".into(), "Name:\tdockerd\nCapEff:\t0000003ffefeffff\n", limits, String::new());
        assert_eq!(daemon, Daemon::example("dockerd", false, Some(8_388_608), ""));
        assert!(parse(String::new(), "CapEff:\t000001ffffffffff\n", "", String::new()).may_raise_limits);
    }

    #[test]
    fn a_plugin_that_was_replaced_is_not_the_one_that_is_loaded() {
        let loaded = |path: &str| {
            let maps =
                format!("7f00-7f01 r-xp 00000000 00:1a 5 /usr/lib/x.so\n7f02-7f03 r-xp 0 00:1a 6   {path}\n");
            Daemon::example("slurmd", true, None, &maps).has_loaded(Path::new("/usr/lib/spank_docker.so"))
        };
        assert_eq!(loaded("/usr/lib/spank_docker.so"), Loaded::Current);
        assert_eq!(loaded("/usr/lib/spank_docker.so (deleted)"), Loaded::Older);
        assert_eq!(loaded("/opt/usr/lib/spank_docker.so"), Loaded::None);
    }

    #[test]
    fn daemon_is_found_by_its_program_or_its_command_name() {
        let names = ["slurmd", "containerd"];
        assert_eq!(name(&names, "slurmd-wlm", "/usr/sbin/slurmd\0-D\0"), Some("slurmd"));
        assert_eq!(name(&names, "containerd", "containerd\0--config\0"), Some("containerd"));
        assert_eq!(name(&names, "containerd-shim", "/usr/bin/containerd-shim-runc-v2\0"), None);
        assert_eq!(name(&names, "slurmstepd", "slurmstepd: [12.batch]\0"), None);
    }

    #[test]
    fn this_process_is_found_by_its_name() {
        let own = std::fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!(of_names(&[own.trim()]).is_empty(), !nix::unistd::getuid().is_root());
        assert!(of_names(&["no such daemon"]).is_empty());
    }
}

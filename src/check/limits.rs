//! Compares the configured limits of locked memory and of the stack with what the daemons that set them may
//! set: the engine for containers, slurmd for tasks.

use super::finding::Finding;
use super::processes::{self, Daemon};
use crate::settings::plugstack::{Config, Limit};

/// The daemons that start containers (dockerd leaves that to containerd), and the one that starts tasks.
const DAEMONS: [&str; 4] = ["dockerd", "containerd", "podman", "slurmd"];

pub(super) fn check(config: &Config) -> Vec<Finding> {
    let daemons = processes::of_names(&DAEMONS);
    let memlock: fn(&Daemon) -> Option<u64> = |daemon| daemon.memlock;
    let stack: fn(&Daemon) -> Option<u64> = |daemon| daemon.stack;
    vec![judge("memlock", config.memlock, &daemons, memlock), judge("stack", config.stack, &daemons, stack)]
}

fn judge(
    name: &'static str,
    wanted: Limit,
    daemons: &[Daemon],
    hard: impl Fn(&Daemon) -> Option<u64>,
) -> Finding {
    let bytes = |limit: Option<u64>| limit.map_or("unlimited".to_owned(), |bytes| format!("{bytes} bytes"));
    if daemons.is_empty() {
        return Finding::warn(
            name,
            "neither slurmd nor dockerd, containerd or podman is running: start them",
        );
    }
    // With `inherit`, the engine must be able to set slurmd's limit too.
    let (prefix, wanted) = match wanted {
        Limit::Inherit => match daemons.iter().find(|daemon| daemon.name == "slurmd") {
            Some(slurmd) => ("inherit: ", hard(slurmd)),
            None => return Finding::warn(name, "inherit, but slurmd is not running: start it"),
        },
        Limit::Unlimited => ("", None),
        Limit::Bytes(bytes) => ("", Some(bytes)),
    };
    let refuses = |daemon: &&Daemon| {
        let limit = hard(daemon).unwrap_or(u64::MAX);
        !daemon.may_raise_limits && wanted.unwrap_or(u64::MAX) > limit
    };
    match daemons.iter().filter(refuses).min_by_key(|daemon| hard(daemon)) {
        None => Finding::ok(name, format!("{prefix}{}", bytes(wanted))),
        Some(daemon) => Finding::fail(
            name,
            format!(
                "{prefix}{} cannot be set: {} itself has {} and no CAP_SYS_RESOURCE; raise its limit, or set {name} to no more",
                bytes(wanted),
                daemon.name,
                bytes(hard(daemon))
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_what_the_daemons_may_set() {
        let judged =
            |wanted, daemons: &[Daemon]| judge("memlock", wanted, daemons, |d| d.memlock).to_string();
        let strong = Daemon::example("dockerd", true, Some(8192), "");
        let weak = Daemon::example("slurmd", false, Some(65536), "");
        assert_eq!(judged(Limit::Unlimited, std::slice::from_ref(&strong)), "ok   memlock: unlimited");
        assert_eq!(
            judged(Limit::Unlimited, &[strong.clone(), weak.clone()]),
            "fail memlock: unlimited cannot be set: slurmd itself has 65536 bytes and no CAP_SYS_RESOURCE; raise its limit, or set memlock to no more"
        );
        assert_eq!(judged(Limit::Bytes(65536), &[strong.clone(), weak.clone()]), "ok   memlock: 65536 bytes");
        assert!(judged(Limit::Bytes(65537), &[strong.clone(), weak.clone()]).starts_with("fail"));
        assert_eq!(judged(Limit::Inherit, &[weak.clone(), strong]), "ok   memlock: inherit: 65536 bytes");
        let lowest = Daemon::example("containerd", false, Some(8192), "");
        assert_eq!(
            judged(Limit::Inherit, &[weak, lowest.clone()]),
            "fail memlock: inherit: 65536 bytes cannot be set: containerd itself has 8192 bytes and no CAP_SYS_RESOURCE; raise its limit, or set memlock to no more"
        );
        assert_eq!(
            judged(Limit::Inherit, &[lowest]),
            "warn memlock: inherit, but slurmd is not running: start it"
        );
        assert_eq!(
            judged(Limit::Unlimited, &[]),
            "warn memlock: neither slurmd nor dockerd, containerd or podman is running: start them"
        );
    }
}

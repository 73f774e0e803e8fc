//! The engine: running, new enough, running as root, and not accessible to users.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::unistd::{Gid, Group};

use super::finding::Finding;
use super::holes::Release;
use super::{engine_data, engine_memory, storage_size};
use crate::engine::{Engine, EngineError, EngineInfo};
use crate::linux::runtime::runtime;
use crate::log::escape::Escaped;

/// The API of Docker Engine 20.10, the first release with cgroup v2 and with a choice of cgroup namespaces.
const OLDEST: (u32, u32) = (1, 41);

/// Checks the engine, which is to limit what containers write, if a limit is configured. Returns also the releases of its
/// components.
pub(super) fn check(socket: &Path, storage_size: Option<u64>) -> (Vec<Finding>, Vec<Release>) {
    let facts = match ask(socket) {
        Ok(facts) => facts,
        Err(error) => return (std::iter::once(broken(&error)).chain(reach(socket)).collect(), Vec::new()),
    };
    let mut findings = vec![judge(&facts), rights(&facts), cgroups(&facts), restart(&facts)];
    findings.extend(reach(socket));
    if facts.is_docker() {
        findings.push(engine_memory::check());
    }
    match &facts.root {
        Some(root) => {
            findings.extend(engine_data::check(root));
            findings.extend(storage_size.map(|_| storage_size::check(root)));
        }
        None => findings.push(Finding::warn(
            "engine_data",
            "the engine does not report its data directory: make sure that users cannot enter it",
        )),
    }
    let releases = facts.components.into_iter().map(|(of, version)| Release::new(&of, &version).packaged());
    (findings, releases.collect())
}

fn ask(socket: &Path) -> Result<EngineInfo, EngineError> {
    // The event loop needs only a descriptor: where there is none left, a connection would fail with the same
    // error.
    let down = |source| EngineError::Down { socket: socket.to_owned(), source };
    let runtime = runtime().map_err(down)?;
    runtime.block_on(async { Engine::connect(socket).await?.facts().await })
}

fn broken(error: &EngineError) -> Finding {
    let remedy = match error {
        EngineError::Absent { .. } => "install it, or correct docker_host=",
        // It says so itself.
        EngineError::NotSocket { .. } => return Finding::fail("engine", error.to_string()),
        EngineError::Down { .. } | EngineError::Gone { .. } => "start it",
        EngineError::Silent { .. }
        | EngineError::Stuck { .. }
        | EngineError::Unintelligible { .. }
        | EngineError::Broken { .. }
        | EngineError::Back { .. }
        | EngineError::NotRemoved { .. }
        | EngineError::TooLong { .. }
        | EngineError::Refused { .. } => "check its log, restart it",
    };
    Finding::fail("engine", format!("{error}: {remedy}"))
}

fn judge(facts: &EngineInfo) -> Finding {
    let EngineInfo { name, version, api, .. } = facts;
    let known = Escaped::new(format!("{name} {version}, API {api}"));
    let number =
        |text: &str| text.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    if number(api).is_some_and(|api: (u32, u32)| api >= OLDEST) {
        Finding::ok("engine", known.to_string())
    } else {
        let (major, minor) = OLDEST;
        Finding::fail(
            "engine",
            format!("{known}: too old, use one with API {major}.{minor} (Docker Engine 20.10) or later"),
        )
    }
}

fn rights(facts: &EngineInfo) -> Finding {
    const NAME: &str = "engine_rights";
    match facts {
        EngineInfo { is_rootless: true, .. } => Finding::fail(
            NAME,
            "rootless, cannot start containers for users: use an engine that runs as root",
        ),
        EngineInfo { remaps_users: true, .. } => {
            Finding::ok(NAME, "root; userns-remap is on, containers of jobs are excluded from it")
        }
        _ => Finding::ok(NAME, "root"),
    }
}

fn cgroups(facts: &EngineInfo) -> Finding {
    let (driver, version) = &facts.cgroups;
    Finding::ok("engine_cgroups", Escaped::new(format!("version {version}, driver {driver}")).to_string())
}

fn restart(facts: &EngineInfo) -> Finding {
    let text = if facts.keeps_containers {
        "containers survive its restart (live-restore)"
    } else {
        "its restart kills the containers of running jobs unless live-restore is set"
    };
    Finding::ok("engine_restart", text)
}

/// A user who can talk to a rootful engine is root.
fn reach(socket: &Path) -> Option<Finding> {
    let metadata = std::fs::metadata(socket).ok().filter(|found| found.file_type().is_socket())?;
    let group = Group::from_gid(Gid::from_raw(metadata.gid())).ok().flatten();
    let members = group.as_ref().map(|group| group.mem.clone()).unwrap_or_default();
    let members: Vec<_> = members.into_iter().filter(|member| member != "root").collect();
    let group = group.map_or(metadata.gid().to_string(), |group| group.name);
    Some(judge_reach(socket, metadata.uid(), metadata.mode(), &group, &members))
}

fn judge_reach(socket: &Path, owner: u32, mode: u32, group: &str, members: &[String]) -> Finding {
    const NAME: &str = "engine_socket";
    let shown = Escaped::from(socket);
    if owner != 0 || mode & 0o002 != 0 {
        let text = format!(
            "'{shown}' is accessible to non-root users, and access to it is root access: chown root and chmod 0660"
        );
        return Finding::fail(NAME, text);
    }
    if mode & 0o020 != 0 && !members.is_empty() {
        let members = Escaped::new(members.join(", "));
        let text = format!(
            "'{shown}' is accessible to group '{group}' with {members}, and access to it is root access: remove members who should not have it"
        );
        return Finding::warn(NAME, text);
    }
    Finding::ok(NAME, format!("'{shown}' is accessible to root only"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> EngineInfo {
        EngineInfo {
            name: "Docker Engine".into(),
            version: "20.10.24".into(),
            api: "1.41".into(),
            cgroups: ("systemd".into(), "2".into()),
            is_rootless: false,
            remaps_users: false,
            keeps_containers: false,
            root: None,
            components: Vec::new(),
        }
    }

    #[test]
    fn old_or_rootless_engine_is_reported() {
        assert_eq!(judge(&facts()).to_string(), "ok   engine: Docker Engine 20.10.24, API 1.41");
        assert!(judge(&EngineInfo { api: "1.100".into(), ..facts() }).to_string().starts_with("ok"));
        for api in ["1.40", "", "1", "x.y"] {
            let line = format!(
                "fail engine: Docker Engine 20.10.24, API {api}: too old, use one with API 1.41 (Docker Engine 20.10) or later"
            );
            assert_eq!(judge(&EngineInfo { api: api.into(), ..facts() }).to_string(), line);
        }
        assert_eq!(
            rights(&EngineInfo { is_rootless: true, ..facts() }).to_string(),
            "fail engine_rights: rootless, cannot start containers for users: use an engine that runs as root"
        );
        assert_eq!(
            rights(&EngineInfo { remaps_users: true, ..facts() }).to_string(),
            "ok   engine_rights: root; userns-remap is on, containers of jobs are excluded from it"
        );
        assert_eq!(cgroups(&facts()).to_string(), "ok   engine_cgroups: version 2, driver systemd");
    }

    #[test]
    fn broken_engine_is_reported_with_a_remedy() {
        let absent = EngineError::Absent { socket: "/run/x".into() };
        assert_eq!(
            broken(&absent).to_string(),
            "fail engine: no Docker Engine on this node: '/run/x' does not exist: install it, or correct docker_host="
        );
        let (found, _) = check(Path::new("/proc/version"), None);
        assert_eq!(
            found.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "fail engine: docker_host: '/proc/version' is not a socket of an engine: ask the admin to correct it"
            ]
        );
        let down = EngineError::Down { socket: "/run/x".into(), source: std::io::Error::other("") };
        assert_eq!(broken(&down).to_string(), "fail engine: Docker Engine at '/run/x' is down: start it");
    }

    #[test]
    fn a_socket_is_roots_alone() {
        let judged = |owner, mode, members: &[&str]| {
            let members: Vec<_> = members.iter().map(|member| (*member).to_owned()).collect();
            judge_reach(Path::new("/run/x"), owner, mode, "docker", &members).to_string()
        };
        assert_eq!(judged(0, 0o660, &[]), "ok   engine_socket: '/run/x' is accessible to root only");
        assert_eq!(judged(0, 0o600, &["alice"]), "ok   engine_socket: '/run/x' is accessible to root only");
        assert_eq!(
            judged(0, 0o660, &["alice", "bob"]),
            "warn engine_socket: '/run/x' is accessible to group 'docker' with alice, bob, and access to it is root access: remove members who should not have it"
        );
        let open = "fail engine_socket: '/run/x' is accessible to non-root users, and access to it is root access: chown root and chmod 0660";
        assert_eq!(judged(0, 0o666, &[]), open);
        assert_eq!(judged(1000, 0o600, &[]), open);
    }
}

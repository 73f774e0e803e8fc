//! The facts that an engine reports about itself.
//!
//! Used by `spank-docker check`, as root.

use std::path::PathBuf;

use bollard::models::{SystemInfo, SystemVersion, SystemVersionComponents};

use super::connection::{Engine, EngineError, VERSION};
use super::name::{DOCKER, name};

/// The facts that matter to the plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineInfo {
    /// The engine's name: `Docker Engine`, or another.
    pub name: String,
    /// Its release.
    pub version: String,
    /// The newest API version that it supports.
    pub api: String,
    /// Its cgroup driver and cgroup version.
    pub cgroups: (String, String),
    /// Whether it runs without root's rights.
    pub is_rootless: bool,
    /// Whether it maps users of containers to others.
    pub remaps_users: bool,
    /// Whether containers keep running when the engine restarts (live-restore).
    pub keeps_containers: bool,
    /// Its data directory, if it reports one.
    pub root: Option<PathBuf>,
    /// The names and releases of its components: itself, containerd, runc.
    pub components: Vec<(String, String)>,
}

impl EngineInfo {
    /// Whether it is Docker's own, not another with the same API.
    #[must_use]
    pub fn is_docker(&self) -> bool {
        self.name == DOCKER
    }
}

impl Engine {
    /// Requests from the engine the facts for a check of the node.
    pub async fn facts(&self) -> Result<EngineInfo, EngineError> {
        let version = self.call(VERSION, self.docker.version()).await?;
        let info = self.call("report its settings", self.docker.info()).await?;
        Ok(facts(version, info))
    }
}

fn facts(version: SystemVersion, info: SystemInfo) -> EngineInfo {
    let name = name(&version);
    let has = |name: &str| {
        let option = format!("name={name}");
        info.security_options.iter().flatten().any(|one| one.split(',').any(|part| part == option))
    };
    let root = info.docker_root_dir.filter(|root| root.starts_with('/')).map(PathBuf::from);
    let components = version.components.into_iter().flatten();
    let component = |component: SystemVersionComponents| match component.name.as_str() {
        "Engine" => (DOCKER.to_owned(), component.version),
        _ => (component.name, component.version),
    };
    EngineInfo {
        name,
        root,
        components: components.map(component).collect(),
        version: version.version.unwrap_or_default(),
        api: version.api_version.unwrap_or_default(),
        cgroups: (
            info.cgroup_driver.map(|driver| driver.to_string()).unwrap_or_default(),
            info.cgroup_version.map(|version| version.to_string()).unwrap_or_default(),
        ),
        is_rootless: has("rootless"),
        remaps_users: has("userns"),
        keeps_containers: info.live_restore_enabled.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_options_are_read_as_the_engine_writes_them() {
        let info = |options: &[&str]| SystemInfo {
            security_options: Some(options.iter().map(|option| (*option).to_owned()).collect()),
            ..Default::default()
        };
        let found = facts(SystemVersion::default(), info(&["name=seccomp,profile=default", "name=userns"]));
        assert!(found.remaps_users && !found.is_rootless);
        assert!(facts(SystemVersion::default(), info(&["name=rootless"])).is_rootless);
        assert_eq!(found.name, "Docker Engine");
    }
}

//! The specification of a container, and the engine's request that is made of it. Apart because everything that decides about the
//! rights of a container is here.
//!
//! Pure; used by root where a container is started.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use bollard::models::{
    ContainerCreateBody, DeviceMapping, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum,
    HostConfigLogConfig, Mount, MountBindOptions, MountBindOptionsPropagationEnum, MountType,
    MountVolumeOptions, MountVolumeOptionsDriverConfig, ResourcesUlimits,
};

use super::cdi::GpuRequest;

/// A directory of the host in a container, read-only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// On the host: always one of the plugin's paths, never one that a user can redirect.
    pub source: PathBuf,
    /// In the container.
    pub target: PathBuf,
}

/// A resource limit; `None` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ulimit {
    /// As setrlimit(2) names it, lower case, without `RLIMIT_`.
    pub name: &'static str,
    /// The current limit.
    pub soft: Option<u64>,
    /// The maximum that a process may raise it to.
    pub hard: Option<u64>,
}

/// The values that differ between containers. [`body`] sets everything that is the same for all.
#[derive(Clone, Debug)]
pub struct ContainerSpec {
    /// `docker_<jobid>`.
    pub name: String,
    /// `sha256:…`.
    pub image_id: String,
    /// The first process' program and its arguments.
    pub command: Vec<String>,
    /// Its working directory.
    pub directory: PathBuf,
    /// The uid of the job's user.
    pub uid: u32,
    /// The user's primary group.
    pub gid: u32,
    /// All of the user's groups.
    pub groups: Vec<u32>,
    /// Host name inside.
    pub hostname: String,
    /// The plugin's labels.
    pub labels: Vec<(&'static str, String)>,
    /// Names of the image's labels, which the container would inherit. No engine can leave them out, so the
    /// plugin sets them to empty values: programs on the host act on labels (Podman's auto-update restarts the
    /// systemd unit that one names).
    pub labels_of_image: Vec<String>,
    /// Directories of the host to mount.
    pub binds: Vec<Bind>,
    /// Device nodes to create.
    pub devices: Vec<PathBuf>,
    /// Other devices that processes may open, in the notation of cgroups' devices.allow.
    pub device_rules: Vec<String>,
    /// The GPUs to request.
    pub gpus: Option<GpuRequest>,
    /// The environment of the first process, and of the runtime and its hooks.
    pub variables: Vec<(&'static str, String)>,
    /// Variables of the image that they must not get.
    pub hidden: Vec<String>,
    /// Limits of the first process and of all that sshd starts.
    pub ulimits: Vec<Ulimit>,
    /// Entries of its /etc/hosts besides the node's.
    pub hosts: Vec<(String, IpAddr)>,
    /// Size of /dev/shm in bytes.
    pub shm_size: u64,
    /// What it may write to its own file system and to each of its volumes, in bytes; `None` for no limit.
    pub storage_size: Option<u64>,
    /// The volumes that the image declares.
    pub volumes: Vec<String>,
    /// The score by which the kernel chooses processes to kill when memory runs out (`oom_score_adj`), where it
    /// is not the default.
    pub oom_score: Option<u16>,
    /// Limit of the engine's cgroup on memory, in bytes.
    pub memory: u64,
    /// Limit of the engine's cgroup on processes and threads.
    pub processes: i64,
}

/// How an engine hides a variable of the image from the container.
#[derive(Clone, Copy, Debug)]
pub(super) enum Hiding {
    /// Docker compares names with the image's, and drops an entry without a value (moby, `ReplaceOrAppendEnvValues`).
    Removal,
    /// For a name without `=`, Podman takes the value from its own environment, or the image's (`envLib.ParseSlice`): so the
    /// value is empty.
    EmptyValue,
}

impl Hiding {
    /// The entry of the request that hides the variable `name`.
    fn entry(self, name: &str) -> String {
        match self {
            Self::Removal => name.to_owned(),
            Self::EmptyValue => format!("{name}="),
        }
    }
}

/// The image's variables are for the user's processes, which get them from the plugin. The runtime and its
/// hooks, which run as root, act on the container's: a library to load, the GPUs to pass in.
fn environment(set: &[(&str, String)], hidden: &[String], hiding: Hiding) -> Vec<String> {
    let own = |name: &String| set.iter().any(|(own, _)| own == name);
    // A variable without a name cannot be hidden: no engine accepts it, and no program can look it up.
    let hidden = hidden.iter().filter(|name| !name.is_empty() && !own(name)).map(|name| hiding.entry(name));
    set.iter().map(|(name, value)| format!("{name}={value}")).chain(hidden).collect()
}

/// The request that creates a container.
pub(super) fn body(spec: &ContainerSpec, hiding: Hiding) -> ContainerCreateBody {
    let emptied = spec.labels_of_image.iter().map(|name| (name.clone(), String::new()));
    let own = spec.labels.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    ContainerCreateBody {
        image: Some(spec.image_id.clone()),
        // Both set, so that the image's own ENTRYPOINT and CMD do not run.
        entrypoint: Some(spec.command.clone()),
        cmd: Some(Vec::new()),
        user: Some(format!("{}:{}", spec.uid, spec.gid)),
        working_dir: Some(spec.directory.to_string_lossy().into_owned()),
        hostname: Some(spec.hostname.clone()),
        labels: Some(emptied.chain(own).collect()),
        env: Some(environment(&spec.variables, &spec.hidden, hiding)),
        // A health check of the image would run its programs periodically.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..Default::default() }),
        host_config: Some(host_config(spec)),
        ..Default::default()
    }
}

fn host_config(spec: &ContainerSpec) -> HostConfig {
    HostConfig {
        network_mode: Some("host".to_owned()),
        // The engine's init would be the first process instead of the plugin's.
        init: Some(false),
        // A task cannot join another PID namespace (only its children would be in it): so all processes use the
        // host's.
        pid_mode: Some("host".to_owned()),
        ipc_mode: Some("private".to_owned()),
        // Has an effect only where the engine remaps users; there, ids and the host's namespaces would not
        // match.
        userns_mode: Some("host".to_owned()),
        // The plugin moves the processes into Slurm's cgroups: a namespace rooted at the engine's would show wrong paths.
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::HOST),
        group_add: Some(spec.groups.iter().map(u32::to_string).collect()),
        cap_drop: Some(vec!["ALL".to_owned()]),
        // The user may do in a container what the same user may do on the host, in ranks started over ssh as in
        // joined tasks: a seccomp filter would break NUMA binding and cross-memory attach of MPI libraries.
        security_opt: Some(vec![
            "no-new-privileges:true".to_owned(),
            "seccomp=unconfined".to_owned(),
            "apparmor=unconfined".to_owned(),
        ]),
        devices: Some(spec.devices.iter().map(|path| device(path)).collect()),
        device_requests: spec.gpus.as_ref().map(|gpus| vec![gpus.to_api()]),
        ulimits: Some(spec.ulimits.iter().map(ulimit).collect()),
        extra_hosts: Some(spec.hosts.iter().map(|(name, at)| format!("{name}:{at}")).collect()),
        shm_size: i64::try_from(spec.shm_size).ok(),
        storage_opt: spec.storage_size.map(|size| [("size".to_owned(), size.to_string())].into()),
        oom_score_adj: spec.oom_score.map(i64::from),
        memory: i64::try_from(spec.memory).ok(),
        // The same value: no swap in addition.
        memory_swap: i64::try_from(spec.memory).ok(),
        pids_limit: Some(spec.processes),
        mounts: Some(spec.binds.iter().map(bind).chain(limited_volumes(spec)).collect()),
        device_cgroup_rules: Some(spec.device_rules.clone()),
        // The plugin needs to read the container's output, which must not fill a disk, whatever the engine's
        // default log driver is.
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(
                [("max-size", "1m"), ("max-file", "1")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            ),
        }),
        ..Default::default()
    }
}

fn device(path: &Path) -> DeviceMapping {
    let path = path.to_string_lossy().into_owned();
    DeviceMapping {
        path_on_host: Some(path.clone()),
        path_in_container: Some(path),
        cgroup_permissions: Some("rw".to_owned()),
    }
}

fn ulimit(limit: &Ulimit) -> ResourcesUlimits {
    const UNLIMITED: i64 = -1;
    let value = |limit: Option<u64>| limit.map_or(UNLIMITED, |value| value.try_into().unwrap_or(UNLIMITED));
    ResourcesUlimits {
        name: Some(limit.name.to_owned()),
        soft: Some(value(limit.soft)),
        hard: Some(value(limit.hard)),
    }
}

/// Uses `Mounts` instead of `Binds`: for an entry of `Binds` the engine creates a missing source.
fn bind(bind: &Bind) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(bind.source.to_string_lossy().into_owned()),
        target: Some(bind.target.to_string_lossy().into_owned()),
        read_only: Some(true),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The volumes that the image declares, where they are limited: the limit of the container's own file system does not hold in
/// them. They are anonymous, like those that the engine makes by itself.
fn limited_volumes(spec: &ContainerSpec) -> impl Iterator<Item = Mount> {
    let volumes =
        spec.storage_size.into_iter().flat_map(|size| spec.volumes.iter().map(move |at| (at, size)));
    volumes.map(|(at, size)| {
        let driver = MountVolumeOptionsDriverConfig {
            name: Some("local".to_owned()),
            options: Some([("size".to_owned(), size.to_string())].into()),
        };
        Mount {
            typ: Some(MountType::VOLUME),
            // An engine takes a VOLUME without a slash from the container's root, and in a request refuses it.
            target: Some(Path::new("/").join(at).to_string_lossy().into_owned()),
            volume_options: Some(MountVolumeOptions { driver_config: Some(driver), ..Default::default() }),
            ..Default::default()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_an_image_are_kept_from_the_engine() {
        let set = [("PATH", "/bin".to_owned())];
        let hidden = ["PATH", "LD_PRELOAD", ""].map(str::to_owned);
        assert_eq!(environment(&set, &hidden, Hiding::Removal), ["PATH=/bin", "LD_PRELOAD"]);
        assert_eq!(environment(&set, &hidden, Hiding::EmptyValue), ["PATH=/bin", "LD_PRELOAD="]);
    }

    #[test]
    fn limit_of_a_container_holds_for_each_of_its_volumes() {
        let mut spec =
            ContainerSpec { storage_size: None, volumes: vec!["/data".into(), "cache".into()], ..empty() };
        assert!(limited_volumes(&spec).next().is_none() && host_config(&spec).storage_opt.is_none());
        spec.storage_size = Some(1 << 20);
        let targets: Vec<_> = limited_volumes(&spec).filter_map(|mount| mount.target).collect();
        assert_eq!(targets, ["/data", "/cache"]);
        assert_eq!(host_config(&spec).storage_opt.unwrap()["size"], "1048576");
    }

    fn empty() -> ContainerSpec {
        ContainerSpec {
            name: String::new(),
            image_id: String::new(),
            command: Vec::new(),
            directory: PathBuf::new(),
            uid: 1,
            gid: 1,
            groups: Vec::new(),
            hostname: String::new(),
            labels: Vec::new(),
            labels_of_image: Vec::new(),
            binds: Vec::new(),
            devices: Vec::new(),
            device_rules: Vec::new(),
            gpus: None,
            variables: Vec::new(),
            hidden: Vec::new(),
            ulimits: Vec::new(),
            hosts: Vec::new(),
            shm_size: 0,
            storage_size: None,
            volumes: Vec::new(),
            oom_score: None,
            memory: 0,
            processes: 0,
        }
    }
}

//! Containers: their specification for the engine, and the few operations on them.
//!
//! Runs as root: in the prolog, the epilog and a starting slurmd; for a step's own container in its task and its slurmstepd.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use bollard::container::LogOutput;
use bollard::models::{
    ContainerCreateBody, ContainerSummaryStateEnum as State, DeviceMapping, HealthConfig, HostConfig,
    HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount, MountBindOptions,
    MountBindOptionsPropagationEnum, MountType, ResourcesUlimits,
};
use bollard::query_parameters::{
    ContainerArchiveInfoOptions, CreateContainerOptions, DownloadFromContainerOptions,
    InspectContainerOptions, ListContainersOptions, LogsOptions, StartContainerOptions,
};
use futures_util::StreamExt;

use super::cdi::GpuRequest;
use super::connection::{Engine, EngineError, last_output_line};
use super::facts::DOCKER;
use super::shim;
use crate::linux::poll;

/// How much of an archive is read to find a link: its header, and another one before that for a long name.
const HEAD: usize = 16 << 10;
/// How long the engine may take to notice that a container has ended.
const ENDING: Duration = Duration::from_secs(5);

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

/// The values that differ between containers. `create` sets everything that is the same for all.
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
    /// Of the job's user.
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
    /// The score by which the kernel chooses processes to kill when memory runs out (`oom_score_adj`), where it
    /// is not the default.
    pub oom_score: Option<u16>,
    /// Limit of the engine's cgroup on memory, in bytes.
    pub memory: u64,
    /// Limit of the engine's cgroup on processes and threads.
    pub processes: i64,
}

/// A container that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
}

/// The type of the file at a path in a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileType {
    /// A regular file.
    File {
        /// In bytes.
        size: u64,
    },
    /// A symbolic link.
    Link,
    /// A directory.
    Directory,
    /// A FIFO, device …
    Other,
}

impl FileType {
    /// Decodes a mode of Go's os.FileMode.
    fn new(mode: u32, size: i64) -> Self {
        const LINK: u32 = 1 << 27;
        const DIRECTORY: u32 = 1 << 31;
        // The bits for device, FIFO, socket, character device and irregular file.
        const OTHER: u32 = 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19;
        match mode {
            mode if mode & LINK != 0 => Self::Link,
            mode if mode & DIRECTORY != 0 => Self::Directory,
            mode if mode & OTHER != 0 => Self::Other,
            _ => Self::File { size: size.try_into().unwrap_or_default() },
        }
    }
}

/// A container as the engine lists it.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The container.
    pub container: Container,
    /// Its names, without the leading slash.
    pub names: Vec<String>,
    /// Its labels.
    pub labels: HashMap<String, String>,
    /// Whether one of its processes may run, or is about to start; true if that is not certain.
    pub is_live: bool,
    /// How long ago it was created, by this machine's clock.
    pub age: Option<Duration>,
}

impl Engine {
    /// Creates a container; no process starts yet. The engine copies the image's content of volumes into them,
    /// which takes time if that is large.
    pub async fn create(&self, spec: &ContainerSpec) -> Result<Container, EngineError> {
        let options = CreateContainerOptions { name: Some(spec.name.clone()), platform: String::new() };
        let hide = if self.name().await? == DOCKER { remove } else { empty };
        let request = self.docker.create_container(Some(options), body(spec, hide));
        Ok(Container { id: self.patient_call("create the container", request).await?.id })
    }

    /// The type of the file at a path in a container, which the engine resolves before the start; `None` where
    /// there is no file. The engine follows links on the way, but not a link at the end.
    pub async fn kind(&self, container: &Container, path: &str) -> Result<Option<FileType>, EngineError> {
        let options = ContainerArchiveInfoOptions { path: path.to_owned() };
        let request = self.docker.get_container_archive_info(&container.id, Some(options));
        match self.call("inspect a path in the container", request).await {
            Ok(found) => Ok(Some(FileType::new(found.file_mode, found.size))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The target of a link in a container, as stored in the image: reads only the head of the archive that the
    /// engine makes of the link. `None` where the engine sends something other than a link.
    pub async fn link(&self, container: &Container, path: &str) -> Result<Option<Vec<u8>>, EngineError> {
        let options = DownloadFromContainerOptions { path: path.to_owned() };
        let mut stream = self.docker.download_from_container(&container.id, Some(options));
        let read = async {
            let mut head = Vec::new();
            while let Some(chunk) = stream.next().await.transpose()? {
                head.extend(chunk.iter().take(HEAD - head.len()));
                if head.len() == HEAD {
                    break;
                }
            }
            Ok(head)
        };
        let head = self.call("inspect a path in the container", read).await?;
        Ok(target_of_link(&head))
    }

    /// Starts it, and returns the pid of its first process.
    pub async fn start(&self, container: &Container) -> Result<Option<i32>, EngineError> {
        let request = self.docker.start_container(&container.id, None::<StartContainerOptions>);
        let started = self.call("start the container", request).await;
        if let Err(EngineError::Refused { .. }) = started {
            // Even if this fails, the caller gets the refusal.
            let _ = shim::end(&container.id);
        }
        started?;
        self.first_process(container).await
    }

    /// The pid of its first process, if it runs.
    pub async fn first_process(&self, container: &Container) -> Result<Option<i32>, EngineError> {
        let request = || self.docker.inspect_container(&container.id, None::<InspectContainerOptions>);
        let inspected = self.call_for_states("inspect the container", request).await?;
        let state = inspected.state.unwrap_or_default();
        let pid = state.pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0);
        Ok(pid.filter(|_| state.running == Some(true)))
    }

    /// The last line of output of a container whose first process has ended, shortened; a line of standard
    /// error, if there is one. It tells why sshd ended.
    pub async fn last_output_line(&self, container: &Container) -> Result<Option<String>, EngineError> {
        // The output is complete when the engine itself reports that the container has ended, which it notices
        // later than the plugin does.
        const INTERVAL: Duration = Duration::from_millis(20);
        let first_process = async || self.first_process(container).await;
        let has_ended = |found: &Result<_, _>| !matches!(found, Ok(Some(_)));
        poll::until_meanwhile(Instant::now() + ENDING, INTERVAL, first_process, has_ended).await?;
        let options = LogsOptions { stdout: true, stderr: true, tail: "5".to_owned(), ..Default::default() };
        let call = "read the container's log";
        let pieces = self.pieces(call)?;
        let mut stream = pieces.docker.logs(&container.id, Some(options));
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        while let Some(chunk) = self.call(call, pieces.next(&mut stream)).await? {
            let text = if matches!(chunk, LogOutput::StdErr { .. }) { &mut errors } else { &mut output };
            text.extend_from_slice(&chunk.into_bytes());
        }
        Ok(last_output_line([&errors, &output]))
    }

    /// All containers, running or not, that carry this label (`name` or `name=value`).
    pub async fn labelled(&self, label: &str) -> Result<Vec<Listed>, EngineError> {
        let filters = HashMap::from([("label".to_owned(), vec![label.to_owned()])]);
        let options = ListContainersOptions { all: true, filters: Some(filters), ..Default::default() };
        let request = || self.docker.list_containers(Some(options.clone()));
        let listed = self.call_for_states("list containers", request).await?;
        let ours = listed.into_iter().filter_map(|summary| {
            let names = summary.names.unwrap_or_default();
            Some(Listed {
                container: Container { id: summary.id? },
                names: names.iter().map(|name| name.trim_start_matches('/').to_owned()).collect(),
                labels: summary.labels.unwrap_or_default(),
                is_live: !matches!(summary.state, Some(State::EXITED | State::DEAD)),
                age: summary.created.and_then(age),
            })
        });
        Ok(ours.collect())
    }
}

/// The time since `created`, which is in seconds since 1970. `None` for a time in the future.
fn age(created: i64) -> Option<Duration> {
    let created = UNIX_EPOCH.checked_add(Duration::from_secs(created.try_into().ok()?))?;
    created.elapsed().ok()
}

/// The link target in the first entry of an archive.
fn target_of_link(head: &[u8]) -> Option<Vec<u8>> {
    let mut archive = tar::Archive::new(head);
    let first = archive.entries().ok()?.next()?.ok()?;
    let target = first.header().entry_type().is_symlink().then(|| first.link_name_bytes())?;
    target.map(std::borrow::Cow::into_owned)
}

/// The entry of the request by which an engine hides a variable of the image from the container.
type Hide = fn(&str) -> String;

/// Docker's merge compares names with the image's, and drops an entry without a value (moby, `ReplaceOrAppendEnvValues`).
fn remove(name: &str) -> String {
    name.to_owned()
}

/// For a name without `=`, Podman takes the value from its own environment, or the image's
/// (`envLib.ParseSlice`); so the value is empty.
fn empty(name: &str) -> String {
    format!("{name}=")
}

/// The image's variables are for the user's processes, which get them from the plugin. The runtime and its
/// hooks, which run as root, act on the container's: a library to load, the GPUs to pass in.
fn environment(set: &[(&str, String)], hidden: &[String], hide: Hide) -> Vec<String> {
    let own = |name: &String| set.iter().any(|(own, _)| own == name);
    // A variable without a name cannot be hidden: no engine accepts it, and no program can look it up.
    let hidden = hidden.iter().filter(|name| !name.is_empty() && !own(name)).map(|name| hide(name));
    set.iter().map(|(name, value)| format!("{name}={value}")).chain(hidden).collect()
}

fn body(spec: &ContainerSpec, hide: Hide) -> ContainerCreateBody {
    let emptied = spec.labels_of_image.iter().map(|name| (name.clone(), String::new()));
    let ours = spec.labels.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    ContainerCreateBody {
        image: Some(spec.image_id.clone()),
        // Both set, so that the image's own ENTRYPOINT and CMD do not run.
        entrypoint: Some(spec.command.clone()),
        cmd: Some(Vec::new()),
        user: Some(format!("{}:{}", spec.uid, spec.gid)),
        working_dir: Some(spec.directory.to_string_lossy().into_owned()),
        hostname: Some(spec.hostname.clone()),
        labels: Some(emptied.chain(ours).collect()),
        env: Some(environment(&spec.variables, &spec.hidden, hide)),
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
        oom_score_adj: spec.oom_score.map(i64::from),
        memory: i64::try_from(spec.memory).ok(),
        // The same value: no swap in addition.
        memory_swap: i64::try_from(spec.memory).ok(),
        pids_limit: Some(spec.processes),
        mounts: Some(spec.binds.iter().map(bind).collect()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_an_image_are_kept_from_the_engine() {
        let set = [("PATH", "/bin".to_owned())];
        let hidden = ["PATH", "LD_PRELOAD", ""].map(str::to_owned);
        assert_eq!(environment(&set, &hidden, remove), ["PATH=/bin", "LD_PRELOAD"]);
        assert_eq!(environment(&set, &hidden, empty), ["PATH=/bin", "LD_PRELOAD="]);
    }

    /// Modes from answers of an engine.
    #[test]
    fn file_types_are_decoded_from_go_modes() {
        assert_eq!(FileType::new(420, 7), FileType::File { size: 7 });
        assert_eq!(FileType::new(0o4755 | 1 << 23, -1), FileType::File { size: 0 });
        assert_eq!(FileType::new(2_147_484_141, 7), FileType::Directory);
        assert_eq!(FileType::new(33_554_870, 7), FileType::Other);
        assert_eq!(FileType::new(134_218_239, 7), FileType::Link);
    }

    #[test]
    fn link_is_read_from_the_head_of_an_archive() {
        let link = |target: &str| {
            let mut archive = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            archive.append_link(&mut header, "passwd", target).unwrap();
            archive.into_inner().unwrap()
        };
        let long = format!("/{}", "x/".repeat(500));
        for target in ["/proc/1/root/etc", long.as_str()] {
            assert_eq!(target_of_link(&link(target)).as_deref(), Some(target.as_bytes()));
        }
        let whole = link(&long);
        for cut in [0, 100, 600, 1100] {
            assert_eq!(target_of_link(&whole[..cut]), None, "{cut}");
        }
        let mut file = tar::Header::new_ustar();
        file.set_size(0);
        file.set_cksum();
        assert_eq!(target_of_link(file.as_bytes()), None);
    }
}

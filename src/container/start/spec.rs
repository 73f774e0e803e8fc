//! The specification that the engine gets for a job's container.
//!
//! Runs as root where a container is started: in the prolog, or in the task that starts its step's container.

use std::env;
use std::ffi::OsStr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use super::first_process::StagingDir;
use crate::container::mounts::Prepared;
use crate::container::nodes::JobNodes;
use crate::container::ownership;
use crate::container::request::Request;
use crate::engine::{Bind, ContainerSpec, GpuRequest, Image, Ulimit};
use crate::guest::ssh::server;
use crate::linux::oom;
use crate::linux::source::Device;
use crate::settings::plugstack::{Config, Devices, Limit, ShmSize};
use crate::slurm::conf;
use crate::state::OwnerDir;

/// The specification of the container of `request`, to which `mounts` will be added once it runs.
pub(super) fn spec(
    config: &Config,
    request: &Request,
    image: &Image,
    directory: &OwnerDir,
    entry: &StagingDir,
    (mounts, nodes): (&[Prepared], &JobNodes),
    gpus: Option<GpuRequest>,
) -> ContainerSpec {
    let files = Bind { source: directory.container(), target: entry.directory().into() };
    ContainerSpec {
        name: request.owner.container_name(),
        image_id: image.id.clone(),
        command: std::iter::once(entry.program().to_string_lossy().into_owned())
            .chain(server::ARGUMENTS.map(str::to_owned))
            .collect(),
        directory: entry.directory().into(),
        uid: request.credentials.uid,
        gid: request.credentials.gid,
        groups: request.credentials.groups.clone(),
        hostname: request.host.clone(),
        hosts: nodes.unknown.clone(),
        labels: ownership::labels(config, request),
        labels_of_image: image.labels.clone(),
        binds: vec![files],
        devices: devices(&config.devices),
        variables: variables(image, gpus.as_ref()),
        hidden: image.variables.clone(),
        gpus,
        device_rules: device_rules(mounts, env::var_os("SLURM_CONF").as_deref()),
        ulimits: ulimits(config),
        shm_size: match config.shm_size {
            ShmSize::Half => half_of_memory(),
            ShmSize::Bytes(bytes) => bytes,
        },
        storage_size: config.storage_size,
        volumes: image.volumes.clone(),
        oom_score: oom::score_of_jobs(),
        memory: MEMORY_BEFORE_ADOPTION,
        processes: PROCESSES_BEFORE_ADOPTION,
    }
}

/// How much memory the image's sshd and ENTRYPOINT may use before the job's limits hold for them: memory stays
/// charged to the cgroup in which it was first used, even when the process is moved. With cgroup v1, where
/// Slurm may have no cgroup in this hierarchy, the adoption lifts the limits ([`crate::linux::cgroup`]).
const MEMORY_BEFORE_ADOPTION: u64 = 1 << 30;
const PROCESSES_BEFORE_ADOPTION: i64 = 4096;

/// The variables for the engine, its runtime and their hooks.
pub(super) fn variables(image: &Image, gpus: Option<&GpuRequest>) -> Vec<(&'static str, String)> {
    // Where NVIDIA's runtime is the engine's default, a container without this value could have all GPUs of the
    // node.
    const NO_GPUS: &str = "void";
    // Docker's own default; a PATH of the image is only for the user's processes.
    const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let mut variables = vec![("PATH", PATH.to_owned()), ("NVIDIA_VISIBLE_DEVICES", NO_GPUS.to_owned())];
    if let Some(GpuRequest::Nvidia(_)) = gpus {
        variables.extend(libraries(image).map(|libraries| (LIBRARIES, libraries)));
    }
    variables
}

/// The variable by which an image selects the driver's libraries that NVIDIA's hook puts into a container.
const LIBRARIES: &str = "NVIDIA_DRIVER_CAPABILITIES";

/// The image's selection, of which only the words that the hook defines are passed on.
fn libraries(image: &Image) -> Option<String> {
    const KNOWN: [&str; 8] = ["all", "compat32", "compute", "display", "graphics", "ngx", "utility", "video"];
    let (_, value) = image.environment.iter().rev().find(|(name, _)| name == LIBRARIES)?;
    let words: Vec<&str> = value.split(',').filter(|word| KNOWN.contains(word)).collect();
    (!words.is_empty()).then(|| words.join(","))
}

/// The configured device nodes that exist here; never a directory or a link.
#[must_use]
pub fn devices(configured: &Devices) -> Vec<PathBuf> {
    const AUTO: [&str; 7] = [
        "/dev/infiniband/uverbs*",
        "/dev/infiniband/rdma_cm",
        "/dev/hfi1_*",
        "/dev/cxi*",
        "/dev/knem",
        "/dev/xpmem",
        "/dev/gdrdrv",
    ];
    let patterns: Vec<&str> = match configured {
        Devices::None => Vec::new(),
        Devices::Auto => AUTO.to_vec(),
        Devices::Globs(patterns) => patterns.iter().map(glob::Pattern::as_str).collect(),
    };
    let mut devices: Vec<PathBuf> = patterns
        .into_iter()
        .filter_map(|pattern| glob::glob(pattern).ok())
        .flat_map(|paths| paths.filter_map(Result::ok))
        .filter(|path| is_device(path))
        .collect();
    devices.sort();
    devices.dedup();
    devices
}

fn is_device(path: &Path) -> bool {
    std::fs::symlink_metadata(path)
        .is_ok_and(|metadata| metadata.file_type().is_char_device() || metadata.file_type().is_block_device())
}

/// Until the extern step has adopted the container, and without `ConstrainDevices` also afterwards, the
/// engine's cgroup decides which devices can be opened; owner and mode of the node still apply. Where the job's
/// cgroup will constrain devices, those that the user requests are not allowed before: an ENTRYPOINT runs
/// before, and Slurm may have allocated the device to another job. If that cannot be found out, they are not
/// allowed.
fn device_rules(mounts: &[Prepared], slurm_conf: Option<&OsStr>) -> Vec<String> {
    let devices = || mounts.iter().filter_map(|mount| Some((mount.is_admins(), mount.device()?)));
    let is_constrained = devices().any(|(is_admins, _)| !is_admins)
        && !slurm_conf.is_some_and(|file| conf::constrains_devices(Path::new(file)).is_ok_and(|yes| !yes));
    let passing = devices().filter(|(is_admins, _)| *is_admins || !is_constrained);
    passing.map(|(_, device)| device_rule(device)).collect()
}

fn device_rule(device: Device) -> String {
    let kind = if device.is_block { 'b' } else { 'c' };
    format!("{kind} {}:{} rw", device.major, device.minor)
}

/// The configured limits, and for all others those of Slurm's own processes, which tasks inherit: an engine's
/// are often unlimited.
fn ulimits(config: &Config) -> Vec<Ulimit> {
    // All limits that an engine knows (github.com/docker/go-units, ulimit.go: `ulimitNameMapping`).
    const OF_SLURM: [(&str, Resource); 15] = [
        ("core", Resource::RLIMIT_CORE),
        ("cpu", Resource::RLIMIT_CPU),
        ("data", Resource::RLIMIT_DATA),
        ("fsize", Resource::RLIMIT_FSIZE),
        ("locks", Resource::RLIMIT_LOCKS),
        ("memlock", Resource::RLIMIT_MEMLOCK),
        ("msgqueue", Resource::RLIMIT_MSGQUEUE),
        ("nice", Resource::RLIMIT_NICE),
        ("nofile", Resource::RLIMIT_NOFILE),
        ("nproc", Resource::RLIMIT_NPROC),
        ("rss", Resource::RLIMIT_RSS),
        ("rtprio", Resource::RLIMIT_RTPRIO),
        ("rttime", Resource::RLIMIT_RTTIME),
        ("sigpending", Resource::RLIMIT_SIGPENDING),
        ("stack", Resource::RLIMIT_STACK),
    ];
    let finite = |value| (value != RLIM_INFINITY).then_some(value);
    let limit = |(name, resource)| {
        let (soft, hard) = getrlimit(resource).ok()?;
        let configured = match name {
            "memlock" => config.memlock,
            "stack" => config.stack,
            _ => Limit::Inherit,
        };
        let hard = match configured {
            Limit::Inherit => hard,
            Limit::Unlimited => RLIM_INFINITY,
            Limit::Bytes(bytes) => bytes,
        };
        // As in tasks (`task::join`).
        let is_raised = name == "memlock" && configured != Limit::Inherit;
        let soft = if is_raised { hard } else { soft.min(hard) };
        Some(Ulimit { name, soft: finite(soft), hard: finite(hard) })
    };
    OF_SLURM.into_iter().filter_map(limit).collect()
}

/// Half of this node's memory, in bytes.
fn half_of_memory() -> u64 {
    const FALLBACK: u64 = 1 << 30;
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    total
        .and_then(|kilobytes| kilobytes.trim().parse::<u64>().ok())
        .map_or(FALLBACK, |kilobytes| kilobytes * 1024 / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(entries: &[(&str, &str)]) -> Image {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Image {
            digest: None,
            is_new: false,
            id: String::new(),
            environment: entries.iter().map(pair).collect(),
            variables: Vec::new(),
            labels: Vec::new(),
            workdir: None,
            volumes: Vec::new(),
            entrypoint: Vec::new(),
        }
    }

    #[test]
    fn engine_gets_only_the_list_of_driver_libraries_from_an_image() {
        let gpus = GpuRequest::Nvidia(vec!["0".to_owned()]);
        let given = |entries: &[(&str, &str)], gpus: Option<&GpuRequest>| {
            variables(&image(entries), gpus).into_iter().skip(2).map(|(_, value)| value).collect::<Vec<_>>()
        };
        let wants = [("LD_PRELOAD", "/x.so"), (LIBRARIES, "compute"), (LIBRARIES, "video,\n,--x,compute")];
        assert_eq!(given(&wants, Some(&gpus)), ["video,compute"]);
        assert!(given(&wants, None).is_empty());
        assert!(given(&wants, Some(&GpuRequest::Cdi(Vec::new()))).is_empty());
        assert!(given(&[(LIBRARIES, "/x")], Some(&gpus)).is_empty());
    }
}

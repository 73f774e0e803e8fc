//! Which GPUs a container may have: those of the job as the prolog's environment names them, or those of a
//! step, as far as they can be found out from Slurm without relying on the user.
//!
//! Runs as root in the first task of a step with a container of its own, and in the prolog.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, major, minor, mknod};

use super::request::Request;
use crate::container::nvidia;
use crate::engine::{self, GpuRequest};
use crate::linux::cgroup::Cgroups;
use crate::linux::process::Process;
use crate::linux::source::Device;
use crate::slurm::gres::{self, Gpus, Nvidia, SELECTIONS};
use crate::slurm::scontrol;

/// The directories of GPUs' device nodes.
const PLACES: [&str; 2] = ["/dev", "/dev/dri"];

/// The GPUs of the step to which this task belongs.
///
/// The step's environment is under the user's control, and slurmstepd gives plugins no list of its GPUs. So
/// this function starts from the job's GPUs: those in the record of its prolog, or, where the job has no
/// container, those that slurmctld reports, in a text that users can influence. Of these, the step has those
/// that its cgroup lets pass; where Slurm does not constrain devices, all pass, on the host as in the
/// container. Where the step's cgroup is not known, slurmctld's text is not used. No file exists at the path
/// `scratch`, before and after.
pub(super) fn of_step(request: &Request, scratch: &Path) -> Gpus {
    let nodes = device_nodes();
    let mut gpus = match &request.gpus {
        Some(gpus) => gpus.clone(),
        // slurmctld is asked only on nodes that have GPUs.
        None if nodes.is_empty() => Gpus::default(),
        None => Gpus {
            numbers: by_slurmctld(request, &nodes),
            variables: SELECTIONS.map(str::to_owned).to_vec(),
            ..Gpus::default()
        },
    };
    if gpus.is_empty() {
        return gpus;
    }
    // slurmstepd puts tasks into the step's cgroups after it has forked them all, into one hierarchy after the other with cgroup
    // v1. Into that of devices it has put itself before (src/plugins/task/cgroup/task_cgroup_devices.c, `task_cgroup_devices_create`).
    match Cgroups::of_own_step() {
        Ok(Some(_)) => gpus.numbers.retain(|number| {
            let own = nodes.iter().find(|node| node.number == *number);
            own.is_some_and(|node| cgroup_allows(node.rdev, scratch))
        }),
        // Slurm constrains no devices: the step may use all GPUs of the job.
        Ok(None) if request.gpus.is_some() => {}
        Ok(None) | Err(_) => return Gpus::default(),
    }
    gpus
}

/// The device numbers of the GPUs that slurmctld names: it counts a node's GPUs from 0, whatever their device
/// nodes are called.
fn by_slurmctld(request: &Request, nodes: &[Node]) -> Vec<u32> {
    let places = scontrol::gpus(request.owner.job, &request.node).unwrap_or_default();
    let number = |place: u32| Some(nodes.get(usize::try_from(place).ok()?)?.number);
    places.into_iter().filter_map(number).collect()
}

/// Whether a path is that of a whole GPU's device node.
pub(super) fn is_gpu(path: &Path) -> bool {
    path.to_str().and_then(gres::number_of).is_some()
}

/// Whether a device is a GPU that is not among `gpus`.
pub(super) fn is_foreign(gpus: &Gpus, device: Device) -> bool {
    let is_it = |node: &Node| {
        !device.is_block && (major(node.rdev), minor(node.rdev)) == (device.major, device.minor)
    };
    let nvidia = nvidia::gpus();
    device_nodes().iter().any(|node| is_it(node) && gpus.excludes(&node.path.to_string_lossy(), &nvidia))
}

struct Node {
    number: u32,
    path: PathBuf,
    rdev: u64,
}

/// The device nodes of whole GPUs of this node, in the order of their numbers, in which Slurm counts them.
fn device_nodes() -> Vec<Node> {
    let entries = PLACES.iter().filter_map(|place| fs::read_dir(place).ok()).flatten().filter_map(Result::ok);
    let node = |path: PathBuf| {
        let number = gres::number_of(path.to_str()?)?;
        let metadata = fs::symlink_metadata(&path).ok()?;
        metadata.file_type().is_char_device().then(|| Node { number, path, rdev: metadata.rdev() })
    };
    let mut nodes: Vec<Node> = entries.filter_map(|entry| node(entry.path())).collect();
    nodes.sort_by_key(|node| node.number);
    nodes
}

/// Whether the cgroups of this process allow a device. The devices controller checks mknod(2) as it checks
/// open(2), and creating a node has no effect on the device. Where creating fails for any reason, the device
/// does not count as allowed.
fn cgroup_allows(rdev: u64, scratch: &Path) -> bool {
    let made = mknod(scratch, SFlag::S_IFCHR, Mode::empty(), rdev);
    let _ = fs::remove_file(scratch);
    made.is_ok()
}

/// A GPU that is not the job's, if one is among the container's device nodes (names below [`PLACES`]).
pub(super) fn foreign_gpu(
    gpus: &Gpus,
    nvidia: &[Nvidia],
    configured: &[PathBuf],
    names: impl Fn(&Path) -> io::Result<Vec<String>>,
) -> io::Result<Option<String>> {
    for place in PLACES {
        let names = match names(Path::new(place)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            names => names?,
        };
        let mut paths = names.into_iter().map(|name| format!("{place}/{name}"));
        let is_foreign = |path: &String| {
            gpus.excludes_brought(path, nvidia) && !configured.iter().any(|own| own == Path::new(path))
        };
        if let Some(foreign) = paths.find(is_foreign) {
            return Ok(Some(foreign));
        }
    }
    Ok(None)
}

/// Variables that a CDI specification has added to the container's own environment, which has none of the
/// image's variables. They are read from the container's first process, the plugin's own.
pub(super) fn env_from_cdi(process: &Process, request: Option<&GpuRequest>) -> Vec<(String, String)> {
    const ENGINES: [&str; 3] = ["PATH", "TERM", "NVIDIA_VISIBLE_DEVICES"];
    let Some(GpuRequest::Cdi(_)) = request else { return Vec::new() };
    let environment = process.read("environ").unwrap_or_default();
    let entries = environment.split(|byte| *byte == 0).filter_map(|entry| std::str::from_utf8(entry).ok());
    let mut added = engine::environment(&entries.map(str::to_owned).collect::<Vec<_>>());
    added.retain(|variable| !ENGINES.contains(&variable.0.as_str()));
    added
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::lacking;

    #[test]
    fn gpu_of_another_job_is_found_and_a_list_that_cannot_be_read_is_an_error() {
        let found = |dev: io::Result<&[&str]>, dri: io::ErrorKind| {
            let names = |path: &Path| match (path.to_str(), &dev) {
                (Some("/dev"), Ok(names)) => Ok(names.iter().map(|name| (*name).to_owned()).collect()),
                (Some("/dev"), Err(error)) => Err(error.kind().into()),
                _ => Err(dri.into()),
            };
            foreign_gpu(&Gpus::default(), &[], &[PathBuf::from("/dev/nvidia1")], names)
                .map_err(|error| error.kind())
        };
        let (absent, other) = (io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied);
        assert_eq!(found(Ok(&["null", "nvidia1", "nvidiactl"]), absent), Ok(None));
        assert_eq!(found(Ok(&["null", "nvidia0"]), absent), Ok(Some("/dev/nvidia0".to_owned())));
        assert_eq!(found(Ok(&["null"]), other), Err(other));
        assert_eq!(found(Err(other.into()), absent), Err(other));
    }

    /// A directory in which no node can be created does not show that the cgroups allow the device.
    #[test]
    fn device_is_allowed_only_if_its_node_could_be_created() {
        let null = fs::metadata("/dev/null").unwrap().rdev();
        assert!(!cgroup_allows(null, Path::new("/nowhere/device")));
        if lacking::root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        assert!(cgroup_allows(null, &directory.path().join("device")));
    }
}

//! The engine's part of a start: it creates the container, and starts the plugin's first process in it.

use std::path::Path;
use std::time::{Duration, Instant};

use super::error::{StartError, files_error};
use super::files::Files;
use super::first_process::{self, FirstProcessError, StagingDir};
use super::in_mount_namespace;
use super::preflight::UnsafeAccountFile;
use super::start_request::StartRequest;
use super::{preflight, spec};
use crate::container::gpus;
use crate::container::mounts::Prepared;
use crate::container::nodes::JobNodes;
use crate::container::nvidia;
use crate::container::ownership::{self, LABEL_JOB};
use crate::container::request::Request;
use crate::engine::{
    self, Container, ContainerSpec, Engine, EngineError, GpuRequest, Image, ImageError, Listed,
};
use crate::guest::accounts::{self, merge_group};
use crate::guest::paths;
use crate::linux::closed;
use crate::linux::identity::UserIds;
use crate::linux::mountinfo;
use crate::linux::namespace::Namespaces;
use crate::linux::poll;
use crate::linux::process::Process;
use crate::log::escape::Escaped;
use crate::state::{ImageUses, StateError};

/// The file in which engines look groups up: its directory and its name.
const GROUPS: [&str; 2] = ["/etc", "group"];

/// How to request the job's GPUs from the engine, if it has any.
pub(super) async fn gpus(
    start: &StartRequest<'_>,
    engine: &Engine,
) -> Result<Option<GpuRequest>, StartError> {
    // An admin who lists GPUs' device nodes in the configuration uses them without the engine's support.
    let by_admin = spec::devices(&start.config.devices).iter().any(|device| gpus::is_gpu(device));
    match start.request.gpus.as_ref().filter(|gpus| !gpus.is_empty() && !by_admin) {
        None => Ok(None),
        Some(gpus) => Ok(Some(engine.gpu_request(gpus, &nvidia::gpus()).await??)),
    }
}

/// Creates the container; replaces one that an earlier run has left.
pub(super) async fn create(
    start: &StartRequest<'_>,
    engine: &Engine,
    image: &Image,
    entry: &StagingDir,
    (mounts, nodes): (&[Prepared], &JobNodes),
    gpus: Option<GpuRequest>,
) -> Result<Container, StartError> {
    let spec = spec::spec(start.config, start.request, image, start.directory, entry, (mounts, nodes), gpus);
    let created = match ask(start, engine, &spec).await {
        // An earlier run of this job has left a container that no epilog has removed.
        Err(EngineError::Refused { status: 409, .. }) => {
            remove_namesake(start, engine).await?;
            match ask(start, engine, &spec).await {
                Err(error @ EngineError::Refused { status: 409, .. }) => {
                    return Err(match other_node(start, engine).await? {
                        Some(node) => StateError::OtherNode { owner: start.request.owner, node }.into(),
                        None => error.into(),
                    });
                }
                other => other,
            }
        }
        other => other,
    };
    if created.is_ok() {
        // A name exists once: the container of an earlier run is gone.
        start.directory.forget_written_to()?;
    }
    created.map_err(|error| match error {
        error if error.is_not_found() => ImageError::Gone { image: start.image_name() }.into(),
        error => explain(start, error, spec.gpus.as_ref()),
    })
}

/// Asks the engine to create it. Meanwhile the state directory says so, for a start that is cut off here: if that cannot be
/// written, nor can the record without which the start fails.
async fn ask(
    start: &StartRequest<'_>,
    engine: &Engine,
    spec: &ContainerSpec,
) -> Result<Container, EngineError> {
    let _ = start.directory.note_creating();
    let created = engine.create(spec).await;
    let _ = start.directory.note_created();
    created
}

/// Removes the container of the same job or step at this engine, where a name exists once. Waits for one that the engine is still
/// creating for this start.
pub(super) async fn remove_namesake(start: &StartRequest<'_>, engine: &Engine) -> Result<(), EngineError> {
    const INTERVAL: Duration = Duration::from_millis(50);
    let Request { owner, slurmd, .. } = start.request;
    let name = owner.container_name();
    let look = async || engine.named(&name).await;
    let is_final = |found: &Result<_, _>| !matches!(found, Ok(None)) || !start.directory.is_creating();
    let found = poll::until_meanwhile(Instant::now() + engine::CREATION, INTERVAL, look, is_final).await?;
    let is_namesake = |found: &Listed| {
        ownership::owner(found) == Some(*owner) && ownership::is_of_job(found, slurmd, owner.job)
    };
    match found.filter(is_namesake) {
        Some(found) => engine.remove(&found.container, start.directory.written_to(), engine::PATIENCE).await,
        None => Ok(()),
    }
}

/// The node that has a container of the same job or step at this engine, if it is another one: two slurmds on this machine,
/// each with a state_dir of its own, and the job runs on both. An engine that is still creating the other's container knows its
/// name, but does not list it yet.
async fn other_node(start: &StartRequest<'_>, engine: &Engine) -> Result<Option<Escaped>, EngineError> {
    const PATIENCE: Duration = Duration::from_secs(5);
    const INTERVAL: Duration = Duration::from_millis(50);
    let Request { owner, slurmd, .. } = start.request;
    let label = format!("{LABEL_JOB}={}", owner.job);
    let is_others = |listed: &&Listed| {
        ownership::owner(listed) == Some(*owner) && !ownership::is_of_job(listed, slurmd, owner.job)
    };
    let look = async || {
        let listed = engine.labelled(&label).await?;
        Ok(listed.iter().find(is_others).and_then(ownership::node).map(Escaped::new))
    };
    let is_final = |found: &Result<Option<Escaped>, EngineError>| !matches!(found, Ok(None));
    poll::until_meanwhile(Instant::now() + PATIENCE, INTERVAL, look, is_final).await
}

/// Starts the container, and checks that its first process is the plugin's.
pub(super) async fn start(
    start: &StartRequest<'_>,
    engine: &Engine,
    container: &Container,
    image: &Image,
    files: &Files<'_>,
    gpus: Option<&GpuRequest>,
) -> Result<Process, StartError> {
    let unsafe_file = preflight::check(engine, container, &image.id, &ImageUses::default()).await?;
    let image = start.image_name();
    match unsafe_file {
        Some(UnsafeAccountFile::File(path)) => return Err(StartError::Account { image, path }),
        Some(UnsafeAccountFile::Directory(path)) => return Err(StartError::System { image, path }),
        Some(UnsafeAccountFile::Closed) => return Err(StartError::Closed { image }),
        None => {}
    }
    let pid = match engine.start(container).await {
        Ok(pid) => pid,
        // Even if the removal fails, the image is at fault, because the engine answers other calls.
        Err(EngineError::Stuck { .. }) => return Err(StartError::Hung { image }),
        Err(error) => return Err(explain(start, error, gpus)),
    };
    match plugins_process(pid, &files.path(paths::PAUSE), &start.request.credentials).await {
        Ok(process) => check_is_closed(&process).map(|()| process),
        Err(FirstProcessError::Ended) => {
            let words = engine.last_output_line(container).await.unwrap_or_default();
            Err(StartError::Ended { image, words })
        }
        Err(FirstProcessError::Groups) => Err(StartError::Groups { image }),
        Err(error) => Err(StartError::StagingDir { image, source: error.into() }),
    }
}

/// Refuses an engine whose directory users can reach: a setuid-root program of the image has no effect in the
/// container, but makes users root when executed by its path on the host.
fn check_is_closed(process: &Process) -> Result<(), StartError> {
    let look = || match mountinfo::upper_directory(&process.read("mountinfo")?) {
        Some(directory) => Ok((!closed::to_users(&directory)?).then_some(directory)),
        // A store without such a directory: `spank-docker check` inspects the engine's whole data directory.
        None => Ok(None),
    };
    match look().map_err(files_error("inspect the engine's directories"))? {
        None => Ok(()),
        Some(directory) => Err(StartError::OpenEngine { directory: directory.as_path().into() }),
    }
}

/// The image's list of groups without names that an engine takes for numbers. For a container in which only the
/// plugin's first process runs.
pub(super) async fn groups(
    start: &StartRequest<'_>,
    engine: &Engine,
    container: &Container,
) -> Result<Vec<u8>, StartError> {
    let pid = engine.first_process(container).await?;
    let gone = || StartError::Ended { image: start.image_name(), words: None };
    let process = pid.and_then(|pid| Process::find(pid).ok()).ok_or_else(gone)?;
    let namespaces = Namespaces::as_made(&process).map_err(files_error("open the container's namespaces"))?;
    let image = in_mount_namespace::read(&namespaces, GROUPS.join("/").as_ref())?;
    Ok(merge_group(&image, &start.request.groups, &start.request.account, Some(accounts::TTY)))
}

/// Writes this list into a container that was not started yet: the engine reads it before any mount of the
/// plugin could cover it.
pub(super) async fn put_groups(
    engine: &Engine,
    container: &Container,
    groups: &[u8],
) -> Result<(), EngineError> {
    let [directory, name] = GROUPS;
    engine.put(container, directory, name, groups).await
}

/// The container's first process, if it runs `program` as `user`.
async fn plugins_process(
    pid: Option<i32>,
    program: &Path,
    user: &UserIds,
) -> Result<Process, FirstProcessError> {
    let process = pid.and_then(|pid| Process::find(pid).ok()).ok_or(FirstProcessError::Ended)?;
    first_process::entered(&process, program).await?;
    first_process::check(&process, user)?;
    Ok(process)
}

/// How engines refuse to limit what a container writes: moby's daemon/graphdriver/overlay2/overlay.go (`create`) and
/// volume/local/local_unix.go (`setOpts`).
const REFUSALS: [&str; 2] = ["storage-opt", "no quota support"];

/// The engine's refusals about which a user or an admin can do something.
fn explain(start: &StartRequest<'_>, error: EngineError, gpus: Option<&GpuRequest>) -> StartError {
    let EngineError::Refused { message, .. } = &error else { return error.into() };
    if let Some(error) = gpus.and_then(|gpus| gpus.explain(message)) {
        error.into()
    } else if message.contains("no space left") || message.contains("disk quota exceeded") {
        StartError::NoSpace { image: start.image_name() }
    } else if start.config.storage_size.is_some() && REFUSALS.iter().any(|words| message.contains(words)) {
        StartError::Storage { message: message.clone() }
    } else if message.contains("rlimit") {
        StartError::Limits { message: message.clone() }
    } else {
        error.into()
    }
}

//! How a task enters the container: its namespaces, the batch script, limits, and the loss of all privileges.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{OFlag, open};
use nix::sys::resource::Resource;
use nix::sys::stat::Mode;

use super::error::TaskError;
use super::step::Step;
use crate::guest::mpi::hostfile;
use crate::guest::paths;
use crate::linux::inside::{ContainerRoot, Rules};
use crate::linux::mount::{self, Attributes};
use crate::linux::namespace::Namespaces;
use crate::linux::oom;
use crate::linux::privilege::{self, Soft};
use crate::linux::process::Process;
use crate::settings::plugstack::{Config, Limit};
use crate::slurm::ids::Owner;
use crate::slurm::{hostlist, task_layout};
use crate::state::{OwnerDir, RunningContainer, StateDir, StateError};

/// Whether this process has entered a container, completely or partly.
static ENTERED: AtomicBool = AtomicBool::new(false);

/// Whether an image may redirect the paths that this process uses.
#[must_use]
pub fn has_entered() -> bool {
    ENTERED.load(Ordering::Relaxed)
}

/// Joins the container of `owner`. On success this process stays in it, and cannot gain privileges any more.
pub fn join(
    state: &StateDir,
    owner: Owner,
    step: &Step,
    running: &RunningContainer,
    config: &Config,
) -> Result<(), TaskError> {
    let failed = |action| join_error(action, owner);
    let found = Process::find_alive(running.process).map_err(failed("find the container"))?;
    let process = found.ok_or(TaskError::Gone { owner })?;
    let namespaces = Namespaces::of(&process).map_err(failed("open the namespaces of the container"))?;
    let namespaces = namespaces.ok_or(TaskError::Left { owner })?;
    if namespaces.ids().map_err(failed("inspect the namespaces of the container"))? != running.namespaces {
        return Err(TaskError::Gone { owner });
    }
    // A step's own container has had the step's layout from its start.
    if owner.step.is_none() {
        write_hostfiles(&state.of(owner), step)?;
        write_own_hostfiles(&state.of(owner), step)?;
    }
    oom::take_score_of_jobs().map_err(failed("set the oom_score_adj of a task"))?;
    let script = step.script.as_deref().map(|script| (script, detached_script(script)));

    ENTERED.store(true, Ordering::Relaxed);
    namespaces.join().map_err(failed("join the container"))?;
    if let Some((script, tree)) = script {
        let failed =
            |source| TaskError::Script { script: script.to_owned(), image: running.image.clone(), source };
        tree.and_then(|tree| attach_script(script, tree, running)).map_err(failed)?;
    }
    // RDMA needs as much as possible. The soft limit of the stack determines each thread's stack, so the user
    // decides on it.
    set_limit("memlock", Resource::RLIMIT_MEMLOCK, config.memlock, Soft::Follows)?;
    set_limit("stack", Resource::RLIMIT_STACK, config.stack, Soft::Stays)?;
    privilege::renounce().map_err(failed("drop the privileges of a task"))
}

fn join_error(action: &'static str, owner: Owner) -> impl FnOnce(io::Error) -> TaskError {
    move |source| TaskError::Join { action, owner, source }
}

/// Writes the hostfiles, which contain the number of the *job's* tasks on each node. A step that does not know
/// these numbers has only its own: of several such layouts the largest counts. One task on each node writes the
/// files: there may be thousands of nodes.
fn write_hostfiles(directory: &OwnerDir, step: &Step) -> Result<(), StateError> {
    let Some(given) = &step.layout else { return Ok(()) };
    let Ok(tasks) = task_layout::parse(&given.tasks) else { return Ok(()) };
    let total = match given.is_of_job {
        true => u64::MAX,
        false => tasks.iter().map(|tasks| u64::from(*tasks)).sum(),
    };
    directory.widen_hostfile(total, || {
        let Some(texts) = hostfiles(&given.nodes, &tasks) else { return Ok(()) };
        write(directory, [paths::HOSTFILE, paths::HYDRA_HOSTFILE], &texts)
    })
}

/// Writes the hostfiles of a step with its own nodes and tasks, where they differ from the job's. Each task
/// that starts before the files exist writes them, all with the same content.
fn write_own_hostfiles(directory: &OwnerDir, step: &Step) -> Result<(), StateError> {
    let Some(own) = &step.own else { return Ok(()) };
    let [open_mpi, hydra] = paths::hostfiles_of(own.step);
    if directory.has_guest_file(&hydra) {
        return Ok(());
    }
    let tasks = task_layout::parse(&own.tasks).unwrap_or_default();
    match hostfiles(&own.nodes, &tasks) {
        Some(texts) if !directory.is_guest_file(paths::HOSTFILE, texts[0].as_bytes()) => {
            write(directory, [&open_mpi, &hydra], &texts)
        }
        _ => Ok(()),
    }
}

/// `None`, where there is not a number for each node.
fn hostfiles(nodes: &str, tasks: &[u32]) -> Option<[String; 2]> {
    let nodes = hostlist::expand(nodes).ok().filter(|nodes| nodes.len() == tasks.len())?;
    Some([hostfile::open_mpi(&nodes, tasks), hostfile::hydra(&nodes, tasks)])
}

/// Writes both files; the last one is the one for which tasks look.
fn write(directory: &OwnerDir, files: [&str; 2], texts: &[String; 2]) -> Result<(), StateError> {
    files.iter().zip(texts).try_for_each(|(file, text)| directory.write_guest_file(file, text.as_bytes()))
}

/// Slurm executes the batch script by its path on the host: so that very file is mounted at this path.
fn detached_script(script: &Path) -> io::Result<OwnedFd> {
    let file = open(script, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    let tree = mount::detached_copy(&file, false)?;
    mount::change(
        &tree,
        false,
        Attributes::NOSUID.and(Attributes::NODEV).and(Attributes::RDONLY),
        Attributes::NONE,
    )?;
    Ok(tree)
}

fn attach_script(script: &Path, tree: OwnedFd, running: &RunningContainer) -> io::Result<()> {
    let rules = Rules { closed: &paths::CLOSED, volumes: &running.volumes };
    let place = ContainerRoot::current()?
        .resolve_target(script, false, &running.user, rules)
        .map_err(io::Error::other)?;
    mount::attach(tree, place)
}

fn set_limit(name: &'static str, resource: Resource, limit: Limit, soft: Soft) -> Result<(), TaskError> {
    let bytes = match limit {
        Limit::Inherit => return Ok(()),
        Limit::Unlimited => None,
        Limit::Bytes(bytes) => Some(bytes),
    };
    privilege::limit(resource, bytes, soft).map_err(|source| TaskError::Limit { name, source })
}

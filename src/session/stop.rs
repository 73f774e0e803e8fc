//! The end of a job, or of a step, on this node. Found by label, not by memory; absent is success; one failure does not keep the
//! rest from being removed.
//!
//! Runs as root in the epilog, in the prolog when a start has failed, in a step's slurmstepd when the step ends, and in
//! a starting slurmd.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::Config;
use crate::docker::{self, Engine, EngineError, ImageError, Listed};
use crate::job::{JobId, Scope};
use crate::pulls::{Found, Pulls};
use crate::slurm::stepd;
use crate::state::{Outcome, ScopeDir, StateDir, StateError};
use crate::sys::cgroup;
use crate::sys::process::Process;

/// The label by which a job's containers are found.
pub(super) const LABEL_JOB: &str = "spank-docker.job";

/// What could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// The first thing that the engine failed at.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The first thing that a file system failed at.
    #[error(transparent)]
    State(#[from] StateError),
    /// The state directory cannot be listed.
    #[error("cannot list '{}'", path.display())]
    List {
        /// state_dir.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A cgroup that Slurm left could not be removed.
    #[error("cannot remove the cgroup '{}'", path.display())]
    Cgroup {
        /// Of the extern step.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The job's prolog outlives it.
    #[error("the prolog of job {job} does not end")]
    Prolog {
        /// The job.
        job: JobId,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Images that a pull which was cut off may have brought are not marked as private.
    #[error("cannot put right what a pull that was cut off has left")]
    Pulls(#[source] ImageError),
    /// No event loop could be made.
    #[error("cannot set up an event loop")]
    Runtime(#[source] std::io::Error),
}

impl StopError {
    /// Whether the engine is there and does not do its work.
    #[must_use]
    pub fn is_engine_fault(&self) -> bool {
        matches!(self, Self::Engine(error) if error.is_engine_fault())
    }
}

/// Removes all that `job` has on this node: containers, mounts, files.
pub fn stop(config: &Config, job: JobId) -> Result<(), StopError> {
    let state = StateDir::new(&config.state_dir);
    let prolog = end_prolog(&state, job);
    let abandoned = abandoned(&state, job);
    let is_meant = |scope: Scope| scope.job == job || abandoned.contains(&scope.job);
    // And those without state, whose own end could not be: the engine was down in the epilog, or came up after slurmd.
    let containers =
        remove_containers(config, LABEL_JOB, |scope| is_meant(scope) || !state.of(scope).exists());
    let pulls = settle_pulls(config);
    let files = remove_state(&config.state_dir, is_meant);
    prolog.and(containers).and(pulls).and(files)
}

/// What the job's own pull has left, if it was cut off.
fn settle_pulls(config: &Config) -> Result<(), StopError> {
    let pulls = Pulls::new(&config.state_dir);
    if !pulls.all().is_ok_and(|pulls| pulls.iter().any(Found::is_cut_off)) {
        return Ok(());
    }
    let runtime = docker::runtime().map_err(StopError::Runtime)?;
    let settled: Result<(), ImageError> =
        runtime.block_on(async { Engine::connect(&config.docker_host).await?.settle_pulls(&pulls).await });
    match settled {
        Ok(()) | Err(ImageError::Engine(EngineError::Absent { .. })) => Ok(()),
        Err(ImageError::Engine(error)) => Err(error.into()),
        Err(error) => Err(StopError::Pulls(error)),
    }
}

/// Other jobs that have ended, and whose epilog never came: slurmctld takes a job for done on a node whose slurmd has
/// died and registers anew without it.
///
/// Their container is dead and they have no slurmstepd. So no task can come any more, unless the prolog has only just
/// ended, and the extern step is still to start.
fn abandoned(state: &StateDir, job: JobId) -> BTreeSet<JobId> {
    const STARTING: Duration = Duration::from_secs(60);
    let is_dead = |scope: &Scope| {
        let directory = state.of(*scope);
        let Ok(Some(Outcome::Ready(session))) =
            directory.read().map(|record| record.map(|record| record.outcome))
        else {
            return false;
        };
        directory.age().is_some_and(|age| age > STARTING)
            && Process::recall(session.process).is_ok_and(|process| process.is_none())
    };
    let scopes = state.scopes().unwrap_or_default().into_iter();
    let mut dead: BTreeSet<JobId> = scopes
        .filter(|scope| scope.job != job && *scope == Scope::job(scope.job))
        .filter(is_dead)
        .map(|scope| scope.job)
        .collect();
    if !dead.is_empty() {
        let running = stepd::jobs();
        dead.retain(|job| !running.contains(job));
    }
    dead
}

/// A prolog that has not come to its end is an orphan of a slurmd that has died: Slurm itself lets prologs end first.
fn end_prolog(state: &StateDir, job: JobId) -> Result<(), StopError> {
    match state.of(Scope::job(job)).read().map(|record| record.map(|record| record.outcome)) {
        Ok(Some(Outcome::Host | Outcome::Ready(_) | Outcome::Failed { .. } | Outcome::BrokenOff { .. })) => {
            Ok(())
        }
        Ok(Some(Outcome::Starting) | None) | Err(_) => {
            stepd::end_prolog(job).map_err(|source| StopError::Prolog { job, source })
        }
    }
}

/// The same for one step, whose slurmstepd still runs. Slurm removes the step's cgroups, unless a start that was cut off has
/// left a process where Slurm's kill does not look: so the epilog is told of them.
pub(super) fn stop_step(config: &Config, scope: Scope) -> Result<(), StopError> {
    let containers = remove_container(config, scope);
    let state = StateDir::new(&config.state_dir);
    let (step, job) = (state.of(scope), state.of(Scope::job(scope.job)));
    let told = hand_on_cgroups(&step, &job);
    let files = step.remove();
    containers?;
    told?;
    Ok(files?)
}

/// Removes the container of a job, or of a step, alone.
pub(super) fn remove_container(config: &Config, scope: Scope) -> Result<(), StopError> {
    let label = format!("{LABEL_JOB}={}", scope.job);
    remove_containers(config, &label, |found| found == scope)
}

/// As the job's own: those of the extern step say the same already, if the job has a container too, and so do those of a step
/// that has ended before.
fn hand_on_cgroups(step: &ScopeDir, job: &ScopeDir) -> Result<(), StateError> {
    let cgroups = step.cgroups();
    if cgroups.is_empty() || !job.cgroups().is_empty() {
        return Ok(());
    }
    job.write_cgroups(cgroups.iter().map(|path| cgroup::job_of(path)))
}

fn remove_containers(
    config: &Config,
    label: &str,
    is_meant: impl Fn(Scope) -> bool,
) -> Result<(), StopError> {
    let runtime = docker::runtime().map_err(StopError::Runtime)?;
    runtime.block_on(remove_containers_of(&config.docker_host, label, is_meant))
}

async fn remove_containers_of(
    socket: &Path,
    label: &str,
    is_meant: impl Fn(Scope) -> bool,
) -> Result<(), StopError> {
    let engine = match Engine::connect(socket).await {
        Ok(engine) => engine,
        // No engine, no containers.
        Err(EngineError::Absent { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let listed = engine.labelled(label).await?;
    remove_listed(&engine, listed.iter().filter(|listed| scope(listed).is_some_and(&is_meant))).await
}

/// Removes these, going on past failures; the first is returned.
pub(super) async fn remove_listed(
    engine: &Engine,
    listed: impl Iterator<Item = &Listed>,
) -> Result<(), StopError> {
    let mut first = Ok(());
    for listed in listed {
        let removed = engine.remove(&listed.container).await.map_err(StopError::from);
        if first.is_ok() {
            first = removed;
        }
    }
    first
}

/// Whose container it is: name and label must agree, because the labels of an image are its containers' labels too,
/// and an image may carry ours.
pub(super) fn scope(listed: &Listed) -> Option<Scope> {
    let scope: Scope = listed.names.iter().find_map(|name| name.strip_prefix("docker_")?.parse().ok())?;
    (listed.labels.get(LABEL_JOB).map(String::as_str) == Some(scope.job.to_string().as_str()))
        .then_some(scope)
}

/// Removes the state of these scopes.
pub(super) fn remove_state(state_dir: &Path, is_meant: impl Fn(Scope) -> bool) -> Result<(), StopError> {
    let state = StateDir::new(state_dir);
    let scopes = state.scopes().map_err(|source| StopError::List { path: state_dir.to_owned(), source })?;
    let mut first = Ok(());
    for scope in scopes.into_iter().filter(|scope| is_meant(*scope)) {
        let removed = remove_scope(&state.of(scope));
        if first.is_ok() {
            first = removed;
        }
    }
    first
}

/// Where a cgroup cannot be removed, the record of it stays, for a later epilog to try again.
fn remove_scope(directory: &ScopeDir) -> Result<(), StopError> {
    let cgroups = directory.cgroups();
    let cgroups: Vec<&Path> = cgroups.iter().map(PathBuf::as_path).collect();
    match cgroup::remove(&cgroups) {
        Ok(()) => Ok(directory.remove()?),
        Err((path, source)) => {
            directory.remove_container()?;
            Err(StopError::Cgroup { path: path.to_owned(), source })
        }
    }
}

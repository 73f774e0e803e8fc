//! The end of a job, or of a step, on this node. Belonging by label, not by memory; absent is success; one failure does not keep the
//! rest from being removed.
//!
//! Runs as root in the epilog, in the prolog when a start has failed, in a step's slurmstepd when the step ends, and in
//! a starting slurmd.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;

use super::engine_health;
use super::ownership::{self, LABEL_JOB};
use super::reap;
use crate::engine::{self, Engine, EngineError, ImageError, Listed};
use crate::engine::{PullRecord, Pulls};
use crate::linux::cgroup;
use crate::linux::runtime::runtime;
use crate::settings::plugstack::Config;
use crate::slurm::ids::{JobId, Scope, Slurmd};
use crate::slurm::stepd;
use crate::state::{Outcome, ScopeDir, StateDir, StateError};

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
    /// Which jobs run is not known: so nothing of any is removed.
    #[error("cannot tell which jobs run on this node, nothing of others is removed")]
    Processes(#[source] std::io::Error),
    /// It would take longer than a hook may wait.
    #[error(
        "not all that is left of other jobs was removed within {seconds} s: the rest is left to later epilogs"
    )]
    Slow {
        /// The deadline.
        seconds: u64,
    },
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

/// Removes all that `job` has on this node: containers, mounts, files. Then what others have left whose own epilog could
/// not remove it: the engine was down, or came up after slurmd.
pub fn stop(config: &Config, slurmd: &Slurmd, job: JobId) -> Result<(), StopError> {
    let prolog = end_prolog(&StateDir::new(&config.state_dir), job);
    let own = end(config, job, |listed| ownership::is_of_job(listed, slurmd, job), |scope| scope.job == job);
    // An engine that does not work is not asked again.
    let others = if own.is_ok() { reap::remove(config, slurmd, job) } else { Ok(()) };
    let pulls = if own.is_ok() { settle_pulls(config) } else { Ok(()) };
    prolog.and(own).and(others).and(pulls)
}

/// What the job's own pull has left, if it was cut off.
fn settle_pulls(config: &Config) -> Result<(), StopError> {
    let pulls = Pulls::new(&config.state_dir);
    if !pulls.all().is_ok_and(|pulls| pulls.iter().any(PullRecord::is_cut_off)) {
        return Ok(());
    }
    let runtime = runtime().map_err(StopError::Runtime)?;
    let settled: Result<(), ImageError> =
        runtime.block_on(async { engine_health::connect(config).await?.settle_pulls(&pulls).await });
    match settled {
        Ok(()) | Err(ImageError::Engine(EngineError::Absent { .. })) => Ok(()),
        Err(ImageError::Engine(error)) => Err(error.into()),
        Err(error) => Err(StopError::Pulls(error)),
    }
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
    let state = StateDir::new(&config.state_dir);
    let (step, job) = (state.of(scope), state.of(Scope::job(scope.job)));
    let is_its = is_of_scope(config, scope);
    let told = hand_on_cgroups(&step, &job);
    // They are the job's to remove now.
    let ended = end_without_cgroups(config, scope, is_its);
    ended.and(told.map_err(StopError::from))
}

/// Removes the container of a job, or of a step, alone.
pub(super) fn remove_container(config: &Config, scope: Scope) -> Result<(), StopError> {
    let is_its = is_of_scope(config, scope);
    remove_containers(config, scope.job, is_its).result
}

/// Of the slurmd that the record names.
fn is_of_scope(config: &Config, scope: Scope) -> impl Fn(&Listed) -> bool {
    let record = StateDir::new(&config.state_dir).of(scope).read().ok().flatten();
    let slurmd = record.map(|record| record.slurmd).unwrap_or_default();
    move |listed| ownership::scope(listed) == Some(scope) && ownership::is_of_job(listed, &slurmd, scope.job)
}

/// As the job's own: those of the extern step say the same already, if the job has a container too, and so do those of a step
/// that has ended before. Where Slurm calls no prolog, no epilog comes for them either.
fn hand_on_cgroups(step: &ScopeDir, job: &ScopeDir) -> Result<(), StateError> {
    let cgroups = step.cgroups();
    if cgroups.is_empty() || !job.cgroups().is_empty() || matches!(job.read(), Ok(None)) {
        return Ok(());
    }
    job.write_cgroups(cgroups.iter().map(|path| cgroup::job_of(path)))
}

fn end_without_cgroups(
    config: &Config,
    scope: Scope,
    is_meant: impl Fn(&Listed) -> bool,
) -> Result<(), StopError> {
    let Removal { result, directories, kept } = remove_containers(config, scope.job, is_meant);
    let mut first = result;
    for state in directories {
        first = first.and(state.of(scope).remove().map_err(StopError::from));
    }
    postpone(&kept);
    first
}

/// Ends these containers of the job, and removes the state of these scopes of it.
fn end(
    config: &Config,
    job: JobId,
    is_meant: impl Fn(&Listed) -> bool,
    is_meant_scope: impl Fn(Scope) -> bool,
) -> Result<(), StopError> {
    let Removal { result, directories, kept } = remove_containers(config, job, is_meant);
    let mut first = result;
    for state in directories {
        first = first.and(remove_state(&state, &is_meant_scope));
    }
    postpone(&kept);
    first
}

/// Containers that are still there are left to others, who find no more of the job than that.
fn postpone(kept: &[ScopeDir]) {
    for state in kept {
        // Where it cannot be written, each tries.
        let _ = state.postpone();
    }
}

/// What has become of the containers of a job.
struct Removal {
    result: Result<(), StopError>,
    /// Where its state may be.
    directories: BTreeSet<StateDir>,
    /// Whose container is still there.
    kept: Vec<ScopeDir>,
}

/// Removes these containers of the job from each engine that may have one.
fn remove_containers(config: &Config, job: JobId, is_meant: impl Fn(&Listed) -> bool) -> Removal {
    let configured = StateDir::new(&config.state_dir);
    let sockets = engines(config, &configured, job);
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            let result = Err(StopError::Runtime(error));
            return Removal { result, directories: BTreeSet::from([configured]), kept: Vec::new() };
        }
    };
    let label = format!("{LABEL_JOB}={job}");
    let mut removal =
        Removal { result: Ok(()), directories: BTreeSet::from([configured.clone()]), kept: Vec::new() };
    for socket in sockets {
        let removed = runtime.block_on(async {
            let Some(engine) = connect(config, &socket).await? else { return Ok(Vec::new()) };
            let listed = engine.labelled(&label).await?.into_iter().filter(|listed| is_meant(listed));
            let found = listed.filter_map(|listed| {
                let state_dir = ownership::state_dir(&listed, config);
                Belonging::of(listed, state_dir.unwrap_or_else(|| configured.clone()))
            });
            let found: Vec<_> = found.collect();
            removal.directories.extend(found.iter().map(|found| found.state_dir.clone()));
            Ok::<_, StopError>(remove_found(&engine, &found, engine::PATIENCE).await)
        });
        let failed = match removed {
            Ok(failed) => failed,
            Err(error) => {
                removal.result = removal.result.and(Err(error));
                continue;
            }
        };
        for (state, error) in failed {
            removal.kept.push(state);
            removal.result = removal.result.and(Err(error.into()));
        }
    }
    removal
}

/// The configured engine, and that which the job's containers were asked of, should the configuration have changed or be
/// no longer readable.
fn engines(config: &Config, state: &StateDir, job: JobId) -> BTreeSet<PathBuf> {
    let scopes = state.scopes().unwrap_or_default().into_iter().filter(|scope| scope.job == job);
    let records = scopes.filter_map(|scope| state.of(scope).read().ok().flatten());
    records.filter_map(|record| record.engine).chain([config.docker_host.clone()]).collect()
}

/// `None` where there never was an engine, and so no container.
pub(super) async fn connect(config: &Config, socket: &Path) -> Result<Option<Engine>, StopError> {
    match engine_health::connect_to(config, socket).await {
        Ok(engine) => Ok(Some(engine)),
        Err(EngineError::Absent { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A container that was found by its labels, and where its state is.
pub(super) struct Belonging {
    pub(super) listed: Listed,
    state_dir: StateDir,
    pub(super) state: ScopeDir,
}

impl Belonging {
    /// `None` for what is no container of ours.
    pub(super) fn of(listed: Listed, state_dir: StateDir) -> Option<Self> {
        let state = state_dir.of(ownership::scope(&listed)?);
        Some(Self { listed, state_dir, state })
    }
}

/// Removes these, all at the same time. Those that are still there, and why.
pub(super) async fn remove_found(
    engine: &Engine,
    found: &[Belonging],
    patience: Duration,
) -> Vec<(ScopeDir, EngineError)> {
    let removals =
        found.iter().map(|found| engine.remove(&found.listed.container, found.state.written_to(), patience));
    let removed = join_all(removals).await.into_iter().zip(found);
    removed.filter_map(|(removed, found)| Some((found.state.clone(), removed.err()?))).collect()
}

/// Removes the state of these scopes.
fn remove_state(state: &StateDir, is_meant: impl Fn(Scope) -> bool) -> Result<(), StopError> {
    let scopes =
        state.scopes().map_err(|source| StopError::List { path: state.path().to_owned(), source })?;
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
pub(super) fn remove_scope(directory: &ScopeDir) -> Result<(), StopError> {
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::linux::lacking;

    #[test]
    fn cgroup_that_cannot_be_removed_stays_recorded_until_it_is_gone() {
        if lacking::root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let (job, cgroup) = (directory.path().join("job_7"), directory.path().join("job_7/step_extern"));
        // A file of no kernel's keeps it.
        fs::create_dir_all(&cgroup).unwrap();
        fs::write(job.join("kept"), "").unwrap();
        let state = StateDir::new(&directory.path().join("state")).of(Scope::job(JobId(7)));
        state.ensure().unwrap();
        state.write_cgroups([cgroup.as_path()].into_iter()).unwrap();
        assert!(matches!(remove_scope(&state), Err(StopError::Cgroup { path, .. }) if path == job));
        assert_eq!(state.cgroups(), [cgroup]);
        fs::remove_file(job.join("kept")).unwrap();
        remove_scope(&state).unwrap();
        assert!(!job.exists() && !directory.path().join("state/7").exists());
    }
}

//! Removal of what was found on a node: containers by their labels, records, cgroups. What is absent counts as
//! removed.
//!
//! Runs as root wherever something ends: see `stop` and `reap`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;

use super::image_cache::ImageCacheError;
use super::{engine_health, ownership};
use crate::engine::{Engine, EngineError, ImageError, Listed};
use crate::linux::cgroup;
use crate::settings::plugstack::Config;
use crate::slurm::ids::JobId;
use crate::state::{OwnerDir, StateDir, StateError};

/// What could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// The first failure of the engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The first failure of a file system.
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
        /// The cgroup of the extern step.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The job's prolog cannot be ended.
    #[error("the prolog of job {job} does not end")]
    Prolog {
        /// The job.
        job: JobId,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The images that an interrupted pull may have brought cannot be marked as private.
    #[error("cannot clean up after an interrupted pull")]
    Pulls(#[source] ImageError),
    /// There is no room for images.
    #[error(transparent)]
    ImageCache(#[from] ImageCacheError),
    /// The running jobs are not known: so nothing is removed.
    #[error("cannot find out which jobs run on this node: nothing of other jobs is removed")]
    Processes(#[source] std::io::Error),
    /// The removal would take longer than a hook may wait.
    #[error("leftovers of other jobs were not all removed within {seconds} s: later epilogs remove the rest")]
    Slow {
        /// The deadline.
        seconds: u64,
    },
    /// No event loop could be made.
    #[error("cannot create an event loop")]
    Runtime(#[source] std::io::Error),
}

impl StopError {
    /// Whether the engine is installed and does not work.
    #[must_use]
    pub fn is_engine_fault(&self) -> bool {
        matches!(self, Self::Engine(error) if error.is_engine_fault())
    }
}

/// `None` where there never was an engine, and so there are no containers.
pub(super) async fn connect(config: &Config, socket: &Path) -> Result<Option<Engine>, StopError> {
    match engine_health::connect_to(config, socket).await {
        Ok(engine) => Ok(Some(engine)),
        Err(EngineError::Absent { .. } | EngineError::NotSocket { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A container that was found by its labels, and the place of its record.
pub(super) struct Belonging {
    pub(super) listed: Listed,
    pub(super) state_dir: StateDir,
    pub(super) state: OwnerDir,
}

impl Belonging {
    /// `None` if the plugin did not make the container.
    pub(super) fn of(listed: Listed, state_dir: StateDir) -> Option<Self> {
        let state = state_dir.of(ownership::owner(&listed)?);
        Some(Self { listed, state_dir, state })
    }
}

/// Removes these containers concurrently. Returns those that are still there, with the reasons.
pub(super) async fn remove_found(
    engine: &Engine,
    found: &[Belonging],
    patience: Duration,
) -> Vec<(OwnerDir, EngineError)> {
    let removals =
        found.iter().map(|found| engine.remove(&found.listed.container, found.state.written_to(), patience));
    let removed = join_all(removals).await.into_iter().zip(found);
    removed.filter_map(|(removed, found)| Some((found.state.clone(), removed.err()?))).collect()
}

/// Removes the record of an owner with all that it names. Where a cgroup cannot be removed, the record stays,
/// for a later epilog to try again.
pub(super) fn remove_scope(directory: &OwnerDir) -> Result<(), StopError> {
    match remove_cgroups(directory) {
        Ok(()) => Ok(directory.remove()?),
        Err(error) => {
            directory.remove_container()?;
            Err(error)
        }
    }
}

/// Removes what an owner has on the node, keys above all, except for the record: its container may still be there, and a later
/// hook that removes it needs to know where its files are.
pub(super) fn remove_all_but_record(directory: &OwnerDir) -> Result<(), StopError> {
    let cgroups = remove_cgroups(directory);
    let (files, noted) = (directory.remove_container(), directory.note_ended());
    cgroups.and(files.and(noted).map_err(StopError::from))
}

fn remove_cgroups(directory: &OwnerDir) -> Result<(), StopError> {
    let cgroups = directory.cgroups();
    let cgroups: Vec<&Path> = cgroups.iter().map(PathBuf::as_path).collect();
    cgroup::remove(&cgroups).map_err(|(path, source)| StopError::Cgroup { path: path.to_owned(), source })
}

/// Whether a container of this owner may still be there at an engine that cannot be asked.
pub(super) fn may_have_container(directory: &OwnerDir) -> bool {
    directory.written_to().is_some()
        || directory.read().ok().flatten().is_some_and(|record| record.is_ready())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::linux::lacking;
    use crate::slurm::ids::Owner;

    #[test]
    fn cgroup_that_cannot_be_removed_stays_recorded_until_it_is_gone() {
        if lacking::root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let (job, cgroup) = (directory.path().join("job_7"), directory.path().join("job_7/step_extern"));
        // An ordinary file, which unlike the kernel's own files keeps a directory from being removed.
        fs::create_dir_all(&cgroup).unwrap();
        fs::write(job.join("kept"), "").unwrap();
        let state = StateDir::new(&directory.path().join("state")).of(Owner::job(JobId(7)));
        state.ensure().unwrap();
        state.write_cgroups([cgroup.as_path()].into_iter()).unwrap();
        assert!(matches!(remove_scope(&state), Err(StopError::Cgroup { path, .. }) if path == job));
        assert_eq!(state.cgroups(), [cgroup]);
        fs::remove_file(job.join("kept")).unwrap();
        remove_scope(&state).unwrap();
        assert!(!job.exists() && !directory.path().join("state/7").exists());
    }
}

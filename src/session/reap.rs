//! What a starting slurmd clears away: containers and files of jobs that no longer run, left by a node that went down
//! or a slurmd that died with them. Their epilog will never come.
//!
//! Runs as root in slurmd, once, before it serves jobs; so it must not take long, and must not fail.

use std::collections::BTreeSet;
use std::path::Path;

use super::stop::{self, LABEL_JOB, StopError};
use crate::config::Config;
use crate::docker::{self, Engine, EngineError};
use crate::job::JobId;
use crate::slurm::stepd;
use crate::state::StateDir;

/// Removes what belongs to no running job, and returns whose it was.
pub fn reap(config: &Config) -> Result<BTreeSet<JobId>, StopError> {
    let runtime = docker::runtime().map_err(StopError::Runtime)?;
    let running = stepd::jobs();
    let is_left = |job: &JobId| !running.contains(job);
    let containers = runtime.block_on(reap_containers(&config.docker_host, is_left));
    let scopes = StateDir::new(&config.state_dir).scopes().unwrap_or_default();
    let mut reaped: BTreeSet<JobId> = scopes.into_iter().map(|scope| scope.job).filter(is_left).collect();
    let files = stop::remove_state(&config.state_dir, |scope| reaped.contains(&scope.job));
    reaped.extend(containers?);
    files?;
    Ok(reaped)
}

async fn reap_containers(
    socket: &Path,
    is_left: impl Fn(&JobId) -> bool,
) -> Result<BTreeSet<JobId>, StopError> {
    let engine = match Engine::connect(socket).await {
        Ok(engine) => engine,
        Err(EngineError::Absent { .. }) => return Ok(BTreeSet::new()),
        Err(error) => return Err(error.into()),
    };
    let mut listed = engine.labelled(LABEL_JOB).await?;
    listed.retain(|listed| stop::scope(listed).is_some_and(|scope| is_left(&scope.job)));
    stop::remove_listed(&engine, listed.iter()).await?;
    Ok(listed.iter().filter_map(stop::scope).map(|scope| scope.job).collect())
}

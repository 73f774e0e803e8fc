//! The containers of jobs on this node, by the engine's labels and by the records in `state_dir`. Changes nothing.
//!
//! Runs as root in `spank-docker`.

use std::collections::BTreeMap;
use std::io;

use super::ownership::{self, LABEL_JOB};
use crate::engine::{Engine, EngineError, Listed};
use crate::linux::process::{self, Process};
use crate::settings::plugstack::Config;
use crate::slurm::ids::Owner;
use crate::state::{Outcome, Record, RunningContainer, StateDir};

/// The container of a job or step, or a start that has none yet.
#[derive(Debug, Default)]
pub struct Surveyed {
    /// As the engine lists it.
    pub listed: Option<Listed>,
    /// What its start has left. `None` where nothing is there, or it cannot be read.
    pub record: Option<Record>,
}

/// Why containers cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The records.
    #[error("cannot list the containers' records in state_dir")]
    State(#[source] io::Error),
}

/// What runs in a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// So many processes, tasks of Slurm and ssh sessions included.
    pub processes: u64,
    /// The sum of their resident memory, in bytes: memory that some of them share is counted for each.
    pub resident: u64,
}

/// All containers of jobs, and all starts.
pub async fn survey(config: &Config, engine: &Engine) -> Result<BTreeMap<Owner, Surveyed>, SurveyError> {
    let state = StateDir::new(&config.state_dir);
    let mut found: BTreeMap<Owner, Surveyed> = BTreeMap::new();
    for listed in engine.labelled(LABEL_JOB).await? {
        let Some(owner) = ownership::owner(&listed) else { continue };
        let state = ownership::state_dir(&listed, config).map(|state| state.of(owner));
        let record = state.and_then(|state| state.read().ok().flatten());
        found.insert(owner, Surveyed { listed: Some(listed), record });
    }
    for owner in state.owners().map_err(SurveyError::State)? {
        let record = state.of(owner).read().ok().flatten();
        if record.as_ref().is_some_and(has_or_gets_one) {
            found.entry(owner).or_default().record = record;
        }
    }
    Ok(found)
}

fn has_or_gets_one(record: &Record) -> bool {
    match record.outcome {
        Outcome::Starting | Outcome::Ready(_) | Outcome::Failed { .. } | Outcome::BrokenOff { .. } => true,
        Outcome::Host | Outcome::OfSteps(_) => false,
    }
}

/// The name of the user that a container was started for.
#[must_use]
pub fn user(listed: &Listed) -> Option<&str> {
    ownership::label(listed, ownership::LABEL_USER)
}

/// What runs in these containers now, by /proc. Processes that end meanwhile are not counted.
#[must_use]
pub fn uses(containers: &BTreeMap<Owner, &RunningContainer>) -> BTreeMap<Owner, Use> {
    let mut uses: BTreeMap<Owner, Use> = containers.keys().map(|owner| (*owner, Use::default())).collect();
    for process in process::all().into_iter().flatten().filter_map(|pid| Process::find(pid).ok()) {
        let has_it = |running: &RunningContainer| running.namespaces.are_mounts_of(&process).unwrap_or(false);
        let owner = containers.iter().find(|(_, running)| has_it(running)).map(|(owner, _)| owner);
        if let Some(use_) = owner.and_then(|owner| uses.get_mut(owner)) {
            use_.processes += 1;
            use_.resident = use_.resident.saturating_add(process.resident().unwrap_or(0));
        }
    }
    uses
}

//! Adoption: the container's processes move into the cgroups of the job's extern step, so that ranks started over ssh
//! obey the job's limits and end with it.
//!
//! Runs as root in the extern step's slurmstepd.

use std::io;

use crate::job::Scope;
use crate::state::{Outcome, ScopeDir, StateDir, StateError};
use crate::sys::cgroup::Cgroups;
use crate::sys::process::Process;

/// Why a container could not be adopted. Told to the user by the job's tasks.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// No cgroups to move it to.
    #[error("the job's extern step has no cgroup; ask the admin to set ProctrackType=proctrack/cgroup")]
    NoCgroup,
    /// The kernel refused.
    #[error("cannot move the container into the job's cgroups")]
    Move(#[source] io::Error),
    /// The prolog's record.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Adopts the container of `scope`, when it has one, and writes the result down for the tasks that wait.
/// `placeholder` is the process that stands for the extern step, where Slurm starts one.
pub fn adopt(state: &StateDir, scope: Scope, placeholder: Option<i32>) -> Result<(), AdoptError> {
    let directory = state.of(scope);
    let result = move_processes(&directory, placeholder);
    directory.write_adoption(result.as_ref().map_err(ToString::to_string).copied())?;
    result
}

fn move_processes(directory: &ScopeDir, placeholder: Option<i32>) -> Result<(), AdoptError> {
    let Some(Outcome::Ready(session)) = directory.read()?.map(|record| record.outcome) else {
        return Ok(());
    };
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let step = Cgroups::of_extern_step(&[Some(own), placeholder].into_iter().flatten().collect::<Vec<_>>())
        .map_err(AdoptError::Move)?;
    if step.is_empty() {
        return Err(AdoptError::NoCgroup);
    }
    directory.write_cgroups(step.directories())?;
    // Died already: the tasks will notice by themselves.
    let Some(process) = Process::recall(session.process).map_err(AdoptError::Move)? else { return Ok(()) };
    let container =
        Cgroups::of_container(process.id().pid, &session.container_id).map_err(AdoptError::Move)?;
    step.adopt_all(&container).map_err(AdoptError::Move)
}

//! Adoption: the container's processes move into the cgroups of the job's extern step, or of the step that the container
//! belongs to, so that ranks started over ssh obey the limits and end with the job or step.
//!
//! Runs as root: in the extern step's slurmstepd, and in the task that starts the container of its step.

use std::io;

use crate::job::Scope;
use crate::state::{Outcome, ScopeDir, Session, StateDir, StateError};
use crate::sys::cgroup::Cgroups;
use crate::sys::process::Process;

/// Why a container could not be adopted. Told to the user by the job's tasks.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// No cgroups to move it to.
    #[error("the job's extern step has no cgroup; ask the admin to set ProctrackType=proctrack/cgroup")]
    NoCgroup,
    /// The same for a step's own container.
    #[error("the step has no cgroup; ask the admin to set ProctrackType=proctrack/cgroup")]
    NoStepCgroup,
    /// The kernel refused.
    #[error("cannot move the container into the job's cgroups")]
    Move(#[source] io::Error),
    /// The prolog's record.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Adopts the container of `scope`, when it has one, writes the result down for the tasks that wait, and returns the
/// session. `placeholder` is the process that stands for the extern step, where Slurm starts one.
pub fn adopt(
    state: &StateDir,
    scope: Scope,
    placeholder: Option<i32>,
) -> Result<Option<Box<Session>>, AdoptError> {
    let directory = state.of(scope);
    let result = move_processes(&directory, placeholder);
    directory.write_adoption(result.as_ref().map(drop).map_err(ToString::to_string))?;
    result
}

fn move_processes(
    directory: &ScopeDir,
    placeholder: Option<i32>,
) -> Result<Option<Box<Session>>, AdoptError> {
    let Some(Outcome::Ready(session)) = directory.read()?.map(|record| record.outcome) else {
        return Ok(None);
    };
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let step = Cgroups::of_extern_step(&[Some(own), placeholder].into_iter().flatten().collect::<Vec<_>>())
        .map_err(AdoptError::Move)?;
    if step.is_empty() {
        return Err(AdoptError::NoCgroup);
    }
    move_to(&step, directory, &session)?;
    Ok(Some(session))
}

/// Adopts the container of the step that this process is a task of.
pub(super) fn into_own_step(directory: &ScopeDir, session: &Session) -> Result<(), AdoptError> {
    let step = Cgroups::of_own_step().map_err(AdoptError::Move)?.ok_or(AdoptError::NoStepCgroup)?;
    move_to(&step, directory, session)
}

fn move_to(step: &Cgroups, directory: &ScopeDir, session: &Session) -> Result<(), AdoptError> {
    directory.write_cgroups(step.directories())?;
    // Died already: the tasks will notice by themselves.
    let Some(process) = Process::recall(session.process).map_err(AdoptError::Move)? else { return Ok(()) };
    let container =
        Cgroups::of_container(process.id().pid, &session.container_id).map_err(AdoptError::Move)?;
    step.adopt_all(&container).map_err(AdoptError::Move)
}

//! Waits for the adoption: no command runs before the job's limits hold for the container.

use std::time::{Duration, Instant};

use super::error::TaskError;
use crate::linux::poll;
use crate::slurm::ids::{JobId, Owner};
use crate::slurm::stepd;
use crate::state::StateDir;

/// How long a task waits for the extern step to adopt the container. The extern step starts with the job, so
/// that usually takes milliseconds; but on an overloaded node a slurmstepd was seen to take 26 s to start.
const ADOPTION: Duration = Duration::from_secs(120);
/// After this time the task checks whether there is an extern step at all.
const GRACE: Duration = Duration::from_secs(3);
/// Interval between checks.
const INTERVAL: Duration = Duration::from_millis(5);

/// Waits for the extern step to have adopted the job's container.
pub fn wait_for_adoption(state: &StateDir, job: JobId) -> Result<(), TaskError> {
    let directory = state.of(Owner::job(job));
    let wait =
        |patience| poll::until(Instant::now() + patience, INTERVAL, || directory.adoption(), Option::is_some);
    let adopted = match wait(GRACE) {
        // Without `PrologFlags=Contain` there is no extern step.
        None if stepd::has_extern_step(job) => wait(ADOPTION - GRACE),
        adopted => adopted,
    };
    adopted.ok_or(TaskError::NoExternStep { job })?.map_err(TaskError::Adoption)
}

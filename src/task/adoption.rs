//! No command runs before the job's limits hold for the container.

use std::time::{Duration, Instant};

use super::error::TaskError;
use crate::linux::poll;
use crate::slurm::ids::{JobId, Owner};
use crate::slurm::stepd;
use crate::state::StateDir;

/// How long a task waits for the extern step to take the container over. It starts with the job, so it is mere
/// milliseconds away, if it comes at all; but on an overloaded node a slurmstepd was seen to take 26 s to start.
const ADOPTION: Duration = Duration::from_secs(120);
/// After that long the task checks whether it is on its way at all.
const GRACE: Duration = Duration::from_secs(3);
/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(5);

/// Waits for the extern step to have adopted the job's container.
pub fn wait_for_adoption(state: &StateDir, job: JobId) -> Result<(), TaskError> {
    let directory = state.of(Owner::job(job));
    let wait =
        |patience| poll::until(Instant::now() + patience, INTERVAL, || directory.adoption(), Option::is_some);
    let adopted = match wait(GRACE) {
        // Without `Contain` none will ever come.
        None if stepd::has_extern_step(job) => wait(ADOPTION - GRACE),
        adopted => adopted,
    };
    adopted.ok_or(TaskError::NoExternStep { job })?.map_err(TaskError::Adoption)
}

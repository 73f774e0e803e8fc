//! No command runs before the job's limits hold for the container.

use std::time::{Duration, Instant};

use super::error::TaskError;
use crate::slurm::ids::{JobId, Owner};
use crate::slurm::stepd;
use crate::state::StateDir;

/// How long a task waits for the extern step to take the container over. It starts with the job, so it is mere
/// milliseconds away, if it comes at all.
const ADOPTION: Duration = Duration::from_secs(30);
/// After that long somebody looks whether it is on its way at all.
const GRACE: Duration = Duration::from_secs(3);
/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(5);

/// Waits for the extern step to have adopted the job's container.
pub fn wait_for_adoption(state: &StateDir, job: JobId) -> Result<(), TaskError> {
    let directory = state.of(Owner::job(job));
    let deadline = Instant::now() + ADOPTION;
    let mut missing = Some(Instant::now());
    let adopted = loop {
        match directory.adoption() {
            Some(adopted) => break adopted,
            None if Instant::now() > deadline => return Err(TaskError::NoExternStep { job }),
            // Without `Contain` none will ever come.
            None if missing.is_some_and(|since| Instant::now() > since + GRACE) => {
                if !stepd::has_extern_step(job) {
                    return Err(TaskError::NoExternStep { job });
                }
                missing = None;
            }
            None => std::thread::sleep(INTERVAL),
        }
    };
    adopted.map_err(TaskError::Adoption)
}

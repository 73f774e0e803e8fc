//! With `accounting=admin_comment`, the image of a job is noted in its AdminComment, once per job: by the first node
//! with its container, or by the end of the first step that has brought an image into a job without one.
//!
//! Runs as root in the prolog, and in a step's slurmstepd at the step's end. Never fails a job.

use std::time::Duration;

use super::request::Request;
use crate::linux::orphan;
use crate::log::{Log, error_chain};
use crate::settings::plugstack::{Accounting, Config};
use crate::slurm::ids::Owner;
use crate::slurm::image_comment;
use crate::state::{Counters, OnceFlag, Outcome, RunningContainer, StateDir};

/// How long slurmctld may take, when the prologs of all nodes have ended.
const GRACE: Duration = Duration::from_secs(90);
/// How long prologs may take that have no limit.
const PROLOGS: Duration = Duration::from_secs(3600);

fn note(running: &RunningContainer) -> String {
    image_comment::note(&running.image, running.image_digest.as_deref(), &running.image_id)
}

fn count_failure() {
    let _ = Counters::default().count(|counts| counts.failed_notes = counts.failed_notes.saturating_add(1));
}

/// Leaves a process behind that notes the job's image, so that the job does not wait for slurmctld.
pub(super) fn of_job(config: &Config, request: &Request, running: &RunningContainer, log: &mut dyn Log) {
    if config.accounting != Accounting::AdminComment || !request.is_first_node() {
        return;
    }
    let (job, nodes, note) = (request.owner.job, running.nodes, note(running));
    let limit = config.start_timeout.unwrap_or(PROLOGS) + GRACE;
    let seconds = limit.as_secs().try_into().unwrap_or(u32::MAX);
    let write = || {
        // It has no log any more: slurmd would wait for the end of the prolog's output.
        if image_comment::write_after_prologs(job, nodes, &note).is_err() {
            count_failure();
        }
    };
    if let Err(error) = orphan::spawn_alone(seconds, write) {
        log.error(&format!("job {job}: cannot note its image for the accounting: {error}"));
    }
}

/// The image of a step with a container of its own, if its job has none. Call it before the step's record is removed,
/// and the result after the container.
pub(super) fn of_step(config: &Config, owner: Owner) -> Option<impl FnOnce(&mut dyn Log)> {
    if config.accounting != Accounting::AdminComment {
        return None;
    }
    let state = StateDir::new(&config.state_dir);
    let running = match state.of(owner).read().ok()??.outcome {
        Outcome::Ready(running) if running.is_on_first_node() => running,
        _ => return None,
    };
    let job = state.of(Owner::job(owner.job));
    let has_container = job.read().ok()?.is_some_and(|record| record.is_ready());
    if has_container || !job.claim(OnceFlag::ImageNoted).ok()? {
        return None;
    }
    Some(move |log: &mut dyn Log| {
        if let Err(error) = image_comment::write(owner.job, &note(&running)) {
            count_failure();
            log.info(&format!(
                "job {owner}: cannot note its image for the accounting: {}",
                error_chain(&error)
            ));
        }
    })
}

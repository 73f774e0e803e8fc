//! How a failure on one node reaches the user of a job that has several.
//!
//! Nodes of a job do not talk to each other; slurmctld is what they share. A prolog that fails writes the cause to the
//! job (AdminComment, which only admins can write, and which stays to be looked up). A waiting srun or salloc is told
//! at once, and its job ended, before a task has run. A batch job has nobody who waits and no output yet: its script's
//! task, which starts when all prologs have ended, asks slurmctld whether any node has failed. So does a prolog that waits for
//! a pull, or all would wait for it.
//!
//! Runs as root in the prolog, and in the task of a batch step before it becomes the user.

use std::time::Duration;

use super::ids::JobId;
use super::scontrol::{self, BEFORE, ControllerJob, SlurmError};

/// slurmctld hands on what a waiting client is told when it comes to it, and a client whose job has ended hears nothing any
/// more.
const DELIVERY: Duration = Duration::from_secs(1);

/// One start of a job: it may be queued again, and what was written before does not count any more.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// The job.
    pub job: JobId,
    /// How often it was queued again.
    pub restart: u32,
}

/// Who ends a job whose start has failed on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// Its tasks, which find the record of the failure. A job of srun or salloc is ended before it has any.
    Tasks,
    /// A batch job's own script, which knows that there should be a record, and asks. Where the script is another component's,
    /// whose job may have no image, nobody would: the job is ended before it has tasks, as those of srun and salloc are.
    Script,
    /// Nobody of its own: slurmstepd goes to the working directory before it starts anybody, and would wait there for ever.
    Prolog,
    /// Slurm: it has been queued again, or is when the prolog fails.
    Slurm,
}

/// Tells slurmctld, and whoever waits for the job, why it cannot run on `node`. Of many nodes with the same trouble the
/// first is enough.
pub fn report_failure(start: Start, node: &str, line: &str, end: EndedBy) -> Result<(), SlurmError> {
    let known = scontrol::show(start.job)?;
    let is_first = already_reported(&known, start).is_none();
    // All are tried; the first failure is told.
    let mut result = Ok(());
    let mut keep_first = |done: Result<(), SlurmError>| {
        if result.is_ok() {
            result = done;
        }
    };
    if is_first {
        if !known.batch {
            keep_first(scontrol::notify(start.job, &format!("spank_docker: {node}: {line}")));
        }
        keep_first(scontrol::comment(&known, &format!("{}{node}: {line}", report_tag(start))));
    }
    if ends_now(&known, end) {
        // No task starts meanwhile: this prolog still runs.
        if !known.batch {
            std::thread::sleep(DELIVERY);
        }
        keep_first(scontrol::cancel(&known));
    }
    result
}

fn ends_now(job: &ControllerJob, end: EndedBy) -> bool {
    match end {
        EndedBy::Tasks => !job.batch,
        EndedBy::Script => !job.batch || job.is_later_component,
        EndedBy::Prolog => true,
        EndedBy::Slurm => false,
    }
}

/// Takes a node out of service, and has the job queued again. Whether it is: slurmctld refuses it for a job without a script,
/// and where its user has said so.
///
/// Not by a prolog that fails. Slurm would do the same then; but of a job that cannot be queued again it refuses to take the
/// word that the prolog has ended, and slurmd repeats that every 15 s: each time the node is drained anew, whatever the admin
/// does (slurmd, `_notify_slurmctld_prolog_fini`; seen with 22.05 and 26.05).
pub fn out_of_service(start: Start, node: &str, line: &str) -> Result<bool, SlurmError> {
    // First: it must not come back to this node.
    scontrol::drain(node, &format!("spank_docker: {line}"))?;
    let is_again = |known: ControllerJob| {
        let script = known.batch || known.leader.is_some();
        script && scontrol::requeue(&known).is_ok()
    };
    let is_queued = scontrol::show(start.job).is_ok_and(is_again);
    // Another node has been quicker, or it was cancelled.
    Ok(is_queued || scontrol::show(start.job).is_ok_and(|known| known.over))
}

/// What slurmctld knows of a job's nodes.
#[derive(Debug, Default)]
pub struct JobNodes {
    /// The job has ended, or is about to.
    pub over: bool,
    /// Some are still in their prologs.
    pub unready: bool,
    /// What one has told of this start: `n2: image 'a': …`.
    pub failure: Option<String>,
}

/// Asks slurmctld for them.
pub fn nodes(start: Start) -> Result<JobNodes, SlurmError> {
    scontrol::show(start.job).map(|known| of(&known, start))
}

/// The same, while the event loop goes on.
pub async fn nodes_meanwhile(start: Start) -> Result<JobNodes, SlurmError> {
    scontrol::show_meanwhile(start.job).await.map(|known| of(&known, start))
}

fn of(known: &ControllerJob, start: Start) -> JobNodes {
    JobNodes { over: known.over, unready: known.in_prolog, failure: already_reported(known, start) }
}

const REPORT_TAG: &str = "spank_docker: start ";

fn report_tag(start: Start) -> String {
    format!("{REPORT_TAG}{} on ", u64::from(start.restart) + 1)
}

fn already_reported(job: &ControllerJob, start: Start) -> Option<String> {
    job.comment.as_deref().and_then(|comment| first_report(comment, start))
}

/// The first of possibly several, before what others have written.
fn first_report(comment: &str, start: Start) -> Option<String> {
    let (_, from) = comment.split_once(&report_tag(start))?;
    let line = from.split(REPORT_TAG).next().unwrap_or(from).split(BEFORE).next().unwrap_or(from);
    Some(line.trim_end_matches([',', ' ']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(restart: u32) -> Start {
        Start { job: JobId(5), restart }
    }

    #[test]
    fn a_cause_is_found_again_among_others() {
        for text in [
            "spank_docker: start 1 on n2: image 'a': too bad | spank_docker: start 1 on n3: no | of the site",
            "spank_docker: start 1 on n2: image 'a': too bad | of | the site",
            "of the site,spank_docker: start 1 on n2: image 'a': too bad",
        ] {
            assert_eq!(first_report(text, start(0)).unwrap(), "n2: image 'a': too bad");
        }
        assert_eq!(
            first_report("spank_docker: start 1 on n3: no, never", start(0)).unwrap(),
            "n3: no, never"
        );
        assert_eq!(first_report("of the site", start(0)), None);
    }

    #[test]
    fn report_of_an_earlier_start_is_ignored() {
        let text = "spank_docker: start 12 on n3: never | spank_docker: start 1 on n2: no";
        assert_eq!(first_report(text, start(1)), None);
        assert_eq!(first_report(text, start(11)).unwrap(), "n3: never");
    }
}

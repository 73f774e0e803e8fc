//! How a failure on one node reaches the user of a job that has several.
//!
//! Nodes of a job do not talk to each other; they share slurmctld. A prolog that fails writes the cause to the
//! job (AdminComment, which only admins can write, and which stays readable). A waiting srun or salloc gets the
//! cause at once, and its job ends before a task has run. A batch job has no waiting client and no output yet:
//! its script's task, which starts when all prologs have ended, asks slurmctld whether any node has failed. So
//! does a prolog that waits for a pull; otherwise all nodes would wait for it.
//!
//! Runs as root in the prolog, and in the task of a batch step before it becomes the user.

use std::time::Duration;

use super::command::SlurmError;
use super::ids::JobId;
use super::scontrol::{self, BEFORE};
use super::scontrol_output::ControllerJob;

/// slurmctld delivers messages to a waiting client with a delay, and a client whose job has ended receives none.
const DELIVERY: Duration = Duration::from_secs(1);

/// One start of a job. Slurm may requeue the job; reports about earlier starts do not count any more.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// The job.
    pub job: JobId,
    /// How often Slurm requeued it.
    pub restart: u32,
}

/// What ends a job whose start has failed on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// Its tasks, which find the record of the failure. slurmctld ends a job of srun or salloc before it has
    /// any.
    Tasks,
    /// A batch job's own script, which knows that there should be a record, and asks slurmctld. Not used where
    /// the script belongs to another component, whose job may have no image and would not ask: then the job is
    /// ended before it has tasks, like those of srun and salloc.
    Script,
    /// This prolog: slurmstepd changes to the working directory before it starts a task, and would hang there
    /// for ever.
    Prolog,
    /// Slurm: it has requeued the job, or will do so when the prolog fails.
    Slurm,
}

/// Reports to slurmctld, and to a client that waits for the job, why it cannot run on `node`. When many nodes
/// fail for the same reason, the first report is enough.
pub fn report_failure(start: Start, node: &str, line: &str, end: EndedBy) -> Result<(), SlurmError> {
    let known = scontrol::show(start.job)?;
    let is_first = already_reported(&known, start).is_none();
    // Tries each report; returns the first failure.
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
        // No task starts meanwhile, because this prolog still runs.
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

/// Drains a node, and requeues the job. Returns whether slurmctld has requeued it: slurmctld refuses that for a
/// job without a script, and where the user has forbidden it.
///
/// Failing the prolog instead does not work. Slurm would then do both by itself; but for a job that cannot be
/// requeued slurmctld rejects the message that the prolog has ended, and slurmd repeats it every 15 s: each
/// time slurmctld drains the node again, whatever the admin does (slurmd, `_notify_slurmctld_prolog_fini`; seen
/// with 22.05 and 26.05).
pub fn out_of_service(start: Start, node: &str, line: &str) -> Result<bool, SlurmError> {
    // Drains first, so that the requeued job does not come back to this node.
    scontrol::drain(node, &format!("spank_docker: {line}"))?;
    let is_again = |known: ControllerJob| {
        let script = known.batch || known.leader.is_some();
        script && scontrol::requeue(&known).is_ok()
    };
    let is_queued = scontrol::show(start.job).is_ok_and(is_again);
    // Another node has requeued it already, or a user has cancelled it.
    Ok(is_queued || scontrol::show(start.job).is_ok_and(|known| known.over))
}

/// What slurmctld reports about a job's start.
#[derive(Debug, Default)]
pub struct JobStatus {
    /// The job has ended, or is ending.
    pub over: bool,
    /// Some of its nodes are still in their prologs.
    pub unready: bool,
    /// A node's report about this start: `n2: image 'a': …`.
    pub failure: Option<String>,
}

/// Asks slurmctld for the state of the job's start.
pub fn status(start: Start) -> Result<JobStatus, SlurmError> {
    scontrol::show(start.job).map(|known| of(&known, start))
}

/// The same, asynchronously.
pub async fn status_meanwhile(start: Start) -> Result<JobStatus, SlurmError> {
    scontrol::show_meanwhile(start.job).await.map(|known| of(&known, start))
}

fn of(known: &ControllerJob, start: Start) -> JobStatus {
    JobStatus { over: known.over, unready: known.in_prolog, failure: already_reported(known, start) }
}

const REPORT_TAG: &str = "spank_docker: start ";

fn report_tag(start: Start) -> String {
    format!("{REPORT_TAG}{} on ", u64::from(start.restart) + 1)
}

fn already_reported(job: &ControllerJob, start: Start) -> Option<String> {
    job.comment.as_deref().and_then(|comment| first_report(comment, start))
}

/// The first of possibly several reports, which precede comments of others.
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
    fn report_is_found_in_an_admin_comment_with_other_text() {
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

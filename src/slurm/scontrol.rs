//! Slurm's own commands, for operations that the SPANK interface lacks.
//!
//! Runs as root: in the prolog, in a batch step before it becomes the user, in the slurmstepd of a step, and in
//! `spank-docker check`.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::process::Command;

use super::command::{SlurmError, find, run, run_in_loop, run_meanwhile, run_program};
use super::ids::{JobId, StepId};
use super::scontrol_output::{ControllerJob, is_drained, parse, parse_addresses, parse_gpus, parse_jobs};

/// Asks slurmctld for a job (`scontrol show job`).
pub fn show(job: JobId) -> Result<ControllerJob, SlurmError> {
    let shown = run("scontrol", &["show", "job", &job.to_string()])?;
    parse(&shown, job).ok_or(SlurmError::Unknown(job))
}

/// The same, asynchronously.
pub async fn show_meanwhile(job: JobId) -> Result<ControllerJob, SlurmError> {
    let shown = run_meanwhile("scontrol", &["show", "job", &job.to_string()]).await?;
    parse(&shown, job).ok_or(SlurmError::Unknown(job))
}

/// The jobs that slurmctld has on a node: from the beginning of their prologs to the end of their epilogs
/// there. A job that is missing has ended, or was never there: so nothing may narrow the query, neither hidden
/// partitions nor a variable.
pub async fn jobs_on(node: &str) -> Result<BTreeSet<JobId>, SlurmError> {
    let name = "squeue";
    let program = find(name).ok_or(SlurmError::NotFound(name))?;
    let mut command = Command::new(&program);
    command.env_clear().envs(std::env::var_os("SLURM_CONF").map(|path| ("SLURM_CONF", path)));
    command.args(["--all", "--noheader", "--format=%A", "--nodelist", node]);
    parse_jobs(&run_in_loop(program, &mut command).await?).ok_or(SlurmError::Failed(name.into()))
}

/// The indices of a job's GPUs among those of a node, from slurmctld. The same text contains what users write
/// into their jobs: so it may narrow the choice of GPUs, but never grant one.
pub fn gpus(job: JobId, node: &str) -> Result<Vec<u32>, SlurmError> {
    let shown = run("scontrol", &["show", "job", "--details", &job.to_string()])?;
    Ok(parse_gpus(&shown, job, node))
}

/// The addresses of these nodes in Slurm (NodeAddr).
pub fn addresses(nodes: &[&String]) -> Result<HashMap<String, String>, SlurmError> {
    let names = nodes.iter().map(|node| node.as_str()).collect::<Vec<_>>().join(",");
    Ok(parse_addresses(&run("scontrol", &["--oneliner", "show", "node", &names])?))
}

/// slurm.conf as slurmctld has it (`scontrol show config`). For an admin's program: searches `path` first,
/// which has the format of PATH.
pub fn configuration(path: &OsStr) -> Result<String, SlurmError> {
    let named = std::env::split_paths(path).map(|directory| directory.join("scontrol"));
    let program = named.filter(|path| path.is_absolute()).find(|path| path.is_file());
    let program = program.or_else(|| find("scontrol")).ok_or(SlurmError::NotFound("scontrol"))?;
    run_program(program, &["show", "config"])
}

/// Separates the plugin's AdminComment from the earlier text.
pub(super) const BEFORE: &str = " | ";

/// Writes this text to a job as AdminComment, before the existing text. When two nodes write at once one text is
/// lost, which is harmless: both describe a failure.
pub fn comment(job: &ControllerJob, text: &str) -> Result<(), SlurmError> {
    change_comment(job, |before| {
        let separator = if before.is_empty() { "" } else { BEFORE };
        Some(format!("{text}{separator}{before}"))
    })
}

/// Changes a job's AdminComment: a site may have written any number of lines, of which [`show`] returns the first.
/// (scontrol's own `+=` fails in 24.11.) Does nothing where the existing text is not known.
pub(super) fn change_comment(
    job: &ControllerJob,
    change: impl FnOnce(&str) -> Option<String>,
) -> Result<(), SlurmError> {
    /// The width of the column: more than slurmctld prints.
    const WHOLE: &str = "--Format=admin_comment:1000000";
    let before = match job.comment.as_deref() {
        None => return Ok(()),
        Some("") => String::new(),
        // Of a job that has just ended, squeue prints nothing unless it is asked for all states.
        Some(_) => run("squeue", &["--noheader", "--states=all", &format!("--jobs={}", job.name), WHOLE])?,
    };
    if before.trim().is_empty() && job.comment.as_deref() != Some("") {
        return Ok(());
    }
    let Some(text) = change(before.trim_end()) else { return Ok(()) };
    let comment = format!("AdminComment={text}");
    run("scontrol", &["update", &format!("JobId={}", job.name), &comment]).map(drop)
}

/// Sends a message to a waiting srun or salloc (`scontrol notify`).
pub fn notify(job: JobId, text: &str) -> Result<(), SlurmError> {
    run("scontrol", &["notify", &job.to_string(), text]).map(drop)
}

/// The same, asynchronously.
pub async fn notify_meanwhile(job: JobId, text: &str) -> Result<(), SlurmError> {
    run_meanwhile("scontrol", &["notify", &job.to_string(), text]).await.map(drop)
}

/// Drains a node, unless it is drained already: then it keeps its first reason.
pub fn drain(node: &str, reason: &str) -> Result<(), SlurmError> {
    let node = format!("NodeName={node}");
    let shown = run("scontrol", &["show", "node", node.trim_start_matches("NodeName=")])?;
    if is_drained(&shown) {
        return Ok(());
    }
    run("scontrol", &["update", &node, "State=DRAIN", &format!("Reason={reason}")]).map(drop)
}

/// Requeues a job (`scontrol requeue`). slurmctld refuses that for a job without a script, and where the user
/// has forbidden it; for a heterogeneous job it accepts only the first component, on behalf of all.
pub fn requeue(job: &ControllerJob) -> Result<(), SlurmError> {
    let name = job.leader.map_or_else(|| job.name.to_string(), |leader| leader.to_string());
    run("scontrol", &["requeue", &name]).map(drop)
}

/// Ends a job that cannot run here (`scancel`).
pub fn cancel(job: &ControllerJob) -> Result<(), SlurmError> {
    run("scancel", &[&job.name.to_string()]).map(drop)
}

/// Ends a step that cannot run here.
pub fn cancel_step(job: &ControllerJob, step: StepId) -> Result<(), SlurmError> {
    run("scancel", &[&format!("{}.{step}", job.name)]).map(drop)
}

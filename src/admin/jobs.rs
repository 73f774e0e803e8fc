//! `spank-docker jobs`: the containers of jobs on this node.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::error::AdminError;
use super::node::Node;
use super::table;
use crate::container::{self, Surveyed, Use};
use crate::log::escape::Escaped;
use crate::slurm::ids::Owner;
use crate::state::{Outcome, RunningContainer};

/// All of them, by job and step.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct Jobs(Vec<JobRow>);

/// A job's container, or that of a step.
#[derive(Debug, Serialize)]
pub struct JobRow {
    /// The job's id.
    pub job: u32,
    /// The step's, where it has a container of its own.
    pub step: Option<u32>,
    /// The user's name, where the container's label has it.
    pub user: Option<String>,
    /// The user's id.
    pub uid: Option<u32>,
    /// As the user wrote it.
    pub image: Option<String>,
    /// The engine's id of the image: `sha256:…`.
    pub image_id: Option<String>,
    /// The image's digest in its registry, if it has come from one and is still here.
    pub digest: Option<String>,
    /// The container's name.
    pub container: String,
    /// The port of its sshd; none where it has no sshd.
    pub port: Option<u16>,
    /// When it was created, in seconds since 1970.
    pub since: Option<u64>,
    /// How many processes are in it, tasks of Slurm and ssh sessions included.
    pub processes: u64,
    /// The sum of their resident memory, in bytes; memory that some of them share is counted for each.
    pub memory: u64,
    /// What it does.
    pub state: State,
}

/// What a container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The prolog is at work.
    Starting,
    /// Tasks can enter it.
    Running,
    /// Its start has failed: the job ends.
    Failed,
    /// Its first process has ended.
    Ended,
    /// It has no record: its job is unknown, or has ended.
    Stray,
}

impl State {
    pub(super) const ALL: [Self; 5] = [Self::Starting, Self::Running, Self::Failed, Self::Ended, Self::Stray];
}

impl Jobs {
    pub(super) fn rows(&self) -> &[JobRow] {
        &self.0
    }
}

/// Looks at them.
pub async fn jobs(node: &Node) -> Result<Jobs, AdminError> {
    let found = container::survey(&node.config, &node.engine).await?;
    let digests: HashMap<String, String> = node
        .engine
        .images()
        .await?
        .into_iter()
        .filter_map(|image| Some((image.id.clone(), image.digest()?.to_owned())))
        .collect();
    let running: BTreeMap<Owner, &RunningContainer> =
        found.iter().filter_map(|(owner, found)| Some((*owner, running(found)?))).collect();
    let uses = container::uses(&running);
    let row = |(owner, found): (&Owner, &Surveyed)| {
        row(*owner, found, &digests, uses.get(owner).copied().unwrap_or_default())
    };
    Ok(Jobs(found.iter().map(row).collect()))
}

fn running(found: &Surveyed) -> Option<&RunningContainer> {
    match &found.record.as_ref()?.outcome {
        Outcome::Ready(running) => Some(running),
        Outcome::Host
        | Outcome::OfSteps(_)
        | Outcome::Starting
        | Outcome::Failed { .. }
        | Outcome::BrokenOff { .. } => None,
    }
}

fn row(owner: Owner, found: &Surveyed, digests: &HashMap<String, String>, used: Use) -> JobRow {
    let (listed, running) = (found.listed.as_ref(), running(found));
    let since = listed.and_then(|listed| listed.age).map(|age| now().saturating_sub(age).as_secs());
    JobRow {
        job: owner.job.0,
        step: owner.step.map(|step| step.0),
        user: listed.and_then(container::user).map(|name| Escaped::new(name).to_string()),
        uid: found.record.as_ref().map(|record| record.uid),
        image: running.map(|running| running.image.clone()),
        image_id: running.map(|running| running.image_id.clone()),
        digest: running.and_then(|running| digests.get(&running.image_id).cloned()),
        container: owner.container_name(),
        port: running.filter(|running| running.sshd).map(|running| running.port),
        since,
        processes: used.processes,
        memory: used.resident,
        state: state(found),
    }
}

fn state(found: &Surveyed) -> State {
    let is_live = found.listed.as_ref().is_some_and(|listed| listed.is_live);
    match found.record.as_ref().map(|record| &record.outcome) {
        Some(Outcome::Starting) => State::Starting,
        Some(Outcome::Failed { .. } | Outcome::BrokenOff { .. }) => State::Failed,
        Some(Outcome::Ready(_)) if is_live => State::Running,
        Some(Outcome::Ready(_)) => State::Ended,
        Some(Outcome::Host | Outcome::OfSteps(_)) | None => State::Stray,
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Failed => "failed",
            Self::Ended => "ended",
            Self::Stray => "stray",
        })
    }
}

impl fmt::Display for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEAD: [&str; 9] =
            ["JOB", "USER", "IMAGE", "DIGEST", "PORT", "TIME", "PROCESSES", "MEMORY", "STATE"];
        let rows: Vec<_> = self.0.iter().map(JobRow::fields).collect();
        table::write(f, &HEAD, &rows)
    }
}

impl JobRow {
    fn fields(&self) -> Vec<String> {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let owner = self.step.map_or(self.job.to_string(), |step| format!("{}.{step}", self.job));
        let time = self.since.map(|since| table::elapsed(now().as_secs().saturating_sub(since)));
        vec![
            owner,
            or_dash(self.user.clone().or(self.uid.map(|uid| uid.to_string()))),
            or_dash(self.image.clone()),
            or_dash(self.digest.as_deref().map(table::digest)),
            or_dash(self.port.map(|port| port.to_string())),
            or_dash(time),
            self.processes.to_string(),
            table::bytes(self.memory),
            self.state.to_string(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_without_a_record_is_a_stray_one() {
        assert_eq!(state(&Surveyed::default()), State::Stray);
        let row = row("7.1".parse().unwrap(), &Surveyed::default(), &HashMap::new(), Use::default());
        assert_eq!(row.fields().join(" "), "7.1 - - - - - 0 0B stray");
        let json = serde_json::to_value(Jobs(vec![row])).unwrap();
        assert_eq!(json[0]["container"], "docker_7.1");
        assert_eq!(json[0]["state"], "stray");
    }
}

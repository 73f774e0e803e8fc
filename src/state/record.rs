//! The record itself: the owner of a container, and the result of its start. Pure.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::error::{StateError, VERSION};
use crate::linux::cgroup::Cgroups;
use crate::linux::identity::UserIds;
use crate::linux::namespace::NamespaceIds;
use crate::linux::process::ProcessId;
use crate::log::timings::Phases;
use crate::settings::options::Options;
use crate::slurm::gres::Gpus;
use crate::slurm::hostlist;
use crate::slurm::ids::{Owner, Slurmd};

/// What a hook knows about a container on this node.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// The job or step that it belongs to.
    #[serde(rename = "scope")]
    pub owner: Owner,
    /// The only user who may join.
    pub uid: u32,
    /// The slurmd that has started it.
    #[serde(default)]
    pub slurmd: Slurmd,
    /// The socket of the engine that was used. `None` where the configuration could not be read, and in records
    /// of earlier releases.
    #[serde(default)]
    pub engine: Option<PathBuf>,
    /// The result of the prolog so far.
    pub outcome: Outcome,
}

/// Which slurmd started a container, for which user, and with which engine.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The only user who may join.
    pub uid: u32,
    /// The slurmd that has started it.
    pub slurmd: Slurmd,
    /// The socket of its engine, where that is known.
    pub engine: Option<PathBuf>,
}

impl Record {
    /// The job's GPUs, where its container has started.
    #[must_use]
    pub fn gpus(&self) -> Option<Gpus> {
        match &self.outcome {
            Outcome::Ready(running) => Some(running.gpus.clone()),
            Outcome::Host
            | Outcome::OfSteps(_)
            | Outcome::Starting
            | Outcome::Failed { .. }
            | Outcome::BrokenOff { .. } => None,
        }
    }

    /// Whether its container has started.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.outcome, Outcome::Ready(_))
    }

    /// The origin of the container.
    #[must_use]
    pub fn origin(&self) -> Origin {
        Origin { uid: self.uid, slurmd: self.slurmd.clone(), engine: self.engine.clone() }
    }

    /// A record in the format of this release.
    pub(crate) fn new(owner: Owner, origin: &Origin, outcome: Outcome) -> Self {
        let Origin { uid, slurmd, engine } = origin.clone();
        Self { version: VERSION, owner, uid, slurmd, engine, outcome }
    }

    /// Parses the text of `state.json`, which must be this owner's.
    pub fn parse(owner: Owner, text: &[u8]) -> Result<Self, StateError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let damaged = |source| StateError::Damaged { owner, source };
        let Versioned { version } = serde_json::from_slice(text).map_err(damaged)?;
        if version != VERSION {
            return Err(StateError::Version { owner, found: version });
        }
        serde_json::from_slice(text).map_err(damaged)
    }
}

/// The result of a start.
#[derive(Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// No start: the job runs on the host (`--docker-image=none`).
    Host,
    /// No start: this node does not know the user, whose groups Slurm passes only to steps. Each step has a
    /// container of its own, with these options, or with its own.
    OfSteps(Box<Options>),
    /// The prolog is running, or was cut off.
    Starting,
    /// The container is running.
    Ready(Box<RunningContainer>),
    /// The start failed, and the first task reports that to the user.
    Failed {
        /// The message, on one line.
        message: String,
    },
    /// The prolog was broken off: the job had ended, or failed on another node.
    BrokenOff {
        /// The report of another node, after its name, if the job had failed there.
        line: Option<String>,
    },
}

/// A container that is ready for tasks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunningContainer {
    /// The options, validated by the prolog.
    pub options: Options,
    /// The user's uid and gids.
    pub user: UserIds,
    /// The image as the user wrote it.
    pub image: String,
    /// `sha256:…`.
    pub image_id: String,
    /// The digest of its manifest in a registry, if it has come from one.
    #[serde(default)]
    pub image_digest: Option<String>,
    /// The engine's id of the container.
    pub container_id: String,
    /// Its first process.
    pub process: ProcessId,
    /// The cgroups that the engine has made for it.
    #[serde(default)]
    pub cgroups: Cgroups,
    /// The namespaces to join.
    pub namespaces: NamespaceIds,
    /// How many nodes the job has.
    #[serde(default)]
    pub nodes: usize,
    /// How often the job had been requeued.
    #[serde(default)]
    pub restart: u32,
    /// This node's name.
    #[serde(default)]
    pub node: String,
    /// The names of the job's nodes, as Slurm's host list.
    #[serde(default)]
    pub node_list: String,
    /// The job's working directory, if it is not in the container.
    #[serde(default, rename = "left_out")]
    pub unmounted_workdir: Option<PathBuf>,
    /// The text that sshd sends after its version: it identifies this job and this image.
    #[serde(default)]
    pub banner: String,
    /// sshd's port.
    pub port: u16,
    /// Whether the container has an sshd.
    pub sshd: bool,
    /// The variables that the image's ENV sets.
    pub environment: Vec<(String, String)>,
    /// Networks between the job's nodes, where MPI must not choose them itself.
    pub networks: Option<String>,
    /// Variables by which this node tells MPI its interfaces and its name.
    #[serde(default, alias = "network_variables")]
    pub mpi_variables: Vec<(String, String)>,
    /// The container's GPUs.
    #[serde(default)]
    pub gpus: Gpus,
    /// Where tasks start if the job's working directory is not in the container.
    pub workdir: Option<String>,
    /// The job's working directory, on the host.
    #[serde(default)]
    pub job_workdir: Option<PathBuf>,
    /// Warnings that the first of its tasks shows to the user.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// The mount ids of the image's volumes.
    #[serde(default)]
    pub volumes: Vec<u64>,
    /// The timings of its start; known only to the process that started it.
    #[serde(skip)]
    pub phases: Phases,
}

impl RunningContainer {
    /// Whether this node is the first one with a container of the same owner.
    #[must_use]
    pub fn is_on_first_node(&self) -> bool {
        let first = hostlist::expand(&self.node_list).ok().and_then(|nodes| nodes.into_iter().next());
        first.is_none_or(|first| first == self.node)
    }

    /// The line for admins about a start that began at `began`: how long it took, and the time of each phase,
    /// in milliseconds.
    #[must_use]
    pub fn start_summary(&self, owner: Owner, began: Instant) -> String {
        let Self { image, port, phases, .. } = self;
        let (name, took) = (owner.container_name(), began.elapsed().as_millis());
        format!("job {owner}: {name} is ready: image '{image}', port {port}, {took} ms ({phases})")
    }
}

#[cfg(test)]
impl RunningContainer {
    /// One of job 7, for tests to change.
    pub(crate) fn sample() -> Self {
        serde_json::from_value(serde_json::json!({
            "options": { "image": { "image": "app" }, "env": [], "mounts": [] },
            "user": { "uid": 5001, "gid": 5001, "groups": [5001] },
            "image": "app",
            "image_id": "sha256:0",
            "container_id": "0",
            "process": { "pid": 1, "start_time": 1 },
            "namespaces": { "mount": 1, "ipc": 1, "uts": 1 },
            "port": 20001,
            "sshd": true,
            "environment": [],
            "workdir": null
        }))
        .unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slurm::ids::JobId;

    /// A record that an earlier build with this version has written on a node. If this test fails, the format
    /// of records has changed: either make the old one readable, or raise VERSION and store a file in the new
    /// format here.
    #[test]
    fn record_of_an_earlier_build_is_read() {
        let text = include_bytes!("records/v2.json");
        let record = Record::parse(Owner::job(JobId(199)), text).unwrap();
        let Outcome::Ready(running) = record.outcome else { panic!("{record:?}") };
        assert_eq!((record.version, record.uid, running.port, running.nodes), (VERSION, 5001, 20199, 2));
        assert_eq!(running.user.groups, [5001, 6001, 6002]);
    }
}

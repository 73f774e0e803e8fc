//! The record itself: whose container it is, and how its start went. Pure.
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

/// What a hook knows of a container of this node.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// The job or step that it belongs to.
    #[serde(rename = "scope")]
    pub owner: Owner,
    /// The only user who may join.
    pub uid: u32,
    /// Which slurmd has started it.
    #[serde(default)]
    pub slurmd: Slurmd,
    /// The socket of the engine that it was asked of. `None` where the configuration could not be read, or by an earlier
    /// build.
    #[serde(default)]
    pub engine: Option<PathBuf>,
    /// How far the prolog has come.
    pub outcome: Outcome,
}

/// Which slurmd started a container, for which user, and with which engine.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The only user who may join.
    pub uid: u32,
    /// Which slurmd.
    pub slurmd: Slurmd,
    /// The socket of its engine, where that is known.
    pub engine: Option<PathBuf>,
}

impl Record {
    /// The job's GPUs, where its container has come up.
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

    /// Whether its container has come up.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.outcome, Outcome::Ready(_))
    }

    /// What started it, and for which user.
    #[must_use]
    pub fn origin(&self) -> Origin {
        Origin { uid: self.uid, slurmd: self.slurmd.clone(), engine: self.engine.clone() }
    }

    /// Of this release.
    pub(crate) fn new(owner: Owner, origin: &Origin, outcome: Outcome) -> Self {
        let Origin { uid, slurmd, engine } = origin.clone();
        Self { version: VERSION, owner, uid, slurmd, engine, outcome }
    }

    /// From the text of `state.json`; `scope` is whose it should be.
    pub fn parse(owner: Owner, text: &[u8]) -> Result<Self, StateError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let damaged = |source| StateError::Damaged { owner, source };
        let Versioned { version } = serde_json::from_slice(text).map_err(damaged)?;
        if version != VERSION {
            return Err(StateError::Version { owner, theirs: version });
        }
        serde_json::from_slice(text).map_err(damaged)
    }
}

/// How a start went.
#[derive(Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// There was none: the job wants to run on the host (`--docker-image=none`).
    Host,
    /// There was none: this node does not know the user, whose groups Slurm tells to steps alone. Each has a container of its
    /// own, by these options, or by those that it is given itself.
    OfSteps(Box<Options>),
    /// The prolog is at work, or was cut off.
    Starting,
    /// The container is there.
    Ready(Box<RunningContainer>),
    /// It failed, and the first task tells the user.
    Failed {
        /// One line.
        message: String,
    },
    /// The prolog broke it off: the job had ended, or failed on another node.
    BrokenOff {
        /// What another node has told, behind its name, if the job had failed there.
        line: Option<String>,
    },
}

/// A container that is ready for tasks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunningContainer {
    /// As checked by the prolog.
    pub options: Options,
    /// Whose container it is.
    pub user: UserIds,
    /// The image as the user named it.
    pub image: String,
    /// `sha256:…`.
    pub image_id: String,
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
    /// How often the job had been queued again.
    #[serde(default)]
    pub restart: u32,
    /// This node's name.
    #[serde(default)]
    pub node: String,
    /// The names of the job's nodes, as Slurm's host list.
    #[serde(default)]
    pub node_list: String,
    /// The job's working directory, when it is not in the container.
    #[serde(default)]
    pub left_out: Option<PathBuf>,
    /// What sshd shows behind its version: of this job and this image.
    #[serde(default)]
    pub banner: String,
    /// sshd's port.
    pub port: u16,
    /// Whether the image has an sshd.
    pub sshd: bool,
    /// What the image's ENV sets.
    pub environment: Vec<(String, String)>,
    /// Networks between the job's nodes, when MPI must be told.
    pub networks: Option<String>,
    /// What other MPI libraries are told then.
    #[serde(default)]
    pub network_variables: Vec<(String, String)>,
    /// The GPUs that it has.
    #[serde(default)]
    pub gpus: Gpus,
    /// Where tasks start when the job's working directory is not in the container.
    pub workdir: Option<String>,
    /// What the first of its tasks tells the user.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Its mounts that are volumes of the image, by the kernel's numbers.
    #[serde(default)]
    pub volumes: Vec<u64>,
    /// Where the time of its start went: known to the process that started it.
    #[serde(skip)]
    pub phases: Phases,
}

impl RunningContainer {
    /// Whether this node is the first of those that have a container of this kind.
    #[must_use]
    pub fn is_on_first_node(&self) -> bool {
        let first = hostlist::expand(&self.node_list).ok().and_then(|nodes| nodes.into_iter().next());
        first.is_none_or(|first| first == self.node)
    }

    /// What an admin reads of its start, which began then: how long it took, and where that time went, in milliseconds.
    #[must_use]
    pub fn start_summary(&self, owner: Owner, began: Instant) -> String {
        let Self { image, port, phases, .. } = self;
        let (name, took) = (owner.container_name(), began.elapsed().as_millis());
        format!("job {owner}: {name} is ready: image '{image}', port {port}, {took} ms ({phases})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slurm::ids::JobId;

    /// Written on a node by an earlier build, while this was the version. If this test fails, the format of records has changed:
    /// either make the old one readable, or raise VERSION and store a file of the new one here.
    #[test]
    fn record_of_an_earlier_build_is_read() {
        let text = include_bytes!("records/v2.json");
        let record = Record::parse(Owner::job(JobId(199)), text).unwrap();
        let Outcome::Ready(running) = record.outcome else { panic!("{record:?}") };
        assert_eq!((record.version, record.uid, running.port, running.nodes), (VERSION, 5001, 20199, 2));
        assert_eq!(running.user.groups, [5001, 6001, 6002]);
    }
}

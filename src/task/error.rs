//! Why a task cannot run: one line for its user.

use std::io;
use std::path::PathBuf;

use crate::log::escape::Escaped;
use crate::settings::options;
use crate::slurm::ids::{JobId, Owner};
use crate::state::StateError;

/// Why a task cannot run. The task ends with this line; it never runs on the host instead.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The prolog has left this message for the user.
    #[error("{0}")]
    Prolog(String),
    /// A prolog has reported to slurmctld, mostly another node's: the job is incomplete, and its script must
    /// not run. The line names the node.
    #[error("{0}")]
    Reported(String),
    /// The batch script did not wait for all prologs.
    #[error(
        "job {job}: its script was started before the containers of all its nodes: ask the admin to set PrologFlags=Contain,DeferBatch"
    )]
    TooEarly {
        /// The job.
        job: JobId,
    },
    /// The step requests a container, but the job has none here.
    #[error(
        "job {job} has no container on this node: submit the job itself with --docker-image; if you did, ask the admin to set PrologFlags=Contain,DeferBatch, without RunInJob"
    )]
    NoContainer {
        /// The job.
        job: JobId,
    },
    /// Slurm passes the user's groups only to steps.
    #[error(
        "user {uid} is not known on this node: use --docker-script=host and srun in the script, or ask the admin to add the user here"
    )]
    UnknownUser {
        /// The job's user.
        uid: u32,
    },
    /// The prolog was cut off.
    #[error("job {job}: the prolog was interrupted while it started the container: submit the job again")]
    CutOff {
        /// The job.
        job: JobId,
    },
    /// The container belongs to another user: Slurm has reused the job id.
    #[error("the container of job {job} on this node belongs to another user")]
    OtherUser {
        /// The job.
        job: JobId,
    },
    /// The container's first process has ended.
    #[error(
        "the container of job {owner} is no longer running on this node: it ended or was killed; submit the job again"
    )]
    Gone {
        /// The job, or its step.
        owner: Owner,
    },
    /// The container's first process has changed its namespaces.
    #[error(
        "the container of job {owner} is not in the namespaces that it was started in: its sshd has created its own; use an image whose sshd does not"
    )]
    Left {
        /// The job, or its step.
        owner: Owner,
    },
    /// There is no extern step.
    #[error(
        "the extern step of job {job} did not start: ask the admin to set PrologFlags=Contain,DeferBatch"
    )]
    NoExternStep {
        /// The job.
        job: JobId,
    },
    /// The extern step could not adopt the container.
    #[error("{0}")]
    Adoption(String),
    /// The prolog's record cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The batch script cannot be mounted into the container.
    #[error("cannot mount the batch script '{}' into the container of image '{image}'", script.display())]
    Script {
        /// Its path on the host and in the container.
        script: PathBuf,
        /// As the user wrote it.
        image: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A limit could not be set.
    #[error("cannot set {name} of this task as configured: ask the admin to set {name}=inherit")]
    Limit {
        /// The configuration's key.
        name: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A step of joining failed.
    #[error("cannot {action} of job {owner}")]
    Join {
        /// What was attempted.
        action: &'static str,
        /// The job, or its step.
        owner: Owner,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A tag resolves to different images on two nodes.
    #[error(
        "image '{image}': the tag resolves to a different image on node '{node}': use --docker-pull=always, or name the image by its digest"
    )]
    Tag {
        /// As the user wrote it.
        image: String,
        /// A node of the job.
        node: String,
    },
    /// The step's own `--docker-workdir` cannot be entered.
    #[error("--docker-workdir: '{path}' is not a directory that you can enter in the container: use another")]
    Workdir {
        /// In the container.
        path: Escaped,
    },
    /// The step's options are invalid.
    #[error(transparent)]
    Options(#[from] options::OptionError),
}

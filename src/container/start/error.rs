//! Why a container did not start: the messages to the user, and which failures are faults of the node.

use std::io;

use super::entrypoint::EntrypointError;
use super::reason::Reason;
use crate::container::engine_health;
use crate::container::image_file::FileError;
use crate::container::mounts::{MountError, MountOrigin};
use crate::engine::{EngineError, ImageError};
use crate::guest::ssh::keys;
use crate::log::escape::Escaped;
use crate::settings::plugstack::Config;
use crate::slurm::hostlist;
use crate::state::StateError;

/// Why a container did not start. Only an engine that is installed and does not answer is a fault of the node;
/// everything else is reported to the user, in one line.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Root's jobs are refused unless the admin allows them.
    #[error("root may not run containers here: submit as another user, or ask the admin for allow_root=yes")]
    Root,
    /// Users of the node could reach the container's files by a path on the host.
    #[error(
        "users of this node can reach the engine's '{directory}': ask the admin to close it, see 'spank-docker check'"
    )]
    OpenEngine {
        /// The directory of the container's files.
        directory: Escaped,
    },
    /// The image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The image's file.
    #[error("image '{image}': {source}")]
    File {
        /// As the user wrote it.
        image: String,
        /// Why it cannot be used.
        source: FileError,
    },
    /// The image declares a volume over one of the system's own directories.
    #[error(
        "image '{image}': declares a volume at '{volume}', which is reserved for the container's own system: build it without"
    )]
    Volume {
        /// As the user wrote it.
        image: String,
        /// The path.
        volume: Escaped,
    },
    /// The user cannot reach the plugin's directory.
    #[error("image '{image}': users cannot enter its '/run': build it with 'chmod 755 / /run'")]
    ClosedRun {
        /// As the user wrote it.
        image: String,
    },
    /// The image declares too many volumes.
    #[error("image '{image}': declares {number} volumes: build it with 256 or fewer")]
    Volumes {
        /// As the user wrote it.
        image: String,
        /// How many it declares.
        number: usize,
    },
    /// The cluster's secret cannot be used.
    #[error(transparent)]
    Secret(#[from] keys::KeyError),
    /// The job's list of nodes cannot be read.
    #[error("cannot parse the job's node list '{list}'")]
    NodeList {
        /// As Slurm gave it.
        list: Escaped,
        /// What is wrong with it.
        #[source]
        source: hostlist::HostlistError,
    },
    /// The image's ENTRYPOINT has failed.
    #[error(transparent)]
    Entrypoint(#[from] EntrypointError),
    /// The GPUs cannot be determined.
    #[error(transparent)]
    Gpus(#[from] crate::slurm::gres::GresError),
    /// The plugin's record cannot be written or read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The plugin's files for the container cannot be made.
    #[error("cannot {action} on this node: ask the admin")]
    Files {
        /// What was attempted.
        action: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A mount has failed.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The directory of `--docker-workdir` cannot be used.
    #[error("--docker-workdir: '{path}' is not a directory that you can enter in the container: use another")]
    Workdir {
        /// In the container.
        path: Escaped,
    },
    /// The file system of `--docker-workdir` does not answer.
    #[error("--docker-workdir: '{path}' does not answer on this node: check its file system, or use another")]
    SilentWorkdir {
        /// In the container.
        path: Escaped,
    },
    /// The image cannot be used as a container's root.
    #[error("image '{image}': {source}")]
    Populate {
        /// As the user wrote it.
        image: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The image's file, which the engine would open as root, is not a regular file, or is too large.
    #[error("image '{image}': '{path}' is not a regular file of up to 64 MiB: make it one, or leave it out")]
    Account {
        /// As the user wrote it.
        image: String,
        /// In the image.
        path: &'static str,
    },
    /// The image has a file or link at a system directory: the engine would create its own there, as root,
    /// wherever a link leads.
    #[error("image '{image}': '{path}' is not a directory: build it with one")]
    System {
        /// As the user wrote it.
        image: String,
        /// In the image.
        path: &'static str,
    },
    /// The engine cannot inspect a path in the container before its start.
    #[error(
        "image '{image}': the engine cannot read its file system: is a VOLUME path a symbolic link? Declare the real path"
    )]
    Closed {
        /// As the user wrote it.
        image: String,
    },
    /// The engine works, but does not finish this start.
    #[error(
        "image '{image}': the engine could not start the container in time: check the links in the image's /etc"
    )]
    Hung {
        /// As the user wrote it.
        image: String,
    },
    /// The first process has ended before it executed sshd.
    #[error("image '{image}': the container exited as soon as it was started{}", after_colon(words))]
    Ended {
        /// As the user wrote it.
        image: String,
        /// The last line of its output.
        words: Option<String>,
    },
    /// The engine took numbers of groups for names of groups in the image.
    #[error(
        "image '{image}': its container has different groups from yours: does the image's /etc/group have lines whose name is a number? Remove them"
    )]
    Groups {
        /// As the user wrote it.
        image: String,
    },
    /// The container does not run the plugin's first process.
    #[error("image '{image}': {source}")]
    StagingDir {
        /// As the user wrote it.
        image: String,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The engine refuses limits that it cannot set.
    #[error(
        "the engine cannot set the configured limits: ask the admin to check memlock and stack ({message})"
    )]
    Limits {
        /// The engine's message.
        message: String,
    },
    /// The engine cannot limit what the container writes, or does not.
    #[error(
        "the engine cannot limit what a container writes: ask the admin to check storage_size ({message})"
    )]
    Storage {
        /// The engine's message, or what was found.
        message: String,
    },
    /// The disk has no space for the container.
    #[error("image '{image}': no space left on the disk of this node's engine: ask the admin to free some")]
    NoSpace {
        /// As the user wrote it.
        image: String,
    },
    /// Another process listens on the job's port.
    #[error("port {port} is taken on this node: submit again, or choose another with --docker-port=PORT")]
    PortTaken {
        /// The job's port.
        port: u16,
    },
    /// The image's sshd ended.
    #[error("image '{image}': its sshd exited at once{}", after_colon(words))]
    SshdEnded {
        /// As the user wrote it.
        image: String,
        /// The last line of its output.
        words: Option<String>,
    },
    /// The image's sshd does not behave as an sshd.
    #[error("image '{image}': its sshd does not work: {source}")]
    Sshd {
        /// As the user wrote it.
        image: String,
        /// What it does.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The plugin's own sshd ended, or does not answer.
    #[error("the plugin's sshd does not work on this node: {source}{}: ask the admin", after_colon(words))]
    PluginsSshd {
        /// What it does.
        source: Box<dyn std::error::Error + Send + Sync>,
        /// The last line of its output.
        words: Option<String>,
    },
    /// The whole start took too long.
    #[error("image '{image}': container not ready within {seconds} s (start_timeout)")]
    TimedOut {
        /// As the user wrote it.
        image: String,
        /// The configured limit.
        seconds: u64,
    },
    /// The hook or task that requested the container was told to end.
    #[error("its container is no longer needed")]
    NotWanted,
    /// The engine has failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// No event loop could be made.
    #[error("cannot create an event loop")]
    Runtime(#[source] io::Error),
}

impl StartError {
    /// Whether the engine is installed and does not work: the only failure that drains a node.
    #[must_use]
    pub fn is_engine_fault(&self) -> bool {
        match self {
            Self::Engine(error)
            | Self::Image(ImageError::Engine(error))
            | Self::Entrypoint(EntrypointError::Engine(error)) => error.is_engine_fault(),
            _ => false,
        }
    }

    /// Whether the file system of the job's working directory does not answer: any process that enters it
    /// hangs, also slurmstepd, before it starts a task (src/slurmd/slurmstepd/mgr.c, `_fork_all_tasks`).
    #[must_use]
    pub fn is_silent_workdir(&self) -> bool {
        matches!(self, Self::Mount(MountError::Silent { origin: MountOrigin::Standard, .. }))
    }

    /// Its kind, for logs and monitoring.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Engine(_)
            | Self::Image(ImageError::Engine(_))
            | Self::Entrypoint(EntrypointError::Engine(_)) => Reason::Engine,
            Self::NoSpace { .. } | Self::Image(ImageError::NoSpace { .. }) => Reason::Disk,
            Self::NotWanted | Self::Image(ImageError::NotWanted { .. }) => Reason::Cancelled,
            Self::Image(_)
            | Self::File { .. }
            | Self::Volume { .. }
            | Self::ClosedRun { .. }
            | Self::Volumes { .. }
            | Self::Populate { .. }
            | Self::Account { .. }
            | Self::System { .. }
            | Self::Closed { .. }
            | Self::Hung { .. }
            | Self::Ended { .. }
            | Self::Groups { .. }
            | Self::StagingDir { .. } => Reason::Image,
            Self::Root => Reason::Request,
            Self::Mount(_) | Self::Workdir { .. } | Self::SilentWorkdir { .. } => Reason::Mount,
            Self::Entrypoint(_) => Reason::Entrypoint,
            Self::SshdEnded { .. } | Self::Sshd { .. } | Self::PluginsSshd { .. } => Reason::Sshd,
            Self::Gpus(_) => Reason::Gpus,
            Self::PortTaken { .. } => Reason::Port,
            Self::TimedOut { .. } => Reason::Timeout,
            Self::OpenEngine { .. }
            | Self::Secret(_)
            | Self::NodeList { .. }
            | Self::State(_)
            | Self::Files { .. }
            | Self::Limits { .. }
            | Self::Storage { .. }
            | Self::Runtime(_) => Reason::Node,
        }
    }

    /// The error after an engine that has failed has had time to come back.
    pub(super) async fn after(self, config: &Config) -> Self {
        match self {
            Self::Engine(error)
            | Self::Image(ImageError::Engine(error))
            | Self::Entrypoint(EntrypointError::Engine(error))
                if error.is_engine_fault() =>
            {
                Self::Engine(engine_health::after(config, error).await)
            }
            other => other,
        }
    }
}

fn after_colon(words: &Option<String>) -> String {
    words.as_ref().map(|words| format!(": {words}")).unwrap_or_default()
}

pub(super) fn files_error(action: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::Files { action, source }
}

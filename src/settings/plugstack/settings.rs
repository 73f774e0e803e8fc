//! What can be configured, and what holds where nothing is.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

use glob::Pattern;

use super::keys::STATE_DIR;
use crate::settings::choices::{Pull, Script};
use crate::settings::mounts::Mount;
use crate::settings::port_range::PortRange;

/// Which devices of the host every container gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Devices {
    /// Those of high-speed networks that exist.
    Auto,
    /// No device at all.
    None,
    /// What these match, all below /dev.
    Globs(Vec<Pattern>),
}

/// Where the secret is that all nodes share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretFile {
    /// The plugin's own file where that is, else munge's key.
    Auto,
    /// This file.
    At(PathBuf),
}

/// A resource limit of a container's processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// No limit.
    Unlimited,
    /// What Slurm's own processes have.
    Inherit,
    /// So many bytes.
    Bytes(u64),
}

/// The size of /dev/shm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShmSize {
    /// Half of the node's memory.
    Half,
    /// So many bytes.
    Bytes(u64),
}

/// What an engine that is there and does not answer does to its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineFailure {
    /// The node is drained, the job queued again.
    Drain,
    /// Only the job fails.
    Fail,
}

/// The whole configuration, valid.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The socket of the node's engine, without `unix://`. Default: /var/run/docker.sock
    pub docker_host: PathBuf,
    /// Directory for the state of jobs. Absolute, without `..`, not `/`. Default: /run/spank-docker
    pub state_dir: PathBuf,
    /// File with the secret that all nodes share. Default: the plugin's own, else munge's key
    pub secret: SecretFile,
    /// Ports for the containers' sshds. Default: 20000-29999
    pub ports: PortRange,
    /// When images are pulled, unless the user says. Default: missing
    pub pull: Pull,
    /// Deadline for the whole start of a container; `None` for no limit. Default: 600 seconds
    pub start_timeout: Option<Duration>,
    /// What every container gets. Default: nothing
    pub mounts: Vec<Mount>,
    /// Do containers get the user's home directory, unless the user says? Default: no
    pub mount_home: bool,
    /// Does the image's ENTRYPOINT run first, unless the user says? Default: no
    pub entrypoint: bool,
    /// Where batch scripts run, unless the user says. Default: container
    pub script: Script,
    /// Devices that every container gets. Default: auto
    pub devices: Devices,
    /// Limit of locked memory. Default: unlimited
    pub memlock: Limit,
    /// Limit of the stack. Default: unlimited
    pub stack: Limit,
    /// Size of /dev/shm. Default: half of the memory
    pub shm_size: ShmSize,
    /// Images that users may run; empty for all. Default: all
    pub allow_images: Vec<Pattern>,
    /// May root run containers? Default: no
    pub allow_root: bool,
    /// What an engine that does not answer does to its node. Default: drain
    pub engine_failure: EngineFailure,
    /// Variables that never come from the submitting shell. Default: none
    pub env_unset: Vec<Pattern>,
    /// How long an engine that has died under a start may take to come back. No setting: a minute
    pub engine_return: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            docker_host: PathBuf::from("/var/run/docker.sock"),
            state_dir: PathBuf::from(STATE_DIR),
            secret: SecretFile::Auto,
            ports: PortRange::DEFAULT,
            pull: Pull::Missing,
            start_timeout: Some(Duration::from_secs(600)),
            mounts: Vec::new(),
            mount_home: false,
            entrypoint: false,
            script: Script::Container,
            devices: Devices::Auto,
            memlock: Limit::Unlimited,
            stack: Limit::Unlimited,
            shm_size: ShmSize::Half,
            allow_images: Vec::new(),
            allow_root: false,
            engine_failure: EngineFailure::Drain,
            env_unset: Vec::new(),
            engine_return: Duration::from_secs(60),
        }
    }
}

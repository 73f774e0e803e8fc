//! The settings and their defaults.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

use glob::Pattern;

use super::keys::STATE_DIR;
use crate::settings::choices::{Pull, Script, Sshd};
use crate::settings::mounts::Mount;
use crate::settings::port_range::PortRange;
use crate::settings::slurm_commands::SlurmCommands;

/// Which devices of the host every container gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Devices {
    /// The devices of high-speed networks, as far as they exist.
    Auto,
    /// No device at all.
    None,
    /// The devices that match, all below /dev.
    Globs(Vec<Pattern>),
}

/// The place of the secret that all nodes share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretFile {
    /// The plugin's own file where it exists, else munge's key.
    Auto,
    /// This file.
    At(PathBuf),
}

/// A resource limit of a container's processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// No limit.
    Unlimited,
    /// The limit of Slurm's own processes.
    Inherit,
    /// This number of bytes.
    Bytes(u64),
}

/// The size of /dev/shm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShmSize {
    /// Half of the node's memory.
    Half,
    /// This number of bytes.
    Bytes(u64),
}

/// How much the images that jobs have brought onto a node may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageCache {
    /// So many bytes.
    Bytes(u64),
    /// Until the engine's disk is full to so many percent.
    Percent(u8),
}

/// The consequence for a node whose engine is installed and does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineFailure {
    /// Drain the node, requeue the job.
    Drain,
    /// Fail only the job.
    Fail,
}

/// Where Slurm's accounting keeps which image a job has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accounting {
    /// Nowhere.
    None,
    /// In the job's AdminComment.
    AdminComment,
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
    /// When to pull images, unless the user decides. Default: missing
    pub pull: Pull,
    /// Deadline for the whole start of a container; `None` for no limit. Default: 600 seconds
    pub start_timeout: Option<Duration>,
    /// Mounts of every container. Default: none
    pub mounts: Vec<Mount>,
    /// Whether containers get the user's home directory, unless the user decides. Default: no
    pub mount_home: bool,
    /// Whether the image's ENTRYPOINT runs first, unless the user decides. Default: no
    pub entrypoint: bool,
    /// Where batch scripts run, unless the user decides. Default: container
    pub script: Script,
    /// Devices that every container gets. Default: auto
    pub devices: Devices,
    /// Limit of locked memory. Default: unlimited
    pub memlock: Limit,
    /// Limit of the stack. Default: unlimited
    pub stack: Limit,
    /// Size of /dev/shm. Default: half of the memory
    pub shm_size: ShmSize,
    /// What a container may write to the engine's disk, in bytes; `None` for no limit. Default: none
    pub storage_size: Option<u64>,
    /// Images that users may run; empty for all. Default: all
    pub allow_images: Vec<Pattern>,
    /// Whether root may run containers. Default: no
    pub allow_root: bool,
    /// The consequence for a node whose engine does not answer. Default: drain
    pub engine_failure: EngineFailure,
    /// Variables that never come from the submitting shell. Default: none
    pub env_unset: Vec<Pattern>,
    /// Whose sshd connects a job's containers. Default: the image's, else the plugin's.
    pub sshd: Sshd,
    /// Which of Slurm's commands containers have. Default: all that the node has.
    pub slurm_commands: SlurmCommands,
    /// How much images may take that jobs have brought; `None` for no limit. Default: none
    pub image_cache: Option<ImageCache>,
    /// Where the accounting keeps a job's image. Default: nowhere
    pub accounting: Accounting,
    /// How long an engine that dies during a start may take to come back. Not configurable: a minute.
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
            storage_size: None,
            allow_images: Vec::new(),
            allow_root: false,
            engine_failure: EngineFailure::Drain,
            env_unset: Vec::new(),
            sshd: Sshd::Auto,
            slurm_commands: SlurmCommands::default(),
            image_cache: None,
            accounting: Accounting::None,
            engine_return: Duration::from_secs(60),
        }
    }
}

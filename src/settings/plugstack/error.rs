//! Errors in the configuration, with key, value and remedy.
#![forbid(unsafe_code)]

use super::keys::KEYS;
use crate::log::escape::Escaped;
use crate::settings::mounts;
use crate::settings::port_range;

/// An error in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// An argument that is not `key=value`.
    #[error("'{0}' is not a setting: use key=value")]
    NoSetting(Escaped),
    /// An argument that is not UTF-8.
    #[error("'{0}' is not valid UTF-8: use text in UTF-8")]
    Text(Escaped),
    /// A key that does not exist.
    #[error("'{setting}': '{key}' is not a configuration key: see plugstack.conf.example")]
    Unknown {
        /// Key and value as written.
        setting: Escaped,
        /// The key.
        key: Escaped,
    },
    /// A key that does not exist, but resembles one.
    #[error("'{setting}': '{key}' is not a configuration key: did you mean '{nearest}'?")]
    Misspelt {
        /// Key and value as written.
        setting: Escaped,
        /// The key.
        key: Escaped,
        /// The similar key.
        nearest: &'static str,
    },
    /// A key that occurs twice.
    #[error("'{setting}': '{key}' is given twice: use it once")]
    Twice {
        /// Key and second value as written.
        setting: Escaped,
        /// The key.
        key: &'static str,
    },
    /// An engine that is not behind a local socket.
    #[error("docker_host: '{0}' is not a local socket: use unix:///PATH, absolute and up to 107 bytes long")]
    Socket(Escaped),
    /// A directory that the plugin cannot use.
    #[error(
        "state_dir: '{0}' is not a directory for the plugin: use an absolute path other than /, without '..'"
    )]
    StateDir(Escaped),
    /// A secret whose path is not absolute.
    #[error("secret: '{0}' is not a file: use auto, or an absolute path, without '..'")]
    Secret(Escaped),
    /// An invalid range of ports.
    #[error("ports: {0}")]
    Ports(port_range::PortRangeError),
    /// A pull policy that does not exist.
    #[error("pull: '{0}' is not a pull policy: use missing, always or never")]
    Pull(Escaped),
    /// A timeout that is not a number.
    #[error("start_timeout: '{0}' is not a number of seconds: use 1 to 31622400, or 0 for no limit")]
    Timeout(Escaped),
    /// A list with an invalid mount.
    #[error("mounts: {0}")]
    Mounts(mounts::MountListError),
    /// A switch that is neither on nor off.
    #[error("{key}: '{value}' is neither on nor off: use yes or no")]
    Switch {
        /// The key.
        key: &'static str,
        /// Its value.
        value: Escaped,
    },
    /// An invalid place for batch scripts.
    #[error("script: '{0}' is not a place for batch scripts: use container or host")]
    Script(Escaped),
    /// Devices that are not globs below /dev.
    #[error("devices: '{0}' is not a device: use auto, none, or globs below /dev with ',' between them")]
    Devices(Escaped),
    /// A limit that is not a number of bytes.
    #[error("{key}: '{value}' is not a limit: use unlimited, inherit, or bytes like 64M")]
    Limit {
        /// The key.
        key: &'static str,
        /// Its value.
        value: Escaped,
    },
    /// A stack on which no program starts.
    #[error("stack: '{0}' is too small for a program to start: use unlimited, inherit, or 256K or more")]
    Stack(Escaped),
    /// A size that is not a number of bytes.
    #[error("shm_size: '{0}' is not a size: use half (of the memory), or bytes like 16G")]
    ShmSize(Escaped),
    /// A limit that is not a number of bytes.
    #[error("storage_size: '{0}' is not a size: use none, or bytes like 100G")]
    StorageSize(Escaped),
    /// Invalid globs of images.
    #[error("allow_images: '{0}' is not a glob: use names like 'reg:5000/*' with ',' between them")]
    AllowImages(Escaped),
    /// An unknown consequence.
    #[error("engine_failure: '{0}' is not a valid value: use drain or fail")]
    EngineFailure(Escaped),
    /// A limit for images that is neither bytes nor a percentage.
    #[error(
        "image_cache: '{0}' is not a limit for images: use none, bytes like 200G, or a percentage of the engine's disk like 80%"
    )]
    ImageCache(Escaped),
    /// An unknown place.
    #[error("accounting: '{0}' is not a valid value: use none or admin_comment")]
    Accounting(Escaped),
    /// Invalid names of variables, or variables that jobs need.
    #[error(
        "env_unset: '{0}' does not name variables, or names some that every job needs: use names like OPAL_PREFIX or PMIX_MCA_* with ',' between them"
    )]
    EnvUnset(Escaped),
    /// An unknown sshd.
    #[error("sshd: '{0}' is not a valid value: use auto, image, builtin or none")]
    Sshd(Escaped),
    /// Commands that are not Slurm's.
    #[error(
        "slurm_commands: '{0}' is not a command of Slurm's: use auto, none, or names like srun and sbatch with ',' between them"
    )]
    SlurmCommands(Escaped),
}

impl ConfigError {
    /// An unknown key, with the most similar one if there is any.
    pub(super) fn unknown_key(setting: &str, name: &str) -> Self {
        // A long text is not a misspelling, and comparing it would take long.
        let distances = KEYS
            .iter()
            .filter(|_| name.len() <= 32)
            .map(|key| (strsim::levenshtein(name, key.name), key.name));
        match distances.min() {
            Some((1..=2, nearest)) => Self::Misspelt { setting: setting.into(), key: name.into(), nearest },
            _ => Self::Unknown { setting: setting.into(), key: name.into() },
        }
    }
}

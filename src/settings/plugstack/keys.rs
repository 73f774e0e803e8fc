//! All keys of the configuration.
#![forbid(unsafe_code)]

/// The default directory for state.
pub const STATE_DIR: &str = "/run/spank-docker";

/// One key of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// Its default, in the syntax of the configuration.
    pub default: &'static str,
}

/// All keys, in the order of plugstack.conf.example.
pub const KEYS: [Key; 23] = [
    Key { name: "docker_host", default: "unix:///var/run/docker.sock" },
    Key { name: "state_dir", default: STATE_DIR },
    Key { name: "secret", default: "auto" },
    Key { name: "ports", default: "20000-29999" },
    Key { name: "pull", default: "missing" },
    Key { name: "start_timeout", default: "600" },
    Key { name: "mounts", default: "" },
    Key { name: "mount_home", default: "no" },
    Key { name: "entrypoint", default: "no" },
    Key { name: "script", default: "container" },
    Key { name: "devices", default: "auto" },
    Key { name: "memlock", default: "unlimited" },
    Key { name: "stack", default: "unlimited" },
    Key { name: "shm_size", default: "half" },
    Key { name: "storage_size", default: "none" },
    Key { name: "allow_images", default: "" },
    Key { name: "allow_root", default: "no" },
    Key { name: "engine_failure", default: "drain" },
    Key { name: "env_unset", default: "" },
    Key { name: "sshd", default: "auto" },
    Key { name: "slurm_commands", default: "auto" },
    Key { name: "image_cache", default: "none" },
    Key { name: "accounting", default: "none" },
];

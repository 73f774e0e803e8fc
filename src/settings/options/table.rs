//! All options, as users meet them. Pure; read by every process of the plugin.
#![forbid(unsafe_code)]

use std::fmt;

/// One option, as users meet it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionSpec {
    /// The name behind `--`.
    pub name: &'static str,
    /// What stands behind the name.
    pub takes: Takes,
    /// The variable that stands for the option when it is not given.
    pub variable: &'static str,
    /// One line of help.
    pub help: &'static str,
}

/// What an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// A value.
    Value {
        /// Of what.
        of: Valued,
        /// As the help calls it.
        shown: &'static str,
    },
    /// Nothing: it turns something on, or its counterpart turns it off.
    Nothing {
        /// What it turns.
        switch: Switch,
        /// Which of the two it is.
        on: bool,
    },
}

/// What has a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Valued {
    /// The image.
    Image,
    /// The pull policy.
    Pull,
    /// Mounts of the user.
    Mounts,
    /// Where tasks start.
    Workdir,
    /// Variables of the host that win.
    Env,
    /// Where the batch script runs.
    Script,
    /// How often the command runs.
    Launch,
    /// sshd's port.
    Port,
}

/// What is on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// Whether the home directory is mounted.
    MountHome,
    /// Whether the image's ENTRYPOINT runs.
    Entrypoint,
    /// Whether the container's own files are read-only.
    Readonly,
}

const fn value(
    of: Valued,
    name: &'static str,
    shown: &'static str,
    variable: &'static str,
    help: &'static str,
) -> OptionSpec {
    OptionSpec { name, takes: Takes::Value { of, shown }, variable, help }
}

const fn on(switch: Switch, name: &'static str, variable: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec { name, takes: Takes::Nothing { switch, on: true }, variable, help }
}

const fn off(switch: Switch, name: &'static str, variable: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec { name, takes: Takes::Nothing { switch, on: false }, variable, help }
}

/// All options, in the order of the help.
pub const TABLE: [OptionSpec; 14] = [
    value(
        Valued::Image,
        "docker-image",
        "IMAGE",
        "SLURM_DOCKER_IMAGE",
        "run the job in containers of this image, [registry[:port]/]name[:tag][@digest]; none: on the host",
    ),
    value(Valued::Pull, "docker-pull", "missing|always|never", "SLURM_DOCKER_PULL", "when to pull the image"),
    value(
        Valued::Mounts,
        "docker-mounts",
        "SRC[:DST[:FLAGS]],...",
        "SLURM_DOCKER_MOUNTS",
        "mount directories, files and devices of the host, or tmpfs:DST; flags like ro+rslave",
    ),
    value(
        Valued::Workdir,
        "docker-workdir",
        "PATH",
        "SLURM_DOCKER_WORKDIR",
        "directory in which tasks start; default: the job's working directory, else the image's",
    ),
    on(
        Switch::MountHome,
        "docker-mount-home",
        "SLURM_DOCKER_MOUNT_HOME",
        "mount the home directory instead of a fresh one",
    ),
    off(
        Switch::MountHome,
        "no-docker-mount-home",
        "SLURM_DOCKER_MOUNT_HOME",
        "use a fresh home directory in the container",
    ),
    value(
        Valued::Env,
        "docker-env",
        "NAME,...",
        "SLURM_DOCKER_ENV",
        "variables whose value in the job wins over the image's",
    ),
    on(
        Switch::Entrypoint,
        "docker-entrypoint",
        "SLURM_DOCKER_ENTRYPOINT",
        "run the image's ENTRYPOINT first",
    ),
    off(
        Switch::Entrypoint,
        "no-docker-entrypoint",
        "SLURM_DOCKER_ENTRYPOINT",
        "do not run the image's ENTRYPOINT",
    ),
    on(
        Switch::Readonly,
        "docker-readonly",
        "SLURM_DOCKER_READONLY",
        "make the container's own files read-only",
    ),
    off(
        Switch::Readonly,
        "docker-writable",
        "SLURM_DOCKER_WRITABLE",
        "keep the container's own files writable",
    ),
    value(
        Valued::Script,
        "docker-script",
        "container|host",
        "SLURM_DOCKER_SCRIPT",
        "where the batch script, or salloc's shell, runs",
    ),
    value(
        Valued::Launch,
        "docker-launch",
        "auto|all|once",
        "SLURM_DOCKER_LAUNCH",
        "run the command in all tasks or only once; auto: once for mpirun and the like",
    ),
    value(Valued::Port, "docker-port", "PORT", "SLURM_DOCKER_PORT", "port of the containers' sshd"),
];

impl OptionSpec {
    /// The option that says the opposite.
    pub(super) fn counterpart(&self) -> Option<&'static Self> {
        let Takes::Nothing { switch, on } = self.takes else { return None };
        TABLE.iter().find(|other| other.takes == Takes::Nothing { switch, on: !on })
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueSource {
    /// The command line, or `#SBATCH`.
    Option,
    /// The environment.
    Variable,
}

/// An option's name as the user knows it: `--docker-pull` or `SLURM_DOCKER_PULL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionName {
    pub(super) spec: &'static OptionSpec,
    pub(super) source: ValueSource,
}

impl fmt::Display for OptionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source {
            ValueSource::Option => write!(f, "--{}", self.spec.name),
            ValueSource::Variable => f.write_str(self.spec.variable),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_follows_one_scheme() {
        for spec in TABLE {
            assert!(spec.help.len() < 120 && !spec.help.ends_with('.'));
            let variable = format!("SLURM_{}", spec.name.to_uppercase().replace('-', "_"));
            match spec.takes {
                // There is one variable for both.
                Takes::Nothing { on: false, .. } if spec.name.starts_with("no-") => {
                    let counterpart = spec.counterpart().unwrap();
                    assert_eq!(spec.name, format!("no-{}", counterpart.name));
                    assert_eq!(spec.variable, counterpart.variable);
                }
                Takes::Value { .. } | Takes::Nothing { .. } => assert_eq!(spec.variable, variable),
            }
        }
    }

    #[test]
    fn each_switch_has_one_opposite() {
        for spec in &TABLE {
            let is_switch = matches!(spec.takes, Takes::Nothing { .. });
            let back = spec.counterpart().and_then(OptionSpec::counterpart);
            assert_eq!(back, is_switch.then_some(spec));
        }
    }
}

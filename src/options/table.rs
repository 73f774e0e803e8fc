//! All options, as users meet them. Pure; read by every process of the plugin.
#![forbid(unsafe_code)]

use std::fmt;

use super::parse::Source;

/// One option, as users meet it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
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
    /// A value, which the help calls so.
    Value(&'static str),
    /// Nothing: it turns something on, or its counterpart turns it off.
    Nothing {
        /// Which of the two it is.
        on: bool,
        /// The name of the option that says the opposite.
        counterpart: &'static str,
    },
}

const fn value(name: &'static str, value: &'static str, variable: &'static str, help: &'static str) -> Spec {
    Spec { name, takes: Takes::Value(value), variable, help }
}

const fn on(
    name: &'static str,
    counterpart: &'static str,
    variable: &'static str,
    help: &'static str,
) -> Spec {
    Spec { name, takes: Takes::Nothing { on: true, counterpart }, variable, help }
}

const fn off(
    name: &'static str,
    counterpart: &'static str,
    variable: &'static str,
    help: &'static str,
) -> Spec {
    Spec { name, takes: Takes::Nothing { on: false, counterpart }, variable, help }
}

/// All options, in the order of the help.
pub const TABLE: [Spec; 14] = [
    value(
        "docker-image",
        "IMAGE",
        "SLURM_DOCKER_IMAGE",
        "run the job in containers of this image, [registry[:port]/]name[:tag][@digest]; none: on the host",
    ),
    value("docker-pull", "missing|always|never", "SLURM_DOCKER_PULL", "when to pull the image"),
    value(
        "docker-mounts",
        "SRC[:DST[:FLAGS]],...",
        "SLURM_DOCKER_MOUNTS",
        "directories, files and devices of the host in the container, or tmpfs:DST; flags like ro+rslave",
    ),
    value(
        "docker-workdir",
        "PATH",
        "SLURM_DOCKER_WORKDIR",
        "where tasks start; otherwise the job's working directory, else the image's",
    ),
    on(
        "docker-mount-home",
        "no-docker-mount-home",
        "SLURM_DOCKER_MOUNT_HOME",
        "mount the home directory instead of making a fresh one",
    ),
    off(
        "no-docker-mount-home",
        "docker-mount-home",
        "SLURM_DOCKER_MOUNT_HOME",
        "make a fresh home directory in the container",
    ),
    value("docker-env", "NAME,...", "SLURM_DOCKER_ENV", "variables whose host value wins over the image's"),
    on(
        "docker-entrypoint",
        "no-docker-entrypoint",
        "SLURM_DOCKER_ENTRYPOINT",
        "run the image's ENTRYPOINT first",
    ),
    off(
        "no-docker-entrypoint",
        "docker-entrypoint",
        "SLURM_DOCKER_ENTRYPOINT",
        "do not run the image's ENTRYPOINT",
    ),
    on(
        "docker-readonly",
        "docker-writable",
        "SLURM_DOCKER_READONLY",
        "make the container's own files read-only",
    ),
    off(
        "docker-writable",
        "docker-readonly",
        "SLURM_DOCKER_WRITABLE",
        "leave the container's own files writable",
    ),
    value(
        "docker-script",
        "container|host",
        "SLURM_DOCKER_SCRIPT",
        "where the batch script, or the shell of salloc, runs",
    ),
    value(
        "docker-launch",
        "auto|all|once",
        "SLURM_DOCKER_LAUNCH",
        "run the command in all tasks or only once; auto: once if it is mpirun or the like",
    ),
    value("docker-port", "PORT", "SLURM_DOCKER_PORT", "port of the containers' sshd"),
];

impl Spec {
    /// The option that says the opposite.
    pub(super) fn counterpart(&self) -> Option<&'static Self> {
        let Takes::Nothing { counterpart, .. } = self.takes else { return None };
        TABLE.iter().find(|other| other.name == counterpart)
    }
}

/// An option's name as the user knows it: `--docker-pull` or `SLURM_DOCKER_PULL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    pub(super) spec: &'static Spec,
    pub(super) source: Source,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source {
            Source::Option => write!(f, "--{}", self.spec.name),
            Source::Variable => f.write_str(self.spec.variable),
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
                Takes::Nothing { on: false, counterpart } if spec.name.starts_with("no-") => {
                    assert_eq!(spec.name, format!("no-{counterpart}"));
                    assert_eq!(spec.counterpart().unwrap().variable, spec.variable);
                }
                Takes::Value(_) | Takes::Nothing { .. } => assert_eq!(spec.variable, variable),
            }
        }
    }

    #[test]
    fn what_turns_on_has_one_counterpart_that_turns_off() {
        for spec in &TABLE {
            match (spec.takes, spec.counterpart()) {
                (Takes::Value(_), None) => {}
                (Takes::Nothing { on, .. }, Some(other)) => {
                    let Takes::Nothing { on: other_on, counterpart } = other.takes else {
                        panic!("{other:?}")
                    };
                    assert_ne!(on, other_on);
                    assert_eq!(counterpart, spec.name);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

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
    /// Nothing: it turns something on, or its counterpart of the same variable turns it off.
    Nothing {
        /// Which of the two it is.
        on: bool,
    },
}

const fn value(name: &'static str, value: &'static str, variable: &'static str, help: &'static str) -> Spec {
    Spec { name, takes: Takes::Value(value), variable, help }
}

const fn switch(name: &'static str, on: bool, variable: &'static str, help: &'static str) -> Spec {
    Spec { name, takes: Takes::Nothing { on }, variable, help }
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
    switch(
        "docker-mount-home",
        true,
        "SLURM_DOCKER_MOUNT_HOME",
        "mount the home directory instead of making a fresh one",
    ),
    switch(
        "no-docker-mount-home",
        false,
        "SLURM_DOCKER_MOUNT_HOME",
        "make a fresh home directory in the container",
    ),
    value("docker-env", "NAME,...", "SLURM_DOCKER_ENV", "variables whose host value wins over the image's"),
    switch("docker-entrypoint", true, "SLURM_DOCKER_ENTRYPOINT", "run the image's ENTRYPOINT first"),
    switch("no-docker-entrypoint", false, "SLURM_DOCKER_ENTRYPOINT", "do not run the image's ENTRYPOINT"),
    switch("docker-readonly", true, "SLURM_DOCKER_READONLY", "make the container's own files read-only"),
    switch("docker-writable", false, "SLURM_DOCKER_READONLY", "leave the container's own files writable"),
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
        TABLE.iter().find(|other| other.variable == self.variable && other.name != self.name)
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
                Takes::Value(_) | Takes::Nothing { on: true } => assert_eq!(spec.variable, variable),
                Takes::Nothing { on: false } => assert!(spec.counterpart().is_some()),
            }
        }
    }

    #[test]
    fn what_turns_on_has_one_counterpart_that_turns_off() {
        for spec in &TABLE {
            match (spec.takes, spec.counterpart()) {
                (Takes::Value(_), None) => {}
                (Takes::Nothing { on }, Some(Spec { takes: Takes::Nothing { on: other }, .. })) => {
                    assert_ne!(on, *other);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

//! All options, as users know them: name, kind of value, and the field that takes it. Pure; read by every process of the
//! plugin.
#![forbid(unsafe_code)]

use super::name::{OptionName, ValueSource};
use super::read::{self, Read};
use super::value::{ImageChoice, Options};

/// One option, as users know it.
#[derive(Debug, Clone, Copy)]
pub struct OptionSpec {
    /// The name after `--`.
    pub name: &'static str,
    /// What follows the name.
    pub kind: OptionKind,
    /// The variable that replaces the option when it is not given.
    pub variable: &'static str,
    /// One line of help.
    pub help: &'static str,
}

/// Whether an option takes a value.
#[derive(Debug, Clone, Copy)]
pub enum OptionKind {
    /// A value.
    Value(ValueKind),
    /// Nothing: it turns something on or off.
    Switch(SwitchKind),
}

/// The kind of an option's value.
#[derive(Debug, Clone, Copy)]
pub struct ValueKind {
    /// Its name in the help.
    pub shown: &'static str,
    pub(super) read: Read,
    pub(super) is_given: fn(&Options) -> bool,
}

/// What an option without a value turns on or off.
#[derive(Debug, Clone, Copy)]
pub struct SwitchKind {
    pub(super) on: bool,
    /// The name of the opposite option.
    pub(super) opposite: &'static str,
    pub(super) field: fn(&mut Options) -> &mut Option<bool>,
}

const fn value(
    name: &'static str,
    shown: &'static str,
    variable: &'static str,
    help: &'static str,
    read: Read,
    is_given: fn(&Options) -> bool,
) -> OptionSpec {
    OptionSpec { name, kind: OptionKind::Value(ValueKind { shown, read, is_given }), variable, help }
}

const fn on(
    [name, opposite]: [&'static str; 2],
    variable: &'static str,
    help: &'static str,
    field: fn(&mut Options) -> &mut Option<bool>,
) -> OptionSpec {
    let kind = OptionKind::Switch(SwitchKind { on: true, opposite, field });
    OptionSpec { name, kind, variable, help }
}

const fn off(
    [name, opposite]: [&'static str; 2],
    variable: &'static str,
    help: &'static str,
    field: fn(&mut Options) -> &mut Option<bool>,
) -> OptionSpec {
    let kind = OptionKind::Switch(SwitchKind { on: false, opposite, field });
    OptionSpec { name, kind, variable, help }
}

/// All options, in the order of the help.
pub const TABLE: [OptionSpec; 14] = [
    value(
        "docker-image",
        "IMAGE",
        "SLURM_DOCKER_IMAGE",
        "run in containers of this image: [registry[:port]/]name[:tag][@digest], a file (/..., ./...); none: on the host",
        read::image,
        |options| options.image != ImageChoice::Unset,
    ),
    value(
        "docker-pull",
        "missing|always|never",
        "SLURM_DOCKER_PULL",
        "when to pull the image",
        read::pull,
        |options| options.pull.is_some(),
    ),
    value(
        "docker-mounts",
        "SRC[:DST[:FLAGS]],...",
        "SLURM_DOCKER_MOUNTS",
        "mount directories, files and devices of the host, or tmpfs:DST; flags like ro+rslave",
        read::mounts,
        |options| !options.mounts.is_empty(),
    ),
    value(
        "docker-workdir",
        "PATH",
        "SLURM_DOCKER_WORKDIR",
        "directory in which tasks start; default: the job's working directory, else the image's",
        read::workdir,
        |options| options.workdir.is_some(),
    ),
    on(
        ["docker-mount-home", "no-docker-mount-home"],
        "SLURM_DOCKER_MOUNT_HOME",
        "mount the home directory instead of a fresh one",
        |options| &mut options.mount_home,
    ),
    off(
        ["no-docker-mount-home", "docker-mount-home"],
        "SLURM_DOCKER_NO_MOUNT_HOME",
        "use a fresh home directory in the container",
        |options| &mut options.mount_home,
    ),
    value(
        "docker-env",
        "NAME,...",
        "SLURM_DOCKER_ENV",
        "variables whose value in the job wins over the image's",
        read::env,
        |options| !options.env.is_empty(),
    ),
    on(
        ["docker-entrypoint", "no-docker-entrypoint"],
        "SLURM_DOCKER_ENTRYPOINT",
        "run the image's ENTRYPOINT first",
        |options| &mut options.entrypoint,
    ),
    off(
        ["no-docker-entrypoint", "docker-entrypoint"],
        "SLURM_DOCKER_NO_ENTRYPOINT",
        "do not run the image's ENTRYPOINT",
        |options| &mut options.entrypoint,
    ),
    on(
        ["docker-readonly", "docker-writable"],
        "SLURM_DOCKER_READONLY",
        "make the container's own files read-only",
        |options| &mut options.readonly,
    ),
    off(
        ["docker-writable", "docker-readonly"],
        "SLURM_DOCKER_WRITABLE",
        "keep the container's own files writable",
        |options| &mut options.readonly,
    ),
    value(
        "docker-script",
        "container|host",
        "SLURM_DOCKER_SCRIPT",
        "where the batch script, or salloc's shell, runs",
        read::script,
        |options| options.script.is_some(),
    ),
    value(
        "docker-launch",
        "auto|all|once",
        "SLURM_DOCKER_LAUNCH",
        "run the command in all tasks or only once; auto: once for mpirun and the like",
        read::launch,
        |options| options.launch.is_some(),
    ),
    value(
        "docker-port",
        "PORT",
        "SLURM_DOCKER_PORT",
        "port of the containers' sshd",
        read::port,
        |options| options.port.is_some(),
    ),
];

impl OptionSpec {
    pub(super) fn name_in(&self, source: ValueSource) -> OptionName {
        match source {
            ValueSource::Option => OptionName::Option(self.name),
            ValueSource::Variable => OptionName::Variable(self.variable),
        }
    }

    /// The option that says the opposite.
    #[must_use]
    pub fn opposite(&self) -> Option<&'static Self> {
        match self.kind {
            OptionKind::Switch(kind) => find(kind.opposite),
            OptionKind::Value(_) => None,
        }
    }

    /// Whether this option is set in `options`.
    pub(super) fn is_given(&self, options: &Options) -> bool {
        match self.kind {
            OptionKind::Value(kind) => (kind.is_given)(options),
            OptionKind::Switch(kind) => *(kind.field)(&mut options.clone()) == Some(kind.on),
        }
    }
}

/// The option of this name.
fn find(name: &str) -> Option<&'static OptionSpec> {
    TABLE.iter().find(|spec| spec.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_follows_one_scheme() {
        for spec in TABLE {
            assert!(spec.help.len() < 120 && !spec.help.ends_with('.'));
            let name = spec.name.replace("docker-", "").to_uppercase().replace('-', "_");
            assert_eq!(spec.variable, format!("SLURM_DOCKER_{name}"));
            if let OptionKind::Switch(kind) = spec.kind
                && spec.name.starts_with("no-")
            {
                assert!(!kind.on);
                assert_eq!(spec.name, format!("no-{}", kind.opposite));
            }
        }
    }

    #[test]
    fn each_switch_has_one_opposite() {
        for spec in &TABLE {
            let OptionKind::Switch(kind) = spec.kind else { continue };
            let OptionKind::Switch(opposite) = find(kind.opposite).unwrap().kind else {
                panic!("{}", spec.name)
            };
            assert_eq!((opposite.opposite, opposite.on), (spec.name, !kind.on));
            let mut options = Options::default();
            *(kind.field)(&mut options) = Some(true);
            assert_eq!(*(opposite.field)(&mut options), Some(true));
        }
    }
}

//! Why a mount fails, in terms of the option or setting that wants it.

use std::io;

use crate::linux::inside::PlaceError;
use crate::log::escape::Escaped;

/// Who wants a mount: what a message about it begins with, and what can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountOrigin {
    /// `--docker-mounts`
    User,
    /// `mounts` of the configuration.
    Admin,
    /// `--docker-mount-home`, or `mount_home`.
    Home,
    /// `--docker-readonly`, which leaves no other `/tmp`.
    ReadOnly,
    /// The plugin itself, for every job.
    Standard,
}

impl std::fmt::Display for MountOrigin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::User => "--docker-mounts",
            Self::Admin => "mounts in plugstack.conf",
            Self::Home => "--docker-mount-home",
            Self::ReadOnly => "--docker-readonly",
            Self::Standard => "working directory or home",
        })
    }
}

impl MountOrigin {
    fn remedy(self) -> &'static str {
        match self {
            Self::User => "use one that every node of the job has",
            Self::Admin => "ask the admin",
            Self::Home => "use --no-docker-mount-home",
            Self::ReadOnly => "use --docker-writable",
            Self::Standard => "ask the admin",
        }
    }

    fn another_place(self) -> &'static str {
        match self {
            Self::User => "name a directory elsewhere, or tmpfs:DST",
            Self::Admin | Self::ReadOnly => "ask the admin",
            Self::Home => "use --no-docker-mount-home",
            Self::Standard => "submit from another directory",
        }
    }

    fn way_around(self) -> &'static str {
        match self {
            Self::User => "check its file system, or leave it out",
            Self::Admin | Self::ReadOnly => "ask the admin",
            Self::Home => "check its file system, or use --no-docker-mount-home",
            Self::Standard => "check its file system, or submit from another directory",
        }
    }
}

/// Why something cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The source does not exist.
    #[error("{origin}: '{path}' does not exist on this node: {}", origin.remedy())]
    Missing {
        /// Who wants it.
        origin: MountOrigin,
        /// The source.
        path: Escaped,
    },
    /// The user may not go there.
    #[error("{origin}: '{path}': permission denied on this node: {}", origin.remedy())]
    Denied {
        /// Who wants it.
        origin: MountOrigin,
        /// The source.
        path: Escaped,
    },
    /// Slurm gives each job a directory of its own there, which a prolog does not see.
    #[error(
        "{origin}: '{path}' is in or above '{directory}', which Slurm makes private to each job on the host (job_container.conf or namespace.yaml): {}",
        origin.another_place()
    )]
    Private {
        /// Who wants it.
        origin: MountOrigin,
        /// The source.
        path: Escaped,
        /// What is private.
        directory: Escaped,
    },
    /// Which directories these are cannot be found out.
    #[error(
        "{origin}: '{path}' cannot be mounted, because job_container.conf or namespace.yaml cannot be read on this node: ask the admin"
    )]
    PrivateUnknown {
        /// Who wants it.
        origin: MountOrigin,
        /// The source.
        path: Escaped,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A link of /proc to what some process has open, or links in a circle.
    #[error("{origin}: '{path}' resolves through a link that cannot be followed: name the link's target")]
    Link {
        /// Who wants it.
        origin: MountOrigin,
        /// The source.
        path: Escaped,
    },
    /// Its server says nothing: it hangs, or is gone.
    #[error("{origin}: '{path}' does not answer on this node: {}", origin.way_around())]
    Silent {
        /// Who wants it.
        origin: MountOrigin,
        /// The source, or the place.
        path: Escaped,
    },
    /// Another reason.
    #[error("{origin}: '{path}' cannot be mounted: {source}")]
    Source {
        /// Who wants it.
        origin: MountOrigin,
        /// The source.
        path: Escaped,
        /// Why not.
        source: io::Error,
    },
    /// A device that the user may not open.
    #[error("{origin}: '{path}' is a device that you may not open for reading and writing: leave it out")]
    Device {
        /// Who wants it.
        origin: MountOrigin,
        /// The source.
        path: Escaped,
    },
    /// Slurm keeps it for whom it is given to.
    #[error("{origin}: '{path}' is a GPU that Slurm did not allocate to the job: request it with --gres")]
    Gpu {
        /// Who wants it.
        origin: MountOrigin,
        /// The source.
        path: Escaped,
    },
    /// A device knows no read-only mount.
    #[error("{origin}: '{path}' is a device, and cannot be mounted read-only: leave the flag 'ro' out")]
    ReadOnlyDevice {
        /// Who wants it.
        origin: MountOrigin,
        /// The source.
        path: Escaped,
    },
    /// Something else than a device, where the devices are.
    #[error(
        "{origin}: '{target}' can hold only devices, and '{path}' is not one: name the devices, not their directory"
    )]
    NoDevice {
        /// Who wants it.
        origin: MountOrigin,
        /// The source.
        path: Escaped,
        /// In the container.
        target: Escaped,
    },
    /// The place in the container is a directory, the source none.
    #[error(
        "{origin}: '{target}' is a directory in the container, and '{path}' is not: name a file as the target"
    )]
    OnDirectory {
        /// Who wants it.
        origin: MountOrigin,
        /// The source.
        path: Escaped,
        /// In the container.
        target: Escaped,
    },
    /// The place in the container is no directory, the source one.
    #[error(
        "{origin}: '{target}' is not a directory in the container, and '{path}' is: name a directory as the target"
    )]
    OnFile {
        /// Who wants it.
        origin: MountOrigin,
        /// The source.
        path: Escaped,
        /// In the container.
        target: Escaped,
    },
    /// The place leads into what is the container's own.
    #[error("{origin}: '{target}' resolves to a path of the container's own system: choose another target")]
    System {
        /// Who wants it.
        origin: MountOrigin,
        /// In the container.
        target: Escaped,
    },
    /// The place does not exist, and lies in a mount where the user cannot make it.
    #[error(
        "{origin}: '{at}' does not exist in the container, and you cannot create it there: create it on the host, or choose another target"
    )]
    Make {
        /// Who wants it.
        origin: MountOrigin,
        /// The part that is missing.
        at: Escaped,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The place cannot be looked up.
    #[error("{origin}: '{target}' cannot be mounted on: {source}")]
    Target {
        /// Who wants it.
        origin: MountOrigin,
        /// In the container.
        target: Escaped,
        /// Why not.
        source: io::Error,
    },
    /// A mount that every job gets, where the image has something else. A warning.
    #[error(
        "working directory or home: '{target}' is left out of the container: {source}: use --docker-workdir or --docker-mounts"
    )]
    LeftOut {
        /// In the container.
        target: Escaped,
        /// What is there.
        source: PlaceError,
    },
    /// More mounts in one container than a node can bear.
    #[error(
        "{count} mounts in the container, those below the named directories included, at most {most} are allowed: name directories with fewer mounts below them"
    )]
    Many {
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
}

impl MountError {
    /// Whether the plugin adds this mount to every job: the job goes on without. Not where a file system does not answer:
    /// Slurm hangs there, or what the user has named.
    pub(super) fn is_of_standard_mount(&self) -> bool {
        let origin = match self {
            Self::Silent { .. } | Self::Many { .. } => return false,
            Self::LeftOut { .. } => return true,
            Self::Missing { origin, .. }
            | Self::Denied { origin, .. }
            | Self::Private { origin, .. }
            | Self::PrivateUnknown { origin, .. }
            | Self::Link { origin, .. }
            | Self::Source { origin, .. }
            | Self::Device { origin, .. }
            | Self::Gpu { origin, .. }
            | Self::ReadOnlyDevice { origin, .. }
            | Self::NoDevice { origin, .. }
            | Self::OnDirectory { origin, .. }
            | Self::OnFile { origin, .. }
            | Self::System { origin, .. }
            | Self::Make { origin, .. }
            | Self::Target { origin, .. } => origin,
        };
        *origin == MountOrigin::Standard
    }
}

/// Why a source cannot be opened.
pub(super) fn explain_source(error: io::Error, origin: MountOrigin, path: Escaped) -> MountError {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => MountError::Missing { origin, path },
        Some(libc::EACCES | libc::EPERM) => MountError::Denied { origin, path },
        Some(libc::ELOOP) => MountError::Link { origin, path },
        Some(libc::ETIMEDOUT) => MountError::Silent { origin, path },
        _ => MountError::Source { origin, path, source: error },
    }
}

/// Why nothing can be mounted at `target`.
pub(super) fn explain_place(
    error: PlaceError,
    origin: MountOrigin,
    path: Escaped,
    target: Escaped,
) -> MountError {
    match error {
        PlaceError::Silent { at } => MountError::Silent { origin, path: at.as_path().into() },
        source if origin == MountOrigin::Standard => MountError::LeftOut { target, source },
        PlaceError::IsDirectory => MountError::OnDirectory { origin, path, target },
        PlaceError::NotDirectory => MountError::OnFile { origin, path, target },
        PlaceError::System => MountError::System { origin, target },
        PlaceError::Reach(source) => MountError::Target { origin, target, source },
        PlaceError::Make { at, source } => MountError::Make { origin, at: at.as_path().into(), source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_a_failed_mount_name_option_and_remedy() {
        let (origin, path, target) = (MountOrigin::User, Escaped::from("/a"), Escaped::from("/b"));
        let make = PlaceError::Make { at: "/b/c".into(), source: io::Error::from_raw_os_error(libc::EACCES) };
        let reach = PlaceError::Reach(io::Error::from_raw_os_error(libc::EACCES));
        let words = |error| explain_place(error, origin, path.clone(), target.clone()).to_string();
        for (said, expected) in [
            (
                MountError::Missing { origin, path: path.clone() }.to_string(),
                "--docker-mounts: '/a' does not exist on this node: use one that every node of the job has",
            ),
            (
                MountError::Missing { origin: MountOrigin::Admin, path: path.clone() }.to_string(),
                "mounts in plugstack.conf: '/a' does not exist on this node: ask the admin",
            ),
            (
                MountError::Denied { origin: MountOrigin::Home, path: path.clone() }.to_string(),
                "--docker-mount-home: '/a': permission denied on this node: use --no-docker-mount-home",
            ),
            (
                MountError::Link { origin, path: path.clone() }.to_string(),
                "--docker-mounts: '/a' resolves through a link that cannot be followed: name the link's target",
            ),
            (
                MountError::Private { origin, path: path.clone(), directory: Escaped::from("/tmp") }
                    .to_string(),
                "--docker-mounts: '/a' is in or above '/tmp', which Slurm makes private to each job on the host \
                 (job_container.conf or namespace.yaml): name a directory elsewhere, or tmpfs:DST",
            ),
            (
                MountError::Device { origin, path: path.clone() }.to_string(),
                "--docker-mounts: '/a' is a device that you may not open for reading and writing: leave it out",
            ),
            (
                MountError::Gpu { origin, path: path.clone() }.to_string(),
                "--docker-mounts: '/a' is a GPU that Slurm did not allocate to the job: request it with --gres",
            ),
            (
                MountError::ReadOnlyDevice { origin, path: path.clone() }.to_string(),
                "--docker-mounts: '/a' is a device, and cannot be mounted read-only: leave the flag 'ro' out",
            ),
            (
                MountError::NoDevice { origin, path: path.clone(), target: target.clone() }.to_string(),
                "--docker-mounts: '/b' can hold only devices, and '/a' is not one: name the devices, not their directory",
            ),
            (
                words(PlaceError::IsDirectory),
                "--docker-mounts: '/b' is a directory in the container, and '/a' is not: name a file as the target",
            ),
            (
                words(PlaceError::NotDirectory),
                "--docker-mounts: '/b' is not a directory in the container, and '/a' is: name a directory as the target",
            ),
            (
                words(PlaceError::System),
                "--docker-mounts: '/b' resolves to a path of the container's own system: choose another target",
            ),
            (
                words(make),
                "--docker-mounts: '/b/c' does not exist in the container, and you cannot create it there: \
                 create it on the host, or choose another target",
            ),
            (
                MountError::Silent { origin: MountOrigin::Standard, path: path.clone() }.to_string(),
                "working directory or home: '/a' does not answer on this node: check its file system, \
                 or submit from another directory",
            ),
            (
                words(PlaceError::Silent { at: "/b/c".into() }),
                "--docker-mounts: '/b/c' does not answer on this node: check its file system, or leave it out",
            ),
            (words(reach), "--docker-mounts: '/b' cannot be mounted on: Permission denied (os error 13)"),
        ] {
            assert_eq!(said, expected);
        }
    }
}

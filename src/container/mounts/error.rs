//! Why a mount fails, in terms of the option or setting that requests it.

use std::io;

use crate::linux::inside::PlaceError;
use crate::log::escape::Escaped;

/// What requests a mount: it determines how a message begins, and what it advises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountOrigin {
    /// `--docker-mounts`
    User,
    /// `mounts` of the configuration.
    Admin,
    /// `--docker-mount-home`, or `mount_home`.
    Home,
    /// `--docker-readonly`, with which `/tmp` is a mount of its own.
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
        /// What requests it.
        origin: MountOrigin,
        /// The source.
        path: Escaped,
    },
    /// The user has no permission to reach it.
    #[error("{origin}: '{path}': permission denied on this node: {}", origin.remedy())]
    Denied {
        /// What requests it.
        origin: MountOrigin,
        /// The source.
        path: Escaped,
    },
    /// Slurm mounts a private directory there for each job, which a prolog does not see.
    #[error(
        "{origin}: '{path}' is in or above '{directory}', which Slurm makes private to each job on the host (job_container.conf or namespace.yaml): {}",
        origin.another_place()
    )]
    Private {
        /// What requests it.
        origin: MountOrigin,
        /// The source.
        path: Escaped,
        /// The private directory.
        directory: Escaped,
    },
    /// The private directories cannot be found out.
    #[error(
        "{origin}: '{path}' cannot be mounted, because job_container.conf or namespace.yaml cannot be read on this node: ask the admin"
    )]
    PrivateUnknown {
        /// What requests it.
        origin: MountOrigin,
        /// The source.
        path: Escaped,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The path has a magic link of /proc, which leads to a file that some process has open, or a loop of
    /// links.
    #[error("{origin}: '{path}' resolves through a link that cannot be followed: name the link's target")]
    Link {
        /// What requests it.
        origin: MountOrigin,
        /// The source.
        path: Escaped,
    },
    /// The server of its file system does not answer: it hangs, or is gone.
    #[error("{origin}: '{path}' does not answer on this node: {}", origin.way_around())]
    Silent {
        /// What requests it.
        origin: MountOrigin,
        /// The source or the target.
        path: Escaped,
    },
    /// The source cannot be opened for another reason.
    #[error("{origin}: '{path}' cannot be mounted: {source}")]
    Source {
        /// What requests it.
        origin: MountOrigin,
        /// The source.
        path: Escaped,
        /// Why not.
        source: io::Error,
    },
    /// A device that the user may not open.
    #[error("{origin}: '{path}' is a device that you may not open for reading and writing: leave it out")]
    Device {
        /// What requests it.
        origin: MountOrigin,
        /// The source.
        path: Escaped,
    },
    /// The GPU is not the job's: Slurm has not allocated it.
    #[error("{origin}: '{path}' is a GPU that Slurm did not allocate to the job: request it with --gres")]
    Gpu {
        /// What requests it.
        origin: MountOrigin,
        /// The source.
        path: Escaped,
    },
    /// A read-only mount has no effect on a device.
    #[error("{origin}: '{path}' is a device, and cannot be mounted read-only: leave the flag 'ro' out")]
    ReadOnlyDevice {
        /// What requests it.
        origin: MountOrigin,
        /// The source.
        path: Escaped,
    },
    /// A file that is not a device would be mounted below /dev.
    #[error(
        "{origin}: '{target}' can hold only devices, and '{path}' is not one: name the devices, not their directory"
    )]
    NoDevice {
        /// What requests it.
        origin: MountOrigin,
        /// The source.
        path: Escaped,
        /// In the container.
        target: Escaped,
    },
    /// The target in the container is a directory, but the source is not.
    #[error(
        "{origin}: '{target}' is a directory in the container, and '{path}' is not: name a file as the target"
    )]
    OnDirectory {
        /// What requests it.
        origin: MountOrigin,
        /// The source.
        path: Escaped,
        /// In the container.
        target: Escaped,
    },
    /// The target in the container is not a directory, but the source is.
    #[error(
        "{origin}: '{target}' is not a directory in the container, and '{path}' is: name a directory as the target"
    )]
    OnFile {
        /// What requests it.
        origin: MountOrigin,
        /// The source.
        path: Escaped,
        /// In the container.
        target: Escaped,
    },
    /// The target leads into the container's own system.
    #[error("{origin}: '{target}' resolves to a path of the container's own system: choose another target")]
    System {
        /// What requests it.
        origin: MountOrigin,
        /// In the container.
        target: Escaped,
    },
    /// The target does not exist, and lies in a mount where the user cannot create it.
    #[error(
        "{origin}: '{at}' does not exist in the container, and you cannot create it there: create it on the host, or choose another target"
    )]
    Make {
        /// What requests it.
        origin: MountOrigin,
        /// The part that is missing.
        at: Escaped,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The target cannot be looked up.
    #[error("{origin}: '{target}' cannot be mounted on: {source}")]
    Target {
        /// What requests it.
        origin: MountOrigin,
        /// In the container.
        target: Escaped,
        /// Why not.
        source: io::Error,
    },
    /// A warning: a mount that every job gets is left out, because the image has another kind of file there.
    #[error(
        "working directory or home: '{target}' is left out of the container: {source}: use --docker-workdir or --docker-mounts"
    )]
    LeftOut {
        /// In the container.
        target: Escaped,
        /// Why it cannot be mounted there.
        source: PlaceError,
    },
    /// The container would have more mounts than a node can have.
    #[error(
        "{count} mounts in the container, those below the named directories included, at most {most} are allowed: name directories with fewer mounts below them"
    )]
    Many {
        /// The number of mounts.
        count: usize,
        /// The limit.
        most: usize,
    },
}

impl MountError {
    /// Whether the plugin adds this mount to every job: the job runs without it. False where a file system does
    /// not answer: Slurm itself, or a mount that the user has requested, would hang there.
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

/// The error for a source that cannot be opened.
pub(super) fn explain_source(error: io::Error, origin: MountOrigin, path: Escaped) -> MountError {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => MountError::Missing { origin, path },
        Some(libc::EACCES | libc::EPERM) => MountError::Denied { origin, path },
        Some(libc::ELOOP) => MountError::Link { origin, path },
        Some(libc::ETIMEDOUT) => MountError::Silent { origin, path },
        _ => MountError::Source { origin, path, source: error },
    }
}

/// The error for a target on which nothing can be mounted.
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

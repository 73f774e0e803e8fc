//! What a container must not have: checked in the image, and in the container itself.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use super::error::{StartError, files_error};
use super::spec;
use super::start_request::StartRequest;
use crate::container::gpus;
use crate::engine::{self, Image};
use crate::guest::paths;
use crate::linux::inside::ContainerRoot;
use crate::linux::mountinfo::Mounted;
use crate::log::escape::Escaped;
use crate::settings::choices::Sshd;
use crate::slurm::gres::Nvidia;

/// Root's jobs get a container only where the admin allows that.
pub(super) fn check_user(start: &StartRequest<'_>) -> Result<(), StartError> {
    if start.request.credentials.uid == 0 && !start.config.allow_root {
        return Err(StartError::Root);
    }
    Ok(())
}

/// More volumes than any ordinary image has. For each, the engine makes a directory and writes to disk, with
/// every container and at its end.
const VOLUMES: usize = 256;

/// An engine mounts volumes over its own mounts: with one, an image could bring its own /dev or /proc.
pub(super) fn check_volumes(start: &StartRequest<'_>, image: &Image) -> Result<(), StartError> {
    if image.volumes.len() > VOLUMES {
        return Err(StartError::Volumes { image: start.image_name(), number: image.volumes.len() });
    }
    match image.volumes.iter().find(|volume| hides_the_system(volume)) {
        None => Ok(()),
        Some(volume) => Err(StartError::Volume { image: start.image_name(), volume: Escaped::new(volume) }),
    }
}

/// The same for where a volume was mounted above the plugin's directory: `/var/run` may be a link to `/run`. What is mounted on that
/// directory itself is covered by it, and the system's other directories are checked by [`super::populate::harden`].
pub(super) fn check_mounted_volumes(start: &StartRequest<'_>, mounts: &[Mounted]) -> Result<(), StartError> {
    let volumes = engine::volumes(mounts);
    let mut points = mounts.iter().filter(|mount| volumes.contains(&mount.id)).map(|mount| &mount.point);
    let directory = Path::new(paths::DIRECTORY);
    match points.find(|point| directory.starts_with(point) && *point != directory) {
        None => Ok(()),
        Some(point) => {
            let volume = Escaped::new(point.as_os_str().as_bytes());
            Err(StartError::Volume { image: start.image_name(), volume })
        }
    }
}

/// Checks that the user can enter the plugin's directory, by which its sshd runs and all else is found.
pub(super) fn check_plugin_directory(
    start: &StartRequest<'_>,
    root: &ContainerRoot,
) -> Result<(), StartError> {
    if start.sshd == Sshd::None || ["/", "/run"].iter().all(|path| root.is_open_to_others(Path::new(path))) {
        return Ok(());
    }
    // Links, groups, access control lists: the user alone knows.
    match root.is_directory_for(Path::new(paths::DIRECTORY), &start.request.credentials) {
        Ok(true) => Ok(()),
        Ok(false) => Err(StartError::ClosedRun { image: start.image_name() }),
        Err(error) => Err(files_error("look for the plugin's directory")(error)),
    }
}

/// Engines resolve a path that does not begin with a slash from the container's root.
fn hides_the_system(volume: &str) -> bool {
    const SYSTEM: [&str; 4] = ["/dev", "/proc", "/sys", paths::DIRECTORY];
    let volume = Path::new("/").join(volume);
    volume.components().any(|part| matches!(part, Component::ParentDir))
        || SYSTEM.iter().any(|system| volume.starts_with(system) || Path::new(system).starts_with(&volume))
}

/// Checks that no GPU of another job is in the container: the names in a CDI specification do not prove which
/// device they add.
pub(super) fn check_gpus(
    start: &StartRequest<'_>,
    root: &ContainerRoot,
    nvidia: &[Nvidia],
) -> Result<(), StartError> {
    let own = start.request.gpus.clone().unwrap_or_default();
    let devices = spec::devices(&start.config.devices);
    let foreign_gpu = gpus::foreign_gpu(&own, nvidia, &devices, |path| root.names(path));
    match foreign_gpu.map_err(files_error("list the container's devices"))? {
        None => Ok(()),
        Some(device) => Err(crate::slurm::gres::GresError::Foreign { device }.into()),
    }
}

/// Checks that the file system of the container, and each of its volumes, ends at `storage_size`: an engine that does not
/// know the limit may not refuse it.
pub(super) fn check_storage(
    start: &StartRequest<'_>,
    root: &ContainerRoot,
    engines: &[Mounted],
    volumes: &[u64],
) -> Result<(), StartError> {
    let Some(limit) = start.config.storage_size else { return Ok(()) };
    let volumes = engines.iter().filter(|mount| volumes.contains(&mount.id));
    let places = volumes.map(|mount| mount.point.as_path()).chain([Path::new("/")]);
    match without_limit(root, places, limit).map_err(files_error("look how much the container may write"))? {
        None => Ok(()),
        Some(path) => {
            let message = format!("it has set no limit at '{}'", Escaped::from(path));
            Err(StartError::Storage { message })
        }
    }
}

/// The first of these places whose file system is larger than the limit.
fn without_limit<'a>(
    root: &ContainerRoot,
    places: impl Iterator<Item = &'a Path>,
    limit: u64,
) -> io::Result<Option<&'a Path>> {
    for path in places {
        if root.size_of_file_system(path)? > limit {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Checks that the directory of `--docker-workdir` exists.
pub(super) fn check_workdir(start: &StartRequest<'_>, root: &ContainerRoot) -> Result<(), StartError> {
    let Some(path) = &start.request.options.workdir else { return Ok(()) };
    match root.is_directory_for(path, &start.request.credentials) {
        Ok(true) => Ok(()),
        Ok(false) => Err(StartError::Workdir { path: path.as_path().into() }),
        Err(error) if error.raw_os_error() == Some(libc::ETIMEDOUT) => {
            Err(StartError::SilentWorkdir { path: path.as_path().into() })
        }
        Err(error) => Err(files_error("find the working directory")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_system_larger_than_the_limit_has_none() {
        let root = ContainerRoot::current().unwrap();
        let found = |places: &'static [&'static str], limit| {
            without_limit(&root, places.iter().map(Path::new), limit)
        };
        assert_eq!(found(&["/proc", "/"], 1).unwrap(), Some(Path::new("/")));
        assert_eq!(found(&["/"], u64::MAX).unwrap(), None);
        found(&["/nowhere"], u64::MAX).unwrap_err();
    }

    #[test]
    fn a_volume_over_the_system_is_seen_however_it_is_written() {
        for volume in [
            "/dev",
            "dev/shm",
            "//proc/./sys",
            "sys/",
            "/run",
            "run",
            "run/spank-docker",
            "./run//spank-docker/x",
            "/x/../etc",
            "/",
            ".",
            "",
        ] {
            assert!(hides_the_system(volume), "'{volume}'");
        }
        for volume in ["/data", "data", "/device", "/run/spank", "/etc", "/x/..y"] {
            assert!(!hides_the_system(volume), "'{volume}'");
        }
    }
}

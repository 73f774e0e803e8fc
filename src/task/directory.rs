//! The directory in which a task's command starts, entered as the user, in the container.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::TaskError;
use crate::state::RunningContainer;

/// Enters the directory in which a task starts, as the user: the one that `--docker-workdir` names, else the
/// one that Slurm has entered, else, if the container does not have that one, the image's WORKDIR. Returns the
/// value for PWD, if it differs from `pwd`, the job's.
pub fn enter_directory(
    running: &RunningContainer,
    named: Option<&Path>,
    pwd: Option<&OsStr>,
) -> Result<Option<PathBuf>, TaskError> {
    if let Some(path) = named.or(running.options.workdir.as_deref()) {
        nix::unistd::chdir(path).map_err(|_| TaskError::Workdir { path: path.into() })?;
        return Ok(Some(path.to_owned()));
    }
    // Slurm changes to /tmp, and reports that, when it cannot enter the directory.
    let fell_back = env::current_dir().is_ok_and(|directory| directory == Path::new("/tmp"));
    // With `srun --chdir`, PWD is still the directory in which srun was called.
    let unmounted_workdir = running.unmounted_workdir.as_deref().map(Path::as_os_str);
    let is_missing = [pwd, unmounted_workdir]
        .into_iter()
        .flatten()
        .any(|path| !fs::metadata(path).is_ok_and(|metadata| metadata.is_dir()));
    // A directory of the image with the same name is another directory.
    let is_images = unmounted_workdir.is_some_and(is_here);
    if let Some(workdir) = running.workdir.as_deref().filter(|_| fell_back && is_missing || is_images) {
        // Slurm has reported to the user that the directory is missing; that the image's WORKDIR cannot be
        // entered either is not an error.
        let _ = nix::unistd::chdir(workdir);
    }
    Ok(if pwd.is_some_and(is_here) { None } else { env::current_dir().ok() })
}

/// Whether this path leads to the current directory.
fn is_here(path: &OsStr) -> bool {
    let number = |path: &Path| fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    Path::new(path).is_absolute() && number(Path::new(path)) == number(Path::new("."))
}

//! The files in the plugin's directory of a container, in `state_dir/<job>/container`: those that are written or removed after its
//! start. The content comes from [`crate::guest`].
//!
//! Runs as root: in tasks, in the extern step's slurmstepd, and wherever something ends.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;

use nix::fcntl::FlockArg;

use super::directory::{OwnerDir, write_new};
use super::error::StateError;
use crate::guest::paths;
use crate::linux::identity::UserIds;
use crate::linux::mount;
use crate::linux::removal::gone;
use crate::slurm::ids::StepId;

/// The file with the number of tasks in the hostfiles, and the lock for writing them.
const LAYOUT: &str = "layout";
const LAYOUT_LOCK: &str = "layout.lock";

impl OwnerDir {
    /// Writes or replaces a file in the plugin's directory in the container (`in_container`), readable for all.
    pub fn write_guest_file(&self, in_container: &str, content: &[u8]) -> Result<(), StateError> {
        let name = paths::file_name(in_container);
        let path = self.container().join(name);
        let temporary = self.container().join(format!(".{name}.{}", std::process::id()));
        let written = write_new(&temporary, 0o644, content).and_then(|()| fs::rename(&temporary, &path));
        written.map_err(self.failed("write", &path))
    }

    /// The same for a file that only the user can read.
    pub fn write_private_guest_file(
        &self,
        in_container: &str,
        content: &[u8],
        user: &UserIds,
    ) -> Result<(), StateError> {
        let name = paths::file_name(in_container);
        let path = self.container().join(name);
        let temporary = self.container().join(format!(".{name}.{}", std::process::id()));
        let written = write_new(&temporary, 0o400, content)
            .and_then(|()| chown(&temporary, Some(user.uid), Some(user.gid)))
            .and_then(|()| fs::rename(&temporary, &path));
        written.map_err(self.failed("write", &path))
    }

    /// Whether this file exists in the container's directory.
    #[must_use]
    pub fn has_guest_file(&self, in_container: &str) -> bool {
        self.container().join(paths::file_name(in_container)).exists()
    }

    /// Whether this file has this content.
    #[must_use]
    pub fn is_guest_file(&self, in_container: &str, content: &[u8]) -> bool {
        let path = self.container().join(paths::file_name(in_container));
        fs::read(path).is_ok_and(|found| found == content)
    }

    /// Removes the files of a step in the job's container.
    pub fn remove_hostfiles(&self, step: StepId) -> Result<(), StateError> {
        let container = self.container();
        paths::hostfiles_of(step).iter().try_for_each(|hostfile| {
            let path = container.join(paths::file_name(hostfile));
            gone(fs::remove_file(&path)).map_err(self.failed("remove", &path))
        })
    }

    /// Lets the hostfiles be written for a layout with this number of tasks, unless those of a layout as large
    /// exist. No task continues before they exist: their number is recorded last, and tasks wait for that.
    pub fn widen_hostfile(
        &self,
        tasks: u64,
        write: impl FnOnce() -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        let known = || fs::read_to_string(self.path.join(LAYOUT)).ok()?.parse::<u64>().ok();
        if known().unwrap_or(0) >= tasks {
            return Ok(());
        }
        let _turn = self.lock(LAYOUT_LOCK, FlockArg::LockExclusive)?;
        if known().unwrap_or(0) >= tasks {
            return Ok(());
        }
        write()?;
        self.replace(LAYOUT, tasks.to_string().as_bytes())
    }

    /// Removes the container's own part: keys, above all.
    pub fn remove_container(&self) -> Result<(), StateError> {
        let container = self.container();
        self.unlink_files()?;
        mount::detach(&container).map_err(self.failed("unmount", &container))?;
        gone(fs::remove_dir(&container)).map_err(self.failed("remove", &container))
    }

    /// Unlinks the files in the plugin's directory in the container, the keys first: a process of the job may
    /// have the mount in a namespace of its own, where it remains, and must not show a key.
    fn unlink_files(&self) -> Result<(), StateError> {
        let container = self.container();
        let mut paths: Vec<PathBuf> = match fs::read_dir(&container) {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
            // The directory is absent, or cannot be listed and so not unmounted either: what follows reports
            // that.
            Err(_) => return Ok(()),
        };
        paths.sort_by_key(|path| !paths::is_key(path));
        for path in paths {
            // The plugin's own, like everything in there.
            let is_directory = fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir());
            let removed = if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            gone(removed).map_err(self.failed("remove", &path))?;
        }
        Ok(())
    }
}

//! Freezes all processes of a cgroup at once, so that a list of them is complete and stays so: they can fork faster than the
//! plugin moves or kills them one by one.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::hierarchy::write;
use crate::linux::poll;

/// How long processes may take to freeze. A process that waits for a file system freezes only when that
/// answers; until then it cannot fork either.
const PATIENCE: Duration = Duration::from_secs(2);
/// Interval between checks.
const INTERVAL: Duration = Duration::from_millis(1);

/// Cgroups whose processes are frozen until this is dropped. A process that is moved out of them runs on.
#[derive(Debug)]
pub(super) struct Frozen(Vec<Freezer>);

impl Frozen {
    /// Freezes the processes of those `directories` that allow it.
    pub(super) fn stop<'a>(directories: impl Iterator<Item = &'a Path>) -> io::Result<Self> {
        let frozen = Self(directories.filter_map(Freezer::of).collect());
        frozen.0.iter().try_for_each(Freezer::freeze)?;
        Ok(frozen)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for freezer in &self.0 {
            // A cgroup that is gone needs no thaw; a container that stays frozen is removed with its job.
            let _ = write(&freezer.control, freezer.off);
        }
    }
}

/// Whether a cgroup is in the hierarchy that can freeze its processes.
pub(super) fn can_be_stopped(directory: &Path) -> bool {
    Freezer::of(directory).is_some()
}

/// The kernel's files for freezing in a cgroup's directory.
#[derive(Debug)]
struct Freezer {
    control: PathBuf,
    on: &'static str,
    off: &'static str,
    state: PathBuf,
    is_on: &'static str,
}

impl Freezer {
    /// With cgroup v1 only the freezer's hierarchy has such a file (freezer-subsystem.rst), with v2 every
    /// cgroup (cgroup-v2.rst).
    fn of(directory: &Path) -> Option<Self> {
        let (old, new) = (directory.join("freezer.state"), directory.join("cgroup.freeze"));
        if new.exists() {
            let state = directory.join("cgroup.events");
            Some(Self { control: new, on: "1", off: "0", state, is_on: "frozen 1" })
        } else {
            let state = old.clone();
            old.exists().then_some(Self { control: old, on: "FROZEN", off: "THAWED", state, is_on: "FROZEN" })
        }
    }

    fn freeze(&self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let frozen = write(&self.control, self.on).and_then(|()| {
            let is_final = |state: &io::Result<String>| {
                !matches!(state, Ok(state) if state.lines().all(|line| line != self.is_on))
            };
            poll::until(deadline, INTERVAL, || fs::read_to_string(&self.state), is_final)
        });
        match frozen {
            Err(error) if !is_gone(&error) => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// Whether a cgroup was removed, before or after the file in it was opened.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stands in for the kernel's files, which would not keep the text that was written.
    #[test]
    fn processes_are_frozen_until_the_guard_is_dropped_with_both_versions_of_cgroups() {
        for (control, state, shown, [on, off]) in [
            ("freezer.state", "freezer.state", "FROZEN", ["FROZEN", "THAWED"]),
            ("cgroup.freeze", "cgroup.events", "populated 1\nfrozen 1\n", ["1", "0"]),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let path = |name: &str| directory.path().join(name);
            fs::write(path(control), "").unwrap();
            fs::write(path(state), shown).unwrap();
            let frozen = Frozen::stop([directory.path()].into_iter()).unwrap();
            assert_eq!(fs::read_to_string(path(control)).unwrap(), on);
            drop(frozen);
            assert_eq!(fs::read_to_string(path(control)).unwrap(), off);
        }
    }

    #[test]
    fn missing_freezer_or_cgroup_is_skipped() {
        let directory = tempfile::tempdir().unwrap();
        let places = [directory.path(), Path::new("/nonexistent")];
        assert!(Frozen::stop(places.into_iter()).unwrap().0.is_empty());
    }
}

//! What an owner's directory says about the removal of its container: for later hooks, which may come when the job, the engine or
//! the node's memory of the container is gone.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::directory::{CGROUPS, OwnerDir, WRITTEN_TO};
use super::error::StateError;
use crate::linux::removal::gone;

const POSTPONED: &str = "postponed";
const CREATING: &str = "creating";

impl OwnerDir {
    /// Records cgroups of the job, which the epilog then removes: those of the extern step, or of a step.
    pub fn write_cgroups<'a>(&self, directories: impl Iterator<Item = &'a Path>) -> Result<(), StateError> {
        let lines: Vec<_> = directories.map(|directory| directory.as_os_str().as_bytes()).collect();
        self.replace(CGROUPS, &lines.join(&b'\n'))
    }

    /// These cgroups, as far as they were recorded.
    #[must_use]
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let text = fs::read(self.path.join(CGROUPS)).unwrap_or_default();
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| PathBuf::from(OsStr::from_bytes(line))).collect()
    }

    /// Records which directory of the host receives what the container writes.
    pub fn note_written_to(&self, path: &Path) -> Result<(), StateError> {
        self.replace(WRITTEN_TO, path.as_os_str().as_bytes())
    }

    /// Forgets that directory, since its container is gone: the next one may be elsewhere.
    pub fn forget_written_to(&self) -> Result<(), StateError> {
        let path = self.path.join(WRITTEN_TO);
        gone(fs::remove_file(&path)).map_err(self.failed("remove", &path))
    }

    /// That directory, if it was recorded.
    #[must_use]
    pub fn written_to(&self) -> Option<PathBuf> {
        let path = fs::read(self.path.join(WRITTEN_TO)).ok()?;
        Some(PathBuf::from(OsStr::from_bytes(&path)))
    }

    /// Records that the engine is asked to create the container: where the start is cut off before the answer, the engine goes on.
    pub fn note_creating(&self) -> Result<(), StateError> {
        self.replace(CREATING, b"")
    }

    /// Records that the engine has answered.
    pub fn note_created(&self) -> Result<(), StateError> {
        let path = self.path.join(CREATING);
        gone(fs::remove_file(&path)).map_err(self.failed("remove", &path))
    }

    /// Whether the engine may still create the container, for a start that was cut off.
    #[must_use]
    pub fn is_creating(&self) -> bool {
        self.path.join(CREATING).exists()
    }

    /// Records that the container could not be removed, or that a hook is about to try: the next hook tries
    /// after a pause, which grows from a minute to a day.
    pub fn postpone(&self) -> Result<(), StateError> {
        let tries = self.tries().unwrap_or(0);
        self.ensure()?;
        self.replace(POSTPONED, tries.saturating_add(1).to_string().as_bytes())
    }

    /// Records that the job, or the step, has ended, and that its container may still be there: the next hook that can ask the
    /// engine tries to remove it.
    pub fn note_ended(&self) -> Result<(), StateError> {
        if self.is_due().is_none() { self.replace(POSTPONED, b"0") } else { Ok(()) }
    }

    /// Resets the pause to the shortest: the removal makes progress, but takes long.
    pub fn postpone_no_longer(&self) -> Result<(), StateError> {
        self.replace(POSTPONED, b"1")
    }

    /// Whether the removal was postponed, and if so, whether the pause is over.
    #[must_use]
    pub fn is_due(&self) -> Option<bool> {
        const MINUTE: u64 = 60;
        const DAY: u64 = 24 * 60 * MINUTE;
        let since = fs::metadata(self.path.join(POSTPONED)).ok()?.modified().ok()?.elapsed();
        let tries = self.tries().unwrap_or(u32::MAX);
        if tries == 0 {
            return Some(true);
        }
        let pause =
            2u64.checked_pow(tries.saturating_sub(1)).map_or(DAY, |pauses| DAY.min(MINUTE * pauses.min(DAY)));
        Some(since.is_ok_and(|since| since.as_secs() >= pause))
    }

    fn tries(&self) -> Option<u32> {
        fs::read_to_string(self.path.join(POSTPONED)).ok()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use crate::linux::lacking;
    use crate::slurm::ids::{JobId, Owner};
    use crate::state::{Origin, Outcome, StateDir};

    #[test]
    fn where_a_container_has_written_is_known_until_it_is_gone() {
        if lacking::root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let job = StateDir::new(&directory.path().join("state")).of(Owner::job(JobId(7)));
        job.begin(&Origin::default(), Outcome::Starting).unwrap();
        job.note_written_to(directory.path()).unwrap();
        job.postpone().unwrap();
        // The job is queued again, before its first container could be removed.
        job.begin(&Origin::default(), Outcome::Starting).unwrap();
        assert_eq!((job.written_to().as_deref(), job.is_due()), (Some(directory.path()), None));
        job.forget_written_to().unwrap();
        job.forget_written_to().unwrap();
        assert_eq!(job.written_to(), None);
        job.remove().unwrap();
        assert!(!job.try_exists().unwrap());
    }
}

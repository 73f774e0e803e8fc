//! Which images jobs have used on this node, and when: a file for each image in [`DIRECTORY`], which outlives a reboot, because
//! the engine's store does. Only an image of which a file says that a job has brought it may ever be removed to make room.
//!
//! A start holds a shared lock on the file of its image until its container exists, and then the engine keeps the image. Whoever
//! removes an image holds an exclusive one, and removes the file with it: a start that has waited for its lock finds that the file
//! has no name any more, and gets the image anew.
//!
//! Written and read by root: where a container is started, in the epilog, and in `spank-docker`.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::LASTING;
use crate::linux::lock;
use crate::linux::removal::gone;

/// In [`LASTING`].
const DIRECTORY: &str = "images";
/// Held while one of the files is written.
const LOCK: &str = ".lock";
/// More than any of these files.
const LIMIT: u64 = 64 << 10;

/// How long to wait for a process that has a lock. Each holds it for moments, except for one that removes the image; but any of
/// them may stand still, and no start may wait for that.
const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 10_000 });

/// What is known of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageUse {
    /// Whether it came with a job: else an admin has put it there.
    pub is_of_jobs: bool,
    /// How many containers have been started from it.
    pub starts: u64,
    /// When the last of them was, in seconds since 1970; 0 if there was none.
    pub last_used: u64,
    /// Which checks of its files it has passed: the number of their version, 0 for none.
    #[serde(default)]
    pub checked: u32,
}

/// The files of a node.
#[derive(Clone, Debug)]
pub struct ImageUses(PathBuf);

/// As long as it lives, the image is not removed to make room.
#[derive(Debug)]
#[must_use]
pub struct InUse(#[expect(dead_code, reason = "its lock is what matters")] Flock<File>);

/// The right to remove an image: no start is about to use it.
#[derive(Debug)]
#[must_use]
pub struct Removable {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Default for ImageUses {
    fn default() -> Self {
        Self::at(&Path::new(LASTING).join(DIRECTORY))
    }
}

impl ImageUses {
    /// In this directory; it need not exist yet.
    #[must_use]
    pub fn at(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    /// Notes that a container is about to be started from an image, which has come onto the node just now if `is_new`. `None`
    /// where the image has been removed since it was looked up.
    pub fn begin(&self, id: &str, is_new: bool) -> io::Result<Option<InUse>> {
        let file = locked(self.open(id)?, FlockArg::LockSharedNonblock)?;
        if file.metadata()?.nlink() == 0 {
            return Ok(None);
        }
        self.update(&file, |known| {
            known.is_of_jobs |= is_new;
            known.starts = known.starts.saturating_add(1);
            known.last_used = now();
        })?;
        Ok(Some(InUse(file)))
    }

    /// Notes that an admin has put an image there: it is not removed to make room.
    pub fn keep(&self, id: &str) -> io::Result<()> {
        let file = locked(self.open(id)?, FlockArg::LockSharedNonblock)?;
        self.update(&file, |known| known.is_of_jobs = false)
    }

    /// Notes that the image has passed these checks: its content cannot change, since its id is a hash of that.
    pub fn note_checked(&self, id: &str, version: u32) -> io::Result<()> {
        let file = locked(self.open(id)?, FlockArg::LockSharedNonblock)?;
        self.update(&file, |known| known.checked = version)
    }

    /// Changes what a file says: one process at a time. The locks of the files themselves are held for longer than that.
    fn update(&self, file: &File, change: impl FnOnce(&mut ImageUse)) -> io::Result<()> {
        let lock =
            File::options().write(true).create(true).truncate(false).mode(0o600).open(self.0.join(LOCK))?;
        let _lock = locked(lock, FlockArg::LockExclusiveNonblock)?;
        let mut known = read(file).unwrap_or_default();
        change(&mut known);
        write(file, known)
    }

    /// What is known of an image. `None` where nothing is, or it cannot be read: then nothing may be done about it.
    #[must_use]
    pub fn of(&self, id: &str) -> Option<ImageUse> {
        read(&File::open(self.path(id)?).ok()?)
    }

    /// Forgets all images but these, which are those that the engine has: one that comes again may come with somebody else.
    pub fn forget_all_but(&self, is_there: impl Fn(&str) -> bool) -> io::Result<()> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let name = entry?.file_name();
            let Some(digits) = name.to_str().filter(|name| self.path(name).is_some()) else { continue };
            if !is_there(&format!("sha256:{digits}"))
                && let Some(right) = self.removable(digits)?
            {
                right.forget()?;
            }
        }
        Ok(())
    }

    /// The right to remove it, unless a start is about to use it, or another process removes it.
    pub fn removable(&self, id: &str) -> io::Result<Option<Removable>> {
        let Some(path) = self.path(id) else { return Ok(None) };
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Removable { path, _lock: lock })),
            Err((_, nix::Error::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error.into()),
        }
    }

    fn open(&self, id: &str) -> io::Result<File> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        let path = self.path(id).ok_or(ErrorKind::InvalidInput)?;
        File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
    }

    /// `None` for what is not an image's id.
    fn path(&self, id: &str) -> Option<PathBuf> {
        let digits = id.strip_prefix("sha256:").unwrap_or(id);
        let is_id = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then(|| self.0.join(digits))
    }
}

impl Removable {
    /// Forgets the image, which is about to be removed.
    pub fn forget(&self) -> io::Result<()> {
        gone(fs::remove_file(&self.path))
    }
}

/// An error where others have it for too long.
fn locked(file: File, how: FlockArg) -> io::Result<Flock<File>> {
    lock::within(Instant::now() + PATIENCE, file, how)?.ok_or_else(|| ErrorKind::TimedOut.into())
}

fn read(file: &File) -> Option<ImageUse> {
    let mut text = Vec::new();
    file.take(LIMIT).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

fn write(mut file: &File, known: ImageUse) -> io::Result<()> {
    let text = serde_json::to_vec(&known)?;
    file.rewind()?;
    file.set_len(0)?;
    file.write_all(&text)
}

/// In seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn an_image_is_of_jobs_from_its_first_arrival_until_an_admin_keeps_it() {
        let directory = tempfile::tempdir().unwrap();
        let uses = ImageUses::at(&directory.path().join("lib/images"));
        assert_eq!(uses.of(ID), None);
        drop(uses.begin(ID, true).unwrap().unwrap());
        drop(uses.begin(ID, false).unwrap().unwrap());
        let known = uses.of(ID).unwrap();
        assert!(known.is_of_jobs && known.starts == 2 && known.last_used >= now() - 60, "{known:?}");
        uses.keep(ID).unwrap();
        uses.note_checked(ID, 3).unwrap();
        drop(uses.begin(ID, false).unwrap().unwrap());
        let known = uses.of(ID).map(|known| (known.is_of_jobs, known.checked, known.starts));
        assert_eq!(known, Some((false, 3, 3)));
        uses.forget_all_but(|id| id == ID).unwrap();
        assert!(uses.of(ID).is_some());
        uses.forget_all_but(|_| false).unwrap();
        assert_eq!(uses.of(ID), None);
        assert!(uses.begin("../../etc/passwd", true).is_err());
    }

    #[test]
    fn an_image_in_use_is_not_removable_and_a_removed_one_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let uses = ImageUses::at(directory.path());
        let in_use = uses.begin(ID, true).unwrap().unwrap();
        let second = uses.begin(ID, false).is_ok();
        assert!(second && uses.removable(ID).unwrap().is_none());
        drop(in_use);
        let removable = uses.removable(ID).unwrap().unwrap();
        // It waits for the lock, with the file open.
        let starts = {
            let uses = uses.clone();
            std::thread::spawn(move || uses.begin(ID, false).unwrap())
        };
        let opened = || {
            let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
            open.filter_map(|open| fs::read_link(open.path()).ok())
                .filter(|path| *path == removable.path)
                .count()
        };
        while opened() < 2 {
            std::thread::yield_now();
        }
        removable.forget().unwrap();
        drop(removable);
        assert!(starts.join().unwrap().is_none());
        assert_eq!(uses.of(ID), None);
    }

    #[test]
    fn nobody_waits_long_for_a_process_that_stands_still() {
        let directory = tempfile::tempdir().unwrap();
        let uses = ImageUses::at(directory.path());
        drop(uses.begin(ID, false).unwrap().unwrap());
        let still = File::open(directory.path().join(LOCK)).unwrap();
        let _held = Flock::lock(still, FlockArg::LockSharedNonblock).unwrap();
        let began = Instant::now();
        assert_eq!(uses.begin(ID, false).unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(began.elapsed() < PATIENCE * 2);
    }

    #[test]
    fn damaged_file_says_nothing_and_is_written_anew() {
        let directory = tempfile::tempdir().unwrap();
        let uses = ImageUses::at(directory.path());
        fs::write(uses.path(ID).unwrap(), "{").unwrap();
        assert_eq!(uses.of(ID), None);
        drop(uses.begin(ID, false).unwrap().unwrap());
        assert_eq!(uses.of(ID).map(|known| (known.is_of_jobs, known.starts)), Some((false, 1)));
    }
}

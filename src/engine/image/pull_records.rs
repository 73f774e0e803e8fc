//! Records of pulls of private images on this node: from the arrival of such an image in the engine until it is marked as
//! private ([`super::private`]), no other job may take it for a public one.
//!
//! A file in `state_dir` for each, locked by the process that pulls: the image's repository, and the ids of those of its images
//! that were public before. A record without a lock was left by a process that was killed.
//!
//! Written and read by root where the plugin gets an image, and in the epilog.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::linux::removal::gone;

/// The beginning of a record's name. Names of jobs' directories do not begin so.
const PREFIX: &str = "pull.";
/// The beginning of a record's name until it is locked; no process reads such a file.
const NEW: &str = ".pull.";
/// The longest record: the name of a repository, and thousands of ids.
const LIMIT: u64 = 1 << 20;

/// The records of this node.
#[derive(Clone, Debug)]
pub struct Pulls(PathBuf);

/// A pull of this process. If this is dropped without `end`, the pull counts as interrupted.
#[derive(Debug)]
pub struct PullGuard {
    path: PathBuf,
    _lock: Flock<File>,
}

/// A pull of some process on this node.
#[derive(Debug)]
pub struct PullRecord {
    /// The full name of the repository: `docker.io/alice/app`.
    pub repository: String,
    /// The ids of its images that are public.
    pub public: Vec<String>,
    path: PathBuf,
    cut_off: bool,
}

impl Pulls {
    /// The records in this `state_dir`.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        Self(state_dir.to_owned())
    }

    /// Records that this process pulls an image from this repository, of which these images are public.
    pub fn begin(&self, repository: &str, public: &[String]) -> io::Result<PullGuard> {
        let new = self.0.join(format!("{NEW}{}", std::process::id()));
        // An earlier process with the same pid has left it.
        gone(fs::remove_file(&new))?;
        let path = self.unused()?;
        let file = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
        let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error)?;
        let lines = [repository].into_iter().chain(public.iter().map(String::as_str));
        lock.write_all(lines.collect::<Vec<_>>().join("\n").as_bytes())?;
        fs::rename(&new, &path)?;
        Ok(PullGuard { path, _lock: lock })
    }

    /// A path for a record of this process. The record of an interrupted pull, of this process or of an earlier one with the same
    /// pid, may still be needed: its images could not be marked yet. No other process makes files of these names.
    fn unused(&self) -> io::Result<PathBuf> {
        let mut number = 0_u32;
        loop {
            let path = self.0.join(format!("{PREFIX}{}.{number}", std::process::id()));
            if !path.try_exists()? {
                return Ok(path);
            }
            number += 1;
        }
    }

    /// All records of this node.
    pub fn all(&self) -> io::Result<Vec<PullRecord>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            if !entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
                continue;
            }
            let path = entry.path();
            let file = match File::open(&path) {
                Ok(file) => file,
                // The pull has ended meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let mut text = String::new();
            (&file).take(LIMIT).read_to_string(&mut text)?;
            let mut lines = text.lines().map(str::to_owned);
            let (repository, public) = (lines.next().unwrap_or_default(), lines.collect());
            let cut_off = Flock::lock(file, FlockArg::LockSharedNonblock).is_ok();
            found.push(PullRecord { repository, public, path, cut_off });
        }
        Ok(found)
    }
}

impl PullGuard {
    /// Removes the record: the new images are marked, or there are none.
    pub fn end(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

impl PullRecord {
    /// Whether the process that pulled has ended.
    #[must_use]
    pub fn is_cut_off(&self) -> bool {
        self.cut_off
    }

    /// Removes the record of an interrupted pull: the images that it may have brought are marked.
    pub fn forget(&self) -> io::Result<()> {
        gone(fs::remove_file(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_record_lasts_until_its_pull_ends_or_is_found_interrupted() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("12")).unwrap();
        let pulls = Pulls::new(directory.path());
        assert!(pulls.all().unwrap().is_empty());

        let public = ["sha256:1".to_owned(), "sha256:2".to_owned()];
        let underway = pulls.begin("reg:5000/alice/app", &public).unwrap();
        let seen = &pulls.all().unwrap()[0];
        assert_eq!((seen.repository.as_str(), seen.is_cut_off()), ("reg:5000/alice/app", false));
        assert_eq!(seen.public, public);
        drop(underway);
        let seen = &pulls.all().unwrap()[0];
        assert!(seen.is_cut_off());
        seen.forget().unwrap();
        seen.forget().unwrap();
        assert!(pulls.all().unwrap().is_empty());

        pulls.begin("reg:5000/alice/app", &[]).unwrap().end().unwrap();
        assert!(pulls.all().unwrap().is_empty());
    }

    #[test]
    fn record_that_is_not_settled_is_not_replaced_by_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let pulls = Pulls::new(directory.path());
        let repositories = ["reg:5000/alice/a", "reg:5000/alice/b", "reg:5000/alice/c"];
        for repository in repositories {
            drop(pulls.begin(repository, &[]).unwrap());
        }
        let mut seen: Vec<_> = pulls.all().unwrap().into_iter().map(|pull| pull.repository).collect();
        seen.sort();
        assert_eq!(seen, repositories);
    }
}

//! What has happened on this node since the counters began, for monitoring: one file in [`LASTING`], which outlives
//! slurmd and a reboot. It is replaced as a whole, under a lock for which nobody waits long: an event that cannot be
//! counted in time is not counted. It is not synced to the disk, so a crash of the node may lose the last events, or
//! the file: a file that cannot be parsed is set aside, and the counters begin anew, with a new time of their beginning.
//!
//! Written by root where a container is started and where an image is removed, in the epilog, and read by `spank-docker metrics`.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::fcntl::Flock;
use serde::{Deserialize, Serialize};

use super::LASTING;
use crate::linux::lock;

const FILE: &str = "counters.json";
const NEW: &str = ".counters.new";
const BROKEN: &str = "counters.broken";
const LOCK: &str = ".counters.lock";
/// How long an event waits for others to be counted: each takes much less than a millisecond.
const PATIENCE: Duration = Duration::from_millis(50);

/// The upper bounds of a histogram, in milliseconds. The last bucket has none.
pub const BOUNDS: [u64; 14] =
    [10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 120_000, 600_000];

/// All counters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// When they began, in seconds since 1970.
    pub since: u64,
    /// Containers that were to be started, by `job` and `step`.
    pub starts: BTreeMap<String, u64>,
    /// Starts that have failed, by reason.
    pub failures: BTreeMap<String, u64>,
    /// How long the others took.
    pub start: Histogram,
    /// The same for each of their phases.
    pub phases: BTreeMap<String, Histogram>,
    /// Pulls that the engine has begun.
    pub pulls: u64,
    /// Bytes that they have received.
    pub pulled_bytes: u64,
    /// Images that were removed to make room.
    pub evictions: u64,
    /// Their sizes.
    pub evicted_bytes: u64,
    /// Epilogs that have failed.
    pub failed_removals: u64,
    /// Notes for the accounting that could not be written.
    pub failed_notes: u64,
}

/// How often something took how long.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// For each of [`BOUNDS`], and beyond, how many were in its bucket alone.
    buckets: Vec<u64>,
    /// The sum, in microseconds.
    pub micros: u64,
}

impl Histogram {
    /// Adds an observation.
    pub fn add(&mut self, took: Duration) {
        // Of another release, with other bounds.
        if self.buckets.len() != BOUNDS.len() + 1 {
            *self = Self { buckets: vec![0; BOUNDS.len() + 1], micros: 0 };
        }
        let place = BOUNDS.iter().position(|bound| took <= Duration::from_millis(*bound));
        if let Some(bucket) = self.buckets.get_mut(place.unwrap_or(BOUNDS.len())) {
            *bucket = bucket.saturating_add(1);
        }
        self.micros = self.micros.saturating_add(took.as_micros().try_into().unwrap_or(u64::MAX));
    }

    /// How many were within each of [`BOUNDS`], and how many there were.
    #[must_use]
    pub fn cumulative(&self) -> (Vec<u64>, u64) {
        let of = |place| self.buckets.get(place).copied().unwrap_or(0);
        let mut sum = 0_u64;
        let within = (0..BOUNDS.len()).map(|place| {
            sum = sum.saturating_add(of(place));
            sum
        });
        let within: Vec<u64> = within.collect();
        (within, sum.saturating_add(of(BOUNDS.len())))
    }
}

/// Adds to one of several counters.
pub fn increment(counters: &mut BTreeMap<String, u64>, name: &str) {
    let counter = counters.entry(name.to_owned()).or_default();
    *counter = counter.saturating_add(1);
}

/// The file of a node.
#[derive(Clone, Debug)]
pub struct Counters(PathBuf);

/// Why the counters are not known, or an event was not counted.
#[derive(Debug, thiserror::Error)]
pub enum CountersError {
    /// Another process holds the lock.
    #[error("the counters in '{}' are locked", .0.display())]
    Locked(PathBuf),
    /// The file is damaged.
    #[error("the counters in '{}' are damaged: they begin anew with the next start", .0.display())]
    Damaged(PathBuf),
    /// The file.
    #[error("cannot use the counters in '{}': {source}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Default for Counters {
    fn default() -> Self {
        Self::at(Path::new(LASTING))
    }
}

impl Counters {
    /// In this directory; it need not exist yet.
    #[must_use]
    pub fn at(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    fn path(&self) -> PathBuf {
        self.0.join(FILE)
    }

    /// Counts an event.
    pub fn count(&self, event: impl FnOnce(&mut Counts)) -> Result<(), CountersError> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0).map_err(|error| self.failed(error))?;
        let _lock = self.lock()?;
        let mut counts = match self.read() {
            Err(CountersError::Damaged(path)) => {
                fs::rename(path, self.0.join(BROKEN)).map_err(|error| self.failed(error))?;
                None
            }
            counts => counts?,
        };
        let counts = counts.get_or_insert_with(|| Counts { since: now(), ..Counts::default() });
        event(counts);
        let new = self.0.join(NEW);
        let write = || {
            let text = serde_json::to_vec(counts)?;
            File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&new)?
                .write_all(&text)?;
            fs::rename(&new, self.path())
        };
        write().map_err(|error| self.failed(error))
    }

    /// All counters; `None` if nothing was counted yet.
    pub fn read(&self) -> Result<Option<Counts>, CountersError> {
        match fs::read(self.path()) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            text => {
                let text = text.map_err(|error| self.failed(error))?;
                let counts: Option<Counts> = serde_json::from_slice(&text).ok();
                let is_whole = |counts: &Counts| counts.since > 0;
                counts.filter(is_whole).map(Some).ok_or_else(|| CountersError::Damaged(self.path()))
            }
        }
    }

    fn lock(&self) -> Result<Flock<File>, CountersError> {
        let path = self.0.join(LOCK);
        let open = || File::options().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let locked = lock::exclusive(Instant::now() + PATIENCE, open);
        locked.map_err(|error| self.failed(error))?.ok_or_else(|| CountersError::Locked(self.path()))
    }

    fn failed(&self, source: io::Error) -> CountersError {
        CountersError::File { path: self.path(), source }
    }
}

/// In seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_added_up_by_processes_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let counters = Counters::at(&directory.path().join("lib"));
        assert_eq!(counters.read().unwrap(), None);
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    for _ in 0..5 {
                        // On a busy machine an event may wait in vain.
                        while let Err(error) = counters.count(|counts| counts.pulls += 1) {
                            assert!(matches!(error, CountersError::Locked(_)), "{error}");
                        }
                    }
                });
            }
        });
        let counts = counters.read().unwrap().unwrap();
        assert_eq!(counts.pulls, 20);
        assert!(counts.since >= now() - 60);
    }

    #[test]
    fn damaged_file_is_neither_zero_nor_the_end_of_counting() {
        let directory = tempfile::tempdir().unwrap();
        let counters = Counters::at(directory.path());
        for text in ["", "{\"pulls\":", "[]", "{}"] {
            fs::write(counters.path(), text).unwrap();
            assert!(matches!(counters.read(), Err(CountersError::Damaged(_))), "{text}");
            counters.count(|counts| counts.pulls += 1).unwrap();
            assert_eq!(counters.read().unwrap().unwrap().pulls, 1);
            assert_eq!(fs::read_to_string(directory.path().join(BROKEN)).unwrap(), text);
        }
    }

    #[test]
    fn event_does_not_wait_long_for_a_lock() {
        let directory = tempfile::tempdir().unwrap();
        let counters = Counters::at(directory.path());
        let _lock = counters.lock().unwrap();
        let began = Instant::now();
        assert!(matches!(counters.count(|_| ()), Err(CountersError::Locked(_))));
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn histogram_adds_up_its_buckets() {
        let mut histogram = Histogram::default();
        for millis in [1, 10, 11, 3_600_000] {
            histogram.add(Duration::from_millis(millis));
        }
        let (within, all) = histogram.cumulative();
        assert_eq!((&within[..2], within[BOUNDS.len() - 1], all), (&[2, 3][..], 3, 4));
        assert_eq!(histogram.micros, 3_600_022_000);
        assert_eq!(Histogram::default().cumulative(), (vec![0; BOUNDS.len()], 0));
    }
}

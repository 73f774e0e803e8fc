//! `state_dir` and its directories, one for each container: what is written there, and how. The purpose of each
//! file is in docs/architecture.md, "Files".

use std::fs::{self, DirBuilder, DirEntry, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;

use super::error::StateError;
use super::once_flag::OnceFlag;
use super::record::{Origin, Outcome, Record};
use crate::linux::lock;
use crate::linux::removal::gone;
use crate::log::escape::Escaped;
use crate::slurm::ids::Owner;

/// The longest record, in bytes: none is written that would not be read.
const RECORD_LIMIT: u64 = 16 << 20;

/// How long a start waits for others to write their records: each takes a moment.
const PATIENCE: Duration = Duration::from_secs(10);

/// In `state_dir`, for the lock of starts that begin: its name is no owner's.
const RECORD: &str = "state.json";
const ADOPTED: &str = "adopted";
pub(super) const CGROUPS: &str = "cgroups";
pub(super) const WRITTEN_TO: &str = "written_to";
const CONTAINER: &str = "container";
const SCRATCH_DEVICE: &str = "gpu";

fn start_of(step: Owner) -> String {
    format!("start.{step}")
}

/// `state_dir` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// The state directory at this path; it may not exist yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The directory of one container.
    #[must_use]
    pub fn of(&self, owner: Owner) -> OwnerDir {
        OwnerDir { owner, path: self.0.join(owner.to_string()) }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Whether only root can have created the files there, or replaced the directory: it, and each directory
    /// above it, is owned by root and not writable for others, or does not exist.
    #[must_use]
    pub fn is_roots_alone(&self) -> bool {
        let is_plain = self.0.is_absolute() && self.0.components().all(|part| part != Component::ParentDir);
        let is_roots = |path: &Path| match fs::symlink_metadata(path) {
            Ok(found) => found.is_dir() && found.uid() == 0 && found.mode() & 0o022 == 0,
            Err(error) => error.kind() == ErrorKind::NotFound,
        };
        is_plain && self.0.ancestors().all(is_roots)
    }

    /// Makes it unless it is there, for root alone.
    pub fn ensure(&self) -> io::Result<()> {
        DirBuilder::new().mode(0o700).recursive(true).create(&self.0)
    }

    /// The owners of all directories in it.
    pub fn owners(&self) -> io::Result<Vec<Owner>> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let owner =
            |entry: io::Result<DirEntry>| Ok(entry?.file_name().to_str().and_then(|name| name.parse().ok()));
        entries.map(owner).filter_map(io::Result::transpose).collect()
    }

    /// Where starts of containers on this node take their turns.
    #[must_use]
    pub fn starts(&self) -> PathBuf {
        self.beside(".starts")
    }

    /// Opens that file for locks, and makes it if it is not there.
    pub fn open_starts(&self) -> io::Result<File> {
        open_lock(&self.starts())
    }

    /// What locks the beginning of a start for a moment.
    fn begin(&self) -> PathBuf {
        self.beside(".begin")
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut path = self.0.clone().into_os_string();
        path.push(ending);
        path.into()
    }
}

/// `state_dir/<job>` or `state_dir/<job>.<step>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerDir {
    owner: Owner,
    pub(super) path: PathBuf,
}

impl OwnerDir {
    /// Makes the directory, empty of what an earlier run of the same job may have left, except where its container has written:
    /// the container may still be there.
    pub fn create(&self) -> Result<(), StateError> {
        self.make_parent()?;
        self.clear(Some(WRITTEN_TO))?;
        self.make(&self.path)
    }

    /// Makes the directory in this way, and writes the first record of a start. Fails, and changes nothing, where the slurmd of
    /// another node has one for the same job: slurmds that share the directory do not remove what belongs to each other.
    pub fn begin(&self, origin: &Origin, outcome: Outcome) -> Result<(), StateError> {
        self.make_parent()?;
        // The prologs of both run at the same time. The lock is on a file of root's alone: on one that others can open, such as
        // a directory with the mode 0755, any of them could keep it.
        let path = StateDir::new(self.parent()).begin();
        let failed = || self.failed("lock", &path);
        let turn = lock::exclusive(Instant::now() + PATIENCE, || open_lock(&path));
        let _turn = turn.map_err(failed())?.ok_or_else(|| failed()(ErrorKind::TimedOut.into()))?;
        if let Some(record) = self.read()?
            && !record.slurmd.may_be(&origin.slurmd)
        {
            return Err(StateError::OtherNode { owner: self.owner, node: Escaped::new(&record.slurmd.node) });
        }
        self.create()?;
        self.write(origin, outcome)
    }

    /// Makes the directory, unless it exists.
    pub fn ensure(&self) -> Result<(), StateError> {
        self.make_parent()?;
        self.make(&self.path)
    }

    /// Makes the parent directory, unless it exists, and checks that only root can change it.
    fn make_parent(&self) -> Result<(), StateError> {
        self.make(self.parent())?;
        self.check_parent()
    }

    fn parent(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    fn check_parent(&self) -> Result<(), StateError> {
        let parent = self.parent();
        let metadata = fs::symlink_metadata(parent).map_err(self.failed("look at", parent))?;
        if !metadata.is_dir() || metadata.uid() != 0 || metadata.mode() & 0o022 != 0 {
            return Err(StateError::Unsafe { path: parent.to_owned() });
        }
        Ok(())
    }

    fn make(&self, path: &Path) -> Result<(), StateError> {
        DirBuilder::new().mode(0o700).recursive(true).create(path).map_err(self.failed("create", path))
    }

    /// The owner of the container.
    #[must_use]
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// Whether the directory exists, which it does from before its container is made until the container is
    /// removed. If that cannot be found out, this is an error.
    pub fn try_exists(&self) -> io::Result<bool> {
        match fs::symlink_metadata(&self.path) {
            Ok(_) => Ok(true),
            // ENOTDIR in the path does not show that the record is absent.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The plugin's directory in the container (a tmpfs, so that keys never reach a disk).
    #[must_use]
    pub fn container(&self) -> PathBuf {
        self.path.join(CONTAINER)
    }

    /// The path at which a device node is made for a moment, to test whether the step's cgroup allows the
    /// device.
    #[must_use]
    pub fn scratch_device(&self) -> PathBuf {
        self.path.join(SCRATCH_DEVICE)
    }

    /// Makes an empty directory in it as the target of a mount.
    pub fn mount_point(&self, path: PathBuf) -> Result<PathBuf, StateError> {
        DirBuilder::new().mode(0o755).create(&path).map_err(self.failed("create", &path))?;
        Ok(path)
    }

    /// Writes the record atomically.
    pub fn write(&self, origin: &Origin, outcome: Outcome) -> Result<(), StateError> {
        let record = Record::new(self.owner, origin, outcome);
        let text = serde_json::to_vec(&record)
            .map_err(|source| StateError::Damaged { owner: self.owner, source })?;
        if text.len() as u64 > RECORD_LIMIT {
            return Err(StateError::Long { owner: self.owner, limit: RECORD_LIMIT >> 20 });
        }
        self.replace(RECORD, &text)
    }

    /// Writes the record of what a start has come to. Where that cannot be written (it is too long, say), the record says so, and
    /// not that the start was cut off.
    pub fn conclude(&self, origin: &Origin, outcome: Outcome) -> Result<(), StateError> {
        self.write(origin, outcome).inspect_err(|error| {
            // The file system may take no record at all.
            let _ = self.write(origin, Outcome::Failed { message: error.to_string() });
        })
    }

    /// Reads the record. `None` when there is none.
    pub fn read(&self) -> Result<Option<Record>, StateError> {
        let path = self.path.join(RECORD);
        match read_limited(&path) {
            // If other users can write to the directory, the record may be theirs.
            Ok(text) => self.check_parent().and_then(|()| Record::parse(self.owner, &text)).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("read", &path)(error)),
        }
    }

    /// The age of the record, or of the directory, if there is no record.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        let metadata = match fs::symlink_metadata(self.path.join(RECORD)) {
            Err(error) if error.kind() == ErrorKind::NotFound => fs::symlink_metadata(&self.path),
            other => other,
        };
        metadata.ok()?.modified().ok()?.elapsed().ok()
    }

    /// Records that the extern step has adopted the container, or why it could not.
    pub fn write_adoption(&self, result: Result<(), String>) -> Result<(), StateError> {
        self.replace(ADOPTED, result.err().unwrap_or_default().as_bytes())
    }

    /// The result of the adoption. `None` while there is none.
    #[must_use]
    pub fn adoption(&self) -> Option<Result<(), String>> {
        let text = fs::read_to_string(self.path.join(ADOPTED)).ok()?;
        Some(if text.is_empty() { Ok(()) } else { Err(text) })
    }

    /// Claims an action on this node. Returns whether this process is the first one, which performs it.
    pub fn claim(&self, claim: OnceFlag) -> Result<bool, StateError> {
        let path = self.path.join(claim.file_name());
        match write_claim(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(self.failed("write", &path)(error)),
        }
    }

    /// Whether a process has claimed it.
    #[must_use]
    pub fn is_claimed(&self, claim: OnceFlag) -> bool {
        self.path.join(claim.file_name()).exists()
    }

    /// In a job's directory, the lock of the task that starts the container of `step`; `None` while another
    /// process has it, or has just removed the directory. Dropping it, or the end of the process, releases it.
    pub fn lock_start(&self, step: Owner) -> Result<Option<Flock<File>>, StateError> {
        match self.lock(&start_of(step), FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(lock)),
            Err(StateError::File { source, .. })
                if matches!(source.kind(), ErrorKind::WouldBlock | ErrorKind::NotFound) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Removes that lock, when no more tasks will ask for it.
    pub fn remove_lock(&self, step: Owner) -> Result<(), StateError> {
        let path = self.path.join(start_of(step));
        gone(fs::remove_file(&path)).map_err(self.failed("remove", &path))
    }

    /// For a job without an epilog: removes what steps have left to it, unless another step is at work.
    pub fn remove_last(&self) -> Result<(), StateError> {
        let cgroups = self.path.join(CGROUPS);
        gone(fs::remove_file(&cgroups)).map_err(self.failed("remove", &cgroups))?;
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
            removed => gone(removed).map_err(self.failed("remove", &self.path)),
        }
    }

    pub(super) fn lock(&self, name: &str, how: FlockArg) -> Result<Flock<File>, StateError> {
        let path = self.path.join(name);
        let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(self.failed("open", &path))?;
        Flock::lock(file, how).map_err(|(_, error)| self.failed("lock", &path)(error.into()))
    }

    /// Removes everything. Never recursive: if a mount has remained, the plugin must not delete the files
    /// behind it.
    pub fn remove(&self) -> Result<(), StateError> {
        // On a read-only file system, removing a missing file fails too.
        if fs::symlink_metadata(&self.path).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            return Ok(());
        }
        self.clear(None)?;
        gone(fs::remove_dir(&self.path)).map_err(self.failed("remove", &self.path))
    }

    /// Removes all that is in the directory, except for a file of this name.
    fn clear(&self, kept: Option<&str>) -> Result<(), StateError> {
        if fs::symlink_metadata(&self.path).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            return Ok(());
        }
        self.remove_container()?;
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if kept.is_none_or(|kept| entry.file_name() != kept) {
                let path = entry.path();
                gone(fs::remove_file(&path)).map_err(self.failed("remove", &path))?;
            }
        }
        Ok(())
    }

    pub(super) fn replace(&self, name: &str, content: &[u8]) -> Result<(), StateError> {
        let path = self.path.join(name);
        let temporary = self.path.join(format!(".{name}.{}", std::process::id()));
        let written = write_new(&temporary, 0o600, content).and_then(|()| fs::rename(&temporary, &path));
        written.map_err(self.failed("write", &path))
    }

    pub(super) fn failed(&self, action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
        let (owner, path) = (self.owner, path.to_owned());
        move |source| StateError::File { owner, action, path, source }
    }
}

/// Opens a file for locks, and makes it if it is not there. Fails for one that other users may open, who could keep a lock for ever.
fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() || found.uid() != geteuid().as_raw() || found.mode() & 0o077 != 0 {
        return Err(ErrorKind::PermissionDenied.into());
    }
    Ok(file)
}

pub(super) fn write_new(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    // A killed process with the same pid has left this file: it can be replaced.
    gone(fs::remove_file(path))?;
    File::options().write(true).create_new(true).mode(mode).open(path)?.write_all(content)
}

fn write_claim(path: &Path) -> io::Result<()> {
    File::options().write(true).create_new(true).mode(0o600).open(path).map(drop)
}

fn read_limited(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(RECORD_LIMIT).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;
    use crate::linux::lacking;
    use crate::slurm::ids::{JobId, Slurmd, StepId};

    #[test]
    fn job_on_two_slurmds_of_one_machine_has_one_record() {
        if lacking::root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let job = StateDir::new(&directory.path().join("state")).of(Owner::job(JobId(7)));
        let origin = |node: &str| {
            let slurmd = Slurmd { cluster: "lab".to_owned(), node: node.to_owned() };
            Origin { uid: 1000, slurmd, engine: None }
        };
        // The same node may start it again.
        for _ in 0..2 {
            job.begin(&origin("va"), Outcome::Starting).unwrap();
        }
        let error = job.begin(&origin("vb"), Outcome::Host).unwrap_err();
        assert_eq!(
            error.to_string(),
            "job 7 also runs on node 'va', which is the same machine: choose its nodes on different machines"
        );
        let record = job.read().unwrap().unwrap();
        assert!(record.slurmd.node == "va" && matches!(record.outcome, Outcome::Starting));
        // What cannot be read may be the other's.
        fs::write(job.path.join(RECORD), "{").unwrap();
        job.begin(&origin("va"), Outcome::Starting).unwrap_err();
        assert_eq!(fs::read_to_string(job.path.join(RECORD)).unwrap(), "{");
        job.create().unwrap();
        // Records of earlier releases name no slurmd.
        job.begin(&Origin::default(), Outcome::Starting).unwrap();
        job.begin(&origin("vb"), Outcome::Starting).unwrap();
    }

    #[test]
    fn no_lock_of_another_user_keeps_a_start_from_beginning() {
        if lacking::root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::new(&directory.path().join("state"));
        state.ensure().unwrap();
        // An admin has made it, for all to read.
        fs::set_permissions(state.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let _held = Flock::lock(File::open(state.path()).unwrap(), FlockArg::LockShared).unwrap();
        let job = state.of(Owner::job(JobId(7)));
        job.begin(&Origin::default(), Outcome::Starting).unwrap();
        let lock = state.begin();
        assert_eq!(fs::metadata(&lock).unwrap().mode() & 0o777, 0o600);
        assert_eq!(state.owners().unwrap(), [job.owner()]);
        // One that others may open is not used.
        for open in [lock, state.starts()] {
            fs::write(&open, "").unwrap();
            fs::set_permissions(&open, fs::Permissions::from_mode(0o604)).unwrap();
        }
        assert!(job.begin(&Origin::default(), Outcome::Starting).is_err() && state.open_starts().is_err());
    }

    #[test]
    fn record_that_no_hook_could_read_is_not_written() {
        if lacking::root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let job = StateDir::new(directory.path()).of(Owner::job(JobId(7)));
        job.ensure().unwrap();
        let failed = |length: u64| Outcome::Failed { message: "x".repeat(length.try_into().unwrap()) };
        job.write(&Origin::default(), failed(RECORD_LIMIT - 1000)).unwrap();
        let error = job.write(&Origin::default(), failed(RECORD_LIMIT)).unwrap_err();
        assert_eq!(error.to_string(), "state of job 7 would have more than 16 MiB");
        assert!(fs::metadata(job.path.join(RECORD)).unwrap().len() < RECORD_LIMIT);
        job.conclude(&Origin::default(), failed(RECORD_LIMIT)).unwrap_err();
        let concluded = job.read().unwrap().unwrap().outcome;
        assert!(matches!(concluded, Outcome::Failed { message } if message == error.to_string()));
    }

    #[test]
    fn step_leftovers_without_an_epilog_go_with_the_last_step() {
        if lacking::root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::new(&directory.path().join("state"));
        let job = state.of(Owner::job(JobId(7)));
        let [first, second] = [0, 1].map(|step| Owner::step(JobId(7), StepId(step)));
        // No task has made the directory, or it was removed since: the caller asks again.
        assert!(job.lock_start(first).unwrap().is_none());
        job.ensure().unwrap();
        let turns = [first, second].map(|step| job.lock_start(step).unwrap().unwrap());
        job.write_cgroups([directory.path()].into_iter()).unwrap();
        for (step, is_left) in [(first, true), (second, false)] {
            job.remove_lock(step).unwrap();
            job.remove_last().unwrap();
            assert_eq!(job.try_exists().unwrap(), is_left);
        }
        drop(turns);
    }

    #[test]
    fn no_task_goes_on_before_the_hostfiles_are_written() {
        let directory = tempfile::tempdir().unwrap();
        let job = OwnerDir { owner: Owner::job(JobId(7)), path: directory.path().to_owned() };
        let hostfile = directory.path().join("hostfile");
        let (begun, has_begun) = channel();
        let (go_on, may_go_on) = channel::<()>();
        let (job, hostfile) = (&job, &hostfile);
        thread::scope(|owner| {
            owner.spawn(move || {
                job.widen_hostfile(8, || {
                    begun.send(()).unwrap();
                    may_go_on.recv().unwrap();
                    fs::write(hostfile, "").unwrap();
                    Ok(())
                })
                .unwrap();
            });
            has_begun.recv().unwrap();
            let second = owner.spawn(|| {
                job.widen_hostfile(8, || panic!("written already")).unwrap();
                assert!(hostfile.exists());
            });
            thread::sleep(Duration::from_millis(50));
            assert!(!second.is_finished());
            go_on.send(()).unwrap();
        });
        // Only a larger number counts.
        job.widen_hostfile(3, || panic!("smaller")).unwrap();
        job.widen_hostfile(9, || fs::remove_file(hostfile).map_err(job.failed("remove", hostfile))).unwrap();
        assert!(!hostfile.exists());
    }
}

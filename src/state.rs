//! What the prolog leaves on a node for the hooks that come later, in `state_dir/<job>/`: they decide by this, never
//! by options or variables that a user can forge.
//!
//! Read and written by root only, on a path that only root can enter.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::gpus::Gpus;
use crate::in_container;
use crate::job::Scope;
use crate::mpi::hostlist;
use crate::options::Options;
use crate::phases::Phases;
use crate::sys::identity::Credentials;
use crate::sys::mount;
use crate::sys::namespace::NamespaceIds;
use crate::sys::process::ProcessId;

/// Grows when a record can no longer be read as the one before: jobs may run while the plugin is replaced.
const VERSION: u32 = 2;
/// More than any record; a limit all the same.
const RECORD_LIMIT: u64 = 16 << 20;

/// What a hook knows of a container of this node.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// The job or step that it belongs to.
    pub scope: Scope,
    /// The only user who may join.
    pub uid: u32,
    /// How far the prolog has come.
    pub outcome: Outcome,
}

impl Record {
    /// The job's GPUs, where its container has come up.
    #[must_use]
    pub fn gpus(&self) -> Option<Gpus> {
        match &self.outcome {
            Outcome::Ready(session) => Some(session.gpus.clone()),
            Outcome::Starting | Outcome::Failed { .. } => None,
        }
    }

    /// From the text of `state.json`; `scope` is whose it should be.
    pub fn parse(scope: Scope, text: &[u8]) -> Result<Self, StateError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let damaged = |source| StateError::Damaged { scope, source };
        let Versioned { version } = serde_json::from_slice(text).map_err(damaged)?;
        if version != VERSION {
            return Err(StateError::Version { scope, theirs: version });
        }
        serde_json::from_slice(text).map_err(damaged)
    }
}

/// How a start went.
#[derive(Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// The prolog is at work, or was cut off.
    Starting,
    /// The container is there.
    Ready(Box<Session>),
    /// It failed, and the user is to be told by the first task.
    Failed {
        /// One line.
        message: String,
    },
}

/// A container that is ready for tasks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Session {
    /// As checked by the prolog.
    pub options: Options,
    /// Whose container it is.
    pub user: Credentials,
    /// The image as the user named it.
    pub image: String,
    /// `sha256:…`.
    pub image_id: String,
    /// The engine's id of the container.
    pub container_id: String,
    /// Its first process.
    pub process: ProcessId,
    /// The namespaces to join.
    pub namespaces: NamespaceIds,
    /// How many nodes the job has.
    #[serde(default)]
    pub nodes: usize,
    /// How often the job had been queued again.
    #[serde(default)]
    pub restart: u32,
    /// This node's name.
    #[serde(default)]
    pub node: String,
    /// The names of the job's nodes, as Slurm's host list.
    #[serde(default)]
    pub node_list: String,
    /// The job's working directory, when it is not in the container.
    #[serde(default)]
    pub left_out: Option<PathBuf>,
    /// What sshd shows behind its version: of this job and this image.
    #[serde(default)]
    pub banner: String,
    /// sshd's port.
    pub port: u16,
    /// Whether the image has an sshd.
    pub sshd: bool,
    /// What the image's ENV sets.
    pub environment: Vec<(String, String)>,
    /// Networks between the job's nodes, when MPI must be told.
    pub networks: Option<String>,
    /// The GPUs that it has.
    #[serde(default)]
    pub gpus: Gpus,
    /// Where tasks start when the job's working directory is not in the container.
    pub workdir: Option<String>,
    /// Where the time of its start went: known to who has started it.
    #[serde(skip)]
    pub phases: Phases,
}

/// Why there is no usable record.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file operation failed.
    #[error("state of job {scope}: cannot {action} '{}'", path.display())]
    File {
        /// Whose state.
        scope: Scope,
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Written by another release.
    #[error(
        "state of job {scope} was written by another version of spank_docker ({theirs}, this is {VERSION}): submit the job again"
    )]
    Version {
        /// Whose state.
        scope: Scope,
        /// The version found.
        theirs: u32,
    },
    /// Not a record at all.
    #[error("state of job {scope} cannot be read: submit the job again")]
    Damaged {
        /// Whose state.
        scope: Scope,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// The directory could be changed by others than root.
    #[error("state_dir '{}' must belong to root, and nobody else may write there", path.display())]
    Unsafe {
        /// The directory.
        path: PathBuf,
    },
}

/// `state_dir` of the configuration.
#[derive(Clone, Debug)]
pub struct StateDir(PathBuf);

impl Session {
    /// Whether this node is the first of those that have a container of this kind.
    #[must_use]
    pub fn is_on_first_node(&self) -> bool {
        let first = hostlist::expand(&self.node_list).ok().and_then(|nodes| nodes.into_iter().next());
        first.is_none_or(|first| first == self.node)
    }
}

impl StateDir {
    /// At this path; it need not exist yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The directory of one container.
    #[must_use]
    pub fn of(&self, scope: Scope) -> ScopeDir {
        ScopeDir { scope, path: self.0.join(scope.to_string()) }
    }

    /// All containers of which there is a directory.
    pub fn scopes(&self) -> io::Result<Vec<Scope>> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
    }
}

/// `state_dir/<job>` or `state_dir/<job>.<step>`.
#[derive(Clone, Debug)]
pub struct ScopeDir {
    scope: Scope,
    path: PathBuf,
}

impl ScopeDir {
    /// Makes it, empty of what an earlier run of the same job may have left.
    pub fn create(&self) -> Result<(), StateError> {
        self.check_parent()?;
        self.remove()?;
        self.make(&self.path)
    }

    /// Makes it unless it is there.
    pub fn ensure(&self) -> Result<(), StateError> {
        self.check_parent()?;
        self.make(&self.path)
    }

    fn check_parent(&self) -> Result<(), StateError> {
        let parent = self.path.parent().unwrap_or(&self.path);
        self.make(parent)?;
        let metadata = fs::symlink_metadata(parent).map_err(self.failed("look at", parent))?;
        if !metadata.is_dir() || metadata.uid() != 0 || metadata.mode() & 0o022 != 0 {
            return Err(StateError::Unsafe { path: parent.to_owned() });
        }
        Ok(())
    }

    fn make(&self, path: &Path) -> Result<(), StateError> {
        DirBuilder::new().mode(0o700).recursive(true).create(path).map_err(self.failed("create", path))
    }

    /// Whether it is there: before its container is made, until that is removed.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.path.exists()
    }

    /// Our directory in the container (a tmpfs: keys never reach a disk).
    #[must_use]
    pub fn container(&self) -> PathBuf {
        self.path.join("container")
    }

    /// Where a file of that name would be in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes an empty directory in it, to mount on.
    pub fn mount_point(&self, path: PathBuf) -> Result<PathBuf, StateError> {
        DirBuilder::new().mode(0o755).create(&path).map_err(self.failed("create", &path))?;
        Ok(path)
    }

    /// Writes the record: all or nothing.
    pub fn write(&self, uid: u32, outcome: Outcome) -> Result<(), StateError> {
        let record = Record { version: VERSION, scope: self.scope, uid, outcome };
        let text = serde_json::to_vec(&record)
            .map_err(|source| StateError::Damaged { scope: self.scope, source })?;
        self.replace("state.json", &text)
    }

    /// Reads the record. `None` when there is none.
    pub fn read(&self) -> Result<Option<Record>, StateError> {
        let path = self.path.join("state.json");
        match read_limited(&path) {
            Ok(text) => Record::parse(self.scope, &text).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("read", &path)(error)),
        }
    }

    /// How long ago the record was written.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        fs::metadata(self.path.join("state.json")).ok()?.modified().ok()?.elapsed().ok()
    }

    /// Writes down that the extern step has taken the container over, or why it could not.
    pub fn write_adoption(&self, result: Result<(), String>) -> Result<(), StateError> {
        self.replace("adopted", result.err().unwrap_or_default().as_bytes())
    }

    /// Writes down the cgroups of the extern step, for the epilog to see them gone.
    pub fn write_cgroups<'a>(&self, directories: impl Iterator<Item = &'a Path>) -> Result<(), StateError> {
        let lines: Vec<_> = directories.map(|directory| directory.as_os_str().as_bytes()).collect();
        self.replace("cgroups", &lines.join(&b'\n'))
    }

    /// The cgroups of the extern step, as far as it came to writing them down.
    #[must_use]
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let text = fs::read(self.path.join("cgroups")).unwrap_or_default();
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| PathBuf::from(OsStr::from_bytes(line))).collect()
    }

    /// What the extern step wrote down. `None` when it has not come to it.
    #[must_use]
    pub fn adoption(&self) -> Option<Result<(), String>> {
        let text = fs::read_to_string(self.path.join("adopted")).ok()?;
        Some(if text.is_empty() { Ok(()) } else { Err(text) })
    }

    /// Writes or replaces a file, readable by all, in our directory in the container (`in_container`).
    pub fn provide(&self, in_container: &str, content: &[u8]) -> Result<(), StateError> {
        let name = in_container::file_name(in_container);
        let path = self.container().join(name);
        let temporary = self.container().join(format!(".{name}.{}", std::process::id()));
        let written = write_new(&temporary, 0o644, content).and_then(|()| fs::rename(&temporary, &path));
        written.map_err(self.failed("write", &path))
    }

    /// Whether this is the first time on this node that somebody claims `what`: of many tasks, one does a thing.
    pub fn claim(&self, what: &str) -> Result<bool, StateError> {
        let path = self.path.join(what);
        match write_claim(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(self.failed("write", &path)(error)),
        }
    }

    /// Whether somebody has claimed it.
    #[must_use]
    pub fn is_claimed(&self, what: &str) -> bool {
        self.path.join(what).exists()
    }

    /// The lock of this name, unless another process has it. It is let go when that process drops it, or ends.
    pub fn lock(&self, name: &str) -> Result<Option<Flock<File>>, StateError> {
        let path = self.path.join(name);
        let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(self.failed("open", &path))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(lock)),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(self.failed("lock", &path)(error.into())),
        }
    }

    /// Removes the lock of this name, when nobody will ask for it any more.
    pub fn unlock(&self, name: &str) -> Result<(), StateError> {
        let path = self.path.join(name);
        gone(fs::remove_file(&path)).map_err(self.failed("remove", &path))
    }

    /// Whether `number` is more than any that was written down as `what` before; then it is written down.
    pub fn raise(&self, what: &str, number: u64) -> Result<bool, StateError> {
        let known =
            fs::read_to_string(self.path.join(what)).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        if number <= known {
            return Ok(false);
        }
        self.replace(what, number.to_string().as_bytes())?;
        Ok(true)
    }

    /// Removes everything. Never recursive: should a mount have survived, what lies behind it is not ours to delete.
    pub fn remove(&self) -> Result<(), StateError> {
        // On a file system that is read-only, removing what is not there fails too.
        if fs::symlink_metadata(&self.path).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            return Ok(());
        }
        let container = self.container();
        mount::detach(&container).map_err(self.failed("unmount", &container))?;
        gone(fs::remove_dir(&container)).map_err(self.failed("remove", &container))?;
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let path = entry.path();
            gone(fs::remove_file(&path)).map_err(self.failed("remove", &path))?;
        }
        gone(fs::remove_dir(&self.path)).map_err(self.failed("remove", &self.path))
    }

    fn replace(&self, name: &str, content: &[u8]) -> Result<(), StateError> {
        let path = self.path.join(name);
        let temporary = self.path.join(format!(".{name}.{}", std::process::id()));
        let written = write_new(&temporary, 0o600, content).and_then(|()| fs::rename(&temporary, &path));
        written.map_err(self.failed("write", &path))
    }

    fn failed(&self, action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
        let (scope, path) = (self.scope, path.to_owned());
        move |source| StateError::File { scope, action, path, source }
    }
}

/// Whether `state_dir/<job>` exists, or `state_dir/<job>.<step>`, without an allocation: what the hooks of every job
/// without an image ask.
#[must_use]
pub fn is_known(state_dir: &[u8], job: u32, step: Option<u32>) -> bool {
    const LIMIT: usize = 4096;
    let mut path = [0u8; LIMIT];
    let mut cursor = io::Cursor::new(&mut path[..LIMIT - 1]);
    let written = cursor.write_all(state_dir).and_then(|()| match step {
        None => write!(cursor, "/{job}"),
        Some(step) => write!(cursor, "/{job}.{step}"),
    });
    written.is_ok() && std::ffi::CStr::from_bytes_until_nul(&path).is_ok_and(mount::exists)
}

fn write_new(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    // Left by a process that was killed, and had the same pid: ours to overwrite.
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

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

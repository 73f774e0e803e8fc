//! A task joins its job's container, or its step's: where it runs, what it waits for, what it gives up, and in which
//! directory it starts.
//!
//! `decide` and `join` run as root in the forked child that becomes the task (`task_init_privileged`); what they return
//! is used when that child has become the user (`task_init`).

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, open};
use nix::sys::resource::Resource;
use nix::sys::stat::Mode;

use crate::config::{Config, Limit};
use crate::image::Reference;
use crate::in_container;
use crate::job::{JobId, Scope};
use crate::mpi::{hostfile, hostlist, layout};
use crate::options::{self, ImageChoice, Options};
use crate::session;
use crate::setting::Script;
use crate::shown::Shown;
use crate::slurm::commands::SlurmError;
use crate::slurm::{report, stepd};
use crate::state::{Outcome, Record, ScopeDir, Session, StateDir, StateError};
use crate::sys::identity::Credentials;
use crate::sys::inside::Root;
use crate::sys::mount::{self, Attributes};
use crate::sys::namespace::Namespaces;
use crate::sys::privilege;
use crate::sys::process::Process;

/// How long a task waits for the extern step to take the container over. It starts with the job, so it is mere
/// milliseconds away, if it comes at all.
const ADOPTION: Duration = Duration::from_secs(30);
/// After that long somebody looks whether it is on its way at all.
const GRACE: Duration = Duration::from_secs(3);
/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(5);

/// Steps that are not numbered (slurm.h: SLURM_BATCH_SCRIPT, SLURM_EXTERN_CONT, SLURM_INTERACTIVE_STEP).
const BATCH: u32 = 0xffff_fffb;
const EXTERN: u32 = 0xffff_fffc;
const INTERACTIVE: u32 = 0xffff_fffa;

/// What kind of step a task belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// The batch script.
    Batch,
    /// The process that stands for the job on each of its nodes.
    Extern,
    /// salloc's shell, with LaunchParameters=use_interactive_step.
    Interactive,
    /// srun's tasks.
    Tasks,
}

impl From<u32> for StepKind {
    fn from(step: u32) -> Self {
        match step {
            BATCH => Self::Batch,
            EXTERN => Self::Extern,
            INTERACTIVE => Self::Interactive,
            _ => Self::Tasks,
        }
    }
}

/// By this variable a task knows that `dockerexec` is its srun's caller.
pub const DOCKEREXEC: &str = "SLURM_DOCKEREXEC";

/// What a task knows of its step.
#[derive(Debug)]
pub struct Step {
    /// The job.
    pub job: JobId,
    /// Whose job it is.
    pub uid: u32,
    /// The kind of the step.
    pub kind: StepKind,
    /// The step's own options.
    pub options: Options,
    /// How many tasks are where, if the step knows.
    pub layout: Option<Layout>,
    /// Whether `dockerexec` runs it, which knows no other place than the container.
    pub is_dockerexec: bool,
    /// The batch script, which lies on the host.
    pub script: Option<PathBuf>,
}

/// The job's nodes and the tasks on each, as Slurm writes them.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Whether it is certain that these are the job's tasks, and not a step's.
    pub is_of_job: bool,
    /// A host list.
    pub nodes: String,
    /// A task layout of the same length.
    pub tasks: String,
}

/// Why a task cannot run. The task ends with this line; it never runs on the host instead.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The prolog left a message for the user.
    #[error("{0}")]
    Prolog(String),
    /// Another node's prolog did: the job is not complete, and its script must not run.
    #[error("{0}")]
    OtherNode(String),
    /// A batch script that did not wait for them.
    #[error(
        "job {job}: its script was started before the containers of all its nodes: ask the admin to set PrologFlags=Contain,DeferBatch"
    )]
    TooEarly {
        /// The job.
        job: JobId,
    },
    /// The step wants a container, the job has none here.
    #[error(
        "job {job} has no container on this node: submit the job itself with --docker-image; if you did, ask the admin to set PrologFlags=Contain,DeferBatch, without RunInJob"
    )]
    NoContainer {
        /// The job.
        job: JobId,
    },
    /// The prolog was cut off.
    #[error("job {job}: the prolog was cut off while it started the container: submit the job again")]
    CutOff {
        /// The job.
        job: JobId,
    },
    /// The container belongs to somebody else: job ids have been used again.
    #[error("the container of job {job} on this node belongs to another user")]
    OtherUser {
        /// The job.
        job: JobId,
    },
    /// The container's first process is gone.
    #[error(
        "the container of job {scope} is no longer running on this node: it ended or was killed; submit the job again"
    )]
    Gone {
        /// The job, or its step.
        scope: Scope,
    },
    /// No extern step came.
    #[error(
        "the extern step of job {job} did not start: ask the admin to set PrologFlags=Contain,DeferBatch"
    )]
    NoExternStep {
        /// The job.
        job: JobId,
    },
    /// The extern step could not adopt the container.
    #[error("{0}")]
    Adoption(String),
    /// The prolog's record.
    #[error(transparent)]
    State(#[from] StateError),
    /// The batch script cannot be brought into the container.
    #[error("cannot mount the batch script '{}' into the container of image '{image}'", script.display())]
    Script {
        /// On the host and in the container.
        script: PathBuf,
        /// As the user wrote it.
        image: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A limit could not be set.
    #[error("cannot set {name} of this task as configured: ask the admin to set {name}=inherit")]
    Limit {
        /// The configuration's key.
        name: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A step of joining failed.
    #[error("cannot {action} of job {scope}")]
    Join {
        /// What was tried.
        action: &'static str,
        /// The job, or its step.
        scope: Scope,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A tag that means one image here and another one there.
    #[error(
        "image '{image}': another one has this tag on node '{node}': use --docker-pull=always, or name the image by its digest"
    )]
    Tag {
        /// As the user wrote it.
        image: String,
        /// A node of the job.
        node: String,
    },
    /// The step's own `--docker-workdir`.
    #[error("--docker-workdir: '{path}' is no directory in the container that you can enter: use another")]
    Workdir {
        /// In the container.
        path: Shown,
    },
    /// The step's options.
    #[error(transparent)]
    Options(#[from] options::Error),
}

/// Where a task runs.
#[derive(Debug)]
pub enum Place {
    /// On the host.
    Host,
    /// In the container of its job.
    Container(Box<Session>),
    /// In a container of its step, of this image.
    Own(Reference),
}

/// A batch script runs on one node of possibly many, and begins when all have had their prologs. Whether one has
/// failed is known by slurmctld; when that does not answer, the script runs.
pub fn ask_other_nodes(
    record: Option<&Record>,
    step: &Step,
    ask: impl FnOnce(report::Start) -> Result<report::Nodes, SlurmError>,
) -> Result<(), TaskError> {
    let Some(Outcome::Ready(session)) = record.map(|record| &record.outcome) else { return Ok(()) };
    if step.kind != StepKind::Batch || session.nodes < 2 {
        return Ok(());
    }
    let start = report::Start { job: step.job, restart: session.restart };
    match ask(start).unwrap_or_default() {
        report::Nodes { failure: Some(line), .. } => Err(TaskError::OtherNode(line)),
        report::Nodes { unready: true, .. } => Err(TaskError::TooEarly { job: step.job }),
        report::Nodes { .. } => Ok(()),
    }
}

/// Decides where a task runs: by what the prolog has left, and by what the step asks for.
pub fn decide(record: Option<Record>, step: &Step, config: &Config) -> Result<Place, TaskError> {
    let job = step.job;
    let wanted = &step.options.image;
    if *wanted == ImageChoice::Host && step.kind == StepKind::Tasks {
        return Ok(Place::Host);
    }
    let Some(record) = record else {
        return match (wanted, step.kind) {
            (ImageChoice::Image(image), StepKind::Tasks) => Ok(Place::Own(image.clone())),
            (ImageChoice::Image(_), _) => Err(TaskError::NoContainer { job }),
            (ImageChoice::Unset, _) if step.is_dockerexec => Err(TaskError::NoContainer { job }),
            (ImageChoice::Unset | ImageChoice::Host, _) => Ok(Place::Host),
        };
    };
    if record.uid != step.uid {
        return Err(TaskError::OtherUser { job });
    }
    let session = match record.outcome {
        Outcome::Ready(session) => session,
        Outcome::Starting => return Err(TaskError::CutOff { job }),
        Outcome::Failed { message } => return Err(TaskError::Prolog(message)),
    };
    match (step.kind, wanted, &session.options.image) {
        (StepKind::Batch | StepKind::Interactive, ..) => {
            Ok(match session.options.script.unwrap_or(config.script) {
                Script::Container => Place::Container(session),
                Script::Host => Place::Host,
            })
        }
        (_, ImageChoice::Image(step), ImageChoice::Image(job)) if !step.same_as(job) => {
            Ok(Place::Own(step.clone()))
        }
        _ => Ok(Place::Container(session)),
    }
}

/// The first task on a node compares the node's image with those of other nodes. When they differ, no task that comes
/// later runs either.
pub fn compare_images(directory: &ScopeDir, step: &Step, session: &Session) -> Result<(), TaskError> {
    if !directory.claim("compared")? {
        return Ok(());
    }
    let Some(node) = session::other_image(session) else { return Ok(()) };
    let error = TaskError::Tag { image: session.image.clone(), node };
    directory.write(step.uid, Outcome::Failed { message: error.to_string() })?;
    Err(error)
}

/// Waits for the extern step to have adopted the job's container.
pub fn wait_for_adoption(state: &StateDir, job: JobId) -> Result<(), TaskError> {
    let directory = state.of(Scope::job(job));
    let deadline = Instant::now() + ADOPTION;
    let mut missing = Some(Instant::now());
    let adopted = loop {
        match directory.adoption() {
            Some(adopted) => break adopted,
            None if Instant::now() > deadline => return Err(TaskError::NoExternStep { job }),
            // Without `Contain` none will ever come.
            None if missing.is_some_and(|since| Instant::now() > since + GRACE) => {
                if !stepd::has_extern_step(job) {
                    return Err(TaskError::NoExternStep { job });
                }
                missing = None;
            }
            None => std::thread::sleep(INTERVAL),
        }
    };
    adopted.map_err(TaskError::Adoption)
}

/// Whether this process has gone into a container, or part of the way.
static ENTERED: AtomicBool = AtomicBool::new(false);

/// Whether paths may mean what an image makes of them.
#[must_use]
pub fn has_entered() -> bool {
    ENTERED.load(Ordering::Relaxed)
}

/// Joins the container of `scope`. On success this process is in it for good, without a way to privilege.
pub fn join(
    state: &StateDir,
    scope: Scope,
    step: &Step,
    session: &Session,
    config: &Config,
) -> Result<(), TaskError> {
    let failed = |action| join_error(action, scope);
    let found = Process::recall(session.process).map_err(failed("find the container"))?;
    let process = found.ok_or(TaskError::Gone { scope })?;
    let namespaces = Namespaces::of(&process).map_err(failed("open the namespaces of the container"))?;
    if namespaces.ids().map_err(failed("look at the namespaces of the container"))? != session.namespaces {
        return Err(TaskError::Gone { scope });
    }
    // A step's own container has had the step's layout from its start.
    if scope.step.is_none() {
        write_hostfiles(&state.of(scope), step)?;
    }
    let script = step.script.as_deref().map(|script| (script, detached_script(script)));

    ENTERED.store(true, Ordering::Relaxed);
    namespaces.join().map_err(failed("join the container"))?;
    if let Some((script, tree)) = script {
        let failed =
            |source| TaskError::Script { script: script.to_owned(), image: session.image.clone(), source };
        tree.and_then(|tree| attach_script(script, tree, &session.user)).map_err(failed)?;
    }
    set_limit("memlock", Resource::RLIMIT_MEMLOCK, config.memlock)?;
    set_limit("stack", Resource::RLIMIT_STACK, config.stack)?;
    privilege::renounce().map_err(failed("give up the privileges of a task"))
}

fn join_error(action: &'static str, scope: Scope) -> impl FnOnce(io::Error) -> TaskError {
    move |source| TaskError::Join { action, scope, source }
}

/// The hostfiles say how many tasks the *job* has on each node. A step that does not know has its own: then the largest
/// of several counts.
fn write_hostfiles(directory: &ScopeDir, step: &Step) -> Result<(), StateError> {
    let Some(given) = &step.layout else { return Ok(()) };
    let (Ok(nodes), Ok(tasks)) = (hostlist::expand(&given.nodes), layout::parse(&given.tasks)) else {
        return Ok(());
    };
    let total = match given.is_of_job {
        true => u64::MAX,
        false => tasks.iter().map(|tasks| u64::from(*tasks)).sum(),
    };
    if nodes.len() != tasks.len() || !directory.raise("layout", total)? {
        return Ok(());
    }
    directory.provide(in_container::HOSTFILE, hostfile::open_mpi(&nodes, &tasks).as_bytes())?;
    directory.provide(in_container::HYDRA_HOSTFILE, hostfile::hydra(&nodes, &tasks).as_bytes())
}

/// Slurm executes the batch script by its path on the host: a mount of that very file has to be there.
fn detached_script(script: &Path) -> io::Result<OwnedFd> {
    let file = open(script, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    let tree = mount::detached_copy(&file, false)?;
    mount::change(
        &tree,
        false,
        Attributes::NOSUID.and(Attributes::NODEV).and(Attributes::RDONLY),
        Attributes::NONE,
    )?;
    Ok(tree)
}

fn attach_script(script: &Path, tree: OwnedFd, user: &Credentials) -> io::Result<()> {
    let place = Root::current()?.place(script, false, user).map_err(io::Error::other)?;
    mount::attach(tree, place)
}

fn set_limit(name: &'static str, resource: Resource, limit: Limit) -> Result<(), TaskError> {
    let bytes = match limit {
        Limit::Inherit => return Ok(()),
        Limit::Unlimited => None,
        Limit::Bytes(bytes) => Some(bytes),
    };
    privilege::limit(resource, bytes).map_err(|source| TaskError::Limit { name, source })
}

/// Goes to where a task starts, as the user: to what `--docker-workdir` names, else where Slurm has gone, else, when that
/// directory is not in the container, to the image's WORKDIR. What PWD has to be, when it is not `pwd`, the job's.
pub fn enter_directory(
    session: &Session,
    named: Option<&Path>,
    pwd: Option<&OsStr>,
) -> Result<Option<PathBuf>, TaskError> {
    if let Some(path) = named.or(session.options.workdir.as_deref()) {
        nix::unistd::chdir(path).map_err(|_| TaskError::Workdir { path: path.into() })?;
        return Ok(Some(path.to_owned()));
    }
    // Where Slurm goes, and says so, when there is nowhere else to go.
    let fell_back = env::current_dir().is_ok_and(|directory| directory == Path::new("/tmp"));
    let is_missing = pwd.is_some_and(|path| !fs::metadata(path).is_ok_and(|metadata| metadata.is_dir()));
    // What has the same name in the image is another directory.
    let is_images = session.left_out.as_deref().is_some_and(|path| is_here(path.as_os_str()));
    if let Some(workdir) = session.workdir.as_deref().filter(|_| fell_back && is_missing || is_images) {
        // Slurm has told the user that the directory is not there; where the task starts instead is no error.
        let _ = nix::unistd::chdir(workdir);
    }
    Ok(if pwd.is_some_and(is_here) { None } else { env::current_dir().ok() })
}

/// Whether this path leads to the current directory.
fn is_here(path: &OsStr) -> bool {
    let number = |path: &Path| fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    Path::new(path).is_absolute() && number(Path::new(path)) == number(Path::new("."))
}

//! The hooks: each reads its input, calls plain code, and maps the result.

use std::env;
use std::error::Error;
use std::ffi::{OsStr, OsString, c_int};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;

use slurm_spank::{Context, LogLevel, SpankError, SpankHandle, SpankOption, slurm_spank_log, spank_log};

use super::spank::{FAILED, OK, refuse};
use crate::config::{self, Config};
use crate::gpus::{self, Gpus};
use crate::image::Reference;
use crate::job::{JobId, Scope, StepId};
use crate::locale;
use crate::mpi::launcher;
use crate::options::{Given, ImageChoice, Launch, Options, Source, Spec, TABLE, Takes, to_carry};
use crate::prolog::{self, Log, Subject, Verdict, chain};
use crate::report;
use crate::session::{self, Request, StepFacts, together};
use crate::slurm;
use crate::state::{Outcome, Record, Session, StateDir};
use crate::sys::{privilege, process};
use crate::task::{self, Layout, Place, Step, StepKind, TaskError};

type Spank<'a> = SpankHandle<'a>;

/// What a task does when it has become the user; or that it must not run, and what the user is told.
static AS_USER: OnceLock<Result<AsUser, Refusal>> = OnceLock::new();

#[derive(Debug)]
struct AsUser {
    step: Options,
    kind: StepKind,
    config: Config,
    /// The container that it has joined, and whose that is; none on the host.
    joined: Option<(Scope, Box<Session>)>,
    /// For a task that has nothing to do but to keep its node's container: whose end it waits for.
    launcher: Option<SocketAddr>,
}

/// The line for the user; none when another task of the step on this node tells it.
#[derive(Clone, Debug)]
struct Refusal(Option<String>);

/// Slurm's log: slurmd's file, or the user's terminal, depending on the process.
struct SlurmLog;

impl Log for SlurmLog {
    fn error(&mut self, line: &str) {
        spank_log(LogLevel::Error, &format!("spank_docker: {line}"));
    }

    fn info(&mut self, line: &str) {
        spank_log(LogLevel::Info, &format!("spank_docker: {line}"));
    }
}

// ---- everywhere -----------------------------------------------------------------------------------------------------

pub(super) fn init(spank: &mut Spank<'_>) -> c_int {
    match spank.context() {
        Ok(Context::Slurmd) => clear_away(spank),
        Ok(Context::Local | Context::Remote | Context::Allocator) => register_options(spank),
        Ok(Context::JobScript) | Err(_) => OK,
    }
}

fn register_options(spank: &mut Spank<'_>) -> c_int {
    for spec in &TABLE {
        let option = SpankOption::new(spec.name).usage(spec.help);
        let option = match spec.takes {
            Takes::Value(value) => option.takes_value(value),
            Takes::Nothing { .. } => option,
        };
        if let Err(error) = spank.register_option(option) {
            SlurmLog.error(&format!("--{}: {error}", spec.name));
            return FAILED;
        }
    }
    OK
}

// ---- in slurmd ------------------------------------------------------------------------------------------------------

/// Never fails: a slurmd that does not start is worse than something left behind.
fn clear_away(spank: &Spank<'_>) -> c_int {
    let config = match configuration(spank) {
        Ok(config) => config,
        Err(error) => {
            SlurmLog.error(&format!("plugstack.conf: {error}"));
            return OK;
        }
    };
    match session::reap(&config) {
        Ok(jobs) if jobs.is_empty() => {}
        Ok(jobs) => {
            let jobs: Vec<String> = jobs.iter().map(ToString::to_string).collect();
            SlurmLog.info(&format!("removed what was left of jobs {}", jobs.join(", ")));
        }
        Err(error) => SlurmLog.error(&format!("cannot remove what is left of jobs: {}", chain(&error))),
    }
    OK
}

// ---- in srun, sbatch and salloc -------------------------------------------------------------------------------------

pub(super) fn check_options(spank: &mut Spank<'_>) -> c_int {
    match client(spank) {
        Ok(()) => OK,
        Err(error) => {
            SlurmLog.error(&chain(error.as_ref()));
            FAILED
        }
    }
}

fn client(spank: &Spank<'_>) -> Result<(), Box<dyn Error>> {
    let variable = |name: &str| env::var_os(name);
    let options = Options::parse(|spec| given(spank, spec, variable))?;
    let ImageChoice::Image(_) = options.image else {
        // Inside a job with a container they may be for a step of it.
        if let Some(other) = options.first_other().filter(|_| env::var_os("SLURM_JOB_ID").is_none()) {
            slurm_spank_log(&format!(
                "spank_docker: warning: --{} has no effect without --docker-image",
                other.name
            ));
        }
        return Ok(());
    };
    let config = configuration(spank).map_err(|error| format!("plugstack.conf: {error}"))?;
    options.check(&config)?;
    if nix::unistd::getuid().is_root() && !config.allow_root {
        return Err(session::StartError::Root.into());
    }
    // The prolog is given what the command line says; what a variable says goes the same way.
    for (spec, value) in to_carry(|spec| given(spank, spec, variable)) {
        spank.job_control_setenv(control_variable(spec), value, true)?;
    }
    Ok(())
}

/// The name under which Slurm carries an option to the prolog (`SPANK_` is put before it there).
fn control_variable(spec: &Spec) -> String {
    format!("_SLURM_SPANK_OPTION_docker_{}", spec.name.replace('-', "_"))
}

// ---- on the node, as root -------------------------------------------------------------------------------------------

pub(super) fn prolog(spank: &mut Spank<'_>) -> c_int {
    let began = Instant::now();
    if process::occupy_standard_descriptors().is_err() {
        SlurmLog.error("cannot open /dev/null");
    }
    let options = Options::parse(|spec| given(spank, spec, |_| None));
    if matches!(&options, Ok(options) if !matches!(options.image, ImageChoice::Image(_))) {
        return OK;
    }
    let (Ok(job), Ok(uid)) = (spank.job_id(), spank.job_uid()) else {
        SlurmLog.error("Slurm does not tell the prolog which job this is");
        return OK;
    };
    let variable = |name| env::var(name).unwrap_or_default();
    let subject = Subject {
        began,
        job: JobId(job),
        uid,
        restart: variable("SLURM_JOB_RESTART_COUNT").parse().unwrap_or_default(),
        node: variable("SLURMD_NODENAME"),
        state_dir: state_dir(spank),
    };
    let input = || -> prolog::Input {
        let config =
            configuration(spank).map_err(|error| format!("plugstack.conf: {error}: ask the admin"))?;
        let options = options?;
        options.check(&config)?;
        Ok((config, Request::new(|name| env::var_os(name), options)?))
    };
    value(prolog::prolog(&subject, input(), &mut SlurmLog))
}

pub(super) fn epilog(spank: &mut Spank<'_>) -> c_int {
    if process::occupy_standard_descriptors().is_err() {
        SlurmLog.error("cannot open /dev/null");
    }
    let Ok(job) = spank.job_id() else { return OK };
    // With a configuration that cannot be read nothing was started.
    let config =
        configuration(spank).unwrap_or_else(|_| Config { state_dir: state_dir(spank), ..Config::default() });
    value(prolog::epilog(&config, JobId(job), &mut SlurmLog))
}

pub(super) fn adopt(spank: &mut Spank<'_>) -> c_int {
    let Ok(job) = spank.job_id() else { return OK };
    let placeholder = spank.task_pid().ok().filter(|pid| *pid > 0);
    if let Err(error) = session::adopt(&StateDir::new(&state_dir(spank)), Scope::job(JobId(job)), placeholder)
    {
        SlurmLog.error(&format!("job {job}: {}", chain(&error)));
    }
    // Never a failure: in this hook it would drain the node. The tasks wait for the adoption, and refuse without.
    OK
}

fn value(verdict: Verdict) -> c_int {
    match verdict {
        Verdict::GoOn => OK,
        Verdict::Drain => FAILED,
    }
}

// ---- in the task ----------------------------------------------------------------------------------------------------

/// A task that cannot join goes on only as far as the next hook, where it ends: slurmstepd is still to write to this
/// process, and would tell the user of a broken pipe.
pub(super) fn join(spank: &mut Spank<'_>) -> c_int {
    let work = try_join(spank).map_err(|error| {
        let speaks = is_first_to_speak(spank);
        if speaks {
            SlurmLog.info(&chain(error.as_ref()));
        }
        Refusal(speaks.then(|| addressed(error.as_ref())))
    });
    if let Some(work) = work.transpose() {
        let _ = AS_USER.set(work);
    }
    OK
}

/// Of all tasks of a step on this node, one. When that cannot be found out, all.
fn is_first_to_speak(spank: &Spank<'_>) -> bool {
    let (Ok(job), Ok(step)) = (spank.job_id(), spank.job_stepid()) else { return true };
    StateDir::new(&state_dir(spank)).of(Scope::job(JobId(job))).claim(&format!("told.{step}")).unwrap_or(true)
}

fn try_join(spank: &Spank<'_>) -> Result<Option<AsUser>, Box<dyn Error>> {
    let job = JobId(spank.job_id()?);
    let kind = StepKind::from(spank.job_stepid()?);
    let state = StateDir::new(&state_dir(spank));
    let record = state.of(Scope::job(job)).read()?;
    if let Some(Outcome::Failed { message }) = record.as_ref().map(|record| &record.outcome) {
        return Err(TaskError::Prolog(message.clone()).into());
    }
    let known = record.is_some();
    let options = Options::parse(|spec| given(spank, spec, |name| spank.getenv_os(name).ok().flatten()))?;
    let config = configuration(spank).map_err(|error| format!("plugstack.conf: {error}: ask the admin"))?;
    let step = Step {
        job,
        uid: spank.job_uid()?,
        kind,
        layout: layout(spank, kind),
        script: (kind == StepKind::Batch).then(|| script(spank)).flatten(),
        options,
    };
    task::ask_other_nodes(record.as_ref(), &step, report::nodes)?;
    let gpus = record.as_ref().and_then(Record::gpus);
    let mut launcher = None;
    let joined = match task::decide(record, &step, &config)? {
        Place::Host => None,
        Place::Container(session) => {
            task::wait_for_adoption(&state, job)?;
            Some((Scope::job(job), session))
        }
        Place::Own(image) => {
            let (session, found) = enter_own(spank, &config, &step.options, &image, gpus)?;
            launcher = found;
            Some((Scope::step(job, StepId(spank.job_stepid()?)), Box::new(session)))
        }
    };
    if let Some((scope, session)) = &joined {
        task::compare_images(&state.of(*scope), &step, session)?;
        let speaks = !session.sshd && spank.task_global_id().is_ok_and(|task| task == 0);
        if speaks && state.of(*scope).claim("warned")? {
            tell_user(&format!("warning: {}", task::no_sshd(&session.image)));
        }
        task::join(&state, *scope, &step, session, &config)?;
    }
    let concerned = known || joined.is_some();
    Ok(concerned.then_some(AsUser { step: step.options, kind, config, joined, launcher }))
}

/// The container of this step: started, if no other task has done that. Where one task of the step launches the others,
/// also what the tasks that keep the container on other nodes wait for.
fn enter_own(
    spank: &Spank<'_>,
    config: &Config,
    options: &Options,
    image: &Reference,
    gpus: Option<Gpus>,
) -> Result<(Session, Option<SocketAddr>), Box<dyn Error>> {
    options.check(config)?;
    let facts = StepFacts {
        scope: Scope::step(JobId(spank.job_id()?), StepId(spank.job_stepid()?)),
        uid: spank.job_uid()?,
        gid: spank.job_gid()?,
        node: spank.job_nodeid()?,
        // Where slurmstepd went before it forked, as the user.
        workdir: env::current_dir().ok(),
        gpus,
    };
    let variable = |name: &str| spank.getenv_lossy(name).ok().flatten();
    let request = Request::of_step(&facts, variable, options.clone())?;
    let mut progress = |line: &str| {
        SlurmLog.info(&format!("job {}: {line}", facts.scope));
        if request.is_first_node() {
            tell_user(line);
        }
    };
    let has_launcher = spank.job_nnodes()? > 1 && is_once(spank, options.launch)?;
    let session =
        session::enter(config, &request, image, &mut SlurmLog, &mut progress).inspect_err(|_| {
            if has_launcher {
                session::doom(config, facts.scope)
            }
        })?;
    let mut launcher = None;
    if session.sshd && has_launcher {
        if spank.task_global_id()? == 0 {
            session::wait_for_others(config, &request, &session)?;
        } else if !request.is_first_node() && spank.task_id()? == 0 {
            launcher = request.first_node().and_then(|node| together::address(&node, session.port));
        }
    }
    Ok((session, launcher))
}

/// Whether only the first task of the step runs its command.
fn is_once(spank: &Spank<'_>, launch: Option<Launch>) -> Result<bool, SpankError> {
    let argv = spank.job_argv_os()?;
    let mpi_type = spank.getenv_lossy("SLURM_MPI_TYPE")?;
    let program = argv.first().copied().unwrap_or(OsStr::new(""));
    Ok(launcher::decide(launch, program, mpi_type.as_deref()) == Launch::Once)
}

/// At the end of a step that has a container of its own.
pub(super) fn leave(spank: &mut Spank<'_>) -> c_int {
    let (Ok(job), Ok(step)) = (spank.job_id(), spank.job_stepid()) else { return OK };
    let scope = Scope::step(JobId(job), StepId(step));
    // With a configuration that cannot be read nothing was started.
    let config =
        configuration(spank).unwrap_or_else(|_| Config { state_dir: state_dir(spank), ..Config::default() });
    // Of more nodes than that, one is rarely alone in its trouble, and all of them at once would be too much for
    // slurmctld.
    const TELL: u32 = 256;
    if spank.job_nnodes().is_ok_and(|nodes| nodes <= TELL) && session::is_doomed(&config, scope) {
        let cancelled = slurm::show(scope.job).and_then(|job| slurm::cancel_step(&job, StepId(step)));
        if let Err(error) = cancelled {
            SlurmLog.info(&format!("job {scope}: {}", chain(&error)));
        }
    }
    if let Err(error) = session::leave(&config, scope) {
        // The epilog tries again.
        SlurmLog.info(&format!("job {scope}: {}", chain(&error)));
    }
    OK
}

pub(super) fn has_work_as_user() -> bool {
    AS_USER.get().is_some()
}

pub(super) fn become_task(spank: &mut Spank<'_>) -> c_int {
    let ran = match AS_USER.get() {
        None => return OK,
        Some(Ok(work)) => set_environment(spank, work)
            .map_err(|error| {
                Refusal(Some(by_this_node(&format!("cannot set the task's environment: {error}"))))
            })
            .and_then(|runs| enter_directory(spank, work).map(|()| runs)),
        Some(Err(refusal)) => Err(refusal.clone()),
    };
    match ran {
        Ok(Runs::Command) => OK,
        Ok(Runs::Nothing) => privilege::leave(0),
        Err(Refusal(line)) => {
            line.iter().for_each(|line| slurm_spank_log(&format!("spank_docker: {line}")));
            refuse()
        }
    }
}

/// Whether this task runs its command.
enum Runs {
    Command,
    Nothing,
}

fn set_environment(spank: &Spank<'_>, work: &AsUser) -> Result<Runs, SpankError> {
    // They have done their work. A job submitted from within this one must not inherit its container, nor a step the
    // image of a variable that the command line has overridden.
    for spec in &TABLE {
        spank.unsetenv(spec.variable)?;
    }
    let Some((scope, session)) = &work.joined else {
        // A step on the host was started from within the container's environment, or beside it.
        for (name, _) in task::results(Scope::job(JobId(0)), "", "", 0) {
            spank.unsetenv(name)?;
        }
        return Ok(Runs::Command);
    };
    for name in task::propagated_limits(&work.config) {
        spank.unsetenv(name)?;
    }
    let kept = if work.step.env.is_empty() { &session.options.env } else { &work.step.env };
    for name in locale::VARIABLES {
        let is_served = |value: &OsString| locale::is_served(Path::new("/"), value);
        if spank.getenv_os(name)?.is_some_and(|value| !is_served(&value)) {
            spank.unsetenv(name)?;
        }
    }
    for (name, value) in &session.environment {
        let host_wins = kept.contains(name) && spank.getenv_os(name)?.is_some();
        if !host_wins {
            spank.setenv(name, value, true)?;
        }
    }
    for (name, value) in task::environment(*scope, &session.image, &session.image_id, session.port) {
        spank.setenv(name, value, true)?;
    }
    let given = if work.kind == StepKind::Tasks { gpus::OF_STEP } else { gpus::OF_JOB };
    if let Some(given) = spank.getenv_lossy(given)?.filter(|_| !session.gpus.is_empty()) {
        for name in gpus::SELECTIONS {
            let value = spank.getenv_lossy(name)?;
            if let Some(value) = value.and_then(|value| session.gpus.visible(&value, &given)) {
                spank.setenv(name, value, true)?;
            }
        }
    }
    if let Some(networks) = &session.networks
        && spank.getenv_os(task::MPI_NO_NETWORKS)?.is_none()
        && spank.getenv_os(task::MPI_NETWORKS)?.is_none()
    {
        spank.setenv(task::MPI_NETWORKS, networks, true)?;
    }
    if work.kind != StepKind::Tasks {
        return Ok(Runs::Command);
    }
    let mpi_type = spank.getenv_lossy("SLURM_MPI_TYPE")?;
    if mpi_type.as_deref().is_some_and(|mpi_type| mpi_type.starts_with("pmix")) {
        for (name, value) in task::PMIX_ENVIRONMENT {
            spank.setenv(name, value, true)?;
        }
    }
    if !is_once(spank, work.step.launch.or(session.options.launch))? || spank.task_global_id()? == 0 {
        return Ok(Runs::Command);
    }
    if let Some(launcher) = &work.launcher {
        together::wait_for_end(launcher, spank.job_nnodes()?, work.config.start_timeout);
    }
    Ok(Runs::Nothing)
}

fn enter_directory(spank: &Spank<'_>, work: &AsUser) -> Result<(), Refusal> {
    let Some((_, session)) = &work.joined else { return Ok(()) };
    let refused = |line: String| Refusal(Some(by_this_node(&line)));
    let pwd = spank.getenv_os("PWD").ok().flatten();
    let entered = task::enter_directory(session, work.step.workdir.as_deref(), pwd.as_deref())
        .map_err(|error| refused(error.to_string()))?;
    entered
        .map_or(Ok(()), |directory| spank.setenv("PWD", directory, true))
        .map_err(|error| refused(format!("cannot set the task's environment: {error}")))
}

// ---- what Slurm knows -----------------------------------------------------------------------------------------------

/// An option's value: the command line's, else the variable's.
fn given(spank: &Spank<'_>, spec: &Spec, variable: impl Fn(&str) -> Option<OsString>) -> Option<Given> {
    if spank.is_option_set(spec.name) {
        let value = spank.get_option_value_os(spec.name).map(|value| value.into_owned()).unwrap_or_default();
        return Some(Given { value, source: Source::Option });
    }
    Some(Given { value: variable(spec.variable)?, source: Source::Variable })
}

fn configuration(spank: &Spank<'_>) -> Result<Config, Box<dyn Error>> {
    Ok(Config::parse(&spank.plugin_argv()?)?)
}

/// Known even when the configuration cannot be read.
fn state_dir(spank: &Spank<'_>) -> PathBuf {
    let arguments = spank.plugin_argv().unwrap_or_default();
    let given = arguments.iter().rev().find_map(|argument| argument.strip_prefix("state_dir="));
    Path::new(given.unwrap_or(config::STATE_DIR)).to_owned()
}

/// The job's layout: a batch script has it in its variables; srun replaces them by the step's.
fn layout(spank: &Spank<'_>, kind: StepKind) -> Option<Layout> {
    let variable = |name| spank.getenv_lossy(name).ok().flatten();
    let nodes = variable("SLURM_JOB_NODELIST")?;
    let covers_job = kind != StepKind::Tasks || variable("SLURM_STEP_NODELIST")? == nodes;
    covers_job.then_some(Layout { nodes, tasks: variable("SLURM_TASKS_PER_NODE")? })
}

fn script(spank: &Spank<'_>) -> Option<PathBuf> {
    let script = PathBuf::from(spank.job_argv_os().ok()?.first()?);
    script.is_absolute().then_some(script)
}

/// An error as its user reads it, on the terminal or in the batch script's output: behind the name of its node.
fn addressed(error: &(dyn Error + 'static)) -> String {
    match error.downcast_ref() {
        Some(TaskError::OtherNode(line)) => line.clone(),
        _ => by_this_node(&error.to_string()),
    }
}

/// One line on the user's terminal.
fn tell_user(line: &str) {
    slurm_spank_log(&format!("spank_docker: {}", by_this_node(line)));
}

fn by_this_node(line: &str) -> String {
    let node = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    format!("{node}: {line}")
}

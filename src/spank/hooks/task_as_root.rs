//! In a task, while it is still root: the task joins its container, or fails.

use std::env;
use std::error::Error;
use std::ffi::{CStr, c_int};
use std::path::PathBuf;

use slurm_spank::SpankError;

use super::input::{Spank, configuration, given, is_once, state_dir};
use super::output::{SlurmLog, by_this_node, tell_user};
use super::step::{self, OfJob};
use super::step_layout;
use super::task_state::{self, AsUser, Joined, Launches, Refusal};
use crate::container::StepError;
use crate::guest::directories;
use crate::guest::job_environment;
use crate::guest::paths;
use crate::guest::ssh::client_program;
use crate::linux::cgroup::Cgroups;
use crate::linux::privilege::Umask;
use crate::linux::signals::DeferredSignals;
use crate::log::{Log, error_chain};
use crate::settings::options::{self, ImageChoice, Options};
use crate::settings::plugstack::Config;
use crate::slurm::env_protocol;
use crate::slurm::failure_report;
use crate::slurm::ids::{JobId, Owner, StepId};
use crate::slurm::step_layout::StepLayout;
use crate::spank::handle::OK;
use crate::spank::slurmstepd;
use crate::state::{OnceFlag, Record, StateDir, StateError};
use crate::task::{self, Layout, Place, Step, StepKind, TaskError, display};

/// A task that cannot join continues only to the next hook, where it ends: slurmstepd has yet to write to this
/// process, and would report a broken pipe to the user.
pub(in crate::spank) fn join(spank: &mut Spank<'_>) -> c_int {
    let signals = DeferredSignals::begin();
    let work = try_join(spank).map_err(|error| refusal(spank, error.as_ref()));
    match work.transpose() {
        None => signals.discard(),
        Some(work) => task_state::hold(work, signals),
    }
    OK
}

/// `None` for a task of a job that does not need the plugin.
fn try_join(spank: &Spank<'_>) -> Result<Option<AsUser>, Box<dyn Error>> {
    let _umask = Umask::of_root();
    let job = JobId(spank.job_id()?);
    let state = StateDir::new(&state_dir());
    let record = state.of(Owner::job(job)).read()?;
    if let Some(record) = &record {
        task::fail_if_prolog_failed(&record.outcome)?;
    }
    let has_record = record.is_some();
    let of_job = OfJob::new(record.as_ref());
    let step = step(spank, job, of_job.node())?;
    let config = configuration().map_err(|error| format!("plugstack.conf: {error}: ask the admin"))?;
    task::ask_slurmctld(record.as_ref(), &step, failure_report::status)?;
    let mut joined = container(spank, &state, record, of_job, &step, &config)?;
    let launches = match &joined {
        Some(joined) => launches(spank, &step, joined)?,
        None => None,
    };
    if let Some(joined) = &mut joined {
        let cookie = cookie(spank, &state, joined)?;
        enter(&state, joined, &step, &config)?;
        if let Some(file) = cookie {
            spank.setenv(display::AUTHORITY, file, true)?;
        }
        // If the variable stayed, Slurm would make the directory, or complain, before the plugin has checked
        // whether the container has it.
        joined.temporary = spank.getenv_os(directories::OF_SLURM)?;
        spank.unsetenv(directories::OF_SLURM)?;
    }
    let is_called_in_container =
        spank.getenv_os(job_environment::CONTAINER).is_ok_and(|container| container.is_some());
    let concerned = has_record || joined.is_some() || is_called_in_container;
    let own = step.own.filter(|_| joined.as_ref().is_some_and(|joined| joined.owner.step.is_none()));
    let own = own.map(|layout| layout.step);
    Ok(concerned.then_some(AsUser { step: step.options, kind: step.kind, own, config, launches, joined }))
}

/// The cookie of the task's X display, where it has one: its path in the container.
fn cookie(spank: &Spank<'_>, state: &StateDir, joined: &Joined) -> Result<Option<&'static str>, StateError> {
    let file = display::cookie_file(|name| spank.getenv_os(name).ok().flatten());
    let bring = |file: PathBuf| display::bring_cookie(&state.of(joined.owner), &file, &joined.running.user);
    file.map_or(Ok(None), bring)
}

/// Read on the host, where Slurm's cgroups are visible.
fn launches(spank: &Spank<'_>, step: &Step, joined: &Joined) -> Result<Option<Launches>, SpankError> {
    let launch = step.options.launch.or(joined.running.options.launch);
    if step.kind != StepKind::Tasks || !is_once(spank, launch)? {
        return Ok(None);
    }
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let has_cpus_in_cgroup = Cgroups::of_step(own).is_ok_and(|step| step.limit_cpus());
    Ok(Some(Launches { has_cpus_in_cgroup }))
}

fn step(spank: &Spank<'_>, job: JobId, node: &str) -> Result<Step, Box<dyn Error>> {
    let kind = StepKind::from(spank.job_stepid()?);
    let own = step_layout::of_step(spank, node);
    let is_dockerexec = spank.getenv_os(env_protocol::DOCKEREXEC).is_ok_and(|given| given.is_some());
    Ok(Step {
        job,
        uid: spank.job_uid()?,
        kind,
        layout: layout(spank, job, kind, own.as_ref()),
        // The single task of `dockerexec` acts for the job's script.
        own: own.filter(|_| kind == StepKind::Tasks && !is_dockerexec),
        job_has_image: job_has_image(spank, job),
        directories: directories(spank),
        restart: restart(spank),
        is_dockerexec,
        script: (kind == StepKind::Batch).then(|| script(spank)).flatten(),
        options: options(spank)?,
    })
}

fn options(spank: &Spank<'_>) -> Result<Options, options::OptionError> {
    let variable = |name: &str| spank.getenv_os(name).ok().flatten();
    if variable(env_protocol::COMPONENTS_WITH_IMAGE).is_some() {
        return Ok(Options::default());
    }
    Options::parse(|spec| given(spank, spec, variable))
}

/// Whether the job has an image according to its variables, not to its record.
fn job_has_image(spank: &Spank<'_>, job: JobId) -> bool {
    let variable = |name: &CStr| spank.getenv_lossy(name.to_str().ok()?).ok().flatten();
    variable(env_protocol::IMAGE_OF_JOB).is_some_and(|value| ImageChoice::asks(value.as_ref()))
        || variable(env_protocol::JOBS_WITH_IMAGE).is_some_and(|jobs| env_protocol::names_job(&jobs, job))
        || component_has_image(spank, job)
}

fn component_has_image(spank: &Spank<'_>, job: JobId) -> bool {
    let variable = |name| spank.getenv_lossy(name).ok().flatten();
    variable(env_protocol::COMPONENTS_WITH_IMAGE).is_some_and(|components| {
        let first = variable("SLURM_JOB_ID").and_then(|id| id.parse().ok());
        env_protocol::component_has_image(&components, first, job)
    })
}

/// As slurmstepd has entered it, and as the caller names it.
fn directories(spank: &Spank<'_>) -> Vec<PathBuf> {
    let of_caller = spank.getenv_os("PWD").ok().flatten().map(PathBuf::from);
    env::current_dir().ok().into_iter().chain(of_caller).collect()
}

fn restart(spank: &Spank<'_>) -> u32 {
    let count = spank.getenv_lossy("SLURM_RESTART_COUNT").ok().flatten();
    count.and_then(|count| count.parse().ok()).unwrap_or_default()
}

/// The job's layout: a batch script has it in its variables. srun replaces them by the step's, which is the
/// job's layout when that srun has made the job.
fn layout(spank: &Spank<'_>, job: JobId, kind: StepKind, step: Option<&StepLayout>) -> Option<Layout> {
    let variable = |name| spank.getenv_lossy(name).ok().flatten();
    let nodes = variable("SLURM_JOB_NODELIST")?;
    if let Some(tasks) = layout_of_job(spank, job, kind) {
        return Some(Layout { is_of_job: true, nodes, tasks });
    }
    let covers_job = step?.nodes == nodes;
    covers_job.then_some(Layout { is_of_job: false, nodes, tasks: variable("SLURM_TASKS_PER_NODE")? })
}

/// The job's layout for steps that the step starts itself.
pub(super) fn layout_of_job(spank: &Spank<'_>, job: JobId, kind: StepKind) -> Option<String> {
    let variable = |name| spank.getenv_lossy(name).ok().flatten();
    match kind {
        StepKind::Batch | StepKind::Interactive => variable("SLURM_TASKS_PER_NODE"),
        StepKind::Tasks | StepKind::Extern => variable(env_protocol::LAYOUT_OF_JOB)
            .and_then(|value| env_protocol::layout_of(&value, job).map(str::to_owned)),
    }
}

fn script(spank: &Spank<'_>) -> Option<PathBuf> {
    let script = PathBuf::from(spank.job_argv_os().ok()?.first()?);
    script.is_absolute().then_some(script)
}

/// The container to which the task belongs, ready to be joined; `None` on the host.
fn container(
    spank: &Spank<'_>,
    state: &StateDir,
    record: Option<Record>,
    of_job: OfJob,
    step: &Step,
    config: &Config,
) -> Result<Option<Joined>, Box<dyn Error>> {
    let is_ready = record.as_ref().is_some_and(Record::is_ready);
    let place = task::decide(record, step, config)?;
    // This holds for tasks on the host too: where the job's limits do not hold for its container, no task of
    // the job runs.
    if is_ready {
        task::wait_for_adoption(state, step.job)?;
    }
    Ok(match place {
        Place::Host => None,
        Place::Container(running) => {
            let option = step.options.first_without_effect(&running.options, config);
            if let Some(option) = option.filter(|_| spank.task_global_id().is_ok_and(|task| task == 0)) {
                let name = option.name;
                tell_user(&format!("warning: --{name} has no effect: this step runs in its job's container"));
            }
            Some(Joined { owner: Owner::job(step.job), running, temporary: None, launcher: None })
        }
        Place::Own(image, options) => {
            let options = options.as_deref().unwrap_or(&step.options);
            let (running, launcher) = step::enter(spank, config, options, &image, of_job)?;
            let owner = Owner::step(step.job, StepId(spank.job_stepid()?));
            Some(Joined { owner, running: Box::new(running), temporary: None, launcher })
        }
    })
}

fn enter(state: &StateDir, joined: &Joined, step: &Step, config: &Config) -> Result<(), Box<dyn Error>> {
    let Joined { owner, running, .. } = joined;
    let directory = state.of(*owner);
    task::compare_images(&directory, step, running)?;
    // One task on the first node shows them for all.
    let mut warnings = running.warnings.clone();
    warnings.extend((!running.sshd).then(|| client_program::no_sshd(&running.image, step.uid, config.sshd)));
    if !warnings.is_empty() && running.is_on_first_node() && directory.claim(OnceFlag::WarningShown)? {
        for warning in warnings {
            tell_user(&by_this_node(&format!("warning: {warning}")));
        }
    }
    task::join(state, *owner, step, running, config)?;
    slurmstepd::launch_scripts_through(paths::LAUNCHER);
    Ok(())
}

fn refusal(spank: &Spank<'_>, error: &(dyn Error + 'static)) -> Refusal {
    if !is_first_to_speak(spank) {
        return Refusal(None);
    }
    SlurmLog.info(&error_chain(error));
    // Slurm has reported this to the user already.
    let is_asked_for = matches!(error.downcast_ref(), Some(StepError::Ended { .. }));
    Refusal((!is_asked_for).then(|| addressed(error)))
}

/// Whether this task is the one of its step that reports on this node. All tasks do, if that cannot be found
/// out; also in the container, where an image could redirect the plugin's paths.
fn is_first_to_speak(spank: &Spank<'_>) -> bool {
    if task::has_entered() {
        return true;
    }
    let (Ok(job), Ok(step)) = (spank.job_id(), spank.job_stepid()) else { return true };
    StateDir::new(&state_dir())
        .of(Owner::job(JobId(job)))
        .claim(OnceFlag::FailureShown { step })
        .unwrap_or(true)
}

/// An error as the user reads it, on the terminal or in the batch script's output: after the name of its node.
fn addressed(error: &(dyn Error + 'static)) -> String {
    match error.downcast_ref() {
        Some(TaskError::Reported(line)) => line.clone(),
        _ => by_this_node(&error.to_string()),
    }
}

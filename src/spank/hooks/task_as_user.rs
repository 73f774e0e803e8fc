//! In a task, when it has become the user: its environment and its directory, or its end.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::unistd::{AccessFlags, access, getuid};
use slurm_spank::SpankError;

use super::client::control_variable;
use super::input::Spank;
use super::output::{by_this_node, tell_user};
use super::task_as_root::layout_of_job;
use super::task_state::{self, AsUser, Held, HeldSignals, Joined, Launches, Refusal};
use crate::container::barrier;
use crate::guest::job_environment;
use crate::guest::{accounts, directories, locale, paths, preload};
use crate::linux::{affinity, plain_file, privilege, signals};
use crate::settings::options::TABLE;
use crate::slurm::ids::JobId;
use crate::slurm::{cpu_binding, env_protocol};
use crate::spank::handle::{OK, refuse};
use crate::state::RunningContainer;
use crate::task::environment::{self, InContainer};
use crate::task::{self, StepKind};

pub(in crate::spank) fn has_work_as_user() -> bool {
    task_state::is_held()
}

pub(in crate::spank) fn become_task(spank: &mut Spank<'_>) -> c_int {
    let Some(Held { work, mut signals }) = task_state::take() else { return OK };
    match work.and_then(|work| prepare(spank, &work, &mut signals)) {
        Ok(Runs::Command) => {
            signals.deliver();
            OK
        }
        Ok(Runs::Nothing) => privilege::leave(0),
        Err(Refusal(line)) => {
            line.iter().for_each(|line| tell_user(line));
            signals.deliver();
            refuse()
        }
    }
}

/// Whether this task runs its command.
enum Runs {
    Command,
    Nothing,
}

fn prepare(spank: &Spank<'_>, work: &AsUser, signals: &mut HeldSignals) -> Result<Runs, Refusal> {
    carry_layout(spank, work.kind).map_err(no_environment)?;
    let Some(joined) = &work.joined else {
        forget_options(spank).and_then(|()| forget_container(spank)).map_err(no_environment)?;
        return Ok(Runs::Command);
    };
    forget_options(spank).and_then(|()| set_environment(spank, work, joined)).map_err(no_environment)?;
    let runs = match &work.launches {
        Some(launches) => {
            wait_for_launcher(spank, work, joined, launches, signals).map_err(no_environment)?
        }
        None => Runs::Command,
    };
    enter_directory(spank, work, &joined.running).map(|()| runs)
}

/// Removes the plugin's options, which are not needed any more. A job submitted from within this one must not
/// inherit its container, and a step must not get the image of a variable that the command line has overridden.
fn forget_options(spank: &Spank<'_>) -> Result<(), SpankError> {
    spank.unsetenv(env_protocol::DOCKEREXEC)?;
    spank.unsetenv(env_protocol::COMPONENTS_WITH_IMAGE)?;
    spank.unsetenv(env_protocol::OVERRIDDEN)?;
    TABLE.iter().try_for_each(|spec| {
        spank.unsetenv(spec.variable)?;
        // Slurm 24.11 leaves the option of a step there without a value.
        spank.unsetenv(control_variable(spec))
    })
}

/// Passes the job's layout on, for the hostfiles of the job's steps.
fn carry_layout(spank: &Spank<'_>, kind: StepKind) -> Result<(), SpankError> {
    let job = JobId(spank.job_id()?);
    match layout_of_job(spank, job, kind) {
        Some(layout) => spank.setenv(env_protocol::LAYOUT_OF_JOB, env_protocol::layout(job, &layout), true),
        None => spank.unsetenv(env_protocol::LAYOUT_OF_JOB),
    }
}

/// Removes a container's variables from a step on the host, which may have been started from a container's
/// environment. On the host, they would mislead MPI launchers.
fn forget_container(spank: &Spank<'_>) -> Result<(), SpankError> {
    let of_container = |entry: &&OsStr| {
        let (name, value) = entry.to_str()?.split_once('=')?;
        job_environment::is_of_container(name, value.as_ref()).then(|| name.to_owned())
    };
    let names: Vec<String> = spank.job_env_os()?.iter().filter_map(of_container).collect();
    spank.unsetenv(env_protocol::CALLED_IN)?;
    names.into_iter().try_for_each(|name| spank.unsetenv(name))
}

fn set_environment(spank: &Spank<'_>, work: &AsUser, joined: &Joined) -> Result<(), SpankError> {
    if let Some(directory) = &joined.temporary {
        spank.setenv(directories::OF_SLURM, directory, true)?;
    }
    let (kind, step, config) = (work.kind, &work.step, &work.config);
    let own = work.own.filter(|step| paths::hostfiles_of(*step).iter().all(|path| Path::new(path).exists()));
    let joined = environment::JoinedTask {
        owner: joined.owner,
        running: &joined.running,
        own,
        kind,
        launches: work.launches.is_some(),
        step,
        config,
    };
    let variables = variables(spank)?;
    let given = |name: &str| variables.get(name).cloned();
    let container = InContainer {
        is_served: &|locale| locale::is_served(Path::new("/"), locale),
        // Runs as the user: only that user's task hangs where a file system does not answer.
        is_directory: &Path::is_dir,
        is_writable: &|path| path.is_dir() && access(path, AccessFlags::W_OK | AccessFlags::X_OK).is_ok(),
        is_program: &|path| path.is_file() && access(path, AccessFlags::X_OK).is_ok(),
        login_shell: &|| {
            accounts::login_shell(read_text(Path::new(paths::PASSWD))?.as_bytes(), getuid().as_raw())
        },
        read: &read_text,
        has_library: &|entry, library_path| preload::is_there(Path::new("/"), entry, library_path),
    };
    let names: Vec<String> = variables.keys().cloned().collect();
    environment::changes(&joined, &names, given, container).into_iter().try_for_each(|change| match change {
        (name, Some(value)) => spank.setenv(name, value, true),
        (name, None) => spank.unsetenv(name),
    })
}

/// The task's variables, the first where a name has several, as for Slurm (src/common/env.c, `getenvp`). Slurm compares all names
/// for each that it is asked for, and the plugin looks for some hundreds. No variable whose name is not UTF-8 is its concern.
fn variables(spank: &Spank<'_>) -> Result<BTreeMap<String, OsString>, SpankError> {
    let mut variables = BTreeMap::new();
    for entry in spank.job_env_os()? {
        let mut parts = entry.as_bytes().splitn(2, |byte| *byte == b'=');
        if let (Some(Ok(name)), Some(value)) = (parts.next().map(str::from_utf8), parts.next()) {
            variables.entry(name.to_owned()).or_insert_with(|| OsStr::from_bytes(value).to_owned());
        }
    }
    Ok(variables)
}

/// The text of a regular file of plausible size. The user controls its content, and only the user's task
/// depends on it.
fn read_text(path: &Path) -> Option<String> {
    const LIMIT: u64 = 1 << 20;
    let text = plain_file::read(path, LIMIT).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// Where only the first task runs the command, on all CPUs that its step has here, the other tasks end at once;
/// but one on each other node keeps its container until the launcher has ended.
fn wait_for_launcher(
    spank: &Spank<'_>,
    work: &AsUser,
    joined: &Joined,
    launches: &Launches,
    held: &mut HeldSignals,
) -> Result<Runs, SpankError> {
    if spank.task_global_id()? == 0 {
        match launches.has_cpus_in_cgroup {
            true => affinity::widen(),
            false => cpus_of_tasks(spank).iter().for_each(affinity::widen_to),
        }
        return Ok(Runs::Command);
    }
    if let Some(launcher) = &joined.launcher {
        // Slurm sends a step's signals to this process too. Once the launcher runs, only the launcher acts on
        // them, and this node's container has to stay until it has.
        signals::ignore_user_signals();
        held.deliver();
        let limit = work.config.start_timeout;
        barrier::wait_for_end(launcher, limit, signals::ignore_ends);
    }
    Ok(Runs::Nothing)
}

/// The CPUs of all the step's tasks on this node: without a limit by cgroups, the task must not simply run on all CPUs
/// that it can get, because these may be other jobs'.
fn cpus_of_tasks(spank: &Spank<'_>) -> Option<BTreeSet<usize>> {
    let variable = |name| spank.getenv_lossy(name).ok().flatten();
    let (kind, list) = (variable(cpu_binding::TYPE)?, variable(cpu_binding::LIST)?);
    cpu_binding::of_all_tasks(&kind, &list, spank.job_local_task_count().ok()?)
}

fn enter_directory(spank: &Spank<'_>, work: &AsUser, running: &RunningContainer) -> Result<(), Refusal> {
    let pwd = spank.getenv_os("PWD").ok().flatten();
    let entered = task::enter_directory(running, work.step.workdir.as_deref(), pwd.as_deref())
        .map_err(|error| refused(&error.to_string()))?;
    entered.map_or(Ok(()), |directory| spank.setenv("PWD", directory, true)).map_err(no_environment)
}

fn no_environment(error: SpankError) -> Refusal {
    refused(&format!("cannot set the task's environment: {error}"))
}

fn refused(line: &str) -> Refusal {
    Refusal(Some(by_this_node(line)))
}

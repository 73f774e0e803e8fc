//! Runs in srun, sbatch and salloc, when the options are known.

use std::env;
use std::error::Error;
use std::ffi::{OsStr, OsString, c_int};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use slurm_spank::Context;

use super::het_job;
use super::input::{Spank, configuration, given};
use super::output::{SlurmLog, tell_user};
use crate::container;
use crate::guest::job_environment;
use crate::linux::environment;
use crate::log::{Log, error_chain};
use crate::settings::options::{ImageChoice, OptionSpec, Options, TABLE, forward_to_prolog};
use crate::slurm::env_protocol;
use crate::slurm::shell_state::ShellState;
use crate::slurm::srun_arguments;
use crate::spank::handle::{FAILED, OK};

pub(in crate::spank) fn check_options(spank: &mut Spank<'_>) -> c_int {
    let checked = client(spank);
    give_back_callers_environment();
    match checked {
        Ok(()) => OK,
        Err(error) => {
            SlurmLog.error(&error_chain(error.as_ref()));
            FAILED
        }
    }
}

fn client(spank: &Spank<'_>) -> Result<(), Box<dyn Error>> {
    match overridden(spank) {
        none if none.is_empty() => environment::remove(env_protocol::OVERRIDDEN),
        names => environment::set(env_protocol::OVERRIDDEN, names),
    }
    let variable = |name: &str| env::var_os(name);
    let options = Options::parse(|spec| given(spank, spec, variable))?;
    let has_image = options.has_image();
    if matches!(spank.context()?, Context::Local) {
        het_job::compare(spank, has_image)?;
        tell_where_called();
        let is_step = carry_layout() || may_have_container();
        if !has_image && !is_step {
            warn_of_other_options(&options);
        }
    } else {
        announce_job(has_image);
        if !has_image {
            warn_of_other_options(&options);
        }
    }
    if has_image {
        order(spank, &options)?;
    }
    forget_overridden_variables(spank);
    Ok(())
}

/// Without an image they have no effect, unless they are meant for a step in a job with a container.
fn warn_of_other_options(options: &Options) {
    let other = options.first_other().filter(|_| env::var_os(env_protocol::DOCKEREXEC).is_none());
    if let Some(other) = other {
        tell_user(&format!("warning: --{} has no effect without --docker-image", other.name));
    }
}

/// Hands the checked options to the prolog.
fn order(spank: &Spank<'_>, options: &Options) -> Result<(), Box<dyn Error>> {
    let config = configuration().map_err(|error| format!("plugstack.conf: {error}"))?;
    options.check(&config)?;
    if nix::unistd::getuid().is_root() && !is_for_another_user() && !config.allow_root {
        return Err(container::StartError::Root.into());
    }
    // The prolog gets the values of the command line; those of variables are passed in the same way.
    for (spec, value) in forward_to_prolog(|spec| given(spank, spec, |name| env::var_os(name))) {
        spank.job_control_setenv(control_variable(spec), value, true)?;
    }
    if let Some(names) = env::var_os(env_protocol::OVERRIDDEN) {
        spank.job_control_setenv(env_protocol::OVERRIDDEN_FOR_PROLOG, names, true)?;
    }
    if let Some(directory) = shells_directory() {
        spank.job_control_setenv(env_protocol::DIRECTORY, directory, true)?;
    }
    if options.entrypoint.unwrap_or(config.entrypoint) {
        spank.job_control_setenv(env_protocol::SHELL_STATE, ShellState::own().to_string(), true)?;
    }
    Ok(())
}

/// Whether root submits for another user. Who that is, the node looks at.
fn is_for_another_user() -> bool {
    srun_arguments::own(env::args_os().skip(1), |_| false).any(|argument| {
        let argument = argument.as_encoded_bytes();
        argument == b"--uid" || argument.starts_with(b"--uid=")
    })
}

/// The options of a batch script whose opposites are on sbatch's command line, which overrides a script (sbatch(1)). If both are
/// in one place, none is overridden.
fn overridden(spank: &Spank<'_>) -> String {
    overridden_by(env::args_os().skip(1), |spec| spank.is_option_set(spec.name))
}

/// The same, for these arguments of sbatch and of its script. Where the script begins is not always known: an argument of a script
/// that may be sbatch's own counts as that.
fn overridden_by(
    arguments: impl IntoIterator<Item = OsString>,
    is_set: impl Fn(&OptionSpec) -> bool,
) -> String {
    let is_switch =
        |argument: &OsStr| TABLE.iter().any(|spec| spec.opposite().is_some() && is_option(argument, spec));
    let own: Vec<OsString> = srun_arguments::own(arguments, is_switch).collect();
    let is_own = |spec: &OptionSpec| own.iter().any(|argument| is_option(argument, spec));
    let is_overridden = |spec: &&OptionSpec| {
        spec.opposite().is_some_and(|other| is_set(spec) && is_set(other) && is_own(other) && !is_own(spec))
    };
    let names: Vec<_> = TABLE.iter().filter(is_overridden).map(|spec| spec.name).collect();
    names.join(",")
}

/// Whether an argument is this option without a value: in full, or by a beginning that no other option has (getopt_long(3)). No
/// option of Slurm's begins like the plugin's.
fn is_option(argument: &OsStr, spec: &OptionSpec) -> bool {
    let Some(given) = argument.to_str().and_then(|argument| argument.strip_prefix("--")) else {
        return false;
    };
    let mut begin_so = TABLE.iter().filter(|spec| spec.name.starts_with(given));
    given == spec.name
        || (begin_so.next().is_some_and(|first| first.name == spec.name) && begin_so.next().is_none())
}

/// The shell's name of the current directory, if it leads there by a link.
fn shells_directory() -> Option<OsString> {
    let named = env::var_os("PWD").filter(|named| Path::new(named).is_absolute())?;
    let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    let here = env::current_dir().ok()?;
    (here != Path::new(&named) && identity(&here)? == identity(Path::new(&named))?).then_some(named)
}

/// Drops variables that the command line has overridden: the shell of a job would pass them on to its steps, where no command
/// line says otherwise.
fn forget_overridden_variables(spank: &Spank<'_>) {
    let is_on_command_line = |spec: &OptionSpec| given(spank, spec, |_| None).is_some();
    for spec in &TABLE {
        let opposite = spec.opposite();
        if is_on_command_line(spec) || opposite.is_some_and(is_on_command_line) {
            environment::remove(spec.variable);
        }
    }
}

/// A command that was called in a container runs with the node's PATH and loader; what it starts has the caller's.
fn give_back_callers_environment() {
    let added = env::var(env_protocol::ADDED).unwrap_or_default();
    added.split(',').filter(|name| !name.is_empty()).for_each(environment::remove);
    environment::remove(env_protocol::ADDED);
    for (hint, value) in env::vars_os() {
        if let Some(name) = hint.to_str().and_then(|hint| hint.strip_prefix(env_protocol::CALLERS)) {
            environment::set(name, &value);
            environment::remove(&format!("{}{name}", env_protocol::CALLERS));
        }
    }
}

/// In srun: tells the step's tasks in which container it was called. Other variables of that container do not tell it: all that
/// Slurm itself passes on could be the only ones that the tasks have.
fn tell_where_called() {
    match env::var_os(job_environment::CONTAINER) {
        Some(container) => environment::set(env_protocol::CALLED_IN, &container),
        None => environment::remove(env_protocol::CALLED_IN),
    }
}

/// In srun: passes the layout of the job to the step, where srun's own variables would hide it. Returns whether
/// this is a step of a job that may have a container.
fn carry_layout() -> bool {
    let variable = |name| env::var(name).ok();
    let Some(job) = variable("SLURM_JOB_ID").and_then(|job| job.parse().ok()) else { return false };
    match (variable(env_protocol::LAYOUT_OF_JOB), variable("SLURM_TASKS_PER_NODE")) {
        (Some(known), Some(tasks)) if known.is_empty() => {
            environment::set(env_protocol::LAYOUT_OF_JOB, env_protocol::layout(job, &tasks));
            true
        }
        (Some(known), _) => env_protocol::layout_of(&known, job).is_some(),
        (None, _) => false,
    }
}

/// Whether this srun runs in a job that is known to have an image, or in one that other clients have made.
fn may_have_container() -> bool {
    let is_set = |name: &str| env::var_os(name).is_some();
    is_set(job_environment::CONTAINER)
        || is_set(&jobs_with_image())
        || srun_arguments::name_a_job(env::args_os().skip(1))
}

/// In sbatch and salloc: makes the shell of a new job tell its steps whether the job has a container. Where they are called
/// in a container, nothing of that comes along.
fn announce_job(has_image: bool) {
    let is_ours = |(name, value): &(OsString, OsString)| {
        name.to_str().is_some_and(|name| job_environment::is_of_container(name, value))
    };
    for (name, _) in env::vars_os().filter(is_ours) {
        environment::remove(&name.to_string_lossy());
    }
    if has_image {
        environment::set(env_protocol::LAYOUT_OF_JOB, "");
    } else {
        environment::remove(env_protocol::LAYOUT_OF_JOB);
    }
}

/// Drops the options of the job in which this command runs. Slurm leaves a job's options in its variables, and
/// srun, sbatch and salloc read those before their own options. But a job that is submitted from within a job
/// has only its own options.
pub(super) fn forget_options_of_another_job() {
    remove_options_of_enclosing_job();
    het_job::forget_variable();
    environment::remove(&jobs_with_image());
}

/// Drops the options of the job in which this step runs. A step, too, has only its own options: its job's
/// container is found by the record of the prolog, and in a heterogeneous job the variables are those of the
/// first component. The step must only know that there is an image, so that it does not run on the host where
/// the record was lost.
pub(super) fn keep_own_options_of_a_step() {
    het_job::forget_variable();
    if remove_options_of_enclosing_job() {
        environment::set(&jobs_with_image(), env_protocol::jobs(&enclosing_jobs()));
    }
}

/// Removes the job's options from the variables. Returns whether they name an image.
fn remove_options_of_enclosing_job() -> bool {
    if env::var_os("SLURM_JOB_ID").is_none() {
        return false;
    }
    let mut has_image = false;
    for spec in &TABLE {
        let variable = control_variable(spec);
        for name in [format!("SLURM_SPANK_{variable}"), variable] {
            has_image |= spec.name == "docker-image"
                && env::var_os(&name).is_some_and(|value| ImageChoice::asks(&value));
            environment::remove(&name);
        }
    }
    has_image
}

/// This job, and the other components of a heterogeneous one.
fn enclosing_jobs() -> Vec<String> {
    let is_id = |name: &str| name == "SLURM_JOB_ID" || name.starts_with("SLURM_JOB_ID_HET_GROUP_");
    let ids = env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_id));
    ids.filter_map(|(_, id)| id.into_string().ok()).collect()
}

fn jobs_with_image() -> String {
    env_protocol::JOBS_WITH_IMAGE.to_string_lossy().into_owned()
}

/// The name under which Slurm carries an option to the prolog (`SPANK_` is put before it there).
pub(super) fn control_variable(spec: &OptionSpec) -> String {
    format!("_SLURM_SPANK_OPTION_docker_{}", spec.name.replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is overridden of a script with both of `--docker-readonly` and `--docker-writable` set, in it or on this command line.
    fn overridden(line: &str) -> String {
        let is_set = |spec: &OptionSpec| ["docker-readonly", "docker-writable"].contains(&spec.name);
        overridden_by(line.split(' ').map(OsString::from), is_set)
    }

    #[test]
    fn command_line_overrides_its_script_in_full_and_in_short() {
        for line in [
            "--docker-writable s.sh",
            "--docker-writ s.sh",
            "-N 2 --docker-wr s.sh",
            "--hold --docker-writable s.sh",
            // The script's own arguments.
            "--docker-writable s.sh --docker-readonly",
            "--docker-writ s.sh --docker-readonly",
            "--docker-writable -N2 -- s.sh --docker-readonly",
        ] {
            assert_eq!(overridden(line), "docker-readonly", "{line}");
        }
        assert_eq!(overridden("--docker-r s.sh"), "docker-writable");
        for line in [
            "s.sh",
            "s.sh --docker-writable",
            "--mem=5 s.sh --docker-writ",
            "-N 2 s.sh --docker-writable",
            "--docker-writable --docker-readonly s.sh",
            // sbatch refuses it, for --docker-workdir.
            "--docker-w s.sh",
            "--docker-writable=yes s.sh",
        ] {
            assert_eq!(overridden(line), "", "{line}");
        }
    }
}

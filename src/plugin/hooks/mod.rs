//! The hooks: each reads its input, calls plain code, and maps the result. A file for each kind of process that Slurm
//! calls them in; here is what all of them ask of Slurm, and how they speak.

use std::error::Error;
use std::ffi::{OsStr, OsString, c_int};
use std::path::{Path, PathBuf};

use slurm_spank::{Context, LogLevel, SpankError, SpankHandle, SpankOption, slurm_spank_log, spank_log};

use super::spank::{FAILED, OK};
use crate::config::{self, Config};
use crate::log::Log;
use crate::mpi::launcher;
use crate::options::{Given, Launch, Source, Spec, TABLE, Takes};

mod client;
mod node;
mod own_step;
mod slurmd;
mod task;
mod task_as_user;

pub(super) use client::check_options;
pub(super) use node::{adopt, epilog, prolog};
pub(super) use own_step::leave;
pub(super) use task::join;
pub(super) use task_as_user::{become_task, has_work_as_user};

type Spank<'a> = SpankHandle<'a>;

pub(super) fn init(spank: &mut Spank<'_>) -> c_int {
    match spank.context() {
        Ok(Context::Slurmd) => slurmd::clear_away(spank),
        Ok(Context::Allocator) => {
            client::forget_options_of_another_job();
            register_options(spank)
        }
        Ok(Context::Local | Context::Remote) => register_options(spank),
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

/// Enough to remove what was started: with a configuration that cannot be read nothing was.
fn configuration_for_removal(spank: &Spank<'_>) -> Config {
    configuration(spank).unwrap_or_else(|_| Config { state_dir: state_dir(spank), ..Config::default() })
}

/// Known even when the configuration cannot be read.
fn state_dir(spank: &Spank<'_>) -> PathBuf {
    let arguments = spank.plugin_argv().unwrap_or_default();
    let given = arguments.iter().rev().find_map(|argument| argument.strip_prefix("state_dir="));
    Path::new(given.unwrap_or(config::STATE_DIR)).to_owned()
}

/// Whether only the first task of the step runs its command.
fn is_once(spank: &Spank<'_>, launch: Option<Launch>) -> Result<bool, SpankError> {
    let argv = spank.job_argv_os()?;
    let mpi_type = spank.getenv_lossy("SLURM_MPI_TYPE")?;
    let program = argv.first().copied().unwrap_or(OsStr::new(""));
    Ok(launcher::decide(launch, program, mpi_type.as_deref()) == Launch::Once)
}

// ---- how they speak -------------------------------------------------------------------------------------------------

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

/// One line on the user's terminal, or in the batch script's output.
fn tell_user(line: &str) {
    slurm_spank_log(&format!("spank_docker: {line}"));
}

/// The line behind the name of its node, which is the host's without its domain, as slurmd has it too (`-N` apart). Slurm
/// itself tells its steps' processes only later.
fn by_this_node(line: &str) -> String {
    let host = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
    let node = host.split('.').next().unwrap_or_default();
    format!("{node}: {line}")
}

//! The inputs that several hooks read from Slurm.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use slurm_spank::{SpankError, SpankHandle};

use crate::guest::mpi::launcher;
use crate::settings::options::{Given, Launch, OptionSpec, ValueSource};
use crate::settings::plugstack::{self, Config, ConfigError};
use crate::slurm::env_protocol;
use crate::slurm::plugin_order::{self, OrderError};
use crate::spank::handle;

/// Slurm's handle for the process in which the hook runs.
pub(super) type Spank<'a> = SpankHandle<'a>;

/// An option's value: from the command line, else from the variable. An overridden option of a script counts as not given.
pub(super) fn given(
    spank: &Spank<'_>,
    spec: &OptionSpec,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Option<Given> {
    let overridden = variable(env_protocol::OVERRIDDEN).unwrap_or_default();
    let is_overridden = || overridden.to_string_lossy().split(',').any(|name| name == spec.name);
    if spank.is_option_set(spec.name) && !is_overridden() {
        let value = spank.get_option_value_os(spec.name).map(|value| value.into_owned()).unwrap_or_default();
        return Some(Given { value, source: ValueSource::Option });
    }
    Some(Given { value: variable(spec.variable)?, source: ValueSource::Variable })
}

pub(super) fn configuration() -> Result<Config, ConfigError> {
    Config::parse_raw(&handle::arguments())
}

/// Whether no other plugin would follow a task into its container.
pub(super) fn plugins_are_in_order() -> Result<(), OrderError> {
    plugin_order::check_is_last(env::var_os("SLURM_CONF").as_deref())
}

/// The configuration, as far as a removal needs it: if it cannot be read, the engine comes from the job's
/// record.
pub(super) fn configuration_for_removal() -> Config {
    configuration().unwrap_or_else(|_| Config { state_dir: state_dir(), ..Config::default() })
}

/// The state directory, which is known even when the configuration cannot be read.
pub(super) fn state_dir() -> PathBuf {
    let arguments = handle::arguments();
    OsStr::from_bytes(plugstack::state_dir_of(arguments.iter().map(CString::as_c_str))).into()
}

/// Whether only the first task of the step runs its command.
pub(super) fn is_once(spank: &Spank<'_>, launch: Option<Launch>) -> Result<bool, SpankError> {
    let argv = spank.job_argv_os()?;
    let program = argv.first().copied().unwrap_or(OsStr::new(""));
    Ok(launcher::decide(launch, program) == Launch::Once)
}

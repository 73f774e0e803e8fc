//! In srun, sbatch and salloc, when the options are known.

use std::env;
use std::error::Error;
use std::ffi::c_int;

use super::{SlurmLog, Spank, configuration, given, tell_user};
use crate::options::{ImageChoice, Options, Spec, to_carry};
use crate::plugin::spank::{FAILED, OK};
use crate::prolog::{Log, chain};
use crate::session;

pub(in crate::plugin) fn check_options(spank: &mut Spank<'_>) -> c_int {
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
            tell_user(&format!("warning: --{} has no effect without --docker-image", other.name));
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

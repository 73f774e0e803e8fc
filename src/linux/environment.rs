//! This process's own environment, for the processes that it starts: srun, sbatch and salloc pass theirs on, and SPANK has no
//! other way there to send a value to a job's tasks.
//!
//! Runs as the user, in srun, sbatch and salloc.
#![expect(unsafe_code, reason = "changes of the environment")]

use std::env;
use std::ffi::OsStr;

/// Sets a variable, unless it has this value already.
pub fn set(name: &str, value: impl AsRef<OsStr>) {
    let value = value.as_ref();
    if env::var_os(name).is_some_and(|found| found == value) {
        return;
    }
    // SAFETY: no other thread may read the environment meanwhile. Since 26.05 srun and salloc have other
    // threads when they call plugins (src/srun/srun.c: `conmgr_run` before `init_srun`). src/conmgr reads no
    // variables, and srun itself changes variables in this thread while those threads run
    // (`_setup_env_working_cluster`, `_setup_job_env`). The plugin changes only what differs, which in most
    // calls is nothing.
    unsafe { env::set_var(name, value) }
}

/// Removes a variable, if it is set.
pub fn remove(name: &str) {
    if env::var_os(name).is_none() {
        return;
    }
    // SAFETY: as above.
    unsafe { env::remove_var(name) }
}

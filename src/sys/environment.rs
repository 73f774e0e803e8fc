//! This process's own environment, for what it starts.
//!
//! Runs as the user, in srun, sbatch and salloc.
#![expect(unsafe_code, reason = "changes of the environment, in processes that have one thread")]

use std::env;

/// Sets a variable.
pub fn set(name: &str, value: &str) {
    // SAFETY: Slurm's commands have one thread until their options are read.
    unsafe { env::set_var(name, value) }
}

/// Removes a variable.
pub fn remove(name: &str) {
    // SAFETY: as above.
    unsafe { env::remove_var(name) }
}

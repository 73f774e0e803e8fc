//! The configuration of Slurm for the prolog: a file without settings.
#![expect(unsafe_code, reason = "changes the environment")]

use std::path::Path;
use std::{env, fs};

/// Makes a start use a cluster's configuration without settings.
pub(crate) fn configure(directory: &Path) {
    let slurm_conf = directory.join("slurm.conf");
    fs::write(&slurm_conf, "").unwrap();
    // SAFETY: the test has one thread.
    unsafe { env::set_var("SLURM_CONF", slurm_conf) };
}

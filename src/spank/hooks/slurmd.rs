//! Runs in slurmd, when it starts.

use std::ffi::c_int;

use super::input::{configuration, plugins_are_in_order};
use super::output::SlurmLog;
use crate::container;
use crate::log::{Log, error_chain};
use crate::spank::handle::OK;
use crate::spank::slurmd;

/// Reports problems that only an admin can fix.
pub(super) fn check_plugin_order() {
    if let Err(error) = plugins_are_in_order() {
        SlurmLog.error(&error_chain(&error));
    }
}

/// Removes what is left of jobs that no longer run. Never fails: a slurmd that does not start is worse than
/// leftovers.
pub(super) fn remove_leftovers() -> c_int {
    let config = match configuration() {
        Ok(config) => config,
        Err(error) => {
            SlurmLog.error(&format!("plugstack.conf: {error}"));
            return OK;
        }
    };
    match container::reap(&config, &slurmd::identity()) {
        Ok(jobs) if jobs.is_empty() => {}
        Ok(jobs) => {
            let jobs: Vec<String> = jobs.iter().map(ToString::to_string).collect();
            SlurmLog.info(&format!("removed leftovers of jobs {}", jobs.join(", ")));
        }
        Err(error) => SlurmLog.error(&format!("cannot remove leftovers of jobs: {}", error_chain(&error))),
    }
    OK
}

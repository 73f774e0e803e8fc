//! One srun of several components (`srun A : B`): srun reads the options of each, one after the other, and
//! passes to the tasks of all components the values that it has read last.

use std::env;
use std::ffi::OsString;
use std::sync::{Mutex, PoisonError};

use super::input::{Spank, given};
use crate::linux::environment;
use crate::settings::options::TABLE;
use crate::slurm::env_protocol;
use crate::slurm::srun_arguments;

/// The options of each component so far.
static SEEN: Mutex<Vec<ComponentOptions>> = Mutex::new(Vec::new());

#[derive(PartialEq, Eq)]
struct ComponentOptions {
    has_image: bool,
    /// The value of each option.
    values: Vec<Option<OsString>>,
}

/// The components have different options, which srun could not keep apart.
#[derive(Debug, thiserror::Error)]
#[error(
    "the components of an srun within a job share its --docker options: give them the same, or start an srun for each"
)]
pub(super) struct Different;

/// In srun, called when the options of one more component are known. If this srun makes the job, each component
/// has a prolog, which gets the right options, and the tasks need no others.
pub(super) fn compare(spank: &Spank<'_>, has_image: bool) -> Result<(), Different> {
    let given = |spec| given(spank, spec, |name| env::var_os(name)).map(|given| given.value);
    let values = TABLE.iter().map(given).collect();
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    seen.push(ComponentOptions { has_image, values });
    if seen.iter().all(|given| Some(given) == seen.first()) {
        return Ok(());
    }
    if is_within_a_job() {
        return Err(Different);
    }
    let images: Vec<bool> = seen.iter().map(|given| given.has_image).collect();
    environment::set(env_protocol::COMPONENTS_WITH_IMAGE, env_protocol::components(&images));
    Ok(())
}

/// The variable of another srun does not apply to this one.
pub(super) fn forget_variable() {
    environment::remove(env_protocol::COMPONENTS_WITH_IMAGE);
}

fn is_within_a_job() -> bool {
    env::var_os("SLURM_JOB_ID").is_some() || srun_arguments::name_a_job(env::args_os().skip(1))
}

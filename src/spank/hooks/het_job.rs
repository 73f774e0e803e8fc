//! One srun of several components (`srun A : B`): it reads the options of each, one after the other, and gives the tasks of
//! all what it has read last.

use std::env;
use std::ffi::OsString;
use std::sync::{Mutex, PoisonError};

use super::input::{Spank, given};
use crate::linux::environment;
use crate::settings::options::TABLE;
use crate::slurm::env_protocol;
use crate::slurm::srun_arguments;

/// What each component so far was given.
static SEEN: Mutex<Vec<Component>> = Mutex::new(Vec::new());

#[derive(PartialEq, Eq)]
struct Component {
    has_image: bool,
    /// One for each option that there is.
    values: Vec<Option<OsString>>,
}

/// Not the same options for all components, where srun could not keep them apart.
#[derive(Debug, thiserror::Error)]
#[error(
    "the components of an srun within a job share its --docker options: give them the same, or start an srun for each"
)]
pub(super) struct Different;

/// In srun, when the options of one more component are known. A job that this srun makes has a prolog for each of them, which
/// gets them right: the tasks need no others.
pub(super) fn compare(spank: &Spank<'_>, has_image: bool) -> Result<(), Different> {
    let given = |spec| given(spank, spec, |name| env::var_os(name)).map(|given| given.value);
    let values = TABLE.iter().map(given).collect();
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    seen.push(Component { has_image, values });
    if seen.iter().all(|given| Some(given) == seen.first()) {
        return Ok(());
    }
    if is_within_a_job() {
        return Err(Different);
    }
    let images: Vec<bool> = seen.iter().map(|given| given.has_image).collect();
    environment::set(env_protocol::COMPONENTS_WITH_IMAGE, &env_protocol::components(&images));
    Ok(())
}

/// Another's variable says nothing of this srun.
pub(super) fn forget_variable() {
    environment::remove(env_protocol::COMPONENTS_WITH_IMAGE);
}

fn is_within_a_job() -> bool {
    env::var_os("SLURM_JOB_ID").is_some() || srun_arguments::name_a_job(env::args_os().skip(1))
}

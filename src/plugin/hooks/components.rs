//! One srun of several components (`srun A : B`): it reads the options of each, one after the other, and gives the tasks of
//! all what it has read last.

use std::env;
use std::ffi::OsString;
use std::sync::OnceLock;

use super::input::{Spank, given};
use crate::options::TABLE;
use crate::sys::environment;
use crate::task;

/// A value for each option that the first component has.
static FIRST: OnceLock<Vec<Option<OsString>>> = OnceLock::new();

/// Not the same options as the first component's, where srun could not keep them apart.
#[derive(Debug, thiserror::Error)]
#[error(
    "the components of an srun within a job share its --docker options: give them the same, or start an srun for each"
)]
pub(super) struct Different;

/// In srun, when the options of one more component are known. A job that this srun makes has a prolog for each of them, which
/// gets them right: the tasks need no others.
pub(super) fn compare(spank: &Spank<'_>) -> Result<(), Different> {
    let given = |spec| given(spank, spec, |name| env::var_os(name)).map(|given| given.value);
    let mine: Vec<_> = TABLE.iter().map(given).collect();
    if FIRST.get_or_init(|| mine.clone()) == &mine {
        return Ok(());
    }
    if is_within_a_job() {
        return Err(Different);
    }
    environment::set(task::OPTIONS_OF_JOB, "yes");
    Ok(())
}

/// Another's variable says nothing of this srun.
pub(super) fn forget_variable() {
    environment::remove(task::OPTIONS_OF_JOB);
}

fn is_within_a_job() -> bool {
    env::var_os("SLURM_JOB_ID").is_some()
        || env::args_os().any(|argument| argument.as_encoded_bytes().starts_with(b"--jobid"))
}

//! What the crate slurm-spank lacks: queries to Slurm that allocate nothing, and hooks that no panic leaves.
#![expect(unsafe_code, reason = "calls of Slurm's C interface, with what Slurm passed to the hook")]

use std::any::Any;
use std::ffi::{CStr, CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use slurm_spank::spank_sys::{self, spank_t};
use slurm_spank::{LogLevel, Plugin, SpankHandle, init_spank_handle, spank_callback_with_globals, spank_log};

use crate::linux::privilege;
use crate::log::escape::Escaped;
use crate::settings::plugstack;
use crate::slurm::env_protocol::{IMAGE_OF_JOB, JOBS_WITH_IMAGE};
use crate::state;
use crate::task::StepKind;

/// The value of a hook that succeeded, and of one that failed (before 25.05 only negative values count).
pub(super) const OK: c_int = 0;
pub(super) const FAILED: c_int = -1;

/// `spank_item` of spank.h.
const S_JOB_ID: spank_sys::spank_item_t = spank_sys::spank_item_S_JOB_ID;
const S_JOB_STEPID: spank_sys::spank_item_t = spank_sys::spank_item_S_JOB_STEPID;

/// What Slurm passes to a hook.
#[derive(Clone, Copy)]
pub(super) struct Raw {
    handle: spank_t,
    argc: c_int,
    argv: *const *const c_char,
}

impl Raw {
    pub(super) fn new(handle: spank_t, argc: c_int, argv: *const *const c_char) -> Self {
        Self { handle, argc, argv }
    }

    /// Whether this is srun, sbatch or salloc.
    pub(super) fn is_client(&self) -> bool {
        // SAFETY: the function has no arguments.
        let context = unsafe { spank_sys::spank_context() };
        matches!(context, spank_sys::spank_context_S_CTX_LOCAL | spank_sys::spank_context_S_CTX_ALLOCATOR)
    }

    /// In the prolog and the epilog: whether the job was given `--docker-image`, even with the value `none`.
    pub(super) fn job_wants_image(&self) -> bool {
        // SAFETY: a single-threaded process; the string itself is not read.
        unsafe { !libc::getenv(c"SPANK__SLURM_SPANK_OPTION_docker_docker_image".as_ptr()).is_null() }
    }

    /// In the epilog: whether the job may have left something.
    pub(super) fn job_left_something(&self) -> bool {
        self.job_wants_image() || self.job_has_state()
    }

    /// Whether the step is the extern step of a job that the prolog has dealt with.
    pub(super) fn is_extern_step_with_container(&self) -> bool {
        self.item(S_JOB_STEPID).is_some_and(|step| StepKind::from(step) == StepKind::Extern)
            && self.job_has_state()
    }

    /// In a task: whether the job has a container here, or should have one, or the step requests one.
    pub(super) fn task_needs_plugin(&self) -> bool {
        let variables = [c"SLURM_DOCKER_IMAGE", JOBS_WITH_IMAGE, IMAGE_OF_JOB];
        self.job_has_state() || has_options() || variables.iter().any(|name| self.has_variable(name))
    }

    /// In a step's slurmstepd: whether the step has a container of its own.
    pub(super) fn is_step_with_container(&self) -> bool {
        // SAFETY: the function has no arguments.
        let remote = unsafe { spank_sys::spank_context() } == spank_sys::spank_context_S_CTX_REMOTE;
        remote && self.item(S_JOB_STEPID).is_some_and(|step| self.has_state(Some(step)))
    }

    /// Whether there is a record of this job.
    fn job_has_state(&self) -> bool {
        self.has_state(None)
    }

    /// Whether there is a record of this job, or of one step of it.
    fn has_state(&self, step: Option<u32>) -> bool {
        let state_dir = plugstack::state_dir_of(self.arguments());
        self.item(S_JOB_ID).is_some_and(|job| state::has_state(state_dir, job, step))
    }

    /// The plugin's arguments in plugstack.conf. Allocates nothing.
    fn arguments(&self) -> impl Iterator<Item = &CStr> {
        let count = usize::try_from(self.argc).unwrap_or_default();
        (0..count).filter_map(|index| {
            // SAFETY: Slurm passes `argc` valid strings.
            unsafe {
                let argument = *self.argv.add(index);
                (!argument.is_null()).then(|| CStr::from_ptr(argument))
            }
        })
    }

    fn item(&self, item: spank_sys::spank_item_t) -> Option<u32> {
        let mut value = 0u32;
        // SAFETY: both items are stored into a uint32_t (spank.h).
        let result = unsafe { spank_sys::spank_get_item(self.handle, item, &raw mut value) };
        (result == spank_sys::ESPANK_SUCCESS).then_some(value)
    }

    fn has_variable(&self, name: &CStr) -> bool {
        let mut value: [c_char; 2] = [0; 2];
        // SAFETY: a static name, and a buffer of the length that is passed.
        let result = unsafe { spank_sys::spank_getenv(self.handle, name.as_ptr(), value.as_mut_ptr(), 2) };
        matches!(result, spank_sys::ESPANK_SUCCESS | spank_sys::slurm_err_t_ESPANK_NOSPACE)
    }
}

/// Whether options were given: the crate keeps those behind a lock of its own.
fn has_options() -> bool {
    spank_callback_with_globals::<Docker, _>(|_, options, _| {
        if options.values.is_empty() {
            Ok(())
        } else {
            Err("the plugin's options are already registered".into())
        }
    }) != OK
}

/// The crate requires a type of the plugin, but uses nothing of it.
#[derive(Default)]
struct Docker;

// SAFETY: no method of the trait is overridden: the plugin exports the hooks itself.
unsafe impl Plugin for Docker {}

/// The plugin's arguments in plugstack.conf, as the last hook got them. The crate's handle has them too, but no text of one that
/// is not UTF-8.
static ARGUMENTS: Mutex<Vec<CString>> = Mutex::new(Vec::new());

/// The plugin's arguments in plugstack.conf.
pub(super) fn arguments() -> Vec<CString> {
    ARGUMENTS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn keep_arguments(raw: &Raw) {
    *ARGUMENTS.lock().unwrap_or_else(PoisonError::into_inner) = raw.arguments().map(CStr::to_owned).collect();
}

/// Runs a hook. A panic in it is caught here: otherwise it would poison the crate's locks and every later hook
/// of this process.
pub(super) fn guarded(raw: &Raw, hook: fn(&mut SpankHandle<'_>) -> c_int, panicked: fn() -> c_int) -> c_int {
    keep_arguments(raw);
    let raw = AssertUnwindSafe(*raw);
    let mut result = OK;
    let mut result_in = AssertUnwindSafe(&mut result);
    let called = spank_callback_with_globals::<Docker, _>(move |_, options, _| {
        let raw = raw;
        let mut spank = init_spank_handle(raw.handle, raw.argc, raw.argv, options);
        let mut spank = AssertUnwindSafe(&mut spank);
        **result_in = catch_unwind(move || hook(*spank)).unwrap_or_else(|panic| {
            spank_log(
                LogLevel::Error,
                &format!("spank_docker: panicked: {}", Escaped::line(words(panic.as_ref()))),
            );
            panicked()
        });
        Ok(())
    });
    if called == OK { result } else { panicked() }
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("?")
}

/// Ends a task that must not run. The hook's return value is not enough: with `optional` in plugstack.conf
/// Slurm would ignore it, and run the task on the host.
pub(super) fn refuse() -> c_int {
    privilege::leave(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_kept_in_any_encoding() {
        let given = [c"pull=\xff".as_ptr(), std::ptr::null(), c"state_dir=/x".as_ptr()];
        let argc = c_int::try_from(given.len()).unwrap();
        keep_arguments(&Raw::new(std::ptr::null_mut(), argc, given.as_ptr()));
        assert_eq!(arguments(), [c"pull=\xff".to_owned(), c"state_dir=/x".to_owned()]);
    }
}

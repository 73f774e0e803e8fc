//! The C symbols that Slurm looks up. Each hook first checks, without an allocation, whether the job needs the
//! plugin at all; then it runs under a guard that no panic leaves.
#![expect(unsafe_code, reason = "C symbols")]

use std::ffi::{c_char, c_int};

use slurm_spank::spank_sys::spank_t;

use super::handle::{self, Raw};
use super::hooks;

/// The plugin's name in option variables: `SPANK__SLURM_SPANK_OPTION_docker_…`.
#[unsafe(no_mangle)]
static plugin_name: [u8; 7] = *b"docker\0";

/// What kind of plugin this is.
#[unsafe(no_mangle)]
static plugin_type: [u8; 6] = *b"spank\0";

macro_rules! export {
    ($(#[$doc:meta])* $symbol:ident, $concerns:expr, $hook:path, on_panic $panicked:expr) => {
        $(#[$doc])*
        #[unsafe(no_mangle)]
        extern "C" fn $symbol(handle: spank_t, argc: c_int, argv: *const *const c_char) -> c_int {
            let raw = Raw::new(handle, argc, argv);
            if $concerns(&raw) { handle::guarded(&raw, $hook, $panicked) } else { 0 }
        }
    };
}

export!(
    /// Called first, in every process of Slurm: registers the options; in slurmd, removes what is left of jobs
    /// that no longer run.
    slurm_spank_init, |_: &Raw| true, hooks::init, on_panic || -1
);
export!(
    /// In srun, sbatch and salloc, when the options are known: checks them.
    slurm_spank_init_post_opt, Raw::is_client, hooks::check_options, on_panic || -1
);
export!(
    /// On every node, as root, before the job: starts its container. After a panic the node must not be
    /// drained: the tasks refuse to run.
    slurm_spank_job_prolog, Raw::job_wants_image, hooks::prolog, on_panic || 0
);
export!(
    /// In a step's slurmstepd, as root, after the fork: the extern step adopts the container.
    slurm_spank_task_post_fork, Raw::is_extern_step_with_container, hooks::adopt, on_panic || 0
);
export!(
    /// In the task, as root: joins the container, or ends.
    slurm_spank_task_init_privileged, Raw::task_needs_plugin, hooks::join, on_panic handle::refuse
);
export!(
    /// In the task, as the user: its environment.
    slurm_spank_task_init, |_: &Raw| hooks::has_work_as_user(), hooks::become_task, on_panic handle::refuse
);
export!(
    /// In a step's slurmstepd, as root, when a task has ended: prepares for the end of the step's own
    /// container.
    slurm_spank_task_exit, Raw::is_step_with_container, hooks::watch_end, on_panic || 0
);
export!(
    /// In a step's slurmstepd, as root, at the step's end: removes a container of the step's own.
    slurm_spank_exit, Raw::is_step_with_container, hooks::leave, on_panic || 0
);
export!(
    /// On every node, as root, after the job: removes everything.
    slurm_spank_job_epilog, Raw::job_left_something, hooks::epilog, on_panic || 0
);

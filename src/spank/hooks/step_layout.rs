//! In a task: the nodes of its step that share the keys of its container, and the tasks on each.

use super::input::Spank;
use crate::slurm::ids::StepId;
use crate::slurm::step_layout::{Component, StepLayout};

/// The layout of this step, or of its component. `node` is the name of this node.
pub(super) fn of_step(spank: &Spank<'_>, node: &str) -> Option<StepLayout> {
    let variable = |name| spank.getenv_lossy(name).ok().flatten();
    let layout = StepLayout {
        step: StepId(spank.job_stepid().ok()?),
        nodes: variable("SLURM_STEP_NODELIST")?,
        tasks: variable("SLURM_STEP_TASKS_PER_NODE")?,
    };
    // Without this variable all components belong to one job (src/srun/srun_job.c, `local_het_step`), and share its
    // keys.
    if variable("SLURM_HET_SIZE").is_none() {
        return Some(layout);
    }
    layout.part(Component {
        node,
        place: spank.job_nodeid().ok()?,
        nodes: spank.job_nnodes().ok()?,
        tasks_here: spank.job_local_task_count().ok()?,
        tasks: spank.job_total_task_count().ok()?,
    })
}

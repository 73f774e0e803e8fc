//! What a task knows about its step. Pure.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use crate::settings::options::Options;
use crate::slurm::ids::JobId;
use crate::slurm::step_layout::StepLayout;

/// Steps that are not numbered (slurm.h: SLURM_BATCH_SCRIPT, SLURM_EXTERN_CONT, SLURM_INTERACTIVE_STEP).
const BATCH: u32 = 0xffff_fffb;
const EXTERN: u32 = 0xffff_fffc;
const INTERACTIVE: u32 = 0xffff_fffa;

/// The kind of step to which a task belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// The batch script.
    Batch,
    /// The process that represents the job on each of its nodes.
    Extern,
    /// salloc's shell, with LaunchParameters=use_interactive_step.
    Interactive,
    /// srun's tasks.
    Tasks,
}

impl From<u32> for StepKind {
    fn from(step: u32) -> Self {
        match step {
            BATCH => Self::Batch,
            EXTERN => Self::Extern,
            INTERACTIVE => Self::Interactive,
            _ => Self::Tasks,
        }
    }
}

/// What a task knows about its step.
#[derive(Debug)]
pub struct Step {
    /// The job.
    pub job: JobId,
    /// The job's user.
    pub uid: u32,
    /// The kind of the step.
    pub kind: StepKind,
    /// The step's own options.
    pub options: Options,
    /// The number of the job's tasks on each node, if the step knows it.
    pub layout: Option<Layout>,
    /// The same for the step itself, if it runs in its job's container.
    pub own: Option<StepLayout>,
    /// Whether its job was submitted with an image, according to the job's variables: if there is no record,
    /// the start has failed.
    pub job_has_image: bool,
    /// Names of the directory in which the step was called: a relative path of an image counts from there.
    pub directories: Vec<PathBuf>,
    /// How often the job was requeued, according to its variables.
    pub restart: u32,
    /// Whether `dockerexec` runs the step, which runs commands only in the container.
    pub is_dockerexec: bool,
    /// The batch script's path on the host.
    pub script: Option<PathBuf>,
}

/// The job's nodes and the tasks on each, as Slurm writes them.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Whether these are certainly the job's tasks, and not a step's.
    pub is_of_job: bool,
    /// A host list.
    pub nodes: String,
    /// A task layout of the same length.
    pub tasks: String,
}

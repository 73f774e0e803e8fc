//! What a task knows of its step. Pure.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use crate::settings::options::Options;
use crate::slurm::ids::{JobId, StepId};

/// Steps that are not numbered (slurm.h: SLURM_BATCH_SCRIPT, SLURM_EXTERN_CONT, SLURM_INTERACTIVE_STEP).
const BATCH: u32 = 0xffff_fffb;
const EXTERN: u32 = 0xffff_fffc;
const INTERACTIVE: u32 = 0xffff_fffa;

/// What kind of step a task belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// The batch script.
    Batch,
    /// The process that stands for the job on each of its nodes.
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

/// What a task knows of its step.
#[derive(Debug)]
pub struct Step {
    /// The job.
    pub job: JobId,
    /// Whose job it is.
    pub uid: u32,
    /// The kind of the step.
    pub kind: StepKind,
    /// The step's own options.
    pub options: Options,
    /// How many tasks of the job are where, if the step knows.
    pub layout: Option<Layout>,
    /// The same for the step itself, which stays in its job's container.
    pub own: Option<StepLayout>,
    /// Whether its job was submitted with an image, by the job's variables: where there is no record, that has failed.
    pub job_has_image: bool,
    /// How often the job was queued again, by its variables.
    pub restart: u32,
    /// Whether `dockerexec` runs it, which runs commands in the container only.
    pub is_dockerexec: bool,
    /// The batch script, which lies on the host.
    pub script: Option<PathBuf>,
}

/// A step's nodes and the tasks on each, as Slurm writes them.
#[derive(Clone, Debug)]
pub struct StepLayout {
    /// Whose they are.
    pub step: StepId,
    /// A host list.
    pub nodes: String,
    /// A task layout of the same length.
    pub tasks: String,
}

/// The job's nodes and the tasks on each, as Slurm writes them.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Whether it is certain that these are the job's tasks, and not a step's.
    pub is_of_job: bool,
    /// A host list.
    pub nodes: String,
    /// A task layout of the same length.
    pub tasks: String,
}

//! What a task knows of its step. Pure.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::path::PathBuf;

use crate::settings::options::Options;
use crate::slurm::ids::JobId;

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

/// By this variable a task knows that `dockerexec` is its srun's caller.
pub const DOCKEREXEC: &str = "SLURM_DOCKEREXEC";

/// By this variable a task knows that what looks like its step's options may be another component's of its srun, and that the
/// job has them right; and which components have an image.
pub const OPTIONS_OF_JOB: &str = "SLURM_DOCKEROPTIONS";

/// By this variable a task knows that its job was submitted with an image. srun sets it, which takes the job's options
/// away: the job, and the others of a heterogeneous job, by their ids.
pub const JOBS_WITH_IMAGE: &CStr = c"SLURM_DOCKERJOBS";
/// And by this one of Slurm's a batch script, and salloc's shell: its job's option.
pub const IMAGE_OF_JOB: &CStr = c"SLURM_SPANK__SLURM_SPANK_OPTION_docker_docker_image";

/// The value of [`OPTIONS_OF_JOB`]: a digit for each component.
#[must_use]
pub fn components(have_image: &[bool]) -> String {
    have_image.iter().map(|has_image| if *has_image { '1' } else { '0' }).collect()
}

/// Whether the component has an image whose job is this one; `first` is the first component's. In doubt it has: it shall not
/// run on the host.
#[must_use]
pub fn component_has_image(value: &str, first: Option<JobId>, job: JobId) -> bool {
    let place = first.and_then(|first| usize::try_from(job.0.checked_sub(first.0)?).ok());
    place.and_then(|place| value.as_bytes().get(place)) != Some(&b'0')
}

/// The value of [`JOBS_WITH_IMAGE`].
#[must_use]
pub fn names(jobs: &[String]) -> String {
    jobs.join(",")
}

/// Whether the job is one of those that a value of [`JOBS_WITH_IMAGE`] names.
#[must_use]
pub fn is_named(job: JobId, value: &str) -> bool {
    value.split(',').any(|id| id.parse() == Ok(job))
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
    /// How many tasks are where, if the step knows.
    pub layout: Option<Layout>,
    /// Whether its job was submitted with an image, by the job's variables: where there is no record, that has failed.
    pub job_has_image: bool,
    /// How often the job was queued again, by its variables.
    pub restart: u32,
    /// Whether `dockerexec` runs it, which knows no other place than the container.
    pub is_dockerexec: bool,
    /// The batch script, which lies on the host.
    pub script: Option<PathBuf>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_has_an_image_unless_it_is_known_to_have_none() {
        let value = components(&[false, true]);
        for (first, job, has_image) in
            [(Some(7), 7, false), (Some(7), 8, true), (Some(7), 9, true), (Some(9), 8, true), (None, 7, true)]
        {
            let found = component_has_image(&value, first.map(JobId), JobId(job));
            assert_eq!(found, has_image, "{first:?} {job}");
        }
    }

    #[test]
    fn a_job_is_found_among_others() {
        for (value, named) in [("12", true), ("11,12", true), ("112,121", false), ("", false), ("12 ", false)]
        {
            assert_eq!(is_named(JobId(12), value), named, "{value}");
        }
    }
}

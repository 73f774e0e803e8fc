//! The hints that clients of Slurm leave for tasks and for each other, in variables that a user can change: the
//! plugin never believes one that would grant something.
//!
//! | variable | written by | read by | what it says | effect of a forged value |
//! |---|---|---|---|---|
//! | [`JOBS_WITH_IMAGE`] | srun in a job, which takes the job's own options out of its variables | the step's tasks | ids of jobs that were submitted with an image | too many: a task without a record is refused; none: where the record was lost too, the user's own task runs on the host |
//! | [`IMAGE_OF_JOB`] | Slurm, in batch scripts and salloc's shell | the script, the shell | the job's own `--docker-image` | the same |
//! | [`COMPONENTS_WITH_IMAGE`] | an srun of several components that makes its jobs | their tasks | options that look like the step's may be another component's; a digit for each: it has an image | the step's own options are ignored, the record of the prolog holds |
//! | [`LAYOUT_OF_JOB`] | sbatch, salloc (empty); srun and batch scripts (`JOB:LAYOUT`) | srun, tasks | tasks on each node of the job: srun replaces Slurm's variable by its step's | the user's own hostfile has other numbers |
//! | [`OVERRIDDEN`] | sbatch | the prolog, the script | options of the script whose opposites are on the command line | the user's own container is another one |
//! | [`SHELL_STATE`] | srun, sbatch and salloc that ask for an ENTRYPOINT | the prolog | umask and soft limits of the submitting shell | the user's own ENTRYPOINT has others |
//! | [`DIRECTORY`] | srun, sbatch and salloc whose shell names its directory by a link | the prolog | that name of the working directory | none: the node looks it up with the user's rights, and takes it if it leads to the working directory |
//! | [`DOCKEREXEC`] | `dockerexec` | its srun, its task | the command may run only in the container | a task without a container is refused |
//! | [`CALLED_IN`] | srun that is called in a container | its tasks | the container whose variables the step has been given whole | the user's own task has the image's variables as the image sets them, or not at all |
//! | `SLURM_JOB_DOCKER_CONTAINER` | the container's own tasks and sessions | tasks without [`CALLED_IN`] | the container from which the step was called, of whose variables it has those that a list names | the same |
//! | [`ENVIRONMENT`] | the job's ssh, where there are more variables than sshd takes | the session at its other end | a shell script that exports them | the user's own session has other variables |
//! | [`ODD`] | the same | the same | the variables that no shell script can write, which the session's shell gets | the same |
//! | [`CALLERS`]`NAME`, [`ADDED`] | the node's end of Slurm's commands in a container, which runs them with the node's PATH and loader | srun, sbatch and salloc | what the caller has as `NAME`; what the caller does not have | the user's own job has other variables |
//! | `SLURM_DOCKERLD_LIBRARY_PATH`, `SLURM_DOCKERLD_PRELOAD` | the same, where the variables go one by one | the same | the loader's variables, which must not affect ssh and sshd | the same |
//!
//! The record in `state_dir` decides ([`crate::state`]), which only root writes. Pure.
#![forbid(unsafe_code)]

use std::ffi::CStr;

use super::ids::JobId;

/// Set for a step within a job: the jobs that have an image. A C string, for callers that must not allocate
/// yet.
pub const JOBS_WITH_IMAGE: &CStr = c"SLURM_DOCKERJOBS";
/// Set in a batch script, and in salloc's shell: the option as Slurm carries it (`src/common/plugstack.c`,
/// `spank_set_remote_options`).
pub const IMAGE_OF_JOB: &CStr = c"SLURM_SPANK__SLURM_SPANK_OPTION_docker_docker_image";
/// Set by an srun that makes a heterogeneous job: which of its components have an image.
pub const COMPONENTS_WITH_IMAGE: &str = "SLURM_DOCKEROPTIONS";
/// The layout of a job, for its steps. Empty in a shell of salloc, which does not know its job yet. Contains
/// the job's id, since scripts pass their variables on to the jobs that they submit.
pub const LAYOUT_OF_JOB: &str = "SLURM_DOCKERLAYOUT";
/// Names of options, with commas between them, that count as not given: Slurm keeps both of a pair of opposites.
pub const OVERRIDDEN: &str = "SLURM_DOCKEROVERRIDDEN";
/// The same for the prolog: the name under which Slurm's clients set it.
pub const OVERRIDDEN_FOR_PROLOG: &str = "DOCKEROVERRIDDEN";
/// The name under which the prolog finds it.
pub const OVERRIDDEN_IN_PROLOG: &str = "SPANK_DOCKEROVERRIDDEN";
/// Set for the prolog of a job with an ENTRYPOINT: the name under which Slurm's clients set it; Slurm adds a
/// prefix.
pub const SHELL_STATE: &str = "DOCKERSHELL";
/// The name under which the prolog finds it.
pub const SHELL_STATE_OF_JOB: &str = "SPANK_DOCKERSHELL";
/// Set for the prolog of a job that was submitted from a directory with another name: Slurm has only the one without links
/// (getcwd(3)). The name under which Slurm's clients set it.
pub const DIRECTORY: &str = "DOCKERPWD";
/// The name under which the prolog finds it.
pub const DIRECTORY_OF_JOB: &str = "SPANK_DOCKERPWD";
/// Set for a step that `dockerexec` starts.
pub const DOCKEREXEC: &str = "SLURM_DOCKEREXEC";
/// Set for a step that is called in a container. With `--export=NONE`, or a list, srun passes on the variables whose names begin
/// with `SLURM` all the same (src/common/env.c, `env_array_merge_slurm`), or `SPANK`: this one must go with the others.
pub const CALLED_IN: &str = "DOCKERSTEP_CALLED_IN";
/// Set for an ssh session.
pub const ENVIRONMENT: &str = "SLURM_DOCKERENVIRONMENT";
/// Set for the shells of the scripts around ssh, by `pause --pack` (src/pause/packed.rs), and for an ssh session.
pub const ODD: &str = "SLURM_DOCKERODD";

/// Before the name of a variable that has the node's value in a command that was called in a container (src/guest-tools,
/// `environment`, which has the same two names).
pub const CALLERS: &str = "SLURM_DOCKERCALLER_";
/// Names of variables, with commas between them, that such a command has, and its caller not.
pub const ADDED: &str = "SLURM_DOCKERADDED";

/// The value of [`JOBS_WITH_IMAGE`].
#[must_use]
pub fn jobs(ids: &[String]) -> String {
    ids.join(",")
}

/// Whether the job is one of those that a value of [`JOBS_WITH_IMAGE`] names.
#[must_use]
pub fn names_job(value: &str, job: JobId) -> bool {
    value.split(',').any(|id| id.parse() == Ok(job))
}

/// The value of [`COMPONENTS_WITH_IMAGE`].
#[must_use]
pub fn components(have_image: &[bool]) -> String {
    have_image.iter().map(|has_image| if *has_image { '1' } else { '0' }).collect()
}

/// Whether the component with this job has an image; `first` is the first component's job. True if that is not
/// certain: then the component must not run on the host.
#[must_use]
pub fn component_has_image(value: &str, first: Option<JobId>, job: JobId) -> bool {
    let place = first.and_then(|first| usize::try_from(job.0.checked_sub(first.0)?).ok());
    place.and_then(|place| value.as_bytes().get(place)) != Some(&b'0')
}

/// The value of [`LAYOUT_OF_JOB`].
#[must_use]
pub fn layout(job: JobId, layout: &str) -> String {
    format!("{job}:{layout}")
}

/// The layout in a value of [`LAYOUT_OF_JOB`], if it is that of this job.
#[must_use]
pub fn layout_of(value: &str, job: JobId) -> Option<&str> {
    let (of, layout) = value.split_once(':')?;
    (of.parse() == Ok(job)).then_some(layout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_is_found_among_others() {
        for (value, named) in [("12", true), ("11,12", true), ("112,121", false), ("", false), ("12 ", false)]
        {
            assert_eq!(names_job(value, JobId(12)), named, "{value}");
        }
        assert!(names_job(&jobs(&["11".to_owned(), "12".to_owned()]), JobId(12)));
    }

    #[test]
    fn component_has_an_image_unless_it_is_known_to_have_none() {
        let value = components(&[false, true]);
        for (first, job, has_image) in
            [(Some(7), 7, false), (Some(7), 8, true), (Some(7), 9, true), (Some(9), 8, true), (None, 7, true)]
        {
            let found = component_has_image(&value, first.map(JobId), JobId(job));
            assert_eq!(found, has_image, "{first:?} {job}");
        }
    }

    #[test]
    fn layout_is_known_by_its_job() {
        assert_eq!(layout_of(&layout(JobId(12), "2(x3),1"), JobId(12)), Some("2(x3),1"));
        for foreign in ["", "2", "13:2", ":2", "x:2"] {
            assert_eq!(layout_of(foreign, JobId(12)), None, "{foreign}");
        }
    }
}

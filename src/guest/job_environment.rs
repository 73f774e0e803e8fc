//! The variables that a job gets in its container: its effective options, and how MPI launchers reach its other
//! nodes. They are the same for tasks and for ssh sessions.
//!
//! Pure; used by root where a container starts, and by the user's task before it execs.
#![forbid(unsafe_code)]

use std::ffi::OsStr;

use super::{mpi, paths};
use crate::settings::plugstack::{Config, Limit};
use crate::slurm::ids::{JobId, Owner, StepId};

/// For ranks that srun starts through PMIx: the PMIx server keeps shared memory in a directory of slurmd, which
/// the container does not have; the server also answers over its socket.
pub const PMIX_ENVIRONMENT: [(&str, &str); 1] = [("PMIX_MCA_gds", "hash")];

/// The variable with the hostfile's path.
pub const HOSTFILE: &str = "SLURM_JOB_DOCKER_HOSTFILE";

/// Names the container that the environment is of.
pub const CONTAINER: &str = "SLURM_JOB_DOCKER_CONTAINER";

/// The effective options: in the environment of every task in the container and of every ssh session.
#[must_use]
pub fn output_vars(owner: Owner, image: &str, image_id: &str, port: u16) -> [(&'static str, String); 5] {
    [
        ("SLURM_JOB_DOCKER_IMAGE", image.to_owned()),
        ("SLURM_JOB_DOCKER_IMAGE_ID", image_id.to_owned()),
        (CONTAINER, owner.container_name()),
        ("SLURM_JOB_DOCKER_PORT", port.to_string()),
        (HOSTFILE, paths::HOSTFILE.to_owned()),
    ]
}

/// The same for a task, whose hostfile is that of its `step` if it has one of its own in the job's container.
#[must_use]
pub fn results(
    owner: Owner,
    step: Option<StepId>,
    image: &str,
    image_id: &str,
    port: u16,
) -> Vec<(&'static str, String)> {
    let results = output_vars(owner, image, image_id, port);
    let hostfile = step.map(|step| (HOSTFILE, paths::hostfiles_of(step)[0].clone()));
    results.into_iter().chain(hostfile).collect()
}

/// Whether this variable says what only holds in a container, or tells MPI launchers what only works there.
#[must_use]
pub fn is_of_container(name: &str, value: &OsStr) -> bool {
    let is_ours = |(known, given): &(&str, &str)| {
        *known == name && (value == *given || value.to_string_lossy().starts_with(paths::HOSTFILE))
    };
    output_vars(Owner::job(JobId(0)), "", "", 0).iter().any(|(known, _)| *known == name)
        || mpi::environment::LAUNCHER_ENVIRONMENT.iter().chain(&mpi::networks::AGENTS).any(is_ours)
}

/// The variable in which Slurm carries the submitting shell's soft limit of locked memory, which slurmstepd
/// sets after the plugin's limits (src/slurmd/slurmstepd/ulimits.c): the plugin removes it where the
/// configuration sets that limit. All other soft limits are those of the shell.
pub fn propagated_limit(config: &Config) -> Option<&'static str> {
    (config.memlock != Limit::Inherit).then_some("SLURM_RLIMIT_MEMLOCK")
}

//! Slurm SPANK plugin that gives every job its own cluster of Docker containers.
//!
//! ```text
//!  srun, sbatch, salloc      options are checked                            plugin::hooks::check_options
//!        │
//!  slurmstepd spank prolog   pull, create, start, harden, sshd, record      prolog → session::start → docker, ssh, sys
//!        │
//!  slurmstepd (extern)       container's processes into the job's cgroups   session::adopt
//!        │
//!  slurmstepd (task)         as root: decide, wait, join, renounce          task::{decide, join}
//!        │                   as the user: environment                       plugin::hooks::become_task
//!        │
//!  slurmstepd spank epilog   container, cgroups, mounts, files are removed  prolog → session::stop
//!  slurmd, at its start      the same for jobs that no longer run           session::reap
//!
//!  spank-docker check        an admin's look at a node                      check
//! ```
//!
//! What crosses from one process to the next, and is trusted, is the record in `state_dir` ([`state`]), never an option or a
//! variable: where a variable says that there should be one, a task is refused, and no more.
//! Pure modules: [`config`], [`gpus`], [`image`], [`in_container`], [`job`], [`job_environment`], [`mounts`], [`mpi`], [`number`], [`options`], [`plain_path`], [`setting`], [`shown`], [`ssh`], [`users`].
//! Unsafe code is in `plugin` (C symbols) and [`sys`] (system calls) only.

pub mod check;
pub mod config;
pub mod docker;
pub mod gpus;
pub mod image;
pub mod in_container;
pub mod job;
pub mod job_environment;
pub mod locale;
pub mod log;
pub mod login;
pub mod long_pull;
pub mod mounts;
pub mod mpi;
pub mod number;
pub mod options;
pub mod phases;
pub mod plain_path;
// Refers to functions that exist only inside Slurm's programs: unit tests and fuzz targets would not link.
#[cfg(not(any(test, fuzzing)))]
mod plugin;
pub mod prolog;
pub mod pulls;
pub mod session;
pub mod setting;
pub mod shown;
pub mod slurm;
pub mod ssh;
pub mod state;
pub mod sys;
pub mod task;
pub mod users;

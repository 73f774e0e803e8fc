//! Slurm SPANK plugin that gives every job its own cluster of Docker containers.
//!
//! ```text
//!  srun, sbatch, salloc      options are checked                            spank::hooks::check_options
//!        │
//!  slurmstepd spank prolog   pull, create, start, harden, sshd, record      container::{prolog, start}
//!        │
//!  slurmstepd (extern)       container's processes into the job's cgroups   container::adopt
//!        │
//!  slurmstepd (task)         as root: decide, wait, join, renounce          task::{decide, join}
//!        │                   as the user: environment                       spank::hooks::become_task
//!        │
//!  slurmstepd spank epilog   container, cgroups, mounts, files are removed  container::{prolog, stop}
//!  slurmd, at its start      the same for jobs that no longer run           container::reap
//!
//!  spank-docker              what an admin sees and does on a node          check, admin
//! ```
//!
//! The rooms, in that order. Each uses only those below it (`tests/rooms.rs`); [`engine`] and [`state`] are
//! side by side.
//!
//! | room | what |
//! |---|---|
//! | `spank` | what Slurm calls: C symbols, hooks, Slurm's handle. The only one that knows the crate `slurm-spank` |
//! | [`admin`] | jobs and images on a node, as an admin sees them; not part of the plugin |
//! | [`check`] | checks of a node for an admin; not part of the plugin |
//! | [`task`] | a task joins its job's container |
//! | [`container`] | a job's container on one node, from its start to its removal |
//! | [`engine`] | the Docker Engine's API: the only one that knows bollard |
//! | [`state`] | records that a node keeps between hooks, in `state_dir` |
//! | [`guest`] | what is put into the container: accounts, environment, ssh, MPI. Pure |
//! | [`slurm`] | Slurm's formats, commands and processes |
//! | [`settings`] | what users and admins write, parsed once and validated. Pure |
//! | [`log`] | what admins read; foreign text in messages |
//! | [`linux`] | what the kernel offers: namespaces, mounts, cgroups, identities |
//!
//! Between processes the plugin trusts only the record in `state_dir` ([`state`]), never an option or a
//! variable: where a variable says that there should be a record and there is none, the task is refused; a
//! variable has no other effect. Unsafe code of the plugin is in `spank` (C symbols) and [`linux`] (system
//! calls) only; `src/pause` is a program of its own.

pub mod admin;
pub mod check;
pub mod container;
pub mod engine;
pub mod guest;
pub mod linux;
pub mod log;
pub mod settings;
pub mod slurm;
// Uses functions that exist only inside Slurm's programs: unit tests and fuzz targets would not link.
#[cfg(not(any(test, fuzzing)))]
mod spank;
pub mod state;
pub mod task;

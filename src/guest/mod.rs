//! What is put into the container, and where: accounts, environments, ssh, what launchers of MPI need.
//!
//! Pure: texts and paths are made here; who writes them, and as whom, is in [`crate::container`].

pub mod accounts;
pub mod directories;
pub mod job_environment;
pub mod locale;
pub mod mpi;
pub mod paths;
pub mod preload;
pub mod profile;
pub mod ssh;

//! The content of the files and of the environment that the plugin adds to a container, and the files' paths:
//! accounts, variables, ssh, MPI launchers.
//!
//! Pure: makes texts and paths only; [`crate::container`] writes them, and determines as which user.

pub mod accounts;
pub mod directories;
pub mod job_environment;
pub mod locale;
pub mod mpi;
pub mod paths;
pub mod preload;
pub mod profile;
pub mod ssh;

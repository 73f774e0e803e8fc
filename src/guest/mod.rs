//! The content of the container's files and environment, and their places: accounts, variables, ssh, MPI launchers.
//!
//! Pure: makes texts and paths only; [`crate::container`] writes them, and says as which user.

pub mod accounts;
pub mod directories;
pub mod job_environment;
pub mod locale;
pub mod mpi;
pub mod paths;
pub mod preload;
pub mod profile;
pub mod ssh;

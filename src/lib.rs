//! Slurm SPANK plugin that gives every job its own cluster of Docker containers.

pub mod config;
pub mod docker;
pub mod image;
pub mod job;
pub mod mpi;
pub mod options;
#[cfg(not(test))]
mod plugin;
pub mod prolog;
pub mod release;
pub mod session;
pub mod shown;
pub mod slurm;
pub mod ssh;
pub mod state;
pub mod sys;
pub mod task;
pub mod users;

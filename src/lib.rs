//! Slurm SPANK plugin that gives every job its own cluster of Docker containers.

pub mod config;
pub mod docker;
pub mod image;
pub mod job;
pub mod mpi;
pub mod options;
pub mod shown;
pub mod ssh;
pub mod sys;
pub mod users;

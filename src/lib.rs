//! Slurm SPANK plugin that gives every job its own cluster of Docker containers.

pub mod image;
pub mod job;
pub mod shown;

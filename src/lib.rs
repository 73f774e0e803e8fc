//! Slurm SPANK plugin that gives every job its own cluster of Docker containers.

//! The SPANK plugin: the only place that knows Slurm's interface.

mod exports;
mod hooks;
mod slurmd;
mod slurmstepd;
mod spank;
mod version;

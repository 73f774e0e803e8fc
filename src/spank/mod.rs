//! The SPANK plugin: the only place that knows Slurm's interface.

mod exports;
mod handle;
mod hooks;
mod slurmd;
mod slurmstepd;
mod version;

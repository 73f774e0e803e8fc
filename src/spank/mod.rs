//! The SPANK plugin: the only code that uses Slurm's plugin interface.

mod exports;
mod handle;
mod hooks;
mod slurmd;
mod slurmstepd;
mod version;

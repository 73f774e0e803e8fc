//! `spank-docker check`: can this node run jobs in containers? It reads only, and changes nothing; with
//! `--start` it also starts a container and removes it.
//!
//! Runs as root in a program of its own, never in a process of Slurm. Each module reads facts and judges them;
//! the functions that judge are pure.

mod devices;
mod engine;
mod engine_data;
mod engine_memory;
mod finding;
mod holes;
mod kernel;
mod limits;
mod node;
mod plugstack;
mod ports;
mod processes;
mod secret;
mod slurm;
mod start;
mod state_dir;
mod storage_size;

pub use finding::{Finding, Level, Report};
pub use node::{check, configuration, place_of_secret, slurm_conf_is_readable};
pub use start::with_start;

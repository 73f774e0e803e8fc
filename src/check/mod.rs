//! `spank-docker check`: is this node fit for jobs in containers? Looks, and changes nothing.
//!
//! Runs as root in a program of its own, never in Slurm's. Each module reads facts and judges them; what judges is pure.

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
mod state_dir;

pub use finding::{Finding, Level, Report};
pub use node::{check, place_of_secret};

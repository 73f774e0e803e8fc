//! The start of a job's or a step's container on one node: validate everything, then act; on failure undo in reverse
//! order and return the first cause.
//!
//! Runs as root in the prolog, a process of its own, and in the forked child that becomes a task: both have a single
//! thread.

mod container;
mod error;
mod order;
mod policy;
mod run;
mod sshd;
mod visits;

pub use error::StartError;
pub use run::start;

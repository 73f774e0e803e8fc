//! The start of a job's or a step's container on one node: validate everything, then act; on failure undo in reverse
//! order and return the first cause.
//!
//! Runs as root in the prolog, a process of its own, or in the forked child that becomes a task, for the container of its
//! step. Both have a single thread.

mod container;
mod contents;
mod entrypoint;
mod error;
mod files;
mod first_process;
mod in_mount_namespace;
mod login;
mod policy;
mod populate;
mod preflight;
mod reason;
mod run;
mod session_environment;
mod spec;
mod sshd;
mod start_request;
mod turn;

pub use entrypoint::exported;
pub use error::StartError;
pub use files::PAUSE;
pub use reason::Reason;
pub use run::start;
pub use spec::devices;

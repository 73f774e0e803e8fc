//! The container of a job on one node: its start in the prolog, its adoption by the extern step, its end in the epilog,
//! and what a starting slurmd clears away.

mod adopt;
mod entry;
mod files;
mod furnish;
mod ready;
mod reap;
mod request;
mod spec;
mod start;
mod stop;
mod workdir;

pub use adopt::{AdoptError, adopt};
pub use reap::reap;
pub use request::{Request, RequestError};
pub use start::{StartError, start};
pub use stop::{StopError, stop};

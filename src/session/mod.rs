//! The container of a job, or of one step, on one node: its start in the prolog or in the step's first task, its
//! adoption by the job's cgroups, its end in the epilog or with the step, and what a starting slurmd clears away.

mod adopt;
mod alike;
mod contents;
mod engine;
mod entry;
mod entrypoint;
mod environment;
mod files;
mod furnish;
mod gpus;
mod leftover;
mod login;
mod lookup;
mod mounts;
mod ownership;
mod ready;
mod request;
mod spec;
mod start;
mod step;
mod stop;
pub mod together;

pub use adopt::{AdoptError, adopt};
pub use alike::other_image;
pub use entrypoint::exported;
pub use leftover::reap;
pub use mounts::{MountError, Origin};
pub use request::{JobFacts, Request, RequestError, StepFacts};
pub use spec::devices;
pub use start::{StartError, start};
pub use step::{StepError, awaited, doom, enter, is_doomed, leave, wait_for_others};
pub use stop::{StopError, stop};

//! A task joins its job's container, or its step's: where it runs, what it waits for, its privileges, its
//! environment, and the directory in which it starts.
//!
//! All of it runs as root in the forked child that becomes the task (`task_init_privileged`), except for the
//! environment and the directory, which are set when that child has become the user (`task_init`).

mod adoption;
mod decide;
mod directory;
pub mod display;
pub mod environment;
mod error;
mod join;
mod step;
mod trial;

pub use adoption::wait_for_adoption;
pub use decide::{Place, ask_slurmctld, compare_images, decide, fail_if_prolog_failed};
pub use directory::enter_directory;
pub use error::TaskError;
pub use join::{has_entered, join};
pub use step::{Layout, Step, StepKind};
pub use trial::{Done, Stage, try_start};

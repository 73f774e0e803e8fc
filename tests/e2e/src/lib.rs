//! The framework of the end-to-end tests: the lab's nodes and users, Slurm's commands and jobs, and the check
//! whether anything is left of them.
//!
//! Needs a lab with the plugin installed: `ci/lab up`, `ci/lab install FILE.so`. A test begins with
//! [`Lab::get`], or with [`Lab::alone`] when it disturbs others, and ends with [`Lab::assert_clean`].

mod built;
mod churn;
mod clean;
mod command;
mod entry;
mod faults;
mod job;
mod lab;
mod poll;
mod quick;
mod random;
mod silent;
mod site;
mod stopped;
mod view;

pub use built::{Built, compiled};
pub use churn::{Churn, Report};
pub use command::{Command, Outcome};
pub use faults::Fault;
pub use job::Job;
pub use lab::{IMAGE, Lab, MACHINES, NODES, Node, User, image, no_sshd};
pub use poll::poll;
pub use quick::quick_jobs;
pub use silent::SilentRegistry;
pub use stopped::assert_stopped_start_is_adopted;
pub use view::{View, view, views};

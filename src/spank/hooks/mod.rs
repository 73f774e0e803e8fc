//! The hooks: each reads its input, calls plain code, and maps the result. A file for each kind of process that Slurm
//! calls them in.

mod client;
mod het_job;
mod init;
mod input;
mod job;
mod output;
mod slurmd;
mod step;
mod step_layout;
mod task_as_root;
mod task_as_user;
mod task_state;

pub(super) use client::check_options;
pub(super) use init::init;
pub(super) use job::{adopt, epilog, prolog};
pub(super) use step::{leave, watch_end};
pub(super) use task_as_root::join;
pub(super) use task_as_user::{become_task, has_work_as_user};

//! The hooks: each reads its input, calls plain code, and maps the result. A file for each kind of process that Slurm
//! calls them in.

mod client;
mod components;
mod init;
mod input;
mod node;
mod output;
mod own_step;
mod slurmd;
mod task;
mod task_as_user;

pub(super) use client::check_options;
pub(super) use init::init;
pub(super) use node::{adopt, epilog, prolog};
pub(super) use own_step::leave;
pub(super) use task::join;
pub(super) use task_as_user::{become_task, has_work_as_user};

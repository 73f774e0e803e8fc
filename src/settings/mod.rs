//! The input of users and admins, parsed once and validated: options, the arguments in plugstack.conf, names of images, mounts.
//!
//! Pure: no code here reads the node's state.
#![forbid(unsafe_code)]

pub mod choices;
pub mod image;
pub mod mounts;
pub mod number;
pub mod options;
pub mod plain_path;
pub mod plugstack;
pub mod port_range;
pub mod slurm_commands;

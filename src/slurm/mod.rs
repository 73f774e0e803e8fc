//! What Slurm itself offers besides the SPANK interface: its commands, its releases, its list of plugins, its processes on a node.

pub mod command_line;
pub mod commands;
pub mod conf;
pub mod own_arguments;
pub mod plugstack;
pub mod release;
pub mod report;
pub mod stepd;

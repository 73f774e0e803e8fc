//! The parts of Slurm besides the SPANK interface: its commands, its releases, its list of plugins, its
//! processes on a node.

pub mod command;
pub mod conf;
pub mod cpu_binding;
pub mod env_protocol;
pub mod failure_report;
pub mod gres;
pub mod hostlist;
pub mod ids;
pub mod image_comment;
pub mod node_addresses;
pub mod plugin_order;
pub mod private_dirs;
pub mod release;
pub mod scontrol;
pub mod scontrol_output;
pub mod shell_state;
pub mod slurmd_arguments;
pub mod srun_arguments;
pub mod step_layout;
pub mod stepd;
pub mod task_layout;

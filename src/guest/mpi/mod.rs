//! MPI in the containers: the job's nodes and tasks in the launchers' formats, and the environment that makes launchers use
//! ssh.

pub mod environment;
pub mod hostfile;
pub mod interfaces;
pub mod launcher;
pub mod networks;
pub mod parameters;
pub mod ucx;

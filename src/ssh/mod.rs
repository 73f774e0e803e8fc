//! The job's private ssh: keys that every node derives alike, sshd in the container, and the clients' configuration.

pub mod client;
pub mod force_command;
pub mod keys;
pub mod server;

//! System calls that the standard library does not offer: mounts by descriptor, namespaces, process identity, paths that cannot
//! leave a container. Every `unsafe` block of the plugin is here or in `spank`.

pub mod affinity;
pub mod cgroup;
pub mod closed;
pub mod companion;
pub mod environment;
pub mod errand;
pub mod hosts_file;
pub mod identity;
pub mod inside;
#[cfg(test)]
pub(crate) mod lacking;
pub mod listener;
pub mod load;
pub mod lock;
pub mod mount;
pub mod mountinfo;
pub mod namespace;
pub mod oom;
pub mod orphan;
pub mod peer;
pub mod placeholder;
pub mod plain_file;
pub mod poll;
pub mod privilege;
pub mod process;
pub mod removal;
pub mod resolve;
pub mod rights;
pub mod runtime;
pub mod sentinel;
pub mod signals;
mod sock_diag;
pub mod source;
pub mod terminals;
pub mod tree;
pub mod unstopped;

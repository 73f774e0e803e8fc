//! spank-docker on whole machines, `ci/vm`: what needs a kernel of its own, systemd, cgroup v2 and root without limits.
//! With the plugin's default settings. Run by `ci/vm test`, and by nothing else.

mod adoption;
mod cluster;
mod devices;
mod limits;
mod rdma;
mod restarts;

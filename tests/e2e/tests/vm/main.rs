//! The tests of spank-docker on virtual machines, `ci/vm`: those that need a kernel of their own, systemd,
//! cgroup v2 and a root with all capabilities. They use the plugin's default settings. Only `ci/vm test` runs
//! them.

mod adoption;
mod cluster;
mod devices;
mod limits;
mod rdma;
mod restarts;
mod storage;

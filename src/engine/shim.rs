//! The process with which containerd watches a container (its shim), where the plugin has to end it:
//!
//! - After a failed start. A container's user can kill its first process between its creation and its start. Then the shim, a
//!   process of root, stays for good, with cgroups and directories: Docker before 25.0 requests the task's deletion while the task
//!   still counts as created, which containerd refuses (`task must be stopped before deletion`), and then forgets it (moby,
//!   daemon/start.go: `Delete`, from v25.0.0 on `ForceDelete`).
//! - At a removal that hangs, since the shim does. That of containerd 1.6 stops for good when very many processes of a container
//!   end while it runs one in it, such as an ENTRYPOINT: whatever it runs is locked until it has begun (pkg/process/exec.go:
//!   `start`), the next exit is handled only with that lock (runtime/v2/runc/v2/service.go: `checkProcesses`), and that it has
//!   begun is known from an exit, which waits in the same queue.
//!
//! Runs as root where the plugin starts or removes a container.

use std::io;

use crate::linux::process::{self, Process};

/// The beginning of the program's name; it differs only in the version.
const PROGRAM: &str = "containerd-shim";

/// Ends the shim of a container, if there is one: containerd notices, and cleans up after it
/// (runtime/v2: `cleanupAfterDeadShim`).
pub(super) fn end(container_id: &str) -> io::Result<()> {
    let shims = process::all()?.filter_map(|pid| Process::find(pid).ok());
    for shim in shims.filter(|process| is_shim_of(process, container_id)) {
        // The process may have ended already.
        let _ = shim.kill();
    }
    Ok(())
}

fn is_shim_of(process: &Process, container_id: &str) -> bool {
    let arguments = process.arguments_of_root();
    arguments.is_ok_and(|found| found.is_some_and(|arguments| names(&arguments, container_id)))
}

fn names(arguments: &[u8], container_id: &str) -> bool {
    let arguments: Vec<&[u8]> = arguments.split(|byte| *byte == 0).collect();
    let program = arguments.first().and_then(|program| program.rsplit(|byte| *byte == b'/').next());
    program.is_some_and(|program| program.starts_with(PROGRAM.as_bytes()))
        && arguments.windows(2).any(|pair| pair == [b"-id", container_id.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shim_is_known_by_its_program_and_its_container() {
        let of = |program: &str, id: &str| {
            format!("{program}\0-namespace\0moby\0-id\0{id}\0-address\0/run/containerd/containerd.sock\0")
        };
        let program = "/usr/bin/containerd-shim-runc-v2";
        assert!(names(of(program, "0a1b").as_bytes(), "0a1b"));
        assert!(!names(of(program, "0a1b").as_bytes(), "0a"));
        assert!(!names(of("/usr/bin/other", "0a1b").as_bytes(), "0a1b"));
        assert!(!names(b"containerd-shim-runc-v2\0-namespace\0moby\0-id\0a\0", "0a1b"));
        assert!(!names(b"", ""));
    }
}

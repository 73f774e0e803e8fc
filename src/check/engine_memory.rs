//! How much memory the engine may use. Docker Engine keeps the configuration of an image that it pulls in
//! memory, however much a registry sends (moby, distribution/pull_v2.go, `pullSchema2Config`), and users choose
//! the registry. Measured with 20.10 and 26.1: 300 MiB more each second. Podman reads 4 MiB at most
//! (containers/image, internal/iolimits).

use std::io;

use super::finding::Finding;
use super::processes;
use crate::linux::cgroup;

const NAME: &str = "engine_memory";
/// The daemon that reads image configurations.
const DAEMON: &str = "dockerd";

pub(super) fn check() -> Finding {
    let daemons = processes::of_names(&[DAEMON]);
    if daemons.is_empty() {
        return Finding::warn(
            NAME,
            format!("{DAEMON} is not running here: make sure that its memory is limited"),
        );
    }
    let limits: io::Result<Vec<_>> = daemons.iter().map(|daemon| cgroup::memory_limit(daemon.pid)).collect();
    // Where several daemons run, each may be the one that serves the plugin: the largest limit counts.
    judge(limits.map(|limits| limits.into_iter().max_by_key(|limit| limit.unwrap_or(u64::MAX)).flatten()))
}

fn judge(limit: io::Result<Option<u64>>) -> Finding {
    match limit {
        Ok(Some(bytes)) => Finding::ok(NAME, format!("{DAEMON} may use {} MiB", bytes >> 20)),
        Ok(None) => Finding::warn(
            NAME,
            format!(
                "{DAEMON} may use all memory of the node for what a user's registry sends: set MemoryMax= in its service"
            ),
        ),
        Err(error) => Finding::warn(
            NAME,
            format!("{DAEMON}'s cgroups cannot be read ({error}): make sure that its memory is limited"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_without_a_limit_is_warned_of() {
        assert_eq!(judge(Ok(Some(4 << 30))).to_string(), "ok   engine_memory: dockerd may use 4096 MiB");
        assert!(
            judge(Ok(None))
                .to_string()
                .starts_with("warn engine_memory: dockerd may use all memory of the node ")
        );
        assert!(judge(Err(io::ErrorKind::NotFound.into())).to_string().starts_with("warn"));
    }
}

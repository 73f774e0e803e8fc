//! The device nodes that every container gets, and network devices that should have device nodes but have none.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::finding::Finding;
use crate::container;
use crate::settings::plugstack::Devices;

const NAME: &str = "devices";
const INFINIBAND: &str = "/sys/class/infiniband";
/// Read and write permission for owner, group and others.
const EVERYBODY: u32 = 0o666;

pub(super) fn check(configured: &Devices) -> Finding {
    let found = container::devices(configured);
    let closed =
        |path: &&PathBuf| std::fs::metadata(path).is_ok_and(|node| node.mode() & EVERYBODY != EVERYBODY);
    let closed: Vec<_> = found.iter().filter(closed).cloned().collect();
    let adapters = std::fs::read_dir(INFINIBAND).into_iter().flatten().flatten();
    let adapters: Vec<_> = adapters.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    judge(configured, &found, &closed, &adapters)
}

fn judge(configured: &Devices, found: &[PathBuf], closed: &[PathBuf], adapters: &[String]) -> Finding {
    let names = |paths: &[PathBuf]| {
        paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    };
    let verbs = |path: &PathBuf| path.starts_with("/dev/infiniband");
    match configured {
        Devices::None => Finding::ok(NAME, "none, as configured"),
        Devices::Auto if !adapters.is_empty() && !found.iter().any(verbs) => Finding::warn(
            NAME,
            format!(
                "found an InfiniBand adapter ({}), but no /dev/infiniband/uverbs*: load ib_uverbs and rdma_ucm",
                adapters.join(", ")
            ),
        ),
        Devices::Globs(patterns) if found.is_empty() => {
            let patterns: Vec<_> = patterns.iter().map(glob::Pattern::as_str).collect();
            let patterns = patterns.join(",");
            Finding::warn(NAME, format!("none of '{patterns}' exists: load the driver, or correct devices="))
        }
        Devices::Auto | Devices::Globs(_) if !closed.is_empty() => {
            let text = format!("not all users may open {}: chmod 0666 if they should", names(closed));
            Finding::warn(NAME, text)
        }
        Devices::Auto if found.is_empty() => {
            Finding::ok(NAME, "no devices of a high-speed network on this node")
        }
        Devices::Auto | Devices::Globs(_) => Finding::ok(NAME, names(found)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_or_closed_devices_are_reported() {
        let judged = |configured: &Devices, found: &[&str], closed: &[&str], adapters: &[&str]| {
            let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
            let adapters: Vec<_> = adapters.iter().map(|name| (*name).to_owned()).collect();
            judge(configured, &paths(found), &paths(closed), &adapters).to_string()
        };
        let uverbs = "/dev/infiniband/uverbs0";
        let globs = Devices::Globs(vec![glob::Pattern::new("/dev/nvidia*").unwrap()]);
        assert_eq!(judged(&Devices::None, &[], &[], &["mlx5_0"]), "ok   devices: none, as configured");
        assert_eq!(
            judged(&Devices::Auto, &[], &[], &[]),
            "ok   devices: no devices of a high-speed network on this node"
        );
        assert_eq!(
            judged(&Devices::Auto, &[uverbs, "/dev/knem"], &[], &["mlx5_0"]),
            "ok   devices: /dev/infiniband/uverbs0, /dev/knem"
        );
        assert_eq!(
            judged(&Devices::Auto, &["/dev/knem"], &[], &["mlx5_0"]),
            "warn devices: found an InfiniBand adapter (mlx5_0), but no /dev/infiniband/uverbs*: load ib_uverbs and rdma_ucm"
        );
        assert_eq!(
            judged(&globs, &[], &[], &[]),
            "warn devices: none of '/dev/nvidia*' exists: load the driver, or correct devices="
        );
        assert_eq!(
            judged(&Devices::Auto, &[uverbs], &[uverbs], &[]),
            "warn devices: not all users may open /dev/infiniband/uverbs0: chmod 0666 if they should"
        );
    }
}

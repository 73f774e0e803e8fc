//! Whether the engine's disk can limit what a container writes.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::finding::Finding;
use crate::linux::mountinfo::{self, Mounted};
use crate::log::escape::Escaped;

const NAME: &str = "storage_size";

/// `root` is the directory that the engine reports.
pub(super) fn check(root: &Path) -> Finding {
    match fs::read("/proc/self/mountinfo") {
        Ok(mounts) => judge(root, mountinfo::parse(&mounts)),
        Err(error) => Finding::fail(NAME, format!("cannot read this node's mounts ({error}): mount /proc")),
    }
}

/// The engine's overlay2 keeps to a limit on xfs with project quotas alone (moby's daemon/graphdriver/overlay2/overlay.go,
/// `Init`), and so do its volumes (volume/local). The kernel shows `pquota` as `prjquota` (fs/xfs/xfs_super.c).
fn judge(root: &Path, mounts: impl Iterator<Item = Mounted>) -> Finding {
    let shown = Escaped::from(root);
    // Of several mounts above it the longest one; of several at one place the last one.
    let Some(mount) = mounts
        .filter(|mount| root.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.as_os_str().len())
    else {
        return Finding::fail(
            NAME,
            format!("'{shown}' is on no file system of this node: run this on the node"),
        );
    };
    let mut options = mount.options.as_bytes().split(|byte| *byte == b',');
    if mount.kind == "xfs" && options.any(|option| option == b"prjquota") {
        return Finding::ok(NAME, format!("'{shown}' is on xfs with project quotas"));
    }
    let kind = Escaped::from(mount.kind.as_os_str());
    let text = format!(
        "'{shown}' is on {kind} without project quotas, so no container starts: put it on xfs, mounted with pquota"
    );
    Finding::fail(NAME, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_xfs_with_project_quotas_keeps_a_limit() {
        let judged = |mounts: &str| {
            judge(Path::new("/var/lib/docker"), mountinfo::parse(mounts.as_bytes())).to_string()
        };
        let root = "1 0 8:1 / / rw - ext4 /dev/a rw\n";
        let at = |point: &str, kind: &str, options: &str| {
            format!("{root}2 1 8:2 / {point} rw - {kind} /dev/b {options}\n")
        };
        let good = "ok   storage_size: '/var/lib/docker' is on xfs with project quotas";
        assert_eq!(judged(&at("/var/lib/docker", "xfs", "rw,prjquota")), good);
        assert_eq!(judged(&at("/var", "xfs", "rw,usrquota,prjquota,grpquota")), good);
        for (mounts, kind) in [
            (root.to_owned(), "ext4"),
            (at("/var/lib/dock", "xfs", "rw,prjquota"), "ext4"),
            (at("/var/lib", "xfs", "rw,noquota"), "xfs"),
            (at("/var/lib", "ext4", "rw,prjquota"), "ext4"),
            (
                format!("{}3 2 8:3 / /var/lib rw - tmpfs c rw\n", at("/var/lib", "xfs", "rw,prjquota")),
                "tmpfs",
            ),
        ] {
            let text = format!(
                "fail storage_size: '/var/lib/docker' is on {kind} without project quotas, so no container starts: \
                 put it on xfs, mounted with pquota"
            );
            assert_eq!(judged(&mounts), text);
        }
    }
}

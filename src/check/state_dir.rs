//! The directory of the plugin's records: owned by root, on a local file system that is writable and has free
//! space.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{FsType, statfs};
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};

use super::finding::Finding;
use crate::log::escape::Escaped;

const NAME: &str = "state_dir";
/// Space for the records of a few hundred jobs.
const ENOUGH: u64 = 16 << 20;

/// File systems that several nodes share, or that a user's program may serve: magic number and name.
const SHARED: [(i64, &str); 11] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x1983_0326, "BeeGFS"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x0102_1997, "9p"),
    (0x6573_5546, "FUSE"),
];

/// The facts about the directory.
#[derive(Debug)]
struct StateDirFacts {
    /// The directory itself, or the nearest directory above it that exists.
    nearest: PathBuf,
    /// The first directory, from `/` down, that users other than root can change.
    open: Option<PathBuf>,
    /// The name of its file system, if that is one of [`SHARED`].
    shared: Option<&'static str>,
    /// Whether root may write there.
    write: Result<(), io::Error>,
    /// Free bytes.
    free: u64,
}

pub(super) fn check(path: &Path) -> Finding {
    match inspect(path) {
        Ok(facts) => judge(path, &facts),
        Err(error) => Finding::fail(
            NAME,
            format!("'{}' cannot be inspected ({error}): name another", Escaped::from(path)),
        ),
    }
}

fn inspect(path: &Path) -> io::Result<StateDirFacts> {
    let there: Vec<&Path> = path.ancestors().filter(|path| path.exists()).collect();
    let nearest = there.first().copied().unwrap_or(Path::new("/"));
    let is_open = |directory: &&Path| {
        let Ok(metadata) = std::fs::metadata(directory) else { return true };
        // In a sticky directory no other user can replace a directory of root's.
        let sticky = *directory != path && metadata.mode() & 0o1000 != 0;
        metadata.uid() != 0 || (metadata.mode() & 0o022 != 0 && !sticky)
    };
    let FsType(magic) = statfs(nearest)?.filesystem_type();
    let space = statvfs(nearest)?;
    Ok(StateDirFacts {
        nearest: nearest.to_owned(),
        open: there.iter().rev().copied().find(is_open).map(Path::to_owned),
        shared: SHARED.iter().find(|(number, _)| *number == magic).map(|(_, name)| *name),
        write: access(nearest, AccessFlags::W_OK | AccessFlags::X_OK).map_err(io::Error::from),
        free: space.blocks_available() * space.fragment_size(),
    })
}

fn judge(path: &Path, facts: &StateDirFacts) -> Finding {
    let shown = Escaped::from(path);
    if !facts.nearest.is_dir() {
        return Finding::fail(
            NAME,
            format!("'{}' is not a directory: name another", Escaped::from(facts.nearest.as_path())),
        );
    }
    if let Some(open) = &facts.open {
        let open = Escaped::from(open.as_path());
        return Finding::fail(
            NAME,
            format!("'{open}' can be changed by non-root users: chown root, chmod 0755"),
        );
    }
    if let Some(kind) = facts.shared {
        return Finding::fail(
            NAME,
            format!("'{shown}' is on {kind}: use a local directory of this node, such as /run/spank-docker"),
        );
    }
    if let Err(error) = &facts.write {
        return Finding::fail(
            NAME,
            format!("'{shown}' cannot be written to ({error}): remount it, or name another"),
        );
    }
    if facts.free < ENOUGH {
        let megabytes = facts.free >> 20;
        return Finding::warn(NAME, format!("'{shown}' has only {megabytes} MiB left: free disk space"));
    }
    let there = if facts.nearest == path { "" } else { ", created by the first job" };
    Finding::ok(NAME, format!("'{shown}'{there}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::lacking;

    fn facts() -> StateDirFacts {
        StateDirFacts { nearest: "/tmp".into(), open: None, shared: None, write: Ok(()), free: ENOUGH }
    }

    fn judged(facts: &StateDirFacts) -> String {
        judge(Path::new("/tmp/x"), facts).to_string()
    }

    #[test]
    fn each_fault_of_state_dir_is_reported() {
        assert_eq!(judged(&facts()), "ok   state_dir: '/tmp/x', created by the first job");
        assert_eq!(judge(Path::new("/tmp"), &facts()).to_string(), "ok   state_dir: '/tmp'");
        assert_eq!(
            judged(&StateDirFacts { nearest: "/proc/version".into(), ..facts() }),
            "fail state_dir: '/proc/version' is not a directory: name another"
        );
        assert_eq!(
            judged(&StateDirFacts { open: Some("/tmp".into()), ..facts() }),
            "fail state_dir: '/tmp' can be changed by non-root users: chown root, chmod 0755"
        );
        assert_eq!(
            judged(&StateDirFacts { shared: Some("NFS"), ..facts() }),
            "fail state_dir: '/tmp/x' is on NFS: use a local directory of this node, such as /run/spank-docker"
        );
        assert_eq!(
            judged(&StateDirFacts { write: Err(io::Error::from_raw_os_error(libc::EROFS)), ..facts() }),
            "fail state_dir: '/tmp/x' cannot be written to (Read-only file system (os error 30)): remount it, or name another"
        );
        assert_eq!(
            judged(&StateDirFacts { free: 4096, ..facts() }),
            "warn state_dir: '/tmp/x' has only 0 MiB left: free disk space"
        );
    }

    #[test]
    fn a_directory_that_others_can_change_is_found_on_the_way() {
        if lacking::root() {
            return;
        }
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let facts = inspect(&directory.path().join("a/b")).unwrap();
        assert_eq!(facts.nearest, directory.path());
        assert_eq!(facts.open.as_deref(), Some(directory.path()));
    }
}

//! How much memory the cgroups of a process leave it.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::hierarchy::{Membership, Mounts};

/// The value for "no limit" with cgroup v1: the largest number of bytes in whole pages, for any page size.
const NONE: u64 = i64::MAX as u64 >> 20 << 20;

/// The lowest limit of memory that holds for a process, in bytes; `None` without a limit.
pub fn memory_limit(pid: i32) -> io::Result<Option<u64>> {
    let mountinfo = fs::read("/proc/self/mountinfo")?;
    let membership = fs::read(format!("/proc/{pid}/cgroup"))?;
    limit(&mountinfo, &membership)
}

fn limit(mountinfo: &[u8], membership: &[u8]) -> io::Result<Option<u64>> {
    let mounts = Mounts::parse(mountinfo);
    let mut lowest = None;
    for group in Membership::all(membership) {
        let Some(file) = group.file_of_memory() else { continue };
        // A hierarchy that is not mounted has no limits: on such a machine the other version of cgroups has
        // them.
        let Some((top, directory)) = mounts.directory(&group) else { continue };
        for directory in directory.ancestors().take_while(|above| above.starts_with(&top)) {
            let limit = read(&directory.join(file))?;
            lowest = [lowest, limit].into_iter().flatten().min();
        }
    }
    Ok(lowest)
}

fn read(path: &Path) -> io::Result<Option<u64>> {
    match fs::read_to_string(path) {
        Ok(text) if text.trim() == "max" => Ok(None),
        Ok(text) => {
            let bytes: u64 = text.trim().parse().map_err(io::Error::other)?;
            Ok(Some(bytes).filter(|bytes| *bytes < NONE))
        }
        // The root cgroup has no such file; neither has cgroup v2 where v1 controls memory.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_on_the_way_up_holds() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().display();
        fs::create_dir_all(top.path().join("a.slice/b.service")).unwrap();
        let write = |file: &str, text: &str| fs::write(top.path().join(file), text).unwrap();
        let v2 = format!("33 24 0:29 / {path} rw - cgroup2 cgroup2 rw");
        let v2 = || limit(v2.as_bytes(), b"0::/a.slice/b.service\n").unwrap();
        assert_eq!(v2(), None);
        write("a.slice/b.service/memory.max", "max\n");
        write("a.slice/memory.max", "4294967296\n");
        assert_eq!(v2(), Some(4 << 30));
        write("a.slice/b.service/memory.max", "1073741824\n");
        assert_eq!(v2(), Some(1 << 30));
        let v1 = format!("30 24 0:26 / {path} rw,nosuid - cgroup cgroup rw,memory");
        let v1 = || limit(v1.as_bytes(), b"4:memory:/a.slice\n3:pids:/a.slice\n0::/a.slice\n").unwrap();
        for none in ["9223372036854771712\n", "9223372036854710272\n"] {
            write("a.slice/memory.limit_in_bytes", none);
            assert_eq!(v1(), None, "{none}");
        }
        write("memory.limit_in_bytes", "4096\n");
        assert_eq!(v1(), Some(4096));
        write("memory.limit_in_bytes", "-\n");
        let v1 = format!("30 24 0:26 / {path} rw,nosuid - cgroup cgroup rw,memory");
        assert!(limit(v1.as_bytes(), b"4:memory:/a.slice\n").is_err());
    }
}

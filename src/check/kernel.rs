//! The kernel: the system calls without which no container can be made safe. The check tries them, because a
//! version number does not show what a distribution has backported or disabled.

use std::fs::File;
use std::io;
use std::path::Path;

use super::finding::Finding;
use crate::linux::inside::ContainerRoot;
use crate::linux::mount::{self, Attributes};

const NAME: &str = "kernel";

pub(super) fn check() -> Finding {
    let release = setting("kernel/osrelease");
    let release = release.as_deref().unwrap_or("of unknown release");
    match judge_dumpable(release, setting("fs/suid_dumpable").as_deref()) {
        Some(finding) => finding,
        None => judge(release, attempt()),
    }
}

fn setting(name: &str) -> Option<String> {
    Some(std::fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?.trim().to_owned())
}

/// With the value 1, a program that its user may not read is as accessible to that user's processes as any
/// other: so is the first process of a container before it is hardened.
fn judge_dumpable(release: &str, value: Option<&str>) -> Option<Finding> {
    let text = format!(
        "Linux {release}: fs.suid_dumpable is 1, which makes containers' first processes accessible to their users: no container starts, set it to 0 or 2"
    );
    (value == Some("1")).then(|| Finding::fail(NAME, text))
}

/// Makes the calls that containers need, on a detached copy of a mount, so that nothing changes.
fn attempt() -> Result<(), (&'static str, io::Error)> {
    ContainerRoot::current()
        .and_then(|root| root.find(Path::new("/proc")))
        .map_err(|error| ("openat2", error))?;
    let tree = File::open("/")
        .and_then(|root| mount::detached_copy(root, false))
        .map_err(|error| ("open_tree", error))?;
    let attributes = Attributes::NOSUID.and(Attributes::NODEV);
    mount::change(tree, false, attributes, Attributes::NONE).map_err(|error| ("mount_setattr", error))
}

fn judge(release: &str, attempt: Result<(), (&'static str, io::Error)>) -> Finding {
    match attempt {
        Ok(()) => Finding::ok(NAME, format!("Linux {release} can make mounts nosuid and nodev")),
        Err((call, error)) if error.raw_os_error() == Some(libc::ENOSYS) => Finding::fail(
            NAME,
            format!("Linux {release} has no {call}: containers cannot be secured, use 5.12 or later"),
        ),
        Err((call, error)) => Finding::fail(
            NAME,
            format!("Linux {release}: {call} fails ({error}): run this as root, outside of containers"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suid_dumpable_of_1_is_reported() {
        let text = "fail kernel: Linux 6.1.0: fs.suid_dumpable is 1, which makes containers' first processes accessible to their users: no container starts, set it to 0 or 2";
        assert_eq!(
            judge_dumpable("6.1.0", Some("1")).map(|finding| finding.to_string()).as_deref(),
            Some(text)
        );
        for value in [Some("0"), Some("2"), None] {
            assert!(judge_dumpable("6.1.0", value).is_none(), "{value:?}");
        }
    }

    #[test]
    fn old_kernel_is_reported_with_the_missing_call() {
        let old = judge("5.10.0", Err(("mount_setattr", io::Error::from_raw_os_error(libc::ENOSYS))));
        assert_eq!(
            old.to_string(),
            "fail kernel: Linux 5.10.0 has no mount_setattr: containers cannot be secured, use 5.12 or later"
        );
        let refused = judge("6.1.0", Err(("open_tree", io::Error::from_raw_os_error(libc::EPERM))));
        assert_eq!(
            refused.to_string(),
            "fail kernel: Linux 6.1.0: open_tree fails (Operation not permitted (os error 1)): run this as root, outside of containers"
        );
        assert_eq!(
            judge("6.1.0", Ok(())).to_string(),
            "ok   kernel: Linux 6.1.0 can make mounts nosuid and nodev"
        );
    }
}

//! Where the engine keeps images and containers: closed to users, and with free space.
//!
//! An image may hold a setuid-root program. In a container that program gives no rights; executed by its path
//! on the host it would. And users must not read the layers of other users' private images.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

use super::finding::Finding;
use crate::linux::closed;
use crate::log::escape::Escaped;

const NAME: &str = "engine_data";
/// Free bytes for a small image.
const ENOUGH: u64 = 2 << 30;
/// Free inodes for a small image.
const ENOUGH_FILES: u64 = 50_000;
/// The directory of a containerd that dockerd did not start. Before 1.7.29 its own mode lets all users pass
/// (CVE-2024-25621).
const CONTAINERD: &str = "/var/lib/containerd";

/// `root` is the directory that the engine reports.
pub(super) fn check(root: &Path) -> Vec<Finding> {
    let mut directories = vec![root.to_owned()];
    match containerds(Path::new(CONTAINERD)) {
        Ok(more) => directories.extend(more),
        Err(error) => return vec![unknown(Path::new(CONTAINERD), &error)],
    }
    let reach = directories.iter().find_map(|path| match is_closed(path) {
        Ok(true) => None,
        Ok(false) => Some(open(path)),
        Err(error) => Some(unknown(path, &error)),
    });
    let reach = reach.unwrap_or_else(|| {
        Finding::ok(NAME, format!("users cannot reach images in '{}'", Escaped::from(root)))
    });
    vec![reach, room(root)]
}

/// Whether `root` keeps users away from the files of images and containers: it is closed itself, or each directory in it is.
/// Podman closes only the latter in a `graphroot` that an admin has made; the files beside them are its own (locks, a
/// database), hold nothing of an image, and may be readable by all.
fn is_closed(root: &Path) -> io::Result<bool> {
    if closed::to_users(root)? {
        return Ok(true);
    }
    let mut is_closed = true;
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        is_closed &= !entry.file_type()?.is_dir() || closed::to_users(&entry.path())?;
    }
    Ok(is_closed)
}

/// The directories in containerd's root that hold the content of images.
fn containerds(root: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let holds_images = |path: &PathBuf| {
        let name = path.to_string_lossy();
        name.contains(".content.") || name.contains(".snapshotter.")
    };
    Ok(paths?.into_iter().filter(holds_images).collect())
}

fn open(path: &Path) -> Finding {
    let text = format!(
        "users can reach '{}', which holds images of other users and setuid-root programs of images: chmod 0710, or update the engine",
        Escaped::from(path)
    );
    Finding::fail(NAME, text)
}

fn unknown(path: &Path, error: &io::Error) -> Finding {
    let path = Escaped::from(path);
    Finding::fail(NAME, format!("'{path}' cannot be inspected ({error}): run this on the node, as root"))
}

fn room(root: &Path) -> Finding {
    match statvfs(root) {
        Ok(space) => judge_room(
            root,
            space.blocks_available() * space.fragment_size(),
            // Some file systems do not count inodes.
            (space.files() > 0).then(|| space.files_available()),
        ),
        Err(error) => Finding::fail("engine_room", format!("'{}': {error}: mount it", Escaped::from(root))),
    }
}

fn judge_room(root: &Path, free: u64, files: Option<u64>) -> Finding {
    const NAME: &str = "engine_room";
    let shown = Escaped::from(root);
    if free < ENOUGH {
        let text = format!("'{shown}' has only {} MiB left: remove images, or free disk space", free >> 20);
        return Finding::warn(NAME, text);
    }
    match files {
        Some(files) if files < ENOUGH_FILES => Finding::warn(
            NAME,
            format!("'{shown}' has inodes left for only {files} files: remove images, or free disk space"),
        ),
        _ => Finding::ok(NAME, format!("'{shown}' has {} GiB left", free >> 30)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::linux::lacking;

    #[test]
    fn directories_of_containerd_with_images_are_found() {
        let directory = tempfile::tempdir().unwrap();
        for name in
            ["io.containerd.content.v1.content", "io.containerd.snapshotter.v1.overlayfs", "tmpmounts"]
        {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        assert_eq!(containerds(directory.path()).unwrap().len(), 2);
        assert_eq!(containerds(Path::new("/nowhere")).unwrap().len(), 0);
    }

    #[test]
    fn directory_is_closed_itself_or_all_that_are_in_it_are() {
        if lacking::root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let (root, mode) = (directory.path(), |mode| fs::Permissions::from_mode(mode));
        fs::write(root.join("storage.lock"), "").unwrap();
        let judged = |own, below| {
            for name in ["overlay", "volumes"] {
                let path = root.join(name);
                fs::create_dir_all(&path).unwrap();
                fs::set_permissions(path, mode(if name == "volumes" { below } else { 0o700 })).unwrap();
            }
            fs::set_permissions(root, mode(own)).unwrap();
            is_closed(root).unwrap()
        };
        assert!(judged(0o710, 0o701) && judged(0o755, 0o700));
        assert!(!judged(0o755, 0o701));
        is_closed(Path::new("/nowhere")).unwrap_err();
    }

    #[test]
    fn room_is_bytes_and_files() {
        let judged = |free, files| judge_room(Path::new("/d"), free, files).to_string();
        assert_eq!(judged(9 << 30, None), "ok   engine_room: '/d' has 9 GiB left");
        assert_eq!(
            judged(1 << 20, None),
            "warn engine_room: '/d' has only 1 MiB left: remove images, or free disk space"
        );
        assert_eq!(
            judged(9 << 30, Some(7)),
            "warn engine_room: '/d' has inodes left for only 7 files: remove images, or free disk space"
        );
    }
}

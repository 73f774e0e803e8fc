//! Whether users of the host can reach a directory. Runs as root.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Whether only root and the members of a directory's group can reach it: the directory, or one above it, is
/// owned by root and closed to others.
pub fn to_users(directory: &Path) -> io::Result<bool> {
    for path in directory.ancestors() {
        let metadata = fs::metadata(path)?;
        if metadata.uid() == 0 && metadata.mode() & 0o001 == 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::lacking;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_directory_is_closed_there_or_above() {
        if lacking::root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let (above, below) = (directory.path().join("docker"), directory.path().join("docker/overlay2"));
        fs::create_dir_all(&below).unwrap();
        let judged = |modes: [u32; 3]| {
            for (path, mode) in [directory.path(), &above, &below].into_iter().zip(modes) {
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            }
            to_users(&below).unwrap()
        };
        assert!(
            judged([0o755, 0o710, 0o755]) && judged([0o755, 0o711, 0o700]) && judged([0o700, 0o755, 0o755])
        );
        assert!(!judged([0o755, 0o711, 0o711]) && !judged([0o755, 0o701, 0o755]));
        std::os::unix::fs::chown(&below, Some(5001), None).unwrap();
        assert!(!judged([0o755, 0o711, 0o700]));
        assert!(to_users(Path::new("/nowhere/docker")).is_err());
    }
}

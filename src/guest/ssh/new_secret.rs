//! `spank-docker secret`: a new secret for the cluster.
//!
//! Runs as root in a program of its own, for an admin.
#![forbid(unsafe_code)]

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::log::escape::Escaped;

/// The length in bytes: twice that of an HMAC-SHA256 key.
pub const LENGTH: usize = 64;
/// Readable for its owner only.
const MODE: u32 = 0o400;

/// Why there is no new secret.
#[derive(Debug, thiserror::Error)]
pub enum NewSecretError {
    /// A secret exists: the admin has to remove it first.
    #[error("'{0}' already exists and was not changed: to replace it, first remove it on all nodes")]
    Exists(Escaped),
    /// The file system refused.
    #[error("cannot create '{path}': {source}")]
    Make {
        /// The secret's path.
        path: Escaped,
        /// Why not.
        source: io::Error,
    },
    /// The kernel returns no random bytes.
    #[error("the kernel returned no random bytes: {0}")]
    Random(getrandom::Error),
}

/// Makes a secret of random bytes, for its owner alone. The final name appears with the complete file or not at all, and never
/// replaces another file.
pub fn make(path: &Path) -> Result<(), NewSecretError> {
    let mut bytes = Zeroizing::new([0; LENGTH]);
    getrandom::fill(bytes.as_mut()).map_err(NewSecretError::Random)?;
    let unfinished = unfinished(path);
    let made = write(&unfinished, bytes.as_ref()).and_then(|()| fs::hard_link(&unfinished, path));
    // Where the file was never created, `made` has the reason.
    let removed = fs::remove_file(&unfinished);
    match made.and(removed) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && fs::symlink_metadata(path).is_ok() => {
            Err(NewSecretError::Exists(path.into()))
        }
        Err(source) => Err(NewSecretError::Make { path: path.into(), source }),
    }
}

/// A temporary name in the same directory, unique to this process.
fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    name.into()
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)?;
    // Independent of the umask.
    file.set_permissions(Permissions::from_mode(MODE))?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn a_new_secret_is_for_its_owner_alone_and_replaces_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        make(&path).unwrap();
        let first = fs::read(&path).unwrap();
        assert_eq!((first.len(), fs::metadata(&path).unwrap().mode() & 0o7777), (LENGTH, MODE));
        let exists = |path: &Path| matches!(make(path), Err(NewSecretError::Exists(_)));
        assert!(exists(&path));
        assert_eq!(fs::read(&path).unwrap(), first);
        let link = directory.path().join("link");
        symlink("/nowhere/secret", &link).unwrap();
        assert!(exists(&link));
        let other = directory.path().join("other");
        make(&other).unwrap();
        assert_ne!(fs::read(&other).unwrap(), first);
        // No unfinished file is left.
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
        assert_eq!(
            make(Path::new("/nowhere/secret")).unwrap_err().to_string(),
            "cannot create '/nowhere/secret': No such file or directory (os error 2)"
        );
    }
}

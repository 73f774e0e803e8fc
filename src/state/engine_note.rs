//! The engine that this node has had last, by its socket: a file in the plugin's place for what outlives a reboot. An engine
//! that is gone differs by it from one that never existed, also where it does not come up with its node. An earlier engine is
//! forgotten: an admin may have moved it.
//!
//! Written and read by root where a hook connects to an engine.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::LASTING;
use super::directory::write_new;

const FILE: &str = "engine";

/// The file of a node.
#[derive(Clone, Debug)]
pub struct EngineNote(PathBuf);

impl Default for EngineNote {
    fn default() -> Self {
        Self::at(Path::new(LASTING))
    }
}

impl EngineNote {
    /// In this directory; it need not exist yet.
    #[must_use]
    pub fn at(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    /// Whether this node has had its engine at `socket`. A file that cannot be read, or is not root's, shows nothing:
    /// what it says can drain the node.
    #[must_use]
    pub fn names(&self, socket: &Path) -> bool {
        let path = self.path();
        let is_roots = fs::symlink_metadata(&path).is_ok_and(|found| found.is_file() && found.uid() == 0);
        is_roots && fs::read(path).is_ok_and(|known| known == socket.as_os_str().as_bytes())
    }

    /// Records that the node has its engine there.
    pub fn note(&self, socket: &Path) -> io::Result<()> {
        if self.names(socket) {
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        let new = self.0.join(format!(".{FILE}.{}", std::process::id()));
        write_new(&new, 0o600, socket.as_os_str().as_bytes())?;
        fs::rename(&new, self.path())
    }

    fn path(&self) -> PathBuf {
        self.0.join(FILE)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::linux::lacking;

    #[test]
    fn last_engine_is_remembered_by_its_socket() {
        if lacking::root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let note = EngineNote::at(&directory.path().join("lib"));
        let [a, b] = ["/run/a", "/run/b"].map(Path::new);
        assert!(!note.names(a));
        for socket in [a, a, b] {
            note.note(socket).unwrap();
            assert!(note.names(socket));
        }
        assert!(!note.names(a));
        assert_eq!(fs::read_dir(&note.0).unwrap().count(), 1);
    }

    #[test]
    fn file_of_somebody_else_shows_nothing() {
        if lacking::root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let note = EngineNote::at(directory.path());
        let socket = Path::new("/run/a");
        let file = directory.path().join("other");
        fs::write(&file, "/run/a").unwrap();
        symlink(&file, note.path()).unwrap();
        assert!(!note.names(socket));
        fs::rename(&file, note.path()).unwrap();
        assert!(note.names(socket));
        std::os::unix::fs::chown(note.path(), Some(1), None).unwrap();
        assert!(!note.names(socket));
    }
}

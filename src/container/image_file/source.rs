//! Opens the file or directory, as the user.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::Path;

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};

use super::error::FileError;

/// What the path leads to.
#[derive(Debug)]
pub(super) enum Source {
    /// An archive.
    Archive(File),
    /// An OCI layout.
    Directory(File),
}

/// Opens it, but no FIFO and no device. A link in /proc leads to an open file of a process.
pub(super) fn open(path: &Path) -> Result<Source, FileError> {
    let file = open_below(None, path).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => FileError::Missing,
        Some(libc::EACCES | libc::EPERM) => FileError::Denied,
        Some(libc::ELOOP | libc::ENXIO) => FileError::Kind,
        _ => error.into(),
    })?;
    let kind = file.metadata()?;
    match (kind.is_file(), kind.is_dir()) {
        (true, _) => Ok(Source::Archive(file)),
        (_, true) => Ok(Source::Directory(file)),
        _ => Err(FileError::Kind),
    }
}

/// Opens a path, in a directory if one is given.
pub(super) fn open_below(directory: Option<&File>, path: &Path) -> io::Result<File> {
    // A FIFO without a writer would block.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let opened = match directory {
        Some(directory) => openat2(directory, path, how),
        None => openat2(AT_FDCWD, path, how),
    };
    Ok(File::from(opened?))
}

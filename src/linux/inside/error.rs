//! Why a place cannot be mounted on: what `container` explains to users and admins. Apart because it is all that callers know of
//! a failed lookup.

use std::io;
use std::path::{Path, PathBuf};

/// Why a place cannot be mounted on.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The target is a directory, but the source is not.
    #[error("it is a directory")]
    IsDirectory,
    /// The target is not a directory, but the source is.
    #[error("it is not a directory")]
    NotDirectory,
    /// The target leads into the container's own system: /proc, /sys or the like.
    #[error("it resolves to a path of the container's own system")]
    System,
    /// The file system of the target does not answer.
    #[error("'{}' does not answer", at.display())]
    Silent {
        /// The path of the lookup.
        at: PathBuf,
    },
    /// The target cannot be looked up.
    #[error("it cannot be looked up")]
    Reach(#[source] io::Error),
    /// The target is missing, and cannot be created.
    #[error("cannot create '{}'", at.display())]
    Make {
        /// The part of the path that is missing.
        at: PathBuf,
        /// Why it cannot be created.
        #[source]
        source: io::Error,
    },
}

pub(super) fn unreachable(error: io::Error, at: &Path) -> PlaceError {
    silent(&error, at).unwrap_or(PlaceError::Reach(error))
}

pub(super) fn unmade(error: io::Error, at: &Path) -> PlaceError {
    silent(&error, at).unwrap_or_else(|| PlaceError::Make { at: at.to_owned(), source: error })
}

fn silent(error: &io::Error, at: &Path) -> Option<PlaceError> {
    (error.raw_os_error() == Some(libc::ETIMEDOUT)).then(|| PlaceError::Silent { at: at.to_owned() })
}

//! Removal of files that another process may have removed already.
#![forbid(unsafe_code)]

use std::io::{self, ErrorKind};

/// A missing file counts as removed: hooks run repeatedly, and concurrently.
pub fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

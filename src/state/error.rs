//! Why there is no usable record.

use std::io;
use std::path::PathBuf;

use crate::slurm::ids::Owner;

/// Grows when a record can no longer be read as the one before: jobs may run while the plugin is replaced.
pub(super) const VERSION: u32 = 2;

/// Why there is no usable record.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file operation failed.
    #[error("state of job {owner}: cannot {action} '{}'", path.display())]
    File {
        /// Whose state.
        owner: Owner,
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Written by another release.
    #[error(
        "state of job {owner} was written by another version of spank_docker ({theirs}, this is {VERSION}): submit the job again"
    )]
    Version {
        /// Whose state.
        owner: Owner,
        /// The version found.
        theirs: u32,
    },
    /// Not a record at all.
    #[error("state of job {owner} cannot be read: submit the job again")]
    Damaged {
        /// Whose state.
        owner: Owner,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// The directory could be changed by others than root.
    #[error("state_dir '{}' must be owned by root and writable only by root", path.display())]
    Unsafe {
        /// The directory.
        path: PathBuf,
    },
}

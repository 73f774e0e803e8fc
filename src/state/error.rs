//! Why there is no usable record.

use std::io;
use std::path::PathBuf;

use crate::log::escape::Escaped;
use crate::slurm::ids::Owner;

/// The version of the record's format. Increased when a new release cannot read the previous one: jobs may run
/// while the plugin is replaced.
pub(super) const VERSION: u32 = 2;

/// Why there is no usable record.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file operation failed.
    #[error("state of job {owner}: cannot {action} '{}'", path.display())]
    File {
        /// The owner of the record.
        owner: Owner,
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another release has written the record.
    #[error(
        "state of job {owner} was written by another version of spank_docker ({found}, this is {VERSION}): submit the job again"
    )]
    Version {
        /// The owner of the record.
        owner: Owner,
        /// The version found.
        found: u32,
    },
    /// The file is not a record.
    #[error("state of job {owner} cannot be read: submit the job again")]
    Damaged {
        /// The owner of the record.
        owner: Owner,
        /// The parser's error.
        #[source]
        source: serde_json::Error,
    },
    /// The record is longer than any that is read.
    #[error("state of job {owner} would have more than {limit} MiB")]
    Long {
        /// The owner of the record.
        owner: Owner,
        /// The limit, in MiB.
        limit: u64,
    },
    /// Two slurmds on this machine share the directory, and the job runs on both.
    #[error(
        "job {owner} also runs on node '{node}', which is the same machine: choose its nodes on different machines"
    )]
    OtherNode {
        /// The owner of the record.
        owner: Owner,
        /// The node whose slurmd has written it.
        node: Escaped,
    },
    /// Users other than root could change the directory.
    #[error("state_dir '{}' must be owned by root and writable only by root", path.display())]
    Unsafe {
        /// The directory.
        path: PathBuf,
    },
}

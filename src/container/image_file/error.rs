//! Why a file's image cannot be used. Found by the user's process, reported by root.
#![forbid(unsafe_code)]

use std::io;

use serde::{Deserialize, Serialize};

use crate::log::escape::Escaped;

/// Why a file's image cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum FileError {
    /// There is none.
    #[error("no such file on this node: use a path that all nodes of the job have")]
    Missing,
    /// The user may not open it.
    #[error("you cannot read it on this node: check its permissions and those of the directories above it")]
    Denied,
    /// A FIFO, a device, a link of /proc.
    #[error("neither a regular file nor a directory: use what docker save, skopeo or buildah write")]
    Kind,
    /// Its file system fails.
    #[error("cannot be read on this node: {}", Escaped::new(.0))]
    Read(String),
    /// Not an archive of a known kind.
    #[error("not an image: use what docker save, skopeo or buildah write")]
    NotAnImage,
    /// Which of them is meant is not known.
    #[error("contains {0} images: save one alone")]
    Several(usize),
    /// No image for this node.
    #[error("contains no image for this node's architecture '{0}'")]
    Architecture(String),
    /// Something that the image names is not in the file.
    #[error("incomplete, '{}' is missing or cut off: save it again", Escaped::new(.0))]
    Incomplete(String),
    /// The content of something is not what its digest says.
    #[error("damaged, the content of '{}' does not have its digest: save it again", Escaped::new(.0))]
    Damaged(String),
    /// The archive's compression is damaged.
    #[error("damaged, it cannot be decompressed: save it again")]
    Compression,
    /// An archive that decompresses to nearly nothing but repetitions.
    #[error("more than 200 times as large when it is decompressed: use an uncompressed file")]
    Bomb,
    /// More files than any image.
    #[error("contains more than 10000 files: use what docker save, skopeo or buildah write")]
    TooMany,
    /// A manifest or a configuration that no engine would take.
    #[error("its '{}' is larger than 4 MiB: build the image with less", Escaped::new(.0))]
    TooLarge(String),
    /// The decompressed archive needs room.
    #[error("no space left in /var/tmp of this node to decompress it: use an uncompressed file")]
    NoRoom,
    /// The process was killed, or has run out of memory.
    #[error("the process that reads it has ended: use an uncompressed file, or submit again")]
    Ended,
}

impl From<io::Error> for FileError {
    /// Where the kind of the error says nothing about the image.
    fn from(error: io::Error) -> Self {
        Self::Read(error.to_string())
    }
}

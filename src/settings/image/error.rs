//! What can be wrong with a reference: its user reads which part, and what would be right.
#![forbid(unsafe_code)]

use crate::log::escape::Escaped;

/// What can be wrong with a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// No text at all.
    #[error("'' is not an image: use [registry[:port]/]name[:tag][@digest]")]
    Empty,
    /// More text than a reference can have.
    #[error("'{0}' is not an image: it is longer than 1024 bytes")]
    Long(Escaped),
    /// The part before the first slash looks like a registry, and is none.
    #[error("'{image}' is not an image: '{registry}' is not a registry, use host or host:port")]
    Registry {
        /// What the user wrote.
        image: Escaped,
        /// Its part at fault.
        registry: Escaped,
    },
    /// A name that would be right in lower case.
    #[error("'{image}' is not an image: the name '{name}' must be lower case")]
    Capitals {
        /// What the user wrote.
        image: Escaped,
        /// Its part at fault.
        name: Escaped,
    },
    /// Not a name.
    #[error(
        "'{image}' is not an image: '{name}' is not a name, \
         use lower-case letters and digits, with '.', '_', '-' or '/' between them"
    )]
    Name {
        /// What the user wrote.
        image: Escaped,
        /// Its part at fault.
        name: Escaped,
    },
    /// A name that Docker refuses for its length.
    #[error("'{0}' is not an image: the name is longer than 255 characters")]
    LongName(Escaped),
    /// Not a tag.
    #[error(
        "'{image}' is not an image: '{tag}' is not a tag, \
         use up to 128 letters, digits, '_', '.' and '-', not starting with '.' or '-'"
    )]
    Tag {
        /// What the user wrote.
        image: Escaped,
        /// Its part at fault.
        tag: Escaped,
    },
    /// Not a digest.
    #[error(
        "'{image}' is not an image: '{digest}' is not a digest, use sha256: and 64 lower-case hex digits"
    )]
    Digest {
        /// What the user wrote.
        image: Escaped,
        /// Its part at fault.
        digest: Escaped,
    },
}

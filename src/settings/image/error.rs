//! Errors in a reference: the user reads which part is wrong, and the correct form.
#![forbid(unsafe_code)]

use crate::log::escape::Escaped;

/// An error in a reference to an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The text is empty.
    #[error("'' is not an image: use [registry[:port]/]name[:tag][@digest]")]
    Empty,
    /// The text is too long for a reference.
    #[error("'{0}' is not an image: it is longer than 1024 bytes")]
    Long(Escaped),
    /// A path that does not begin like one, or with control characters in it.
    #[error(
        "'{0}' is not an image: a file is named by a path that begins with '/' or './', without control characters"
    )]
    Path(Escaped),
    /// The part before the first slash looks like a registry, but is not one.
    #[error("'{image}' is not an image: '{registry}' is not a registry, use host or host:port")]
    Registry {
        /// What the user wrote.
        image: Escaped,
        /// The wrong part.
        registry: Escaped,
    },
    /// The name would be valid in lower case.
    #[error("'{image}' is not an image: the name '{name}' must be lower case")]
    Capitals {
        /// What the user wrote.
        image: Escaped,
        /// The wrong part.
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
        /// The wrong part.
        name: Escaped,
    },
    /// A name that is too long for Docker.
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
        /// The wrong part.
        tag: Escaped,
    },
    /// Not a digest.
    #[error(
        "'{image}' is not an image: '{digest}' is not a digest, use sha256: and 64 lower-case hex digits"
    )]
    Digest {
        /// What the user wrote.
        image: Escaped,
        /// The wrong part.
        digest: Escaped,
    },
}

//! What an image consists of, as a file names it.
#![forbid(unsafe_code)]

use super::content::Content;

/// The parts, each with its name for messages.
pub(super) struct Parts {
    /// Its configuration.
    pub(super) config: (Content, String),
    /// Its layers, the lowest first.
    pub(super) layers: Vec<(Content, String)>,
}

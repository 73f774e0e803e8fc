//! Why a command of an admin's has failed.

use std::io;

use crate::container::{ImageCacheError, SurveyError};
use crate::engine::{EngineError, ImageError};
use crate::log::escape::Escaped;
use crate::settings::image::ReferenceError;
use crate::state::CountersError;

/// Why.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The plugin is not configured here.
    #[error("{0}")]
    Configuration(String),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// An image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The name of an image.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A file instead of an image in a registry.
    #[error("'{0}' is a file, which each job reads itself: name an image in a registry")]
    File(Escaped),
    /// Room for images.
    #[error(transparent)]
    ImageCache(#[from] ImageCacheError),
    /// The plugin's own files about images.
    #[error("cannot record that an admin has pulled the image: {0}")]
    Uses(#[source] io::Error),
    /// What is counted on this node.
    #[error(transparent)]
    Counters(#[from] CountersError),
    /// Not how much images may take.
    #[error(
        "--to: '{0}' is not a limit for images: use bytes like 200G, or a percentage of the engine's disk like 80%"
    )]
    Limit(Escaped),
    /// Metrics are to go where no file is.
    #[error("'{0}' is not a regular file: name another, or use the output without --output")]
    NotFile(Escaped),
    /// The file with metrics.
    #[error("cannot write '{file}': {source}")]
    MetricsFile {
        /// As the admin wrote it.
        file: Escaped,
        /// Why not.
        source: io::Error,
    },
    /// The containers of jobs.
    #[error(transparent)]
    Survey(#[from] SurveyError),
    /// The plugin's directory for state.
    #[error("cannot create state_dir: {0}")]
    State(#[source] io::Error),
    /// No event loop could be made.
    #[error("cannot create an event loop: {0}")]
    Runtime(#[source] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_admin_has_written_is_shown_on_one_line() {
        assert_eq!(
            AdminError::Limit("8\u{1b}[2J\n".into()).to_string(),
            r"--to: '8\u{1b}[2J\n' is not a limit for images: use bytes like 200G, or a percentage of the engine's disk like 80%"
        );
    }
}

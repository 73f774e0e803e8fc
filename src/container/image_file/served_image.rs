//! An image that is ready to be served.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use super::content::{Content, digest};

/// A manifest, and all that it names.
#[derive(Debug)]
pub(super) struct ServedImage {
    /// The type of the manifest.
    pub(super) media_type: String,
    /// The digest of the manifest.
    pub(super) digest: String,
    /// The digest of the configuration.
    pub(super) config: String,
    /// The manifest.
    pub(super) manifest: Vec<u8>,
    /// Configuration and layers, by their digests.
    pub(super) blobs: HashMap<String, Content>,
}

impl ServedImage {
    /// With this manifest.
    pub(super) fn new(
        media_type: &str,
        manifest: Vec<u8>,
        config: String,
        blobs: HashMap<String, Content>,
    ) -> Self {
        Self { media_type: media_type.to_owned(), digest: digest(&manifest), config, manifest, blobs }
    }
}

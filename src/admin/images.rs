//! `spank-docker images`: the images on this node.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::error::AdminError;
use super::node::Node;
use super::table;
use crate::engine::StoredImage;
use crate::log::escape::Escaped;
use crate::state::{ImageUse, ImageUses};

/// All images, by name.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct Images(Vec<ImageRow>);

/// One of them, however many names and users it has.
#[derive(Debug, Serialize)]
pub struct ImageRow {
    /// The first of its names.
    pub name: String,
    /// All its names with tags.
    pub tags: Vec<String>,
    /// The engine's id: `sha256:…`.
    pub id: String,
    /// The digest in its registry, if it has come from one.
    pub digest: Option<String>,
    /// Of all its layers, in bytes.
    pub size: u64,
    /// When a job used it last, in seconds since 1970.
    pub last_used: Option<u64>,
    /// How many containers of jobs and steps have been started from it.
    pub starts: u64,
    /// Whether a container uses it now.
    pub in_use: bool,
    /// Whether its registry requires a login.
    pub private: bool,
    /// Whether a job has brought it: then it may go to make room.
    pub of_jobs: bool,
}

/// Looks at them.
pub async fn images(node: &Node) -> Result<Images, AdminError> {
    let in_use = node.engine.images_in_use().await?;
    let uses = ImageUses::default();
    let images = node.engine.images().await?;
    let mut rows: Vec<_> = images
        .into_iter()
        .map(|image| (uses.of(&image.id), image))
        .map(|(known, image)| row(image, known, &in_use))
        .collect();
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(Images(rows))
}

fn row(image: StoredImage, known: Option<ImageUse>, in_use: &BTreeSet<String>) -> ImageRow {
    let known = known.unwrap_or_default();
    ImageRow {
        name: Escaped::new(image.name()).to_string(),
        digest: image.digest().map(str::to_owned),
        in_use: in_use.contains(&image.id),
        private: image.is_private(),
        size: image.size,
        last_used: (known.last_used > 0).then_some(known.last_used),
        starts: known.starts,
        of_jobs: known.is_of_jobs,
        tags: image.tags,
        id: image.id,
    }
}

impl fmt::Display for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEAD: [&str; 7] = ["IMAGE", "DIGEST", "SIZE", "UNUSED", "STARTS", "FROM", "STATE"];
        let rows: Vec<_> = self.0.iter().map(ImageRow::fields).collect();
        table::write(f, &HEAD, &rows)
    }
}

impl ImageRow {
    fn fields(&self) -> Vec<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let unused = self.last_used.map(|last| table::elapsed(now.saturating_sub(last)));
        let mut state = vec![if self.in_use { "in use" } else { "unused" }];
        state.extend(self.private.then_some("private"));
        vec![
            self.name.clone(),
            self.digest.as_deref().map_or("-".to_owned(), table::digest),
            table::bytes(self.size),
            unused.unwrap_or_else(|| "-".to_owned()),
            self.starts.to_string(),
            if self.of_jobs { "job" } else { "admin" }.to_owned(),
            state.join(", "),
        ]
    }
}

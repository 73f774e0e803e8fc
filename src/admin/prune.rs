//! `spank-docker prune`: removes images that jobs have brought and no container uses, the least recently used first.

use std::fmt;

use serde::Serialize;

use super::error::AdminError;
use super::node::Node;
use super::table;
use crate::container::{Goal, Mode, make_room};
use crate::log::escape::Escaped;
use crate::settings::plugstack::ImageCache;
use crate::state::ImageUses;

/// What is gone, or would be.
#[derive(Debug, Serialize)]
pub struct Pruned {
    /// Their names.
    pub images: Vec<String>,
    /// What they took, in bytes. Layers that they share with images that stay are still there.
    pub size: u64,
    /// Whether they are still there.
    pub dry_run: bool,
}

/// Prunes to `limit`, in the syntax of `image_cache`; without one, as that is configured, else all that may go.
pub async fn prune(node: &Node, limit: Option<&str>, dry_run: bool) -> Result<Pruned, AdminError> {
    let limit = match limit {
        Some(text) => Some(ImageCache::parse(text).ok_or_else(|| AdminError::Limit(text.into()))?),
        None => node.config.image_cache,
    };
    let mode = if dry_run { Mode::DryRun } else { Mode::Remove };
    let goal = limit.map_or(Goal::All, Goal::Within);
    let gone = make_room(&node.engine, &ImageUses::default(), goal, mode).await?;
    let size = gone.iter().map(|image| image.size).fold(0, u64::saturating_add);
    Ok(Pruned { images: gone.iter().map(|image| image.name().to_owned()).collect(), size, dry_run })
}

impl fmt::Display for Pruned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let did = if self.dry_run { "would remove" } else { "removed" };
        self.images.iter().try_for_each(|image| writeln!(f, "{did} {}", Escaped::line(image)))?;
        writeln!(f, "{did} {} images, {}", self.images.len(), table::bytes(self.size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_an_image_is_shown_on_one_line() {
        let gone = Pruned { images: vec!["a\n\u{1b}[2J".to_owned()], size: 0, dry_run: false };
        assert_eq!(gone.to_string(), "removed a\\n\\u{1b}[2J\nremoved 1 images, 0B\n");
    }
}

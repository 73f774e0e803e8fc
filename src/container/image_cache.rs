//! Room for images: those that jobs have brought onto this node, and that no container uses, go, the least recently used first.
//! What an admin has put there stays, and so does every image of which nothing is known.
//!
//! Runs as root in the epilog, in a prolog whose pull has met a full disk, and in `spank-docker prune`.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use nix::sys::statvfs::statvfs;

use crate::engine::{Engine, EngineError, StoredImage};
use crate::settings::plugstack::ImageCache;
use crate::state::{Counters, ImageUse, ImageUses};

/// Why there is no room.
#[derive(Debug, thiserror::Error)]
pub enum ImageCacheError {
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The plugin's own files about images.
    #[error("cannot read when images have been used")]
    Uses(#[source] io::Error),
    /// It does not say where it keeps images.
    #[error(
        "image_cache: Docker Engine does not say which disk its images are on: use bytes, not a percentage"
    )]
    NoDisk,
    /// The disk.
    #[error("cannot find out how full the disk of '{}' is", path.display())]
    Disk {
        /// The engine's directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// How much is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// What exceeds this.
    Within(ImageCache),
    /// All that may.
    All,
}

/// What may do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Images are removed.
    Remove,
    /// They are only named.
    DryRun,
}

/// Removes images until the goal is reached, and returns those that are gone, or would be. One that its engine does not remove
/// is left, and the next one goes.
pub async fn make_room(
    engine: &Engine,
    uses: &ImageUses,
    goal: Goal,
    mode: Mode,
) -> Result<Vec<StoredImage>, ImageCacheError> {
    let images = engine.images().await?;
    uses.forget_all_but(|id| images.iter().any(|image| image.id == id)).map_err(ImageCacheError::Uses)?;
    let in_use = engine.images_in_use().await?;
    let known: Vec<_> = images.iter().filter_map(|image| Some((image, uses.of(&image.id)?))).collect();
    let mut excess = match goal {
        Goal::All => u64::MAX,
        Goal::Within(cache) => excess(engine, cache, &known).await?,
    };
    let mut gone = Vec::new();
    for image in candidates(&known, &in_use) {
        if excess == 0 {
            break;
        }
        if mode == Mode::DryRun || remove(engine, uses, image).await? {
            excess = excess.saturating_sub(image.size);
            gone.push(image.clone());
        }
    }
    Ok(gone)
}

/// How many bytes are too many.
async fn excess(
    engine: &Engine,
    cache: ImageCache,
    known: &[(&StoredImage, ImageUse)],
) -> Result<u64, ImageCacheError> {
    match cache {
        ImageCache::Bytes(limit) => {
            let of_jobs = known.iter().filter(|(_, known)| known.is_of_jobs).map(|(image, _)| image.size);
            Ok(of_jobs.fold(0, u64::saturating_add).saturating_sub(limit))
        }
        ImageCache::Percent(percent) => {
            let path = engine.facts().await?.root.ok_or(ImageCacheError::NoDisk)?;
            let found =
                statvfs(&path).map_err(|error| ImageCacheError::Disk { path, source: error.into() })?;
            let (all, free) = (found.blocks(), found.blocks_available());
            Ok(over(all, free, percent).saturating_mul(found.fragment_size()))
        }
    }
}

/// How many blocks are used beyond the percentage.
fn over(all: u64, free: u64, percent: u8) -> u64 {
    let allowed = u128::from(all) * u128::from(percent) / 100;
    u64::try_from(allowed).map_or(0, |allowed| all.saturating_sub(free).saturating_sub(allowed))
}

/// What may go, in that order.
fn candidates<'a>(known: &[(&'a StoredImage, ImageUse)], in_use: &BTreeSet<String>) -> Vec<&'a StoredImage> {
    let may_go = |(image, known): &&(&StoredImage, ImageUse)| known.is_of_jobs && !in_use.contains(&image.id);
    let mut candidates: Vec<_> = known.iter().filter(may_go).collect();
    candidates.sort_by_key(|(_, known)| known.last_used);
    candidates.into_iter().map(|(image, _)| *image).collect()
}

/// Whether it is gone. Not while a start is about to use it, or if the engine keeps it for a container that has come since.
async fn remove(engine: &Engine, uses: &ImageUses, image: &StoredImage) -> Result<bool, ImageCacheError> {
    let Some(right) = uses.removable(&image.id).map_err(ImageCacheError::Uses)? else { return Ok(false) };
    match engine.remove_image(image).await {
        Ok(()) => {
            // Where it cannot be counted, it is gone all the same.
            let _ = Counters::default().count(|counts| {
                counts.evictions = counts.evictions.saturating_add(1);
                counts.evicted_bytes = counts.evicted_bytes.saturating_add(image.size);
            });
            right.forget().map_err(ImageCacheError::Uses)?;
            Ok(true)
        }
        Err(EngineError::Refused { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_recently_used_images_of_jobs_go_first_and_no_others() {
        let image = |id: &str| StoredImage::new(id, 1);
        let images = ["old", "older", "used", "admins"].map(image);
        let of_jobs = |last_used| ImageUse { is_of_jobs: true, starts: 1, last_used, checked: 0 };
        let uses = [of_jobs(20), of_jobs(10), of_jobs(1), ImageUse { starts: 9, ..ImageUse::default() }];
        let known: Vec<_> = images.iter().zip(uses).collect();
        let order = candidates(&known, &BTreeSet::from(["used".to_owned()]));
        assert_eq!(order, [&images[1], &images[0]]);
    }

    #[test]
    fn disk_is_over_the_mark_by_what_is_used_beyond_it() {
        assert_eq!([over(1000, 200, 80), over(1000, 100, 80), over(1000, 1000, 0)], [0, 100, 0]);
        assert_eq!(over(1000, 0, 0), 1000);
        assert_eq!(over(u64::MAX, 0, 100), 0);
    }
}

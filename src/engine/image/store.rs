//! The images in the engine's store, for all users: what an admin lists, and what makes room for others.
//!
//! Runs as root in `spank-docker`, in the epilog, and in a prolog whose pull has met a full disk.

use std::collections::{BTreeSet, HashMap};

use bollard::models::ImageSummary;
use bollard::query_parameters::{ListContainersOptions, ListImagesOptions, RemoveImageOptions};

use super::private;
use crate::engine::connection::{Engine, EngineError};

/// An image in the engine's store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredImage {
    /// `sha256:…`
    pub id: String,
    /// Its names with tags, without the plugin's marks.
    pub tags: Vec<String>,
    /// Its names with digests, as registries know it.
    pub digests: Vec<String>,
    /// The plugin's marks of it: none, if all users may use it.
    marks: Vec<String>,
    /// Of all its layers, in bytes, also of those that it shares with others.
    pub size: u64,
}

impl StoredImage {
    /// One without names.
    #[must_use]
    pub fn new(id: &str, size: u64) -> Self {
        Self { id: id.to_owned(), tags: Vec::new(), digests: Vec::new(), marks: Vec::new(), size }
    }

    /// Whether only its id names it: it has come neither from a registry nor from a file.
    #[must_use]
    pub fn is_nameless(&self) -> bool {
        self.name() == self.id && self.marks.is_empty()
    }

    /// Whether a registry requires a login for it.
    #[must_use]
    pub fn is_private(&self) -> bool {
        !self.marks.is_empty()
    }

    /// Its first name: by tag, else by digest, else its id.
    #[must_use]
    pub fn name(&self) -> &str {
        let is_name = |name: &&String| !name.contains("<none>");
        self.tags.iter().chain(&self.digests).find(is_name).unwrap_or(&self.id)
    }

    /// The digest of its manifest in the registry that it has come from; `None` where it was built or loaded.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        self.digests.iter().find_map(|name| Some(name.split_once('@')?.1))
    }
}

impl Engine {
    /// All images, without those that exist only as parts of others.
    pub async fn images(&self) -> Result<Vec<StoredImage>, EngineError> {
        let listed = self.call("list images", self.docker.list_images(None::<ListImagesOptions>)).await?;
        Ok(listed.into_iter().map(stored).collect())
    }

    /// The images with this label.
    pub async fn images_labelled(&self, label: &str) -> Result<Vec<StoredImage>, EngineError> {
        let filters = HashMap::from([("label".to_owned(), vec![label.to_owned()])]);
        let options = ListImagesOptions { filters: Some(filters), ..Default::default() };
        let listed = self.call("list images", self.docker.list_images(Some(options))).await?;
        Ok(listed.into_iter().map(stored).collect())
    }

    /// The ids of all images that any container uses, running or not, the plugin's or not.
    pub async fn images_in_use(&self) -> Result<BTreeSet<String>, EngineError> {
        let options = ListContainersOptions { all: true, ..Default::default() };
        let request = || self.docker.list_containers(Some(options.clone()));
        let listed = self.call_for_states("list containers", request).await?;
        Ok(listed.into_iter().filter_map(|container| container.image_id).collect())
    }

    /// Removes an image with all its names. The marks go last: until then a private image stays one. An engine removes an image
    /// with its last name, and refuses for one that a container uses.
    pub async fn remove_image(&self, image: &StoredImage) -> Result<(), EngineError> {
        let names = image.tags.iter().chain(&image.digests).filter(|name| !name.contains("<none>"));
        for name in names.chain(&image.marks).chain([&image.id]) {
            let options = None::<RemoveImageOptions>;
            let request = self.docker.remove_image(name, options, None);
            match self.patient_call("remove the image", request).await {
                Err(error) if !error.is_not_found() => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }
}

fn stored(summary: ImageSummary) -> StoredImage {
    let (marks, tags) = summary.repo_tags.into_iter().partition(|name| private::is_marks_name(name));
    let size = summary.size.try_into().unwrap_or_default();
    StoredImage { id: summary.id, tags, digests: summary.repo_digests, marks, size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_by_its_users_names_alone() {
        let id = "sha256:0123";
        let image = |tags: &[&str], digests: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            stored(ImageSummary {
                id: id.into(),
                repo_tags: owned(tags),
                repo_digests: owned(digests),
                size: 7,
                ..Default::default()
            })
        };
        let private =
            image(&["spank-docker.invalid/private/ab:0123", "reg:5000/a:1"], &["reg:5000/a@sha256:9"]);
        assert!(private.is_private());
        assert_eq!((private.name(), private.digest()), ("reg:5000/a:1", Some("sha256:9")));
        let dangling = image(&["<none>:<none>"], &["reg:5000/a@sha256:9"]);
        assert_eq!((dangling.name(), dangling.is_private()), ("reg:5000/a@sha256:9", false));
        assert_eq!((image(&[], &[]).name(), image(&[], &[]).digest()), (id, None));
        // An image that somebody has named, or that has a mark, is not there for `check --start` alone.
        let marked = image(&["spank-docker.invalid/private/ab:0123"], &[]);
        let tagged = image(&["reg:5000/a:1"], &[]);
        assert!([private, dangling, marked, tagged].iter().all(|image| !image.is_nameless()));
        assert!(image(&[], &[]).is_nameless() && image(&["<none>:<none>"], &[]).is_nameless());
    }
}

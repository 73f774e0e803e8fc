//! The images in the engine's store, for all users: what an admin lists, and what makes room for others.
//!
//! Runs as root in `spank-docker`, in the epilog, and in a prolog whose pull has met a full disk.

use std::collections::BTreeSet;

use bollard::query_parameters::RemoveImageOptions;
use serde::Deserialize;

use super::private;
use crate::engine::connection::{Engine, EngineError};
use crate::engine::list;

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
    pub(super) marks: Vec<String>,
    /// Of all its layers, in bytes, also of those that it shares with others.
    pub size: u64,
}

impl StoredImage {
    /// One without names.
    #[must_use]
    pub fn new(id: &str, size: u64) -> Self {
        Self { id: id.to_owned(), tags: Vec::new(), digests: Vec::new(), marks: Vec::new(), size }
    }

    /// All its names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let names = self.tags.iter().chain(&self.digests);
        names.map(String::as_str).filter(|name| !name.contains("<none>"))
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
        self.names().next().unwrap_or(&self.id)
    }

    /// The digest of its manifest in the registry that it has come from; `None` where it was built or loaded.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        self.digests.iter().find_map(|name| Some(name.split_once('@')?.1))
    }
}

/// An image as the engine lists it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    repo_digests: Option<Vec<String>>,
    #[serde(default)]
    size: Option<i64>,
}

/// What is read of it.
const MEMBERS: [&str; 4] = ["Id", "RepoTags", "RepoDigests", "Size"];

impl Engine {
    /// All images, without those that exist only as parts of others.
    pub async fn images(&self) -> Result<Vec<StoredImage>, EngineError> {
        self.images_at("/images/json").await
    }

    /// All images, also those that exist only as parts of others.
    pub(in crate::engine) async fn images_and_parts(&self) -> Result<Vec<StoredImage>, EngineError> {
        self.images_at("/images/json?all=true").await
    }

    /// The images with this label.
    pub async fn images_labelled(&self, label: &str) -> Result<Vec<StoredImage>, EngineError> {
        self.images_at(&format!("/images/json?filters={}", list::with_label(label))).await
    }

    async fn images_at(&self, path: &str) -> Result<Vec<StoredImage>, EngineError> {
        let listed: Vec<Listed> = self.list("list images", path, &MEMBERS).await?;
        Ok(listed.into_iter().map(stored).collect())
    }

    /// The ids of all images that any container uses, running or not, the plugin's or not.
    pub async fn images_in_use(&self) -> Result<BTreeSet<String>, EngineError> {
        #[derive(Deserialize)]
        struct User {
            #[serde(rename = "ImageID")]
            image: Option<String>,
        }
        let users: Vec<User> =
            self.list("list containers", "/containers/json?all=true", &["ImageID"]).await?;
        Ok(users.into_iter().filter_map(|user| user.image).collect())
    }

    /// Removes an image with all its names. The marks go last: until then a private image stays one. An engine removes an image
    /// with its last name, and refuses for one that a container uses.
    pub async fn remove_image(&self, image: &StoredImage) -> Result<(), EngineError> {
        let marks = image.marks.iter().map(String::as_str);
        for name in image.names().chain(marks).chain([image.id.as_str()]) {
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

fn stored(listed: Listed) -> StoredImage {
    let names = listed.repo_tags.unwrap_or_default().into_iter();
    let (marks, tags) = names.partition(|name| private::is_marks_name(name));
    let size = listed.size.unwrap_or_default().try_into().unwrap_or_default();
    StoredImage { id: listed.id, tags, digests: listed.repo_digests.unwrap_or_default(), marks, size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_by_its_users_names_alone() {
        let id = "sha256:0123";
        let image = |tags: &[&str], digests: &[&str]| {
            let owned = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
            stored(Listed {
                id: id.into(),
                repo_tags: owned(tags),
                repo_digests: owned(digests),
                size: Some(7),
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

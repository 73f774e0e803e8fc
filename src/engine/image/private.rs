//! Images that their registry does not serve to all users. The engine has one image store for all users:
//! without a check, any user could run a private image that another user's job has left on the node.
//!
//! When the registry requires a login for an image, the plugin marks the pulled image with an additional tag in
//! the engine, which lives exactly as long as the image, and names that registry. The plugin uses a marked
//! image that is already here only after it has asked that registry, with this user's own login, for the
//! manifest of exactly this image.
//!
//! To pull an image that is present, an engine requests only the manifest, which contains the image's id: a
//! user who knows the id can run a registry that claims to have the image. So for a marked image only the
//! answer of the registry that it came from counts, or Docker Hub's, which accepts no manifest of an image that
//! it does not have.
//!
//! Runs as root where the plugin gets an image.

use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::models::ImageInspect;
use bollard::query_parameters::TagImageOptions;
use sha2::{Digest, Sha256};

use super::error::{ImageError, denied, pull_error, silent_registry};
use super::policy::ImagePolicy;
use super::progress::{Layers, NoReports};
use super::pull_records::{PullRecord, Pulls};
use crate::engine::connection::{Engine, EngineError};
use crate::engine::registry_auth::{NoLogin, RegistryAuth};
use crate::guest::ssh::keys::hex;
use crate::settings::image::{DOCKER_HUB, Reference};

/// The mark: a repository in a registry that cannot exist (RFC 2606), whose name ends with a hash of the
/// image's registry; the tag is the image's id.
const MARK: &str = "spank-docker.invalid/private";
/// Where images in files are served on loopback: of this repository, and a part that is drawn at random.
pub const FILE_REPOSITORY: &str = "spank-docker-file";
/// In the marks of images from files: no registry has this name, so none confirms who may use them.
const FILE: &str = "file";
/// Why the engine did not get a part of an image in a file.
pub(super) const NOT_SERVED: &str = "the file has changed meanwhile";
/// How long a registry may take to answer whether a user may have an image.
const REGISTRY: Duration = Duration::from_secs(20);
/// For how many of an image's names the plugin asks a registry.
const NAMES: usize = 8;

impl Engine {
    /// Whether the user may use an image that is on this node.
    pub(super) async fn check_right(
        &self,
        policy: &ImagePolicy<'_>,
        found: &ImageInspect,
    ) -> Result<(), ImageError> {
        let marks = self.marks_to_heed(policy, found).await?;
        if marks.is_empty() {
            return Ok(());
        }
        let logins = (policy.logins)().await;
        let named = policy.reference.repository();
        let names = found.repo_digests.iter().flatten().filter_map(|name| name.parse::<Reference>().ok());
        let mut names: Vec<Reference> = names.filter(|name| believes(&marks, name.registry())).collect();
        names.sort_by_key(|name| name.repository() != named);
        let mut refusal = None;
        for name in names.iter().take(NAMES) {
            match self.ask(policy, name, logins.at(name.registry())).await {
                Ok(()) => return Ok(()),
                Err(ImageError::Engine(error)) => return Err(error.into()),
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        Err(match refusal {
            Some(ImageError::Unreachable { registry, words, .. }) => {
                ImageError::Unchecked { image: policy.reference.to_string(), registry, words }
            }
            Some(error) => error,
            None => ImageError::Nameless { image: policy.reference.to_string() },
        })
    }

    /// The marks that an image has, or is about to get; empty, if all users may use it.
    async fn marks_to_heed(
        &self,
        policy: &ImagePolicy<'_>,
        found: &ImageInspect,
    ) -> Result<Vec<String>, ImageError> {
        let mut marks = marks_of(found);
        if marks.is_empty() {
            marks = self.marks_to_come(policy, found).await?;
        }
        if marks.is_empty() {
            // A pull that ended between the two requests has marked it.
            let id = found.id.as_deref().unwrap_or_default();
            marks = marks_of(&self.inspect_image(policy.reference, id).await?);
        }
        Ok(marks)
    }

    /// Whether the registry serves this image without a login; false when it cannot answer. `None`: the engine cannot ask it.
    pub(super) async fn is_public(&self, reference: &Reference) -> Option<bool> {
        let name = reference.engine_name();
        match tokio::time::timeout(REGISTRY, self.docker.inspect_registry_image(&name, None)).await {
            Ok(Ok(_)) => Some(true),
            Ok(Err(error)) if is_no_such_call(&error) => None,
            Ok(Err(_)) | Err(_) => Some(false),
        }
    }

    /// Whether the registry serves this image to the user.
    async fn ask(
        &self,
        policy: &ImagePolicy<'_>,
        name: &Reference,
        login: Result<RegistryAuth, NoLogin>,
    ) -> Result<(), ImageError> {
        let credentials = login.as_ref().ok().map(engine_credentials);
        let full = name.engine_name();
        let asked = self.docker.inspect_registry_image(&full, credentials);
        match tokio::time::timeout(REGISTRY, asked).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) if is_no_such_call(&error) => self.ask_by_pull(policy, name).await,
            // An expired login must not be worse than no login.
            Ok(Err(_)) if login.is_ok() && self.is_public(name).await == Some(true) => Ok(()),
            Ok(Err(error)) => Err(denied(pull_error(name, error), login.err())),
            Err(_) => Err(self.silent(name).await?),
        }
    }

    /// Asks by a pull, for an engine that cannot ask a registry. A pull by digest of an image that is present
    /// transfers no layer, and Podman reads the image's manifest and configuration from the registry again
    /// (containers/image, copy/single.go).
    async fn ask_by_pull(&self, policy: &ImagePolicy<'_>, name: &Reference) -> Result<(), ImageError> {
        let mut layers = Layers::default();
        match tokio::time::timeout(REGISTRY, self.get(policy, name, &mut layers, &mut NoReports)).await {
            Ok(pulled) => pulled.map(drop),
            Err(_) => Err(self.silent(name).await?),
        }
    }

    /// The registry has not answered the engine in time: checks that the engine still answers other requests.
    async fn silent(&self, name: &Reference) -> Result<ImageError, EngineError> {
        self.answers("query the registry").await?;
        Ok(silent_registry(name, REGISTRY))
    }

    /// Marks that running pulls will give to this image if they bring it. Where a pull was cut off, marks now
    /// what it may have brought.
    async fn marks_to_come(
        &self,
        policy: &ImagePolicy<'_>,
        found: &ImageInspect,
    ) -> Result<Vec<String>, ImageError> {
        let pulls = policy.pulls.all().map_err(ImageError::Pulls)?;
        let names = || found.repo_tags.iter().chain(&found.repo_digests).flatten();
        let mut marks = Vec::new();
        for pull in &pulls {
            // Between its arrival and its tagging an image has no name.
            let may_be_its = names().next().is_none() || names().any(|name| is_of(name, &pull.repository));
            if may_be_its && !found.id.as_ref().is_some_and(|id| pull.public.contains(id)) {
                marks.push(mark_repository(registry_of(&pull.repository)));
            }
        }
        self.try_to_settle(&pulls).await?;
        Ok(marks)
    }

    /// For the start of a container: marks what interrupted pulls may have brought, as far as that is possible. Somebody's image
    /// that cannot be marked does not keep others from theirs: what it may be counts as private for as long as its record stays.
    pub(super) async fn try_to_settle(&self, pulls: &[PullRecord]) -> Result<(), EngineError> {
        match self.settle(pulls).await {
            Err(ImageError::Engine(error)) if error.is_engine_fault() => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Marks the images that interrupted pulls may have brought, and removes the records of these pulls.
    pub async fn mark_interrupted_pulls(&self, pulls: &Pulls) -> Result<(), ImageError> {
        self.settle(&pulls.all().map_err(ImageError::Pulls)?).await
    }

    /// One that cannot be marked does not keep the others from being marked.
    async fn settle(&self, pulls: &[PullRecord]) -> Result<(), ImageError> {
        let mut first = Ok(());
        for pull in pulls.iter().filter(|pull| pull.is_cut_off()) {
            first = first.and(self.mark_interrupted_pull(pull).await);
            if let Err(ImageError::Engine(error)) = &first
                && error.is_engine_fault()
            {
                break;
            }
        }
        first
    }

    async fn mark_interrupted_pull(&self, pull: &PullRecord) -> Result<(), ImageError> {
        self.mark_others(&pull.repository, &pull.public).await?;
        if is_of_file(&pull.repository) {
            for name in self.names_in(&pull.repository).await? {
                self.forget_name(&name).await?;
            }
        }
        pull.forget().map_err(ImageError::Pulls)
    }

    /// Marks all images that a pull with a login has brought into a repository. The pulled name alone is not
    /// enough: if the tag moved meanwhile, an earlier image has no tag any more.
    pub(super) async fn mark_others(&self, repository: &str, public: &[String]) -> Result<(), EngineError> {
        for id in self.unmarked(repository).await? {
            if !public.contains(&id) {
                self.mark(&id, registry_of(repository)).await?;
            }
        }
        Ok(())
    }

    /// The images of a repository that all users may use: those that a private pull finds there stay public,
    /// except those that another, unfinished private pull may have brought.
    pub(super) async fn public(&self, pulls: &Pulls, repository: &str) -> Result<Vec<String>, ImageError> {
        let others = pulls.all().map_err(ImageError::Pulls)?;
        let mut public = self.unmarked(repository).await?;
        for other in others.iter().filter(|other| other.repository == repository) {
            public.retain(|id| other.public.contains(id));
        }
        Ok(public)
    }

    /// Marks this image as one that this registry does not serve to all users.
    async fn mark(&self, id: &str, registry: &str) -> Result<(), EngineError> {
        let options =
            TagImageOptions { repo: Some(mark_repository(registry)), tag: Some(digits(id).to_owned()) };
        self.call("mark the image as private", self.docker.tag_image(id, Some(options))).await
    }

    /// All names with a digest in a repository.
    async fn names_in(&self, repository: &str) -> Result<Vec<String>, EngineError> {
        let images = self.images().await?;
        let names = images.into_iter().flat_map(|image| image.digests);
        Ok(names.filter(|name| is_of(name, repository)).collect())
    }

    /// Removes the image that a pull has just brought by this name, since no container can have it, unless it has names of other
    /// repositories, or other tags.
    pub(super) async fn forget_unusable(&self, name: &Reference) -> Result<(), EngineError> {
        let Some(repository) = name.repository() else { return Ok(()) };
        let is_it = |known: &&str| known.parse::<Reference>().is_ok_and(|known| known.same_as(name));
        for image in self.images().await? {
            let is_its_alone =
                |known: &str| is_of(known, &repository) && (known.contains('@') || is_it(&known));
            if image.names().any(|known| is_it(&known)) && image.names().all(is_its_alone) {
                self.remove_image(&image).await?;
            }
        }
        Ok(())
    }

    /// The ids of all images of a repository that are not marked.
    async fn unmarked(&self, repository: &str) -> Result<Vec<String>, EngineError> {
        let listed = self.images_and_parts().await?.into_iter();
        let of_repository = listed.filter(|image| image.names().any(|name| is_of(name, repository)));
        let unmarked = of_repository.filter(|image| marks_among(&image.id, &image.marks).is_empty());
        Ok(unmarked.map(|image| image.id).collect())
    }
}

/// Whether the engine does not know the call that asks a registry: Podman, seen with 5.4. A registry's message
/// would be longer.
fn is_no_such_call(error: &bollard::errors::Error) -> bool {
    use bollard::errors::Error::DockerResponseServerError;
    matches!(error, DockerResponseServerError { status_code: 404, message } if message.trim() == "Not Found")
}

/// Whether a registry's answer about an image with these marks counts.
fn believes(marks: &[String], registry: &str) -> bool {
    registry == DOCKER_HUB || marks.contains(&mark_repository(registry))
}

/// The repository of the marks of images from a registry.
fn mark_repository(registry: &str) -> String {
    let hash = hex(&Sha256::digest(registry.as_bytes()));
    format!("{MARK}/{}", &hash[..32])
}

/// Whether images in files are served there.
fn is_of_file(repository: &str) -> bool {
    let path = repository.split_once('/').filter(|(host, _)| host.starts_with("127.0.0.1:"));
    path.is_some_and(|(_, path)| path.split('/').next() == Some(FILE_REPOSITORY))
}

/// The registry in the full name of a repository.
fn registry_of(repository: &str) -> &str {
    if is_of_file(repository) {
        return FILE;
    }
    repository.split('/').next().unwrap_or(repository)
}

/// The repositories of the marks of an image: none, if it was never pulled with a login.
fn marks_of(found: &ImageInspect) -> Vec<String> {
    found
        .id
        .as_deref()
        .map_or(Vec::new(), |id| marks_among(id, found.repo_tags.as_deref().unwrap_or_default()))
}

fn marks_among(id: &str, tags: &[String]) -> Vec<String> {
    let tag = format!(":{}", digits(id));
    let repositories = tags.iter().filter_map(|name| name.strip_suffix(&tag));
    repositories.filter(|repository| is_our(repository)).map(str::to_owned).collect()
}

fn is_our(repository: &str) -> bool {
    repository.strip_prefix(MARK).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a reference is one of the plugin's marks, which no user may pull: that would take the mark from its image.
pub(super) fn is_mark(reference: &Reference) -> bool {
    reference.repository().is_some_and(|repository| is_our(&repository))
}

/// Whether a tag in the engine's store is one of the plugin's marks.
pub(super) fn is_marks_name(name: &str) -> bool {
    is_our(name.rsplit_once(':').map_or(name, |(repository, _)| repository))
}

/// The login in the form of the engine's API. The caller drops it after the request.
pub(super) fn engine_credentials(credentials: &RegistryAuth) -> DockerCredentials {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    DockerCredentials {
        username: given(&credentials.username),
        password: given(&credentials.password),
        identitytoken: given(&credentials.identity_token),
        registrytoken: given(&credentials.registry_token),
        ..Default::default()
    }
}

fn is_of(name: &str, repository: &str) -> bool {
    name.parse::<Reference>().is_ok_and(|name| name.repository().as_deref() == Some(repository))
}

fn digits(id: &str) -> &str {
    id.strip_prefix("sha256:").unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use futures_util::future::LocalBoxFuture;

    use super::*;
    use crate::engine::fake::FakeEngine;
    use crate::engine::registry_auth::Logins;
    use crate::linux::runtime::runtime;
    use crate::settings::choices::Pull;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn only_its_own_mark_marks_an_image() {
        let mark = mark_repository("reg:5000");
        let marked = |tags: &[&str]| {
            let tags = Some(tags.iter().map(|tag| (*tag).to_owned()).collect());
            marks_of(&ImageInspect {
                id: Some(format!("sha256:{ID}")),
                repo_tags: tags,
                ..Default::default()
            })
        };
        assert_eq!(marked(&["reg:5000/app:1", &format!("{mark}:{ID}")]), [mark.as_str()]);
        for tag in ["reg:5000/app:1", &format!("{mark}:{}", ID.replace('0', "1")), &format!("x/{mark}:{ID}")]
        {
            assert!(marked(&[tag]).is_empty(), "{tag}");
        }
        assert!(is_mark(&format!("{mark}:{ID}").parse().unwrap()));
        assert!(is_mark(&mark.parse().unwrap()));
        assert!(!is_mark(&"reg:5000/private".parse().unwrap()));
        assert!(!is_mark(&"spank-docker.invalid/private2".parse().unwrap()));
    }

    #[test]
    fn private_image_is_confirmed_by_its_own_registry_only() {
        let marks = [mark_repository("reg:5000"), mark_repository("other:5000")];
        for (registry, believed) in
            [("reg:5000", true), ("other:5000", true), ("docker.io", true), ("localhost:5000", false)]
        {
            assert_eq!(believes(&marks, registry), believed, "{registry}");
        }
        assert_eq!(registry_of("reg:5000/hpc/app"), "reg:5000");
        assert_eq!(registry_of("127.0.0.1:5000/app"), "127.0.0.1:5000");
        assert_eq!(registry_of("127.0.0.1:40000/spank-docker-file/0123"), FILE);
    }

    #[test]
    fn a_repository_is_known_by_each_of_its_names() {
        assert!(is_of("alice/app:1", "docker.io/alice/app"));
        assert!(is_of(&format!("alice/app@sha256:{ID}"), "docker.io/alice/app"));
        assert!(is_of("reg:5000/app:1", "reg:5000/app"));
        assert!(!is_of("reg:5000/app2:1", "reg:5000/app"));
        assert!(!is_of("<none>:<none>", "reg:5000/app"));
    }

    /// Its images cannot be listed, and so not be marked: other images are used, and what may be private is not taken for public.
    #[test]
    fn interrupted_pull_that_cannot_be_settled_keeps_nobody_from_other_images() {
        let directory = tempfile::tempdir().unwrap();
        let pulls = Pulls::new(directory.path());
        drop(pulls.begin("reg:5000/alice/app", &[]).unwrap());
        let engine = FakeEngine::new(|_| (500, r#"{"message":"too much"}"#.to_owned()));
        let reference: Reference = "reg:5000/bob/app:1".parse().unwrap();
        let logins = || -> LocalBoxFuture<'_, Logins> { unreachable!("no registry is asked") };
        let policy =
            ImagePolicy { reference: &reference, pull: Pull::Missing, logins: &logins, pulls: &pulls };
        runtime().unwrap().block_on(async {
            let client = engine.connect().await;
            for (name, is_private) in [("reg:5000/bob/app:1", false), ("reg:5000/alice/app:1", true)] {
                let found = ImageInspect {
                    id: Some(format!("sha256:{ID}")),
                    repo_tags: Some(vec![name.to_owned()]),
                    ..Default::default()
                };
                let marks = client.marks_to_come(&policy, &found).await.unwrap();
                assert_eq!(!marks.is_empty(), is_private, "{name}");
            }
            client.mark_interrupted_pulls(&pulls).await.unwrap_err();
        });
        assert!(pulls.all().unwrap()[0].is_cut_off());
    }

    #[test]
    fn image_that_no_container_can_have_goes_unless_it_has_other_names() {
        let engine = FakeEngine::new(|request| {
            let images = format!(
                r#"[{{"Id":"sha256:1","RepoTags":["reg:5000/a:1","{MARK}/0:1"],"RepoDigests":["reg:5000/a@sha256:{ID}"]}},
                    {{"Id":"sha256:2","RepoTags":["reg:5000/b:1","reg:5000/b:2"]}},
                    {{"Id":"sha256:3","RepoTags":["reg:5000/c:1"],"RepoDigests":["reg:5000/d@sha256:{ID}"]}}]"#
            );
            match request {
                "GET /images/json" => (200, images),
                _ => (200, "[]".to_owned()),
            }
        });
        runtime().unwrap().block_on(async {
            let client = engine.connect().await;
            for name in ["reg:5000/a:1", "reg:5000/b:1", "reg:5000/c:1", "reg:5000/a:2"] {
                client.forget_unusable(&name.parse().unwrap()).await.unwrap();
            }
        });
        let asked = engine.asked();
        let removed: Vec<_> =
            asked.iter().filter_map(|asked| asked.strip_prefix("DELETE /images/")).collect();
        let digest = format!("reg:5000/a@sha256:{ID}");
        assert_eq!(removed, ["reg:5000/a:1", &digest, &format!("{MARK}/0:1"), "sha256:1"]);
    }
}

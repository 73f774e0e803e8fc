//! Getting the job's image onto this node: present, or pulled under the pull policy.
//!
//! Runs as root in the prolog. Whatever goes wrong here is about the image or the registry, and told to the user; only
//! an engine that does not answer is the node's fault.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use bollard::auth::DockerCredentials;
use bollard::models::{CreateImageInfo, ImageInspect};
use bollard::query_parameters::CreateImageOptions;
use futures_util::StreamExt;

use super::engine::{Engine, EngineError, one_line};
use super::private;
use crate::gpus::SELECTIONS;
use crate::image::Reference;
use crate::login::{Credentials, Logins, NoLogin};
use crate::pulls::Pulls;
use crate::setting::Pull;

/// How often a long pull is told of.
const PROGRESS: Duration = Duration::from_secs(10);

/// An image on this node.
#[derive(Clone, Debug)]
pub struct Image {
    /// `sha256:…`: what the container is created from, whatever happens to the tag.
    pub id: String,
    /// ENV entries, names and values, but for those that are the job's.
    pub environment: Vec<(String, String)>,
    /// WORKDIR, if it has one.
    pub workdir: Option<String>,
    /// VOLUME entries.
    pub volumes: Vec<String>,
    /// ENTRYPOINT, program and arguments.
    pub entrypoint: Vec<String>,
}

/// Which image, and how it may come here.
#[derive(Clone, Copy)]
pub struct ImagePolicy<'a> {
    /// What the user asked for.
    pub reference: &'a Reference,
    /// When to ask the registry.
    pub pull: Pull,
    /// The user's logins, looked up only when a registry is asked.
    pub logins: &'a dyn Fn() -> Logins,
    /// Pulls of private images on this node.
    pub pulls: &'a Pulls,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// `pull=never`, and it is not here.
    #[error(
        "image '{image}': not present on this node, and the pull policy is 'never': use --docker-pull=missing"
    )]
    NotPresent {
        /// As the user wrote it.
        image: String,
    },
    /// The registry answered that it has no such image.
    #[error("image '{image}': not found in registry '{registry}'")]
    NotFound {
        /// Without the registry.
        image: String,
        /// Host and port.
        registry: String,
    },
    /// An id names an image that is here already; there is no registry to ask.
    #[error(
        "image '{image}': no image on this node has this id; name it by repository and tag to have it pulled"
    )]
    UnknownId {
        /// As the user wrote it.
        image: String,
    },
    /// The registry wants to know who asks.
    #[error("image '{image}': registry '{registry}' denies access without a login: {why}")]
    NoLogin {
        /// Without the registry.
        image: String,
        /// Host and port.
        registry: String,
        /// Why none was given.
        why: NoLogin,
    },
    /// The registry knows who asks.
    #[error(
        "image '{image}': registry '{registry}' denies access with your login in ~/.docker/config.json: log in anew, or ask for the right to pull this image"
    )]
    Denied {
        /// Without the registry.
        image: String,
        /// Host and port.
        registry: String,
    },
    /// It is here, for those who may pull it; whether this user may is not known.
    #[error(
        "image '{image}': private, and registry '{registry}' cannot be asked whether you may use it: {}", words.reason()
    )]
    Unchecked {
        /// As the user wrote it.
        image: String,
        /// Host and port.
        registry: String,
        /// The engine's words.
        #[source]
        words: Words,
    },
    /// The same, and there is nobody to ask.
    #[error(
        "image '{image}': private, and known on this node by no name of a registry: name it by repository and tag"
    )]
    Nameless {
        /// As the user wrote it.
        image: String,
    },
    /// Files of ours, about pulls of others.
    #[error("cannot note in state_dir which private images are being pulled: ask the admin")]
    Pulls(#[source] io::Error),
    /// The registry cannot be asked.
    #[error("image '{image}': registry '{registry}' cannot be reached: {}", words.reason())]
    Unreachable {
        /// Without the registry.
        image: String,
        /// Host and port.
        registry: String,
        /// The engine's words.
        #[source]
        words: Words,
    },
    /// The engine has no room for it.
    #[error("image '{image}': no space left on the disk of this node's engine: ask the admin to free some")]
    NoSpace {
        /// As the user wrote it.
        image: String,
    },
    /// It is for other machines.
    #[error("image '{image}': built for '{theirs}', this node is '{ours}'")]
    Architecture {
        /// As the user wrote it.
        image: String,
        /// The image's architecture, in Go's names.
        theirs: String,
        /// This node's.
        ours: &'static str,
    },
    /// The registry has it, for other machines.
    #[error(
        "image '{image}': registry '{registry}' has it for other kinds of processors only, this node is '{ours}'"
    )]
    Architectures {
        /// Without the registry.
        image: String,
        /// Host and port.
        registry: String,
        /// This node's.
        ours: &'static str,
    },
    /// What the registry sends is not what its own list says.
    #[error("image '{image}': damaged in registry '{registry}': push it again")]
    Damaged {
        /// Without the registry.
        image: String,
        /// Host and port.
        registry: String,
        /// The engine's words.
        #[source]
        words: Words,
    },
    /// Anything else that the engine says about a pull.
    #[error("image '{image}': cannot be pulled from registry '{registry}': {message}")]
    Pull {
        /// Without the registry.
        image: String,
        /// Host and port.
        registry: String,
        /// The engine's words.
        message: String,
    },
    /// The engine itself.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// What the engine says of a pull, on one line: each of its layers has put its own words before the cause.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Words(String);

impl Words {
    /// The last of them.
    fn reason(&self) -> &str {
        self.0.rsplit(": ").next().unwrap_or(&self.0)
    }
}

impl Engine {
    /// The image, pulled when the policy says so. `progress` gets a line from time to time while a pull lasts.
    pub async fn image(
        &self,
        policy: ImagePolicy<'_>,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Image, ImageError> {
        let present = match policy.pull {
            Pull::Always => None,
            Pull::Missing | Pull::Never => self.present(policy.reference).await?,
        };
        let found = match (present, policy.pull) {
            (Some(found), _) => {
                self.check_right(&policy, &found).await?;
                found
            }
            (None, Pull::Never) => {
                return Err(ImageError::NotPresent { image: policy.reference.to_string() });
            }
            (None, _) if policy.reference.is_id() => match self.present(policy.reference).await? {
                Some(found) => {
                    self.check_right(&policy, &found).await?;
                    found
                }
                None => return Err(ImageError::UnknownId { image: policy.reference.to_string() }),
            },
            (None, Pull::Missing | Pull::Always) => self.get(&policy, progress).await?,
        };
        usable(policy.reference, found)
    }

    async fn present(&self, reference: &Reference) -> Result<Option<ImageInspect>, EngineError> {
        match self.call("inspect the image", self.docker.inspect_image(&reference.engine_name())).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Pulls it: without a login where the registry wants none, else with the user's.
    async fn get(
        &self,
        policy: &ImagePolicy<'_>,
        progress: &mut dyn FnMut(&str),
    ) -> Result<ImageInspect, ImageError> {
        let reference = policy.reference;
        if private::is_mark(reference) {
            return Err(not_found(reference));
        }
        let login = (policy.logins)().at(reference.registry());
        match login {
            Ok(login) if !self.is_public(reference).await => {
                self.get_private(policy, &login, progress).await.map_err(|error| denied(error, None))
            }
            login => {
                let pulled = self.pull(reference, None, progress).await;
                pulled.map_err(|error| denied(error, Some(login.err().unwrap_or(NoLogin::Unknown))))
            }
        }
    }

    /// Pulls it with a login, and marks it before anybody else could take it for a public one. What was here before,
    /// for everybody, stays so.
    async fn get_private(
        &self,
        policy: &ImagePolicy<'_>,
        login: &Credentials,
        progress: &mut dyn FnMut(&str),
    ) -> Result<ImageInspect, ImageError> {
        let reference = policy.reference;
        let repository = reference.repository().unwrap_or_default();
        self.settle_pulls(policy.pulls).await?;
        let public = self.public(policy.pulls, &repository).await?;
        let underway = policy.pulls.begin(&repository, &public).map_err(ImageError::Pulls)?;
        let pulled = self.pull(reference, Some(private::engine_credentials(login)), progress).await;
        // Also when it has failed: the engine may have gone further than it could tell.
        if let Some(found) = self.present(reference).await?
            && let Some(id) = &found.id
            && !public.contains(id)
        {
            self.mark(id).await?;
        }
        underway.end().map_err(ImageError::Pulls)?;
        pulled
    }

    async fn pull(
        &self,
        reference: &Reference,
        login: Option<DockerCredentials>,
        progress: &mut dyn FnMut(&str),
    ) -> Result<ImageInspect, ImageError> {
        let options = CreateImageOptions {
            from_image: Some(reference.engine_name().into_owned()),
            ..Default::default()
        };
        let mut stream = self.docker.create_image(Some(options), None, login);
        let mut layers = Layers::default();
        let mut told = Instant::now();
        loop {
            // Silence for that long is a slow registry's, or that of an engine which hangs.
            match tokio::time::timeout(PROGRESS, stream.next()).await {
                Ok(None) => break,
                Ok(Some(Ok(step))) => layers.note(&step),
                Ok(Some(Err(error))) => return Err(pull_error(reference, error)),
                Err(_) => self.answers("pull the image").await?,
            }
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                progress(&format!("image '{reference}': pulling, {layers}"));
            }
        }
        match self.present(reference).await? {
            Some(found) => Ok(found),
            None => Err(not_found(reference)),
        }
    }
}

fn usable(reference: &Reference, found: ImageInspect) -> Result<Image, ImageError> {
    let ours = architecture();
    if let Some(theirs) = found.architecture.filter(|theirs| !theirs.is_empty() && theirs != ours) {
        return Err(ImageError::Architecture {
            image: reference.to_string(),
            theirs: one_line(&theirs),
            ours,
        });
    }
    let config = found.config.unwrap_or_default();
    Ok(Image {
        id: found.id.unwrap_or_default(),
        environment: environment(&config.env.unwrap_or_default()),
        workdir: config.working_dir.filter(|workdir| !workdir.is_empty()),
        volumes: config.volumes.unwrap_or_default(),
        entrypoint: config.entrypoint.unwrap_or_default(),
    })
}

/// The variables that an image's ENV entries set, but for those that are the job's.
#[must_use]
pub fn environment(entries: &[String]) -> Vec<(String, String)> {
    let split = |entry: &String| {
        let (name, value) = entry.split_once('=')?;
        (!is_the_jobs(name)).then(|| (name.to_owned(), value.to_owned()))
    };
    entries.iter().filter_map(split).collect()
}

/// Variables that say who the user is and what the job is: what an image says of them is wrong, or meant to deceive.
fn is_the_jobs(name: &str) -> bool {
    const USER: [&str; 7] = ["HOME", "USER", "LOGNAME", "SHELL", "PWD", "OLDPWD", "HOSTNAME"];
    // Which GPUs there are for the job's programs.
    let is_selection = SELECTIONS.contains(&name);
    const JOB: [&str; 5] = ["SLURM", "SPANK", "SBATCH", "PMI", "SSH_"];
    name.is_empty()
        || is_selection
        || USER.contains(&name)
        || JOB.iter().any(|prefix| name.starts_with(prefix))
}

/// This machine's architecture in Go's names, which images use.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

fn not_found(reference: &Reference) -> ImageError {
    ImageError::NotFound {
        image: reference.without_registry().to_owned(),
        registry: reference.registry().to_owned(),
    }
}

/// A registry that says nothing, to an engine that works.
pub(super) fn silent_registry(reference: &Reference, limit: Duration) -> ImageError {
    ImageError::Unreachable {
        image: reference.without_registry().to_owned(),
        registry: reference.registry().to_owned(),
        words: Words(format!("no answer within {} s", limit.as_secs())),
    }
}

/// The engine passes the registry's words on, with a status that does not tell the cases apart (a refused login is
/// 500, as is an unreachable registry): its words decide, as `docker pull` prints them.
pub(super) fn pull_error(reference: &Reference, error: bollard::errors::Error) -> ImageError {
    let words = match EngineError::new("pull the image", error) {
        EngineError::Refused { message, .. } => message,
        EngineError::Broken { source: bollard::errors::Error::DockerStreamError { error }, .. } => {
            one_line(&error)
        }
        other => return other.into(),
    };
    let (image, registry) = (reference.without_registry().to_owned(), reference.registry().to_owned());
    let says = |some: &[&str]| some.iter().any(|phrase| words.to_lowercase().contains(phrase));
    if says(&["no space left", "disk quota exceeded"]) {
        ImageError::NoSpace { image: reference.to_string() }
    } else if says(&["no basic auth", "unauthorized", "authentication required", "denied:", "forbidden"]) {
        ImageError::Denied { image, registry }
    } else if says(&[
        "manifest unknown",
        "name unknown",
        "not found",
        "does not exist",
        "repository name not known",
    ]) {
        not_found(reference)
    } else if says(&["no matching manifest"]) {
        ImageError::Architectures { image, registry, ours: architecture() }
    } else if says(&["verification failed", "unexpected digest", "invalid checksum"]) {
        ImageError::Damaged { image, registry, words: Words(words) }
    } else if says(&[
        "no such host",
        "connection refused",
        "dial tcp",
        "i/o timeout",
        "timeout exceeded",
        "deadline exceeded",
        "no route to host",
        "network is unreachable",
        "tls:",
        "x509:",
        "http response to https client",
        "server misbehaving",
        "connection reset",
        "eof",
    ]) {
        ImageError::Unreachable { image, registry, words: Words(words) }
    } else {
        ImageError::Pull { image, registry, message: words }
    }
}

/// A refusal, to a user who has no login for this reason, or has one.
pub(super) fn denied(error: ImageError, why: Option<NoLogin>) -> ImageError {
    match (error, why) {
        (ImageError::Denied { image, registry }, Some(why)) => ImageError::NoLogin { image, registry, why },
        (error, _) => error,
    }
}

/// How far the layers of a pull have come.
#[derive(Debug, Default)]
struct Layers {
    /// Bytes had and bytes wanted of each.
    downloads: HashMap<String, (i64, i64)>,
    /// Whether the first of them is being written to the engine's disk, which may take longer than the download.
    unpacking: bool,
}

impl Layers {
    fn note(&mut self, step: &CreateImageInfo) {
        let (Some(id), Some(status)) = (&step.id, &step.status) else { return };
        let progress = step.progress_detail.as_ref();
        let (current, total) = (progress.and_then(|p| p.current), progress.and_then(|p| p.total));
        if status.starts_with("Downloading") {
            let layer = self.downloads.entry(id.clone()).or_default();
            *layer = (current.unwrap_or(layer.0), total.unwrap_or(layer.1));
        } else if status.starts_with("Extracting") {
            self.unpacking = true;
        } else if status.starts_with("Download complete")
            && let Some(layer) = self.downloads.get_mut(id)
        {
            layer.0 = layer.1;
        }
    }
}

impl std::fmt::Display for Layers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const MB: i64 = 1_000_000;
        // A registry says what it likes.
        let sum = |of: fn(&(i64, i64)) -> i64| self.downloads.values().map(of).fold(0, i64::saturating_add);
        let (had, wanted) = (sum(|layer| layer.0), sum(|layer| layer.1));
        write!(f, "{} of {} MB", had / MB, wanted / MB)?;
        f.write_str(if self.unpacking { ", unpacking" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status_code: u16, message: &str) -> String {
        let reference = "reg:5000/hpc/foo:1".parse().unwrap();
        let error =
            bollard::errors::Error::DockerResponseServerError { status_code, message: message.into() };
        denied(pull_error(&reference, error), Some(NoLogin::Unknown)).to_string()
    }

    #[test]
    fn layers_of_any_size_are_added_up() {
        let mut layers = Layers::default();
        layers.downloads.insert("a".to_owned(), (3_000_000, i64::MAX));
        layers.downloads.insert("b".to_owned(), (1_500_000, i64::MAX));
        assert_eq!(layers.to_string(), "4 of 9223372036854 MB");
    }

    #[test]
    fn what_a_user_reads_when_a_pull_fails() {
        let cases = [
            (
                404,
                "manifest for reg:5000/hpc/foo:1 not found: manifest unknown: manifest unknown",
                "image 'hpc/foo:1': not found in registry 'reg:5000'",
            ),
            (
                500,
                "Head \"http://reg:5000/v2/hpc/foo/manifests/1\": no basic auth credentials",
                "image 'hpc/foo:1': registry 'reg:5000' denies access without a login: log in with 'docker login', or put an entry for it into ~/.docker/config.json",
            ),
            (
                500,
                "Get \"http://reg:5000/v2/\": dial tcp: lookup reg: no such host",
                "image 'hpc/foo:1': registry 'reg:5000' cannot be reached: no such host",
            ),
            (
                500,
                "unexpected EOF",
                "image 'hpc/foo:1': registry 'reg:5000' cannot be reached: unexpected EOF",
            ),
            (
                404,
                "no matching manifest for linux/amd64 in the manifest list entries",
                "image 'hpc/foo:1': registry 'reg:5000' has it for other kinds of processors only, this node is 'amd64'",
            ),
            (
                500,
                "write /var/lib/docker/tmp/x: no space left on device",
                "image 'reg:5000/hpc/foo:1': no space left on the disk of this node's engine: ask the admin to free some",
            ),
            (
                500,
                "filesystem layer verification failed for digest sha256:00",
                "image 'hpc/foo:1': damaged in registry 'reg:5000': push it again",
            ),
            (
                500,
                "toomanyrequests: You have reached your pull rate limit",
                "image 'hpc/foo:1': cannot be pulled from registry 'reg:5000': toomanyrequests: You have reached your pull rate limit",
            ),
        ];
        for (status, words, line) in cases {
            assert_eq!(told(status, words), line.replace("amd64", architecture()));
        }
    }
}

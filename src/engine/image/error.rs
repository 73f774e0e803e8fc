//! Why there is no image, derived from the messages of engines and registries.

use std::io;
use std::time::Duration;

use crate::engine::connection::{EngineError, one_line};
use crate::engine::registry_auth::NoLogin;
use crate::settings::image::Reference;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The policy is `pull=never`, and the image is not present.
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
    /// The image was here, or had just been pulled, and was removed. An admin's `docker image prune` keeps only
    /// images that a container uses.
    #[error(
        "image '{image}': deleted from this node before its container was created (docker image prune?): submit again"
    )]
    Gone {
        /// As the user wrote it.
        image: String,
    },
    /// An id can name only an image that is present: there is no registry to ask.
    #[error("image '{image}': no image on this node has this id; to pull it, name it by repository and tag")]
    UnknownId {
        /// As the user wrote it.
        image: String,
    },
    /// The registry requires a login.
    #[error("image '{image}': registry '{registry}' denies access without a login: {why}")]
    NoLogin {
        /// Without the registry.
        image: String,
        /// Host and port.
        registry: String,
        /// Why the plugin has no login.
        why: NoLogin,
    },
    /// The registry refuses this login.
    #[error(
        "image '{image}': registry '{registry}' denies access with your login in ~/.docker/config.json: log in again, or ask for permission to pull this image"
    )]
    Denied {
        /// Without the registry.
        image: String,
        /// Host and port.
        registry: String,
    },
    /// The registry limits how much is pulled: of a login, or of an address, which all nodes behind a router share.
    #[error(
        "image '{image}': registry '{registry}' allows no more pulls for now: {}submit again later, or ask the admin for a mirror",
        higher_limit(why.as_ref())
    )]
    Limited {
        /// Without the registry.
        image: String,
        /// Host and port.
        registry: String,
        /// Why there is no login, for which the limit may be higher.
        why: Option<NoLogin>,
        /// The engine's message.
        #[source]
        words: PullText,
    },
    /// The image is present, for users who may pull it; whether this user may is not known.
    #[error(
        "image '{image}': private, and registry '{registry}' cannot confirm that you may use it: {}", words.reason()
    )]
    Unchecked {
        /// As the user wrote it.
        image: String,
        /// Host and port.
        registry: String,
        /// The engine's message.
        #[source]
        words: PullText,
    },
    /// The same, and there is no registry to ask.
    #[error(
        "image '{image}': private, and this node knows no registry name of it: name it by repository and tag"
    )]
    Nameless {
        /// As the user wrote it.
        image: String,
    },
    /// The plugin's own records of pulls of private images fail.
    #[error("cannot record in state_dir which private images are being pulled: ask the admin")]
    Pulls(#[source] io::Error),
    /// The registry cannot be reached.
    #[error("image '{image}': registry '{registry}' cannot be reached: {}", words.reason())]
    Unreachable {
        /// Without the registry.
        image: String,
        /// Host and port.
        registry: String,
        /// The engine's message.
        #[source]
        words: PullText,
    },
    /// The engine's disk is full.
    #[error("image '{image}': no space left on the disk of this node's engine: ask the admin to free some")]
    NoSpace {
        /// As the user wrote it.
        image: String,
    },
    /// The image's configuration is too long.
    #[error(
        "image '{image}': its ENV, LABEL, VOLUME and ENTRYPOINT are larger than 1 MiB together: build it with less"
    )]
    Configuration {
        /// As the user wrote it.
        image: String,
    },
    /// What each list of containers has of the image is too long.
    #[error(
        "image '{image}': the names of its LABELs and its VOLUMEs are larger than 32 KiB together: build it with fewer"
    )]
    Listed {
        /// As the user wrote it.
        image: String,
    },
    /// The image is for another architecture.
    #[error("image '{image}': built for '{architecture}', this node is '{node}'")]
    Architecture {
        /// As the user wrote it.
        image: String,
        /// The image's architecture, in Go's names.
        architecture: String,
        /// This node's architecture.
        node: &'static str,
    },
    /// The registry has the image only for other architectures.
    #[error("image '{image}': not available for this node's architecture '{node}' in registry '{registry}'")]
    Architectures {
        /// Without the registry.
        image: String,
        /// Host and port.
        registry: String,
        /// This node's architecture.
        node: &'static str,
    },
    /// The registry's content does not match the registry's own manifest.
    #[error("image '{image}': damaged in registry '{registry}': push it again")]
    Damaged {
        /// Without the registry.
        image: String,
        /// Host and port.
        registry: String,
        /// The engine's message.
        #[source]
        words: PullText,
    },
    /// The job that requested the image does not need it any more.
    #[error("image '{image}': no longer needed, the pull was cancelled")]
    NotWanted {
        /// As the user wrote it.
        image: String,
    },
    /// Any other error of a pull.
    #[error("image '{image}': cannot be pulled from registry '{registry}': {message}")]
    Pull {
        /// Without the registry.
        image: String,
        /// Host and port.
        registry: String,
        /// The engine's message.
        message: String,
    },
    /// The engine does not take the image that is in a file.
    #[error("image '{image}': the engine cannot load it: {message}: save it again")]
    FileContent {
        /// As the user wrote it.
        image: String,
        /// The engine's message.
        message: String,
    },
    /// The engine itself failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// The engine's message about a pull, on one line: each layer of the engine prepends its own words to the
/// cause.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PullText(String);

impl PullText {
    /// The cause: the last part of the message.
    fn reason(&self) -> &str {
        self.0.rsplit(": ").next().unwrap_or(&self.0)
    }
}

/// The registry does not have the image.
pub(super) fn not_found(reference: &Reference) -> ImageError {
    ImageError::NotFound {
        image: reference.without_registry().to_owned(),
        registry: reference.registry().to_owned(),
    }
}

/// The registry does not answer, while the engine works.
pub(super) fn silent_registry(reference: &Reference, limit: Duration) -> ImageError {
    ImageError::Unreachable {
        image: reference.without_registry().to_owned(),
        registry: reference.registry().to_owned(),
        words: PullText(format!("no answer within {} s", limit.as_secs())),
    }
}

/// The engine passes the registry's message on, with a status that does not distinguish the cases (500 for a
/// refused login as well as for an unreachable registry): so the words of the message decide.
pub(super) fn pull_error(reference: &Reference, error: bollard::errors::Error) -> ImageError {
    use bollard::errors::Error;
    match error {
        // Uses the whole text, before it is shortened to a line.
        Error::DockerResponseServerError { message: words, .. }
        | Error::DockerStreamError { error: words } => ImageError::in_words(reference, &words),
        other => EngineError::new("pull the image", other).into(),
    }
}

impl ImageError {
    /// Whether the image's configuration keeps every container from having it.
    pub(super) fn is_of_configuration(&self) -> bool {
        matches!(self, Self::Configuration { .. } | Self::Listed { .. })
    }

    /// Whether a registry may answer so because the user has not logged in: some report a private image as not
    /// found.
    pub(super) fn may_be_for_lack_of_a_login(&self) -> bool {
        matches!(
            self,
            Self::Denied { .. }
                | Self::NoLogin { .. }
                | Self::Limited { .. }
                | Self::NotFound { .. }
                | Self::Pull { .. }
        )
    }

    /// The error for a message that `docker pull` would print for `reference`.
    #[must_use]
    pub fn in_words(reference: &Reference, words: &str) -> Self {
        // The cause comes last, perhaps beyond the part that is shown.
        let lower = words.to_lowercase();
        let words = one_line(words);
        let (image, registry) = (reference.without_registry().to_owned(), reference.registry().to_owned());
        let says = |some: &[&str]| some.iter().any(|phrase| lower.contains(phrase));
        if says(&["no space left", "disk quota exceeded"]) {
            Self::NoSpace { image: reference.to_string() }
        } else if says(&["toomanyrequests", "too many requests", "http 429"]) {
            // The registry's code and moby's, containerd's and Podman's words for the status, and moby's for an answer without a
            // body (distribution, registry/client/errors.go; containerd, core/remotes/errors; containers/image, docker).
            Self::Limited { image, registry, why: None, words: PullText(words) }
        } else if says(&["no basic auth", "unauthorized", "authentication required", "denied:", "forbidden"])
        {
            Self::Denied { image, registry }
        } else if says(&["no matching manifest", "no image found in manifest list", "no match for platform"])
        {
            Self::Architectures { image, registry, node: architecture() }
        } else if says(&[
            "manifest unknown",
            "name unknown",
            "not found",
            "does not exist",
            "repository name not known",
        ]) {
            not_found(reference)
        } else if says(&[
            "verification failed",
            "unexpected digest",
            "unexpected commit digest",
            "invalid checksum",
            "digest did not match",
        ]) {
            Self::Damaged { image, registry, words: PullText(words) }
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
            Self::Unreachable { image, registry, words: PullText(words) }
        } else {
            Self::Pull { image, registry, message: words }
        }
    }
}

/// What a user without a login can do against a registry's limit.
fn higher_limit(why: Option<&NoLogin>) -> String {
    match why {
        None => String::new(),
        Some(NoLogin::Unknown) => "log in with 'docker login', ".to_owned(),
        Some(why) => format!("{why}; or "),
    }
}

/// A denied access, to a user without a login (`why`), or with one.
pub(super) fn denied(error: ImageError, why: Option<NoLogin>) -> ImageError {
    match (error, why) {
        (ImageError::Denied { image, registry }, Some(why)) => ImageError::NoLogin { image, registry, why },
        (ImageError::Limited { image, registry, words, .. }, why) => {
            ImageError::Limited { image, registry, why, words }
        }
        (error, _) => error,
    }
}

/// This machine's architecture in Go's names, which images use.
#[must_use]
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_is_explained_by_what_is_wrong_with_the_login() {
        let limited = |why| {
            let words = PullText("toomanyrequests".to_owned());
            let error = ImageError::Limited { image: "a".into(), registry: "r".into(), why: None, words };
            denied(error, why).to_string()
        };
        let text = |login: &str| {
            format!(
                "image 'a': registry 'r' allows no more pulls for now: {login}submit again later, or ask the admin for a mirror"
            )
        };
        assert_eq!(limited(None), text(""));
        assert_eq!(limited(Some(NoLogin::Unknown)), text("log in with 'docker login', "));
        let file = NoLogin::File("cannot be read");
        assert_eq!(limited(Some(file)), text("~/.docker/config.json cannot be read; or "));
    }

    fn told(status_code: u16, message: &str) -> String {
        let reference = "reg:5000/hpc/foo:1".parse().unwrap();
        let error =
            bollard::errors::Error::DockerResponseServerError { status_code, message: message.into() };
        denied(pull_error(&reference, error), Some(NoLogin::Unknown)).to_string()
    }

    #[test]
    fn cause_is_found_at_the_end_of_a_long_error() {
        let reference = "reg:5000/hpc/foo:1".parse().unwrap();
        let words = format!("writing blob: {}: no space left on device", "x ".repeat(300));
        assert!(matches!(ImageError::in_words(&reference, &words), ImageError::NoSpace { .. }));
    }

    #[test]
    fn limit_of_a_registry_names_what_helps() {
        let reference = "docker.io/foo:1".parse().unwrap();
        for words in [
            "toomanyrequests: You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit",
            "error parsing HTTP 429 response body: unexpected end of JSON input: \"\"",
            "unexpected status from HEAD request to https://registry-1.docker.io/v2/library/foo/manifests/1: 429 Too Many Requests",
            "initializing source docker://foo:1: reading manifest 1 in docker.io/library/foo: too many requests to registry",
        ] {
            let error = ImageError::in_words(&reference, words);
            let line = "registry 'docker.io' allows no more pulls for now: submit again later, or ask the admin for a mirror";
            assert!(error.to_string().ends_with(line), "{error}");
            assert!(error.may_be_for_lack_of_a_login(), "{words}");
        }
    }

    #[test]
    fn messages_of_a_failed_pull_name_image_and_registry() {
        let cases = [
            (
                404,
                "manifest for reg:5000/hpc/foo:1 not found: manifest unknown: manifest unknown",
                "image 'hpc/foo:1': not found in registry 'reg:5000'",
            ),
            (
                500,
                "Head \"http://reg:5000/v2/hpc/foo/manifests/1\": no basic auth credentials",
                "image 'hpc/foo:1': registry 'reg:5000' denies access without a login: log in with 'docker login', or add an entry for it to ~/.docker/config.json",
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
                "image 'hpc/foo:1': not available for this node's architecture 'amd64' in registry 'reg:5000'",
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
            // The same two cases in Podman's words.
            (
                500,
                "no image found in manifest list for architecture \"amd64\", variant \"\", OS \"linux\"",
                "image 'hpc/foo:1': not available for this node's architecture 'amd64' in registry 'reg:5000'",
            ),
            (
                500,
                "happened during read: Digest did not match, expected sha256:0c, got sha256:af",
                "image 'hpc/foo:1': damaged in registry 'reg:5000': push it again",
            ),
            // The same cases in the words of an engine with containerd's image store.
            (
                404,
                "no match for platform in manifest: not found",
                "image 'hpc/foo:1': not available for this node's architecture 'amd64' in registry 'reg:5000'",
            ),
            (
                500,
                "failed commit on ref \"layer-sha256:99\": commit failed: unexpected commit digest sha256:da, expected sha256:99: failed precondition",
                "image 'hpc/foo:1': damaged in registry 'reg:5000': push it again",
            ),
            (
                500,
                "toomanyrequests: You have reached your pull rate limit",
                "image 'hpc/foo:1': registry 'reg:5000' allows no more pulls for now: log in with 'docker login', submit again later, or ask the admin for a mirror",
            ),
            (
                500,
                "received unexpected HTTP status: 418 I'm a teapot",
                "image 'hpc/foo:1': cannot be pulled from registry 'reg:5000': received unexpected HTTP status: 418 I'm a teapot",
            ),
        ];
        for (status, words, line) in cases {
            assert_eq!(told(status, words), line.replace("amd64", architecture()));
        }
    }
}

//! A valid reference, and what it means to Docker.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::ReferenceError;
use super::grammar::{DOCKER_HUB, Meaning, meaning};

/// Longer than any reference that the grammar and a registry allow.
const MAX_TEXT: usize = 1024;
/// `sha256:` and 64 digits.
const FULL_ID: usize = 71;
/// The tag of names without one.
const LATEST: &str = "latest";

/// A valid reference to an image. Displayed and stored as the user wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    pub(super) text: String,
    pub(super) meaning: Meaning,
}

impl Reference {
    /// The registry that the image comes from: `docker.io` when the text names none. An image id has no registry
    /// either, nor has a file: neither is pulled by this name.
    pub fn registry(&self) -> &str {
        match &self.meaning {
            Meaning::Id(_) | Meaning::File => DOCKER_HUB,
            Meaning::Named { registry, .. } => registry,
        }
    }

    /// Whether this is the id of an image, which an engine cannot pull.
    pub fn is_id(&self) -> bool {
        matches!(self.meaning, Meaning::Id(_))
    }

    /// Whether an image with this id can be meant. An engine looks for names first: of an id of this kind it may
    /// know a name.
    pub fn admits(&self, id: &str) -> bool {
        !matches!(&self.meaning, Meaning::Id(start) if !id.starts_with(start.as_str()))
    }

    /// The path of the file or directory that holds the image, if it is not in a registry.
    pub fn file(&self) -> Option<&Path> {
        matches!(self.meaning, Meaning::File).then(|| Path::new(&self.text))
    }

    /// Whether it may mean another image on another node, or tomorrow: a tag, or a file.
    pub fn may_differ(&self) -> bool {
        matches!(self.meaning, Meaning::Named { digest: None, .. } | Meaning::File)
    }

    /// The name for the engine: the text, with `:latest` when it has neither tag nor digest.
    ///
    /// Without the tag, an engine would pull every tag of the name, and would take a name of hex digits for the beginning of an
    /// image id; likewise a tag of hex digits after `sha256:`, which is a complete name.
    pub fn engine_name(&self) -> Cow<'_, str> {
        match &self.meaning {
            // Podman takes the beginning of an id only without its algorithm (pkg/api/handlers/utils/images.go,
            // `NormalizeToDockerHub`).
            Meaning::Id(id) if id.len() < FULL_ID => Cow::Borrowed(id.trim_start_matches("sha256:")),
            Meaning::Id(id) => Cow::Borrowed(id),
            Meaning::File => Cow::Borrowed(&self.text),
            Meaning::Named { .. } if self.text.starts_with("sha256:") => Cow::Owned(self.full_name()),
            Meaning::Named { tag: None, digest: None, .. } => Cow::Owned(format!("{}:{LATEST}", self.text)),
            Meaning::Named { .. } => Cow::Borrowed(&self.text),
        }
    }

    /// The normalized name without tag and digest: `docker.io/library/ubuntu`. An id has none, nor has a file.
    pub fn repository(&self) -> Option<String> {
        match &self.meaning {
            Meaning::Id(_) | Meaning::File => None,
            Meaning::Named { registry, name, .. } => Some(format!("{registry}/{name}")),
        }
    }

    /// The text without the registry, for messages that name the registry separately.
    pub fn without_registry(&self) -> &str {
        match &self.meaning {
            Meaning::Id(_) | Meaning::File => &self.text,
            Meaning::Named { prefix, .. } => &self.text[*prefix..],
        }
    }

    /// Whether both mean the same image, as `ubuntu` and `docker.io/library/ubuntu:latest` do. A tag next to a digest is
    /// ignored.
    pub fn same_as(&self, other: &Self) -> bool {
        match (&self.meaning, &other.meaning) {
            (Meaning::Id(one), Meaning::Id(other)) => one.starts_with(other) || other.starts_with(one),
            _ => self.full_name() == other.full_name(),
        }
    }

    /// The normalized name: `docker.io/library/ubuntu:latest`. With a digest the tag is left out, as the engine then reads only
    /// the digest.
    pub fn full_name(&self) -> String {
        match &self.meaning {
            Meaning::Id(id) => id.clone(),
            Meaning::File => self.text.clone(),
            Meaning::Named { registry, name, tag, digest, .. } => match digest {
                Some(digest) => format!("{registry}/{name}@{digest}"),
                None => format!("{registry}/{name}:{}", tag.as_deref().unwrap_or(LATEST)),
            },
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if text.len() > MAX_TEXT {
            return Err(ReferenceError::Long(text.into()));
        }
        Ok(Self { text: text.to_owned(), meaning: meaning(text)? })
    }
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.text
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use glob::Pattern;
    use proptest::prelude::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn image(text: &str) -> Reference {
        text.parse().unwrap()
    }

    fn refused(text: &str) -> String {
        text.parse::<Reference>().unwrap_err().to_string()
    }

    #[test]
    fn the_parts_are_found_as_docker_finds_them() {
        for (text, registry, engine, short, full) in [
            ("ubuntu", "docker.io", "ubuntu:latest", "ubuntu", "docker.io/library/ubuntu:latest"),
            (
                "yakser/centos_mpi",
                "docker.io",
                "yakser/centos_mpi:latest",
                "yakser/centos_mpi",
                "docker.io/yakser/centos_mpi:latest",
            ),
            ("reg:5000/foo:1", "reg:5000", "reg:5000/foo:1", "foo:1", "reg:5000/foo:1"),
            ("localhost/foo", "localhost", "localhost/foo:latest", "foo", "localhost/foo:latest"),
            ("Reg/foo", "Reg", "Reg/foo:latest", "foo", "Reg/foo:latest"),
            ("[::1]:5000/a/b", "[::1]:5000", "[::1]:5000/a/b:latest", "a/b", "[::1]:5000/a/b:latest"),
            ("index.docker.io/a", "docker.io", "index.docker.io/a:latest", "a", "docker.io/library/a:latest"),
            (
                "sha256:3fd9",
                "docker.io",
                "docker.io/library/sha256:3fd9",
                "sha256:3fd9",
                "docker.io/library/sha256:3fd9",
            ),
            ("a.b:1.0_x-", "docker.io", "a.b:1.0_x-", "a.b:1.0_x-", "docker.io/library/a.b:1.0_x-"),
        ] {
            let image = image(text);
            assert_eq!(image.registry(), registry);
            assert_eq!(image.engine_name(), engine);
            assert_eq!(image.without_registry(), short);
            assert_eq!(image.full_name(), full);
            assert_eq!(image.to_string(), text);
            assert!(!image.is_id());
        }
    }

    #[test]
    fn a_digest_or_an_id_is_kept() {
        let pinned = image(&format!("reg.org/foo:1@sha256:{HEX}"));
        assert_eq!(pinned.engine_name(), format!("reg.org/foo:1@sha256:{HEX}"));
        assert_eq!(pinned.without_registry(), format!("foo:1@sha256:{HEX}"));
        assert!(pinned.same_as(&image(&format!("reg.org/foo@sha256:{HEX}"))));
        for id in [HEX.to_owned(), format!("sha256:{HEX}")] {
            assert!(image(&id).is_id());
            assert_eq!(image(&id).engine_name(), format!("sha256:{HEX}"));
            assert_eq!(image(&id).without_registry(), id);
        }
        for short in ["0123456789ab", "sha256:0123456789ab", &HEX[..63]] {
            let short = image(short);
            assert!(short.is_id() && short.admits(&format!("sha256:{HEX}")) && short.same_as(&image(HEX)));
            assert!(HEX.starts_with(&*short.engine_name()) && image(&short.engine_name()).same_as(&short));
            assert!(!short.admits("sha256:0123456789ac") && !short.admits("sha256:0123"));
            assert!(!short.allowed_by(&[Pattern::new("docker.io/*").unwrap()]));
        }
        for name in ["0123456789a", "0123456789ab:latest", "library/0123456789ab", "0123456789ag"] {
            assert!(!image(name).is_id() && image(name).admits(HEX));
        }
        image(&format!("a@sha512:{HEX}{HEX}"));
    }

    #[test]
    fn a_path_is_a_file() {
        for path in ["/", "/home/alice/app.tar", "./app.tar", "./a b/É:1@x"] {
            let file = image(path);
            assert_eq!(file.file(), Some(Path::new(path)));
            assert!(file.may_differ() && !file.is_id() && file.repository().is_none());
            assert!(file.same_as(&image(path)) && !file.same_as(&image("./other.tar")));
        }
        assert_eq!(image("app.tar").file(), None);
    }

    #[test]
    fn equal_images_are_the_same() {
        for (one, other) in [
            ("ubuntu", "docker.io/library/ubuntu:latest"),
            ("ubuntu:latest", "index.docker.io/ubuntu"),
            ("a/b", "docker.io/a/b"),
            (HEX, &format!("sha256:{HEX}")),
        ] {
            assert!(image(one).same_as(&image(other)));
        }
        for (one, other) in
            [("ubuntu", "ubuntu:1"), ("reg:1/a", "reg:2/a"), ("a", "b"), ("reg:5000/ubuntu", "ubuntu")]
        {
            assert!(!image(one).same_as(&image(other)));
        }
    }

    #[test]
    fn malformed_reference_is_refused_with_the_wrong_part() {
        assert_eq!(refused(""), "'' is not an image: use [registry[:port]/]name[:tag][@digest]");
        assert_eq!(refused("Ubuntu"), "'Ubuntu' is not an image: the name 'Ubuntu' must be lower case");
        assert_eq!(
            refused("a b"),
            "'a b' is not an image: 'a b' is not a name, \
             use lower-case letters and digits, with '.', '_', '-' or '/' between them"
        );
        assert_eq!(
            refused("-reg.org/a"),
            "'-reg.org/a' is not an image: '-reg.org' is not a registry, use host or host:port"
        );
        assert_eq!(
            refused("a:.1"),
            "'a:.1' is not an image: '.1' is not a tag, \
             use up to 128 letters, digits, '_', '.' and '-', not starting with '.' or '-'"
        );
        assert_eq!(
            refused("a@sha256:12"),
            "'a@sha256:12' is not an image: 'sha256:12' is not a digest, use sha256: and 64 lower-case hex digits"
        );
        let long = format!("'{}...' is not an image: ", "a".repeat(77));
        assert_eq!(refused(&"a".repeat(1 << 20)), format!("{long}it is longer than 1024 bytes"));
        assert_eq!(refused(&"a".repeat(248)), format!("{long}the name is longer than 255 characters"));
        image(&"a".repeat(247));
        image(&format!("reg.org/{}", "a".repeat(255)));
    }

    #[test]
    fn hostile_values_are_refused_on_one_line() {
        for bad in [
            "../a.tar",
            "/a\n",
            "./\u{1b}[0m",
            "a/",
            "a//b",
            "a:",
            "a@",
            ":",
            "@",
            "a_",
            "_a",
            "a..b",
            "a___b",
            "a._b",
            "a\0",
            "a\n",
            "a:b\n",
            "a:1:2",
            "a@b@c",
            "docker.io/",
            "http://a/b",
            "reg:/a",
            "reg:x/a",
            "a.-b/c",
            "[]:5/a",
            "[::1/a",
            "::1]/a",
            "é",
            "a:é",
            "É/a",
            "a/../b",
            "--privileged",
            "a@sha256:0123456789ABCDEF",
            "docker://a",
        ] {
            assert!(!refused(bad).contains('\n'), "{bad}");
        }
    }

    #[test]
    fn a_stored_reference_is_checked_again() {
        let stored = serde_json::to_string(&image("reg:5000/foo")).unwrap();
        assert_eq!(stored, r#""reg:5000/foo""#);
        assert_eq!(serde_json::from_str::<Reference>(&stored).unwrap(), image("reg:5000/foo"));
        assert!(serde_json::from_str::<Reference>(r#""a b""#).is_err());
    }

    /// A host name that is a registry, or nothing.
    const REGISTRY: &str = "((([a-zA-Z0-9]([a-zA-Z0-9-]{0,5}[a-zA-Z0-9])?\\.){1,3}[a-z]{2,3}\
                            |\\[[0-9a-f]{0,4}:[0-9a-f:]{1,5}\\])(:[0-9]{1,5})?/)?";
    /// A name; the first component has no dot, which would make it a registry.
    const NAME: &str = "[a-z0-9]{1,4}((_|__|-{1,3})[a-z0-9]{1,4}){0,2}\
                        (/[a-z0-9]{1,4}((\\.|_|__|--)[a-z0-9]{1,2}){0,2}){0,2}";

    proptest! {
        #[test]
        fn valid_reference_round_trips(
            registry in REGISTRY, name in NAME,
            tag in "(:[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127})?", digest in "(@sha256:[0-9a-f]{64})?",
        ) {
            let text = format!("{registry}{name}{tag}{digest}");
            let image = text.parse::<Reference>();
            prop_assert!(image.is_ok(), "{:?}", image);
            let image = image.unwrap();
            prop_assert_eq!(image.to_string(), text);
            prop_assert_eq!(image.without_registry(), format!("{name}{tag}{digest}"));
            let again: Reference = image.engine_name().parse().unwrap();
            prop_assert!(again.same_as(&image));
            let full: Reference = image.full_name().parse().unwrap();
            prop_assert!(full.same_as(&image));
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,80}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = text.parse::<Reference>().map(|image| image.allowed_by(&[Pattern::new("a/*").unwrap()]));
            let _ = String::from_utf8_lossy(&bytes).parse::<Reference>();
        }

        #[test]
        fn nearly_right_text_never_panics(text in "[a-zA-Z:/@._\\[\\]é-]{0,40}") {
            if let Ok(image) = text.parse::<Reference>() {
                prop_assert_eq!(image.to_string(), text);
                prop_assert!(image.full_name().parse::<Reference>().is_ok());
            }
        }
    }
}

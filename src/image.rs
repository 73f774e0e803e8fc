//! What the user wrote behind `--docker-image=`: parsed by Docker's own grammar, kept as written.
//!
//! The grammar is that of github.com/distribution/reference with Docker's normalization (`ubuntu` means
//! `docker.io/library/ubuntu:latest`). A reference is checked on the client, so that sbatch can refuse it at once, and
//! again on each node as root, because the client's word is not trusted. Pure.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use glob::Pattern;
use serde::{Deserialize, Serialize};

use crate::shown::Shown;

/// Longer than any reference that the grammar and a registry allow.
const MAX_TEXT: usize = 1024;
/// The longest name, as Docker counts it: with `library/` and without the registry.
const MAX_NAME: usize = 255;
/// The longest tag.
const MAX_TAG: usize = 128;
/// The registry of names that have none.
const DOCKER_HUB: &str = "docker.io";
/// Its former name.
const DOCKER_HUB_ONCE: &str = "index.docker.io";
/// Where names of one component live there.
const OFFICIAL: &str = "library/";
/// The tag of names that have none.
const LATEST: &str = "latest";

/// What can be wrong with a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No text at all.
    #[error("'' is not an image: use [registry[:port]/]name[:tag][@digest]")]
    Empty,
    /// More text than a reference can have.
    #[error("'{0}' is not an image: it is longer than 1024 bytes")]
    Long(Shown),
    /// The part before the first slash looks like a registry, and is none.
    #[error("'{image}' is not an image: '{registry}' is not a registry, use host or host:port")]
    Registry {
        /// What the user wrote.
        image: Shown,
        /// Its part at fault.
        registry: Shown,
    },
    /// A name that would be right in lower case.
    #[error("'{image}' is not an image: the name '{name}' must be lower case")]
    Capitals {
        /// What the user wrote.
        image: Shown,
        /// Its part at fault.
        name: Shown,
    },
    /// Not a name.
    #[error(
        "'{image}' is not an image: '{name}' is not a name, \
         use lower-case letters and digits, with '.', '_', '-' or '/' between them"
    )]
    Name {
        /// What the user wrote.
        image: Shown,
        /// Its part at fault.
        name: Shown,
    },
    /// A name that Docker refuses for its length.
    #[error("'{0}' is not an image: the name is longer than 255 characters")]
    LongName(Shown),
    /// Not a tag.
    #[error(
        "'{image}' is not an image: '{tag}' is not a tag, \
         use up to 128 letters, digits, '_', '.' and '-', not starting with '.' or '-'"
    )]
    Tag {
        /// What the user wrote.
        image: Shown,
        /// Its part at fault.
        tag: Shown,
    },
    /// What an engine would take for the beginning of an id, whatever image that is.
    #[error("'{0}' is not an image: an id has 64 lower-case hex digits behind 'sha256:'")]
    ShortId(Shown),
    /// Not a digest.
    #[error(
        "'{image}' is not an image: '{digest}' is not a digest, use sha256: and 64 lower-case hex digits"
    )]
    Digest {
        /// What the user wrote.
        image: Shown,
        /// Its part at fault.
        digest: Shown,
    },
}

/// A valid reference to an image. Displayed and stored as the user wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    text: String,
    meaning: Meaning,
}

/// What a reference means, in Docker's normalized form.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Meaning {
    /// An image of this node's engine, by its id: `sha256:` and 64 hex digits.
    Id(String),
    /// An image in a registry.
    Named {
        /// Length of the registry and its slash in the text; 0 when it has none.
        prefix: usize,
        registry: String,
        name: String,
        tag: Option<String>,
        digest: Option<String>,
    },
}

impl Reference {
    /// The registry that the image comes from: `docker.io` when the text names none. An image id has no registry
    /// either: it is never pulled.
    pub fn registry(&self) -> &str {
        match &self.meaning {
            Meaning::Id(_) => DOCKER_HUB,
            Meaning::Named { registry, .. } => registry,
        }
    }

    /// Is this the id of an image, which an engine has or has not, and cannot pull?
    pub fn is_id(&self) -> bool {
        matches!(self.meaning, Meaning::Id(_))
    }

    /// Is it named by a tag, which may mean another image tomorrow?
    pub fn is_by_tag(&self) -> bool {
        matches!(self.meaning, Meaning::Named { digest: None, .. })
    }

    /// What the engine is asked for: the text, with `:latest` when it has neither tag nor digest.
    ///
    /// Without the tag, an engine would pull every tag of the name, and would take a name of hex digits for the
    /// beginning of an image id.
    pub fn engine_name(&self) -> Cow<'_, str> {
        match &self.meaning {
            Meaning::Id(id) => Cow::Borrowed(id),
            Meaning::Named { tag: None, digest: None, .. } => Cow::Owned(format!("{}:{LATEST}", self.text)),
            Meaning::Named { .. } => Cow::Borrowed(&self.text),
        }
    }

    /// The normalized name without tag and digest: `docker.io/library/ubuntu`. An id has none.
    pub fn repository(&self) -> Option<String> {
        match &self.meaning {
            Meaning::Id(_) => None,
            Meaning::Named { registry, name, .. } => Some(format!("{registry}/{name}")),
        }
    }

    /// The text without the registry, for messages that name the registry themselves.
    pub fn without_registry(&self) -> &str {
        match &self.meaning {
            Meaning::Id(_) => &self.text,
            Meaning::Named { prefix, .. } => &self.text[*prefix..],
        }
    }

    /// Do both mean the same image? `ubuntu` and `docker.io/library/ubuntu:latest` do. Next to a digest a tag means
    /// nothing.
    pub fn same_as(&self, other: &Self) -> bool {
        self.full_name() == other.full_name()
    }

    /// The normalized name: `docker.io/library/ubuntu:latest`. With a digest the tag is left out, as the engine
    /// looks only at the digest then.
    pub fn full_name(&self) -> String {
        match &self.meaning {
            Meaning::Id(id) => id.clone(),
            Meaning::Named { registry, name, tag, digest, .. } => match digest {
                Some(digest) => format!("{registry}/{name}@{digest}"),
                None => format!("{registry}/{name}:{}", tag.as_deref().unwrap_or(LATEST)),
            },
        }
    }

    /// May this image be used where the configuration allows only what these globs match? None allow everything.
    ///
    /// A glob is compared with the normalized name (`docker.io/alice/app:latest`), for Docker Hub also with what users
    /// write (`alice/app:latest`), with and without `:latest`, and with the text itself. Before the first slash a
    /// `*` does not match a slash, or `ubuntu*` would allow `ubuntu.evil.org/anything`; behind it, it does:
    /// `reg:5000/*` allows everything in that registry. `*` alone allows everything.
    pub fn allowed_by(&self, globs: &[Pattern]) -> bool {
        globs.is_empty() || self.names().iter().any(|name| globs.iter().any(|glob| glob_matches(glob, name)))
    }

    /// The names by which `allowed_by` knows this image.
    fn names(&self) -> Vec<String> {
        let full = self.full_name();
        let mut names = Vec::with_capacity(6);
        if let Meaning::Named { digest, tag, .. } = &self.meaning {
            // The engine ignores a tag next to a digest: `app:1@sha256:…` is no `app:1`.
            if digest.is_none() || tag.is_none() {
                names.push(self.text.clone());
            }
            if let Some(path) = full.strip_prefix("docker.io/") {
                names.push(path.to_owned());
                names.extend(
                    path.strip_prefix(OFFICIAL).filter(|name| !name.contains('/')).map(str::to_owned),
                );
            }
        }
        names.push(full);
        let untagged: Vec<_> =
            names.iter().filter_map(|name| name.strip_suffix(":latest")).map(str::to_owned).collect();
        names.extend(untagged);
        names
    }
}

/// Does the glob match, with its part before the first slash matching the name's part before the first slash?
fn glob_matches(glob: &Pattern, name: &str) -> bool {
    let matches = |glob: &str, name: &str| Pattern::new(glob).is_ok_and(|glob| glob.matches(name));
    match (glob.as_str().split_once('/'), name.split_once('/')) {
        _ if matches!(glob.as_str(), "*" | "**") => true,
        (Some((glob_first, glob_rest)), Some((first, rest))) => {
            matches(glob_first, first) && matches(glob_rest, rest)
        }
        (None, None) => glob.matches(name),
        _ => false,
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Err(Error::Empty);
        }
        if text.len() > MAX_TEXT {
            return Err(Error::Long(text.into()));
        }
        let meaning = match image_id(text) {
            Some(id) => Meaning::Id(id),
            None => named(text)?,
        };
        Ok(Self { text: text.to_owned(), meaning })
    }
}

impl TryFrom<String> for Reference {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
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

/// The whole text as an image id.
fn image_id(text: &str) -> Option<String> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    is_hex(hex, 64).then(|| format!("sha256:{hex}"))
}

/// The text as `[registry/]name[:tag][@digest]`.
fn named(text: &str) -> Result<Meaning, Error> {
    let image = || Shown::from(text);
    let (rest, digest) = match text.split_once('@') {
        None => (text, None),
        Some((rest, digest)) => (rest, Some(digest)),
    };
    let registry = registry_of(rest);
    let prefix = registry.map_or(0, |registry| registry.len() + 1);
    let (name, tag) = match rest[prefix..].split_once(':') {
        None => (&rest[prefix..], None),
        Some((name, tag)) => (name, Some(tag)),
    };
    if let Some(registry) = registry.filter(|registry| !is_registry(registry)) {
        return Err(Error::Registry { image: image(), registry: registry.into() });
    }
    if !is_name(name) {
        let capitals = is_name(&name.to_ascii_lowercase());
        let (image, name) = (image(), name.into());
        return Err(if capitals { Error::Capitals { image, name } } else { Error::Name { image, name } });
    }
    if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
        return Err(Error::Tag { image: image(), tag: tag.into() });
    }
    if registry.is_none() && name == "sha256" && tag.is_some() {
        return Err(Error::ShortId(image()));
    }
    if let Some(digest) = digest.filter(|digest| !is_digest(digest)) {
        return Err(Error::Digest { image: image(), digest: digest.into() });
    }
    let registry = match registry {
        None | Some(DOCKER_HUB_ONCE) => DOCKER_HUB,
        Some(registry) => registry,
    };
    let official = registry == DOCKER_HUB && !name.contains('/');
    let name = if official { format!("{OFFICIAL}{name}") } else { name.to_owned() };
    if name.len() > MAX_NAME {
        return Err(Error::LongName(image()));
    }
    Ok(Meaning::Named {
        prefix,
        registry: registry.to_owned(),
        name,
        tag: tag.map(str::to_owned),
        digest: digest.map(str::to_owned),
    })
}

/// The part before the first slash, when it can only be a registry: `localhost`, or with a dot, a colon or a capital.
fn registry_of(text: &str) -> Option<&str> {
    let (first, _) = text.split_once('/')?;
    let registry = first == "localhost" || first.contains(['.', ':']) || first.contains(char::is_uppercase);
    registry.then_some(first)
}

/// `host`, `host:port` or `[IPv6]:port`.
fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rfind(']') {
        Some(end) => text.split_at(end + 1),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port_ok = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    let host_ok = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'),
        None => host.split('.').all(is_host_label),
    };
    port_ok && host_ok
}

/// Letters and digits, with dashes only between them.
fn is_host_label(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Components with slashes between them.
fn is_name(text: &str) -> bool {
    text.split('/').all(is_name_component)
}

/// Lower-case letters and digits, with separators between them: one dot, one or two underscores, any number of dashes.
fn is_name_component(text: &str) -> bool {
    let atom = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let separators_ok = text
        .split(|c: char| c.is_ascii() && atom(c as u8))
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-'));
    separators_ok && text.bytes().next().is_some_and(atom) && text.bytes().next_back().is_some_and(atom)
}

/// Letters, digits and underscores, behind the first one also dots and dashes.
fn is_tag(text: &str) -> bool {
    text.len() <= MAX_TAG
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        && !text.starts_with(['.', '-'])
        && !text.is_empty()
}

/// One of the algorithms that engines know, with as many hex digits as it has.
fn is_digest(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, hex)| match algorithm {
        "sha256" => is_hex(hex, 64),
        "sha384" => is_hex(hex, 96),
        "sha512" => is_hex(hex, 128),
        _ => false,
    })
}

/// So many hex digits in lower case.
fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
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
        image(&format!("a@sha512:{HEX}{HEX}"));
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
    fn what_is_no_reference_is_refused_with_the_part_at_fault() {
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
            "/a",
            "a/",
            "a//b",
            "a:",
            "a@",
            ":",
            "@",
            "/",
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
            "../a",
            "a/../b",
            "--privileged",
            "a@sha256:0123456789ABCDEF",
            "docker://a",
        ] {
            assert!(!refused(bad).contains('\n'), "{bad}");
        }
    }

    #[test]
    fn the_globs_of_the_configuration_decide() {
        let allowed = |text: &str, globs: &[&str]| {
            let globs: Vec<_> = globs.iter().map(|glob| Pattern::new(glob).unwrap()).collect();
            image(text).allowed_by(&globs)
        };
        for (text, glob) in [
            ("alice/app", "alice/*"),
            ("docker.io/alice/app", "alice/*"),
            ("alice/app:1", "docker.io/alice/*"),
            ("ubuntu", "ubuntu"),
            ("ubuntu", "docker.io/library/*"),
            ("docker.io/library/ubuntu:latest", "ubuntu"),
            ("ubuntu:22.04", "ubuntu:*"),
            ("reg:5000/a/b/c:1", "reg:5000/*"),
            ("reg:5000/a", "reg:5000/a"),
            ("reg:5000/a", "*"),
            ("reg:5000/a", "*/a"),
            (HEX, "sha256:*"),
        ] {
            assert!(allowed(text, &[glob]), "{text} {glob}");
            assert!(allowed(text, &["x/*", glob]), "{text} {glob}");
        }
        let pinned = format!("alice/app:1@sha256:{HEX}");
        for (text, glob) in [
            ("ubuntu.evil.org/x", "ubuntu*"),
            ("alice.evil.org/x", "alice*/*"),
            ("bob/app", "alice/*"),
            ("reg:5000/alice/app", "alice/*"),
            ("reg:50001/a", "reg:5000/*"),
            ("ubuntu:22.04", "ubuntu"),
            ("alice/app", "app"),
            (HEX, "alice/*"),
            (HEX, "docker.io/*"),
            (&pinned, "alice/app:*"),
        ] {
            let by_design = (text, glob) == ("alice.evil.org/x", "alice*/*");
            assert_eq!(allowed(text, &[glob]), by_design, "{text} {glob}");
        }
        assert!(allowed(&pinned, &["alice/*"]));
        assert!(allowed("anything/else", &[]));
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
    /// A name; the first component has no dot, or it would be a registry.
    const NAME: &str = "[a-z0-9]{1,4}((_|__|-{1,3})[a-z0-9]{1,4}){0,2}\
                        (/[a-z0-9]{1,4}((\\.|_|__|--)[a-z0-9]{1,2}){0,2}){0,2}";

    proptest! {
        #[test]
        fn what_the_grammar_allows_comes_back_as_it_was(
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

//! Docker's grammar of references: splits a text into its parts.
#![forbid(unsafe_code)]

use super::error::ReferenceError;
use crate::log::escape::Escaped;

/// The longest name, as Docker counts it: with `library/` and without the registry.
const MAX_NAME: usize = 255;
/// The longest tag.
const MAX_TAG: usize = 128;
/// How many digits of an id `docker images` shows: moby's pkg/stringid, `shortLen`.
const SHORT_ID: usize = 12;
/// Docker Hub's former name.
const DOCKER_HUB_ONCE: &str = "index.docker.io";
/// The registry of names without one.
pub const DOCKER_HUB: &str = "docker.io";
/// Docker Hub's directory of names with one component.
pub(super) const OFFICIAL: &str = "library/";

/// What a reference means, in Docker's normalized form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// An image of this node's engine, by its id: `sha256:` and 64 hex digits, or at least the first [`SHORT_ID`] of them.
    Id(String),
    /// An image in a file or a directory: a path that begins with `/` or `./`.
    File,
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

/// Reads a text as a path where it begins like one, which no name does; as an id where it can be one; else as a name.
pub(super) fn meaning(text: &str) -> Result<Meaning, ReferenceError> {
    if text.starts_with('/') || text.starts_with("./") {
        let is_path = !text.chars().any(char::is_control);
        return if is_path { Ok(Meaning::File) } else { Err(ReferenceError::Path(text.into())) };
    }
    if text.starts_with("../") {
        return Err(ReferenceError::Path(text.into()));
    }
    image_id(text).map_or_else(|| named(text), |id| Ok(Meaning::Id(id)))
}

/// The whole text as an image id. A name of that many hex digits needs its tag.
fn image_id(text: &str) -> Option<String> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    ((SHORT_ID..=64).contains(&hex.len()) && is_hex(hex, hex.len())).then(|| format!("sha256:{hex}"))
}

/// The text as `[registry/]name[:tag][@digest]`.
fn named(text: &str) -> Result<Meaning, ReferenceError> {
    let image = || Escaped::from(text);
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
        return Err(ReferenceError::Registry { image: image(), registry: registry.into() });
    }
    if !is_name(name) {
        let capitals = is_name(&name.to_ascii_lowercase());
        let (image, name) = (image(), name.into());
        return Err(if capitals {
            ReferenceError::Capitals { image, name }
        } else {
            ReferenceError::Name { image, name }
        });
    }
    if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
        return Err(ReferenceError::Tag { image: image(), tag: tag.into() });
    }
    if let Some(digest) = digest.filter(|digest| !is_digest(digest)) {
        return Err(ReferenceError::Digest { image: image(), digest: digest.into() });
    }
    let registry = match registry {
        None | Some(DOCKER_HUB_ONCE) => DOCKER_HUB,
        Some(registry) => registry,
    };
    let official = registry == DOCKER_HUB && !name.contains('/');
    let name = if official { format!("{OFFICIAL}{name}") } else { name.to_owned() };
    if name.len() > MAX_NAME {
        return Err(ReferenceError::LongName(image()));
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

/// Letters, digits and underscores, after the first one also dots and dashes.
fn is_tag(text: &str) -> bool {
    text.len() <= MAX_TAG
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        && !text.starts_with(['.', '-'])
        && !text.is_empty()
}

/// An algorithm that engines know, with its number of hex digits.
fn is_digest(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, hex)| match algorithm {
        "sha256" => is_hex(hex, 64),
        "sha384" => is_hex(hex, 96),
        "sha512" => is_hex(hex, 128),
        _ => false,
    })
}

/// This number of hex digits, in lower case.
fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

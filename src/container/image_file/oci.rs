//! An image in an OCI layout: the files are named by their digests.
#![forbid(unsafe_code)]

use serde::Deserialize;

use super::content::{Content, digest};
use super::error::FileError;
use super::files::Files;
use super::parts::Parts;

/// An index names an index or a manifest.
const DEPTH: usize = 4;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    digest: String,
    platform: Option<Platform>,
}

#[derive(Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
    variant: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

/// The parts of the image that the index names, for this architecture.
pub(super) fn parts(files: &Files, index: &Content, architecture: &str) -> Result<Parts, FileError> {
    let mut document = parsed(&index.small("index.json")?)?;
    let mut is_outermost = true;
    for _ in 0..DEPTH {
        let manifests = document.manifests.take().ok_or(FileError::NotAnImage)?;
        let chosen = chosen(manifests, architecture, is_outermost)?;
        is_outermost = false;
        let content = files.required(&path(&chosen)?)?.small(&chosen)?;
        if digest(&content) != chosen {
            return Err(FileError::Damaged(chosen));
        }
        document = parsed(&content)?;
        if document.manifests.is_none() {
            return named(files, document);
        }
    }
    Err(FileError::NotAnImage)
}

fn named(files: &Files, document: Document) -> Result<Parts, FileError> {
    let (config, layers) = document.config.zip(document.layers).ok_or(FileError::NotAnImage)?;
    let part = |blob: Descriptor| Ok::<_, FileError>((files.required(&path(&blob.digest)?)?, blob.digest));
    let parts =
        Parts { config: part(config)?, layers: layers.into_iter().map(part).collect::<Result<_, _>>()? };
    for (content, name) in parts.layers.iter().chain([&parts.config]) {
        if content.digest(name)? != *name {
            return Err(FileError::Damaged(name.clone()));
        }
    }
    Ok(parts)
}

fn parsed(text: &[u8]) -> Result<Document, FileError> {
    serde_json::from_slice(text).map_err(|_| FileError::NotAnImage)
}

/// Where the content with a digest is.
fn path(digest: &str) -> Result<String, FileError> {
    match digest.strip_prefix("sha256:") {
        Some(hex) if hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Ok(format!("blobs/sha256/{hex}"))
        }
        _ => Err(FileError::NotAnImage),
    }
}

/// The one that is meant. An image may have several tags, and is then named several times.
fn chosen(mut all: Vec<Descriptor>, node: &str, is_outermost: bool) -> Result<String, FileError> {
    // Attestations: signatures and the like, which builders add.
    all.retain(|one| one.platform.as_ref().is_none_or(|platform| platform.os != "unknown"));
    all.sort_by(|one, other| one.digest.cmp(&other.digest));
    all.dedup_by(|one, other| one.digest == other.digest);
    if let [one] = &all[..] {
        return Ok(one.digest.clone());
    }
    let is_for_node = |one: &&Descriptor| {
        one.platform.as_ref().is_some_and(|platform| platform.os == "linux" && platform.architecture == node)
    };
    let fitting: Vec<_> = all.iter().filter(is_for_node).collect();
    let has_no_variant =
        |one: &&&Descriptor| one.platform.as_ref().is_some_and(|platform| platform.variant.is_none());
    match &fitting[..] {
        [] if all.is_empty() => Err(FileError::NotAnImage),
        [] if all.iter().any(|one| one.platform.is_none()) => Err(FileError::Several(all.len())),
        [] => Err(FileError::Architecture(node.to_owned())),
        [_, _, ..] if is_outermost => Err(FileError::Several(fitting.len())),
        [first, ..] => Ok(fitting.iter().find(has_no_variant).unwrap_or(first).digest.clone()),
    }
}

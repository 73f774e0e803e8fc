//! An image as `docker save` wrote it before Engine 25, and `skopeo` and `buildah` as `docker-archive`: without a manifest as
//! registries have it, so that one is made.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::json;

use super::content::Content;
use super::error::FileError;
use super::files::Files;
use super::oci::MANIFEST;
use super::served_image::ServedImage;
use super::unpacked::Compression;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    config: String,
    layers: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// The image that the list names.
pub(super) fn image(files: &Files, list: &Content) -> Result<ServedImage, FileError> {
    let listed: Vec<Listed> =
        serde_json::from_slice(&list.small("manifest.json")?).map_err(|_| FileError::NotAnImage)?;
    let [image] = &listed[..] else { return Err(FileError::Several(listed.len())) };
    let config = files.required(&image.config)?;
    let parsed: Config =
        serde_json::from_slice(&config.small(&image.config)?).map_err(|_| FileError::NotAnImage)?;
    if parsed.rootfs.diff_ids.len() != image.layers.len() {
        return Err(FileError::NotAnImage);
    }
    let config_digest = config.digest(&image.config)?;
    let mut blobs = HashMap::new();
    let mut layers = Vec::new();
    for (name, expected) in image.layers.iter().zip(&parsed.rootfs.diff_ids) {
        let layer = files.required(name)?;
        let start = layer.chunk(0).map_err(|error| FileError::Read(error.to_string()))?;
        let media_type = match Compression::of(&start) {
            Compression::None => "application/vnd.oci.image.layer.v1.tar",
            Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        };
        let digest = layer.digest(name)?;
        // The digest of what is compressed stands nowhere: the engine compares it.
        if Compression::of(&start) == Compression::None && digest != *expected {
            return Err(FileError::Damaged(name.clone()));
        }
        layers.push(json!({"mediaType": media_type, "digest": digest, "size": layer.length()}));
        blobs.insert(digest, layer);
    }
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config_digest,
            "size": config.length(),
        },
        "layers": layers,
    });
    blobs.insert(config_digest.clone(), config);
    Ok(ServedImage::new(MANIFEST, manifest.to_string().into_bytes(), config_digest, blobs))
}

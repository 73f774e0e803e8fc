//! The image in a file: proved to be complete, and described by a manifest of our own.
//!
//! An engine that has an image already uses that one, whoever has brought it, and then looks at nothing else: so this must
//! prove that the file has all of it. Each layer, decompressed, must have the digest that the configuration names. And nothing
//! is served that the engine could understand otherwise: the manifest is written here, from what was checked, and keys of the
//! configuration that only Go takes for others (encoding/json compares names without regard to case) are refused.
//!
//! The configuration gets a key of the plugin's, and so the image another id: in the engine's store it is never the image of a
//! registry, which all users may use, so that making it private takes nothing from others. The layers are shared.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use super::compression::Compression;
use super::content::{Content, digest};
use super::error::FileError;
use super::files::Files;
use super::served_image::ServedImage;
use super::{docker_archive, oci};

/// The type of an image's manifest.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// What the configuration gets, the same on all nodes. No engine knows this key, and a key that is not known is kept.
const OF_FILE: &str = r#""spank-docker.invalid":"file","#;

#[derive(Debug, Deserialize)]
struct Config {
    rootfs: RootFs,
    #[serde(flatten)]
    others: HashMap<String, IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
    #[serde(flatten)]
    others: HashMap<String, IgnoredAny>,
}

/// The image in these files.
pub(super) fn image(files: &Files, architecture: &str) -> Result<ServedImage, FileError> {
    // `docker save` writes both, since Engine 25.
    let parts = match files.get("index.json")? {
        Some(index) => oci::parts(files, &index, architecture)?,
        None => match files.get("manifest.json")? {
            Some(list) => docker_archive::parts(files, &list)?,
            None => return Err(FileError::NotAnImage),
        },
    };
    // Read once: the file may change.
    let config = parts.config.0.small(&parts.config.1)?;
    let diff_ids = diff_ids(&config)?;
    let config = of_file(&config);
    if diff_ids.len() != parts.layers.len() {
        return Err(FileError::NotAnImage);
    }
    let mut blobs = HashMap::new();
    let mut layers = Vec::new();
    for ((layer, name), expected) in parts.layers.into_iter().zip(diff_ids) {
        if layer.digest_decompressed(&name)? != expected {
            return Err(FileError::Damaged(name));
        }
        let media_type = match layer.compression(&name)? {
            Compression::None => "application/vnd.oci.image.layer.v1.tar",
            Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        };
        let digest = layer.digest(&name)?;
        layers.push(json!({"mediaType": media_type, "digest": digest, "size": layer.length()}));
        blobs.insert(digest, layer);
    }
    let id = digest(&config);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": id,
            "size": config.len(),
        },
        "layers": layers,
    });
    blobs.insert(id.clone(), Content::Bytes(Arc::from(config)));
    Ok(ServedImage::new(MANIFEST, manifest.to_string().into_bytes(), id, blobs))
}

/// The configuration with the plugin's key: an object that has others.
fn of_file(config: &[u8]) -> Vec<u8> {
    let start = config.iter().position(|byte| *byte == b'{').map_or(0, |at| at + 1);
    [&config[..start], OF_FILE.as_bytes(), &config[start..]].concat()
}

/// The digests of the layers without compression. serde refuses a key that is there twice.
fn diff_ids(config: &[u8]) -> Result<Vec<String>, FileError> {
    let config: Config = serde_json::from_slice(config).map_err(|_| FileError::NotAnImage)?;
    let is_taken_for = |key: &String, known: &str| folded(key) == folded(known);
    if config.others.keys().any(|key| is_taken_for(key, "rootfs"))
        || config.rootfs.others.keys().any(|key| is_taken_for(key, "diff_ids"))
    {
        return Err(FileError::NotAnImage);
    }
    Ok(config.rootfs.diff_ids)
}

/// A key without regard to case, as Go compares: `ſ` is an `s` too, and the sign for Kelvin a `k`.
fn folded(key: &str) -> String {
    key.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;

    use flate2::write::GzEncoder;

    use super::super::source::Source;
    use super::*;

    /// An image whose configuration names the layer "whole", and which has these layers.
    fn with_layers(layers: &[&[u8]]) -> Result<ServedImage, FileError> {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(directory.path().join(name), bytes).unwrap();
        let names: Vec<String> = (0..layers.len()).map(|number| number.to_string()).collect();
        for (name, layer) in names.iter().zip(layers) {
            write(name, layer);
        }
        write("config", json!({"rootfs": {"diff_ids": [digest(b"whole")]}}).to_string().as_bytes());
        write("manifest.json", json!([{"Config": "config", "Layers": names}]).to_string().as_bytes());
        let files = Files::of(Source::Directory(File::open(directory.path()).unwrap()))?;
        image(&files, "amd64")
    }

    #[test]
    fn configuration_of_another_image_is_refused_without_all_of_its_layers() {
        let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"whole").unwrap();
        let gzip = gzip.finish().unwrap();
        assert_eq!(with_layers(&[b"whole"]).unwrap().config, with_layers(&[&gzip]).unwrap().config);
        assert_eq!(with_layers(&[]).unwrap_err(), FileError::NotAnImage);
        assert_eq!(with_layers(&[b"whole", b"whole"]).unwrap_err(), FileError::NotAnImage);
        assert_eq!(with_layers(&[b"other"]).unwrap_err(), FileError::Damaged("0".to_owned()));
        assert_eq!(with_layers(&[b"\x1f\x8bother"]).unwrap_err(), FileError::Compression);
        let mut other = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        other.write_all(b"other").unwrap();
        assert_eq!(with_layers(&[&other.finish().unwrap()]).unwrap_err(), FileError::Damaged("0".to_owned()));
    }

    #[test]
    fn image_of_a_file_is_another_one_than_that_of_a_registry() {
        let config = json!({"rootfs": {"diff_ids": [digest(b"whole")]}}).to_string();
        let served = with_layers(&[b"whole"]).unwrap();
        assert_ne!(served.config, digest(config.as_bytes()));
        let changed = served.blobs[&served.config].small("").unwrap();
        let mut changed: serde_json::Value = serde_json::from_slice(&changed).unwrap();
        assert_eq!(changed.as_object_mut().unwrap().remove("spank-docker.invalid"), Some(json!("file")));
        assert_eq!(changed.to_string(), config);
        assert_eq!(of_file(b" {\"a\":1}"), b" {\"spank-docker.invalid\":\"file\",\"a\":1}");
    }

    #[test]
    fn configuration_that_go_would_read_otherwise_is_refused() {
        let plain =
            br#"{"os":"linux","config":{"Env":["RootFS=x"]},"rootfs":{"type":"layers","diff_ids":["a"]}}"#;
        assert_eq!(diff_ids(plain).unwrap(), ["a"]);
        for other in [
            r#"{"rootfs":{"diff_ids":["a"]},"RootFS":{"diff_ids":["b"]}}"#,
            r#"{"rootfs":{"diff_ids":["a"]},"rootf\u017f":{"diff_ids":["b"]}}"#,
            r#"{"rootfs":{"diff_ids":["a"],"Diff_IDs":["b"]}}"#,
            r#"{"rootfs":{"diff_ids":["a"],"diff_id\u017f":["b"]}}"#,
            r#"{"rootfs":{"diff_ids":["a"],"diff_ids":["b"]}}"#,
            r#"{"rootfs":{"diff_ids":["a"]},"rootfs":{"diff_ids":["b"]}}"#,
            r#"{"ROOTFS":{"diff_ids":["b"]}}"#,
        ] {
            assert_eq!(diff_ids(other.as_bytes()), Err(FileError::NotAnImage), "{other}");
        }
    }
}

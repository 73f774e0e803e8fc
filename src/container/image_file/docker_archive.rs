//! An image as `docker save` wrote it before Engine 25, and `skopeo` and `buildah` as `docker-archive`.
#![forbid(unsafe_code)]

use serde::Deserialize;

use super::content::Content;
use super::error::FileError;
use super::files::Files;
use super::parts::Parts;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    config: String,
    layers: Vec<String>,
}

/// The parts of the image that the list names.
pub(super) fn parts(files: &Files, list: &Content) -> Result<Parts, FileError> {
    let listed: Vec<Listed> =
        serde_json::from_slice(&list.small("manifest.json")?).map_err(|_| FileError::NotAnImage)?;
    let [image] = <[Listed; 1]>::try_from(listed).map_err(|all| FileError::Several(all.len()))?;
    let part = |name: String| Ok::<_, FileError>((files.required(&name)?, name));
    Ok(Parts {
        config: part(image.config)?,
        layers: image.layers.into_iter().map(part).collect::<Result<_, _>>()?,
    })
}

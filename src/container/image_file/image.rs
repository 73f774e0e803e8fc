//! The image in a file.
#![forbid(unsafe_code)]

use super::error::FileError;
use super::files::Files;
use super::served_image::ServedImage;
use super::{docker_archive, oci};

/// The image in these files. All of it has been read, and has the digests that name it: the user has it, and not only its names.
pub(super) fn image(files: &Files, architecture: &str) -> Result<ServedImage, FileError> {
    // `docker save` writes both, since Engine 25.
    let found = match files.get("index.json")? {
        Some(index) => oci::image(files, &index, architecture)?,
        None => match files.get("manifest.json")? {
            Some(list) => return docker_archive::image(files, &list),
            None => return Err(FileError::NotAnImage),
        },
    };
    for (name, content) in &found.blobs {
        if content.digest(name)? != *name {
            return Err(FileError::Damaged(name.clone()));
        }
    }
    Ok(found)
}

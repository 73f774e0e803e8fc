//! An image from a file, which a process of the user's serves on loopback: pulled by its digest, and private. The random name
//! goes after the pull, and the mark stays.
#![forbid(unsafe_code)]

use bollard::query_parameters::RemoveImageOptions;

use super::error::{ImageError, architecture};
use super::inspect::{Image, usable};
use super::private;
use super::progress::{Layers, Progress};
use super::pull_records::Pulls;
use crate::engine::connection::{Engine, EngineError};
use crate::settings::image::Reference;

/// An image that is served on loopback.
#[derive(Clone, Copy, Debug)]
pub struct FileImage<'a> {
    /// As the user wrote it.
    pub name: &'a Reference,
    /// Where it is served.
    pub served: &'a Reference,
    /// The digests of its configuration and its manifest.
    pub ids: &'a [String],
    /// The records of pulls of private images on this node.
    pub pulls: &'a Pulls,
}

impl Engine {
    /// The image, pulled if it is not there yet. Whoever serves it has all of it, and not only its digests: so one that is there
    /// may be used, whoever has brought it.
    pub async fn image_of_file(
        &self,
        file: FileImage<'_>,
        progress: &mut dyn Progress,
    ) -> Result<Image, ImageError> {
        for id in file.ids {
            match self.inspect_image(file.name, id).await {
                Ok(found) => return usable(file.name, found, false),
                Err(ImageError::Engine(error)) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        self.pull_file(file, progress).await.map_err(|error| of_file(error, file.name))
    }

    async fn pull_file(&self, file: FileImage<'_>, progress: &mut dyn Progress) -> Result<Image, ImageError> {
        let repository = file.served.repository().unwrap_or_default();
        self.try_to_settle(&file.pulls.all().map_err(ImageError::Pulls)?).await?;
        let underway = file.pulls.begin(&repository, &[]).map_err(ImageError::Pulls)?;
        let pulled = self.pull(file.served, file.name, None, &mut Layers::default(), progress).await;
        if let Err(error @ ImageError::NotWanted { .. }) = pulled {
            return Err(error);
        }
        // Another image may be somebody else's: it gets no mark either.
        if pulled.as_ref().is_ok_and(|found| !file.ids.iter().any(|id| found.id.as_ref() == Some(id))) {
            self.forget_name(&file.served.full_name()).await?;
            underway.end().map_err(ImageError::Pulls)?;
            let message = private::NOT_SERVED.to_owned();
            return Err(ImageError::FileContent { image: file.name.to_string(), message });
        }
        self.mark_others(&repository, &[]).await?;
        let is_there = pulled.is_ok();
        let image = pulled.and_then(|found| usable(file.name, found, true));
        if image.as_ref().is_err_and(ImageError::is_of_configuration) {
            self.forget_unusable(file.served).await?;
        } else if is_there {
            self.forget_name(&file.served.full_name()).await?;
        }
        underway.end().map_err(ImageError::Pulls)?;
        image
    }

    /// Takes a name from an image that has another one.
    pub(super) async fn forget_name(&self, name: &str) -> Result<(), EngineError> {
        let request = self.docker.remove_image(name, None::<RemoveImageOptions>, None);
        match self.patient_call("remove the image's name", request).await {
            Err(error) if !error.is_not_found() => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// An error in terms of the file: its user knows of no registry.
fn of_file(error: ImageError, name: &Reference) -> ImageError {
    let image = name.to_string();
    match error {
        ImageError::NoSpace { .. } => ImageError::NoSpace { image },
        ImageError::NotWanted { .. } => ImageError::NotWanted { image },
        ImageError::Gone { .. } => ImageError::Gone { image },
        ImageError::Architectures { .. } => {
            ImageError::FileContent { image, message: format!("not for architecture '{}'", architecture()) }
        }
        ImageError::Damaged { words, .. }
        | ImageError::Unreachable { words, .. }
        | ImageError::Limited { words, .. } => ImageError::FileContent { image, message: words.to_string() },
        ImageError::Pull { message, .. } => ImageError::FileContent { image, message },
        ImageError::NotFound { .. } | ImageError::Denied { .. } | ImageError::NoLogin { .. } => {
            ImageError::FileContent { image, message: private::NOT_SERVED.to_owned() }
        }
        other => other,
    }
}

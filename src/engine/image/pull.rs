//! How an image gets onto this node, under the pull policy and with the user's login.

use std::time::Instant;

use bollard::auth::DockerCredentials;
use bollard::models::ImageInspect;
use bollard::query_parameters::CreateImageOptions;

use super::error::{ImageError, denied, not_found, pull_error};
use super::inspect::{Image, usable};
use super::policy::ImagePolicy;
use super::private;
use super::progress::{Layers, Progress};
use crate::engine::connection::{Engine, EngineError};
use crate::engine::registry_auth::{NoLogin, RegistryAuth};
use crate::settings::choices::Pull;
use crate::settings::image::Reference;

impl Engine {
    /// Returns the image, pulled when the policy says so. `progress` gets a line from time to time while a pull
    /// lasts.
    pub async fn image(
        &self,
        policy: ImagePolicy<'_>,
        progress: &mut dyn Progress,
    ) -> Result<Image, ImageError> {
        match self.present_or_pulled(&policy, progress).await {
            Err(ImageError::Engine(error)) if error.is_not_found() => {
                Err(ImageError::Gone { image: policy.reference.to_string() })
            }
            other => other,
        }
    }

    async fn present_or_pulled(
        &self,
        policy: &ImagePolicy<'_>,
        progress: &mut dyn Progress,
    ) -> Result<Image, ImageError> {
        let mut layers = Layers::default();
        let found = self.found(policy, &mut layers, progress).await;
        let image = found.and_then(|found| usable(policy.reference, found, layers.any()));
        if layers.any() && image.as_ref().is_err_and(ImageError::is_of_configuration) {
            // If this fails, the user gets the first error all the same, and the image is like any that nobody uses.
            let _ = self.forget_unusable(policy.reference).await;
        }
        image
    }

    async fn found(
        &self,
        policy: &ImagePolicy<'_>,
        layers: &mut Layers,
        progress: &mut dyn Progress,
    ) -> Result<ImageInspect, ImageError> {
        let reference = policy.reference;
        let present = match policy.pull {
            Pull::Always if !reference.is_id() => None,
            Pull::Always | Pull::Missing | Pull::Never => self.present(reference).await?,
        };
        let found = match present {
            Some(found) => found,
            None if policy.pull == Pull::Never => {
                return Err(ImageError::NotPresent { image: reference.to_string() });
            }
            None if reference.is_id() => return Err(ImageError::UnknownId { image: reference.to_string() }),
            None => self.get(policy, reference, layers, progress).await?,
        };
        // The engine has received no layer: the image was already present, and the registry, if asked, has
        // shown only its id.
        if !layers.any() {
            self.check_right(policy, &found).await?;
        }
        Ok(found)
    }

    async fn present(&self, reference: &Reference) -> Result<Option<ImageInspect>, ImageError> {
        match self.inspect_image(reference, &reference.engine_name()).await {
            Ok(found) => Ok(reference.admits(found.id.as_deref().unwrap_or_default()).then_some(found)),
            Err(ImageError::Engine(error)) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What the engine knows of the image with this name or id. Its configuration alone can make that too long.
    pub(super) async fn inspect_image(
        &self,
        shown: &Reference,
        name: &str,
    ) -> Result<ImageInspect, ImageError> {
        match self.call("inspect the image", self.docker.inspect_image(name)).await {
            Err(EngineError::TooLong { .. }) => Err(ImageError::Configuration { image: shown.to_string() }),
            found => Ok(found?),
        }
    }

    /// Pulls the image: without a login where the registry wants none, else with the user's.
    pub(super) async fn get(
        &self,
        policy: &ImagePolicy<'_>,
        reference: &Reference,
        layers: &mut Layers,
        progress: &mut dyn Progress,
    ) -> Result<ImageInspect, ImageError> {
        if private::is_mark(reference) || reference.file().is_some() {
            return Err(not_found(reference));
        }
        let login = match (policy.logins)().await.at(reference.registry()) {
            Ok(login) => login,
            Err(why) => return self.get_public(reference, why, layers, progress).await,
        };
        let mut limited = None;
        match self.is_public(reference).await {
            Some(false) => {}
            public => match self.get_public(reference, NoLogin::Unknown, layers, progress).await {
                // The limit of a login may be higher than that of the address.
                Err(error @ ImageError::Limited { .. }) => limited = Some(error),
                Err(error) if public.is_none() && error.may_be_for_lack_of_a_login() => {}
                pulled => return pulled,
            },
        }
        let pulled = self.get_private(policy, reference, &login, layers, progress).await;
        pulled.map_err(|error| match (denied(error, None), limited) {
            (ImageError::Denied { .. }, Some(limited)) => limited,
            (error, _) => error,
        })
    }

    /// Pulls the image without a login.
    async fn get_public(
        &self,
        reference: &Reference,
        why: NoLogin,
        layers: &mut Layers,
        progress: &mut dyn Progress,
    ) -> Result<ImageInspect, ImageError> {
        self.pull(reference, reference, None, layers, progress)
            .await
            .map_err(|error| denied(error, Some(why)))
    }

    /// Pulls the image with a login, and marks it before another job could take it for a public image. Images
    /// that were public before stay public.
    async fn get_private(
        &self,
        policy: &ImagePolicy<'_>,
        reference: &Reference,
        login: &RegistryAuth,
        layers: &mut Layers,
        progress: &mut dyn Progress,
    ) -> Result<ImageInspect, ImageError> {
        let repository = reference.repository().unwrap_or_default();
        self.try_to_settle(&policy.pulls.all().map_err(ImageError::Pulls)?).await?;
        let public = self.public(policy.pulls, &repository).await?;
        let underway = policy.pulls.begin(&repository, &public).map_err(ImageError::Pulls)?;
        let pulled =
            self.pull(reference, reference, Some(private::engine_credentials(login)), layers, progress).await;
        // The engine notices the cancellation only later, so the record stays until the pull has ended
        // (`mark_interrupted_pulls`).
        if matches!(pulled, Err(ImageError::NotWanted { .. })) {
            return pulled;
        }
        // Also after a failure: the engine may have received images without reporting them.
        if layers.any() {
            self.mark_others(&repository, &public).await?;
        }
        underway.end().map_err(ImageError::Pulls)?;
        pulled
    }

    /// Pulls what the user knows by another name, if it is in a file.
    pub(super) async fn pull(
        &self,
        reference: &Reference,
        shown: &Reference,
        login: Option<DockerCredentials>,
        layers: &mut Layers,
        progress: &mut dyn Progress,
    ) -> Result<ImageInspect, ImageError> {
        let options = CreateImageOptions {
            from_image: Some(reference.engine_name().into_owned()),
            ..Default::default()
        };
        let call = "pull the image";
        let pieces = self.pieces(call)?;
        let mut stream = pieces.docker.create_image(Some(options), None, login);
        let (interval, mut told) = (progress.interval(), Instant::now());
        loop {
            // No message for that long comes from a slow registry, or from an engine that hangs.
            match tokio::time::timeout(interval, pieces.next(&mut stream)).await {
                Ok(Ok(None)) => break,
                Ok(Ok(Some(step))) => {
                    layers.note(&step);
                    progress.received(layers.received());
                }
                Ok(Err(error)) => return Err(pull_error(reference, error)),
                Err(_) => self.answers(call).await?,
            }
            if told.elapsed() >= interval {
                told = Instant::now();
                if progress.report(&format!("image '{shown}': pulling, {layers}")).await.is_break() {
                    return Err(ImageError::NotWanted { image: reference.to_string() });
                }
            }
        }
        match self.present(reference).await? {
            Some(found) => Ok(found),
            None => Err(ImageError::Gone { image: reference.to_string() }),
        }
    }
}

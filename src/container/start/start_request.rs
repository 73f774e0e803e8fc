//! The input of a start, which does not change until its end.
#![forbid(unsafe_code)]

use super::error::StartError;
use crate::container::request::Request;
use crate::guest::ssh::keys::{self, JobKeys, KeyContext, Secret};
use crate::settings::choices::Sshd;
use crate::settings::image::Reference;
use crate::settings::plugstack::Config;
use crate::state::OwnerDir;

/// A container that is to be started.
#[derive(Clone, Copy)]
pub(super) struct StartRequest<'a> {
    pub(super) config: &'a Config,
    pub(super) request: &'a Request,
    pub(super) image: &'a Reference,
    /// Whose sshd it gets.
    pub(super) sshd: Sshd,
    /// The record of it on this node.
    pub(super) directory: &'a OwnerDir,
}

impl StartRequest<'_> {
    /// The image as the user wrote it.
    pub(super) fn image_name(&self) -> String {
        self.image.to_string()
    }

    /// The port of its sshd.
    pub(super) fn port(&self) -> u16 {
        self.request.options.port.unwrap_or_else(|| self.request.owner.port(self.config.ports))
    }

    /// The keys, which all nodes derive alike.
    pub(super) fn keys(&self) -> Result<JobKeys, StartError> {
        let secret = Secret::load(&keys::secret_file(&self.config.secret)?)?;
        let context = KeyContext {
            cluster: &self.request.cluster,
            owner: self.request.owner,
            restart: self.request.restart,
            uid: self.request.credentials.uid,
        };
        Ok(JobKeys::derive(&secret, &context)?)
    }
}

//! What is in our directory of a container before it starts: all that does not depend on what the image turns out to
//! hold.
//!
//! Runs as root in the prolog, and in the first task of a step with a container of its own.

use std::io;

use super::environment;
use super::files::Files;
use super::request::Request;
use crate::docker::Image;
use crate::in_container;
use crate::mpi::{hostfile, layout};
use crate::ssh::keys::JobKeys;
use crate::ssh::server::Reach;
use crate::ssh::{client, force_command, server};

/// Everything that the files are made of.
#[derive(Debug)]
pub(super) struct Contents<'a> {
    /// Whose container it is.
    pub(super) request: &'a Request,
    /// The image as the user named it.
    pub(super) name: &'a str,
    /// The image.
    pub(super) image: &'a Image,
    /// Of this cluster of containers.
    pub(super) keys: &'a JobKeys,
    /// What its sshds show.
    pub(super) banner: &'a str,
    /// Its nodes.
    pub(super) nodes: &'a [String],
    /// sshd's port.
    pub(super) port: u16,
    /// Networks between the nodes, when MPI must be told.
    pub(super) networks: Option<&'a str>,
}

impl Contents<'_> {
    /// Writes every file whose content is known before the container starts.
    pub(super) fn write(&self, files: &Files<'_>) -> io::Result<()> {
        let Self { request, keys, nodes, port, .. } = *self;
        let user = request.account.name.to_string_lossy();
        let alias = request.scope.container_name();
        files.private(in_container::USER_KEY, keys.user_private().map_err(io::Error::other)?.as_bytes())?;
        files.private(in_container::HOST_KEY, keys.host_private().map_err(io::Error::other)?.as_bytes())?;
        let user_key = format!("{}\n", keys.user_public().map_err(io::Error::other)?);
        files.public(in_container::AUTHORIZED_KEYS, user_key.as_bytes())?;
        let host_key = keys.host_public().map_err(io::Error::other)?;
        files.public(in_container::KNOWN_HOSTS, client::known_hosts(&alias, &host_key).as_bytes())?;
        let sshd = server::sshd_config(&user, port, self.banner, Reach::of(nodes.len()));
        files.public(in_container::SSHD_CONFIG, sshd.as_bytes())?;
        files.public(in_container::SSH_CONFIG, client::ssh_config(nodes, port, &user, &alias).as_bytes())?;
        files.program(in_container::SESSION, force_command::SCRIPT.as_bytes())?;
        let sessions = environment::of_sessions(request, self.name, self.image, nodes, port, self.networks);
        files.public(in_container::ENVIRONMENT, &sessions)?;
        // In a job as many slots as it has CPUs, until the first step brings the task layout with it.
        let slots = layout::parse(&request.slots).unwrap_or_default();
        files.public(in_container::HOSTFILE, hostfile::open_mpi(nodes, &slots).as_bytes())?;
        files.public(in_container::HYDRA_HOSTFILE, hostfile::hydra(nodes, &slots).as_bytes())
    }
}

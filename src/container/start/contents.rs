//! The files in the plugin's directory of a container that do not depend on the image's own files, written
//! before the container starts.
//!
//! Runs as root in the prolog, and in the first task of a step with a container of its own.

use std::io;

use super::files::Files;
use super::session_environment;
use crate::container::nodes::JobNodes;
use crate::container::request::Request;
use crate::engine::Image;
use crate::guest::mpi::interfaces::Between;
use crate::guest::mpi::{hostfile, networks};
use crate::guest::paths;
use crate::guest::ssh::keys::JobKeys;
use crate::guest::ssh::server::Reach;
use crate::guest::ssh::{client, force_command, server};
use crate::slurm::task_layout;

/// Everything from which the files are made.
#[derive(Debug)]
pub(super) struct Contents<'a> {
    /// The job or step to which the container belongs.
    pub(super) request: &'a Request,
    /// The image as the user named it.
    pub(super) name: &'a str,
    /// The image.
    pub(super) image: &'a Image,
    /// The keys of this container cluster.
    pub(super) keys: &'a JobKeys,
    /// The text that its sshds send in their banner.
    pub(super) banner: &'a str,
    /// Its nodes.
    pub(super) nodes: &'a [String],
    /// Their names and addresses.
    pub(super) known: &'a JobNodes,
    /// sshd's port.
    pub(super) port: u16,
    /// Slurm's commands that the node has, and the admin allows; `None` where the container needs none of the
    /// guest tools.
    pub(super) commands: Option<&'a [&'a str]>,
    /// The networks between the nodes, where MPI must not choose them itself.
    pub(super) between: Option<&'a Between>,
}

impl Contents<'_> {
    /// Writes every file whose content is known before the container starts.
    pub(super) fn write(&self, files: &Files<'_>) -> io::Result<()> {
        let Self { request, keys, nodes, port, .. } = *self;
        let user = request.account.name.to_string_lossy();
        let alias = request.owner.container_name();
        files.private(paths::USER_KEY, keys.user_private().map_err(io::Error::other)?.as_bytes())?;
        files.private(paths::HOST_KEY, keys.host_private().map_err(io::Error::other)?.as_bytes())?;
        let user_key = format!("{}\n", keys.user_public().map_err(io::Error::other)?);
        files.public(paths::AUTHORIZED_KEYS, user_key.as_bytes())?;
        let host_key = keys.host_public().map_err(io::Error::other)?;
        files.public(paths::KNOWN_HOSTS, client::known_hosts(&alias, &host_key).as_bytes())?;
        let sshd = server::sshd_config(&user, port, self.banner, Reach::of(nodes.len()));
        files.public(paths::SSHD_CONFIG, sshd.as_bytes())?;
        let JobNodes { hosts, own, .. } = self.known;
        let ssh = client::ssh_config(hosts, own, port, &user, &alias);
        files.public(paths::SSH_CONFIG, ssh.as_bytes())?;
        if let Some(commands) = self.commands {
            files.commands(commands.iter().copied())?;
        }
        files.program(paths::SESSION, force_command::script().as_bytes())?;
        let sessions = session_environment::of_sessions(
            request,
            self.name,
            self.image,
            nodes,
            port,
            self.between,
            self.commands.is_some(),
        );
        files.public(paths::ENVIRONMENT, &sessions)?;
        files.public(
            paths::NETWORKS,
            networks::file(self.between.map(|between| between.networks.as_str())).as_bytes(),
        )?;
        // A job's hostfile has as many slots as the job has CPUs, until a step brings its task layout.
        let slots = task_layout::parse(&request.slots).unwrap_or_default();
        files.public(paths::HOSTFILE, hostfile::open_mpi(nodes, &slots).as_bytes())?;
        files.public(paths::HYDRA_HOSTFILE, hostfile::hydra(nodes, &slots).as_bytes())
    }
}

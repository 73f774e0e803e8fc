//! The variables of ssh sessions in addition to those that ssh passes on from the calling task: those that only
//! this node knows, and, where variables were not passed on, the image's, as tasks have them.
//!
//! Pure; written by root where a container starts.
#![forbid(unsafe_code)]

use crate::container::request::Request;
use crate::engine::Image;
use crate::guest::mpi::environment::{self, LAUNCHER_ENVIRONMENT, starts_ranks};
use crate::guest::mpi::interfaces::Between;
use crate::guest::mpi::networks::{AGENTS, EXCLUDED, INCLUDED};
use crate::guest::ssh::force_command;
use crate::guest::{job_environment, paths};
use crate::slurm::gres::Gpus;

/// The lines for the sessions' script. `name` is the image as the user wrote it.
pub(super) fn of_sessions(
    request: &Request,
    name: &str,
    image: &Image,
    nodes: &[String],
    port: u16,
    between: Option<&Between>,
    has_commands: bool,
) -> Vec<u8> {
    let number = nodes.iter().position(|node| *node == request.node).unwrap_or_default().to_string();
    let node = [("SLURMD_NODENAME", &*request.node), ("SLURM_NODEID", &number)];
    let variables = job_environment::output_vars(request.owner, name, &image.id, port);
    let variables = variables.iter().map(|(name, value)| (*name, value.as_str()));
    // A step has a hostfile of its own, whose name ssh passes on.
    let (hostfile, variables): (Vec<_>, Vec<_>) =
        variables.partition(|(name, _)| *name == job_environment::HOSTFILE);
    let mut lines = force_command::environment_file(node.into_iter().chain(variables));
    lines.extend(hostfile.iter().flat_map(|(name, path)| force_command::default_line(name, path, &[name])));
    // Of two variables with the same name the last one counts. sshd sets a PATH of its own, so the image's is
    // handled separately.
    let (image_paths, others): (Vec<_>, Vec<_>) = image
        .environment
        .iter()
        .rev()
        .filter(|(name, _)| !starts_ranks(name))
        .partition(|(name, _)| name == "PATH");
    let with_commands =
        |value: &str| if has_commands { paths::with_commands(value) } else { value.to_owned() };
    let path = image_paths
        .first()
        .map(|(name, value)| force_command::default_line(name, &with_commands(value), &[]));
    lines.extend(
        path.unwrap_or_else(|| if has_commands { force_command::path_line(paths::BIN) } else { Vec::new() }),
    );
    lines.extend(others.iter().flat_map(|(name, value)| force_command::default_line(name, value, &[name])));
    let launchers = LAUNCHER_ENVIRONMENT.iter();
    lines.extend(launchers.flat_map(|(name, value)| force_command::launcher_line(name, value)));
    let of_node = environment::of_node(&request.node, &request.host);
    lines.extend(of_node.iter().flat_map(|(name, value)| force_command::node_line(name, value)));
    let agents = between.iter().flat_map(|_| AGENTS);
    let agents =
        agents.map(|(name, agent)| force_command::default_line(name, agent, &[name, INCLUDED, EXCLUDED]));
    lines.extend(agents.flatten());
    let others = between.iter().flat_map(|between| &between.variables);
    lines.extend(others.flat_map(|(name, value)| force_command::default_line(name, value, &[name])));
    let gpus = request.gpus.iter().flat_map(Gpus::selection);
    lines.extend(force_command::environment_file(gpus));
    lines.extend(request.options.workdir.iter().flat_map(|path| force_command::directory_line(path)));
    lines
}

//! The two visits to the container's mount namespace, before any program of the image runs: the first one
//! hardens it and reads the image's files, the second one mounts. In between, the plugin's files are made from
//! what was read, on the host.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::error::{StartError, files_error};
use super::files::Files;
use super::first_process::StagingDir;
use super::policy;
use super::populate::{self, ImageFiles, PopulateError, Server};
use super::start_request::StartRequest;
use crate::container::mounts::{self, Prepared, Skipped};
use crate::container::nvidia;
use crate::engine::{self, Image};
use crate::guest::accounts::{self, merge_group, merge_passwd};
use crate::guest::ssh::{client, client_program};
use crate::guest::{paths, profile};
use crate::linux::inside::ContainerRoot;
use crate::linux::mountinfo;
use crate::linux::namespace::Namespaces;
use crate::linux::process::Process;
use crate::linux::terminals::Terminals;

/// The results of the first visit.
#[derive(Debug)]
pub(super) struct Hardened {
    /// The files of the image.
    pub(super) found: ImageFiles,
    /// A detached mount of an empty directory on the container's disk.
    pub(super) home: OwnedFd,
    /// Mounts that are volumes of the image.
    pub(super) volumes: Vec<u64>,
    /// The gid of the container's terminals, where all have the same one.
    pub(super) terminals: Option<u32>,
}

/// Hardens the container, and reads the files with which the plugin's own are merged.
pub(super) fn harden(
    start: &StartRequest<'_>,
    process: &Process,
    namespaces: &Namespaces,
    entry: &StagingDir,
    image: &Image,
) -> Result<Hardened, StartError> {
    let path = image.environment.iter().rev().find(|(name, _)| name == "PATH");
    let path = path.map_or("", |(_, value)| value);
    let shells = [PathBuf::from(&start.request.account.shell), "/bin/bash".into(), "/bin/sh".into()];
    let engines = process.read("mountinfo").map_err(files_error("read the container's mounts"))?;
    let engines: Vec<_> = mountinfo::parse(&engines).collect();
    policy::check_mounted_volumes(start, &engines)?;
    let hiding = fs::read("/proc/self/mountinfo").and_then(|mounts| mountinfo::hiding(&mounts));
    let hiding = hiding.map_err(files_error("read the node's hidepid"))?;
    let terminals = Terminals::of_node().map_err(files_error("open the node's terminals"))?;
    let group = terminals.as_ref().map_or(Some(accounts::TTY), Terminals::group);
    let nvidia = nvidia::gpus();
    let volumes = engine::volumes(&engines);
    let user = &start.request.credentials;
    in_container(namespaces, |root| {
        populate::harden(root, &engines, &hiding).map_err(populate_error(start))?;
        if let Some(terminals) = terminals {
            populate::share_terminals(root, terminals).map_err(populate_error(start))?;
        }
        policy::check_gpus(start, root, &nvidia)?;
        policy::check_storage(start, root, &engines, &volumes)?;
        let place = populate::target_of_plugin_directory(root).map_err(populate_error(start))?;
        let home = populate::fresh_home(&place, entry, user).map_err(|error| home_error(start, error))?;
        populate::move_into_place(root, entry, place).map_err(populate_error(start))?;
        policy::check_plugin_directory(start, root)?;
        populate::make_workdir(root, image.workdir.as_deref());
        let found = populate::inspect_rootfs(root, path, &shells, user, start.sshd);
        Ok(Hardened { found, home, volumes, terminals: group })
    })
}

/// The content of a file of the image; empty, where there is no such file.
pub(super) fn read(namespaces: &Namespaces, path: &Path) -> Result<Vec<u8>, StartError> {
    let read = |root: &ContainerRoot| {
        root.read(path, populate::LIMIT).map_err(files_error("read the image's files"))
    };
    Ok(in_container(namespaces, read)?.unwrap_or_default())
}

/// The results of the second visit.
#[derive(Debug)]
pub(super) struct Placed {
    /// Mounts for which the container has no target.
    pub(super) skipped: Vec<Skipped>,
    /// Whether the user cannot enter the image's WORKDIR.
    pub(super) is_workdir_closed: bool,
}

/// Attaches the mounts and the plugin's files.
pub(super) fn put_files(
    start: &StartRequest<'_>,
    (image, process, namespaces): (&Image, &Process, &Namespaces),
    files: &Files<'_>,
    hardened: &Hardened,
    mounts: Vec<Prepared>,
) -> Result<Placed, StartError> {
    let Hardened { found, home, volumes, terminals } = hardened;
    let user = &start.request.credentials;
    let failed = "write the container's files";
    let trees = merge(start, files, found, *terminals).map_err(files_error(failed))?;
    let over_ssh = if found.is_client_plugins { paths::SSH_TOOLS } else { paths::OVER_SSH };
    let over_ssh = files.detached_program(over_ssh).map_err(files_error(failed))?;
    let placed = in_container(namespaces, |root| {
        if let Some(ssh) = found.ssh {
            populate::cover_ssh(root, ssh, over_ssh, paths::SSH_OF_IMAGE).map_err(populate_error(start))?;
        }
        populate::share_temporary(root, volumes);
        let skipped = mounts::attach(root, mounts, home, user, volumes)?;
        populate::replace(root, trees, user, volumes).map_err(populate_error(start))?;
        if start.request.options.readonly == Some(true) {
            populate::make_read_only(root).map_err(populate_error(start))?;
        }
        policy::check_workdir(start, root)?;
        let is_closed =
            |path: &String| root.is_directory_for(Path::new(path), user).is_ok_and(|enters| !enters);
        Ok(Placed { skipped, is_workdir_closed: image.workdir.as_ref().is_some_and(is_closed) })
    })?;
    mounts::check_number(process).map_err(files_error("count the container's mounts"))??;
    Ok(placed)
}

fn in_container<T>(
    namespaces: &Namespaces,
    work: impl FnOnce(&ContainerRoot) -> Result<T, StartError>,
) -> Result<T, StartError> {
    namespaces.in_mount_namespace(work).map_err(files_error("enter the container"))?
}

fn home_error(start: &StartRequest<'_>, error: io::Error) -> StartError {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => StartError::NoSpace { image: start.image_name() },
        _ => files_error("make a home directory")(error),
    }
}

fn populate_error(start: &StartRequest<'_>) -> impl Fn(PopulateError) -> StartError {
    |error| StartError::Populate { image: start.image_name(), source: error.into() }
}

/// Merges the plugin's files with the image's, and returns those that cover the image's.
fn merge(
    start: &StartRequest<'_>,
    files: &Files<'_>,
    found: &ImageFiles,
    terminals: Option<u32>,
) -> io::Result<Vec<(&'static str, OwnedFd)>> {
    let request = start.request;
    let mut account = request.account.clone();
    if let Some(shell) = &found.shell {
        account.shell = shell.into();
    }
    let [passwd, group, ssh_config] = &found.replaced;
    let ssh_config_of_job = fs::read_to_string(files.path(paths::SSH_CONFIG))?;
    files.public(paths::PASSWD, &merge_passwd(passwd, &account))?;
    files.public(paths::GROUP, &merge_group(group, &request.groups, &account, terminals))?;
    files.public(paths::SYSTEM_SSH_CONFIG, &client::merged_ssh_config(&ssh_config_of_job, ssh_config))?;
    let image = start.image_name();
    files.public(paths::SSH_OF_IMAGE, &[])?;
    let ssh_tools = Path::new(paths::SSH_TOOLS);
    if found.is_client_plugins || matches!(found.server, Some(Server::Plugins)) {
        files.ssh_tools()?;
    }
    if found.is_client_plugins {
        files.link(paths::SSH, ssh_tools)?;
        files.link(&format!("{}/ssh", paths::BIN), ssh_tools)?;
    } else {
        let uid = request.credentials.uid;
        let missing = found.server.is_none().then(|| client_program::no_sshd(&image, uid, start.sshd));
        let own = found.ssh.map(|_| paths::SSH_OF_IMAGE);
        files.program(paths::SSH, client_program::program(&image, missing.as_deref(), own).as_bytes())?;
        files.program(paths::OVER_SSH, client_program::over_ssh().as_bytes())?;
    }
    match &found.server {
        Some(Server::Image { path, lines }) => {
            files.link(paths::SSHD, path)?;
            files.append(paths::SSHD_CONFIG, lines)?;
        }
        Some(Server::Plugins) => files.link(paths::SSHD, ssh_tools)?,
        None => {}
    }
    let replacements = [paths::PASSWD, paths::GROUP, paths::SYSTEM_SSH_CONFIG];
    let mut over: Vec<_> = populate::REPLACED.into_iter().zip(replacements).collect();
    if let Some(profile) = &found.profile {
        files.public(paths::PROFILE_OF_IMAGE, profile)?;
        files.public(paths::PROFILE, profile::framed().as_bytes())?;
        over.push((populate::PROFILE, paths::PROFILE));
    }
    over.into_iter().map(|(path, replacement)| Ok((path, files.detached(replacement)?))).collect()
}

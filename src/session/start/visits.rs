//! The two visits in the container's mount namespace, before anything of the image runs: the first makes it safe and
//! reads what the image brings, the second mounts. In between, on the host, files are made of what was read.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::error::{StartError, files_error};
use super::order::Order;
use super::policy;
use crate::docker::Image;
use crate::in_container;
use crate::session::entry::Entry;
use crate::session::files::Files;
use crate::session::furnish::{self, Found, FurnishError};
use crate::session::mounts::{self, Prepared};
use crate::ssh::client;
use crate::sys::inside::Root;
use crate::sys::mountinfo;
use crate::sys::namespace::Namespaces;
use crate::sys::nvidia;
use crate::sys::process::Process;
use crate::users::{merge_group, merge_passwd};

/// Makes the container safe, and finds what ours is to be merged with.
pub(super) fn harden(
    order: &Order<'_>,
    process: &Process,
    namespaces: &Namespaces,
    entry: &Entry,
    image: &Image,
) -> Result<Found, StartError> {
    let path = image.environment.iter().rev().find(|(name, _)| name == "PATH");
    let path = path.map_or("", |(_, value)| value);
    let shells = [PathBuf::from(&order.request.account.shell), "/bin/bash".into(), "/bin/sh".into()];
    let engines = process.read("mountinfo").map_err(files_error("read the container's mounts"))?;
    let engines: Vec<_> = mountinfo::parse(&engines).collect();
    let hiding = fs::read("/proc/self/mountinfo").and_then(|mounts| mountinfo::hiding(&mounts));
    let hiding = hiding.map_err(files_error("read what the node's /proc hides"))?;
    let nvidia = nvidia::gpus();
    visit(namespaces, |root| {
        furnish::harden(root, &engines, &hiding).map_err(furnish_error(order))?;
        policy::check_gpus(order, root, &nvidia)?;
        furnish::settle(root, entry).map_err(furnish_error(order))?;
        Ok(furnish::look(root, path, &shells, &order.request.credentials))
    })
}

/// What the image has in a file; nothing, where that is none.
pub(super) fn read(namespaces: &Namespaces, path: &Path) -> Result<Vec<u8>, StartError> {
    let read = |root: &Root| root.read(path, furnish::LIMIT).map_err(files_error("read the image's files"));
    Ok(visit(namespaces, read)?.unwrap_or_default())
}

/// Puts mounts and our files in place.
pub(super) fn furnish(
    order: &Order<'_>,
    process: &Process,
    namespaces: &Namespaces,
    files: &Files<'_>,
    found: &Found,
    mounts: Vec<Prepared>,
) -> Result<(), StartError> {
    let user = &order.request.credentials;
    let trees = merge(order, files, found).map_err(files_error("write the container's files"))?;
    visit(namespaces, |root| {
        mounts::attach(root, mounts, user)?;
        furnish::replace(root, trees, user).map_err(furnish_error(order))?;
        if order.request.options.readonly == Some(true) {
            furnish::make_read_only(root).map_err(furnish_error(order))?;
        }
        policy::check_workdir(order, root)
    })?;
    Ok(mounts::check_number(process).map_err(files_error("count the container's mounts"))??)
}

fn visit<T>(
    namespaces: &Namespaces,
    work: impl FnOnce(&Root) -> Result<T, StartError>,
) -> Result<T, StartError> {
    namespaces.visit(work).map_err(files_error("enter the container"))?
}

fn furnish_error(order: &Order<'_>) -> impl Fn(FurnishError) -> StartError {
    |error| StartError::Furnish { image: order.image_name(), source: error.into() }
}

/// Writes the files that say what the image says too, and returns those that go over the image's.
fn merge(order: &Order<'_>, files: &Files<'_>, found: &Found) -> io::Result<[OwnedFd; 3]> {
    let request = order.request;
    let mut account = request.account.clone();
    if let Some(shell) = &found.shell {
        account.shell = shell.into();
    }
    let [passwd, group, ssh_config] = &found.replaced;
    let ours = fs::read_to_string(files.path(in_container::SSH_CONFIG))?;
    files.public(in_container::PASSWD, &merge_passwd(passwd, &account))?;
    files.public(in_container::GROUP, &merge_group(group, &request.groups, &account))?;
    files.public(in_container::SYSTEM_SSH_CONFIG, &client::merged_ssh_config(&ours, ssh_config))?;
    let image = order.image_name();
    let missing = found.sshd.is_none().then(|| client::no_sshd(&image, request.credentials.uid));
    files.program(in_container::SSH, client::program(&image, missing.as_deref()).as_bytes())?;
    if let Some(sshd) = &found.sshd {
        files.link_sshd(sshd)?;
        files.append(in_container::SSHD_CONFIG, &found.sshd_lines)?;
    }
    Ok([
        files.detached(in_container::PASSWD)?,
        files.detached(in_container::GROUP)?,
        files.detached(in_container::SYSTEM_SSH_CONFIG)?,
    ])
}

//! In the container's mount namespace: each mount comes to its place.

use std::io;

use super::error::{MountError, explain_place};
use super::open::Prepared;
use crate::guest::paths;
use crate::linux::identity::UserIds;
use crate::linux::inside::ContainerRoot;
use crate::linux::mount;
use crate::linux::process::Process;
use crate::linux::source::Kind;
use crate::log::escape::Escaped;

/// The most mounts of a container. What the host mounts later may come on top (`rslave`), and the kernel refuses a mount
/// on the *host* that would bring any namespace above fs.mount-max, by default 100,000.
const MOST: usize = 10_000;

/// Attaches them in the container's mount namespace.
pub(in crate::container) fn attach(
    root: &ContainerRoot,
    mounts: Vec<Prepared>,
    user: &UserIds,
) -> Result<(), MountError> {
    mounts.into_iter().try_for_each(|mount| {
        let Prepared { origin, source, target, kind, tree } = mount;
        let place = match kind {
            Kind::Device(_) if target.is_for_devices() => root.place_in_dev(target.as_path()),
            Kind::Directory | Kind::File | Kind::Device(_) => {
                root.resolve_target(target.as_path(), kind == Kind::Directory, user, &paths::CLOSED)
            }
        };
        let target = Escaped::from(target.as_path());
        let place = place.map_err(|error| explain_place(error, origin, source, target.clone()))?;
        mount::attach(tree, place).map_err(|source| MountError::Target { origin, target, source })
    })
}

/// Whether the container of `process` has no more mounts than its node can bear.
pub(in crate::container) fn check_number(process: &Process) -> io::Result<Result<(), MountError>> {
    let count = process.read("mountinfo")?.iter().filter(|byte| **byte == b'\n').count();
    Ok(match count {
        ..=MOST => Ok(()),
        count => Err(MountError::Many { count, most: MOST }),
    })
}

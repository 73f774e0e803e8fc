//! Attaches the prepared mounts to their targets, in the container's mount namespace.

use std::io;
use std::os::fd::OwnedFd;

use super::error::{MountError, explain_place};
use super::open::{Prepared, Tree};
use crate::guest::paths;
use crate::linux::identity::UserIds;
use crate::linux::inside::{ContainerRoot, Rules};
use crate::linux::mount;
use crate::linux::process::Process;
use crate::linux::source::SourceKind;
use crate::log::escape::Escaped;
use crate::settings::mounts::Target;

/// The most mounts of a container. Later mounts of the host may be added to them (`rslave`), and the kernel
/// refuses a mount on the *host* that would bring any mount namespace above fs.mount-max, by default 100,000.
const MOST: usize = 10_000;

/// A mount that every job gets, but that this container has no target for.
#[derive(Debug)]
pub(in crate::container) struct Skipped {
    /// Where it should have been.
    pub(in crate::container) target: Target,
    /// Why it was left out.
    pub(in crate::container) error: MountError,
}

/// Attaches the mounts in the container's mount namespace; `home` is the directory for a fresh home.
pub(in crate::container) fn attach(
    root: &ContainerRoot,
    mounts: Vec<Prepared>,
    home: &OwnedFd,
    user: &UserIds,
    volumes: &[u64],
) -> Result<Vec<Skipped>, MountError> {
    let mut skipped = Vec::new();
    let mut home = FreshHome { tree: home, is_attached: false };
    for mount in mounts {
        let target = mount.target.clone();
        match attach_one(root, mount, &mut home, user, volumes) {
            Err(error) if error.is_of_standard_mount() => skipped.push(Skipped { target, error }),
            other => other?,
        }
    }
    Ok(skipped)
}

/// The fresh home directory, for each of its names.
struct FreshHome<'a> {
    tree: &'a OwnedFd,
    is_attached: bool,
}

impl FreshHome<'_> {
    /// The first target gets the mount itself: Linux before 6.15 makes no copy of a detached mount.
    fn attach(&mut self, place: OwnedFd) -> io::Result<()> {
        if self.is_attached {
            return mount::attach(mount::detached_copy(self.tree, false)?, place);
        }
        mount::attach(self.tree, place)?;
        self.is_attached = true;
        Ok(())
    }
}

fn attach_one(
    root: &ContainerRoot,
    mount: Prepared,
    home: &mut FreshHome<'_>,
    user: &UserIds,
    volumes: &[u64],
) -> Result<(), MountError> {
    let Prepared { origin, source, target, kind, tree } = mount;
    let rules = Rules { closed: &paths::CLOSED, volumes };
    let place = match kind {
        SourceKind::Device(_) if target.is_for_devices() => root.place_in_dev(target.as_path()),
        SourceKind::Directory | SourceKind::File | SourceKind::Device(_) => {
            root.resolve_target(target.as_path(), kind == SourceKind::Directory, user, rules)
        }
    };
    let target = Escaped::from(target.as_path());
    let place = place.map_err(|error| explain_place(error, origin, source, target.clone()))?;
    let attached = match tree {
        Tree::Detached(tree) => mount::attach(tree, place),
        Tree::OnDisk => home.attach(place),
    };
    attached.map_err(|source| MountError::Target { origin, target, source })
}

/// Whether the container of `process` has no more mounts than the node can have.
pub(in crate::container) fn check_number(process: &Process) -> io::Result<Result<(), MountError>> {
    let count = process.read("mountinfo")?.iter().filter(|byte| **byte == b'\n').count();
    Ok(match count {
        ..=MOST => Ok(()),
        count => Err(MountError::Many { count, most: MOST }),
    })
}

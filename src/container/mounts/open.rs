//! Opens each source once, on the host, and makes a detached mount of it, without setuid programs and device
//! nodes.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use futures_util::future::{join, join3};
use futures_util::{StreamExt, stream};

use super::error::{MountError, MountOrigin, explain_source};
use super::plan::{Fresh, PlannedMount, RealPaths, wanted};
use super::private::{self, PrivateDirs};
use crate::container::gpus;
use crate::container::request::Request;
use crate::linux::errand::{self, Answer, Errand};
use crate::linux::identity::UserIds;
use crate::linux::mount::{self, Attributes};
use crate::linux::source::{self, Device, SourceKind};
use crate::log::escape::Escaped;
use crate::settings::mounts::{Mount, MountSource, Propagation, Target};
use crate::settings::plugstack::Config;
use crate::slurm::gres::Gpus;

/// The most sources that are opened at once, each by a child.
const AT_ONCE: usize = 8;

/// A mount that is ready to be attached.
#[derive(Debug)]
pub(in crate::container) struct Prepared {
    pub(super) origin: MountOrigin,
    /// The source as the user or admin wrote it, for messages.
    pub(super) source: Escaped,
    pub(super) target: Target,
    pub(super) kind: SourceKind,
    pub(super) tree: Tree,
}

/// The mount itself.
#[derive(Debug)]
pub(super) enum Tree {
    /// A detached mount.
    Detached(OwnedFd),
    /// A fresh directory on the container's disk, which is made there.
    OnDisk,
}

impl Prepared {
    /// The device, if the source is one.
    pub(in crate::container) fn device(&self) -> Option<Device> {
        match self.kind {
            SourceKind::Device(device) => Some(device),
            SourceKind::Directory | SourceKind::File => None,
        }
    }

    /// Whether the admin's configuration requests it for all containers.
    pub(in crate::container) fn is_admins(&self) -> bool {
        self.origin == MountOrigin::Admin
    }
}

/// Opens all sources for the container of `request`, in the order of their targets: a directory before what is
/// mounted in it.
pub(in crate::container) async fn prepare(
    config: &Config,
    request: &Request,
) -> Result<Vec<Prepared>, MountError> {
    let user = &request.credentials;
    let gpus = request.gpus.clone().unwrap_or_default();
    let (private, real_paths) = join(private::of(request), real_paths(request)).await;
    let opened =
        wanted(config, request, &real_paths).into_iter().map(|wanted| open(wanted, user, &gpus, &private));
    let mut opened = stream::iter(opened).buffered(AT_ONCE);
    let mut prepared = Vec::new();
    while let Some(opened) = opened.next().await {
        match opened {
            // Slurm itself reports such a problem to the user, as it does for a job without a container.
            Err(error) if error.is_of_standard_mount() => {}
            other => prepared.push(other?),
        }
    }
    prepared.sort_by_key(|mount| mount.target.as_path().components().count());
    Ok(prepared)
}

/// The job's working directory, if it is not mounted: a directory of this name in the container would be the
/// image's.
pub(in crate::container) fn unmounted_workdir(request: &Request, mounts: &[Prepared]) -> Option<PathBuf> {
    let workdir = request.workdir.as_deref()?;
    let is_there = mounts.iter().any(|mount| mount.target.covers(workdir));
    (!is_there).then(|| workdir.to_owned())
}

/// Looks these directories up as the user, in children at the same time, since each may not answer. The
/// results are only used as names in the container: sources of mounts are opened separately.
async fn real_paths(request: &Request) -> RealPaths {
    let ask = |path: &Path| {
        Errand::send(Some(&request.credentials), &[], || Answer::of(&std::fs::canonicalize(path)?)).ok()
    };
    let found =
        async |errand: Option<Errand>| errand?.answer(errand::PATIENCE).await.ok()?.value::<PathBuf>().ok();
    let home = ask(Path::new(&request.account.home));
    let workdir = request.workdir.as_deref().and_then(ask);
    let of_shell = request.workdir_of_shell.as_deref().filter(|path| path.is_absolute());
    let resolved = of_shell.and_then(ask);
    let (home, workdir, resolved) = join3(found(home), found(workdir), found(resolved)).await;
    let of_shell = of_shell.filter(|_| resolved.is_some() && resolved == workdir);
    RealPaths { home, workdir, workdir_of_shell: of_shell.map(Path::to_owned) }
}

async fn open(
    wanted: PlannedMount,
    user: &UserIds,
    gpus: &Gpus,
    private: &PrivateDirs,
) -> Result<Prepared, MountError> {
    let PlannedMount { origin, mount: Mount { source, target, read_only, propagation }, fresh } = wanted;
    let path = match source {
        MountSource::Tmpfs => return open_fresh(origin, target, read_only, fresh, user),
        MountSource::Path(path) => path,
    };
    let source = Escaped::from(path.as_path());
    let failed = |error| explain_source(error, origin, source.clone());
    let opener = (origin != MountOrigin::Admin).then_some(user);
    let opened = source::OpenedSource::open(&path, opener).await.map_err(failed)?;
    if opener.is_some() {
        private.check(&opened, origin, &source)?;
    }
    if let SourceKind::Device(device) = opened.kind {
        if read_only {
            return Err(MountError::ReadOnlyDevice { origin, path: source });
        }
        if opener.is_some() && !opened.is_writable {
            return Err(MountError::Device { origin, path: source });
        }
        if opener.is_some() && gpus::is_foreign(gpus, device) {
            return Err(MountError::Gpu { origin, path: source });
        }
    } else if target.is_for_devices() {
        return Err(MountError::NoDevice { origin, path: source, target: target.as_path().into() });
    }
    let tree = detached(&opened, read_only, propagation).map_err(failed)?;
    Ok(Prepared { origin, source, target, kind: opened.kind, tree: Tree::Detached(tree) })
}

/// Makes an empty directory.
fn open_fresh(
    origin: MountOrigin,
    target: Target,
    read_only: bool,
    fresh: Fresh,
    user: &UserIds,
) -> Result<Prepared, MountError> {
    let source = Escaped::from(match fresh {
        Fresh::OnDisk => "a fresh directory",
        Fresh::InMemory => "tmpfs",
    });
    if target.is_for_devices() {
        return Err(MountError::NoDevice { origin, path: source, target: target.as_path().into() });
    }
    let tree = match fresh {
        Fresh::OnDisk => Ok(Tree::OnDisk),
        Fresh::InMemory => tmpfs(user, read_only).map(Tree::Detached),
    };
    match tree {
        Ok(tree) => Ok(Prepared { origin, source, target, kind: SourceKind::Directory, tree }),
        Err(error) => Err(MountError::Source { origin, path: source, source: error }),
    }
}

/// A copy of the source's mount, and of those below it. Device nodes work only on the copy of a single device,
/// which the user may open on the host as well.
fn detached(source: &source::OpenedSource, read_only: bool, propagation: Propagation) -> io::Result<OwnedFd> {
    let recursive = source.kind == SourceKind::Directory;
    let tree = mount::detached_copy(&source.file, recursive)?;
    let mut set = Attributes::NOSUID;
    set = match source.kind {
        SourceKind::Device(_) => set.and(Attributes::NOEXEC),
        SourceKind::Directory | SourceKind::File => set.and(Attributes::NODEV),
    };
    if read_only {
        set = set.and(Attributes::RDONLY);
    }
    match propagation {
        Propagation::Private => mount::change(&tree, recursive, set, Attributes::NONE)?,
        Propagation::Slave => mount::enslave(&tree, set)?,
    }
    Ok(tree)
}

fn tmpfs(user: &UserIds, read_only: bool) -> io::Result<OwnedFd> {
    let number = |number: u32| CString::new(number.to_string()).map_err(io::Error::other);
    let tree = mount::detached_tmpfs(&[
        (c"mode", c"1777"),
        (c"uid", &number(user.uid)?),
        (c"gid", &number(user.gid)?),
    ])?;
    if read_only {
        mount::change(&tree, false, Attributes::RDONLY, Attributes::NONE)?;
    }
    Ok(tree)
}

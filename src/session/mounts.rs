//! What is mounted in a container besides what the engine makes itself: the working directory, the home directory, what
//! the admin and the user name.
//!
//! Runs as root in the prolog, in two steps. On the host each source is opened, a user's with the user's rights, and
//! becomes a detached mount without setuid programs and device nodes. In the container's mount namespace, where only our
//! own first process runs, each is attached at its place. No path of a user is looked up by root, and none twice.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use super::gpus;
use super::request::Request;
use crate::config::Config;
use crate::gpus::Gpus;
use crate::mounts::{Mount, Propagation, Source, Target};
use crate::shown::Shown;
use crate::sys::identity::Credentials;
use crate::sys::inside::{PlaceError, Root};
use crate::sys::mount::{self, Attributes};
use crate::sys::source::{self, Device, Kind};

/// Who wants a mount: what a message about it begins with, and what can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `--docker-mounts`
    User,
    /// `mounts` of the configuration.
    Admin,
    /// `--docker-mount-home`, or `mount_home`.
    Home,
    /// The plugin itself, for every job.
    Standard,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::User => "--docker-mounts",
            Self::Admin => "mounts in plugstack.conf",
            Self::Home => "--docker-mount-home",
            Self::Standard => "working directory or home",
        })
    }
}

impl Origin {
    fn remedy(self) -> &'static str {
        match self {
            Self::User => "use one that every node of the job has",
            Self::Admin => "ask the admin",
            Self::Home => "use --no-docker-mount-home",
            Self::Standard => "ask the admin",
        }
    }
}

/// Why something cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The source does not exist.
    #[error("{origin}: '{path}' does not exist on this node: {}", origin.remedy())]
    Missing {
        /// Who wants it.
        origin: Origin,
        /// The source.
        path: Shown,
    },
    /// The user may not go there.
    #[error("{origin}: '{path}' is not yours to reach on this node: {}", origin.remedy())]
    Denied {
        /// Who wants it.
        origin: Origin,
        /// The source.
        path: Shown,
    },
    /// A link of /proc to what some process has open, or links in a circle.
    #[error("{origin}: '{path}' leads through a link that cannot be followed: name where it leads to")]
    Link {
        /// Who wants it.
        origin: Origin,
        /// The source.
        path: Shown,
    },
    /// Another reason.
    #[error("{origin}: '{path}' cannot be mounted: {source}")]
    Source {
        /// Who wants it.
        origin: Origin,
        /// The source.
        path: Shown,
        /// Why not.
        source: io::Error,
    },
    /// A device that is somebody else's.
    #[error("{origin}: '{path}' is a device that you may not open for reading and writing: leave it out")]
    Device {
        /// Who wants it.
        origin: Origin,
        /// The source.
        path: Shown,
    },
    /// Slurm keeps it for whom it is given to.
    #[error("{origin}: '{path}' is a GPU that Slurm has not given to the job: ask for it with --gres")]
    Gpu {
        /// Who wants it.
        origin: Origin,
        /// The source.
        path: Shown,
    },
    /// A device knows no read-only mount.
    #[error("{origin}: '{path}' is a device, and cannot be mounted read-only: leave the flag 'ro' out")]
    ReadOnlyDevice {
        /// Who wants it.
        origin: Origin,
        /// The source.
        path: Shown,
    },
    /// Something else than a device, where the devices are.
    #[error(
        "{origin}: '{target}' is a place for devices, and '{path}' is none: name devices, not directories of them"
    )]
    NoDevice {
        /// Who wants it.
        origin: Origin,
        /// The source.
        path: Shown,
        /// In the container.
        target: Shown,
    },
    /// The place in the container is a directory, the source none.
    #[error(
        "{origin}: '{target}' is a directory in the container, and '{path}' is none: name a file as the place"
    )]
    OnDirectory {
        /// Who wants it.
        origin: Origin,
        /// The source.
        path: Shown,
        /// In the container.
        target: Shown,
    },
    /// The place in the container is no directory, the source one.
    #[error(
        "{origin}: '{target}' is no directory in the container, and '{path}' is one: name a directory as the place"
    )]
    OnFile {
        /// Who wants it.
        origin: Origin,
        /// The source.
        path: Shown,
        /// In the container.
        target: Shown,
    },
    /// The place leads into what is the container's own.
    #[error("{origin}: '{target}' leads to the container's own system: choose another place")]
    System {
        /// Who wants it.
        origin: Origin,
        /// In the container.
        target: Shown,
    },
    /// The place does not exist, and lies in a mount where the user cannot make it.
    #[error(
        "{origin}: '{at}' does not exist in the container, and you cannot make it there: make it on the host, or choose another place"
    )]
    Make {
        /// Who wants it.
        origin: Origin,
        /// The part that is missing.
        at: Shown,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The place cannot be looked up.
    #[error("{origin}: '{target}' cannot be mounted on: {source}")]
    Target {
        /// Who wants it.
        origin: Origin,
        /// In the container.
        target: Shown,
        /// Why not.
        source: io::Error,
    },
}

/// A mount that only has to be attached.
#[derive(Debug)]
pub(super) struct Prepared {
    origin: Origin,
    /// As it was written, for messages.
    source: Shown,
    target: Target,
    kind: Kind,
    tree: OwnedFd,
}

impl Prepared {
    /// The device that tasks must be let open, if it is one.
    pub(super) fn device(&self) -> Option<Device> {
        match self.kind {
            Kind::Device(device) => Some(device),
            Kind::Directory | Kind::File => None,
        }
    }
}

/// Opens all that the container of `request` gets, those first that others may lie in.
pub(super) fn prepare(config: &Config, request: &Request) -> Result<Vec<Prepared>, MountError> {
    let user = &request.credentials;
    let gpus = request.gpus.clone().unwrap_or_default();
    let mut prepared = Vec::new();
    for wanted in wanted(config, request) {
        match wanted.prepare(user, &gpus) {
            // Slurm itself tells the user, as it does for a job without a container.
            Err(
                MountError::Missing { origin: Origin::Standard, .. }
                | MountError::Denied { origin: Origin::Standard, .. }
                | MountError::Link { origin: Origin::Standard, .. },
            ) => {}
            other => prepared.push(other?),
        }
    }
    prepared.sort_by_key(|mount| mount.target.as_path().components().count());
    Ok(prepared)
}

/// Attaches them in the container's mount namespace.
pub(super) fn attach(root: &Root, mounts: Vec<Prepared>, user: &Credentials) -> Result<(), MountError> {
    mounts.into_iter().try_for_each(|mount| {
        let Prepared { origin, source, target, kind, tree } = mount;
        let place = match kind {
            Kind::Device(_) if target.is_for_devices() => root.place_in_dev(target.as_path()),
            Kind::Directory | Kind::File | Kind::Device(_) => {
                root.place(target.as_path(), kind == Kind::Directory, user)
            }
        };
        let target = Shown::from(target.as_path());
        let place = place.map_err(|error| explain(error, origin, source, target.clone()))?;
        mount::attach(tree, place).map_err(|source| MountError::Target { origin, target, source })
    })
}

fn explain(error: PlaceError, origin: Origin, path: Shown, target: Shown) -> MountError {
    match error {
        PlaceError::IsDirectory => MountError::OnDirectory { origin, path, target },
        PlaceError::NotDirectory => MountError::OnFile { origin, path, target },
        PlaceError::System => MountError::System { origin, target },
        PlaceError::Reach(source) => MountError::Target { origin, target, source },
        PlaceError::Make { at, source } => MountError::Make { origin, at: at.as_path().into(), source },
    }
}

/// A mount before its source was opened.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    origin: Origin,
    mount: Mount,
    /// Options of a tmpfs.
    mode: Mode,
}

/// Who may enter a fresh directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The user.
    Private,
    /// Everybody, as /tmp.
    Shared,
}

/// All that a container gets. What the user names wins over what the admin does, and both over what every job gets.
fn wanted(config: &Config, request: &Request) -> Vec<Wanted> {
    let options = &request.options;
    let by = |origin| move |mount: &Mount| Wanted { origin, mount: mount.clone(), mode: Mode::Shared };
    let same = |mount: &&Mount| !options.mounts.iter().any(|own| own.target == mount.target);
    let mut all: Vec<Wanted> = options.mounts.iter().map(by(Origin::User)).collect();
    all.extend(config.mounts.iter().filter(same).map(by(Origin::Admin)));

    let standard = |source, target| {
        let mount = Mount { source, target, read_only: false, propagation: Propagation::Private };
        Wanted { origin: Origin::Standard, mount, mode: Mode::Private }
    };
    // Somebody has said what is to be there.
    let covered = |all: &[Wanted], path: &Path| all.iter().any(|wanted| wanted.mount.target.covers(path));
    let workdir = request.workdir.as_deref().and_then(harmless);
    if let Some(target) = workdir.filter(|workdir| !covered(&all, workdir.as_path())) {
        all.push(standard(Source::Path(target.as_path().to_owned()), target));
    }
    let home = Path::new(&request.account.home);
    if !covered(&all, home) {
        if options.mount_home.unwrap_or(config.mount_home) {
            // Of the directory itself it can be said what is wrong with it; elsewhere is no place for it.
            let target = Target::new(home).ok();
            all.extend(target.map(|target| Wanted {
                origin: Origin::Home,
                ..standard(Source::Path(home.to_owned()), target)
            }));
        } else if let Some(target) = harmless(home).filter(|_| home != Path::new("/tmp")) {
            all.push(standard(Source::Tmpfs, target));
        }
    }
    if options.readonly == Some(true)
        && !covered(&all, Path::new("/tmp"))
        && let Ok(target) = Target::parse("/tmp")
    {
        // MPI launchers, shells and compilers do not work without.
        all.push(Wanted { mode: Mode::Shared, ..standard(Source::Tmpfs, target) });
    }
    all
}

/// The job's working directory, when it is not in the container: what has its name there is the image's.
pub(super) fn left_out(config: &Config, request: &Request) -> Option<PathBuf> {
    let workdir = request.workdir.as_deref()?;
    let is_there = wanted(config, request).iter().any(|wanted| wanted.mount.target.covers(workdir));
    (!is_there).then(|| workdir.to_owned())
}

/// The place at `path`, unless it is where an image's own system is: nobody has asked for this mount.
fn harmless(path: &Path) -> Option<Target> {
    // Neither they nor what is below them.
    const SYSTEM: [&str; 13] =
        ["bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "run", "sbin", "sys", "usr"];
    // They hold both the system's and other things: only what is below them.
    const SHARED: [&str; 3] = ["opt", "root", "var"];
    let mut names = path.components().skip(1).map(|component| match component {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    let first = names.next().flatten().and_then(OsStr::to_str).unwrap_or_default();
    let hides = SYSTEM.contains(&first) || (names.next().is_none() && SHARED.contains(&first));
    Target::new(path).ok().filter(|_| !hides)
}

impl Wanted {
    fn prepare(self, user: &Credentials, gpus: &Gpus) -> Result<Prepared, MountError> {
        let Self { origin, mount: Mount { source, target, read_only, propagation }, mode } = self;
        let path = match source {
            Source::Path(path) => path,
            Source::Tmpfs => {
                let tree = tmpfs(user, mode).and_then(|tree| {
                    let set = if read_only { Attributes::RDONLY } else { Attributes::NONE };
                    mount::change(&tree, false, set, Attributes::NONE).map(|()| tree)
                });
                let source = Shown::from("tmpfs");
                let tree =
                    tree.map_err(|error| MountError::Source { origin, path: source.clone(), source: error })?;
                let kind = if target.is_for_devices() {
                    return Err(MountError::NoDevice {
                        origin,
                        path: source,
                        target: target.as_path().into(),
                    });
                } else {
                    Kind::Directory
                };
                return Ok(Prepared { origin, source, target, kind, tree });
            }
        };
        let shown = Shown::from(path.as_path());
        let failed = |source: io::Error| {
            let path = shown.clone();
            match source.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) => MountError::Missing { origin, path },
                Some(libc::EACCES | libc::EPERM) => MountError::Denied { origin, path },
                Some(libc::ELOOP) => MountError::Link { origin, path },
                _ => MountError::Source { origin, path, source },
            }
        };
        let opener = (origin != Origin::Admin).then_some(user);
        let opened = source::Source::open(&path, opener).map_err(failed)?;
        let is_device = matches!(opened.kind, Kind::Device(_));
        if is_device && read_only {
            return Err(MountError::ReadOnlyDevice { origin, path: shown });
        }
        if is_device && origin != Origin::Admin && !opened.may_be_opened_by(user).map_err(failed)? {
            return Err(MountError::Device { origin, path: shown });
        }
        if let Kind::Device(device) = opened.kind
            && origin != Origin::Admin
            && gpus::is_foreign(gpus, device)
        {
            return Err(MountError::Gpu { origin, path: shown });
        }
        if !is_device && target.is_for_devices() {
            return Err(MountError::NoDevice { origin, path: shown, target: target.as_path().into() });
        }
        let tree = detached(&opened, read_only, propagation).map_err(failed)?;
        Ok(Prepared { origin, source: shown, target, kind: opened.kind, tree })
    }
}

/// A copy of the source's mount, and of those below it. On the copy of a device node, and there alone, devices work: the
/// user may open this one on the host as well.
fn detached(source: &source::Source, read_only: bool, propagation: Propagation) -> io::Result<OwnedFd> {
    let recursive = source.kind == Kind::Directory;
    let tree = mount::detached_copy(&source.file, recursive)?;
    let mut set = Attributes::NOSUID;
    set = match source.kind {
        Kind::Device(_) => set.and(Attributes::NOEXEC),
        Kind::Directory | Kind::File => set.and(Attributes::NODEV),
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

fn tmpfs(user: &Credentials, mode: Mode) -> io::Result<OwnedFd> {
    let number = |number: u32| CString::new(number.to_string()).map_err(io::Error::other);
    let mode = match mode {
        Mode::Private => c"0700",
        Mode::Shared => c"1777",
    };
    mount::detached_tmpfs(&[(c"mode", mode), (c"uid", &number(user.uid)?), (c"gid", &number(user.gid)?)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{JobId, Scope};
    use crate::mounts;
    use crate::options::Options;
    use crate::users::Account;

    fn request(home: &str, workdir: &str, options: Options) -> Request {
        Request {
            scope: Scope::job(JobId(1)),
            cluster: "c".into(),
            node: "n1".into(),
            restart: 0,
            nodes: "n1".into(),
            slots: "1".into(),
            account: Account {
                name: "alice".into(),
                uid: 5001,
                gid: 5001,
                gecos: "".into(),
                home: home.into(),
                shell: "/bin/sh".into(),
            },
            groups: Vec::new(),
            credentials: Credentials { uid: 5001, gid: 5001, groups: vec![5001] },
            workdir: Some(workdir.into()),
            options,
            gpus: None,
        }
    }

    /// What is mounted where: `=` stands for the same path of the host.
    fn mounted(config: &[&str], home: &str, workdir: &str, options: Options) -> Vec<String> {
        let config = Config::parse(config).unwrap();
        let show = |wanted: Wanted| {
            let target = wanted.mount.target.as_path().to_str().unwrap().to_owned();
            match wanted.mount.source {
                Source::Tmpfs => format!("tmpfs {target}"),
                Source::Path(path) if path == wanted.mount.target.as_path() => format!("= {target}"),
                Source::Path(path) => format!("{} {target}", path.display()),
            }
        };
        wanted(&config, &request(home, workdir, options)).into_iter().map(show).collect()
    }

    fn with_mounts(list: &str) -> Options {
        Options { mounts: mounts::parse(list).unwrap(), ..Options::default() }
    }

    #[test]
    fn every_job_has_its_working_directory_and_a_fresh_home() {
        let standard = |workdir| mounted(&[], "/home/alice", workdir, Options::default());
        assert_eq!(standard("/scratch/x"), ["= /scratch/x", "tmpfs /home/alice"]);
        assert_eq!(standard("/home/alice/x"), ["= /home/alice/x", "tmpfs /home/alice"]);
        assert_eq!(standard("/home/alice"), ["= /home/alice"]);
        assert_eq!(standard("/home"), ["= /home"]);
        assert_eq!(mounted(&[], "/", "/scratch", Options::default()), ["= /scratch"]);
    }

    #[test]
    fn the_images_own_system_is_not_hidden_by_what_nobody_asked_for() {
        for path in [
            "/",
            "/etc",
            "/usr",
            "/usr/lib/x",
            "/lib64",
            "/var",
            "/opt",
            "/run/x",
            "relative",
            "/a/../etc",
            "/proc/1",
        ] {
            assert_eq!(mounted(&[], "/", path, Options::default()), [""; 0], "{path}");
            assert_eq!(mounted(&[], path, "/", Options::default()), [""; 0], "{path}");
        }
        for path in ["/home/alice", "/tmp", "/scratch", "/var/tmp/x", "/opt/data", "/users/a/b", "/root/x"] {
            assert_eq!(mounted(&[], "/", path, Options::default()), [format!("= {path}")], "{path}");
        }
    }

    #[test]
    fn the_user_wins_over_the_admin_and_both_over_what_every_job_gets() {
        let config = ["mounts=/data,/site:/opt/site"];
        assert_eq!(
            mounted(&config, "/home/alice", "/scratch/x", with_mounts("/mine:/data")),
            ["/mine /data", "/site /opt/site", "= /scratch/x", "tmpfs /home/alice"]
        );
        assert_eq!(
            mounted(&[], "/home/alice", "/data/x", with_mounts("/a:/data,/b:/home")),
            ["/a /data", "/b /home"]
        );
    }

    #[test]
    fn a_mounted_home_is_the_users_word_or_else_the_admins() {
        let options = |mount_home| Options { mount_home, ..Options::default() };
        let home = |config: &[&str], mount_home| mounted(config, "/home/alice", "/", options(mount_home));
        assert_eq!(home(&[], Some(true)), ["= /home/alice"]);
        assert_eq!(home(&["mount_home=yes"], None), ["= /home/alice"]);
        assert_eq!(home(&["mount_home=yes"], Some(false)), ["tmpfs /home/alice"]);
    }

    #[test]
    fn a_read_only_container_has_a_place_for_temporary_files() {
        let options = || Options { readonly: Some(true), ..Options::default() };
        assert_eq!(mounted(&[], "/", "/", options()), ["tmpfs /tmp"]);
        assert_eq!(mounted(&[], "/", "/tmp/x", options()), ["= /tmp/x", "tmpfs /tmp"]);
        assert_eq!(mounted(&[], "/", "/tmp", options()), ["= /tmp"]);
    }

    #[test]
    fn what_users_read_when_something_cannot_be_mounted() {
        let (origin, path, target) = (Origin::User, Shown::from("/a"), Shown::from("/b"));
        let make = PlaceError::Make { at: "/b/c".into(), source: io::Error::from_raw_os_error(libc::EACCES) };
        let reach = PlaceError::Reach(io::Error::from_raw_os_error(libc::EACCES));
        let words = |error| explain(error, origin, path.clone(), target.clone()).to_string();
        for (said, expected) in [
            (
                MountError::Missing { origin, path: path.clone() }.to_string(),
                "--docker-mounts: '/a' does not exist on this node: use one that every node of the job has",
            ),
            (
                MountError::Missing { origin: Origin::Admin, path: path.clone() }.to_string(),
                "mounts in plugstack.conf: '/a' does not exist on this node: ask the admin",
            ),
            (
                MountError::Denied { origin: Origin::Home, path: path.clone() }.to_string(),
                "--docker-mount-home: '/a' is not yours to reach on this node: use --no-docker-mount-home",
            ),
            (
                MountError::Link { origin, path: path.clone() }.to_string(),
                "--docker-mounts: '/a' leads through a link that cannot be followed: name where it leads to",
            ),
            (
                MountError::Device { origin, path: path.clone() }.to_string(),
                "--docker-mounts: '/a' is a device that you may not open for reading and writing: leave it out",
            ),
            (
                MountError::Gpu { origin, path: path.clone() }.to_string(),
                "--docker-mounts: '/a' is a GPU that Slurm has not given to the job: ask for it with --gres",
            ),
            (
                MountError::ReadOnlyDevice { origin, path: path.clone() }.to_string(),
                "--docker-mounts: '/a' is a device, and cannot be mounted read-only: leave the flag 'ro' out",
            ),
            (
                MountError::NoDevice { origin, path: path.clone(), target: target.clone() }.to_string(),
                "--docker-mounts: '/b' is a place for devices, and '/a' is none: name devices, not directories of them",
            ),
            (
                words(PlaceError::IsDirectory),
                "--docker-mounts: '/b' is a directory in the container, and '/a' is none: name a file as the place",
            ),
            (
                words(PlaceError::NotDirectory),
                "--docker-mounts: '/b' is no directory in the container, and '/a' is one: name a directory as the place",
            ),
            (
                words(PlaceError::System),
                "--docker-mounts: '/b' leads to the container's own system: choose another place",
            ),
            (
                words(make),
                "--docker-mounts: '/b/c' does not exist in the container, and you cannot make it there: \
                 make it on the host, or choose another place",
            ),
            (words(reach), "--docker-mounts: '/b' cannot be mounted on: Permission denied (os error 13)"),
        ] {
            assert_eq!(said, expected);
        }
    }
}

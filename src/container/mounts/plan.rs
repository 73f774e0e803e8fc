//! Which mounts a container gets, and what requests each. Pure.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use super::error::MountOrigin;
use crate::container::request::Request;
use crate::settings::mounts::{Mount, MountSource, Propagation, Target};
use crate::settings::plugstack::Config;

/// A mount whose source was not opened yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PlannedMount {
    pub(super) origin: MountOrigin,
    pub(super) mount: Mount,
    /// Whether it is a fresh directory, which has no source.
    pub(super) fresh: Fresh,
}

/// Where a fresh directory is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fresh {
    /// On the container's disk, for the user alone. The user did not request it, so it must not use the job's
    /// memory.
    OnDisk,
    /// In memory, for all users, as /tmp is.
    InMemory,
}

/// The real paths of the job's directories on the host: a home directory, or one above it, may be a link. In
/// the container both names lead to the same directory. `None` where the path cannot be found out, or does not
/// exist.
#[derive(Debug, Default)]
pub(super) struct RealPaths {
    pub(super) home: Option<PathBuf>,
    pub(super) workdir: Option<PathBuf>,
    /// Not a real path, but the shell's name of the working directory, if it leads there.
    pub(super) workdir_of_shell: Option<PathBuf>,
}

/// All mounts of a container. The user's requests override the admin's, and both override those that every job
/// gets.
pub(super) fn wanted(config: &Config, request: &Request, real: &RealPaths) -> Vec<PlannedMount> {
    let options = &request.options;
    let by =
        |origin| move |mount: &Mount| PlannedMount { origin, mount: mount.clone(), fresh: Fresh::InMemory };
    let same = |mount: &&Mount| !options.mounts.iter().any(|own| own.target == mount.target);
    let mut all: Vec<PlannedMount> = options.mounts.iter().map(by(MountOrigin::User)).collect();
    all.extend(config.mounts.iter().filter(same).map(by(MountOrigin::Admin)));
    let is_home_mounted = options.mount_home.unwrap_or(config.mount_home);
    add_workdir(&mut all, request, real, is_home_mounted);
    add_home(&mut all, request, real, is_home_mounted);
    if options.readonly == Some(true)
        && !covered(&all, Path::new("/tmp"))
        && let Ok(target) = Target::parse("/tmp")
    {
        // MPI launchers, shells and compilers need a writable /tmp.
        all.push(PlannedMount {
            origin: MountOrigin::ReadOnly,
            fresh: Fresh::InMemory,
            ..standard(MountSource::Tmpfs, target)
        });
    }
    all
}

fn add_workdir(all: &mut Vec<PlannedMount>, request: &Request, real: &RealPaths, is_home_mounted: bool) {
    let Some(workdir) = request.workdir.as_deref() else { return };
    let source = match harmless(workdir) {
        Some(target) if !covered(all, workdir) => MountSource::Path(target.as_path().to_owned()),
        _ => return,
    };
    let in_home = real.workdir.iter().zip(&real.home).filter_map(|(workdir, home)| {
        let below = workdir.strip_prefix(home).ok()?;
        Some(Path::new(&request.account.home).join(below))
    });
    // The home directory itself has the link in it.
    let is_there = |name: &&PathBuf| is_home_mounted && name.starts_with(&request.account.home);
    let of_shell = real.workdir_of_shell.as_ref().filter(|name| !is_there(name)).cloned();
    let names = [workdir.to_owned()].into_iter().chain(real.workdir.clone()).chain(in_home).chain(of_shell);
    for name in names {
        if let Some(target) = harmless(&name).filter(|target| !covered(all, target.as_path())) {
            all.push(standard(source.clone(), target));
        }
    }
}

fn add_home(all: &mut Vec<PlannedMount>, request: &Request, real: &RealPaths, is_mounted: bool) {
    let home = Path::new(&request.account.home);
    if covered(all, home) {
        return;
    }
    let is_there = real.home.as_deref().is_some_and(|home| is_shown(all, home));
    let source = || MountSource::Path(home.to_owned());
    if is_mounted {
        // A problem with the home directory itself is reported; a parent that cannot be a target is ignored.
        let target = Target::new(home).ok();
        all.extend(
            target.map(|target| PlannedMount { origin: MountOrigin::Home, ..standard(source(), target) }),
        );
    }
    for name in [Some(home), real.home.as_deref()].into_iter().flatten() {
        let fits = |target: &Target| !covered(all, target.as_path()) && target.as_path() != Path::new("/tmp");
        if let Some(target) = harmless(name).filter(fits) {
            let source = if is_mounted || is_there { source() } else { MountSource::Tmpfs };
            all.push(standard(source, target));
        }
    }
}

fn standard(source: MountSource, target: Target) -> PlannedMount {
    let mount = Mount { source, target, read_only: false, propagation: Propagation::Private };
    PlannedMount { origin: MountOrigin::Standard, mount, fresh: Fresh::OnDisk }
}

/// Whether a mount for `path` is in the list already.
fn covered(all: &[PlannedMount], path: &Path) -> bool {
    all.iter().any(|wanted| wanted.mount.target.covers(path))
}

/// Whether `path` in the container is the same directory as on the host.
fn is_shown(all: &[PlannedMount], path: &Path) -> bool {
    all.iter().any(|PlannedMount { mount, .. }| {
        matches!(&mount.source, MountSource::Path(source) if source == mount.target.as_path())
            && mount.target.covers(path)
    })
}

/// The target at `path`, unless an image's system is there: the user did not request this mount.
fn harmless(path: &Path) -> Option<Target> {
    // Neither these directories nor those below them.
    const SYSTEM: [&str; 13] =
        ["bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "run", "sbin", "sys", "usr"];
    // These directories hold parts of the system besides others: only directories below them.
    const SHARED: [&str; 3] = ["opt", "root", "var"];
    let mut names = path.components().skip(1).map(|component| match component {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    let first = names.next().flatten().and_then(OsStr::to_str).unwrap_or_default();
    let hides = SYSTEM.contains(&first) || (names.next().is_none() && SHARED.contains(&first));
    Target::new(path).ok().filter(|_| !hides)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::accounts::Account;
    use crate::linux::identity::UserIds;
    use crate::settings::mounts;
    use crate::settings::options::Options;
    use crate::slurm::ids::{JobId, Owner};
    use crate::slurm::shell_state::ShellState;

    fn request(home: &str, workdir: &str, options: Options) -> Request {
        Request {
            owner: Owner::job(JobId(1)),
            cluster: "c".into(),
            slurmd: crate::slurm::ids::Slurmd::default(),
            node: "n1".into(),
            host: "n1".into(),
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
            credentials: UserIds { uid: 5001, gid: 5001, groups: vec![5001] },
            workdir: Some(workdir.into()),
            workdir_of_shell: None,
            options,
            shell: ShellState::default(),
            gpus: None,
        }
    }

    /// The mounts and their sources: `=` stands for the same path on the host.
    fn mounted(config: &[&str], home: &str, workdir: &str, options: Options) -> Vec<String> {
        let real =
            RealPaths { home: Some(home.into()), workdir: Some(workdir.into()), ..RealPaths::default() };
        mounted_with_links(config, home, workdir, &real, options)
    }

    fn mounted_with_links(
        config: &[&str],
        home: &str,
        workdir: &str,
        real: &RealPaths,
        options: Options,
    ) -> Vec<String> {
        let config = Config::parse(config).unwrap();
        let show = |wanted: PlannedMount| {
            let target = wanted.mount.target.as_path().to_str().unwrap().to_owned();
            match wanted.mount.source {
                MountSource::Tmpfs if wanted.fresh == Fresh::OnDisk => format!("fresh {target}"),
                MountSource::Tmpfs => format!("tmpfs {target}"),
                MountSource::Path(path) if path == wanted.mount.target.as_path() => format!("= {target}"),
                MountSource::Path(path) => format!("{} {target}", path.display()),
            }
        };
        wanted(&config, &request(home, workdir, options), real).into_iter().map(show).collect()
    }

    fn with_mounts(list: &str) -> Options {
        Options { mounts: mounts::parse(list).unwrap(), ..Options::default() }
    }

    #[test]
    fn every_job_has_its_working_directory_and_a_fresh_home() {
        let standard = |workdir| mounted(&[], "/home/alice", workdir, Options::default());
        assert_eq!(standard("/scratch/x"), ["= /scratch/x", "fresh /home/alice"]);
        assert_eq!(standard("/home/alice/x"), ["= /home/alice/x", "fresh /home/alice"]);
        assert_eq!(standard("/home/alice"), ["= /home/alice"]);
        assert_eq!(standard("/home"), ["= /home"]);
        assert_eq!(mounted(&[], "/", "/scratch", Options::default()), ["= /scratch"]);
    }

    #[test]
    fn default_mounts_do_not_hide_the_images_system_directories() {
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
    fn mounts_of_the_user_override_the_admins_and_both_override_the_defaults() {
        let config = ["mounts=/data,/site:/opt/site"];
        assert_eq!(
            mounted(&config, "/home/alice", "/scratch/x", with_mounts("/mine:/data")),
            ["/mine /data", "/site /opt/site", "= /scratch/x", "fresh /home/alice"]
        );
        assert_eq!(
            mounted(&[], "/home/alice", "/data/x", with_mounts("/a:/data,/b:/home")),
            ["/a /data", "/b /home"]
        );
    }

    #[test]
    fn home_is_mounted_as_the_user_says_or_else_the_admin() {
        let options = |mount_home| Options { mount_home, ..Options::default() };
        let home = |config: &[&str], mount_home| mounted(config, "/home/alice", "/", options(mount_home));
        assert_eq!(home(&[], Some(true)), ["= /home/alice"]);
        assert_eq!(home(&["mount_home=yes"], None), ["= /home/alice"]);
        assert_eq!(home(&["mount_home=yes"], Some(false)), ["fresh /home/alice"]);
    }

    /// /home/alice is a link to /nfs/alice here.
    #[test]
    fn both_names_of_a_linked_home_lead_to_the_same() {
        let with = |config: &[&str], workdir: &str, options| {
            let resolved = workdir.replace("/home/alice", "/nfs/alice");
            let real = RealPaths {
                home: Some("/nfs/alice".into()),
                workdir: Some(resolved.into()),
                ..RealPaths::default()
            };
            mounted_with_links(config, "/home/alice", workdir, &real, options)
        };
        let plain = |workdir| with(&[], workdir, Options::default());
        assert_eq!(plain("/nfs/alice"), ["= /nfs/alice", "/nfs/alice /home/alice"]);
        assert_eq!(plain("/home/alice"), ["= /home/alice", "/home/alice /nfs/alice"]);
        assert_eq!(
            plain("/nfs/alice/x"),
            ["= /nfs/alice/x", "/nfs/alice/x /home/alice/x", "fresh /home/alice", "fresh /nfs/alice"]
        );
        assert_eq!(
            plain("/home/alice/x"),
            ["= /home/alice/x", "/home/alice/x /nfs/alice/x", "fresh /home/alice", "fresh /nfs/alice"]
        );
        assert_eq!(plain("/nfs"), ["= /nfs", "= /home/alice"]);
        assert_eq!(plain("/scratch"), ["= /scratch", "fresh /home/alice", "fresh /nfs/alice"]);
        let home = |mount_home| Options { mount_home: Some(mount_home), ..Options::default() };
        assert_eq!(
            with(&[], "/scratch", home(true)),
            ["= /scratch", "= /home/alice", "/home/alice /nfs/alice"]
        );
        // A request of the user or the admin overrides that.
        assert_eq!(
            with(&["mounts=/nfs"], "/scratch", home(false)),
            ["= /nfs", "= /scratch", "= /home/alice"]
        );
        assert_eq!(
            with(&["mounts=/other:/nfs"], "/nfs/alice/x", home(false)),
            ["/other /nfs", "fresh /home/alice"]
        );
        let named = with(&[], "/nfs/alice", with_mounts("/mine:/home/alice"));
        assert_eq!(named, ["/mine /home/alice", "= /nfs/alice"]);
    }

    /// /links is one to /data/scratch here, and so is /home/alice/work.
    #[test]
    fn the_shells_name_of_the_working_directory_leads_there_too() {
        let with = |of_shell: &str, mount_home| {
            let real = RealPaths {
                home: Some("/home/alice".into()),
                workdir: Some("/data/scratch".into()),
                workdir_of_shell: Some(of_shell.into()),
            };
            let options = Options { mount_home: Some(mount_home), ..Options::default() };
            mounted_with_links(&[], "/home/alice", "/data/scratch", &real, options)
        };
        let [workdir, fresh, home] = ["= /data/scratch", "fresh /home/alice", "= /home/alice"];
        assert_eq!(with("/links", false), [workdir, "/data/scratch /links", fresh]);
        assert_eq!(with("/home/alice/work", false), [workdir, "/data/scratch /home/alice/work", fresh]);
        assert_eq!(with("/home/alice/work", true), [workdir, home]);
        assert_eq!(with("/usr/links", false), [workdir, fresh]);
    }

    #[test]
    fn real_path_in_a_system_directory_of_the_image_is_not_mounted() {
        let real = RealPaths {
            home: Some("/usr/home/alice".into()),
            workdir: Some("/run/x".into()),
            ..RealPaths::default()
        };
        let mounted = mounted_with_links(&[], "/home/alice", "/scratch", &real, Options::default());
        assert_eq!(mounted, ["= /scratch", "fresh /home/alice"]);
    }

    #[test]
    fn a_read_only_container_has_a_place_for_temporary_files() {
        let options = || Options { readonly: Some(true), ..Options::default() };
        assert_eq!(mounted(&[], "/", "/", options()), ["tmpfs /tmp"]);
        assert_eq!(mounted(&[], "/", "/tmp/x", options()), ["= /tmp/x", "tmpfs /tmp"]);
        assert_eq!(mounted(&[], "/", "/tmp", options()), ["= /tmp"]);
    }
}

//! Which mounts a container gets, and who wants them. Pure.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::path::{Component, Path};

use super::error::MountOrigin;
use crate::container::request::Request;
use crate::settings::mounts::{Mount, MountSource, Propagation, Target};
use crate::settings::plugstack::Config;

/// A mount before its source was opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) origin: MountOrigin,
    pub(super) mount: Mount,
    /// Of a directory that is nowhere yet.
    pub(super) fresh: Fresh,
}

/// Where a fresh directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fresh {
    /// On the container's disk, for the user alone: the user did not ask for it, and memory is the job's.
    OnDisk,
    /// In memory, for all users as /tmp is.
    InMemory,
}

/// All that a container gets. What the user names wins over what the admin does, and both over what every job gets.
pub(super) fn wanted(config: &Config, request: &Request) -> Vec<Wanted> {
    let options = &request.options;
    let by = |origin| move |mount: &Mount| Wanted { origin, mount: mount.clone(), fresh: Fresh::InMemory };
    let same = |mount: &&Mount| !options.mounts.iter().any(|own| own.target == mount.target);
    let mut all: Vec<Wanted> = options.mounts.iter().map(by(MountOrigin::User)).collect();
    all.extend(config.mounts.iter().filter(same).map(by(MountOrigin::Admin)));

    let standard = |source, target| {
        let mount = Mount { source, target, read_only: false, propagation: Propagation::Private };
        Wanted { origin: MountOrigin::Standard, mount, fresh: Fresh::OnDisk }
    };
    // The user or the admin has said what is to be there.
    let covered = |all: &[Wanted], path: &Path| all.iter().any(|wanted| wanted.mount.target.covers(path));
    let workdir = request.workdir.as_deref().and_then(harmless);
    if let Some(target) = workdir.filter(|workdir| !covered(&all, workdir.as_path())) {
        all.push(standard(MountSource::Path(target.as_path().to_owned()), target));
    }
    let home = Path::new(&request.account.home);
    if !covered(&all, home) {
        if options.mount_home.unwrap_or(config.mount_home) {
            // Of the directory itself it can be said what is wrong with it; elsewhere is no place for it.
            let target = Target::new(home).ok();
            all.extend(target.map(|target| Wanted {
                origin: MountOrigin::Home,
                ..standard(MountSource::Path(home.to_owned()), target)
            }));
        } else if let Some(target) = harmless(home).filter(|_| home != Path::new("/tmp")) {
            all.push(standard(MountSource::Tmpfs, target));
        }
    }
    if options.readonly == Some(true)
        && !covered(&all, Path::new("/tmp"))
        && let Ok(target) = Target::parse("/tmp")
    {
        // MPI launchers, shells and compilers do not work without.
        all.push(Wanted {
            origin: MountOrigin::ReadOnly,
            fresh: Fresh::InMemory,
            ..standard(MountSource::Tmpfs, target)
        });
    }
    all
}

/// The place at `path`, unless an image's own system is there: the user did not ask for this mount.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::accounts::Account;
    use crate::linux::identity::UserIds;
    use crate::settings::mounts;
    use crate::settings::options::Options;
    use crate::slurm::ids::{JobId, Owner};

    fn request(home: &str, workdir: &str, options: Options) -> Request {
        Request {
            owner: Owner::job(JobId(1)),
            cluster: "c".into(),
            slurmd: crate::slurm::ids::Slurmd::default(),
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
            credentials: UserIds { uid: 5001, gid: 5001, groups: vec![5001] },
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
                MountSource::Tmpfs if wanted.fresh == Fresh::OnDisk => format!("fresh {target}"),
                MountSource::Tmpfs => format!("tmpfs {target}"),
                MountSource::Path(path) if path == wanted.mount.target.as_path() => format!("= {target}"),
                MountSource::Path(path) => format!("{} {target}", path.display()),
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
        assert_eq!(standard("/scratch/x"), ["= /scratch/x", "fresh /home/alice"]);
        assert_eq!(standard("/home/alice/x"), ["= /home/alice/x", "fresh /home/alice"]);
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
            ["/mine /data", "/site /opt/site", "= /scratch/x", "fresh /home/alice"]
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
        assert_eq!(home(&["mount_home=yes"], Some(false)), ["fresh /home/alice"]);
    }

    #[test]
    fn a_read_only_container_has_a_place_for_temporary_files() {
        let options = || Options { readonly: Some(true), ..Options::default() };
        assert_eq!(mounted(&[], "/", "/", options()), ["tmpfs /tmp"]);
        assert_eq!(mounted(&[], "/", "/tmp/x", options()), ["= /tmp/x", "tmpfs /tmp"]);
        assert_eq!(mounted(&[], "/", "/tmp", options()), ["= /tmp"]);
    }
}

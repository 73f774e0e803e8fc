//! The removal of a container: its processes, then what it has written, then the container itself.
//!
//! The plugin removes a user's files itself. The engine removes trees by recursion, with an open file and a stack frame for
//! each level (Go's os.RemoveAll(), called by moby's container/containerd's stores): a user who nests directories deeply enough
//! exhausts its files or crashes it, and a wide tree keeps it from answering in time. The engine says where the files are
//! (`GraphDriver`, `Mounts`); with containerd's image store it does not, and the plugin has asked the kernel when the container
//! was started ([`written_to`]).
//!
//! Runs as root: in the prolog, the epilog and a starting slurmd; for a step's own container in its task and its slurmstepd.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{InspectContainerOptions, KillContainerOptions, RemoveContainerOptions};

use super::connection::{CALL, Engine, EngineError};
use super::container::Container;
use super::shim;
use crate::linux::mountinfo::Mounted;
use crate::linux::tree::Content;
use crate::linux::{cgroup, mountinfo, poll};

/// How long a removal that another process has begun may take.
const REMOVAL: Duration = Duration::from_secs(60);
/// How long a call may take before the plugin ends the container's processes itself.
const HANGING: Duration = Duration::from_secs(10);
/// How long removing a container's files may take in the hooks of its own job: other jobs do not wait for it.
pub const PATIENCE: Duration = Duration::from_secs(600);
/// How long an engine may go on creating a container when the start that has asked for it was cut off.
pub const CREATION: Duration = Duration::from_secs(10);
/// How long one slice of that may block the thread.
const SLICE: Duration = Duration::from_millis(20);

impl Engine {
    /// Kills and removes a container with its anonymous volumes. An absent container counts as removed.
    /// `written_to`: the directory with its files, if that was recorded; else the engine reports it. A removal
    /// that exceeds `patience` stops, and the next one continues there.
    ///
    /// A container whose start hangs (the engine's own first process has opened a FIFO of the image, as root)
    /// cannot be removed before that start has failed.
    pub async fn remove(
        &self,
        container: &Container,
        written_to: Option<PathBuf>,
        patience: Duration,
    ) -> Result<(), EngineError> {
        self.kill(container).await?;
        let options = None::<InspectContainerOptions>;
        let request = || self.docker.inspect_container(&container.id, options.clone());
        let inspected = match self.call_for_states("inspect the container", request).await {
            Ok(inspected) => inspected,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        let deadline = Instant::now() + patience;
        for path in contents(&inspected).into_iter().chain(written_to).filter(|path| is_roots_alone(path)) {
            empty(&path, deadline).await.map_err(|source| EngineError::NotRemoved { path, source })?;
        }
        self.delete(container).await
    }

    /// Ends the container's processes, if it has any.
    async fn kill(&self, container: &Container) -> Result<(), EngineError> {
        let request = self.docker.kill_container(&container.id, None::<KillContainerOptions>);
        match self.call_within(HANGING, "kill the container's processes", request).await {
            Err(EngineError::Stuck { .. }) => {
                end_without_engine(container);
                Ok(())
            }
            // The container is gone, or not running.
            Ok(()) | Err(EngineError::Refused { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn delete(&self, container: &Container) -> Result<(), EngineError> {
        let deadline = Instant::now() + REMOVAL;
        match self.delete_within(HANGING, container, deadline).await {
            Err(EngineError::Stuck { .. }) => {
                end_without_engine(container);
                self.delete_within(CALL, container, deadline).await
            }
            deleted => deleted,
        }
    }

    /// Deletes the container, with each call limited by `patience`.
    async fn delete_within(
        &self,
        patience: Duration,
        container: &Container,
        deadline: Instant,
    ) -> Result<(), EngineError> {
        const INTERVAL: Duration = Duration::from_millis(50);
        let delete = async || {
            let options = RemoveContainerOptions { v: true, force: true, link: false };
            let request = self.docker.remove_container(&container.id, Some(options));
            match self.call_within(patience, "remove the container", request).await {
                Err(error) if error.is_not_found() => Ok(()),
                deleted => deleted,
            }
        };
        // Another process (an epilog that was cut off) has begun the removal: waits until the container is
        // gone.
        let is_final =
            |deleted: &Result<(), _>| !matches!(deleted, Err(EngineError::Refused { status: 409, .. }));
        poll::until_meanwhile(deadline, INTERVAL, delete, is_final).await
    }
}

/// Ends the processes of a container for which the engine does nothing more, and the one that watches them: if that one hangs,
/// so does each of the engine's calls about this container. If this fails, the engine's own calls have to do it.
fn end_without_engine(container: &Container) {
    let _ = cgroup::kill_all(&container.id);
    let _ = shim::end(&container.id);
}

/// The directories in which the container has written, as the engine reports them: its own layer, and its
/// anonymous volumes.
fn contents(inspected: &ContainerInspectResponse) -> Vec<PathBuf> {
    let layer = inspected.graph_driver.as_ref().and_then(|driver| driver.data.get("UpperDir"));
    let volumes = inspected.mounts.iter().flatten().filter(|mount| {
        mount.typ.as_deref() == Some("volume")
            && mount.driver.as_deref() == Some("local")
            && mount.name.as_deref().is_some_and(is_anonymous)
    });
    let volumes = volumes.filter_map(|mount| mount.source.as_ref());
    layer.into_iter().chain(volumes).map(PathBuf::from).collect()
}

/// Engines give such a name to a volume that has none of its own: one that an image declares.
fn is_anonymous(volume: &str) -> bool {
    volume.len() == 64 && volume.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Which of a container's mounts are volumes that its image declares, according to the kernel: the directory
/// `ID/_data` in the engine's directory of volumes (moby's volume/local, Podman's libpod). Called only with
/// mounts of the engine's, none of the user's.
#[must_use]
pub fn volumes(mounts: &[Mounted]) -> Vec<u64> {
    let is_volume = |mount: &&Mounted| {
        let parent = mount.root.parent().and_then(Path::file_name).and_then(OsStr::to_str);
        mount.root.ends_with("_data") && parent.is_some_and(is_anonymous)
    };
    mounts.iter().filter(is_volume).map(|mount| mount.id).collect()
}

/// The directory of the host that receives what a container writes to its own file system, by the mounts of its
/// first process: read before any program of the image runs, because a user may later have other mounts in a
/// namespace of their own.
pub fn written_to(mountinfo: &[u8]) -> Option<PathBuf> {
    let root = mountinfo::parse(mountinfo).find(|mounted| mounted.point == Path::new("/"))?;
    let options = root.options.to_str().filter(|_| root.kind == "overlay")?;
    let upper = options.split(',').find_map(|option| option.strip_prefix("upperdir="))?;
    Some(PathBuf::from(upper)).filter(|path| path.is_absolute())
}

/// Whether only root can reach and change this path. False for a path that leads through a link, or does not
/// exist (the engine runs in another mount namespace).
fn is_roots_alone(path: &Path) -> bool {
    let is_plain = path.is_absolute() && path.components().all(|part| part != Component::ParentDir);
    let is_roots = |above: &Path| {
        std::fs::symlink_metadata(above)
            .is_ok_and(|found| found.is_dir() && found.uid() == 0 && found.mode() & 0o022 == 0)
    };
    let is_closed =
        |above: &Path| std::fs::symlink_metadata(above).is_ok_and(|found| found.mode() & 0o001 == 0);
    let above = || path.ancestors().skip(1);
    is_plain
        && above().count() > 2
        && above().all(is_roots)
        && above().any(is_closed)
        && std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

/// Removes the content of this directory. Other futures of this thread make progress meanwhile. A directory that
/// another process has removed (the epilog of another job, the engine) counts as empty.
async fn empty(path: &Path, deadline: Instant) -> io::Result<()> {
    let is_not_found = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    match empty_existing(path, deadline).await {
        // The answer of getdents64(2) too, for a directory that is removed while it is open.
        Err(error) if is_not_found(&error) => match std::fs::symlink_metadata(path) {
            Err(found) if is_not_found(&found) => Ok(()),
            _ => Err(error),
        },
        emptied => emptied,
    }
}

async fn empty_existing(path: &Path, deadline: Instant) -> io::Result<()> {
    let mut content = Content::of(path)?;
    while !content.remove(Instant::now() + SLICE)? {
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        tokio::task::yield_now().await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layer_of_a_container_is_found_among_its_mounts() {
        let text =
            b"1 0 0:5 / / rw - overlay overlay rw,lowerdir=/a:/b,upperdir=/var/lib/x/9/fs,workdir=/w\n\
            2 1 0:5 / /x rw - overlay overlay rw,upperdir=/other\n";
        assert_eq!(written_to(text), Some("/var/lib/x/9/fs".into()));
        let id = "0123456789abcdef".repeat(4);
        let of = |root: &str| {
            let text = format!("7 0 8:1 {root} /x rw - ext4 /dev/sda rw\n");
            volumes(&mountinfo::parse(text.as_bytes()).collect::<Vec<_>>())
        };
        for root in [format!("/lib/docker/volumes/{id}/_data"), format!("/{id}/_data")] {
            assert_eq!(of(&root), [7], "{root}");
        }
        for root in
            [format!("/x/{id}"), "/x/named/_data".to_owned(), format!("/{id}/_data/below"), "/".to_owned()]
        {
            assert!(of(&root).is_empty(), "{root}");
        }
        assert_eq!(written_to(b"1 0 0:5 / / rw - ext4 /dev/sda rw,upperdir=/x\n"), None);
        assert_eq!(written_to(b"1 0 0:5 / / rw - overlay overlay rw,lowerdir=/a\n"), None);
    }

    #[test]
    fn directory_that_another_process_has_removed_counts_as_empty() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let emptied = |path: &Path| runtime.block_on(empty(path, Instant::now() + REMOVAL));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("diff");
        std::fs::create_dir_all(path.join("a/b")).unwrap();
        emptied(&path).unwrap();
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
        std::fs::remove_dir(&path).unwrap();
        emptied(&path).unwrap();
        std::os::unix::fs::symlink("/nowhere", &path).unwrap();
        assert!(emptied(&path).is_err());
    }

    #[test]
    fn directory_that_others_can_reach_is_not_emptied() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        for path in
            [deep.as_path(), "/usr/lib/x86".as_ref(), "/".as_ref(), "/usr".as_ref(), "relative".as_ref()]
        {
            assert!(!is_roots_alone(path), "{}", path.display());
        }
    }
}

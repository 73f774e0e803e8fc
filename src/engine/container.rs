//! The operations of the engine on containers.
//!
//! Runs as root: in the prolog, the epilog and a starting slurmd; for a step's own container in its task and its slurmstepd.

use std::collections::HashMap;
use std::time::{Duration, Instant, UNIX_EPOCH};

use bollard::container::LogOutput;
use bollard::query_parameters::{
    ContainerArchiveInfoOptions, CreateContainerOptions, DownloadFromContainerOptions,
    InspectContainerOptions, LogsOptions, StartContainerOptions,
};
use futures_util::StreamExt;
use serde::Deserialize;

use super::connection::{Engine, EngineError, last_output_line};
use super::container_spec::{ContainerSpec, Hiding, body};
use super::{list, shim};
use crate::linux::poll;

/// How much of an archive is read to find a link: its header, and another one before that for a long name.
const HEAD: usize = 16 << 10;
/// How long the engine may take to notice that a container has ended.
const ENDING: Duration = Duration::from_secs(5);

/// A container that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
}

/// The type of the file at a path in a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileType {
    /// A regular file.
    File {
        /// In bytes.
        size: u64,
    },
    /// A symbolic link.
    Link,
    /// A directory.
    Directory,
    /// A FIFO, device …
    Other,
}

impl FileType {
    /// Decodes a mode of Go's os.FileMode.
    fn new(mode: u32, size: i64) -> Self {
        const LINK: u32 = 1 << 27;
        const DIRECTORY: u32 = 1 << 31;
        // The bits for device, FIFO, socket, character device and irregular file.
        const OTHER: u32 = 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19;
        match mode {
            mode if mode & LINK != 0 => Self::Link,
            mode if mode & DIRECTORY != 0 => Self::Directory,
            mode if mode & OTHER != 0 => Self::Other,
            _ => Self::File { size: size.try_into().unwrap_or_default() },
        }
    }
}

/// A container as the engine lists it.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The container.
    pub container: Container,
    /// Its names, without the leading slash.
    pub names: Vec<String>,
    /// Its labels.
    pub labels: HashMap<String, String>,
    /// Whether one of its processes may run, or is about to start; true if that is not certain.
    pub is_live: bool,
    /// Whether none of its processes has ever run; false if that is not certain.
    pub is_unstarted: bool,
    /// How long ago it was created, by this machine's clock.
    pub age: Option<Duration>,
}

impl Engine {
    /// Creates a container; no process starts yet. The engine copies the image's content of volumes into them,
    /// which takes time if that is large.
    pub async fn create(&self, spec: &ContainerSpec) -> Result<Container, EngineError> {
        let options = CreateContainerOptions { name: Some(spec.name.clone()), platform: String::new() };
        let hiding = if self.is_docker() { Hiding::Removal } else { Hiding::EmptyValue };
        let request = self.docker.create_container(Some(options), body(spec, hiding));
        Ok(Container { id: self.patient_call("create the container", request).await?.id })
    }

    /// The type of the file at a path in a container, which the engine resolves before the start; `None` where
    /// there is no file. The engine follows links on the way, but not a link at the end.
    pub async fn kind(&self, container: &Container, path: &str) -> Result<Option<FileType>, EngineError> {
        let options = ContainerArchiveInfoOptions { path: path.to_owned() };
        let request = self.docker.get_container_archive_info(&container.id, Some(options));
        match self.call("inspect a path in the container", request).await {
            Ok(found) => Ok(Some(FileType::new(found.file_mode, found.size))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The target of a link in a container, as stored in the image: reads only the head of the archive that the
    /// engine makes of the link. `None` where the engine sends something other than a link.
    pub async fn link(&self, container: &Container, path: &str) -> Result<Option<Vec<u8>>, EngineError> {
        let options = DownloadFromContainerOptions { path: path.to_owned() };
        let mut stream = self.docker.download_from_container(&container.id, Some(options));
        let read = async {
            let mut head = Vec::new();
            while let Some(chunk) = stream.next().await.transpose()? {
                head.extend(chunk.iter().take(HEAD - head.len()));
                if head.len() == HEAD {
                    break;
                }
            }
            Ok(head)
        };
        let head = self.call("inspect a path in the container", read).await?;
        Ok(target_of_link(&head))
    }

    /// Starts it, and returns the pid of its first process.
    pub async fn start(&self, container: &Container) -> Result<Option<i32>, EngineError> {
        let request = self.docker.start_container(&container.id, None::<StartContainerOptions>);
        let started = self.call("start the container", request).await;
        if let Err(EngineError::Refused { .. }) = started {
            // Even if this fails, the caller gets the refusal.
            let _ = shim::end(&container.id);
        }
        started?;
        self.first_process(container).await
    }

    /// The pid of its first process, if it runs.
    pub async fn first_process(&self, container: &Container) -> Result<Option<i32>, EngineError> {
        let request = || self.docker.inspect_container(&container.id, None::<InspectContainerOptions>);
        let inspected = self.call_for_states("inspect the container", request).await?;
        let state = inspected.state.unwrap_or_default();
        let pid = state.pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0);
        Ok(pid.filter(|_| state.running == Some(true)))
    }

    /// The last line of output of a container whose first process has ended, shortened; a line of standard
    /// error, if there is one. It tells why sshd ended.
    pub async fn last_output_line(&self, container: &Container) -> Result<Option<String>, EngineError> {
        // The output is complete when the engine itself reports that the container has ended, which it notices
        // later than the plugin does.
        const INTERVAL: Duration = Duration::from_millis(20);
        let first_process = async || self.first_process(container).await;
        let has_ended = |found: &Result<_, _>| !matches!(found, Ok(Some(_)));
        poll::until_meanwhile(Instant::now() + ENDING, INTERVAL, first_process, has_ended).await?;
        let options = LogsOptions { stdout: true, stderr: true, tail: "5".to_owned(), ..Default::default() };
        let call = "read the container's log";
        let pieces = self.pieces(call)?;
        let mut stream = pieces.docker.logs(&container.id, Some(options));
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        while let Some(chunk) = self.call(call, pieces.next(&mut stream)).await? {
            let text = if matches!(chunk, LogOutput::StdErr { .. }) { &mut errors } else { &mut output };
            text.extend_from_slice(&chunk.into_bytes());
        }
        Ok(last_output_line([&errors, &output]))
    }

    /// All containers, running or not, that carry this label (`name` or `name=value`).
    pub async fn labelled(&self, label: &str) -> Result<Vec<Listed>, EngineError> {
        let path = format!("/containers/json?all=true&filters={}", list::with_label(label));
        let listed: Vec<Summary> = self.list("list containers", &path, &MEMBERS).await?;
        Ok(listed.into_iter().map(Summary::listed).collect())
    }

    /// The container of this name, running or not.
    pub async fn named(&self, name: &str) -> Result<Option<Listed>, EngineError> {
        let request = || self.docker.inspect_container(name, None::<InspectContainerOptions>);
        let found = match self.call_for_states("inspect the container", request).await {
            Ok(found) => found,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(id) = found.id else { return Ok(None) };
        let state = found.state.unwrap_or_default();
        Ok(Some(Listed {
            container: Container { id },
            names: found.name.iter().map(|name| name.trim_start_matches('/').to_owned()).collect(),
            labels: found.config.unwrap_or_default().labels.unwrap_or_default(),
            is_live: state.running != Some(false),
            is_unstarted: false,
            age: None,
        }))
    }
}

/// A container in an engine's list.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Summary {
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    labels: Option<HashMap<String, String>>,
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    created: Option<i64>,
}

/// What is read of it.
const MEMBERS: [&str; 5] = ["Id", "Names", "Labels", "State", "Created"];

impl Summary {
    fn listed(self) -> Listed {
        let names = self.names.unwrap_or_default();
        // Podman says `stopped` until it has cleaned up after the processes.
        let has_ended = matches!(self.state.as_deref(), Some("exited" | "dead" | "stopped"));
        Listed {
            container: Container { id: self.id },
            names: names.iter().map(|name| name.trim_start_matches('/').to_owned()).collect(),
            labels: self.labels.unwrap_or_default(),
            is_live: !has_ended,
            is_unstarted: self.state.as_deref() == Some("created"),
            age: self.created.and_then(age),
        }
    }
}

/// The time since `created`, which is in seconds since 1970. `None` for a time in the future.
fn age(created: i64) -> Option<Duration> {
    let created = UNIX_EPOCH.checked_add(Duration::from_secs(created.try_into().ok()?))?;
    created.elapsed().ok()
}

/// The link target in the first entry of an archive.
fn target_of_link(head: &[u8]) -> Option<Vec<u8>> {
    let mut archive = tar::Archive::new(head);
    let first = archive.entries().ok()?.next()?.ok()?;
    let target = first.header().entry_type().is_symlink().then(|| first.link_name_bytes())?;
    target.map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Modes from answers of an engine.
    #[test]
    fn file_types_are_decoded_from_go_modes() {
        assert_eq!(FileType::new(420, 7), FileType::File { size: 7 });
        assert_eq!(FileType::new(0o4755 | 1 << 23, -1), FileType::File { size: 0 });
        assert_eq!(FileType::new(2_147_484_141, 7), FileType::Directory);
        assert_eq!(FileType::new(33_554_870, 7), FileType::Other);
        assert_eq!(FileType::new(134_218_239, 7), FileType::Link);
    }

    #[test]
    fn link_is_read_from_the_head_of_an_archive() {
        let link = |target: &str| {
            let mut archive = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            archive.append_link(&mut header, "passwd", target).unwrap();
            archive.into_inner().unwrap()
        };
        let long = format!("/{}", "x/".repeat(500));
        for target in ["/proc/1/root/etc", long.as_str()] {
            assert_eq!(target_of_link(&link(target)).as_deref(), Some(target.as_bytes()));
        }
        let whole = link(&long);
        for cut in [0, 100, 600, 1100] {
            assert_eq!(target_of_link(&whole[..cut]), None, "{cut}");
        }
        let mut file = tar::Header::new_ustar();
        file.set_size(0);
        file.set_cksum();
        assert_eq!(target_of_link(file.as_bytes()), None);
    }
}

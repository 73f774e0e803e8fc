//! Checks, before the start, the files of an image that the engine itself reads or makes as root when it starts
//! a container: it looks the user up in the image's accounts, and makes devices.
//!
//! Where such a file is a FIFO, the start never ends, and neither does the removal: a user could take the node
//! out of service. Where it is a device, root opens that. Where it is huge, the engine may hold all of it in
//! memory.
//!
//! Links are followed here, one by one, from their targets in the image. The engine could resolve a link
//! itself, but only in the image: a link through /proc ends in the image's own directory before the start, and
//! in the host's files after it.
//!
//! Runs as root where a container is started: in the prolog, or in the task that starts its step's container.

use std::cell::RefCell;
use std::collections::BTreeMap;

use futures_util::future::{try_join, try_join_all};

use crate::engine::{Container, Engine, EngineError, FileType};
use crate::state::ImageUses;

/// Files that the engine opens.
const READ: [&str; 2] = ["/etc/passwd", "/etc/group"];
/// The largest such file, in bytes: more than the accounts of any site.
const LIMIT: u64 = 64 << 20;
/// Where a runtime mounts file systems and makes devices, as root: in the container the image's files there are
/// covered.
const SYSTEM: [&str; 3] = ["/dev", "/proc", "/sys"];
/// With more links than this on the way to one file, the path counts as a loop, or as an attack.
const LINKS: usize = 10;
/// The same for the number of a path's parts.
const PARTS: usize = 100;

/// Why the engine must not start a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnsafeAccountFile {
    /// A file that the engine would open.
    File(&'static str),
    /// A directory of the system that is something else in the image: a link, of which a runtime may make more
    /// than a name in the container. crun 1.21 makes its devices where a link at /dev leads *on the node*.
    Directory(&'static str),
    /// The engine cannot show the container's files: Engine 28.5, where a volume is behind an absolute link
    /// (`/var/run/x`), although it starts such a container.
    Closed,
}

/// The version of these checks: a new one makes that images are checked again.
const VERSION: u32 = 1;

/// The first problem with a file that the engine would open, or a directory on which it would mount. In containers of Docker,
/// which has the same files in each container of an image until that is started, an image is checked once on a node. Podman may
/// lack directories that the plugin has to put into each container.
pub(super) async fn check(
    engine: &Engine,
    container: &Container,
    image_id: &str,
    uses: &ImageUses,
) -> Result<Option<UnsafeAccountFile>, EngineError> {
    let is_same_for_all = engine.is_docker();
    if is_same_for_all && uses.of(image_id).is_some_and(|known| known.checked == VERSION) {
        return Ok(None);
    }
    let found = find_unsafe_account_file(engine, container).await?;
    if is_same_for_all && found.is_none() {
        // Where it cannot be noted, each start checks.
        let _ = uses.note_checked(image_id, VERSION);
    }
    Ok(found)
}

/// The same in this container.
async fn find_unsafe_account_file(
    engine: &Engine,
    container: &Container,
) -> Result<Option<UnsafeAccountFile>, EngineError> {
    let looks = Looks { engine, container, seen: RefCell::default() };
    // One after the other: both begin in the same directory, which the engine is asked about once.
    let files = async {
        for path in READ {
            if !looks.is_harmless(path).await? {
                return Ok(Some(UnsafeAccountFile::File(path)));
            }
        }
        Ok(None)
    };
    let directories = SYSTEM.map(|path| async {
        let is_directory = looks.is_directory(path).await?;
        Ok::<_, EngineError>((!is_directory).then_some(UnsafeAccountFile::Directory(path)))
    });
    let (file, directories) = try_join(files, try_join_all(directories)).await?;
    let Some(trap) = file.into_iter().chain(directories.into_iter().flatten()).next() else {
        return Ok(None);
    };
    match engine.kind(container, "/").await {
        Err(EngineError::Refused { .. }) => Ok(Some(UnsafeAccountFile::Closed)),
        Err(error) => Err(error),
        // The container itself is gone, not the image's file.
        Ok(None) => Err(EngineError::Refused {
            call: "inspect the container's files",
            status: 404,
            message: "no such container".to_owned(),
        }),
        Ok(Some(_)) => Ok(Some(trap)),
    }
}

/// Looks at a container's links and files. The engine mounts them for each request, so none is made twice: before the start
/// nothing changes them.
struct Looks<'a> {
    engine: &'a Engine,
    container: &'a Container,
    seen: RefCell<BTreeMap<String, Option<FileType>>>,
}

impl Looks<'_> {
    async fn kind(&self, path: &str) -> Result<Option<FileType>, EngineError> {
        let seen = self.seen.borrow().get(path).copied();
        if let Some(kind) = seen {
            return Ok(kind);
        }
        let kind = self.engine.kind(self.container, path).await?;
        self.seen.borrow_mut().insert(path.to_owned(), kind);
        Ok(kind)
    }

    /// Whether this is a directory. Docker makes its own over the image's file before this check (moby,
    /// daemon/initlayer). Podman uses what is there: where there is nothing, the plugin puts a directory there
    /// (buildah, copier/copier.go, `copierHandlerPut`), and checks it.
    async fn is_directory(&self, path: &str) -> Result<bool, EngineError> {
        let Self { engine, container, .. } = *self;
        let kind = async {
            match engine.kind(container, path).await? {
                None => {
                    engine.put_directory(container, "/", path.trim_start_matches('/')).await?;
                    engine.kind(container, path).await
                }
                kind => Ok(kind),
            }
        };
        match kind.await {
            Err(EngineError::Refused { .. }) => Ok(false),
            kind => Ok(kind? == Some(FileType::Directory)),
        }
    }

    /// Whether this is a regular file of a plausible size, also through links, or is missing.
    async fn is_harmless(&self, path: &str) -> Result<bool, EngineError> {
        match self.end(path).await {
            Ok(PathEnd::Nothing) => Ok(true),
            Ok(PathEnd::At(FileType::File { size })) => Ok(size <= LIMIT),
            Ok(PathEnd::At(FileType::Link | FileType::Directory | FileType::Other) | PathEnd::Elsewhere) => {
                Ok(false)
            }
            Err(EngineError::Refused { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Where a path leads. An engine that does not return a link's target as the image has it leaves that unknown.
    async fn end(&self, path: &str) -> Result<PathEnd, EngineError> {
        let (mut way, mut links) = (Way::default(), 0);
        way.turn(path);
        while let Some(next) = way.next() {
            let here = match next {
                PathStep::To(path) => path,
                PathStep::Out => return Ok(PathEnd::Elsewhere),
            };
            match self.kind(&here).await? {
                None => return Ok(PathEnd::Nothing),
                Some(FileType::Directory) => {}
                Some(FileType::Link) if links < LINKS => {
                    links += 1;
                    let target = self.engine.link(self.container, &here).await?;
                    let Some(target) = target.and_then(|target| String::from_utf8(target).ok()) else {
                        return Ok(PathEnd::Elsewhere);
                    };
                    way.turn(&target);
                }
                Some(other) if way.is_at_end() => return Ok(PathEnd::At(other)),
                Some(_) => return Ok(PathEnd::Elsewhere),
            }
        }
        Ok(PathEnd::At(FileType::Directory))
    }
}

/// Where a path leads.
#[derive(Debug, PartialEq, Eq)]
enum PathEnd {
    Nothing,
    At(FileType),
    /// The path leads outside the image's own files, or to an unknown place.
    Elsewhere,
}

/// A walk from an image's root: it continues below a path only when that was seen to be a directory.
#[derive(Debug, Default)]
struct Way {
    /// The parts of the path that were walked.
    walked: Vec<String>,
    /// The parts that are still to be walked, the next one last.
    ahead: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum PathStep {
    /// The file at this path must be looked up.
    To(String),
    /// The container has other files there than the image; or the path is too long.
    Out,
}

impl Way {
    /// Follows a link, or starts with the first path: a relative target begins in the directory of the link.
    fn turn(&mut self, target: &str) {
        self.walked.pop();
        if target.starts_with('/') {
            self.walked.clear();
        }
        self.ahead.extend(target.split('/').rev().map(str::to_owned));
    }

    fn next(&mut self) -> Option<PathStep> {
        while let Some(part) = self.ahead.pop() {
            match part.as_str() {
                "" | "." => {}
                ".." => drop(self.walked.pop()),
                _ => {
                    self.walked.push(part);
                    let path = format!("/{}", self.walked.join("/"));
                    // Also if the path would lead back out: `/proc/1/root/..` is the host's.
                    let is_out = SYSTEM.contains(&path.as_str()) || self.ahead.len() > PARTS;
                    return Some(if is_out { PathStep::Out } else { PathStep::To(path) });
                }
            }
        }
        None
    }

    fn is_at_end(&self) -> bool {
        self.ahead.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};

    use base64ct::{Base64, Encoding};

    use super::*;
    use crate::linux::runtime::runtime;

    /// An engine that shows a container in which the files that are read have this mode (Go's `fs.FileMode`). Returns the paths
    /// that it was asked about.
    fn serve(listener: &UnixListener, version: &str, read: u32) -> Vec<String> {
        let mut asked = Vec::new();
        for mut client in listener.incoming().flatten() {
            let mut request = [0; 4096];
            // The first connection only tests whether a process serves the socket.
            let Ok(length @ 1..) = client.read(&mut request) else { continue };
            if request.starts_with(b"over") {
                break;
            }
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
            let Some((_, path)) = request.split_once("/archive?path=") else {
                write!(client, "{head}Content-Length: {}\r\n\r\n{version}", version.len()).unwrap();
                continue;
            };
            let path = path.split(' ').next().unwrap_or_default().replace("%2F", "/");
            let mode = if READ.contains(&path.as_str()) { read } else { 1_u32 << 31 | 0o755 };
            let stat = format!(
                r#"{{"name":"x","size":7,"mode":{mode},"mtime":"2026-01-01T00:00:00Z","linkTarget":""}}"#
            );
            let stat = Base64::encode_string(stat.as_bytes());
            write!(client, "{head}X-Docker-Container-Path-Stat: {stat}\r\nContent-Length: 0\r\n\r\n")
                .unwrap();
            asked.push(path);
        }
        asked.sort();
        asked
    }

    /// What `check` finds each of three times, the third with the note of an older version of it, and the paths that the engine
    /// was asked about.
    fn checked(version: &str, read: u32) -> (Vec<Option<UnsafeAccountFile>>, Vec<String>) {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::scope(|threads| {
            let served = threads.spawn(|| serve(&listener, version, read));
            let found = runtime().unwrap().block_on(async {
                let engine = Engine::connect(&socket).await.unwrap();
                let (container, uses) = (Container { id: "0".repeat(64) }, ImageUses::at(directory.path()));
                let id = "1".repeat(64);
                let mut found = Vec::new();
                for turn in 0..3 {
                    if turn == 2 && found == [None, None] {
                        uses.note_checked(&id, VERSION - 1).unwrap();
                    }
                    found.push(check(&engine, &container, &id, &uses).await.unwrap());
                }
                found
            });
            UnixStream::connect(&socket).unwrap().write_all(b"over").unwrap();
            (found, served.join().unwrap())
        })
    }

    /// It mounts the container's files for each request. Podman may need directories in each container.
    #[test]
    fn engine_is_asked_about_each_path_once_and_docker_once_for_each_image() {
        let paths = ["/dev", "/etc", "/etc/group", "/etc/passwd", "/proc", "/sys"];
        let podman = r#"{"Components":[{"Name":"Podman Engine","Version":"5.4"}]}"#;
        for (version, times) in [("{}", 2), (podman, 3)] {
            let (found, asked) = checked(version, 0o644);
            assert_eq!(found, [None; 3]);
            let expected: Vec<_> = paths.iter().flat_map(|path| std::iter::repeat_n(*path, times)).collect();
            assert_eq!(asked, expected, "{version}");
        }
    }

    #[test]
    fn image_that_was_refused_is_refused_again() {
        const FIFO: u32 = 1 << 25 | 0o644;
        let (found, _) = checked("{}", FIFO);
        assert_eq!(found, [Some(UnsafeAccountFile::File("/etc/passwd")); 3]);
    }

    /// The steps of a walk in which each of `links` is found to be one.
    fn walk(path: &str, links: &[(&str, &str)]) -> Vec<String> {
        let mut way = Way::default();
        way.turn(path);
        let mut steps = Vec::new();
        while let Some(step) = way.next() {
            let PathStep::To(path) = step else {
                steps.push("out".to_owned());
                break;
            };
            if let Some((_, target)) = links.iter().find(|(link, _)| *link == path) {
                way.turn(target);
            }
            steps.push(path);
        }
        steps
    }

    #[test]
    fn links_are_followed_from_part_to_part() {
        assert_eq!(walk("/etc/passwd", &[]), ["/etc", "/etc/passwd"]);
        let relative = [("/etc", "usr/./etc"), ("/usr/etc/passwd", "../lib//accounts")];
        let steps = ["/etc", "/usr", "/usr/etc", "/usr/etc/passwd", "/usr/lib", "/usr/lib/accounts"];
        assert_eq!(walk("/etc/passwd", &relative), steps);
        let up = [("/etc/passwd", "../../../x/../y")];
        assert_eq!(walk("/etc/passwd", &up), ["/etc", "/etc/passwd", "/x", "/y"]);
    }

    #[test]
    fn link_through_a_system_directory_is_refused_wherever_it_ends() {
        for target in [
            "/proc/1/root/tmp/f",
            "/proc/1/root/../../../tmp/f",
            "../dev/stdout",
            "/x/../sys",
            "/./proc/..//etc/accounts",
        ] {
            let steps = walk("/etc/passwd", &[("/etc/passwd", target)]);
            assert_eq!(steps.last().map(String::as_str), Some("out"), "{target}: {steps:?}");
        }
        assert_eq!(walk("/etc/passwd", &[("/etc", "/sys"), ("/sys", "/usr")]), ["/etc", "out"]);
        assert_eq!(walk("/etc/passwd", &[("/etc", &"x/".repeat(200))]), ["/etc", "out"]);
        // By their names alone such paths are the image's own.
        assert_eq!(walk("/etc/passwd", &[("/etc/passwd", "/process/x")]).last().unwrap(), "/process/x");
    }
}

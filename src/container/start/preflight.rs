//! What the engine itself reads and makes in an image, as root, when it starts a container: it looks the user up in its
//! accounts, and makes its devices.
//!
//! Where these are a FIFO, a start never ends, and neither does the removal: the node would be out of service by the will
//! of a user. Where they are a device, root opens that. Where they are huge, the engine may hold all of them in memory.
//! So they are looked at before the start.
//!
//! Links are followed here, one by one, from what stands in the image. The engine's own word, where a link ends, is about
//! the image alone: a link through /proc ends in the image's own decoy before the start, and in the host's files after it.
//!
//! Runs as root where a container is started: in the prolog, or in the task that starts its step's container.

use futures_util::future::{try_join, try_join_all};

use crate::engine::{Container, Engine, EngineError, FileType};

/// Files that the engine opens.
const READ: [&str; 2] = ["/etc/passwd", "/etc/group"];
/// The largest that it may read, in bytes: more than any site's accounts.
const LIMIT: u64 = 64 << 20;
/// Where a runtime mounts and makes devices, as root: what the image has there is not what the container has.
const SYSTEM: [&str; 3] = ["/dev", "/proc", "/sys"];
/// More links on the way to one file are a loop, or meant to be one.
const LINKS: usize = 10;
/// Of the same, what a path may have of parts.
const PARTS: usize = 100;

/// Why the engine had better not start a container.
#[derive(Debug)]
pub(super) enum UnsafeAccountFile {
    /// A file that it would open.
    File(&'static str),
    /// A directory of the system's that is something else in the image: a link, of which a runtime may make more than a
    /// name in the container. crun 1.21 makes its devices where a link at /dev leads *on the node*.
    Directory(&'static str),
    /// It does not show any: Engine 28.5 where a volume is behind an absolute link (`/var/run/x`), which it starts.
    Closed,
}

/// What is wrong with what the engine would open or mount on, if anything is.
pub(super) async fn find_unsafe_account_file(
    engine: &Engine,
    container: &Container,
) -> Result<Option<UnsafeAccountFile>, EngineError> {
    let files = READ.map(|path| async move {
        let harmless = is_harmless(engine, container, path).await?;
        Ok((!harmless).then_some(UnsafeAccountFile::File(path)))
    });
    let directories = SYSTEM.map(|path| async move {
        let harmless = is_directory(engine, container, path).await?;
        Ok((!harmless).then_some(UnsafeAccountFile::Directory(path)))
    });
    let (files, directories) = try_join(try_join_all(files), try_join_all(directories)).await?;
    let Some(trap) = files.into_iter().chain(directories).flatten().next() else { return Ok(None) };
    match engine.kind(container, "/").await {
        Err(EngineError::Refused { .. }) => Ok(Some(UnsafeAccountFile::Closed)),
        Err(error) => Err(error),
        // It is the container that is not there any more, and nothing of the image's.
        Ok(None) => Err(EngineError::Refused {
            call: "inspect the container's files",
            status: 404,
            message: "no such container".to_owned(),
        }),
        Ok(Some(_)) => Ok(Some(trap)),
    }
}

/// A directory. Docker puts its own over what the image has before anything is looked at (moby, daemon/initlayer). Podman
/// takes what is there: where there is nothing one is put there (buildah, copier/copier.go, `copierHandlerPut`), and looked at.
async fn is_directory(engine: &Engine, container: &Container, path: &str) -> Result<bool, EngineError> {
    let is_directory = async {
        if engine.kind(container, path).await?.is_none() {
            engine.put_directory(container, "/", path.trim_start_matches('/')).await?;
        }
        Ok(engine.kind(container, path).await? == Some(FileType::Directory))
    };
    match is_directory.await {
        Err(EngineError::Refused { .. }) => Ok(false),
        found => found,
    }
}

/// A regular file of a size that a list of accounts may have, by way of links too, or nothing.
async fn is_harmless(engine: &Engine, container: &Container, path: &str) -> Result<bool, EngineError> {
    match end(engine, container, path).await {
        Ok(PathEnd::Nothing) => Ok(true),
        Ok(PathEnd::At(FileType::File { size })) => Ok(size <= LIMIT),
        Ok(PathEnd::At(FileType::Link | FileType::Directory | FileType::Other) | PathEnd::Elsewhere) => {
            Ok(false)
        }
        Err(EngineError::Refused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Where a path leads.
#[derive(Debug, PartialEq, Eq)]
enum PathEnd {
    Nothing,
    At(FileType),
    /// Outside the image's own files, or at an unknown place.
    Elsewhere,
}

/// An engine that does not give a link as it stands in the image leaves it unknown where that leads.
async fn end(engine: &Engine, container: &Container, path: &str) -> Result<PathEnd, EngineError> {
    let (mut way, mut links) = (Way::default(), 0);
    way.turn(path);
    while let Some(next) = way.next() {
        let here = match next {
            PathStep::To(path) => path,
            PathStep::Out => return Ok(PathEnd::Elsewhere),
        };
        match engine.kind(container, &here).await? {
            None => return Ok(PathEnd::Nothing),
            Some(FileType::Directory) => {}
            Some(FileType::Link) if links < LINKS => {
                links += 1;
                let target = engine.link(container, &here).await?;
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

/// A walk from the root of an image: only where it has been seen to be a directory does it go on.
#[derive(Debug, Default)]
struct Way {
    /// Parts of the path that was walked.
    walked: Vec<String>,
    /// Parts that are to be walked, the next one last.
    ahead: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum PathStep {
    /// What is there must be looked at.
    To(String),
    /// Where the container has something else than the image; or the way is too long.
    Out,
}

impl Way {
    /// A link, or the first path: it stands in the directory where the walk is before its last step.
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
                    // Also if it would lead back: `/proc/1/root/..` is the host's.
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
    use super::*;

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
        // By their names alone they are the image's own.
        assert_eq!(walk("/etc/passwd", &[("/etc/passwd", "/process/x")]).last().unwrap(), "/process/x");
    }
}

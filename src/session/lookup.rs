//! What the engine itself reads and makes in an image, as root, when it starts a container: it looks the user up in its
//! accounts, and makes its devices.
//!
//! Where these are a FIFO, a start never ends, and neither does the removal: the node would be out of service by the will
//! of a user. Where they are a device, root opens that. Where they are huge, the engine may hold all of them in memory.
//! So they are looked at before the start.
//!
//! Runs as root in the prolog.

use futures_util::future::{try_join, try_join_all};

use crate::docker::{Container, Engine, EngineError, Kind};

/// Files that the engine opens.
const READ: [&str; 2] = ["/etc/passwd", "/etc/group"];
/// The largest that it may read, in bytes: more than any site's accounts.
const LIMIT: u64 = 64 << 20;

/// Where a runtime mounts and makes devices, as root.
const SYSTEM: [&str; 3] = ["/dev", "/proc", "/sys"];

/// Why the engine had better not start a container.
#[derive(Debug)]
pub(super) enum Trap {
    /// A file that it would open.
    File(&'static str),
    /// A directory of the system's that is something else in the image: a link, of which a runtime may make more than a
    /// name in the container. crun 1.21 makes its devices where a link at /dev leads *on the node*.
    Directory(&'static str),
    /// It does not show any: Engine 28.5 where a volume is behind an absolute link (`/var/run/x`), which it starts.
    Closed,
}

/// What is wrong with what the engine would open, if anything is.
pub(super) async fn trap(engine: &Engine, container: &Container) -> Result<Option<Trap>, EngineError> {
    let files = READ.map(|path| async move {
        let harmless = is_harmless(engine, container, path).await?;
        Ok((!harmless).then_some(Trap::File(path)))
    });
    let directories = SYSTEM.map(|path| async move {
        let harmless = is_directory(engine, container, path).await?;
        Ok((!harmless).then_some(Trap::Directory(path)))
    });
    let (files, directories) = try_join(try_join_all(files), try_join_all(directories)).await?;
    let Some(trap) = files.into_iter().chain(directories).flatten().next() else { return Ok(None) };
    match engine.kind(container, "/").await {
        Err(EngineError::Refused { .. }) => Ok(Some(Trap::Closed)),
        Err(error) => Err(error),
        Ok(_) => Ok(Some(trap)),
    }
}

/// A directory. Docker puts its own over what the image has before anything is looked at (moby, daemon/initlayer). Podman
/// takes what is there, and of a link that leads nowhere yet it says that there is nothing: so nothing is not enough.
async fn is_directory(engine: &Engine, container: &Container, path: &str) -> Result<bool, EngineError> {
    match engine.kind(container, path).await {
        Ok(kind) => Ok(kind == Some(Kind::Directory)),
        Err(EngineError::Refused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A regular file of a size that a list of accounts may have, by way of links too, or nothing. A link into /proc leads
/// elsewhere when the container runs.
async fn is_harmless(engine: &Engine, container: &Container, path: &str) -> Result<bool, EngineError> {
    let end = match engine.kind(container, path).await {
        Ok(Some(Kind::Link(end))) if end.starts_with("/proc") => return Ok(false),
        Ok(Some(Kind::Link(end))) => engine.kind(container, &end).await,
        other => other,
    };
    match end {
        Ok(end) => Ok(match end {
            None => true,
            Some(Kind::File { size }) => size <= LIMIT,
            Some(Kind::Link(_) | Kind::Directory | Kind::Other) => false,
        }),
        // It does not come to an end of the links.
        Err(EngineError::Refused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

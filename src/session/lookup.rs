//! What the engine itself reads of an image, as root, when it starts a container: it looks the user up in its accounts.
//!
//! Where these are a FIFO, a start never ends, and neither does the removal: the node would be out of service by the will
//! of a user. Where they are a device, root opens that. Where they are huge, the engine may hold all of them in memory.
//! So they are looked at before the start.
//!
//! Runs as root in the prolog.

use futures_util::future::try_join_all;

use crate::docker::{Container, Engine, EngineError, Kind};

/// Files that the engine opens.
const READ: [&str; 2] = ["/etc/passwd", "/etc/group"];
/// The largest that it may read, in bytes: more than any site's accounts.
const LIMIT: u64 = 64 << 20;

/// Why the engine had better not start a container.
#[derive(Debug)]
pub(super) enum Trap {
    /// A file that it would open.
    File(&'static str),
    /// It does not show any: Engine 28.5 where a volume is behind an absolute link (`/var/run/x`), which it starts.
    Closed,
}

/// What is wrong with what the engine would open, if anything is.
pub(super) async fn trap(engine: &Engine, container: &Container) -> Result<Option<Trap>, EngineError> {
    let looks = READ.map(|path| async move { Ok((path, is_harmless(engine, container, path).await?)) });
    let found = try_join_all(looks).await?;
    let Some((path, _)) = found.into_iter().find(|(_, harmless)| !harmless) else { return Ok(None) };
    match engine.kind(container, "/").await {
        Err(EngineError::Refused { .. }) => Ok(Some(Trap::Closed)),
        Err(error) => Err(error),
        Ok(_) => Ok(Some(Trap::File(path))),
    }
}

/// A regular file of a size that a list of accounts may have, by way of links too, or nothing. A link into /proc leads elsewhere when the container runs.
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
            Some(Kind::Link(_) | Kind::Other) => false,
        }),
        // It does not come to an end of the links.
        Err(EngineError::Refused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
